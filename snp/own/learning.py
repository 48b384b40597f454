"""What a model learns by where there are no labels: which text is of which picture, or what the dense model gives."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snp.compression.distil import distance, tensors
from snp.errors import InputError
from snp.own.origin import PIXELS, WORDS, Batch, Origin

LOGITS = "logits_per_image"
BLUR = 0.1
TEMPERATURE = 2.0
Loss = Callable[[nn.Module, Batch], Tensor]
SOFTMAX = "contrastive: which text of a batch is of which picture, and the reverse (softmax over the batch)"
SIGMOID = "contrastive: whether each text of a batch is of each picture (sigmoid, as the model has a logit bias)"
DISTANCE = "distance of its outputs from those of the dense model, blurred by a tenth of their size"


def loss_of(origin: Origin, dense: nn.Module, batch: Batch) -> tuple[Loss, str]:
    """The loss of a model without labels, and what it is in words.

    Of a model that gives logits of pictures and texts (CLIP, SigLIP and their kin) it is contrastive, from these logits
    alone. Of any other it is `blurred`.

    Args:
        dense: the teacher. batch: one to look at what the model gives.

    Raises:
        InputError: a contrastive model has batches of one picture; or there is nothing to learn from.
    """
    with torch.no_grad():
        given = origin.forward(dense, batch)
    if WORDS not in batch or (named(given).get(LOGITS)) is None:
        return blurred(origin, dense), DISTANCE
    if len(batch[PIXELS]) < 2:
        raise InputError("--data", "gives batches of one picture, of which nothing tells the text", "add pictures")
    biased = any(name.endswith("logit_bias") and p is not None for name, p in dense.named_parameters())

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return (sigmoid if biased else softmax)(named(origin.forward(model, batch))[LOGITS])

    return loss, SIGMOID if biased else SOFTMAX


def softmax(logits_BB: Tensor) -> Tensor:
    """Mean over pictures and texts of the cross-entropy of the right one (Radford et al., 2021)."""
    right_B = torch.arange(len(logits_BB), device=logits_BB.device)
    return (F.cross_entropy(logits_BB, right_B) + F.cross_entropy(logits_BB.T, right_B)) / 2


def sigmoid(logits_BB: Tensor) -> Tensor:
    """Sum over texts of -log sigmoid(+-logit), mean over pictures (Zhai et al., 2023)."""
    sign_BB = 2 * torch.eye(len(logits_BB), device=logits_BB.device) - 1
    return -F.logsigmoid(sign_BB * logits_BB).sum(1).mean()


def blurred(origin: Origin, dense: nn.Module) -> Loss:
    """Distance from the dense model's outputs with noise added, `BLUR` of their root mean square.

    Without it the loss would be flat at the dense model itself, where methods that look at gradients ask for them. With
    it, gradients there are drawn at random, and the mean of their squares is the Fisher information of the outputs: how
    much a weight's change changes what the model gives. A batch has the same noise at every pass. [ours]
    """

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        with torch.no_grad():
            theirs = tensors(origin.forward(dense, batch))
        source = torch.Generator().manual_seed(int(batch[PIXELS].double().abs().sum() * 1e3) % 2**31)
        noisy = {}
        for name, value in theirs.items():
            noise = torch.randn(value.shape, generator=source).to(value)
            noisy[name] = value + BLUR * value.square().mean().sqrt() * noise
        return distance(tensors(origin.forward(model, batch)), noisy, TEMPERATURE)

    return loss


def named(given: Any) -> dict[str, Any]:
    """What a model gives, by name; a tensor alone has none."""
    return dict(given) if isinstance(given, dict) else {}
