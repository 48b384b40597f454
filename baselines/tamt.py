"""TAMT: a mask that is trained on the pre-training task, the weights held."""

from functools import partial

import torch
from pydantic import Field
from torch import Tensor

from baselines.masking import Scores, gradients, lowest, plan_of, removals, weights
from snp.compression.method import Decided, Method, Session
from snp.compression.problem import Problem
from snp.compression.registry import register
from snp.compression.statistics import evaluating
from snp.errors import InputError


@register
class TAMT(Method):
    """Task-agnostic mask training: real scores, the highest of which are kept, learn by a straight-through gradient.

    Scores start at |w| in units of its standard deviation [ours], so before any step this is magnitude pruning. In a
    step the weights are w * mask(scores), and d mask / d score is taken as 1.
    """

    name = "tamt"
    kind = "unstructured"
    stage = "calibration"
    source = "Learning to Win Lottery Tickets in BERT Transfer via Task-agnostic Mask Training (Liu et al., NAACL 2022)"
    summary = "train which weights to keep on the pre-training task, the weights held"

    class Options(Method.Options):
        """How the mask is trained."""

        rounds: int = Field(30, ge=0, description="batches that train the mask")
        lr: float = Field(0.05, gt=0, description="Adam learning rate of scores, in standard deviations of |w| [ours]")

    options: Options

    def start(self, problem: Problem) -> Session:
        dense = weights(problem)
        kinds = {name: problem.model.get_parameter(name).dtype for name in dense}
        count = removals(problem, dense)
        scale = torch.cat([weight.abs().flatten() for weight in dense.values()]).std().clamp(min=1e-30)
        scores = {name: (weight.abs() / scale).requires_grad_() for name, weight in dense.items()}
        optimizer = torch.optim.Adam(scores.values(), lr=self.options.lr)
        steps = 0
        with evaluating(problem.model):
            for batch in problem.batches(self.options.rounds):
                masks = lowest([score.detach() for score in scores.values()], count)
                optimizer.zero_grad()
                kept = partial(masked, dense, scores, masks, kinds)
                for name, gradient in gradients(problem, batch, scores, kept).items():
                    scores[name].grad = gradient
                optimizer.step()
                steps += 1
        if not steps and self.options.rounds:
            raise InputError("calibration", "holds no batch", "give at least one")
        found = {name: score.detach() for name, score in scores.items()}
        masks = lowest(list(found.values()), count)
        return Decided(plan_of(problem, dict(zip(dense, masks, strict=True))), lambda: found)


def masked(dense: Scores, scores: Scores, masks: list[Tensor], kinds: dict[str, torch.dtype]) -> Scores:
    """The weights where a mask keeps them, 0 elsewhere; the gradient of a score is that of its mask entry.

    Args:
        kinds: name -> the type of the model's own weight, in which they are given.
    """
    return {
        name: (dense[name] * (mask + (score - score.detach()))).to(kinds[name])
        for (name, score), mask in zip(scores.items(), masks, strict=True)
    }
