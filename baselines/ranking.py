"""What the structured rivals share: norms of pruning units, and keeping the best units that fit a budget."""

from collections.abc import Mapping

import torch
from torch import Tensor

from snp.compression.plan import Plan, shapes
from snp.compression.problem import Problem
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
    stored size misses the target by less than the smallest unit [ours].

    Raises:
        InputError: one unit per site is already more than the budget.
    """
    scores = {Site(*site): values for site, values in scores.items()}  # plain tuples will do
    cost = unit_costs(problem)
    keep = {site: torch.zeros(len(s), dtype=torch.bool) for site, s in scores.items()}
    stored = problem.budget.total - sum(cost[site] * len(s) for site, s in scores.items())
    for site, s in scores.items():
        keep[site][s.argmax()] = True
        stored += cost[site]
    if stored > problem.budget.target:
        raise InputError(
            "keep",
            f"{problem.budget.keep:g} is too small",
            f"at least {stored / problem.budget.total:.4g} must remain",
        )
    order = sorted(
        ((-value, i, site) for site, s in scores.items() for i, value in enumerate(s.tolist())),
        key=lambda u: u[:2],
    )
    for _, i, site in order:
        if not keep[site][i] and stored + cost[site] <= problem.budget.target:
            keep[site][i] = True
            stored += cost[site]
    return Plan(shapes(problem.towers), keep={site: k for site, k in keep.items() if not k.all()})
