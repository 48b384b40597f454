"""Activation checkpointing of a model of any library: layers computed again in the backward pass, for less memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from snp.errors import InputError

SWITCHES = ("gradient_checkpointing_enable", "set_grad_checkpointing")
FLAGS = ("gradient_checkpointing", "grad_checkpointing")
"""What layers of transformers and of timm and open_clip look at."""


@contextmanager
def recomputing(model: nn.Module, wanted: bool = True) -> Iterator[None]:
    """Within, where `wanted`, layers are computed again; afterwards as many are as before.

    Raises:
        InputError: the model cannot do so.
    """
    if not wanted:
        yield
        return
    parts = _switches(model)
    if not parts:
        problem = f"{type(model).__name__} has neither gradient_checkpointing_enable nor set_grad_checkpointing"
        raise InputError("recover.checkpointing", problem, "leave it out")
    flags = [(m, name, getattr(m, name)) for m in model.modules() for name in FLAGS if hasattr(m, name)]
    try:
        for part in parts:
            _on(part)
        yield
    finally:
        for module, name, before in flags:
            setattr(module, name, before)
        for part in parts:
            getattr(part, "disable_input_require_grads", lambda: None)()


def _switches(model: nn.Module) -> list[Any]:
    """The outermost modules that can be told to."""
    found: dict[str, Any] = {}
    for name, module in model.named_modules():
        inside = any(not outer or name.startswith(f"{outer}.") for outer in found)
        if not inside and any(hasattr(module, switch) for switch in SWITCHES):
            found[name] = module
    return list(found.values())


def _on(part: Any) -> None:
    try:
        if hasattr(part, "activation_checkpointing_enable"):  # transformers' newer name
            part.activation_checkpointing_enable()
        elif hasattr(part, "gradient_checkpointing_enable"):
            part.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        else:
            part.set_grad_checkpointing(True)
    except (ValueError, AssertionError, NotImplementedError) as error:
        raise InputError("recover.checkpointing", f"{type(part).__name__}: {error}", "leave it out") from None
