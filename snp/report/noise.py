"""What made captions add over the share of them that is wrong: a curve of true edits, and who makes them on it."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from snp import drawing
from snp.experiment.absent import table7
from snp.experiment.rows import DENSE
from snp.experiment.spec import Scale
from snp.models.augment import KINDS, Augment
from snp.report.absent import EXACT, gap
from snp.report.frame import Measured, unmeasured
from snp.runs.store import Store


@dataclass(frozen=True)
class Point:
    """Captions made in one way: the share of them that is wrong, per cent, and points of Pr@(F1=1) that they add."""

    title: str
    kind: str
    noise: float
    gain: float
    seeds: int


def points(store: Store, scale: Scale) -> list[Point]:
    """Every way of Table 7 that is measured, in one protocol (phases), beside the few true captions alone.

    Raises:
        InputError: none is.
    """
    rows = [row for row in table7(scale) if row.method == DENSE]
    measured = Measured(rows, store)
    found = []
    for row in rows:
        told = measured.asked(row)
        if isinstance(row.special, Augment) and row.special.phases == Augment().phases and not told.empty:
            added = gap(measured, row, rows[0], EXACT)
            if len(added):
                kind = row.special.kind
                found.append(Point(str(row.special), kind, 100 * told.noise.mean(), added.mean(), len(added)))
    if not found:
        raise unmeasured("rows of table7 beside the dense one", "table7", store, scale)
    return found


def figure(store: Store, scale: Scale, path: str | Path) -> Path:
    """Draw it; equal results give equal bytes.

    Raises:
        InputError: as `points`.
    """
    found = points(store, scale)
    curve = sorted((point for point in found if point.kind == "rule"), key=lambda point: point.noise)
    with drawing.picture(path, (7, 4), dpi=160) as canvas:
        axes = canvas.subplots()
        axes.plot([p.noise for p in curve], [p.gain for p in curve], "o-", color=drawing.GREY, label=KINDS["rule"])
        others = [point for point in found if point.kind != "rule"]
        for color, point in zip(drawing.COLORS, others, strict=False):
            axes.plot(point.noise, point.gain, "D", color=color, label=KINDS[point.kind])  # type: ignore[index]
        axes.axhline(0, color=drawing.GREY, linestyle=":", linewidth=1.2)
        axes.set_xlabel("made captions that something fits, %")
        axes.set_ylabel("points of Pr@(F1=1) that they add")
        axes.legend(fontsize=7, loc="best")
    return Path(path)


def told(found: list[Point]) -> pd.DataFrame:
    """The points as texts."""
    return pd.DataFrame(
        {"captions": p.title, "made by": KINDS[p.kind], "wrong": f"{p.noise:.1f}%", "points added": f"{p.gain:+.1f}",  # type: ignore[index]
         "seeds": str(p.seeds)}
        for p in found
    )  # fmt: skip
