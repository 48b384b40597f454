"""MULTIFLOW: how much signal flows through a weight's two neurons; magnitudes share the budget out."""

from collections.abc import Callable
from itertools import chain

import torch
from torch import Tensor

from baselines.masking import (
    ModeOptions,
    Scores,
    above,
    impossible,
    lowest,
    plan_of,
    removals,
    share_of,
    split,
    weights,
)
from snp.compression.method import Decided, Method, Session
from snp.compression.problem import Problem
from snp.compression.registry import register
from snp.compression.statistics import input_energy


@register
class MULTIFLOW(Method):
    """One shot, without gradients: S_ij = I_out(i) * I_in(j) * |W_ij|, with a = sqrt(A) and A the energy of the inputs.

    I_out(i) = mean over j of |W_ij| a_j, the saliency of output neuron i; I_in(j) = mean over i of |W_ij| a_j.

    Budget: in every modality the smallest |w| say which share of each weight matrix goes; the scores, which weights.
    In `official` mode shares are cut to whole numbers on the way, equal weights fall together, and a matrix whose every
    weight falls is pruned whole, as the plan's note says; several passes of one batch (captions and regions) are one
    input of all their samples. Corrected [ours]: exactly the budget, one weight of each matrix stays. In both modes
    every map has the token mask of what it sees; the public code takes that of the text wherever its length fits.
    """

    name = "multiflow"
    kind = "unstructured"
    stage = "calibration"
    source = "MULTIFLOW: Shifting Towards Task-Agnostic Vision-Language Pruning (Farina et al., CVPR 2024)"
    summary = "zero the weights that carry least information flow, by modality"
    Options = ModeOptions

    def start(self, problem: Problem) -> Session:
        parts = chain.from_iterable(map(problem.parts, problem.batches()))
        energy = input_energy(problem.model, problem.groups, parts, problem.run, problem.token_masks, self.official)
        dense = weights(problem)

        def score(name: str) -> Tensor:
            return flow(dense[name], energy[name])

        masks = (official_masks if self.official else exact_masks)(problem, dense, score)
        return Decided(plan_of(problem, masks, self.official), lambda: {name: score(name) for name in dense})


def flow(weight_OI: Tensor, energy_I: Tensor) -> Tensor:
    """The information-flow score of every weight, [out, in]."""
    magnitude = weight_OI.abs()
    carried = magnitude * energy_I.sqrt()
    return carried.mean(1)[:, None] * carried.mean(0)[None] * magnitude


def exact_masks(problem: Problem, dense: Scores, score: Callable[[str], Tensor]) -> dict[str, Tensor]:
    """Exactly the budget: magnitudes share it out among a modality's matrices, scores spend it. [ours: the ties]"""
    groups = [names for names in problem.groups.values() if names]
    sizes = [sum(dense[name].numel() for name in names) for names in groups]
    masks = {}
    for names, count in zip(groups, split(removals(problem, dense), sizes), strict=True):
        try:
            by_size = lowest([dense[name] for name in names], count, torch.abs)
        except ValueError:
            raise impossible(problem, sum(sizes), len(dense)) from None
        for name, mask in zip(names, by_size, strict=True):
            (masks[name],) = lowest([score(name)], int((~mask).sum()))
    return masks


def official_masks(problem: Problem, dense: Scores, score: Callable[[str], Tensor]) -> dict[str, Tensor]:
    """As the public code rounds: k = int(s * n) in a modality, strictly larger than the k-th smallest survives."""
    share, masks = share_of(problem, dense), {}
    for names in (names for names in problem.groups.values() if names):
        by_size = above([dense[name].abs() for name in names], int(share * sum(dense[name].numel() for name in names)))
        for name, mask in zip(names, by_size, strict=True):
            size = mask.numel()
            (masks[name],) = above([score(name)], int((1 - int(mask.sum()) / size) * size))
    return masks
