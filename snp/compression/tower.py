"""One uniform view of a transformer tower, whoever wrote it: its layers, their sizes, and what a unit costs."""

from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from snp.compression.block import Block, recognise
from snp.compression.trial import HINT
from snp.errors import InputError

COMPONENTS = ("qk", "vo", "ffn")
ROLES = ("q", "k", "v", "o", "fc1", "fc2")
Space = Literal["prune", "share"]


class Site(NamedTuple):
    """Where units are: a component (qk, vo or ffn) of a layer of a tower."""

    tower: str
    layer: int
    component: str

    @property
    def place(self) -> tuple[str, int]:
        """The tower and the layer."""
        return self.tower, self.layer

    def __str__(self) -> str:
        return f"{self.tower}/{self.layer}/{self.component}"


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
        shapes = {Shape(len(self), b.d_model, b.n_heads, b.d_qk, b.d_ffn) for b in self.blocks}
        if len(shapes) != 1:
            raise InputError(f"tower {self.name}", "its layers differ in size", "start from the dense model")
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
            biases): each is tried on random weights (see `trial`), so that none is taken for what it is not.
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
        raise InputError(f"tower {name}", f"no transformer layers found in {type(module).__name__} at {path!r}")
    # a layer that is called twice is one layer
    return Tower(name, tuple(recognise(model, layer, f"{prefix}.{i}") for i, layer in layers.named_children()))


def towers_of(model: nn.Module, paths: dict[str, str]) -> dict[str, Tower]:
    """Views of several towers: {name: path} -> {name: Tower}, in the same order.

    Raises:
        InputError: as `view`; or two layers hold the same weights, of which a cut or a mask would be of both.
    """
    towers = {name: view(model, path, name) for name, path in paths.items()}
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
    weight = first.weight("q")
    for block in others:
        other = block.weight("q")
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


def _find(module: nn.Module, path: str) -> nn.Module | None:
    try:
        return module.get_submodule(path)
    except AttributeError:
        return None
