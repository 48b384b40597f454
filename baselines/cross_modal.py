"""Cross-modal: whole layers of the text tower tied to the vision tower by hand."""

from typing import Literal

import torch
from pydantic import Field

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
    plan's note says so.
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
        last: int | None = Field(None, ge=0, description="last layer that may be tied; none: the last of the tower")

    options: Options

    def _tied(self, component: str) -> bool:
        return self.options.part in ("both", "ffn" if component.startswith("ffn") else "msa")

    def plan(self, problem: Problem) -> Plan:
        if len(problem.towers) != 2:
            found = f"cross-modal ties two towers, got {len(problem.towers)}"
            raise InputError("towers", found, "give vision, then text")
        (vision, donor), (text, receiver) = problem.towers.items()
        shape = receiver.shape
        if donor.shape != shape:
            raise InputError(
                f"towers {vision}, {text}",
                "their shapes differ, so layers cannot be tied",
                "use towers of one shape",
            )
        last = shape.layers - 1 if self.options.last is None else self.options.last
        if not self.options.first <= last < shape.layers:
            raise InputError("first, last", f"{self.options.first}..{last} is no range of the {shape.layers} layers")
        surplus = problem.budget.total - problem.budget.target
        shares = []
        for layer in range(self.options.first, last + 1):
            for c in filter(self._tied, shape.components):
                cost, n = shape.unit_cost(c, "share"), shape.units(c, "share")
                tied = min(n, max(0, -(-surplus // cost)))  # rounded up: the target is not exceeded
                if tied:
                    shares.append(Share(Site(text, layer, c), (vision, layer), torch.arange(n) < tied))
                surplus -= tied * cost
        whole = f"{WORDS[self.options.part]} {self.options.first}-{last} are tied, all that may be"
        note = f"{whole}: less cannot be stored, so the target is not reached"
        return Plan(towers={vision: shape, text: shape}, shares=tuple(shares), note=note if surplus > 0 else "")
