"""The loop that all evaluators share: what a model says of every entry of a data set."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from snp.data.dataset import Batch, GroundingSet
from snp.tasks.outputs import mapped


@torch.inference_mode()
def passes(model: nn.Module, data: GroundingSet, captions: int) -> Iterator[tuple[np.ndarray, Batch, Any]]:
    """(indices of entries, their batch, the model's outputs), about `captions` at a time, dropout off.

    Each image passes the vision tower once for all its captions. Only pixels and words reach the model, on whatever
    device it is; batch and outputs are on the CPU.
    """
    training, device = model.training, next(model.parameters()).device
    model.eval()
    try:
        for index in data.by_image(captions):
            batch = data.batch(index, share_images=True)
            yield index, batch, mapped(model(*batch.to(device).inputs), Tensor.cpu)
    finally:
        model.train(training)
