"""CHITA: the sparse weights that change a quadratic model of the loss least, with the survivors set anew."""

from collections.abc import Callable

import torch
from pydantic import Field
from torch import Tensor

from baselines.masking import (
    ModeOptions,
    Scores,
    lowest,
    official_shares,
    plan_of,
    schedule,
    weights,
)
from baselines.quadratic import Quadratic, Support, quadratic
from snp.compression.method import Decided, Method, Session
from snp.compression.problem import Problem
from snp.compression.registry import register

GAIN = 1e-6
"""By which part a step must lower the objective: gradients in float32 tell no less."""
LENGTHS = 10
"""How many lengths of a step of hard thresholding are tried before the search ends."""


@register
class CHITA(Method):
    """min over d with k weights w0 + d left of ||A d + 1/m||^2/2 + n lambda ||d||^2/2, a row of A a gradient.

    That is the loss to second order around w0, times n/m, with m times A'A/n as the curvature: n gradients of batches
    of m samples, whose squares are 1/m of those of samples. A lies on disk and passes through memory block by block:
    the memory needed does not grow with batches times weights.

    Corrected [ours]: of a given support the best d is known, over all weights at once (n unknowns are solved for). Hard
    thresholding begins with the largest |w0|. A step goes down the gradient from the best d by t/(n lambda), which is
    zero for the weights that stay, and the largest of all become the support. A step of t = 1 often changes too much:
    where it does not lower the objective, t is searched by bisection between steps that do not and steps that change
    nothing. So the objective falls with every step, until none is found that lowers it. (A step by the largest
    curvature, which is that of few directions of very many, would hardly move any weight.)

    Official: k = int((1 - s) n), one step of gradient descent from w0 with an exact line search on the largest |w0|,
    which keeps them as the support wherever the largest weight of all stays inside (else steps are doubled as long as
    the objective falls); then in every block of a matrix by itself, as if all others were as in w0, the same step again
    and the exact d. Samples are those of the first batch. A matrix may lose everything.
    """

    name = "chita"
    kind = "unstructured"
    stage = "calibration"
    source = "Fast as CHITA: Neural Network Pruning with Combinatorial Optimization (Benbaki et al., ICML 2023)"
    summary = "the sparse weights nearest to the dense model in a quadratic model of its loss"

    class Options(ModeOptions):
        """Sizes of the quadratic problem."""

        gradients: int = Field(32, ge=1, description="batches whose gradients make the model of the loss")
        samples: int | None = Field(None, ge=1, description="samples of a batch; none: the length of its first tensor")
        ridge: float = Field(1e-4, gt=0, description="lambda: how much staying near the dense weights counts")
        iterations: int = Field(20, ge=0, description="corrected: most steps of hard thresholding")
        block: int = Field(10_000, ge=1, description="weights in memory at once; official: solved for together")

    options: Options

    def start(self, problem: Problem) -> Session:
        return _stages(problem, self.options, 1)


@register
class CHITAPlusPlus(Method):
    """CHITA in stages: after stage t of T the share 1 - (1 - s)^(t/T) is zero; each starts where the last ended."""

    name = "chita++"
    kind = "unstructured"
    stage = "calibration"
    source = "CHITA++, the multi-stage form of CHITA (Benbaki et al., ICML 2023)"
    summary = "CHITA in several stages, with gradients taken anew in each"

    class Options(CHITA.Options):
        """Sizes of the quadratic problems, and their number."""

        rounds: int = Field(4, ge=1, description="stages from dense to the target")

    options: Options

    def start(self, problem: Problem) -> Session:
        return _stages(problem, self.options, self.options.rounds)


def _stages(problem: Problem, options: CHITA.Options, rounds: int) -> Session:
    official = options.mode == "official"
    values = weights(problem)
    size = sum(value.numel() for value in values.values())
    if official:
        stages = [int((1.0 - share) * size) for share in official_shares(problem, values, rounds)]
    else:
        stages = [size - fallen for fallen in schedule(problem, values, rounds)]
    for kept in stages:
        with quadratic(
            problem, values, options.gradients, options.samples, official, options.ridge, options.block
        ) as model:
            found = _officially(model, kept) if official else _search(model, values, kept, options.iterations)
        values, masks, scores = (_shaped(tensor_P, values) for tensor_P in found)
    return Decided(plan_of(problem, masks, official), lambda: scores, values)


def _search(model: Quadratic, like: Scores, kept: int, iterations: int) -> tuple[Tensor, Tensor, Tensor]:
    """(weights, mask, scores), each [P], where no step of hard thresholding lowers the objective any more."""
    fallen_P = model.dense_P == 0

    def largest(w_P: Tensor) -> Tensor:
        ranked_P = w_P.abs().masked_fill(fallen_P, -1.0)  # what is zero already falls first
        masks = lowest(list(_shaped(ranked_P, like).values()), len(w_P) - kept)
        return torch.cat([mask.flatten() for mask in masks])

    support = model.support(largest(model.dense_P))
    wanted_P = model.dense_P - model.pull(support.u_N)
    for _ in range(iterations):
        better = _better(model, largest, support, wanted_P)
        if better is None:
            break
        support = better
        wanted_P = model.dense_P - model.pull(support.u_N)
    return wanted_P * support.kept_P, support.kept_P, wanted_P.abs()


def _better(
    model: Quadratic, largest: Callable[[Tensor], Tensor], support: Support, wanted_P: Tensor
) -> Support | None:
    """The first support that a step is found to lower the objective with; None: none was found."""
    nothing, length, far = 0.0, 1.0, 1.0
    for _ in range(LENGTHS):
        kept_P = largest(torch.where(support.kept_P, wanted_P, length * wanted_P))
        if torch.equal(kept_P, support.kept_P):
            nothing = length
        else:
            other = model.support(kept_P, support)
            if other.value < support.value * (1 - GAIN):
                return other
            far = length
        if nothing == far:
            return None
        length = (nothing + far) / 2
    return None


def _officially(model: Quadratic, kept: int) -> tuple[Tensor, Tensor, Tensor]:
    """(weights, mask, scores), each [P], as the public code finds them when `kept` weights are to stay."""
    w_P = _step(model, model.dense_P, kept)
    threshold = w_P.abs().sort(descending=True).values[kept] if kept < len(w_P) else -1.0
    result_P = torch.zeros_like(w_P)
    for span in model.spans:
        inside = int((w_P[span].abs() > threshold).sum())
        if inside:
            part = model.part(span)
            alive = _top(_step(part, w_P[span], inside), inside)
            result_P[span] = (part.dense_P - part.pull(part.support(alive).u_N)) * alive
    return result_P, result_P != 0, w_P.abs()


def _step(model: Quadratic, w_P: Tensor, kept: int) -> Tensor:
    """One step of gradient descent on the `kept` largest weights, of the best length; the other weights are zero then.

    Where a step of that length would leave the largest weight of all outside, it is halved until it does not, and then
    doubled as long as the objective of the largest weights falls, ten times at most.
    """
    if not kept or float(model.pull(model.linear_N).double().norm()) <= 1e-8:
        return w_P
    support_P = _top(w_P, kept)
    d_P = w_P - model.dense_P
    residual_N = model.times(d_P) + model.linear_N
    slope_P = model.pull(residual_N) + model.ridge * d_P
    along_P = slope_P * support_P
    moved_N = model.times(along_P)
    fall = float(residual_N @ moved_N) + model.ridge * float((d_P * along_P).double().sum())
    bend = float(moved_N @ moved_N) + model.ridge * float(along_P.double().square().sum())
    length = fall / bend if bend else 0.0

    def inside(length: float) -> bool:
        size_P = (w_P - length * slope_P).abs()
        return kept == len(w_P) or bool(size_P[support_P].max() >= size_P[~support_P].max() - 1e-10)

    if inside(length):
        return (w_P - length * slope_P) * support_P
    for _ in range(100):
        length /= 2
        if inside(length):
            break
    found_P = w_P * support_P
    value = model.value(found_P)
    for _ in range(10):
        next_P = w_P - length * slope_P
        next_P = next_P * _top(next_P, kept)
        lower = model.value(next_P)
        if lower >= value:
            break
        found_P, value, length = next_P, lower, 2 * length
    return found_P


def _top(w_P: Tensor, count: int) -> Tensor:
    """Bool [P], True at the `count` largest |w|; of equals the first."""
    mask_P = torch.zeros_like(w_P, dtype=torch.bool)
    mask_P[w_P.abs().argsort(descending=True, stable=True)[:count]] = True
    return mask_P


def _shaped(flat_P: Tensor, like: Scores) -> Scores:
    pieces = flat_P.split([value.numel() for value in like.values()])
    return {name: piece.view(like[name].shape) for name, piece in zip(like, pieces, strict=True)}
