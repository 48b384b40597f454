"""Which rows Table 6 has: models that are adapted to other looks of their scenes by a few expressions."""

from snp.compression.size import Size
from snp.experiment.rows import DENSE, WHOLE, Row, make, seeds_of
from snp.experiment.spec import Scale, home_of
from snp.models.adapt import TRAINS, TRIED, Adapt, Train
from snp.models.special import unfit

COUNTS = (32, 128, 512)
"""Expressions that are learned from; all rows are of the middle one."""
MIDDLE = COUNTS[1]
SPARSITY = Size(sparsity=0.7)
PLAIN, ATTRIBUTED, CHANCE = "gradual", "gradual-attribution", "random"
"""Tickets: by gradual magnitude pruning, by the same with the weight of heads, and by chance."""
LITTLE: tuple[Train, ...] = ("near", "bias", "last")
"""Of the dense model, what else may learn than all of it."""
Plan = tuple[str, Size | None, Adapt]


def table6(scale: Scale) -> list[Row]:
    """Table 6, a few expressions of another look: tickets by attribution (ALTER) beside full fine-tuning.

    The source's models are adapted to five other looks of scenes, from 32, 128 and 512 expressions, five draws each;
    photographs to scenes apart. Three seeds where the claims are about them.
    """
    if unfit(scale, Adapt()):
        return []
    rows: list[Row] = []
    for shots in COUNTS if scale != "smoke" else COUNTS[:1]:
        rows += [_row(scale, *plan, main=True) for plan in main(shots)]
        if shots == MIDDLE:
            rows += [_row(scale, *plan, seeds=1) for plan in others(shots)]
    data, seeds = "stamps", seeds_of(scale)[:1]
    if scale != "smoke":
        rows += [
            make(scale, data, name, size=size or WHOLE, benchmarks=("drawn",), seeds=seeds, special=adapt)
            for name, size, adapt in main(MIDDLE)[:3]
        ]
    return rows


def main(shots: int) -> list[Plan]:
    """What the claims are about: all of the dense model, and of three tickets."""
    tickets = [(name, SPARSITY, Adapt(shots=shots)) for name in (PLAIN, ATTRIBUTED, CHANCE)]
    return [(DENSE, None, Adapt(shots=shots)), *tickets]


def others(shots: int) -> list[Plan]:
    """Less of the dense model; other tickets, sizes, and what becomes of what they leave out; units that are shared."""
    found: list[Plan] = [(DENSE, None, Adapt(shots=shots, train=train)) for train in LITTLE]
    for size in (Size(sparsity=0.5), Size(sparsity=0.9)):
        found += [(name, size, Adapt(shots=shots)) for name in (PLAIN, ATTRIBUTED)]
    found += [(name, SPARSITY, Adapt(shots=shots)) for name in ("universal-ticket", "magnitude")]
    for rest in ("zero", "dense"):
        found += [(name, SPARSITY, Adapt(shots=shots, train="ticket", rest=rest)) for name in (ATTRIBUTED, CHANCE)]
    trains: tuple[Train, ...] = ("all", "shared", "own")
    return found + [("snp", Size(0.6), Adapt(shots=shots, train=train)) for train in trains]


def rates(scale: Scale) -> list[Row]:
    """Learning rates: what each way of adapting reaches on a sixth look, on which nothing is judged; one seed."""
    if unfit(scale, Adapt()):
        return []
    found = []
    for train in TRAINS:
        name, size = (ATTRIBUTED, SPARSITY) if train == "ticket" else (DENSE, WHOLE)
        if train in ("shared", "own"):
            name, size = "snp", Size(0.6)
        for rate in TRIED:
            adapt = Adapt(shots=MIDDLE, train=train, rate=rate)
            found.append(make(scale, home_of(scale), name, size=size, benchmarks=("faded",), special=adapt))
    return found


def _row(scale: Scale, name: str, size: Size | None, adapt: Adapt, main: bool = False, seeds: int = 3) -> Row:
    return make(
        scale, home_of(scale), name, size=size or WHOLE, benchmarks=("looks",), seeds=seeds_of(scale, seeds),
        main=main, special=adapt,
    )  # fmt: skip
