"""Losses in float32, in whatever precision a model ran."""

from collections.abc import Callable
from dataclasses import fields
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from snp.tasks.outputs import mapped

Losses = dict[str, Tensor]


def in_float32(loss: Callable[..., Losses]) -> Callable[..., Losses]:
    """A loss whose first argument, what a model says, comes to it as float32, and which computes without autocast.

    So does what else is of its kind: what another model says.

    In bfloat16, with eight bits, a box of 64 pixels moves by half a pixel, and sums over tokens lose small terms.
    """

    @wraps(loss)
    def exact(out: Any, *others: Any) -> Losses:
        with torch.autocast(_device(out), enabled=False):
            others = tuple(mapped(other, _float32) if type(other) is type(out) else other for other in others)
            return loss(mapped(out, _float32), *others)

    return exact


def _float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _device(out: Any) -> str:
    """The type of device of the first tensor of a dataclass."""
    return next(v for f in fields(out) if isinstance(v := getattr(out, f.name), Tensor)).device.type
