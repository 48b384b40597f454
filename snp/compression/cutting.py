"""A layer's own modules made smaller: which rows and columns stay, and what the modules say of their sizes."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from snp.compression.block import Component, Ref
from snp.compression.families import DIMS, GROUPS, HEADS, WIDTHS
from snp.compression.padded import PaddedLinear


def masks(
    sizes: Mapping[str, int], components: Mapping[str, Component], refs: Mapping[str, Ref], kept: Mapping[str, Tensor]
) -> dict[str, tuple[int, Tensor]]:
    """Parameter -> (dimension, which of its rows or columns stay), for all that the components' units have a part of.

    Args:
        sizes: parameter name -> its length along the dimension of units.
        kept: component -> bool [n_share].
    """
    found: dict[str, tuple[int, Tensor]] = {}
    for name, units_N in kept.items():
        for part in components[name].parts:
            ref, alive = refs[part.role], units_N.repeat_interleave(part.each)
            if part.dim == 1:
                found[ref.weight] = (1, alive)
                continue
            for parameter in filter(None, (ref.weight, ref.bias)):
                _, rows = found.setdefault(parameter, (0, torch.ones(sizes[parameter], dtype=torch.bool)))
                rows[ref.rows] = alive  # a packed map holds other rows too
    return found


def zeroed(tensors: Mapping[str, Tensor], stay: Mapping[str, tuple[int, Tensor]]) -> dict[str, Tensor]:
    """The tensors with zeros where nothing stays."""
    found = dict(tensors)
    for name, (dim, alive) in stay.items():
        tensor = tensors[name]
        shape = [-1 if d == dim else 1 for d in range(tensor.dim())]
        found[name] = tensor * alive.view(shape).to(tensor)
    return found


def selected(tensors: Mapping[str, Tensor], stay: Mapping[str, tuple[int, Tensor]]) -> dict[str, Tensor]:
    """The tensors without what does not stay."""
    cut = {
        name: tensors[name].index_select(dim, alive.nonzero()[:, 0].to(tensors[name].device))
        for name, (dim, alive) in stay.items()
    }
    return {**tensors, **cut}


def resize(module: nn.Module, component: Component, kept: int) -> list[tuple[Any, str, int]]:
    """Tell an attention that so many pruning units are left; returns what it said before, to be put back."""
    before: list[tuple[Any, str, int]] = []
    if component.form not in ("dims", "heads"):
        return before
    ratio = kept * component.heads / component.units
    names = (*HEADS, *GROUPS, *WIDTHS) if component.form == "heads" else (*DIMS, *WIDTHS)
    for inner in module.modules():
        for name in names:
            value = vars(inner).get(name)
            if isinstance(value, int) and not isinstance(value, bool):
                before.append((inner, name, value))
                setattr(inner, name, round(value * ratio))
    return before


@contextmanager
def resized(module: nn.Module, component: Component, kept: int) -> Iterator[None]:
    """`resize`, for a while."""
    before = resize(module, component, kept)
    try:
        yield
    finally:
        for inner, name, value in before:
            setattr(inner, name, value)


@contextmanager
def padded(module: nn.Module, stay: Mapping[str, tuple[int, Tensor]], tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """A module whose maps are padded ones of these tensors, for a while; names are those inside the module."""
    before = {}
    for path in {name.rpartition(".")[0] for name in stay}:
        before[path] = module.get_submodule(path)
        pad(module, path, stay, tensors)
    try:
        yield
    finally:
        for path, linear in before.items():
            put(module, path, linear)


def pad(model: nn.Module, path: str, stay: Mapping[str, tuple[int, Tensor]], tensors: Mapping[str, Tensor]) -> None:
    """Put a padded map in the place of the one at `path`."""
    weight, bias = f"{path}.weight", f"{path}.bias"
    dim, alive = stay[weight]
    whole = tensors.get(bias)
    put(model, path, PaddedLinear(tensors[weight], whole, alive.nonzero()[:, 0], len(alive), dim))


def put(model: nn.Module, path: str, module: nn.Module) -> None:
    """Set the submodule at a path."""
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)
