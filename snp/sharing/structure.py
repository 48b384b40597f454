"""Structure vectors: what is pruned, shared and own in every layer; exclusive by construction, exact in budget.

Shapes: L layers, P prune units, N share units of a component, F parameters of one share unit (see `Block.units`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from snp.compression.plan import Plan, Share
from snp.compression.tower import Shape, Site, Tower, alike
from snp.errors import InputError

KINDS = ("prune", "cross", "blockwise")


@dataclass(frozen=True)
class Geometry:
    """The units of two towers of one shape: the donor (vision) first, then the receiver (text).

    Attributes:
        block: layers of a block [ours]. base: (L,) for every layer the first one of its block.
        rest: parameters of the whole model that belong to no unit; they are always stored.
    """

    donor: Tower
    receiver: Tower
    shape: Shape
    block: int
    base: Tensor
    rest: int

    @classmethod
    def from_towers(cls, towers: Sequence[Tower], rest: int, block: int) -> "Geometry":
        """Measure `towers`; InputError unless they are two of one shape, type and device."""
        if len(towers) != 2:
            raise InputError("towers", f"snp shares between two towers, got {len(towers)}", "give vision, then text")
        donor, receiver = towers
        if (shape := donor.shape) != receiver.shape:
            raise InputError(
                f"towers {donor.name}, {receiver.name}",
                f"their shapes differ: {shape} and {receiver.shape}",
                "snp needs one depth, width, number of heads and FFN size",
            )
        alike([donor, receiver])
        return cls(donor, receiver, shape, block, torch.arange(shape.layers) // block * block, rest)

    @property
    def takes(self) -> Tensor:
        """(L,) 1 where a layer may take its base layer's units, 0 in base layers, which only lend."""
        return (self.base != torch.arange(self.shape.layers)).float()

    @property
    def groups(self) -> list[slice]:
        """The layers of every block: a layer depends on others of its block alone."""
        return [slice(first, first + self.block) for first in range(0, self.shape.layers, self.block)]

    def cost(self, component: str) -> int:
        """Stored parameters of one share unit (F)."""
        return self.shape.unit_cost(component, "share")

    def expand(self, component: str, prune_LP: Tensor) -> Tensor:
        """Prune units as share units (L, N): a head dimension stands for that of every head."""
        heads = self.shape.heads(component)
        return prune_LP if heads == 1 else torch.cat([prune_LP] * heads, -1)


Vectors = dict[str, dict[str, Tensor]]
"""component -> kind -> tensor: prune (L, P), cross and blockwise (L, N). Large keeps a unit / leaves it own."""


@dataclass(frozen=True)
class Structure:
    """Effective vectors of every component, each (L, N): `keep` = m, `cross` = m*s, `blockwise` = m*(1-s)*b*m_base.

    A unit is never both shared and pruned, nor shared twice, whatever the inputs [ours: construction].
    """

    geometry: Geometry
    keep: dict[str, Tensor]
    cross: dict[str, Tensor]
    blockwise: dict[str, Tensor]

    @classmethod
    def compose(cls, geometry: Geometry, own: Vectors) -> "Structure":
        """Make the effective vectors from own[c] = {prune: m, cross: 1-s, blockwise: 1-b}.

        Of binary vectors this is a structure; of probabilities of independent vectors it is the expected one, as
        every product is of different units. Leading dimensions are kept.
        """
        keep, cross, blockwise = {}, {}, {}
        for c in geometry.shape.components:
            m = geometry.expand(c, own[c]["prune"])
            s, b = 1 - own[c]["cross"], 1 - own[c]["blockwise"]
            keep[c], cross[c] = m, m * s
            blockwise[c] = m * (1 - s) * b * m[..., geometry.base, :] * geometry.takes[:, None]
        return cls(geometry, keep, cross, blockwise)

    @classmethod
    def dense(cls, geometry: Geometry) -> "Structure":
        """All units kept, all own."""
        shape = geometry.shape
        ones = {c: torch.ones(shape.layers, shape.units(c, "share")) for c in shape.components}
        none = {c: torch.zeros_like(v) for c, v in ones.items()}
        return cls(geometry, ones, none, dict(none))

    @property
    def vectors(self) -> list[Tensor]:
        """All effective vectors."""
        return [v for kind in (self.keep, self.cross, self.blockwise) for v in kind.values()]

    def cut(self) -> "Structure":
        """The same values as tensors of their own, whose gradients go no further."""
        kinds = (self.keep, self.cross, self.blockwise)
        return Structure(self.geometry, *({c: v.detach().requires_grad_() for c, v in k.items()} for k in kinds))

    def stored(self) -> Tensor:
        """Parameters of the whole model that this structure stores (0-d float64; differentiable) [ours]."""
        units = (
            (2 * self.keep[c] - self.cross[c] - self.blockwise[c]).sum((-2, -1), dtype=torch.float64)
            * self.geometry.cost(c)
            for c in self.keep
        )
        return sum(units, torch.tensor(self.geometry.rest, dtype=torch.float64))

    def shares(self) -> dict[str, float]:
        """Part of the receiver's unit parameters that is pruned, cross-shared and shared block-wise."""
        cost = self.geometry.cost
        total = sum(cost(c) * self.keep[c].numel() for c in self.keep)
        part = {
            "pruned": sum(cost(c) * float((1 - self.keep[c]).sum()) for c in self.keep),
            "cross": sum(cost(c) * float(self.cross[c].sum()) for c in self.keep),
            "blockwise": sum(cost(c) * float(self.blockwise[c].sum()) for c in self.keep),
        }
        return {name: value / total for name, value in part.items()}

    def effective(
        self, component: str, layers: slice, donor_LNF: Tensor, receiver_LNF: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Weights that the structure makes of the dense unit matrices of one block: donor and receiver, each (L, N, F).

        receiver = cross*donor + blockwise*(base layer's EFFECTIVE unit) + (keep-cross-blockwise)*own [ours].

        Args:
            layers: those of the block, one of `Geometry.groups`.
        """
        keep, cross, blockwise = (  # exact in any floating type: they are 0 or 1
            v[component][layers, :, None].to(donor_LNF) for v in (self.keep, self.cross, self.blockwise)
        )
        lent = cross[:1] * donor_LNF[:1] + (keep - cross)[:1] * receiver_LNF[:1]
        receiver = cross * donor_LNF
        receiver += (keep - cross - blockwise) * receiver_LNF  # in place: a block is what a step needs most memory for
        takers = torch.arange(1, len(keep), device=keep.device)
        return keep * donor_LNF, receiver.index_add_(0, takers, blockwise[1:] * lent)

    def plan(self, note: str = "") -> Plan:
        """The Plan of this (binary) structure: both towers pruned alike, the receiver sharing from two donors."""
        g = self.geometry
        keep, shares = {}, []
        for c in self.keep:
            for layer in range(g.shape.layers):
                kept = self.keep[c][layer, : g.shape.units(c)] > 0.5
                if not kept.all():
                    keep[Site(g.donor.name, layer, c)] = kept
                    keep[Site(g.receiver.name, layer, c)] = kept.clone()
                lenders = (
                    ((g.donor.name, layer), self.cross[c]),
                    ((g.receiver.name, int(g.base[layer])), self.blockwise[c]),
                )
                for donor, vector in lenders:
                    if (units := vector[layer] > 0.5).any():
                        shares.append(Share(Site(g.receiver.name, layer, c), donor, units))
        towers = {tower.name: g.shape for tower in (g.donor, g.receiver)}
        return Plan(towers=towers, keep=keep, shares=tuple(shares), note=note)
