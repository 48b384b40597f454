"""The loop that all evaluators share: what a model says of every entry of a data set."""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from snp import ranks
from snp.data.annotations import Entry
from snp.data.batch import Batch
from snp.data.dataset import GroundingSet
from snp.models.family import GroundingModel
from snp.tasks.outputs import check_finite, mapped

T = TypeVar("T")
PATCHES = 128 * 14**2
"""Most patches that are passed at once, those of 128 pictures of 224 pixels a side. [ours]"""


@torch.inference_mode()
def passes(
    model: GroundingModel, data: GroundingSet, captions: int, look: Callable[[np.ndarray, Batch, Any], T]
) -> list[T]:
    """What `look` sees in (indices of entries, their batch, the model's outputs), about `captions` at a time.

    They are fewer where their images could have more than `PATCHES`. Each image passes the vision tower once for all
    its captions. Only pixels and words reach the model, on whatever device it is, and dropout is off; batch and outputs
    are on the CPU. Several processes pass some of the groups each, and all get what is seen in every one, in order.

    Raises:
        InputError: names the entry of which the model says what is not finite.
    """
    training, device = model.training, next(model.parameters()).device
    captions = max(1, min(captions, PATCHES // model.config.image_tokens))

    def seen(group: tuple[np.ndarray, Batch]) -> T:
        index, batch = group
        out = model(*batch.to(device).inputs)
        check_finite(lambda b: _name(data.entries[index[b]]), *out.judged)
        return look(index, batch, mapped(out, Tensor.cpu))

    model.eval()
    try:
        return ranks.spread(data.by_image(captions), seen, data.made)
    finally:
        model.train(training)


def _name(entry: Entry) -> str:
    return f"{entry.dataset_name}, entry {entry.id} (picture {entry.file_name})"
