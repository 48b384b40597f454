"""What a compression method is given: a model, its towers, a budget, batches and a loss."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from snp.compression.budget import Budget
from snp.compression.overriding import gradients_of
from snp.compression.statistics import TokenMask
from snp.compression.tower import Tower, iterate
from snp.errors import InputError

CALIBRATION_BATCHES = 8
Sums = list[Tensor | None]


@dataclass
class Problem:
    """All that a method may know: no task, no model class, no data set.

    Attributes:
        model: the dense model.
        towers: its towers; the first is the donor in cross-modal sharing.
        budget: how much may remain.
        steps: weight steps of the compression phase.
        loss: (batch, overrides) -> scalar loss; overrides maps full parameter names to tensors that stand in
            for them, None is the model as it is. The model stays in the mode (train, eval) that it is in.
        heldout: gives the next batch that no weight step sees.
        seed: of everything random in the method.
        round_to: kept units of every component are a multiple of it, as `rounding.step_of` says, or all of them.
        sparsity: share of the prunable weights to zero, where it was asked for as one; the budget has it rounded.
        groups: modality -> names of its prunable weights, for unstructured methods; by default the q, k, v, o, fc1 and
            fc2 weights of every tower.
        forward: (model, batch) -> anything; a forward pass for calibration, by default that of the loss.
        token_masks: modality, name or pattern of weights -> which tokens count: see `statistics.input_energy`.
        calibration: any iterable of batches; by default `CALIBRATION_BATCHES` of `heldout`.
        across: what a method learns from the gradients of weight steps passes through it before it meets the weights,
            since a weight step may see only a part of a batch: the same tensor, with the gradient of the whole batch.
        parts: batch -> parts of it that pass the model one after the other, for less memory. Their losses add up to
            that of the batch, and statistics over them are those over the batch.
        share: batch -> what this process passes of it. total: (tensors, others of their shapes) -> the sums of the
            tensors over all processes; None where no process has one.
    """

    model: nn.Module
    towers: dict[str, Tower]
    budget: Budget
    steps: int
    loss: Callable[[Any, dict[str, Tensor] | None], Tensor]
    heldout: Callable[[], Any]
    seed: int = 0
    round_to: int = 1
    sparsity: float | None = None
    groups: dict[str, list[str]] = field(default_factory=dict)
    forward: Callable[[nn.Module, Any], Any] | None = None
    token_masks: dict[str, TokenMask] = field(default_factory=dict)
    calibration: Iterable[Any] | None = None
    across: Callable[[Tensor], Tensor] = lambda tensor: tensor
    parts: Callable[[Any], Iterable[Any]] = lambda batch: (batch,)
    share: Callable[[Any], Any] = lambda batch: batch
    total: Callable[[Sums, Sequence[Tensor]], Sums] = lambda tensors, like: tensors

    def __post_init__(self) -> None:
        self.groups = prunable(self.model, self.groups or linear_weights(self.towers))

    @property
    def removals(self) -> int:
        """Parameters that the budget asks to remove."""
        return self.budget.total - self.budget.target

    def batches(self, most: int | None = None) -> Iterable[Any]:
        """The calibration batches, at most `most` of them; those of `heldout` are others at every call."""
        if self.calibration is not None:
            return islice(self.calibration, most)
        return islice(iter(self.heldout, None), CALIBRATION_BATCHES if most is None else most)

    def run(self, batch: Any) -> Any:
        """One forward pass of the model as it is."""
        return self.forward(self.model, batch) if self.forward else self.loss(batch, None)

    def gradients(
        self, batch: Any, make: Callable[[], dict[str, Tensor]], inputs: Iterable[Tensor]
    ) -> tuple[Tensor, Sums]:
        """The loss of a batch and its gradients, in the memory that one part of the batch needs.

        Args:
            make: the overrides, made of `inputs` anew for every part, so that no part's graph outlives it.
            inputs: tensors that require gradients.

        Returns:
            The loss, without a graph; for every input its gradient, None where none arrives.
        """
        wanted = list(inputs)
        values: list[Tensor] = []
        sums: Sums = [None] * len(wanted)
        for part in self.parts(self.share(batch)):
            value, found = gradients_of(self.model, partial(self.loss, part), make, wanted)
            values.append(value)
            sums = [_plus(*pair) for pair in zip(sums, found, strict=True)]
        own = torch.stack(values).sum()
        whole, *gradients = self.total([own, *sums], [own, *wanted])
        assert whole is not None
        return whole, gradients


def _plus(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a + b


def linear_weights(towers: dict[str, Tower]) -> dict[str, list[str]]:
    """Tower -> names of the weights of its linear maps, a packed one once."""
    names: dict[str, dict[str, None]] = {name: {} for name in towers}
    for name, _, block in iterate(towers):
        names[name] |= dict.fromkeys(ref.weight for ref in block.refs.values() if ref.weight.endswith("weight"))
    return {name: list(found) for name, found in names.items()}


def prunable(model: nn.Module, groups: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """`groups` with a tied weight once, under its first name.

    Raises:
        InputError: a name that the model does not have; a weight in two groups.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    first: dict[int, str] = {}
    for name, parameter in parameters.items():
        first.setdefault(id(parameter), name)
    group_of: dict[str, str] = {}
    for group, names in groups.items():
        for name in names:
            if name not in parameters:
                raise InputError(f"groups.{group}: {name}", "the model has no such parameter")
            owner = group_of.setdefault(first[id(parameters[name])], group)
            if owner != group:
                raise InputError(f"groups.{group}: {name}", f"is a weight of group {owner} too", "name it once")
    return {group: [name for name, owner in group_of.items() if owner == group] for group in groups}
