"""How batches of a method's own pass the model: in parts, finite, the same in all processes."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from snp import ranks
from snp.data.batch import Batch
from snp.errors import InputError
from snp.experiment.recipes import Phase
from snp.models.checkpointing import checkpointing
from snp.tasks.objective import losses


def inference_loss(model: nn.Module) -> Callable[[Batch, dict[str, Tensor] | None], Tensor]:
    """The pre-training loss as compression methods see it: (batch, overrides) -> scalar."""
    return lambda batch, overrides: torch.stack(list(losses(model, batch, overrides).values())).sum()


def own_passes(model: nn.Module, phase: Phase, where: Callable[[], str] = lambda: "a held-out batch") -> dict[str, Any]:
    """How a method's own batches pass the model, as fields of its Problem.

    In smaller parts than those of weight steps, with activations computed again where they are computed again there.
    Several processes have the same batches, and pass a part of each.

    Args:
        where: names the batch in the InputError that all processes raise where its loss is not finite.
    """
    plain = inference_loss(model)

    def loss(batch: Batch, overrides: dict[str, Tensor] | None) -> Tensor:
        with checkpointing(model, phase.checkpointing):
            value = plain(batch, overrides)
        return value if overrides else _finite(value, where())

    def total(tensors: Sequence[Tensor | None], like: Sequence[Tensor]) -> list[Tensor | None]:
        found = ranks.added(tensors, like)
        if found[0] is not None:
            _finite(found[0], where())
        return found

    def parts(batch: Batch) -> Iterator[Batch]:
        return batch.in_parts_of(phase.own_part)

    return {"loss": loss, "parts": parts, "share": ranks.part, "total": total}


def _finite(loss: Tensor, where: str) -> Tensor:
    if not loss.isfinite():
        problem = f"the model's loss is {float(loss.detach())}"
        raise InputError(where, problem, "see whether the weights that it began with are sound")
    return loss


@torch.no_grad()
def mean_loss(model: nn.Module, batches: list[Batch], most: int, device: str) -> float:
    """Over batches, of which at most so many captions pass the model at once."""
    training, loss = model.training, inference_loss(model)
    model.eval()
    found = ranks.spread(
        batches, lambda batch: sum(float(loss(part, None)) for part in batch.to(device).in_parts_of(most))
    )
    model.train(training)
    return sum(found) / len(batches)
