"""Pair2Seq's claims, those of who tested it again, and whether compressed models forget first to say that nothing fits.

Definitions [ours]. Values are points, paired over seeds, mean over splits: of AUROC (with a target against without), of
Pr@(F1=1), or of precision@1 where there is a target. Noise is the share of made captions that something fits.
"""

from collections.abc import Iterator

import pandas as pd

from snp.experiment.absent import ABSENT, PAIR, SEQ, SWAP
from snp.experiment.rows import DENSE, Row
from snp.models.augment import Augment
from snp.report.evidence import Claim, Evidence, line, verdict
from snp.report.frame import Measured, over_benchmarks, subtract
from snp.report.statistics import estimate

GAINED, LOST = 1.5, 0.5
"""Points of Pr@(F1=1) that made captions add at least [paper], and of precision@1 that they cost at most. [ours]"""
WHOLE, EXACT, FOUND = "auroc", "precision@f1", "precision@1"


def made_claims(seen: Evidence) -> Iterator[Claim]:
    """What is claimed of captions that are made, and of compression, for every group of such rows."""
    for group in seen.groups:
        if seen.has(group, _title(PAIR), _title(SEQ), _title(SWAP), _title(None)):
            pair, seq, swap, few = (seen.row(_title(how), group) for how in (PAIR, SEQ, SWAP, None))
            yield _told(seen, "made with the picture beat made without", pair, seq, WHOLE, 0)
            yield _purer(seen, pair, seq)
            yield _told(seen, f"made captions add at least {GAINED:g} points", pair, few, EXACT, GAINED)
            yield _told(seen, f"they cost at most {LOST:g} points of precision", pair, few, FOUND, -LOST)
            yield _told(seen, "blind swaps do as well (tested again by others)", swap, pair, WHOLE, 0, strictly=False)
    for row in seen.members:
        if row.special is None and row.method != DENSE and row.benchmarks == (ABSENT,):
            yield _first(seen, row)


def gap(measured: Measured, row: Row, other: Row, metric: str) -> pd.Series:
    """Points of a figure by which a row is ahead, by seed; empty where one of the two is not measured."""
    if measured.shown(row).empty or measured.shown(other).empty:
        return pd.Series(dtype=float)
    own, theirs = (measured.shown(one).xs(metric, level="metric") for one in (row, other))
    return over_benchmarks(subtract(own, theirs))


def _title(how: Augment | None) -> str:
    return f"{DENSE}, {how or 'true ones alone'}"


def _told(seen: Evidence, text: str, row: Row, other: Row, metric: str, bound: float, strictly: bool = True) -> Claim:
    value = estimate(gap(seen.measured, row, other, metric))
    where = f"{seen.where}: {row.title} - {other.title}, {metric}"
    return line("Q", text, where, value, verdict(value, bound, strictly and bound == 0), bound)


def _purer(seen: Evidence, pair: Row, seq: Row) -> Claim:
    """Whether fewer of the captions that were made with the picture mean something in it."""
    own, theirs = (seen.measured.asked(row) for row in (pair, seq))
    both = not own.empty and not theirs.empty
    value = estimate(100 * (theirs.noise - own.noise) if both else pd.Series(dtype=float))
    text = "fewer of those made with the picture are wrong"
    return line("Q", text, f"{seen.where}: {seq.title} - {pair.title}, noise", value, verdict(value, 0, True), 0)


def _first(seen: Evidence, row: Row) -> Claim:
    """Whether AUROC falls by more points than precision@1, beside the dense model."""
    dense = next(one for one in seen.members if one.method == DENSE and one.special is None)
    fallen = [gap(seen.measured, dense, row, metric) for metric in (WHOLE, FOUND)]
    value = estimate(fallen[0] - fallen[1])
    text = "compression loses the ability to say no before precision"
    where = f"{seen.where}: {row.name}, {row.group}: fall of {WHOLE} - fall of {FOUND}"
    return line("Q", text, where, value, verdict(value, 0, True), 0)
