"""Which rows Table 7 has: expressions without a target, captions that are made of them, and smaller models."""

from snp.compression.size import Size
from snp.experiment.benchmarks import Benchmark
from snp.experiment.rows import DENSE, Row, make, seeds_of
from snp.experiment.spec import Scale, home_of
from snp.models.augment import Augment
from snp.models.special import unfit

PAIR, SEQ, SWAP, RULE = Augment(), Augment(kind="seq"), Augment(kind="swap"), Augment(kind="rule")
"""Pair-to-sequence, its baseline, the rival that beat it when it was tested again, and the ceiling."""
OTHERS = (Augment(kind="nearest"), Augment(kind="random"), Augment(phases=1), Augment(kind="swap", phases=1))
NOISE = tuple(Augment(kind="rule", noise=noise) for noise in (0.1, 0.25, 0.5))
"""True edits of which a share are wrong."""
SMALLER = (("snp", 0.6), ("upop", 0.6), ("magnitude-structured-uniform", 0.6), ("snp", 0.4), ("upop", 0.4))
"""Compressed models of Table 1, which learn from the few true captions alone."""
ABSENT: Benchmark = "no-target"


def table7(scale: Scale) -> list[Row]:
    """Table 7, expressions without a target: captions made to learn from (Pair2Seq), and models that are compressed.

    Three seeds; one for what else makes captions, and for the curve over wrong labels. Paper scale: gRefCOCO, on
    compressed models alone, as nothing is known there of what is in a picture.
    """
    data, seeds = home_of(scale), seeds_of(scale)

    def made(how: Augment, own: tuple[int, ...]) -> Row:
        return make(scale, data, DENSE, size=Size(0.6), benchmarks=(ABSENT,), seeds=own, special=how, main=own == seeds)

    rows: list[Row] = []
    if unfit(scale, PAIR) is None:
        rows = [made(how, seeds) for how in (PAIR, SEQ, SWAP, RULE)]
        rows += [made(how, seeds[:1]).model_copy(update={"main": False}) for how in (*OTHERS, *NOISE)]
        rows.insert(0, rows[0].model_copy(update={"special": None}))
    names = [*SMALLER] if rows else [(DENSE, 0.6), *SMALLER]
    sizes = [(name, keep) for name, keep in names if scale != "smoke" or keep > 0.5]
    return rows + [
        make(scale, data, name, size=Size(keep), benchmarks=(ABSENT,), seeds=seeds, main=not rows)
        for name, keep in sizes
    ]
