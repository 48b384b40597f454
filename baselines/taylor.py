"""Taylor: prune the units whose removal costs the loss least, by the gradients of a few batches."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from baselines.ranking import Group, best_within, groups, quantiles
from snp.compression.block import UNIT_DIMS
from snp.compression.method import OneShot, StructuredOptions
from snp.compression.plan import Plan, shapes
from snp.compression.problem import Problem
from snp.compression.registry import register
from snp.compression.statistics import evaluating
from snp.compression.tower import iterate, packed
from snp.errors import InputError

Masks = dict[Group, Tensor]


@register
class Taylor(OneShot):
    """Prunes units (feed-forward neurons; query-key and value dimensions of all heads) of smallest Taylor score.

    Score of a unit: mean over batches of <g, w>^2 over all its parameters, which is the gradient in a mask of the unit,
    squared; in global ranking, divided by the unit's parameters [ours: units of attention are larger].
    """

    name = "taylor"
    kind = "structured"
    stage = "calibration"
    source = "Importance Estimation for Neural Network Pruning (Molchanov et al., CVPR 2019), first-order score"
    summary = "prune the units of least squared gradient times weight"

    class Options(StructuredOptions):
        """Where units compete, and what they are judged by."""

        scope: Literal["uniform", "global"] = Field(
            "global",
            description="global: one ranking by cost per parameter; uniform: the same share in every component",
        )
        batches: int = Field(16, ge=1, description="calibration batches [ours: 16]")

    options: Options

    def plan(self, problem: Problem) -> Plan:
        scores = taylor(problem, self.options.batches)
        if self.options.scope == "uniform":
            return best_within(problem, quantiles(scores))
        sizes = shapes(problem.towers)
        return best_within(problem, {g: s / sizes[g[0]].unit_cost(g[2]) for g, s in scores.items()})


def taylor(problem: Problem, batches: int) -> Masks:
    """Mean over batches of every pruning unit's squared <g, w>, [n_prune] each, in float64.

    Raises:
        InputError: no batch, or a gradient that is not finite.
    """
    masks = {group: torch.ones(n, requires_grad=True) for group, n in groups(problem).items()}
    sums: Masks = {group: torch.zeros(len(mask), dtype=torch.float64) for group, mask in masks.items()}
    seen = 0
    with evaluating(problem.model):
        for batch in problem.batches(batches):
            _, found = problem.gradients(batch, lambda: masked(problem, masks), masks.values())
            for (group, total), slope in zip(sums.items(), found, strict=True):
                if slope is not None and not slope.isfinite().all():
                    raise InputError("taylor", "a gradient is not finite", "check the batches and the loss")
                sums[group] = total if slope is None else total + slope.double().square()
            seen += 1
    if not seen:
        raise InputError("calibration", "holds no batch", "give at least one")
    return {group: total / seen for group, total in sums.items()}


def masked(problem: Problem, masks: Masks) -> dict[str, Tensor]:
    """Every parameter that belongs to units, each unit times its mask entry; differentiable in these."""
    made: dict[str, Tensor] = {}
    for name, layer, block in iterate(problem.towers):
        pieces: dict[str, dict[int, Tensor]] = {}
        for c, parts in UNIT_DIMS.items():
            units = problem.towers[name].shape.expand(c, masks[name, layer, c])
            for role, dim in parts:
                ref, weight = block.ref(role), block.weight(role).detach()
                factor = units.to(weight)
                pieces.setdefault(ref.weight, {})[ref.start] = weight * (factor[:, None] if dim == 0 else factor)
                if dim == 0:
                    pieces.setdefault(ref.bias, {})[ref.start] = block.bias(role).detach() * factor
        made |= {parameter: packed(found) for parameter, found in pieces.items()}
    return made
