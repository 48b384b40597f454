"""One transformer layer, whoever wrote it: where its q, k, v, o, fc1, fc2 live."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from snp.compression import trial
from snp.compression.modules import (
    Attention,
    TimmAttention,
    TorchAttention,
    TransformersAttention,
)
from snp.compression.tied import TiedLinear
from snp.errors import InputError

#: The weights of a component, with the dimension along which its units lie (0 = rows with bias, 1 = columns).
UNIT_DIMS: dict[str, tuple[tuple[str, int], ...]] = {
    "qk": (("q", 0), ("k", 0)),
    "vo": (("v", 0), ("o", 1)),
    "ffn": (("fc1", 0), ("fc2", 1)),
}
#: The types that weights may have.
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True)
class Ref:
    """Where a role is stored: rows [start, stop) of `weight` and `bias`, full parameter names."""

    weight: str
    bias: str
    start: int
    stop: int

    @property
    def rows(self) -> slice:
        return slice(self.start, self.stop)


@dataclass(frozen=True)
class Block:
    """One transformer layer. In a compressed model, `weight` and `bias` give what this layer stores itself.

    Attributes:
        layer: path of the layer in the model.
        kind: what takes, or has taken, the place of its attention when it is compressed.
        compressed: it is so already: its units are not those of a dense layer.
        d_qk, d_vo: dimensions per head of queries and keys, and of values; both d_head before surgery.
        refs: role -> Ref.
    """

    model: nn.Module
    layer: str
    kind: type[Attention]
    compressed: bool
    n_heads: int
    d_qk: int
    d_vo: int
    d_model: int
    d_ffn: int
    refs: dict[str, Ref]

    def ref(self, role: str) -> Ref:
        return self.refs[role]

    def weight(self, role: str) -> Tensor:
        """View of the live weight, [out, in]; gradients flow, and writing to its .data changes the model."""
        return self.model.get_parameter(self.refs[role].weight)[self.refs[role].rows]

    def bias(self, role: str) -> Tensor:
        """View of the live bias, [out]."""
        return self.model.get_parameter(self.refs[role].bias)[self.refs[role].rows]

    def units(self, component: str) -> Tensor:
        """All parameters of each sharing unit of a component, one unit a row: [n_share, cost of a unit].

        qk: q row, k row, q bias, k bias; vo and ffn: row, column, bias. Gradients flow to the parameters.
        """
        parts = [self.weight(role) if dim == 0 else self.weight(role).T for role, dim in UNIT_DIMS[component]]
        parts += [self.bias(role)[:, None] for role, dim in UNIT_DIMS[component] if dim == 0]
        return torch.cat(parts, dim=1)

    @property
    def parameter_names(self) -> set[str]:
        """Full names of the parameters that hold this layer's six weights and biases."""
        return {name for ref in self.refs.values() for name in (ref.weight, ref.bias)}


def attention_name(layer: nn.Module) -> str:
    """Name of a layer's self-attention submodule."""
    return "self_attn" if hasattr(layer, "self_attn") else "attn"


def linear_names(mlp: nn.Module) -> tuple[str, str]:
    """Names of the two linear maps of a feed-forward submodule."""
    return ("c_fc", "c_proj") if hasattr(mlp, "c_fc") else ("fc1", "fc2")


def recognise(model: nn.Module, layer: Any, path: str) -> Block:
    """The Block of `layer`, which is at `path` in the model.

    Raises:
        InputError: it is none that can be compressed; names the part at fault.
    """
    attention, mlp = getattr(layer, attention_name(layer), None), getattr(layer, "mlp", None)
    if not isinstance(attention, nn.Module) or not isinstance(mlp, nn.Module):
        raise InputError(path, f"{type(layer).__name__} has no attention and mlp to view", trial.HINT)
    inside, behind = f"{path}.{attention_name(layer)}", f"{path}.mlp"
    kind, heads, d_qk, d_vo, refs = _attention_refs(attention, inside)
    linears: list[Any] = [getattr(mlp, name, None) for name in linear_names(mlp)]
    if not all(isinstance(linear, nn.Linear | TiedLinear) for linear in linears):
        raise InputError(behind, f"{type(mlp).__name__} is no known feed-forward module", trial.HINT)
    fc1, fc2 = linears
    for role, name, linear in zip(("fc1", "fc2"), linear_names(mlp), linears, strict=True):
        refs[role] = _linear(f"{behind}.{name}", 0, len(linear.weight))
    if fc1.out_features != fc2.in_features:
        raise InputError(behind, "its two maps differ in width: a gated FFN is not supported", trial.HINT)
    compressed = any(isinstance(module, Attention | TiedLinear) for module in (attention, *linears))
    block = Block(model, path, kind, compressed, heads, d_qk, d_vo, fc2.out_features, fc1.out_features, refs)
    # a norm or a gate between the weights would make cutting change the function
    present = {f"{inside}.{name}": p for name, p in attention.named_parameters()}
    present |= {f"{behind}.{name}": p for name, p in mlp.named_parameters()}
    for odd in sorted(present.keys() ^ block.parameter_names):
        problem = "is unexpected" if odd in present else "is missing"
        raise InputError(odd, problem, "only plain attention and FFN with biases can be compressed")
    first = next(iter(present.values()))
    for name, p in present.items():
        if p.dtype not in FLOATS or (p.dtype, p.device) != (first.dtype, first.device):
            problem = f"is of {p.dtype} on {p.device}, beside weights of {first.dtype} on {first.device}"
            raise InputError(name, problem, "bring a layer to one floating type and one device")
    if not compressed:
        trial.attention(attention, inside, block)
        trial.feedforward(mlp, behind, block)
    return block


Found = tuple[type[Attention], int, int, int, dict[str, Ref]]


def _attention_refs(attention: nn.Module, name: str) -> Found:
    """(what takes its place, heads, dims per head of q and k, of v, refs) for the attention modules that we know."""
    module: Any = attention
    heads = getattr(module, "num_heads", None)
    if isinstance(attention, Attention):
        n_qk, n_vo = module.stored_qk, module.stored_vo
        spans = (("q", 0, n_qk), ("k", n_qk, 2 * n_qk), ("v", 2 * n_qk, 2 * n_qk + n_vo))
        refs = {role: _linear(f"{name}.qkv", start, stop) for role, start, stop in spans}
        refs["o"] = _linear(f"{name}.proj", 0, module.proj.out_features)
        return type(attention), module.num_heads, module.d_qk, module.d_vo, refs
    kind: type[Attention]
    if isinstance(module, nn.MultiheadAttention) and module.in_proj_weight is not None:
        d, kind, output = module.embed_dim, TorchAttention, "out_proj"
        packed = (f"{name}.in_proj_weight", f"{name}.in_proj_bias")
        refs = {role: Ref(*packed, i * d, i * d + d) for i, role in enumerate("qkv")}
    elif isinstance(getattr(module, "qkv", None), nn.Linear):
        d, kind, output = module.qkv.out_features // 3, TimmAttention, "proj"
        refs = {role: _linear(f"{name}.qkv", i * d, i * d + d) for i, role in enumerate("qkv")}
    elif all(isinstance(getattr(module, f"{role}_proj", None), nn.Linear) for role in "qkv"):
        d, kind, output = module.q_proj.out_features, TransformersAttention, "out_proj"
        refs = {role: _linear(f"{name}.{role}_proj", 0, d) for role in "qkv"}
        for role in "kv":
            if (found := getattr(module, f"{role}_proj").out_features) != d:
                raise InputError(f"{name}.{role}_proj", f"gives {found}, queries are {d}: they are grouped", trial.HINT)
    else:
        raise InputError(name, f"{type(module).__name__} is no known attention module", trial.HINT)
    if not isinstance(heads, int) or heads < 1 or d % heads or not isinstance(getattr(module, output, None), nn.Linear):
        raise InputError(name, f"{type(module).__name__} is no known attention module", trial.HINT)
    rows = getattr(module, output).out_features
    return kind, heads, d // heads, d // heads, refs | {"o": _linear(f"{name}.{output}", 0, rows)}


def _linear(name: str, start: int, stop: int) -> Ref:
    return Ref(f"{name}.weight", f"{name}.bias", start, stop)
