"""SNIP: weights whose removal changes the loss least, by its gradient, at once or in steps."""

import torch
from pydantic import Field
from torch import Tensor

from baselines.masking import Decided, Scored, Scores, impossible, lowest, plan_of, removals, weights
from snp.compression.method import Method, Problem, Session
from snp.compression.method import Options as MethodOptions
from snp.compression.registry import register
from snp.compression.statistics import evaluating
from snp.errors import InputError


def saliency(problem: Problem, values: dict[str, Tensor]) -> Scores:
    """|mean gradient * w| of every weight over the calibration batches, all together summing to one.

    Args:
        values: name -> what stands in for the weight.
    """
    leaves = {name: value.clone().requires_grad_() for name, value in values.items()}
    total = {name: torch.zeros_like(value) for name, value in values.items()}
    count = 0
    with evaluating(problem.model):
        for batch in problem.batches():
            gradients = torch.autograd.grad(problem.loss(batch, dict(leaves)), list(leaves.values()), allow_unused=True)
            for name, gradient in zip(leaves, gradients, strict=True):
                if gradient is None:
                    raise InputError(name, "no gradient reaches this weight", "leave it out of the groups")
                if not gradient.isfinite().all():
                    raise InputError(name, "its gradient is not finite", "check the calibration batches")
                total[name] += gradient
            count += 1
    if not count:
        raise InputError("calibration", "holds no batch", "give at least one")
    scores = {name: (values[name] * gradient / count).abs() for name, gradient in total.items()}
    whole = sum(float(score.double().sum()) for score in scores.values())
    return {name: score / max(whole, 1e-30) for name, score in scores.items()}


@register
class SNIP(Scored):
    """Score |g * w| with g the mean gradient over the calibration batches, one threshold for everything."""

    name = "snip"
    stage = "calibration"
    source = "SNIP: single-shot network pruning based on connection sensitivity (Lee et al., ICLR 2019)"
    summary = "zero the weights whose removal changes the loss least, to first order"

    def score(self, problem: Problem) -> Scores:
        return saliency(problem, weights(problem))


class Options(MethodOptions):
    """How many steps."""

    rounds: int = Field(10, ge=1, description="steps from dense to the target")


@register
class IterSNIP(Method):
    """SNIP in T steps: after step t the share 1 - (1 - s)^(t/T) is zero, and gradients are those of the sparse model.

    What has fallen has the score zero from then on, and so stays out. (The public code's linear schedule is said to end
    at a sparsity of one; this one ends at s.)
    """

    name = "itersnip"
    kind = "unstructured"
    stage = "calibration"
    source = "SNIP in steps (de Jorge et al., ICLR 2021), as compared with in MULTIFLOW (CVPR 2024)"
    summary = "SNIP in steps of a geometric schedule"
    Options = Options

    def start(self, problem: Problem) -> Session:
        dense = weights(problem)
        names, size = list(dense), sum(w.numel() for w in dense.values())
        whole, rounds = removals(problem, size), self.options.rounds
        alive = {name: torch.ones_like(w, dtype=torch.bool) for name, w in dense.items()}
        scores: Scores = {}
        for t in range(1, rounds + 1):
            share = 1 - (1 - whole / size) ** (t / rounds)
            count = whole if t == rounds else round(share * size)
            scores = saliency(problem, {name: w * alive[name] for name, w in dense.items()})
            scores = {name: score.masked_fill(~alive[name], -1.0) for name, score in scores.items()}
            try:
                alive = dict(zip(names, lowest(list(scores.values()), count), strict=True))
            except ValueError:
                raise impossible(problem, size, len(names)) from None
        return Decided(plan_of(problem, alive), lambda: scores)
