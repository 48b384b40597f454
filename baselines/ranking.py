"""What the structured rivals share: norms of pruning units, and keeping the best units that fit a budget."""

from collections.abc import Mapping

import torch
from torch import Tensor

from snp.compression.plan import Plan, shapes
from snp.compression.problem import Problem
from snp.compression.rounding import blocks, step_of
from snp.compression.statistics import wide
from snp.compression.tower import Site
from snp.errors import InputError


def groups(problem: Problem) -> dict[Site, int]:
    """Number of pruning units of every component of every layer of the problem's towers."""
    return {
        Site(name, layer, c): tower.shape.units(c)
        for name, tower in problem.towers.items()
        for layer in range(len(tower))
        for c in tower.shape.components
    }


def unit_costs(problem: Problem) -> dict[Site, int]:
    """Parameters of one pruning unit of every site."""
    sizes = shapes(problem.towers)
    return {site: sizes[site.tower].unit_cost(site.component) for site in groups(problem)}


def steps(problem: Problem) -> dict[Site, int]:
    """Pruning units of every site that stand and fall together; 1 unless the problem asks for rounded numbers."""
    return {
        site: step_of(problem.towers[site.tower].blocks[site.layer].components[site.component], problem.round_to)
        for site in groups(problem)
    }


def norms(problem: Problem) -> dict[Site, Tensor]:
    """L2 norm of all parameters of each pruning unit, [n_prune]; in attention, over all heads together."""
    found = {}
    for site in groups(problem):
        block = problem.towers[site.tower].blocks[site.layer]
        square = wide(block.units(site.component).detach()).square().sum(1).cpu()
        heads = block.components[site.component].heads
        found[site] = (square if heads == 1 else square.view(heads, -1).sum(0)).sqrt()
    return found


def quantiles(scores: dict[Site, Tensor]) -> dict[Site, Tensor]:
    """Every unit's rank at its site, in (0, 1): ranking these keeps the same share at every site [ours]."""
    return {site: (s.argsort(stable=True).argsort() + 0.5) / len(s) for site, s in scores.items()}


def best_within(problem: Problem, scores: Mapping[Site, Tensor]) -> Plan:
    """Prune all units but the highest scores that fit the budget, at least one at every site.

    Goes through the units of all sites from the highest score to the lowest and keeps each that still fits, so the
    stored size misses the target by less than the smallest unit [ours]. Under `Problem.round_to` it goes through blocks
    of units by their mean scores, and misses it by less than the smallest block.

    Raises:
        InputError: one unit (or block) per site is already more than the budget.
    """
    scores = {Site(*site): values for site, values in scores.items()}  # plain tuples will do
    cost, step = unit_costs(problem), steps(problem)
    keep = {site: torch.zeros(len(s), dtype=torch.bool) for site, s in scores.items()}
    stored = problem.budget.total - sum(cost[site] * len(s) for site, s in scores.items())
    others: list[tuple[float, int, Site, list[int]]] = []
    for site, s in scores.items():
        first, *rest = blocks(s, step[site])
        keep[site][first] = True
        stored += cost[site] * len(first)
        values = s.tolist()
        others += [(-sum(values[i] for i in units) / len(units), min(units), site, units) for units in rest]
    if stored > problem.budget.target:
        raise InputError(
            "keep",
            f"{problem.budget.keep:g} is too small",
            f"at least {stored / problem.budget.total:.4g} must remain",
        )
    for _, _, site, units in sorted(others, key=lambda block: block[:2]):
        if stored + cost[site] * len(units) <= problem.budget.target:
            keep[site][units] = True
            stored += cost[site] * len(units)
    return Plan(shapes(problem.towers), keep={site: k for site, k in keep.items() if not k.all()})
