"""What the unstructured rivals share: exact numbers of weights to zero, thresholds over sets of weights, and a Plan."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from snp.compression.method import Decided, Method, Session
from snp.compression.plan import Plan, shapes
from snp.compression.problem import Problem
from snp.compression.statistics import wide
from snp.errors import InputError

Scores = dict[str, Tensor]
Scope = Literal["all", "group", "layer"]
Mode = Literal["corrected", "official"]


class ModeOptions(Method.Options):
    """Whether to follow the public code of MULTIFLOW and its family in its rounding and ties.

    Corrected [ours]: rows of one table shall have one size, and a matrix that loses everything cuts the model in two.
    """

    mode: Mode = Field(
        "corrected",
        description="corrected: exactly the budget, ties broken by place, one weight of each matrix stays; "
        "official: rounded as in the public code, equal scores fall together, a matrix may lose everything",
    )


def weights(problem: Problem) -> Scores:
    """Name -> weight (detached) of everything prunable; InputError where one is not finite, or there is none.

    Weights of half precision are given in float32, so that all that is made of them is too.
    """
    found = {}
    for name in (name for names in problem.groups.values() for name in names):
        found[name] = wide(problem.model.get_parameter(name).detach())
        if not found[name].isfinite().all():
            raise InputError(name, "holds values that are not finite", "check the checkpoint")
    if not found:
        raise InputError("groups", "name no weight that could be pruned")
    return found


def split(total: int, sizes: Sequence[int]) -> list[int]:
    """`total` divided in proportion to `sizes`, in whole numbers that add up: the largest remainders are rounded up."""
    whole = sum(sizes)
    exact = [total * size / whole if whole else 0.0 for size in sizes]
    parts = [int(value) for value in exact]
    order = sorted(range(len(sizes)), key=lambda i: parts[i] - exact[i])  # stable: the first of equals
    for i in order[: total - sum(parts)]:
        parts[i] += 1
    return parts


def lowest(
    tensors: Sequence[Tensor], count: int, key: Callable[[Tensor], Tensor] = torch.Tensor.detach
) -> list[Tensor]:
    """Bool masks, False at the `count` lowest scores of all tensors; of equal scores those that come first fall.

    The largest of each tensor never falls. Scores are made by `key` when they are needed, copied once, and partitioned
    in place, so that little more memory is needed than they take.

    Raises:
        ValueError: `count` leaves not one for each tensor.
    """
    if count <= 0:
        return [torch.ones_like(tensor, dtype=torch.bool) for tensor in tensors]
    ends = np.cumsum([0, *(tensor.numel() for tensor in tensors)])
    if count > ends[-1] - len(tensors):
        raise ValueError(count)
    kind = torch.promote_types(key(tensors[0][:0]).dtype, torch.float32)  # numpy knows no bfloat16
    everything = torch.empty(int(ends[-1]), dtype=kind, device="cpu")  # and is where nothing else is
    best = []
    for tensor, start, end in zip(tensors, ends, ends[1:], strict=False):
        everything[start:end] = key(tensor).flatten()
        best.append(int(everything[start:end].argmax()))
        everything[start + best[-1]] = torch.inf
    values = everything.numpy()
    values.partition(count - 1)
    threshold = float(values[count - 1])
    left = count - int((values[:count] < threshold).sum())  # of those equal to the threshold, so many fall
    del everything, values
    masks = []
    for tensor, place in zip(tensors, best, strict=True):
        scores = key(tensor).flatten()
        mask = scores > threshold
        mask[place] = True
        ties = ((scores == threshold) & ~mask).nonzero()[:, 0]
        mask[ties[left:]] = True
        left -= min(left, len(ties))
        masks.append(mask.view(tensor.shape))
    return masks


def masks_of(problem: Problem, scores: Mapping[str, Tensor], scope: Scope) -> dict[str, Tensor]:
    """Masks that zero exactly the weights that the budget removes, the lowest scores of every set that competes.

    Args:
        scope: "all": one threshold; "group": the same share of every modality; "layer": of every weight.

    Raises:
        InputError: the budget leaves not one weight of each tensor; a score that is not finite.
    """
    sets = _sets(problem, scores, scope)
    sizes = [sum(scores[name].numel() for name in members) for members in sets]
    masks: dict[str, Tensor] = {}
    for members, count in zip(sets, split(removals(problem, scores), sizes), strict=True):
        try:
            found = lowest([scores[name] for name in members], count)
        except ValueError:
            raise impossible(problem, sum(sizes), len(scores)) from None
        masks |= dict(zip(members, found, strict=True))
    return masks


def official_masks_of(problem: Problem, scores: Mapping[str, Tensor], scope: Scope) -> dict[str, Tensor]:
    """The masks of the public code: int(s * n) of every set that competes, and what equals the last of them, fall.

    Args:
        scope: as in `masks_of`.
    """
    share, masks = share_of(problem, scores), dict[str, Tensor]()
    for members in _sets(problem, scores, scope):
        found = above([scores[name] for name in members], int(share * sum(scores[name].numel() for name in members)))
        masks |= dict(zip(members, found, strict=True))
    return masks


def above(tensors: Sequence[Tensor], count: int) -> list[Tensor]:
    """Bool masks, True where strictly above the `count`-th smallest score of all tensors, as in the public code.

    So equal scores fall together, and a tensor may lose everything.
    """
    if count < 1:
        return [torch.ones_like(tensor, dtype=torch.bool) for tensor in tensors]
    threshold = torch.cat([tensor.flatten() for tensor in tensors]).kthvalue(count).values
    return [tensor > threshold for tensor in tensors]


def share_of(problem: Problem, tensors: Mapping[str, Tensor]) -> float:
    """The share of these weights that is to fall, before any rounding."""
    if problem.sparsity is not None:
        return problem.sparsity
    size = sum(tensor.numel() for tensor in tensors.values())
    if problem.removals > size:
        raise impossible(problem, size, 0)
    return problem.removals / size


def _sets(problem: Problem, scores: Mapping[str, Tensor], scope: Scope) -> list[list[str]]:
    """The names that compete with each other; InputError where a score is not finite."""
    for name, score in scores.items():
        if not score.isfinite().all():
            raise InputError(name, "has a score that is not finite", "check the weights and the calibration batches")
    members = [names for names in problem.groups.values() if names]
    names = [name for group in members for name in group]
    return {"all": [names], "group": members, "layer": [[name] for name in names]}[scope]


def removals(problem: Problem, tensors: Mapping[str, Tensor]) -> int:
    """How many weights of these the budget removes; InputError unless one of each tensor can be left."""
    size = sum(tensor.numel() for tensor in tensors.values())
    if problem.removals > size - len(tensors):
        raise impossible(problem, size, len(tensors))
    return problem.removals


def schedule(problem: Problem, tensors: Mapping[str, Tensor], rounds: int) -> list[int]:
    """How many weights have fallen after each round: every round keeps the same share of what remains."""
    whole, size = removals(problem, tensors), sum(tensor.numel() for tensor in tensors.values())
    return [*(round((1 - (1 - whole / size) ** (t / rounds)) * size) for t in range(1, rounds)), whole]


def official_shares(problem: Problem, tensors: Mapping[str, Tensor], rounds: int) -> list[float]:
    """The same as shares, before any rounding: the exponential schedule of the public code."""
    share = share_of(problem, tensors)
    return [1.0 - (1.0 - share) ** (t / rounds) for t in range(1, rounds + 1)]


def official_schedule(problem: Problem, tensors: Mapping[str, Tensor], rounds: int) -> list[int]:
    """The same in weights, rounded as in the public code."""
    size = sum(tensor.numel() for tensor in tensors.values())
    return [int(share * size) for share in official_shares(problem, tensors, rounds)]


def stand_ins(problem: Problem, values: Mapping[str, Tensor]) -> Scores:
    """Name -> a copy of the kind and device of the weight of the model that it stands in for, to have a gradient."""
    like = {name: problem.model.get_parameter(name) for name in values}
    return {name: value.detach().to(like[name], copy=True).requires_grad_() for name, value in values.items()}


def gradients(
    problem: Problem, batch: Any, leaves: Mapping[str, Tensor], make: Callable[[], dict[str, Tensor]] | None = None
) -> Scores:
    """Name -> gradient of a batch's loss, in float32 or wider; InputError where none arrives or one is not finite.

    Args:
        leaves: what stands in for the weights of these names, or
        make: what it is made of.
    """
    _, found = problem.gradients(batch, make or (lambda: dict(leaves)), leaves.values())
    checked = {}
    for name, gradient in zip(leaves, found, strict=True):
        if gradient is None:
            raise InputError(name, "no gradient reaches this weight", "leave it out of the groups")
        if not gradient.isfinite().all():
            raise InputError(name, "its gradient is not finite", "check the calibration batches")
        checked[name] = wide(gradient)
    return checked


def impossible(problem: Problem, size: int, tensors: int) -> InputError:
    """The error of a budget below what can be reached."""
    least = 1 - (size - tensors) / problem.budget.total
    return InputError("keep", f"{problem.budget.keep:g} is too small", f"choose at least {least:.4f}")


def plan_of(problem: Problem, masks: Mapping[str, Tensor], official: bool = False) -> Plan:
    """The Plan of these masks; where those of an official mode leave no weight of a matrix, its note says so."""
    empty = [name for name, mask in masks.items() if not mask.any()] if official else []
    named = ", ".join(empty[:3]) + (f" and {len(empty) - 3} more" if len(empty) > 3 else "")
    note = f"as in the public code, nothing is left of {named}" if empty else ""
    return Plan(shapes(problem.towers), masks=masks, note=note, may_empty=official)


class Scored(Method):
    """A method that scores every prunable weight once and zeroes the lowest; subclasses implement `score`."""

    kind = "unstructured"
    scope: ClassVar[Scope] = "all"

    @abstractmethod
    def score(self, problem: Problem) -> Scores:
        """Name -> score of each weight, the larger the better."""

    def start(self, problem: Problem) -> Session:
        scores = self.score(problem)
        masks = (official_masks_of if self.official else masks_of)(problem, scores, self.scope)
        return Decided(plan_of(problem, masks, self.official), lambda: scores)
