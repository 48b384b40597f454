"""Whether a dense layer is what its view takes it for: tried on random weights, before any work is done."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from snp.compression.calling import WORDS, first_way, output, random, weights_for
from snp.compression.cutting import masks, padded, resized, selected, zeroed
from snp.compression.statistics import evaluating
from snp.errors import InputError

if TYPE_CHECKING:
    from snp.compression.block import Block, Component, Ref
    from snp.compression.modules import Attention

HINT = "give no towers, but name its weights in groups, for a method that cuts no units"
CLOSE = 1e-3
WHAT = {"dims": "dimensions of its heads", "heads": "whole heads", "padded": "what its maps give", "hidden": "units"}


def attention(dense: Any, name: str, block: Block, kind: type[Attention]) -> None:
    """InputError unless the module that would take the place of `dense`, the attention at `name`, gives the same.

    Norms, rotations, biases of positions, caps and gates show here though they have no weights, and so do arguments
    that a layer may hand over and the successor does not know. Weights are random and large enough for the softmax to
    matter; the module's own, which may be zero or on no device at all, are not looked at.
    """
    about = f"{type(dense).__name__} is no plain attention"
    known = inspect.signature(kind.forward).parameters
    for argument in inspect.signature(dense.forward).parameters.values():
        if argument.kind not in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD) and argument.name not in known:
            raise InputError(name, f"{about}: it takes {argument.name}", HINT)
    inside = {name.removesuffix(".weight") for name, _ in dense.named_parameters()}
    for child, module in dense.named_children():
        if child not in inside and child not in kind.parts and not isinstance(module, nn.Identity):
            raise InputError(f"{name}.{child}", f"{about}: it has {type(module).__name__} inside", HINT)
    weights = weights_for(dense)
    parts = {
        role: [weights[full.removeprefix(f"{name}.")][ref.rows] for full in (ref.weight, ref.bias) if full]
        for role, ref in block.refs.items()
        if role in "qkvo"
    }
    qkv = _Linear(*(torch.cat([parts[role][i] for role in "qkv"]) for i in (0, 1)))
    x_BLD = random((2, WORDS, block.d_model), 1.7)
    allowed_LL = torch.ones(WORDS, WORDS, dtype=torch.bool, device="cpu").tril()

    def gap() -> float:
        h, d = block.n_heads, block.d_qk
        scale = getattr(dense, "scale", d**-0.5)
        successor = kind(qkv, _Linear(*parts["o"]), h, d, d, h * d, h * d, scale, **kind.habits(dense)).eval()
        gaps = [
            _called(dense, kind.ask, weights, x_BLD, allowed) - kind.ask(successor, x_BLD, allowed)
            for allowed in (allowed_LL, None)
        ]
        return float(torch.stack(gaps).abs().max())

    _same(gap, dense, name, about)


def own(
    module: nn.Module, name: str, component: Component, refs: Mapping[str, Ref], width: int, width_of_keys: int
) -> None:
    """InputError unless cutting half of a component's units in `module`, at `name`, is setting them to zero.

    Of dimensions of heads, turning them must keep the function too, as bases do.
    """
    about = f"{type(module).__name__} cannot be cut by {WHAT[component.form]}"
    inside = {role: _inside(ref, f"{name}." if name else "") for role, ref in refs.items()}
    tensors = weights_for(module)
    pruned = torch.arange(component.units // component.heads) % 2 == 1
    if not pruned.any():
        raise InputError(name, f"{about}: it has one", HINT)
    alive = (~pruned).repeat(component.heads)
    stay = masks({n: len(t) for n, t in tensors.items()}, {"it": component}, inside, {"it": alive})
    zeros, small = zeroed(tensors, stay), selected(tensors, stay)
    d_head = component.parts[1].each if component.form == "heads" else component.units // component.heads
    how = None

    def run(given: dict[str, Tensor], arguments: list[Any], named: dict[str, Any]) -> Tensor:
        wrapped = {f"module.{name}": tensor for name, tensor in given.items()}
        return output(functional_call(_Asked(module, _plainly), wrapped, (arguments, named)))

    def gap() -> float:
        nonlocal how
        how = how or first_way(module, partial(run, zeros), width, width_of_keys, d_head)
        if component.form == "padded":
            others = {name: tensor for name, tensor in tensors.items() if name not in stay}
            expected = run(zeros, *how)
            with padded(module, stay, small):
                return float((run(others, *how) - expected).abs().max())
        with resized(module, component, int((~pruned).sum())):
            made = run(small, *how)
        found = float((made - run(zeros, *how)).abs().max())
        if component.form == "dims":
            turned = _turned(tensors, component, inside)
            found = max(found, float((run(turned, *how) - run(tensors, *how)).abs().max()))
        return found

    _same(gap, module, name, about)


def _inside(ref: Ref, prefix: str) -> Ref:
    """Where a role is stored, by names inside the module at hand."""
    return ref._replace(
        weight=ref.weight.removeprefix(prefix), bias=ref.bias.removeprefix(prefix) if ref.bias else None
    )


def _turned(tensors: dict[str, Tensor], component: Component, refs: Mapping[str, Ref]) -> dict[str, Tensor]:
    """Queries and keys of every head turned by one rotation, values and outputs by another."""
    found = {name: tensor.clone() for name, tensor in tensors.items()}
    d = component.units // component.heads
    for i, roles in enumerate((component.parts[:2], component.parts[2:])):
        turn = torch.linalg.qr(random((d, d), 1.0, torch.Generator("cpu").manual_seed(i)))[0]
        for part in roles:
            ref = refs[part.role]
            if part.dim == 1:
                columns = found[ref.weight].unflatten(1, (component.heads, d))
                found[ref.weight] = (columns @ turn.mT).flatten(1)
                continue
            for name in filter(None, (ref.weight, ref.bias)):
                rows = found[name][ref.rows]
                turned = turn @ rows.reshape(component.heads, d, -1)
                found[name][ref.rows] = turned.reshape_as(rows)
    return found


@torch.no_grad()
def _same(gap: Callable[[], float], module: nn.Module, name: str, about: str) -> None:
    try:
        with evaluating(module), _unhooked(module), torch.autocast("cpu", enabled=False):
            found = gap()
    except InputError:
        raise
    except Exception as error:  # whatever a module of others does when it is called in a way that it does not know
        said = (str(error).splitlines() or [""])[0]
        raise InputError(name, f"{about}: tried as one, it fails ({type(error).__name__}: {said})", HINT) from None
    if not found < CLOSE:
        raise InputError(name, f"{about}: of the same weights it makes something else", HINT)


@contextmanager
def _unhooked(module: nn.Module) -> Iterator[None]:
    """Hooks are not for trials."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    before = [(inner, kind, getattr(inner, kind)) for inner in module.modules() for kind in kinds]
    for inner, kind, hooks in before:
        setattr(inner, kind, type(hooks)())
    try:
        yield
    finally:
        for inner, kind, hooks in before:
            setattr(inner, kind, hooks)


def _called(module: nn.Module, ask: Callable[..., Tensor], weights: dict[str, Tensor], *inputs: Any) -> Tensor:
    named = {f"module.{name}": weight for name, weight in weights.items()}
    return functional_call(_Asked(module, ask), named, inputs)  # type: ignore[no-any-return]


def _plainly(module: nn.Module, arguments: list[Any], named: dict[str, Any]) -> Any:
    return module(*arguments, **named)


class _Asked(nn.Module):
    def __init__(self, module: nn.Module, ask: Callable[..., Tensor]) -> None:
        super().__init__()
        self.module, self.ask = module, ask

    def forward(self, *inputs: Any) -> Tensor:
        return self.ask(self.module, *inputs)


class _Linear(nn.Module):
    """A linear map of given tensors."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight, self.bias)
