"""Magnitude: unstructured pruning of the smallest tower weights, one threshold for everything (OMP)."""

import torch

from snp.compression.method import OneShot, Problem
from snp.compression.plan import Plan
from snp.compression.registry import register
from snp.compression.tower import ROLES
from snp.errors import InputError


@register
class Magnitude(OneShot):
    """Zeroes the smallest |w| of all linear weights of both towers, ranked globally.

    Biases, norms, embeddings and everything outside the towers stay [MULTIFLOW's convention]. Exactly as many
    weights are masked as the budget removes from ALL parameters.
    """

    name = "magnitude"
    kind = "unstructured"
    stage = "one-shot"
    source = "OMP: one-shot global magnitude pruning, as in MULTIFLOW (CVPR 2024)"
    summary = "zero the smallest weights of both towers, one global threshold"

    def plan(self, problem: Problem) -> Plan:
        towers = problem.towers.values()
        names = sorted(
            {block.ref(role).weight for tower in towers for block in tower.blocks for role in ROLES}
        )
        weights = [problem.model.get_parameter(name).detach() for name in names]
        magnitude = torch.cat([weight.abs().flatten() for weight in weights])
        ends = torch.tensor([weight.numel() for weight in weights]).cumsum(0)
        for weight, end in zip(weights, ends.tolist(), strict=True):  # the largest of each matrix survives
            magnitude[end - weight.numel() + int(weight.abs().argmax())] = torch.inf
        remove = problem.budget.total - problem.budget.target
        if remove > len(magnitude) - len(weights):
            least = 1 - (len(magnitude) - len(weights)) / problem.budget.total
            raise InputError("keep", f"{problem.budget.keep:g} is too small", f"choose at least {least:.4f}")
        kept = torch.ones(len(magnitude), dtype=torch.bool)
        kept[magnitude.argsort(stable=True)[:remove]] = False
        masks = kept.split([weight.numel() for weight in weights])
        return Plan(
            towers={name: tower.shape for name, tower in problem.towers.items()},
            masks={
                name: mask.view_as(w)
                for name, mask, w in zip(names, masks, weights, strict=True)
                if not mask.all()
            },
        )
