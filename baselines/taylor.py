"""Taylor: prune the units whose removal costs the loss least, by the gradients of a few batches."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from baselines.ranking import best_within, groups, quantiles, unit_costs
from snp.compression.method import OneShot, StructuredOptions
from snp.compression.plan import Plan
from snp.compression.problem import Problem
from snp.compression.registry import register
from snp.compression.statistics import evaluating
from snp.compression.tower import Patch, Site, iterate
from snp.errors import InputError

Masks = dict[Site, Tensor]


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
        cost = unit_costs(problem)
        return best_within(problem, {site: score / cost[site] for site, score in scores.items()})


def taylor(problem: Problem, batches: int) -> Masks:
    """Mean over batches of every pruning unit's squared <g, w>, [n_prune] each, in float64.

    Raises:
        InputError: no batch, or a gradient that is not finite.
    """
    masks = {site: torch.ones(n, requires_grad=True) for site, n in groups(problem).items()}
    sums: Masks = {site: torch.zeros(len(mask), dtype=torch.float64) for site, mask in masks.items()}
    seen = 0
    with evaluating(problem.model):
        for batch in problem.batches(batches):
            _, found = problem.gradients(batch, lambda: masked(problem, masks), masks.values())
            for (site, total), slope in zip(sums.items(), found, strict=True):
                if slope is not None and not slope.isfinite().all():
                    raise InputError("taylor", "a gradient is not finite", "check the batches and the loss")
                sums[site] = total if slope is None else total + slope.double().square()
            seen += 1
    if not seen:
        raise InputError("calibration", "holds no batch", "give at least one")
    return {site: total / seen for site, total in sums.items()}


def masked(problem: Problem, masks: Masks) -> dict[str, Tensor]:
    """Every parameter that belongs to units, each unit times its mask entry; differentiable in these."""
    patch = Patch()
    for name, layer, block in iterate(problem.towers):
        for c in block.components:
            units = problem.towers[name].shape.expand(c, masks[Site(name, layer, c)])
            for kind, part, ref in block.pieces(c):
                parameter = getattr(ref, kind)
                dense = problem.model.get_parameter(parameter)[ref.rows].detach()
                factor = units.to(dense) if part.each == 1 else units.to(dense).repeat_interleave(part.each)
                shape = [-1 if d == part.dim else 1 for d in range(dense.dim())]
                patch.add(parameter, ref.start, dense * factor.view(shape))
    return patch.parameters()
