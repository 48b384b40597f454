"""What the structured rivals share: norms of pruning units, and keeping the best units that fit a budget."""

from collections.abc import Mapping

import torch
from torch import Tensor

from snp.compression.plan import Plan, shapes
from snp.compression.problem import Problem
from snp.compression.statistics import wide
from snp.compression.tower import COMPONENTS
from snp.errors import InputError

Group = tuple[str, int, str]
"""(tower, layer, component): the units among which one must survive."""


def groups(problem: Problem) -> dict[Group, int]:
    """Number of pruning units of every group of the problem's towers."""
    return {
        (name, layer, c): tower.shape.units(c)
        for name, tower in problem.towers.items()
        for layer in range(len(tower))
        for c in COMPONENTS
    }


def norms(problem: Problem) -> dict[Group, Tensor]:
    """L2 norm of all parameters of each pruning unit, [n_prune]; in attention, over all heads together."""
    found = {}
    for name, layer, c in groups(problem):
        block = problem.towers[name].blocks[layer]
        square = wide(block.units(c).detach()).square().sum(1).cpu()
        found[name, layer, c] = (square if c == "ffn" else square.view(block.n_heads, -1).sum(0)).sqrt()
    return found


def quantiles(scores: dict[Group, Tensor]) -> dict[Group, Tensor]:
    """Every unit's rank inside its group, in (0, 1): ranking these keeps the same share in every group [ours]."""
    return {group: (s.argsort(stable=True).argsort() + 0.5) / len(s) for group, s in scores.items()}


def best_within(problem: Problem, scores: Mapping[Group, Tensor]) -> Plan:
    """Prune all units but the highest scores that fit the budget, at least one in every group.

    Goes through the units of all groups from the highest score to the lowest and keeps each that still fits, so the
    stored size misses the target by less than the smallest unit [ours].

    Raises:
        InputError: one unit per group is already more than the budget.
    """
    sizes = shapes(problem.towers)
    cost = {group: sizes[group[0]].unit_cost(group[2]) for group in scores}
    keep = {group: torch.zeros(len(s), dtype=torch.bool) for group, s in scores.items()}
    stored = problem.budget.total - sum(cost[group] * len(s) for group, s in scores.items())
    for group, s in scores.items():
        keep[group][s.argmax()] = True
        stored += cost[group]
    if stored > problem.budget.target:
        raise InputError(
            "keep",
            f"{problem.budget.keep:g} is too small",
            f"at least {stored / problem.budget.total:.4g} must remain",
        )
    order = sorted(
        ((-value, i, group) for group, s in scores.items() for i, value in enumerate(s.tolist())),
        key=lambda u: u[:2],
    )
    for _, i, group in order:
        if not keep[group][i] and stored + cost[group] <= problem.budget.target:
            keep[group][i] = True
            stored += cost[group]
    return Plan(sizes, keep={group: k for group, k in keep.items() if not k.all()})
