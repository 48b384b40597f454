"""SNIP: weights whose removal changes the loss least, by its gradient, at once or in steps."""

import torch
from pydantic import Field
from torch import Tensor

from baselines.masking import (
    ModeOptions,
    Scored,
    Scores,
    above,
    gradients,
    lowest,
    official_schedule,
    plan_of,
    schedule,
    stand_ins,
    weights,
)
from snp.compression.method import Decided, Method, Session
from snp.compression.problem import Problem
from snp.compression.registry import register
from snp.compression.statistics import evaluating
from snp.errors import InputError


def saliency(problem: Problem, values: dict[str, Tensor], official: bool = False) -> Scores:
    """|mean gradient * w| of every weight over the calibration batches, all together summing to one.

    Args:
        values: name -> what stands in for the weight.
        official: in the public code's order of operations, which decides what rounding makes equal.
    """
    leaves = stand_ins(problem, values)
    total = {name: torch.zeros_like(value) for name, value in values.items()}
    count = 0
    with evaluating(problem.model):
        for batch in problem.batches():
            for name, gradient in gradients(problem, batch, leaves).items():
                total[name] += gradient
            count += 1
    if not count:
        raise InputError("calibration", "holds no batch", "give at least one")
    if official:
        scores = {name: (gradient / count * values[name]).abs() for name, gradient in total.items()}
        norm = torch.cat([score.flatten() for score in scores.values()]).sum()
        if not norm > 0:
            raise InputError("calibration", "every gradient is zero", "check the loss and the batches")
        return {name: score / norm for name, score in scores.items()}
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
    Options = ModeOptions

    def score(self, problem: Problem) -> Scores:
        return saliency(problem, weights(problem), self.official)


@register
class IterSNIP(Method):
    """SNIP in T steps: after step t the share 1 - (1 - s)^(t/T) is zero, and gradients are those of the sparse model.

    What has fallen has the score zero from then on, and so stays out.

    Official: int(share * n) weights are out after a step, and with them all whose score is that of the last; one that
    falls early changes what falls later, and a matrix may lose everything. Of the public code's schedules this is the
    exponential one, which it advises: its linear one ends at a sparsity of one, whatever s is, and empties the model.
    Every step sees all calibration batches, where the public code goes on through its loader [ours].
    """

    name = "itersnip"
    kind = "unstructured"
    stage = "calibration"
    source = "SNIP in steps (de Jorge et al., ICLR 2021), as compared with in MULTIFLOW (CVPR 2024)"
    summary = "SNIP in steps of a geometric schedule"

    class Options(ModeOptions):
        """How many steps."""

        rounds: int = Field(10, ge=1, description="steps from dense to the target")

    options: Options

    def start(self, problem: Problem) -> Session:
        dense = weights(problem)
        alive = {name: torch.ones_like(w, dtype=torch.bool) for name, w in dense.items()}
        scores: Scores = {}
        for count in (official_schedule if self.official else schedule)(problem, dense, self.options.rounds):
            scores = saliency(problem, {name: w * alive[name] for name, w in dense.items()}, self.official)
            if not self.official:
                scores = {name: score.masked_fill(~alive[name], -1.0) for name, score in scores.items()}
            found = (above if self.official else lowest)(list(scores.values()), count)
            alive = dict(zip(scores, found, strict=True))
        return Decided(plan_of(problem, alive, self.official), lambda: scores)
