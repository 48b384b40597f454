"""One transformer layer, whoever wrote it: what is cut together in it, and where that lives."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from snp.compression.modules import Attention

#: The types that weights may have.
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

Form = Literal["apart", "dims", "heads", "padded", "hidden"]
"""How units of a component are cut.

apart: dimensions of heads, of queries and keys (or values and outputs) alone; another attention module takes over.
dims: dimension i of every head, of queries, keys, values and outputs together; the module itself is made smaller.
heads: whole heads, with all that is coupled in them: rotary pairs, norms of queries and keys, the queries of a group.
padded: as dims, and zeros stand where they were, since the module insists on its sizes: fewer parameters, not faster.
hidden: hidden units of a feed-forward module, gates included.
"""


class Part(NamedTuple):
    """A weight of a component: its rows (dim 0, with biases) or columns (dim 1), of which `each` make a unit."""

    role: str
    dim: int
    each: int = 1


#: The components of plain layers, whose attention module another takes the place of.
PLAIN: dict[str, tuple[Part, ...]] = {
    "qk": (Part("q", 0), Part("k", 0)),
    "vo": (Part("v", 0), Part("o", 1)),
    "ffn": (Part("fc1", 0), Part("fc2", 1)),
}


class Ref(NamedTuple):
    """Where a role is stored: rows [start, stop) of `weight` and `bias` (None: it has none), full parameter names."""

    weight: str
    bias: str | None
    start: int
    stop: int

    @property
    def rows(self) -> slice:
        return slice(self.start, self.stop)


@dataclass(frozen=True)
class Component:
    """What is cut together in a layer: its units are rows and columns of several weights.

    Attributes:
        path: of the module that holds it: an attention, a feed-forward module, or a layer that has the latter's maps.
        heads: sharing units that a pruning unit stands for.
        units: sharing units that work in the layer; all of them before surgery.
    """

    path: str
    form: Form
    parts: tuple[Part, ...]
    heads: int
    units: int


@dataclass(frozen=True)
class Block:
    """One transformer layer. In a compressed model, `weight` and `bias` give what this layer stores itself.

    Attributes:
        layer: path of the layer in the model.
        kind: what takes, or has taken, the place of its attention when it is compressed; None: its own stays.
        compressed: it is so already: its units are not those of a dense layer.
        n_heads: of its first attention, of keys and values where queries are grouped; 0: none of its attention is cut.
        components: name -> Component, in the order that plans count in.
        refs: role -> Ref.
    """

    model: nn.Module
    layer: str
    kind: type[Attention] | None
    compressed: bool
    n_heads: int
    d_model: int
    components: Mapping[str, Component]
    refs: Mapping[str, Ref]

    @property
    def plain(self) -> bool:
        """Its components are those of `PLAIN`, with all biases: what the project's own models are made of."""
        if self.kind is None or {c: component.parts for c, component in self.components.items()} != PLAIN:
            return False
        cut = all(component.form != "padded" for component in self.components.values())
        return cut and all(ref.bias for ref in self.refs.values())

    @property
    def d_qk(self) -> int:
        """Dimensions per head of queries and keys, of a plain layer."""
        return self.components["qk"].units // self.n_heads

    @property
    def d_vo(self) -> int:
        """Dimensions per head of values, of a plain layer."""
        return self.components["vo"].units // self.n_heads

    @property
    def d_ffn(self) -> int:
        """Hidden units of its first feed-forward module; 0: it is not cut."""
        return self.components["ffn"].units if "ffn" in self.components else 0

    def ref(self, role: str) -> Ref:
        return self.refs[role]

    def weight(self, role: str) -> Tensor:
        """View of the live weight, [out, in]; gradients flow, and writing to its .data changes the model."""
        return self.model.get_parameter(self.refs[role].weight)[self.refs[role].rows]

    def bias(self, role: str) -> Tensor:
        """View of the live bias, [out], of a role that has one."""
        name = self.refs[role].bias
        assert name is not None
        return self.model.get_parameter(name)[self.refs[role].rows]

    def pieces(self, component: str) -> Iterator[tuple[str, Part, Ref]]:
        """("weight" or "bias", Part, Ref) of all that a unit has a part of: weights first, then the biases of rows."""
        parts = self.components[component].parts
        yield from (("weight", part, self.refs[part.role]) for part in parts)
        for part in parts:
            if part.dim == 0 and self.refs[part.role].bias is not None:
                yield "bias", part, self.refs[part.role]

    def units(self, component: str) -> Tensor:
        """All parameters of each sharing unit of a component, one unit a row: [n_share, cost of a unit].

        Rows, then columns, then biases, in the order of its parts. Gradients flow to the parameters.
        """
        return torch.cat([
            piece.reshape(len(piece) // part.each, -1)
            for kind, part, _ in self.pieces(component)
            for piece in [self.bias(part.role) if kind == "bias" else self._by_unit(part)]
        ], dim=1)  # fmt: skip

    def _by_unit(self, part: Part) -> Tensor:
        weight = self.weight(part.role)
        return weight if part.dim == 0 else weight.T

    def split(self, component: str, units_NF: Tensor) -> Iterator[tuple[str, int, Tensor]]:
        """The inverse of `units`: (parameter name, first row, tensor) of every weight and bias in the unit matrix."""
        found = list(self.pieces(component))
        widths = [self._width(kind, part) for kind, part, _ in found]
        for (kind, part, ref), piece in zip(found, units_NF.split(widths, 1), strict=True):
            if kind == "bias":
                assert ref.bias is not None
                yield ref.bias, ref.start, piece.reshape(-1)
            else:
                rows = piece.reshape(len(piece) * part.each, -1)
                yield ref.weight, ref.start, rows if part.dim == 0 else rows.T

    def _width(self, kind: str, part: Part) -> int:
        """Parameters that a sharing unit has in a weight or bias."""
        if kind == "bias":
            return part.each
        shape = self.weight(part.role).shape
        return part.each * (shape[1:].numel() if part.dim == 0 else shape[0])

    def unit_cost(self, component: str) -> int:
        """Parameters of a sharing unit."""
        return sum(self._width(kind, part) for kind, part, _ in self.pieces(component))

    def alone(self, component: str) -> str:
        """Why units of a component can be no other layer's; empty: they can."""
        if self.components[component].form == "padded":
            return "keeps its size, with zeros where units were"
        weights = [self.refs[part.role].weight for part in self.components[component].parts]
        beside = [name for name in weights if not name.endswith(("weight", "in_proj_weight"))]
        return f"has {beside[0]} beside its maps" if beside else ""

    @property
    def parameter_names(self) -> set[str]:
        """Full names of the parameters that hold this layer's viewed weights and biases."""
        return {name for ref in self.refs.values() for name in (ref.weight, ref.bias) if name}
