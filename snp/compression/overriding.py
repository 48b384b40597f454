"""Tensors in place of a model's parameters, in backward passes too."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

T = TypeVar("T")
Overrides = dict[str, Tensor]


class _Doing(nn.Module):
    def __init__(self, model: nn.Module, work: Callable[[], Any]) -> None:
        super().__init__()
        self.model, self.work = model, work

    def forward(self) -> Any:
        return self.work()


def overriding(model: nn.Module, overrides: Mapping[str, Tensor] | None, work: Callable[[], T]) -> T:
    """work(), with `overrides` in place of the parameters of the same names.

    For backward passes: layers that are computed again in them (activation checkpointing) meet what is in the model
    then, while functional_call puts the parameters back when its forward pass is done.
    """
    # torch sets the ties of a module that stands in several places wrongly back: a weight is named once in each module
    given = {id(model.get_parameter(name)): tensor for name, tensor in (overrides or {}).items()}
    named = {
        f"{path}.{name}": given[id(parameter)]
        for path, module in model.named_modules(prefix="model")
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False)
        if id(parameter) in given
    }
    return torch.func.functional_call(_Doing(model, work), named, (), tie_weights=False)  # type: ignore[no-any-return]


def gradients_of(
    model: nn.Module, loss: Callable[[Overrides], Tensor], make: Callable[[], Overrides], inputs: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor | None]]:
    """A loss of overrides, without its graph, and its gradients in what these are made of, None where none arrives.

    The memory of an override is free as soon as its gradient is known: it goes to the gradients that follow.

    Args:
        make: the overrides, made of `inputs`.
    """
    made = make()
    edges = {name: get_gradient_edge(tensor) for name, tensor in made.items() if tensor.requires_grad}
    leaves = {name: tensor.detach().requires_grad_(name in edges) for name, tensor in made.items()}
    del made
    value, learned = loss(leaves), [leaves[name] for name in edges]
    for leaf in learned:
        leaf.register_post_accumulate_grad_hook(_let_go)
    overriding(model, leaves, lambda: value.backward(inputs=learned))
    known = [(edge, leaf.grad) for edge, leaf in zip(edges.values(), learned, strict=True) if leaf.grad is not None]
    if not known:
        return value.detach(), [None] * len(inputs)
    ends, gradients = zip(*known, strict=True)
    return value.detach(), list(torch.autograd.grad(ends, inputs, gradients, allow_unused=True))


def _let_go(leaf: Tensor) -> None:
    leaf.data = leaf.new_empty(0)
