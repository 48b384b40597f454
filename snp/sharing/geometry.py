"""Which units are decided together: towers of any number and shape, cut into stacks of units that fit one another.

Shapes: L layers, R takers, P prune units and N share units of a stack, F parameters of one share unit (see
`Block.units`). A row of vectors is a layer of a taker, (R L, N): the layers of the first taker, then of the second.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

from snp.compression.installing import fits
from snp.compression.tower import Shape, Tower, alike
from snp.errors import InputError

KINDS = ("prune", "cross", "blockwise")


@dataclass(frozen=True)
class Stack:
    """Units of one component that are pruned alike in all its towers, in the layers and places that all of them have.

    Attributes:
        donor: the tower that lends its units to the takers, and takes none; None: there is one taker alone.
        takers: the towers that may take units, from the donor and from the base layers of their own blocks.
        layers: of every tower. units: share units of every such layer.
        heads: share units that a prune unit stands for. cost: stored parameters of one share unit (F).
        block: layers of a block [ours].
        kinds: the operations on its units.
    """

    component: str
    donor: Tower | None
    takers: tuple[Tower, ...]
    layers: range
    units: range
    heads: int
    cost: int
    block: int
    kinds: tuple[str, ...]

    @property
    def towers(self) -> tuple[Tower, ...]:
        """All of them, the donor first."""
        return self.takers if self.donor is None else (self.donor, *self.takers)

    @property
    def prune_units(self) -> int:
        """P."""
        return len(self.units) // self.heads

    def shape(self, kind: str) -> tuple[int, int]:
        """Of a vector: prune (L, P), of all towers together; cross and blockwise (R L, N)."""
        if kind == "prune":
            return len(self.layers), self.prune_units
        return len(self.takers) * len(self.layers), len(self.units)

    @cached_property
    def base(self) -> Tensor:
        """(R L,) for every row that of the first layer of its block."""
        return torch.cat([torch.full((rows.stop - rows.start,), rows.start) for _, rows, _ in self.groups()])

    @cached_property
    def takes(self) -> Tensor:
        """(R L,) 1 where a layer may take its base layer's units, 0 in base layers, which only lend."""
        return (self.base != torch.arange(len(self.base))).float()

    @cached_property
    def copies(self) -> Tensor:
        """(R L,) how often a kept unit of a row is stored: once, and once more in the donor with the first taker's."""
        once = torch.ones(self.shape("cross")[0])
        if self.donor is not None:
            once[: len(self.layers)] = 2
        return once

    def expand(self, prune_LP: Tensor) -> Tensor:
        """Prune units as share units (R L, N): a head dimension stands for that of every head, in every taker."""
        units_LN = prune_LP if self.heads == 1 else torch.cat([prune_LP] * self.heads, -1)
        return units_LN if len(self.takers) == 1 else torch.cat([units_LN] * len(self.takers), -2)

    def groups(self) -> Iterator[tuple[Tower, slice, slice]]:
        """(taker, rows, layers of the towers) of every block: a layer depends on others of its block alone."""
        for number, taker in enumerate(self.takers):
            for first in range(0, len(self.layers), self.block):
                size = min(self.block, len(self.layers) - first)
                row, layer = number * len(self.layers) + first, self.layers.start + first
                yield taker, slice(row, row + size), slice(layer, layer + size)

    def matrix(self, tower: Tower, layers: slice | None = None) -> Tensor:
        """Live unit matrices (L, N, F), of all layers or these: row (l, i) is unit i of layer l."""
        layers = slice(self.layers.start, self.layers.stop) if layers is None else layers
        units_LNF = torch.stack([block.units(self.component) for block in tower.blocks[layers]])
        return units_LNF[:, self.units.start : self.units.stop]

    def measured(self, tower: Tower) -> Tensor:
        """The same in float32 at least: squares of half-precision weights are too small for their own type."""
        units_LNF = self.matrix(tower)
        return units_LNF.to(torch.promote_types(units_LNF.dtype, torch.float32))

    def __str__(self) -> str:
        """The component, and what of it, where that is not all."""
        whole = {(len(tower), tower.blocks[0].components[self.component].units) for tower in self.towers}
        parts = (("layers", self.layers, {a for a, _ in whole}), ("units", self.units, {b for _, b in whole}))
        spans = [f"{name} {span.start}-{span.stop - 1}" for name, span, sizes in parts if sizes != {len(span)}]
        only = [] if "blockwise" in self.kinds else ["only pruned"]
        return self.component + (f" ({', '.join(spans + only)})" if spans or only else "")


@dataclass(frozen=True)
class Geometry:
    """All units of some towers.

    Attributes:
        towers: the first lends to the others what fits them.
        shapes: tower -> its sizes.
        stacks: name -> Stack; the first of a component has its name. Every unit of every tower is in one of them.
        rest: parameters of the whole model that belong to no unit; they are always stored.
    """

    towers: tuple[Tower, ...]
    shapes: dict[str, Shape]
    stacks: dict[str, Stack]
    rest: int

    @classmethod
    def from_towers(cls, towers: Sequence[Tower], rest: int, block: int) -> "Geometry":
        """Measure `towers`: of all towers that have a unit of one kind at one place, the first lends to the others.

        A unit fits another if it is rows and columns of the same maps, equally long, at the same place of a layer of
        the same number [ours]. So two towers of one shape are one stack of each component [paper]; towers of another
        width have stacks of their own.

        Raises:
            InputError: no tower; towers of several types or devices.
        """
        if not towers:
            raise InputError("towers", "snp needs one at least, got none", "give towers={name: path}, the donor first")
        alike(towers)
        shapes = {tower.name: tower.shape for tower in towers}
        stacks: dict[str, Stack] = {}
        for component in dict.fromkeys(c for shape in shapes.values() for c in shape.components):
            found = [stack for kin in _kin(towers, component) for stack in _stacks(kin, shapes, component, block)]
            stacks |= {component if n == 1 else f"{component}:{n}": stack for n, stack in enumerate(found, 1)}
        return cls(tuple(towers), shapes, stacks, rest)

    @property
    def places(self) -> dict[str, Tensor]:
        """Stack -> (L,) numbers of its layers among those of all stacks: by layer, then by stack."""
        order = sorted(
            (layer, number, name) for number, (name, stack) in enumerate(self.stacks.items()) for layer in stack.layers
        )
        return {name: torch.tensor([i for i, key in enumerate(order) if key[2] == name]) for name in self.stacks}

    @property
    def note(self) -> str:
        """What is decided together, in words; empty for two towers of one shape [paper]."""
        if len(self.towers) == 2 and all(stack.donor for stack in self.stacks.values()):
            return ""
        found: dict[str, list[str]] = {}
        for stack in self.stacks.values():
            names = " and ".join(tower.name for tower in stack.towers)
            found.setdefault(f"{names} {'alone' if stack.donor is None else 'together'}", []).append(str(stack))
        return "; ".join(f"{who}: {', '.join(what)}" for who, what in found.items())


def _kin(towers: Sequence[Tower], component: str) -> list[list[Tower]]:
    """The towers that have a component, in groups whose units fit one another."""
    found: list[list[Tower]] = []
    for tower in towers:
        if component in tower.blocks[0].components:
            group = next((group for group in found if _fit(group[0], tower, component)), None)
            if group is None:
                found.append([tower])
            else:
                group.append(tower)
    return found


def _fit(tower: Tower, other: Tower, component: str) -> bool:
    return all(fits(tower.blocks[0], block, component) for block in other.blocks)


def _stacks(kin: list[Tower], shapes: dict[str, Shape], component: str, block: int) -> Iterator[Stack]:
    """Those of towers whose units fit, cut where one of the towers ends."""
    own = {tower.name: shapes[tower.name] for tower in kin}
    tied = _fit(kin[0], kin[0], component)
    for layers in _spans(shape.layers for shape in own.values()):
        deep = [tower for tower in kin if own[tower.name].layers >= layers.stop]
        for units in _spans(own[tower.name].units(component, "share") for tower in deep):
            first, *others = [t for t in deep if own[t.name].units(component, "share") >= units.stop]
            shape = own[first.name]
            yield Stack(
                component,
                donor=first if others else None,
                takers=tuple(others) or (first,),
                layers=layers,
                units=units,
                heads=shape.heads(component),
                cost=shape.unit_cost(component, "share"),
                block=block,
                kinds=KINDS if others else tuple(kind for kind in KINDS if kind != "cross") if tied else KINDS[:1],
            )


def _spans(sizes: Iterator[int]) -> list[range]:
    """From 0 to the smallest, and so on to the largest."""
    return [range(*pair) for pair in pairwise(sorted({0, *sizes}))]
