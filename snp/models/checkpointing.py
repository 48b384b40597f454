"""Activation checkpointing: layers computed again in the backward pass, so that their insides need not be kept."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


@contextmanager
def checkpointing(model: nn.Module, wanted: bool = True) -> Iterator[None]:
    """Within, where `wanted`, every part of `model` that has timm's `set_grad_checkpointing` computes its layers again.

    Where other tensors stand in for parameters (functional_call), they must do so in the backward pass too (see
    `snp.compression.overriding`): layers computed again from the parameters would give wrong gradients, silently.
    """
    parts: list[Any] = [m for m in model.modules() if wanted and hasattr(m, "set_grad_checkpointing")]
    for part in parts:
        part.set_grad_checkpointing(True)
    try:
        yield
    finally:
        for part in parts:
            part.set_grad_checkpointing(False)


class Checkpointing(nn.Module):
    """A module that can have its layers computed again."""

    grad_checkpointing = False

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute what is called `through` again in the backward pass."""
        self.grad_checkpointing = enable

    def through(self, layer: nn.Module, *inputs: Any) -> Any:
        """layer(*inputs)"""
        if self.grad_checkpointing and torch.is_grad_enabled():
            return checkpoint(layer, *inputs, use_reentrant=False)
        return layer(*inputs)
