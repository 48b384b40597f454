"""The frontier: points that every row loses, over the work that a caption is, and over parameters that are stored."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from snp import drawing
from snp.experiment.benchmarks import Benchmark
from snp.experiment.rows import Row
from snp.experiment.spec import Scale, home_of
from snp.experiment.tables import select
from snp.report.frame import Measured, dense_of, on, over_benchmarks, unmeasured
from snp.report.special import kind
from snp.report.statistics import estimate
from snp.runs.store import Store

BENCHMARK: Benchmark = "refcoco"
TABLES = ("table1", "table5")
AXES = {"flops": "operations of a caption whose picture is new", "stored": "parameters that are stored"}
STEP = 1.0
"""Per cent of the dense model that rows differ by at least."""
WORST = 20.0
"""Points below dense that still are drawn."""


@dataclass(frozen=True)
class Point:
    """A row: per cent of the dense model's operations and parameters, and the points that it loses.

    What it loses is beside its own dense row: of trimmed inputs one that is trained as long, of a dual encoder the
    teacher.
    """

    title: str
    kind: str
    flops: float
    stored: float
    loss: float
    seeds: int


def points(store: Store, scale: Scale) -> list[Point]:
    """All rows of Tables 1 and 5 that are measured on expressions.

    Raises:
        InputError: none is.
    """
    rows = {row.label: row for name in TABLES for row in select(name, scale, home_of(scale))
            if BENCHMARK in row.benchmarks}  # fmt: skip
    denses = {dense.label: dense for dense in map(dense_of, rows.values())}
    measured = Measured(list((denses | rows).values()), store)
    found = [point for row in rows.values() if (point := _point(row, measured)) is not None]
    if not found:
        raise unmeasured("rows of Tables 1 and 5", "table1", store, scale)
    return sorted(found, key=lambda point: point.title)


def _point(row: Row, measured: Measured) -> Point | None:
    dense = dense_of(row)
    if row.label == dense.label:
        return None
    cost = measured.cost(row)
    value = estimate(-over_benchmarks(on(measured.difference(row, dense), BENCHMARK)))
    if cost.empty or not value.n:
        return None
    flops, stored = 100 * cost.flops_ratio.mean(), 100 * cost.stored_ratio.mean()
    size = f"@{row.size}" if row.of else ""
    return Point(row.title + size, kind(row, cost.kind.iloc[0]), float(flops), float(stored), value.mean, value.n)


def figure(store: Store, scale: Scale, path: str | Path) -> Path:
    """Draw both panels; rows that no other beats in both are named. Equal results give equal bytes.

    Raises:
        InputError: as `points`.
    """
    drawn = [point for point in points(store, scale) if point.loss <= WORST]
    with drawing.picture(path, (11, 5), dpi=160) as canvas:
        for axes, (name, said) in zip(canvas.subplots(1, 2, sharey=True), AXES.items(), strict=True):
            for point in drawn:
                color, mark = drawing.KINDS[point.kind]
                axes.plot(getattr(point, name), point.loss, mark, color=color)
            best = undominated(drawn, name)
            axes.plot([getattr(point, name) for point in best], [point.loss for point in best], color=drawing.GREY,
                      linewidth=1, zorder=1)  # fmt: skip
            for place, point in enumerate(best):  # in turn below and above, so that neighbours do not meet
                where = getattr(point, name), point.loss
                axes.annotate(point.title, where, (5, 5 if place % 2 else -9), textcoords="offset points", size=7)
            axes.axhline(0, color=drawing.GREY, linestyle=":", linewidth=1.2)
            axes.set_xlabel(f"{said}, % of dense")
        axes.invert_yaxis()
        canvas.axes[0].set_ylabel("points of precision@1 below its own dense row")
        for what in dict.fromkeys(point.kind for point in drawn):
            color, mark = drawing.KINDS[what]
            axes.plot([], [], mark, color=color, label=what)
        axes.legend(loc="lower right", fontsize=8)
    return Path(path)


def undominated(drawn: list[Point], name: str) -> list[Point]:
    """Rows beside which none has less of `name` and loses no more, the largest first; steps under `STEP` are none."""
    best: list[Point] = []
    for point in sorted(drawn, key=lambda point: (point.loss, getattr(point, name))):
        if not best or getattr(point, name) < getattr(best[-1], name) - STEP:
            best.append(point)
    return best


def told(found: list[Point]) -> pd.DataFrame:
    """The points as texts."""
    return pd.DataFrame(
        {"row": p.title, "kind": p.kind, "FLOPs": f"{p.flops:.1f}%", "stored": f"{p.stored:.1f}%",
         "points lost": f"{p.loss:.1f}", "seeds": str(p.seeds)}
        for p in found
    )  # fmt: skip
