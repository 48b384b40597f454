"""One uniform view of a transformer tower, whoever wrote it: its layers, their sizes, and what a unit costs."""

from collections.abc import Collection, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from snp.compression.block import PLAIN, Block
from snp.compression.families import lists_of
from snp.compression.recognise import recognise
from snp.compression.trial import HINT
from snp.errors import InputError

COMPONENTS = tuple(PLAIN)
ROLES = ("q", "k", "v", "o", "fc1", "fc2")
Space = Literal["prune", "share"]


class Site(NamedTuple):
    """Where units are: a component (qk, vo or ffn, of plain layers) of a layer of a tower."""

    tower: str
    layer: int
    component: str

    @property
    def place(self) -> tuple[str, int]:
        """The tower and the layer."""
        return self.tower, self.layer

    def __str__(self) -> str:
        return f"{self.tower}/{self.layer}/{self.component}"


class Units(NamedTuple):
    """A component's units: how many can be pruned, how many sharing units each is, and what one of these costs."""

    number: int
    heads: int
    cost: int


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

    The biases of o and fc2 belong to no unit. Layers of other kinds say their units themselves.

    Attributes:
        other: (component, Units) of layers that are not plain; empty: they are.
        other_rest: parameters of such a layer's viewed weights and biases that belong to no unit.
    """

    layers: int
    d_model: int
    n_heads: int
    d_head: int
    d_ffn: int
    other: tuple[tuple[str, Units], ...] = ()
    other_rest: int = 0

    @classmethod
    def of(cls, layers: int, block: Block) -> "Shape":
        """Sizes of a tower of so many layers like this one."""
        if block.plain:
            return cls(layers, block.d_model, block.n_heads, block.d_qk, block.d_ffn)
        other = {c: Units(o.units // o.heads, o.heads, block.unit_cost(c)) for c, o in block.components.items()}
        names = block.parameter_names
        whole = sum(block.model.get_parameter(name).numel() for name in names)
        rest = whole - sum(u.number * u.heads * u.cost for u in other.values())
        d_head = next((u.number for c, u in other.items() if block.components[c].form == "dims"), 0)
        return cls(layers, block.d_model, block.n_heads, d_head, block.d_ffn, tuple(other.items()), rest)

    @property
    def components(self) -> tuple[str, ...]:
        """Names of what is cut in every layer."""
        return tuple(name for name, _ in self.other) or COMPONENTS

    def _of(self, component: str) -> Units:
        if self.other:
            return dict(self.other)[component]
        if component == "ffn":
            return Units(self.d_ffn, 1, 2 * self.d_model + 1)
        return Units(self.d_head, self.n_heads, 2 * (self.d_model + 1) if component == "qk" else 2 * self.d_model + 1)

    def units(self, component: str, space: Space = "prune") -> int:
        """Number of units of one layer's `component`."""
        found = self._of(component)
        return found.number if space == "prune" else found.number * found.heads

    def heads(self, component: str) -> int:
        """Sharing units that a pruning unit of `component` is."""
        return self._of(component).heads

    def unit_cost(self, component: str, space: Space = "prune") -> int:
        """Parameters in one unit of `component`."""
        found = self._of(component)
        return found.cost * (found.heads if space == "prune" else 1)

    def expand(self, component: str, units_P: Tensor) -> Tensor:
        """Pruning units [n_prune] as sharing units [n_share]: a dimension stands for that of every head."""
        heads = self.heads(component)
        return units_P if heads == 1 else units_P.repeat(heads)

    @property
    def rest(self) -> int:
        """Parameters of a layer's viewed weights and biases that belong to no unit."""
        return self.other_rest if self.other else 2 * self.d_model

    @property
    def cost(self) -> int:
        """Parameters in the viewed weights and biases of all layers."""
        units = sum(self.units(c) * self.unit_cost(c) for c in self.components)
        return self.layers * (units + self.rest)

    def to_json(self) -> dict[str, Any]:
        """The sizes, and what is other than in plain layers."""
        names = ("layers", "d_model", "n_heads", "d_head", "d_ffn")
        sizes: dict[str, Any] = {name: getattr(self, name) for name in names}
        return sizes | ({"other": {c: list(u) for c, u in self.other}, "rest": self.other_rest} if self.other else {})

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Shape":
        """The inverse; ValueError or TypeError for anything else."""
        sizes = dict(value)
        other = tuple((c, Units(*map(int, units))) for c, units in sizes.pop("other", {}).items())
        rest = sizes.pop("rest", 0)
        return cls(**sizes, other=other, other_rest=rest)


@dataclass(frozen=True)
class Tower:
    """The layers of one modality's transformer."""

    name: str
    blocks: tuple[Block, ...]

    def __len__(self) -> int:
        return len(self.blocks)

    @property
    def shape(self) -> Shape:
        """Sizes of a dense tower; InputError when it is compressed already, or its layers differ in size."""
        if any(block.compressed for block in self.blocks):
            raise InputError(f"tower {self.name}", "is compressed already", "start from the dense model")
        shapes = {Shape.of(len(self), block) for block in self.blocks}
        if len(shapes) != 1:
            raise InputError(f"tower {self.name}", "its layers differ in size", "start from the dense model")
        return shapes.pop()

    @property
    def parameter_names(self) -> set[str]:
        return set().union(*(block.parameter_names for block in self.blocks))


def view(
    model: nn.Module,
    path: str,
    name: str,
    exclude: Collection[str] = (),
    only: Collection[str] | None = None,
    left: dict[str, str] | None = None,
) -> Tower:
    """The tower `name` made of the layers of the submodule at `path`, or of the list of layers that is there.

    Knows the layers of timm, open_clip and transformers that `families` names the maps of, and all of them after
    surgery: each is tried on random weights (see `trial`), so that none is taken for what it is not.

    Args:
        exclude: patterns of paths of parts that stay whole, as "*.attn".
        only: names of the components that are wanted, as those of a plan; by default all.
        left: takes up the paths of parts that cannot be cut, and why; without it such a part is an error.

    Raises:
        InputError: no such submodule, no layers in it or several lists of them, or a layer that cannot be cut.
    """
    try:
        module = model.get_submodule(path)
    except AttributeError:
        raise InputError(
            f"tower {name}",
            f"the model has no submodule {path!r}",
            f"it has {', '.join(dict(model.named_children()))}",
        ) from None
    found = dict(lists_of(module))
    if not found:
        raise InputError(f"tower {name}", f"no transformer layers found in {type(module).__name__} at {path!r}")
    if len(found) > 1:
        paths = ", ".join(".".join(filter(None, (path, inner))) for inner in found)
        raise InputError(f"tower {name}", f"{type(module).__name__} at {path!r} holds several: {paths}", "give one")
    ((inner, layers),) = found.items()
    prefix = "".join(f"{piece}." for piece in (path, inner) if piece)
    # a layer that is called twice is one layer
    blocks = (recognise(model, layer, f"{prefix}{i}", exclude, only, left) for i, layer in layers.named_children())
    return Tower(name, tuple(blocks))


def towers_of(
    model: nn.Module,
    paths: Mapping[str, str],
    exclude: Collection[str] = (),
    shapes: Mapping[str, Shape] | None = None,
) -> dict[str, Tower]:
    """Views of several towers: {name: path} -> {name: Tower}, in the same order.

    Args:
        shapes: of a plan for these towers: the components that it knows are viewed, and no others.

    Raises:
        InputError: as `view`; or two layers hold the same weights, of which a cut or a mask would be of both.
    """
    known = {name: shape.components for name, shape in (shapes or {}).items()}
    towers = {name: view(model, path, name, exclude, known.get(name)) for name, path in paths.items()}
    holder: dict[int, str] = {}
    for tower, _, block in iterate(towers):
        here = f"tower {tower}: {block.layer}"
        for name in block.parameter_names:
            there = holder.setdefault(id(model.get_parameter(name)), here)
            if there != here:
                raise InputError(here, f"has the weights of {there} too", HINT)
    return towers


def alike(towers: Iterable[Tower]) -> None:
    """InputError unless all weights are of one type, on one device: a shared unit has one place."""
    first, *others = [block for tower in towers for block in tower.blocks]
    weight = first.weight(next(iter(first.refs)))
    for block in others:
        other = block.weight(next(iter(block.refs)))
        if (other.dtype, other.device) != (weight.dtype, weight.device):
            problem = f"is of {other.dtype} on {other.device}, and {first.layer} of {weight.dtype} on {weight.device}"
            raise InputError(block.layer, f"{problem}: they cannot share", "bring the towers to one type and device")


def iterate(towers: dict[str, Tower]) -> Iterator[tuple[str, int, Block]]:
    """(tower name, layer, Block) over all layers of all towers."""
    for name, tower in towers.items():
        for layer, block in enumerate(tower.blocks):
            yield name, layer, block


class Patch:
    """New values for parameters, part by part: a packed projection holds the rows of q, k and v."""

    def __init__(self) -> None:
        self._parts: dict[str, dict[int, Tensor]] = {}

    def add(self, name: str, start: int, rows: Tensor) -> None:
        """The rows of a parameter that begin at row `start`."""
        self._parts.setdefault(name, {})[start] = rows

    def parameters(self, names: Container[str] | None = None) -> dict[str, Tensor]:
        """Name -> the parameter of its parts, of which all must have been added; of all names, or of these."""
        wanted = {name: parts for name, parts in self._parts.items() if names is None or name in names}
        ordered = {name: [parts[start] for start in sorted(parts)] for name, parts in wanted.items()}
        return {name: parts[0] if len(parts) == 1 else torch.cat(parts) for name, parts in ordered.items()}
