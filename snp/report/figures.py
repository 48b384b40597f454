"""Figures from results alone: scores over the parameters that remain, and relaxed tickets over sparsity."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from snp import drawing
from snp.experiment.benchmarks import ABOUT
from snp.experiment.spec import Benchmark, Data, Scale
from snp.experiment.store import Store
from snp.experiment.tables import DENSE, Row, select
from snp.report.frame import Measured, on, over_benchmarks, unmeasured
from snp.report.statistics import estimate, reach

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TOLERATED = 1.0
"""Loss that counts as none: points of the score, or for tickets per cent of the dense score."""
MARKERS = {"joint": "o", "structured": "s", "shared": "^", "unstructured": "x"}
PANELS = {"whole units": ("joint", "structured", "shared"), "single weights": ("unstructured",)}


@dataclass(frozen=True)
class Curve:
    """A method on one benchmark over its sizes.

    Attributes:
        name: of the rows, with the benchmark where a figure has several.
        benchmark: that its scores are of.
        kind: what its plans do.
        points: one line per size, the largest model first: `removed` (share), `remaining` (millions of parameters
            stored, for unstructured methods not zero), `score` (per cent), `error` (half its interval), `loss`.
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
        """The points as they are drawn: a size that stands alone is joined to the dense model."""
        if len(self.points) > 1:
            return self.points
        only = self.points.iloc[0]
        whole = {"removed": 0.0, "remaining": only.remaining / (1 - only.removed), "score": only.score + only.loss}
        return pd.DataFrame([{"kind": self.kind, **whole, "error": 0.0, "loss": 0.0}, only.to_dict()])

    @property
    def reached(self) -> str:
        """`reach` for readers; with a mark where even the smallest model loses no more."""
        beyond = "≥ " if self.reach == self.points.removed.iloc[-1] else ""
        return f"{beyond}{100 * self.reach:.0f}%"


def curves(name: str, store: Store, scale: Scale, data: Data) -> list[Curve]:
    """The curves of a table's rows, in its order; sizes that are not measured are left out.

    Of `tickets`, sizes are sparsities of the prunable weights, every benchmark is a curve, and losses are per cent of
    the dense score; else the first benchmark of the rows counts, by its main figure, and losses are points below dense.

    Raises:
        InputError: no row is measured beside the dense one, so that there is nothing to draw.
    """
    rows = select(name, scale, data)
    measured = Measured(rows, store)
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
        "remaining": share * float(first.stored_params) / float(first.stored_ratio) / 1e6,
        "score": value.mean,
        "error": value.high - value.mean if value.n > 1 else 0.0,
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
    """Draw the curves of a table as PNG, each with how far it reaches; equal results give equal bytes.

    Tickets: per cent of the dense score over sparsity, with the line of 99%. Others: the main figure of their benchmark
    (mean over splits, 95% interval where there are seeds) over the parameters that remain, whole units apart from
    single weights, with the line of one point below dense.

    Raises:
        InputError: as `curves`.
    """
    drawn = curves(name, store, scale, data)
    of_tickets = name == "tickets"
    panels = {"tickets": tuple(MARKERS)} if of_tickets else PANELS
    with drawing.picture(path, (4.5 + 3.5 * len(panels), 4.8), dpi=150) as canvas:
        grid = canvas.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, (title, kinds) in zip(grid, panels.items(), strict=True):
            _panel(axes, [curve for curve in drawn if curve.kind in kinds], of_tickets)
            for level in _levels(drawn, of_tickets):
                axes.axhline(level, color="grey", linestyle=":", linewidth=1)
            axes.set_title(f"{data}: {title}")
        about = ABOUT[drawn[0].benchmark]
        score = f"{about.title}-like {about.shown[0]}, %"
        grid[0].set_ylabel("% of the dense score" if of_tickets else score)
    return Path(path)


def _panel(axes: "Axes", members: list[Curve], of_tickets: bool) -> None:
    for place, curve in enumerate(members):
        points = curve.drawn
        axes.errorbar(
            100 * points.removed if of_tickets else points.remaining,
            100 - points.loss if of_tickets else points.score,
            yerr=None if of_tickets else points.error,
            marker=MARKERS[curve.kind],
            linestyle=("-", "--", "-.")[place // 10 % 3],
            linewidth=2.5 if curve.name == "snp" else 1.2,
            capsize=2,
            label=f"{curve.name} ({curve.kind}): {curve.reached}",
        )
    axes.set_xlabel("prunable weights that are zero, %" if of_tickets else "parameters that remain, millions")
    axes.grid(alpha=0.3)
    if members:
        axes.legend(fontsize=7, title="relaxed sparsity" if of_tickets else "lossless ratio", title_fontsize=7)


def _levels(drawn: list[Curve], of_tickets: bool) -> Iterator[float]:
    """Where the dense score and the tolerated loss stand."""
    if of_tickets:
        yield from (100.0, 100 - TOLERATED)
    else:
        first = drawn[0].points.iloc[0]
        yield from (first.score + first.loss, first.score + first.loss - TOLERATED)
