"""One uniform view of a transformer tower, whoever wrote it: where its q, k, v, o, fc1, fc2 live."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from snp.compression.modules import Attention, TiedLinear
from snp.errors import InputError

COMPONENTS = ("qk", "vo", "ffn")
ROLES = ("q", "k", "v", "o", "fc1", "fc2")
#: The weights of a component, with the dimension along which its units lie (0 = rows with bias, 1 = columns).
UNIT_DIMS: dict[str, tuple[tuple[str, int], ...]] = {
    "qk": (("q", 0), ("k", 0)),
    "vo": (("v", 0), ("o", 1)),
    "ffn": (("fc1", 0), ("fc2", 1)),
}
Space = Literal["prune", "share"]


@dataclass(frozen=True)
class Shape:
    """Sizes of a dense tower, and from them the number and cost of its units [ours: the unit table].

    ====  ==============================  =====================  ============  =========
    comp  unit i is                       n pruning / sharing    cost pruning  sharing
    ====  ==============================  =====================  ============  =========
    qk    row i of W_q, W_k with biases   d_head (of all heads)  2h(d+1)       2(d+1)
                                          / d_model
    vo    row i of W_v with bias,         the same               h(2d+1)       2d+1
          column i of W_o
    ffn   row i of fc1 with bias,         d_ffn / d_ffn          2d+1          2d+1
          column i of fc2
    ====  ==============================  =====================  ============  =========

    The biases of o and fc2 belong to no unit.
    """

    layers: int
    d_model: int
    n_heads: int
    d_head: int
    d_ffn: int

    def units(self, component: str, space: Space = "prune") -> int:
        """Number of units of one layer's `component`."""
        if component == "ffn":
            return self.d_ffn
        return self.d_head if space == "prune" else self.n_heads * self.d_head

    def unit_cost(self, component: str, space: Space = "prune") -> int:
        """Parameters in one unit of `component`."""
        single = 2 * (self.d_model + 1) if component == "qk" else 2 * self.d_model + 1
        return single * (self.units(component, "share") // self.units(component, space))

    def expand(self, component: str, units_P: Tensor) -> Tensor:
        """Pruning units [n_prune] as sharing units [n_share]: a dimension stands for that of every head."""
        return units_P if component == "ffn" else units_P.repeat(self.n_heads)

    @property
    def cost(self) -> int:
        """Parameters in the q, k, v, o, fc1, fc2 weights and biases of all layers."""
        units = sum(self.units(c) * self.unit_cost(c) for c in COMPONENTS)
        return self.layers * (units + 2 * self.d_model)


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
        d_qk, d_vo: dimensions per head of queries and keys, and of values; both d_head before surgery.
        refs: role -> Ref.
    """

    model: nn.Module
    n_heads: int
    d_qk: int
    d_vo: int
    d_model: int
    d_ffn: int
    refs: dict[str, Ref]

    @property
    def d_head(self) -> int:
        if self.d_qk != self.d_vo:
            raise InputError(
                self.refs["q"].weight,
                "this layer is cut: queries and values differ in size",
                "use d_qk, d_vo",
            )
        return self.d_qk

    @property
    def tied(self) -> bool:
        """Whether some of its units are stored in another layer."""
        sizes = {"q": self.n_heads * self.d_qk, "v": self.n_heads * self.d_vo, "fc1": self.d_ffn}
        return any(self.refs[role].stop - self.refs[role].start < n for role, n in sizes.items())

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


@dataclass(frozen=True)
class Tower:
    """The layers of one modality's transformer."""

    name: str
    blocks: tuple[Block, ...]

    def __len__(self) -> int:
        return len(self.blocks)

    @property
    def shape(self) -> Shape:
        """Sizes of a dense tower; InputError when its layers share units or differ in size."""
        if any(block.tied for block in self.blocks):
            raise InputError(
                f"tower {self.name}", "its layers share units already", "start from the dense model"
            )
        shapes = {Shape(len(self), b.d_model, b.n_heads, b.d_head, b.d_ffn) for b in self.blocks}
        if len(shapes) != 1:
            raise InputError(
                f"tower {self.name}",
                "its layers differ in size: it is compressed already",
                "start from the dense model",
            )
        return shapes.pop()

    @property
    def parameter_names(self) -> set[str]:
        return set().union(*(block.parameter_names for block in self.blocks))


def view(model: nn.Module, path: str, name: str) -> Tower:
    """The tower `name` made of the layers of the submodule at `path`.

    Knows timm's VisionTransformer, open_clip's TextTransformer and its Transformer, the encoders of
    transformers (SigLIP, CLIP), and all of them after surgery.

    Raises:
        InputError: no such submodule, or layers of another kind (norms in the attention, gated FFN, no
            biases).
    """
    try:
        module = model.get_submodule(path)
    except AttributeError:
        raise InputError(
            f"tower {name}",
            f"the model has no submodule {path!r}",
            f"it has {', '.join(dict(model.named_children()))}",
        ) from None
    layers = None
    for inner in ("blocks", "resblocks", "layers", "transformer.resblocks", "encoder.layers"):
        found = _find(module, inner)
        if isinstance(found, nn.Sequential | nn.ModuleList) and len(found):
            layers, prefix = found, ".".join(filter(None, (path, inner)))
            break
    if layers is None:
        raise InputError(
            f"tower {name}", f"no transformer layers found in {type(module).__name__} at {path!r}"
        )
    return Tower(name, tuple(_block(model, layer, f"{prefix}.{i}") for i, layer in enumerate(layers)))


def towers_of(model: nn.Module, paths: dict[str, str]) -> dict[str, Tower]:
    """Views of several towers: {name: path} -> {name: Tower}, in the same order."""
    return {name: view(model, path, name) for name, path in paths.items()}


def iterate(towers: dict[str, Tower]) -> Iterator[tuple[str, int, Block]]:
    """(tower name, layer, Block) over all layers of all towers."""
    for name, tower in towers.items():
        for layer, block in enumerate(tower.blocks):
            yield name, layer, block


def packed(pieces: dict[int, Tensor]) -> Tensor:
    """A parameter from its parts, by their first rows: a packed projection holds q, k and v."""
    parts = [pieces[start] for start in sorted(pieces)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def attention_name(layer: nn.Module) -> str:
    """Name of a layer's self-attention submodule."""
    return "self_attn" if hasattr(layer, "self_attn") else "attn"


def linear_names(mlp: nn.Module) -> tuple[str, str]:
    """Names of the two linear maps of a feed-forward submodule."""
    return ("c_fc", "c_proj") if hasattr(mlp, "c_fc") else ("fc1", "fc2")


def _find(module: nn.Module, path: str) -> nn.Module | None:
    try:
        return module.get_submodule(path)
    except AttributeError:
        return None


def _block(model: nn.Module, layer: Any, prefix: str) -> Block:
    attention, mlp = getattr(layer, attention_name(layer), None), getattr(layer, "mlp", None)
    if not isinstance(attention, nn.Module) or not isinstance(mlp, nn.Module):
        raise InputError(prefix, f"{type(layer).__name__} has no attention and mlp to view")
    inside = f"{prefix}.{attention_name(layer)}"
    heads, d_qk, d_vo, refs = _attention_refs(attention, inside)
    linears: list[Any] = [getattr(mlp, name, None) for name in linear_names(mlp)]
    if not all(isinstance(linear, nn.Linear | TiedLinear) for linear in linears):
        raise InputError(f"{prefix}.mlp", f"{type(mlp).__name__} is no known feed-forward module")
    fc1, fc2 = linears
    for role, name, linear in zip(("fc1", "fc2"), linear_names(mlp), linears, strict=True):
        refs[role] = _linear(f"{prefix}.mlp.{name}", 0, len(linear.weight))
    if fc1.out_features != fc2.in_features:
        raise InputError(f"{prefix}.mlp", "its two maps differ in width: a gated FFN is not supported")
    block = Block(model, heads, d_qk, d_vo, fc2.out_features, fc1.out_features, refs)
    # a norm or a gate between the weights would make cutting change the function
    present = {f"{inside}.{n}" for n, _ in attention.named_parameters()}
    present |= {f"{prefix}.mlp.{n}" for n, _ in mlp.named_parameters()}
    for odd in sorted(present ^ block.parameter_names):
        problem = "is unexpected" if odd in present else "is missing"
        raise InputError(odd, problem, "only plain attention and FFN with biases can be compressed")
    return block


def _attention_refs(attention: nn.Module, name: str) -> tuple[int, int, int, dict[str, Ref]]:
    """(heads, dims per head of q and k, of v, refs) for the attention modules that we know."""
    module: Any = attention
    heads: int = module.num_heads
    if isinstance(attention, Attention):
        n_qk, n_vo = module.stored_qk, module.stored_vo
        spans = (("q", 0, n_qk), ("k", n_qk, 2 * n_qk), ("v", 2 * n_qk, 2 * n_qk + n_vo))
        refs = {role: _linear(f"{name}.qkv", start, stop) for role, start, stop in spans}
        return (
            heads,
            module.d_qk,
            module.d_vo,
            refs | {"o": _linear(f"{name}.proj", 0, module.proj.out_features)},
        )
    if isinstance(module, nn.MultiheadAttention) and module.in_proj_weight is not None:
        d, output, packed = module.embed_dim, "out_proj", (f"{name}.in_proj_weight", f"{name}.in_proj_bias")
        refs = {role: Ref(*packed, i * d, i * d + d) for i, role in enumerate("qkv")}
    elif isinstance(getattr(module, "qkv", None), nn.Linear):
        d, output = module.qkv.out_features // 3, "proj"
        refs = {role: _linear(f"{name}.qkv", i * d, i * d + d) for i, role in enumerate("qkv")}
    elif all(isinstance(getattr(module, f"{role}_proj", None), nn.Linear) for role in "qkv"):
        d, output = module.q_proj.out_features, "out_proj"
        refs = {role: _linear(f"{name}.{role}_proj", 0, d) for role in "qkv"}
    else:
        raise InputError(name, f"{type(module).__name__} is no known attention module")
    rows = getattr(module, output).out_features
    return heads, d // heads, d // heads, refs | {"o": _linear(f"{name}.{output}", 0, rows)}


def _linear(name: str, start: int, stop: int) -> Ref:
    return Ref(f"{name}.weight", f"{name}.bias", start, stop)
