"""Cross-modal: whole layers of the text tower tied to the vision tower by hand."""

from typing import Literal

import torch
from pydantic import Field

from snp.compression.installing import fits
from snp.compression.method import OneShot, StructuredOptions
from snp.compression.plan import Plan, Share
from snp.compression.problem import Problem
from snp.compression.registry import register
from snp.compression.tower import Site
from snp.errors import InputError

WORDS = {"msa": "attention of layers", "ffn": "feed-forward of layers", "both": "whole layers"}


@register
class CrossModal(OneShot):
    """Ties layers of the text tower to the same layers of the vision tower; norms and embeddings stay apart.

    Layers are tied in order until the budget is met; the last component is tied only as far as the budget asks
    [ours]. Tying cannot go below one tower: where the budget asks for more, everything in range is tied and the
    plan's note says so. Of towers that differ in depth or in numbers of units, what both have can be tied [ours].
    """

    name = "cross-modal"
    kind = "shared"
    stage = "one-shot"
    source = "after MS-CLIP (You et al., 2022)"
    summary = "tie whole text layers to the vision tower, by hand"

    class Options(StructuredOptions):
        """What is tied."""

        part: Literal["msa", "ffn", "both"] = Field("both", description="attention, feed-forward, or both")
        first: int = Field(0, ge=0, description="first layer that may be tied")
        last: int | None = Field(None, ge=0, description="last layer that may be tied; none: the last of both towers")

    options: Options

    def _tied(self, component: str) -> bool:
        return self.options.part in ("both", "ffn" if component.startswith("ffn") else "msa")

    def plan(self, problem: Problem) -> Plan:
        if len(problem.towers) != 2:
            found = f"cross-modal ties two towers, got {len(problem.towers)}"
            raise InputError("towers", found, "give vision, then text")
        (vision, donor), (text, receiver) = problem.towers.items()
        lent, shape = donor.shape, receiver.shape
        both = [c for c in shape.components if self._tied(c) and fits(receiver.blocks[0], donor.blocks[0], c)]
        if not both:
            raise InputError(
                f"towers {vision}, {text}",
                f"{WORDS[self.options.part]} cannot be tied: their units differ in size",
                "use snp, which prunes both and shares inside each of them",
            )
        depth = min(lent.layers, shape.layers)
        last = depth - 1 if self.options.last is None else self.options.last
        if not self.options.first <= last < depth:
            raise InputError("first, last", f"{self.options.first}..{last} is no range of the {depth} layers")
        surplus = problem.budget.total - problem.budget.target
        shares = []
        for layer in range(self.options.first, last + 1):
            for c in both:
                cost, n = shape.unit_cost(c, "share"), shape.units(c, "share")
                most = min(n, lent.units(c, "share"))
                tied = min(most, max(0, -(-surplus // cost)))  # rounded up: the target is not exceeded
                if tied:
                    shares.append(Share(Site(text, layer, c), (vision, layer), torch.arange(n) < tied))
                surplus -= tied * cost
        what = (
            WORDS[self.options.part]
            if len(both) == len([*filter(self._tied, shape.components)])
            else f"{', '.join(both)} of layers"
        )
        whole = f"{what} {self.options.first}-{last} are tied, all that may be"
        note = f"{whole}: less cannot be stored, so the target is not reached"
        return Plan(towers={vision: lent, text: shape}, shares=tuple(shares), note=note if surplus > 0 else "")
