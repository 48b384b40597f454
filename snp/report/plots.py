"""What plots of ablations are made of: a picture with one sentence, the rows that they compare, and how to say it."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd

from snp import drawing
from snp.experiment.benchmarks import ABOUT, Benchmark
from snp.experiment.rows import DENSE, Row
from snp.experiment.spec import Compress, Data
from snp.experiment.tables import select
from snp.report.frame import Measured, on, over_benchmarks, unmeasured
from snp.report.statistics import Estimate
from snp.runs.present import present
from snp.runs.result import Result
from snp.runs.store import Store

if TYPE_CHECKING:
    from matplotlib.figure import Figure


BENCHMARK: Benchmark = "refcoco"
SWITCHES: dict[str, tuple[str, ...]] = {
    "donors": ("prune", "cross", "blockwise"),
    "hypernetwork": ("hypernetwork",),
    "basis": ("basis",),
    "score": ("score", "scope", "prior", "batches"),
    "alternation": ("every", "freeze", "apply_at"),
    "alignment": ("align", "pull", "gamma", "gamma_end"),
    "block size": ("block",),
    "budget schedule": ("track", "ramp", "b0", "lam"),
}
"""The switches of the method, and the options that are theirs."""
OTHERS = "others"
"""What differs in options of no switch, or of several."""
DECIDED = {
    "pruned": ("pruned", "#b9bec7"),
    "cross": ("shared with the vision tower", drawing.ORANGE),
    "blockwise": ("shared within a block", drawing.SKY),
}
COMPONENTS = {"qk": "query and key", "vo": "value and output", "ffn": "feed-forward"}


@dataclass(frozen=True)
class Plot:
    """A picture, one sentence of what it shows, and its numbers; a notebook shows all three.

    Attributes:
        png: empty where nothing is measured, which `said` then says.
        numbers: as a table of text.
    """

    png: bytes
    said: str
    numbers: pd.DataFrame = field(default_factory=pd.DataFrame)

    def _ipython_display_(self) -> None:
        from IPython.display import Image, Markdown, display

        if self.png:
            display(Image(self.png, width=760))
        table = "" if self.numbers.empty else f"\n\n{self.numbers.to_markdown(index=False, disable_numparse=True)}"
        display(Markdown(self.said + table))


def switch_of(options: Iterable[str]) -> str:
    """The switch that these options are all of."""
    return next((name for name, own in SWITCHES.items() if {*options} <= {*own}), OTHERS)


def interval(axes: Any, place: int, gap: pd.Series, value: Estimate, color: str) -> None:
    """A line of a plot: every seed, the mean, and its interval where there are several."""
    axes.plot(gap, [place] * len(gap), "o", markerfacecolor="none", color=color)
    axes.plot(value.mean, place, "|", markersize=14, markeredgewidth=2.5, color=color)
    if value.n > 1:
        axes.hlines(place, value.low, value.high, color=color, alpha=0.4, linewidth=3)


def verdict(value: Estimate) -> str:
    """What an interval says of a difference."""
    if value.n < 2:
        return "has one seed"
    return "is better" if value.low > 0 else "is worse" if value.high < 0 else "is undecided"


def layers_of(plans: list[dict[str, Any]], tower: str, part: str) -> pd.DataFrame:
    """Shares of the units of each layer in per cent, mean over plans: own, shared, pruned."""
    frames = [pd.DataFrame(plan[tower][part]) for plan in plans]
    mean = 100 * sum(frame[["own", "kept"]].div(frame.units, axis=0) for frame in frames) / len(frames)
    return pd.DataFrame({"own": mean.own, "shared": mean.kept - mean.own, "pruned": 100 - mean.kept})


def decided(shares: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """What rows had decided by the end of their search, as a table of text."""
    return pd.DataFrame(
        {"row": name} | {DECIDED[kind][0]: f"{100 * share[kind].iloc[-1]:.1f}%" for kind in DECIDED}
        for name, share in shares.items()
        if len(share)
    )


def stability(plans: list[dict[str, Any]]) -> str:
    """How much the units that layers keep of their own vary over seeds; nothing where there is one."""
    if len(plans) < 2:
        return ""
    alone = [
        pd.concat([layers_of([plan], tower, part).own for tower in ("text", "vision") for part in COMPONENTS])
        for plan in plans
    ]
    return (
        f"; over seeds the share that a layer keeps varies by {pd.concat(alone, axis=1).std(axis=1).mean():.1f} points"
    )


def mean_of(frames: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Curves of several seeds, step by step."""
    return pd.concat(frames).groupby(level="step").mean()


def legend(figure: "Figure", colors: dict[str, str]) -> None:
    """What colors mean, below all panels."""
    from matplotlib.patches import Patch

    handles = [Patch(facecolor=color, label=name) for name, color in colors.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(colors))


def main_figure() -> str:
    """What rows are compared by."""
    return ABOUT[BENCHMARK].shown[0]


def listed(texts: list[str], word: str = "and") -> str:
    """As `a, b and c`."""
    return f" {word} ".join(filter(None, [", ".join(texts[:-1]), texts[-1]]))


class Ablated:
    """The rows of Table 1 and of the ablations, and every other size or variant of SNP that a store holds for the data.

    Raises:
        InputError: no row of SNP is measured beside the dense one.
    """

    def __init__(self, store: Store, data: Data = "scenes") -> None:
        self.store, self.data = store, data
        others = [
            row
            for row in present(store)
            if (row.data, row.model, row.method, row.times) == (data, "mdetr", "snp", 1) and row.size.keep is not None
        ]
        known: dict[Compress, Row] = {}
        for row in [*select("table1", "desk", data), *select("ablations", "desk", data), *others]:
            known.setdefault(row.compress(0), row)  # those of Table 1 have more seeds
        self.measured = Measured([*known.values()], store)
        self.rows = [row for row in known.values() if not self._score(row).empty]
        dense = [row for row in self.rows if row.method == DENSE]
        self.groups = list(dict.fromkeys(row.group for row in self.rows if row.method != DENSE))
        if not dense or not self.groups or self._snp(self.groups[0]) is None:
            raise unmeasured(f"snp beside the dense model, on {data}", "table1", store, "desk")
        self.dense = dense[0]

    def _score(self, row: Row) -> pd.Series:
        """Per cent, mean over splits, by seed."""
        return over_benchmarks(on(self.measured.main(row), BENCHMARK))

    def _snp(self, group: str) -> Row | None:
        return next((row for row in self.rows if row.method == "snp" and not row.options and row.group == group), None)

    def _results(self, row: Row) -> list[Result]:
        return [found for seed in row.seeds if (found := self.store.find(row.compress(seed)))]

    def variants(self, switch: str) -> list[Row]:
        """The measured rows that differ from SNP in this switch alone, at sizes where SNP is measured too."""
        return [
            row
            for row in self.rows
            if row.method == "snp" and row.options and switch_of(row.options) == switch and self._snp(row.group)
        ]

    def _gap(self, row: Row) -> pd.Series:
        """Points of a row beside SNP of its size, by seed."""
        reference = self._snp(row.group)
        assert reference is not None
        return self._beside(row, reference)

    def _beside(self, row: Row, other: Row) -> pd.Series:
        """Points of a row less those of another, by the seeds that both have."""
        return (self._score(row) - self._score(other)).dropna()

    def _projected(self, row: Row) -> str:
        """How much the loss jumps where the plan is applied, mean over seeds."""
        gaps = [result.costs.projection_gap for result in self._results(row)]
        known = [gap for gap in gaps if gap is not None]
        return f"{sum(known) / len(known):.2f}" if known else ""
