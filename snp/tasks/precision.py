"""Losses in float32, in whatever precision a model ran."""

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from functools import wraps
from typing import Any

import torch
from torch import Tensor

Losses = dict[str, Tensor]


def in_float32(loss: Callable[..., Losses]) -> Callable[..., Losses]:
    """A loss whose first argument, what a model says, comes to it as float32, and which computes without autocast.

    In bfloat16, with eight bits, a box of 64 pixels moves by half a pixel, and sums over tokens lose small terms.
    """

    @wraps(loss)
    def exact(out: Any, *others: Any) -> Losses:
        with torch.autocast(_device(out), enabled=False):
            return loss(_float32(out), *others)

    return exact


def _float32(value: Any) -> Any:
    """Floating-point tensors as float32, in dataclasses too."""
    if isinstance(value, Tensor):
        return value.float() if value.is_floating_point() else value
    if isinstance(value, dict):
        return {name: _float32(item) for name, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: _float32(getattr(value, f.name)) for f in fields(value)})
    return value


def _device(out: Any) -> str:
    """The type of device of the first tensor of a dataclass."""
    return next(v for f in fields(out) if isinstance(v := getattr(out, f.name), Tensor)).device.type
