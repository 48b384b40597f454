"""Structure vectors: what is pruned, shared and own in every layer; exclusive by construction, exact in budget.

Shapes: L layers, P prune units, N share units of a component, F parameters of one share unit (see `Block.units`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from snp.compression.plan import Plan, Share
from snp.compression.tower import COMPONENTS, Shape, Tower
from snp.errors import InputError

KINDS = ("prune", "cross", "blockwise")


@dataclass(frozen=True)
class Geometry:
    """The units of two towers of one shape: the donor (vision) first, then the receiver (text).

    Attributes:
        base: (L,) for every layer the first layer of its block of `block` layers [ours].
        rest: parameters of the whole model that belong to no unit; they are always stored.
    """

    donor: Tower
    receiver: Tower
    shape: Shape
    base: Tensor
    rest: int

    @classmethod
    def of(cls, towers: Sequence[Tower], rest: int, block: int) -> "Geometry":
        """Measure `towers`; InputError unless they are two of one shape."""
        if len(towers) != 2:
            raise InputError(
                "towers", f"snp shares between two towers, got {len(towers)}", "give vision, then text"
            )
        donor, receiver = towers
        if (shape := donor.shape) != receiver.shape:
            raise InputError(
                f"towers {donor.name}, {receiver.name}",
                f"their shapes differ: {shape} and {receiver.shape}",
                "snp needs one depth, width, number of heads and FFN size",
            )
        return cls(donor, receiver, shape, torch.arange(shape.layers) // block * block, rest)

    def cost(self, component: str) -> int:
        """Stored parameters of one share unit (F)."""
        return self.shape.unit_cost(component, "share")

    def expand(self, component: str, prune_LP: Tensor) -> Tensor:
        """Prune units as share units (L, N): a head dimension stands for that of every head."""
        return prune_LP if component == "ffn" else prune_LP.repeat(1, self.shape.n_heads)


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
        """Make the effective vectors from binary ones: own[c] = {prune: m, cross: 1-s, blockwise: 1-b}."""
        keep, cross, blockwise = {}, {}, {}
        for c in COMPONENTS:
            m = geometry.expand(c, own[c]["prune"])
            s, b = 1 - own[c]["cross"], 1 - own[c]["blockwise"]
            may_take = (geometry.base != torch.arange(geometry.shape.layers)).to(m)[
                :, None
            ]  # base layers lend only
            keep[c], cross[c] = m, m * s
            blockwise[c] = m * (1 - s) * b * m[geometry.base] * may_take
        return cls(geometry, keep, cross, blockwise)

    def stored(self) -> Tensor:
        """Parameters of the whole model that this structure stores (0-d float64; differentiable) [ours]."""
        copies = {c: 2 * self.keep[c] - self.cross[c] - self.blockwise[c] for c in COMPONENTS}
        return sum(
            (copies[c].sum(dtype=torch.float64) * self.geometry.cost(c) for c in COMPONENTS),
            torch.tensor(float(self.geometry.rest), dtype=torch.float64),
        )

    def shares(self) -> dict[str, float]:
        """Part of the receiver's unit parameters that is pruned, cross-shared and shared block-wise."""
        cost = self.geometry.cost
        total = sum(cost(c) * self.keep[c].numel() for c in COMPONENTS)
        part = {
            "pruned": sum(cost(c) * float((1 - self.keep[c]).sum()) for c in COMPONENTS),
            "cross": sum(cost(c) * float(self.cross[c].sum()) for c in COMPONENTS),
            "blockwise": sum(cost(c) * float(self.blockwise[c].sum()) for c in COMPONENTS),
        }
        return {name: value / total for name, value in part.items()}

    def effective(self, component: str, donor_LNF: Tensor, receiver_LNF: Tensor) -> tuple[Tensor, Tensor]:
        """Weights that the structure makes of dense unit matrices: donor and receiver, each (L, N, F).

        receiver = cross*donor + blockwise*(base layer's EFFECTIVE unit) + (keep-cross-blockwise)*own [ours].
        """
        keep, cross, blockwise = (v[component][..., None] for v in (self.keep, self.cross, self.blockwise))
        base = self.geometry.base
        lent = (cross * donor_LNF + (keep - cross) * receiver_LNF)[base]
        receiver = cross * donor_LNF + blockwise * lent + (keep - cross - blockwise) * receiver_LNF
        return keep * donor_LNF, receiver

    def plan(self, note: str = "") -> Plan:
        """The Plan of this (binary) structure: both towers pruned alike, the receiver sharing from two donors."""
        g = self.geometry
        keep, shares = {}, []
        for c in COMPONENTS:
            for layer in range(g.shape.layers):
                kept = self.keep[c][layer, : g.shape.units(c)] > 0.5
                if not kept.all():
                    keep[g.donor.name, layer, c] = kept
                    keep[g.receiver.name, layer, c] = kept.clone()
                lenders = (
                    ((g.donor.name, layer), self.cross[c]),
                    ((g.receiver.name, int(g.base[layer])), self.blockwise[c]),
                )
                for donor, vector in lenders:
                    if (units := vector[layer] > 0.5).any():
                        shares.append(Share((g.receiver.name, layer, c), donor, units))
        towers = {tower.name: g.shape for tower in (g.donor, g.receiver)}
        return Plan(towers=towers, keep=keep, shares=tuple(shares), note=note)


def harden(geometry: Geometry, logits: Vectors, shift: float = 0.0) -> Structure:
    """The structure without noise: a unit is kept / own where logit + shift > 0; one unit of each component stays."""
    own: Vectors = {}
    for c in COMPONENTS:
        own[c] = {kind: (logits[c][kind] + shift > 0).float() for kind in KINDS}
        best = logits[c]["prune"].argmax(1, keepdim=True)
        own[c]["prune"].scatter_(1, best, 1.0)
    return Structure.compose(geometry, own)


def project(geometry: Geometry, logits: Vectors, target: int) -> tuple[Structure, bool]:
    """The structure nearest to `logits` that stores at most `target` parameters, and whether the target is reached.

    One scalar shift of all logits by bisection, then unit by unit from the least negative logit on, as long as the
    unit still fits [ours]. Switched-off vectors hold +inf. If even full sharing and pruning stores too much,
    that ceiling is returned with False.
    """
    logits = {c: {kind: v.detach().double().clone() for kind, v in logits[c].items()} for c in COMPONENTS}
    finite = torch.cat([v[v.isfinite()].flatten() for c in COMPONENTS for v in logits[c].values()])
    if not len(finite):
        raise InputError("snp", "prune, cross and blockwise are all switched off", "leave at least one on")
    low, high = -float(finite.max()) - 1, -float(finite.min()) + 1

    def stored(shift: float) -> float:
        return float(harden(geometry, logits, shift).stored())

    if stored(low) > target:
        return harden(geometry, logits, low), False
    if stored(high) <= target:
        return harden(geometry, logits, high), True
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if stored(middle) <= target else (low, middle)
    _fill(geometry, logits, low, target)
    return harden(geometry, logits, low), True


def _fill(geometry: Geometry, logits: Vectors, shift: float, target: int, tries: int = 256) -> None:
    """Give back single units, the most wanted first, while they fit: edits `logits` in place."""
    now = harden(geometry, logits, shift)
    removed = {
        "prune": lambda c: now.keep[c][:, : geometry.shape.units(c)] < 0.5,
        "cross": lambda c: now.cross[c] > 0.5,
        "blockwise": lambda c: now.blockwise[c] > 0.5,
    }
    found = []
    for c in COMPONENTS:
        for kind in KINDS:
            values = logits[c][kind].flatten()
            off = removed[kind](c).flatten().nonzero().flatten()
            best = off[values[off].argsort(descending=True, stable=True)[:tries]]
            found += [(float(values[i]), c, kind, int(i)) for i in best]
    smallest = min(map(geometry.cost, COMPONENTS))
    for value, c, kind, i in sorted(found, key=lambda f: -f[0])[:tries]:
        room = target - float(harden(geometry, logits, shift).stored())
        if room < smallest:
            return
        flat = logits[c][kind].view(-1)
        flat[i] = float("inf")
        if float(harden(geometry, logits, shift).stored()) > target:
            flat[i] = value
