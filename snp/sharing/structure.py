"""Structure vectors: what is pruned, shared and own in every layer; exclusive by construction, exact in budget.

Shapes as in `geometry`: L layers, R takers, P prune units, N share units of a stack, F parameters of a share unit.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from snp.compression.plan import Plan, Share
from snp.compression.tower import Site
from snp.sharing.geometry import KINDS, Geometry

Vectors = dict[str, dict[str, Tensor]]
"""stack -> kind -> tensor: prune (L, P), cross and blockwise (R L, N). Large keeps a unit / leaves it own."""


@dataclass(frozen=True)
class Structure:
    """Effective vectors of every stack, each (R L, N): `keep` = m, `cross` = m*s, `blockwise` = m*(1-s)*b*m_base.

    A unit is never both shared and pruned, nor shared twice, whatever the inputs [ours: construction].
    """

    geometry: Geometry
    keep: dict[str, Tensor]
    cross: dict[str, Tensor]
    blockwise: dict[str, Tensor]

    @classmethod
    def compose(cls, geometry: Geometry, own: Vectors) -> "Structure":
        """Make the effective vectors from own[stack] = {prune: m, cross: 1-s, blockwise: 1-b}; s, b are 0 if missing.

        Of binary vectors this is a structure; of probabilities of independent vectors it is the expected one, as
        every product is of different units. Leading dimensions are kept.
        """
        keep, cross, blockwise = {}, {}, {}
        for name, stack in geometry.stacks.items():
            m = stack.expand(own[name]["prune"])
            s, b = (1 - own[name].get(kind, torch.ones(())) for kind in ("cross", "blockwise"))
            keep[name], cross[name] = m, m * s
            blockwise[name] = m * (1 - s) * b * m[..., stack.base, :] * stack.takes[:, None]
        return cls(geometry, keep, cross, blockwise)

    @classmethod
    def dense(cls, geometry: Geometry) -> "Structure":
        """All units kept, all own."""
        ones = {name: torch.ones(stack.shape("cross")) for name, stack in geometry.stacks.items()}
        none = {name: torch.zeros_like(v) for name, v in ones.items()}
        return cls(geometry, ones, none, dict(none))

    @property
    def operations(self) -> list[tuple[str, str]]:
        """(kind, stack) of all effective vectors that are not zero by construction."""
        return [(kind, name) for kind in KINDS for name, stack in self.geometry.stacks.items() if kind in stack.kinds]

    @property
    def vectors(self) -> list[Tensor]:
        """Those of `operations`."""
        kinds = {"prune": self.keep, "cross": self.cross, "blockwise": self.blockwise}
        return [kinds[kind][name] for kind, name in self.operations]

    def cut(self) -> "Structure":
        """The same values as tensors of their own, whose gradients go no further."""
        kinds = (self.keep, self.cross, self.blockwise)
        return Structure(self.geometry, *({c: v.detach().requires_grad_() for c, v in k.items()} for k in kinds))

    def stored(self) -> Tensor:
        """Parameters of the whole model that this structure stores (0-d float64; differentiable) [ours]."""
        units = (
            (stack.copies[:, None] * self.keep[name] - self.cross[name] - self.blockwise[name]).sum(
                (-2, -1), dtype=torch.float64
            )
            * stack.cost
            for name, stack in self.geometry.stacks.items()
        )
        return sum(units, torch.tensor(self.geometry.rest, dtype=torch.float64))

    def shares(self) -> dict[str, float]:
        """Part of the takers' unit parameters that is pruned, cross-shared and shared block-wise."""
        cost = {name: stack.cost for name, stack in self.geometry.stacks.items()}
        total = sum(cost[c] * self.keep[c].numel() for c in self.keep)
        part = {
            "pruned": sum(cost[c] * float((1 - self.keep[c]).sum()) for c in self.keep),
            "cross": sum(cost[c] * float(self.cross[c].sum()) for c in self.keep),
            "blockwise": sum(cost[c] * float(self.blockwise[c].sum()) for c in self.keep),
        }
        return {name: value / total for name, value in part.items()}

    def effective(
        self, name: str, rows: slice, own_LNF: Tensor, donor_LNF: Tensor | None
    ) -> tuple[Tensor | None, Tensor]:
        """Weights that the structure makes of the dense unit matrices of one block: donor and taker, each (L, N, F).

        taker = cross*donor + blockwise*(base layer's EFFECTIVE unit) + (keep-cross-blockwise)*own [ours].

        Args:
            rows: those of the block, of `Stack.groups`.
        """
        keep, cross, blockwise = (  # exact in any floating type: they are 0 or 1
            v[name][rows, :, None].to(own_LNF) for v in (self.keep, self.cross, self.blockwise)
        )
        later = torch.arange(1, len(keep), device=keep.device)
        if donor_LNF is None:
            taker = (keep - blockwise) * own_LNF
            return None, taker.index_add_(0, later, blockwise[1:] * (keep[:1] * own_LNF[:1]))
        lent = cross[:1] * donor_LNF[:1] + (keep - cross)[:1] * own_LNF[:1]
        taker = cross * donor_LNF
        taker += (keep - cross - blockwise) * own_LNF  # in place: a block is what a step needs most memory for
        return keep * donor_LNF, taker.index_add_(0, later, blockwise[1:] * lent)

    def plan(self, note: str = "") -> Plan:
        """The Plan of this (binary) structure: the towers of a stack pruned alike, takers sharing from two donors."""
        kept: dict[Site, dict[int, Tensor]] = {}  # site -> first unit -> those of a stack
        shares = []
        for name, stack in self.geometry.stacks.items():
            keep, cross, blockwise = (v[name] > 0.5 for v in (self.keep, self.cross, self.blockwise))
            for tower in stack.towers:
                for row, layer in enumerate(stack.layers):
                    units_P = keep[row, : stack.prune_units]
                    kept.setdefault(Site(tower.name, layer, stack.component), {})[stack.units.start] = units_P
            for taker, rows, layers in stack.groups():
                n = self.geometry.shapes[taker.name].units(stack.component, "share")
                after = n - stack.units.stop
                for row, layer in enumerate(range(layers.start, layers.stop), rows.start):
                    lenders = [((taker.name, layers.start), blockwise[row])]
                    if stack.donor is not None:
                        lenders.append(((stack.donor.name, layer), cross[row]))
                    for lender, units_N in lenders:
                        units = F.pad(units_N, (stack.units.start, after))
                        shares.append(Share(Site(taker.name, layer, stack.component), lender, units))
        keeps = {site: torch.cat([parts[first] for first in sorted(parts)]) for site, parts in kept.items()}
        return Plan(towers=self.geometry.shapes, keep=keeps, shares=tuple(shares), note=note)
