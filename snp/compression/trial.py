"""Whether a dense layer is what its view takes it for: tried on random weights, before any work is done."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from snp.compression.statistics import evaluating
from snp.errors import InputError

if TYPE_CHECKING:
    from snp.compression.block import Block

HINT = "give no towers, but name its weights in groups, for a method that cuts no units"
WORDS, UNITS, CLOSE = 5, 64, 1e-3
PARTS = ("weight", "bias")
PRIME = 65537
"""Random numbers that are drawn for a weight; repeated, they make rows that differ, in a tenth of the time."""


def attention(dense: Any, name: str, block: Block) -> None:
    """InputError unless the module that would take the place of `dense`, the attention at `name`, gives the same.

    Norms, rotations, biases of positions, caps and gates show here though they have no weights, and so do arguments
    that a layer may hand over and the successor does not know. Weights are random and large enough for the softmax to
    matter; the module's own, which may be zero or on no device at all, are not looked at.
    """
    kind, about = block.kind, f"{type(dense).__name__} is no plain attention"
    known = inspect.signature(kind.forward).parameters
    for argument in inspect.signature(dense.forward).parameters.values():
        if argument.kind not in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD) and argument.name not in known:
            raise InputError(name, f"{about}: it takes {argument.name}", HINT)
    inside = {name.removesuffix(".weight") for name, _ in dense.named_parameters()}
    for child, module in dense.named_children():
        if child not in inside and child not in kind.parts and not isinstance(module, nn.Identity):
            raise InputError(f"{name}.{child}", f"{about}: it has {type(module).__name__} inside", HINT)
    weights = _weights(dense)
    parts = {
        role: [weights[full.removeprefix(f"{name}.")][ref.rows] for full in (ref.weight, ref.bias)]
        for role, ref in block.refs.items()
        if role in "qkvo"
    }
    qkv = _Linear(*(torch.cat([parts[role][i] for role in "qkv"]) for i in (0, 1)))
    x_BLD = _random((2, WORDS, block.d_model), 1.7)
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


def feedforward(mlp: nn.Module, name: str, block: Block) -> None:
    """InputError unless cutting hidden units of `mlp`, the feed-forward module at `name`, is setting them to zero."""
    d, n = block.d_model, min(block.d_ffn, UNITS)
    names = [getattr(block.ref(role), kind).removeprefix(f"{name}.") for role in ("fc1", "fc2") for kind in PARTS]
    generator = torch.Generator("cpu").manual_seed(0)
    w1, b1, w2, b2 = (_random(shape, (3 / shape[-1]) ** 0.5, generator) for shape in ((n, d), (n,), (d, n), (d,)))
    kept = torch.arange(n, device="cpu") % 2 == 0
    zeroed = dict(zip(names, (w1 * kept[:, None], b1 * kept, w2 * kept, b2), strict=True))
    cut = dict(zip(names, (w1[kept], b1[kept], w2[:, kept], b2), strict=True))
    x_BLD = _random((2, WORDS, block.d_model), 1.7)

    def gap() -> float:
        whole, part = (_called(mlp, _forward, w, x_BLD) for w in (zeroed, cut))
        return float((whole - part).abs().max())

    _same(gap, mlp, name, f"{type(mlp).__name__} is no plain feed-forward module")


@torch.no_grad()
def _same(gap: Callable[[], float], module: nn.Module, name: str, about: str) -> None:
    try:
        with evaluating(module), torch.autocast("cpu", enabled=False):
            found = gap()
    except InputError:
        raise
    except Exception as error:  # whatever a module of others does when it is called in a way that it does not know
        said = (str(error).splitlines() or [""])[0]
        raise InputError(name, f"{about}: tried as one, it fails ({type(error).__name__}: {said})", HINT) from None
    if not found < CLOSE:
        raise InputError(name, f"{about}: of the same weights it makes something else", HINT)


def _called(module: nn.Module, ask: Callable[..., Tensor], weights: dict[str, Tensor], *inputs: Any) -> Tensor:
    named = {f"module.{name}": weight for name, weight in weights.items()}
    return functional_call(_Asked(module, ask), named, inputs)  # type: ignore[no-any-return]


def _forward(mlp: nn.Module, x_BLD: Tensor) -> Tensor:
    return mlp.forward(x_BLD)  # type: ignore[no-any-return]  # it stays, and its hooks are not for trials


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


def _weights(module: nn.Module) -> dict[str, Tensor]:
    """Values for all of its parameters, such that a map's outputs are about as large as its inputs."""
    generator = torch.Generator("cpu").manual_seed(0)
    return {
        name: _random(tuple(p.shape), (3 / p.shape[-1]) ** 0.5 if p.dim() > 1 else 1.0, generator)
        for name, p in module.named_parameters()
    }


def _random(shape: tuple[int, ...], most: float, generator: torch.Generator | None = None) -> Tensor:
    generator = generator or torch.Generator("cpu").manual_seed(1)
    some = torch.empty(PRIME, dtype=torch.float32, device="cpu").uniform_(-most, most, generator=generator)
    size = math.prod(shape)
    return some.repeat(-(-size // PRIME))[:size].view(shape)
