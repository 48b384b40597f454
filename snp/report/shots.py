"""Precision over the number of expressions that were learned from, a panel for each look: of the rows of Table 6."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from snp import drawing
from snp.experiment.benchmarks import ABOUT
from snp.experiment.rows import Row
from snp.experiment.shots import table6
from snp.experiment.spec import Scale
from snp.models.adapt import Adapt
from snp.report.frame import ZERO_SHOT, Measured, unmeasured
from snp.report.statistics import estimate
from snp.runs.store import Store

LOOKS = ABOUT["looks"].splits
NONE = 0
"""Of the expressions, before any."""


@dataclass(frozen=True)
class Point:
    """A model on a look after so many expressions: per cent, mean over seeds (of means over draws) and its interval."""

    name: str
    look: str
    shots: int
    mean: float
    low: float
    high: float
    n: int


def points(store: Store, scale: Scale) -> list[Point]:
    """The main rows of Table 6 that are measured, before any expression and after some.

    Raises:
        InputError: none is.
    """
    rows = [row for row in table6(scale) if row.main]
    measured = Measured(rows, store)
    # what a model begins with is the same whatever number of expressions follows
    found = {(one.name, one.look, one.shots): one for row in rows for one in _points(row, measured)}
    if not found:
        raise unmeasured("rows of table6", "table6", store, scale)
    return list(found.values())


def _points(row: Row, measured: Measured) -> list[Point]:
    assert isinstance(row.special, Adapt)
    found, draws = [], measured.draws(row)
    begun = measured.shown(row)
    for look in LOOKS if not draws.empty else ():
        value = estimate(draws.loc[look].groupby(level=0).mean())
        found.append(Point(row.name, look, row.special.shots, value.mean, value.low, value.high, value.n))
        before = estimate(begun.loc[("looks", look, f"{ZERO_SHOT}precision@1")])
        found.append(Point(row.name, look, NONE, before.mean, before.low, before.high, before.n))
    return found


def figure(store: Store, scale: Scale, path: str | Path) -> Path:
    """Draw the panels; equal results give equal bytes.

    Raises:
        InputError: as `points`.
    """
    frame = pd.DataFrame(points(store, scale))
    counts = sorted(frame.shots.unique())
    with drawing.picture(path, (12, 3.4), dpi=160) as canvas:
        for axes, look in zip(canvas.subplots(1, len(LOOKS), sharey=True), LOOKS, strict=True):
            for color, (name, lines) in zip(
                drawing.COLORS, frame[frame.look == look].groupby("name", sort=False), strict=False
            ):
                lines = lines.sort_values("shots")
                places = [counts.index(shots) for shots in lines.shots]
                axes.plot(places, lines["mean"], marker="o", color=color, label=name)
                axes.fill_between(places, lines.low, lines.high, color=color, alpha=0.15, linewidth=0)
            axes.set_title(look)
            axes.set_xticks(range(len(counts)), [f"{shots}" for shots in counts])
        canvas.axes[0].set_ylabel("precision@1, %")
        canvas.axes[2].set_xlabel("expressions of the look that were learned from")
        canvas.axes[-1].legend(loc="lower right", fontsize=7)
    return Path(path)


def told(found: list[Point]) -> pd.DataFrame:
    """The points as texts, a line for each model and number of expressions."""
    frame = pd.DataFrame(found)
    frame["mean"] = frame["mean"].map("{:.1f}".format)
    wide = frame.pivot(index=["name", "shots"], columns="look", values="mean")
    return wide[list(LOOKS)].reset_index().rename(columns={"name": "model", "shots": "expressions"}).astype(str)
