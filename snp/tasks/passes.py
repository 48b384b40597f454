"""The loop that all evaluators share: what a model says of every entry of a data set."""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from snp import ranks
from snp.data.annotations import Entry
from snp.data.dataset import Batch, GroundingSet
from snp.tasks.outputs import check_finite, mapped

T = TypeVar("T")


@torch.inference_mode()
def passes(
    model: nn.Module, data: GroundingSet, captions: int, look: Callable[[np.ndarray, Batch, Any], T]
) -> list[T]:
    """What `look` sees in (indices of entries, their batch, the model's outputs), about `captions` at a time.

    Each image passes the vision tower once for all its captions. Only pixels and words reach the model, on whatever
    device it is, and dropout is off; batch and outputs are on the CPU. Several processes pass some of the groups each,
    and all get what is seen in every one, in order.

    Raises:
        InputError: names the entry of which the model says what is not finite.
    """
    training, device = model.training, next(model.parameters()).device

    def seen(index: np.ndarray) -> T:
        batch = data.batch(index, share_images=True)
        out = model(*batch.to(device).inputs)
        check_finite(lambda b: _name(data.entries[index[b]]), *out.judged)
        return look(index, batch, mapped(out, Tensor.cpu))

    model.eval()
    try:
        return ranks.spread(data.by_image(captions), seen)
    finally:
        model.train(training)


def _name(entry: Entry) -> str:
    return f"{entry.dataset_name}, entry {entry.id} (picture {entry.file_name})"
