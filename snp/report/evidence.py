"""What a claim is, and the rows and results that it is tested on: for `snp.report.claims`."""

from dataclasses import dataclass
from typing import Literal

import pandas as pd

from snp.experiment.benchmarks import ABOUT, EXPRESSIONS
from snp.experiment.rows import DENSE, Row
from snp.report.frame import Measured, over_benchmarks
from snp.report.statistics import CONFIDENCE, Estimate, estimate, seeds_needed, signed

Verdict = Literal["holds", "fails", "alike", "undecided", "not tested"]
ALIKE = 1.0
"""Points within which two rows are alike: as much as is "almost no loss". [ours]"""


@dataclass(frozen=True)
class Claim:
    """One line of the claims table; `number` is the claim's own, B: an aim of this project, T: a check of the testbed.

    needed: seeds that would decide it, from the spread that was measured; empty where nothing can be said.
    """

    number: str
    text: str
    where: str
    measured: str
    interval: str
    seeds: int
    needed: str
    verdict: Verdict


class Evidence:
    """The rows of one data set and what was measured on them, addressed by the title of a row and its group.

    Attributes:
        where: the data set, and what is judged where that is not expressions.
    """

    def __init__(self, data: str, measured: Measured) -> None:
        self.measured = measured
        self.members = [row for row in measured.rows if row.data == data]
        others = [ABOUT[name].title for row in self.members[:1] for name in row.benchmarks if name not in EXPRESSIONS]
        self.where = " ".join([data, *others])
        self.groups = list(dict.fromkeys(row.group for row in self.members))

    def has(self, group: str, *names: str) -> bool:
        """Whether the table has these rows at all (measured or not)."""
        return all(self._find(name, group) for name in names)

    def row(self, name: str, group: str) -> Row:
        """A row by its title; dense stands for all groups."""
        (row,) = self._find(name, group)
        return row

    def _find(self, name: str, group: str) -> list[Row]:
        return [row for row in self.members if row.title == name and (row.group == group or name == DENSE)]

    def gap(self, name: str, other: str, group: str) -> pd.DataFrame:
        """Main figure of a row minus that of another."""
        return self.measured.difference(self.row(name, group), self.row(other, group))

    def cost(self, name: str, group: str, column: str) -> pd.Series:
        """A cost of a row by seed."""
        return self.measured.cost(self.row(name, group))[column].astype(float)


def verdict(value: Estimate, bound: float, strictly: bool = False) -> Verdict:
    """Whether `value >= bound` (or `>`), by the interval; strictly: points that rows are apart, which may be alike."""
    if value.n < 2:
        return "not tested"
    if value.low > bound or (value.low == bound and not strictly):
        return "holds"
    if value.high < bound or (value.high == bound and strictly):
        return "fails"
    return "alike" if strictly and bound - ALIKE < value.low and value.high < bound + ALIKE else "undecided"


def points(seen: Evidence, number: str, text: str, name: str, other: str, group: str, bound: float) -> Claim:
    """Whether a row is at least `bound` points ahead of another, or more than equal where the bound is 0."""
    value = estimate(over_benchmarks(seen.gap(name, other, group)))
    less = removed(seen, name, group) if bound and seen.row(name, group).of else ""
    result = verdict(value, bound, strictly=bound == 0)  # "beats" means more than equal
    return line(number, text, f"{seen.where}: {name} - {other}, {group}{less}", value, result, bound)


def removed(seen: Evidence, name: str, group: str) -> str:
    """What a row has removed, in words."""
    stored, towers = (seen.cost(name, group, column).mean() for column in ("nonzero_ratio", "tower_ratio"))
    return "" if pd.isna(stored) else f" (removed {1 - stored:.1%} of all, {1 - towers:.1%} of the towers)"


def line(
    number: str,
    text: str,
    where: str,
    value: Estimate,
    result: Verdict,
    bound: float | None = None,
    unit: str = "",
    decimals: int = 1,
    confidence: float = CONFIDENCE,
) -> Claim:
    """A line; `bound` is what an interval of this `confidence` must not span."""

    def text_of(number: float) -> str:
        return f"{number:.{decimals}f}" if unit else signed(number, decimals)

    measured = text_of(value.mean) + unit if value.n else ""
    interval = f"[{text_of(value.low)}, {text_of(value.high)}]" if value.n > 1 else ""
    needed = None if bound is None else seeds_needed(value, bound, confidence=confidence)
    told = "" if bound is None or value.n < 2 else f"{needed}" if needed else "over 50"
    return Claim(number, text, where, measured, interval, value.n, told, result)
