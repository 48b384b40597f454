"""Figures from results alone: scores over the parameters that remain, and relaxed tickets over sparsity."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from snp import drawing
from snp.errors import InputError
from snp.experiment.benchmarks import ABOUT, Benchmark
from snp.experiment.rows import DENSE, Row
from snp.experiment.spec import Data, Scale
from snp.experiment.tables import select
from snp.report.frame import Measured, on, over_benchmarks, unmeasured
from snp.report.statistics import estimate, reach
from snp.runs.store import Store

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TOLERATED = 1.0
"""Loss that counts as none: points of the score, or for tickets per cent of the dense score."""
PANELS = {"whole units": ("joint", "structured", "shared"), "single weights": ("unstructured",)}
"""What is compared: smaller models with one another, and zeros among as many weights with one another."""
CHANCE = "random"
"""The method that may leave the axis, so that the others can be told apart."""
_DISTINCT = 0.01
"""Sizes of a method that are nearer to each other than this share of the model are one."""


@dataclass(frozen=True)
class Curve:
    """A method on one benchmark over its sizes.

    Attributes:
        name: of the rows, with the benchmark where a figure has several.
        benchmark: that its scores are of.
        kind: what its plans do.
        points: one line per size, the largest model first: `removed` (share of the parameters that is not stored, for
            unstructured methods zero), `score` (per cent), its standard deviation `std` over `n` seeds, and `loss`.
        reach: the largest share removed at a loss of at most `TOLERATED`, interpolated.
    """

    name: str
    benchmark: Benchmark
    kind: str
    points: pd.DataFrame

    @property
    def reach(self) -> float:
        return reach(self.points.removed, self.points.loss, TOLERATED)

    @property
    def drawn(self) -> pd.DataFrame:
        """The points as they are drawn: after the dense model, and sizes that a method does not reach once."""
        first = self.points.iloc[0]
        begun = pd.DataFrame([{"kind": self.kind, "removed": 0.0, "score": first.score + first.loss, "loss": 0.0}])
        return pd.concat([begun, self.points[self.points.removed.diff().fillna(1.0) > _DISTINCT]], ignore_index=True)

    @property
    def reached(self) -> str:
        """`reach` for readers; with a mark where even the smallest model loses no more."""
        beyond = "≥ " if self.reach == self.points.removed.iloc[-1] else ""
        return f"{beyond}{100 * self.reach:.0f}%"


def curves(name: str, store: Store, scale: Scale, data: Data) -> list[Curve]:
    """The curves of a table's rows, in its order; sizes that are not measured are left out.

    Of `tickets`, sizes are sparsities of the prunable weights, every benchmark is a curve, and losses are per cent of
    the dense score; else the first benchmark of the rows counts, by its main figure, and losses are points below dense.

    Every seed counts that is there, planned or not.

    Raises:
        InputError: no row is measured beside the dense one, so that there is nothing to draw.
    """
    seeds = tuple(sorted({result.run.seed for result in store.results("compress")}))
    rows = [row.model_copy(update={"seeds": seeds}) for row in select(name, scale, data)]
    measured = Measured(rows, store)
    if not rows[0].of:
        if measured.empty:
            raise unmeasured(f"rows of {name} on {data}", name, store, scale)
        raise InputError(name, "has no sizes to draw curves over", "see `snp figure frontier`, or `snp figure shots`")
    dense = next(row for row in rows if row.method == DENSE)
    of_tickets = name == "tickets"
    found = []
    for method in dict.fromkeys(row.name for row in rows if row.method != DENSE):
        sizes = [row for row in rows if row.name == method]
        for benchmark in sizes[0].benchmarks if of_tickets else rows[0].benchmarks[:1]:
            lines = [
                line
                for row in sizes
                if (line := _point(measured, row, dense, benchmark, relative=of_tickets)) is not None
            ]
            if lines:
                points = pd.DataFrame(lines).sort_values("removed", ignore_index=True)
                label = f"{method}, {ABOUT[benchmark].title}" if of_tickets else method
                found.append(Curve(label, benchmark, points.kind[0], points))
    if not found:
        raise unmeasured(f"rows of {name} beside the dense one, on {data}", name, store, scale)
    return found


def _point(
    measured: Measured, row: Row, dense: Row, benchmark: Benchmark, relative: bool
) -> dict[str, float | str] | None:
    """One size of a curve, or None where it or the dense row is not measured."""

    def values(of: Row) -> pd.Series:
        return over_benchmarks(on(measured.main(of), benchmark))

    score, whole, cost = values(row), values(dense), measured.cost(row)
    seeds = score.index.intersection(whole.index)
    if cost.empty or not len(seeds):
        return None
    first = cost.iloc[0]
    share = float((cost.nonzero_ratio if first.kind == "unstructured" else cost.stored_ratio).mean())
    lost = whole[seeds] - score[seeds]
    value = estimate(score)
    return {
        "kind": first.kind,
        "removed": float(cost.sparsity.mean()) if relative else 1 - share,
        "score": value.mean,
        "std": value.std,
        "n": value.n,
        "loss": float((100 * lost / whole[seeds] if relative else lost).mean()),
    }


def limits(name: str, store: Store, scale: Scale, data: Data) -> pd.DataFrame:
    """How far each curve reaches, as texts: method, kind, lossless ratio (tickets: relaxed sparsity)."""
    head = "relaxed sparsity" if name == "tickets" else "lossless ratio"
    lines = [
        {"method": curve.name, "kind": curve.kind, head: curve.reached, "sizes": str(len(curve.points))}
        for curve in curves(name, store, scale, data)
    ]
    return pd.DataFrame(lines, columns=["method", "kind", head, "sizes"])


def figure(name: str, store: Store, scale: Scale, data: Data, path: str | Path) -> Path:
    """Draw the curves of a table as PNG, named at their ends; equal results give equal bytes.

    Tickets: per cent of the dense score over sparsity, with the line of 99%. Others: the main figure of their benchmark
    (mean over splits and seeds, with their standard deviation where there are several), with the line of one point
    below dense: over the parameters that are stored for whole units, and apart from it over zeros for single weights.

    Raises:
        InputError: as `curves`.
    """
    drawn = curves(name, store, scale, data)
    if name == "tickets":
        return _tickets(drawn, data, Path(path))
    panels = {title: members for title, kinds in PANELS.items() if (members := [c for c in drawn if c.kind in kinds])}
    heights = [5 if title == "whole units" else 4 for title in panels]
    with drawing.picture(path, (7, sum(heights)), dpi=200) as canvas:
        grid = canvas.subplots(len(panels), height_ratios=heights, squeeze=False)[:, 0]
        for axes, (title, members) in zip(grid, panels.items(), strict=True):
            _panel(axes, members, stored=title == "whole units")
            about = ABOUT[members[0].benchmark]
            axes.set_ylabel(f"{about.title}-like {about.shown[0]} on {data}, %")
    return Path(path)


def _panel(axes: "Axes", members: list[Curve], stored: bool) -> None:
    """One comparison: curves from the dense model to the right, where less is left."""
    seen = [curve for curve in members if curve.name != CHANCE] or members
    low = min(float((curve.points.score - curve.points["std"].fillna(0)).min()) for curve in seen) - 1
    far = max(float(curve.points.removed.max()) for curve in members)
    ends = []
    for place, curve in enumerate(members):
        points, color = curve.drawn, drawing.COLORS[place % len(drawing.COLORS)]
        _curve(axes, curve, 100 * points.removed, points.score, points["std"], place)
        x, y = 100 * points.removed.iloc[-1], points.score.iloc[-1]
        if y < low:
            cut = float(np.interp(-low, -points.score, 100 * points.removed))
            told = f"{curve.name} leaves the axis:\n{y:.0f} at {x:.0f}%"
            axes.text(cut - 2, low, told, ha="right", va="bottom", size=8)
        elif len(points) <= len(curve.points) and far - points.removed.iloc[-1] > _DISTINCT:  # it was asked for more
            axes.text(x + 2, y, f"{curve.name}\ncan remove no more", va="center", size=8)
        else:
            ends.append(drawing.End(x, y, curve.name, color, "bold" if curve.name == "snp" else "normal"))
    dense = members[0].drawn.score[0]
    axes.plot(0, dense, drawing.KINDS["dense"][1], color=drawing.GREY, zorder=4)
    axes.set(ylim=(low, max(float(curve.drawn.score.max()) for curve in members) + 1), xlim=(-2, 100 * far + 2))
    for level, text in ((dense, f"dense: {dense:.1f}"), (dense - TOLERATED, f"dense − {TOLERATED:g} point")):
        axes.axhline(level, color=drawing.GREY, linestyle=":", linewidth=1.2)
        ends.append(drawing.End(100 * far + 2, level, text, drawing.GREY))
    if stored:
        axes.set_title("Whole units removed or shared: smaller models")
        axes.set_xlabel("parameters that are no longer stored, % of the dense model")
        _key(axes, members)
    else:
        axes.set_title("Single weights set to zero: as much is stored as before")
        axes.set_xlabel("parameters that are zero, % of the dense model")
    drawing.label(axes, ends)


def _tickets(drawn: list[Curve], data: Data, path: Path) -> Path:
    with drawing.picture(path, (7, 4.4), dpi=200) as canvas:
        axes = canvas.subplots()
        ends = []
        for place, curve in enumerate(drawn):
            x, y = 100 * curve.points.removed, 100 - curve.points.loss
            _curve(axes, curve, x, y, None, place)
            ends.append(drawing.End(x.iloc[-1], y.iloc[-1], curve.name, drawing.COLORS[place % len(drawing.COLORS)]))
        for level, text in ((100.0, "dense"), (100 - TOLERATED, f"{100 - TOLERATED:g}% of dense")):
            axes.axhline(level, color=drawing.GREY, linestyle=":", linewidth=1.2)
            ends.append(drawing.End(axes.get_xlim()[1], level, text, drawing.GREY))
        axes.set(title=f"Tickets of {data}", xlabel="prunable weights that are zero, %", ylabel="% of the dense score")
        drawing.label(axes, ends)
    return path


def _curve(axes: "Axes", curve: Curve, x: pd.Series, y: pd.Series, std: pd.Series | None, place: int) -> None:
    """A line with the marker of its kind, and where there are several seeds their standard deviation as a band."""
    color, width = drawing.COLORS[place % len(drawing.COLORS)], 2.6 if curve.name == "snp" else 1.4
    begin = slice(0 if std is None else 1, None)  # the dense model has a marker of its own
    line = ("-", "--")[place // len(drawing.COLORS) % 2]
    mark = drawing.KINDS[curve.kind][1]
    axes.plot(x, y, line, color=color, linewidth=width, zorder=3, marker=mark, markevery=begin)
    if std is not None:
        several = std.notna()
        axes.fill_between(x, y - std, y + std, where=several, color=color, alpha=0.18, linewidth=0)
        axes.vlines(x[several], (y - std)[several], (y + std)[several], color=color, linewidth=width)


def _key(axes: "Axes", members: list[Curve]) -> None:
    """What markers, lines and bands mean."""
    for kind in dict.fromkeys(curve.kind for curve in members):
        axes.plot([], [], drawing.KINDS[kind][1], color=drawing.INK, label=kind)
    seeds = sorted({int(n) for curve in members for n in curve.points.n})
    spread = "; bars and bands: ± standard deviation" if seeds[-1] > 1 else ""
    told = f"mean over {' to '.join(map(str, dict.fromkeys([seeds[0], seeds[-1]])))} seeds{spread}"
    axes.legend(loc="lower left", ncols=3, title=told if spread else "one seed", alignment="left")
