"""Numbers of units that suit kernels: pruning units stand and fall in blocks, so that widths are multiples of a number.

A block holds units of adjacent ranks, the best first, so what is kept of a layer is what would be kept without blocks,
some units more or fewer [ours]. The price is exactness: a budget is met from below, and missed by less than what the
smallest block costs, in place of the smallest unit. Methods that share make up for that with single shared units, on
which no width depends.
"""

import math
from collections.abc import Mapping

from torch import Tensor

from snp.compression.block import Component
from snp.compression.plan import Plan
from snp.compression.tower import Tower
from snp.errors import InputError


def step_of(component: Component, multiple: int) -> int:
    """Pruning units that make the width of a component's maps a multiple: of dimensions, of each head.

    Whole heads need none together where a head's own width is one; nor do units in whose place zeros stand.
    """
    if component.form == "padded":
        return 1
    return multiple // math.gcd(multiple, component.parts[1].each)  # of keys, which are as wide as a head


def blocks(scores: Tensor, step: int) -> list[list[int]]:
    """The units of each block by their scores [n], the best block first; what is left over is of the last one."""
    order = scores.argsort(descending=True, stable=True).tolist()
    starts = [step * i for i in range(max(1, len(order) // step))]
    return [order[start:end] for start, end in zip(starts, [*starts[1:], len(order)], strict=True)]


def check(plan: Plan, towers: Mapping[str, Tower], multiple: int, name: str) -> None:
    """InputError where the plan of the method `name` has a number of units that is no multiple, nor all of them.

    All but a multiple will do: towers may share a part of their units alone, of which all stay that are left over.
    """
    for site, kept in plan.keep.items():
        step = step_of(towers[site.tower].blocks[site.layer].components[site.component], multiple)
        number = int(kept.sum())
        if number % step and (len(kept) - number) % step:
            problem = f"{name} does not go by it: it keeps {number} units of {site}"
            raise InputError("round_to", problem, "leave it out, or choose units by baselines.ranking.best_within")
