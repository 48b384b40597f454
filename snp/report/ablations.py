"""What each switch of SNP does, what it decides, and who suffers: plots from results, each with one sentence."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING, Any

import pandas as pd

from snp import drawing
from snp.experiment.benchmarks import ABOUT
from snp.experiment.rows import DENSE, WHOLE, Row
from snp.experiment.spec import Benchmark, Compress, Data
from snp.experiment.tables import STEPS, select
from snp.report.frame import ALL, Measured, on, over_benchmarks, unmeasured
from snp.report.statistics import Estimate, estimate, points, signed
from snp.runs.present import present
from snp.runs.store import Result, Store

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
EXAMPLES = {
    "alternation": "every=20", "alignment": "align=loss", "block size": "block=3", "budget schedule": "track=false",
}  # fmt: skip
GIVES = ("the basis", "a score over all layers", "sharing", "learning")
"""What each of `tables.STEPS` adds to the one before."""
DECIDED = {
    "pruned": ("pruned", "#b9bec7"),
    "cross": ("shared with the vision tower", drawing.ORANGE),
    "blockwise": ("shared within a block", drawing.SKY),
}
COMPONENTS = {"qk": "query and key", "vo": "value and output", "ffn": "feed-forward"}
TYPES = ("attribute", "relation", "order")
DPI = 120
HALF = 50.0
"""Per cent: what is below is not learned, what is above is."""
ALIKE = 3.0
"""Points within which losses count as alike."""


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


class Ablations:
    """The rows of Table 1 and of the ablations, and every other size or variant of SNP that a store holds for the data.

    Raises:
        InputError: no row of SNP is measured beside the dense one.
    """

    def __init__(self, store: Store, data: Data = "scenes") -> None:
        self.store, self.data = store, data
        others = [
            row
            for row in present(store)
            if (row.data, row.model, row.method) == (data, "mdetr", "snp") and row.size.keep is not None
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
            if row.method == "snp" and row.options and _switch(row.options) == switch and self._snp(row.group)
        ]

    def switch(self, name: str) -> Plot:
        """How rows with another position of a switch differ from SNP: every seed, mean and 95% interval."""
        rows = self.variants(name)
        if not rows:
            return Plot(b"", self._missing(name))
        gaps = [self._gap(row) for row in rows]
        values = [estimate(gap) for gap in gaps]
        page = BytesIO()
        with drawing.picture(page, (7, 1.0 + 0.36 * len(rows)), dpi=DPI) as figure:
            axes = figure.subplots()
            for place, (row, gap, value) in enumerate(zip(rows, gaps, values, strict=True)):
                _interval(axes, place, gap, value, drawing.COLORS[self.groups.index(row.group)])
            axes.axvline(0, color=drawing.GREY, linestyle=":")
            axes.annotate(
                "snp", (0, 1), xycoords=("data", "axes fraction"), ha="center", va="bottom", color=drawing.INK
            )
            axes.set(xlabel=f"points of {_figure()} beside snp", ylim=(len(rows) - 0.4, -0.6))
            axes.set_yticks(range(len(rows)), [f"{row.name}, {row.group} removed" for row in rows])
            axes.grid(axis="y", visible=False)
        told = [
            f"{row.name} {_verdict(value)} at {row.group} removed ({points(value)})"
            for row, value in zip(rows, values, strict=True)
        ]
        numbers = pd.DataFrame(
            {
                "row": row.label,
                _figure(): f"{self._score(row).mean():.1f}",
                "minus snp, points [95%]": points(value),
                "projection gap": self._projected(row),
                "seeds": str(value.n),
            }
            for row, value in zip(rows, values, strict=True)
        )
        return Plot(page.getvalue(), f"Beside snp, {_and(told)}.", numbers)

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
        gaps = [result.metrics.get("projection_gap") for result in self._results(row)]
        known = [gap for gap in gaps if gap is not None]
        return f"{sum(known) / len(known):.2f}" if known else ""

    def _missing(self, switch: str) -> str:
        if switch == OTHERS:
            return "No other variant of snp is measured."
        options = _and([f"`{option}`" for option in SWITCHES[switch]], "or")
        example = f": `snp run {self.data}/snp,{EXAMPLES[switch]}@60` makes one" if switch in EXAMPLES else ""
        return f"**Not measured.** No committed run differs from snp in {options} alone{example}."

    def waterfall(self) -> Plot:
        """From units of least norm to SNP, a part at a time, at every size that has all steps."""
        found = {(row.name, row.group): row for row in self.rows}
        groups = [group for group in self.groups if all((name, group) in found for name in STEPS)]
        if not groups:
            return Plot(b"", "**Not measured.** No size has all steps from magnitude to snp: `snp run ablations`.")
        losses = {group: [estimate(self._beside(found[name, group], self.dense)) for name in STEPS] for group in groups}
        page = BytesIO()
        with drawing.picture(page, (7, 3), dpi=DPI) as figure:
            panels = figure.subplots(1, len(groups), sharey=False, squeeze=False)[0]
            for axes, group in zip(panels, groups, strict=True):
                means = [loss.mean for loss in losses[group]]
                for place, loss in enumerate(losses[group]):
                    axes.bar(place, loss.mean, color=drawing.BLUE if STEPS[place] == "snp" else drawing.SKY)
                    if loss.n > 1:
                        axes.vlines(place, loss.low, loss.high, color=drawing.INK, linewidth=1.2)
                axes.axhline(0, color=drawing.GREY, linewidth=0.8)
                axes.set(title=f"{group} removed", ylim=(1.25 * min(-1, *means), max(0.5, *means) + 0.5))
                names = ["least norm", *(f"+ {part}" for part in GIVES[:-1]), f"+ {GIVES[-1]}: snp"]
                axes.set_xticks(range(len(STEPS)), names, rotation=40, ha="right", rotation_mode="anchor")
            panels[0].set_ylabel(f"points of {_figure()} beside dense")
        told = [self._given(group, [found[name, group] for name in STEPS]) for group in groups]
        numbers = pd.DataFrame(
            {"removed": group} | {name: points(loss) for name, loss in zip(STEPS, losses[group], strict=True)}
            for group in groups
        )
        return Plot(page.getvalue(), f"{'; '.join(told)}.", numbers)

    def _given(self, group: str, rows: list[Row]) -> str:
        """What each step gives back to the one before, paired over the seeds that both have."""
        parts = [
            f"{part} {self._beside(after, before).mean():.1f}"
            for part, before, after in zip(GIVES, rows[:-1], rows[1:], strict=True)
        ]
        lost = f"With {group} removed, units of least norm lose {-self._beside(rows[0], self.dense).mean():.1f} points"
        return f"{lost}, of which are given back: {_and(parts)}"

    def over_sizes(self, *names: str) -> Plot:
        """How rows of these names lose over sizes; a row is drawn where it is measured."""
        lines = {
            name: [row for row in self.rows if row.name == name and row.size.keep is not None and row.size != WHOLE]
            for name in names
        }
        missing = [name for name, rows in lines.items() if not rows]
        if missing:
            return Plot(b"", f"**Not measured.** No run of {_and(missing)}: `snp run ablations`.")
        page, told, rows_of = BytesIO(), [], []
        with drawing.picture(page, (7, 3.2), dpi=DPI) as figure:
            axes = figure.subplots()
            ends = []
            for name, color, marker in zip(names, drawing.COLORS, "os^Dv", strict=False):
                sized = sorted(lines[name], key=lambda row: row.size.gone)
                values = [estimate(self._beside(row, self.dense)) for row in sized]
                removed = [100 * row.size.gone for row in sized]
                axes.plot(removed, [value.mean for value in values], color=color, marker=marker)
                for x, value in zip(removed, values, strict=True):
                    if value.n > 1:
                        axes.vlines(x, value.low, value.high, color=color, alpha=0.4, linewidth=3)
                ends.append(drawing.End(removed[-1], values[-1].mean, name, color))
                told.append(f"{name} {points(values[-1])} with {removed[-1]:.0f}% removed")
                rows_of += [
                    {"row": row.label, "points beside dense [95%]": points(value), "seeds": str(value.n)}
                    for row, value in zip(sized, values, strict=True)
                ]
            axes.axhline(0, color=drawing.GREY, linestyle=":")
            axes.set(xlabel="parameters removed, %", ylabel=f"points of {_figure()} beside dense")
            drawing.label(axes, ends)
        return Plot(page.getvalue(), f"Beside the dense model: {_and(told)}.", pd.DataFrame(rows_of))

    def search(self) -> Plot:
        """What SNP's variants decide for the units of the text tower while they search."""
        group = self.groups[0]
        rows = [row for row in self.rows if row.method == "snp" and row.group == group and self._results(row)]
        told = {row.name: _mean(self._curve(result) for result in self._results(row)) for row in rows}
        shares = {name: share for name, share in told.items() if len(share) > 1}
        if "snp" not in shares:
            said = f"With {group} removed, snp has decided before its log has a second line."
            return Plot(b"", said, _decided(told))
        page = BytesIO()
        with drawing.picture(page, (7, 2.6), dpi=DPI) as figure:
            panels = figure.subplots(1, len(shares), sharey=True, squeeze=False)[0]
            for axes, (name, share) in zip(panels, shares.items(), strict=True):
                colors = [DECIDED[kind][1] for kind in DECIDED]
                axes.stackplot(share.index, 100 * share[[*DECIDED]].T, colors=colors)
                axes.set(xlabel="step", ylim=(0, 100), xlim=(share.index.min(), share.index.max()), title=name)
            panels[0].set_ylabel("units of the text tower, %")
            _legend(figure, dict(DECIDED.values()))
        snp = shares["snp"]
        met = snp.index[(snp.budget_ratio - 1).abs() < 0.01].min()
        end = 100 * snp.iloc[-1]
        said = (
            f"With {group} removed, snp is within 1% of its budget at step {met:.0f}, and ends with {end.pruned:.0f}% "
            f"of the text tower's units pruned, {end.cross:.0f}% shared with the vision tower and "
            f"{end.blockwise:.0f}% within a block (mean over seeds)."
        )
        return Plot(page.getvalue(), said, _decided(told))

    @staticmethod
    def _curve(result: Result) -> pd.DataFrame:
        return pd.DataFrame(result.curve).set_index("step")[[*DECIDED, "budget_ratio"]].dropna()

    def layers(self) -> Plot:
        """What is left of each layer by the plan that SNP ends with."""
        group = self.groups[0]
        row = self._snp(group)
        assert row is not None
        plans = [result.metrics["plan"]["units"] for result in self._results(row)]
        colors = {"own": drawing.BLUE, "shared": drawing.ORANGE, "pruned": DECIDED["pruned"][1]}
        shares = {(tower, part): _layers(plans, tower, part) for tower in ("text", "vision") for part in COMPONENTS}
        page = BytesIO()
        with drawing.picture(page, (7, 3.8), dpi=DPI) as figure:
            panels = figure.subplots(2, len(COMPONENTS), sharex=True, sharey=True)
            for axes, ((tower, part), share) in zip(panels.flat, shares.items(), strict=True):
                below = 0 * share.own
                for kind, color in colors.items():
                    axes.bar(share.index + 1, share[kind], bottom=below, color=color)
                    below = below + share[kind]
                axes.set_title(f"{tower}: {COMPONENTS[part]}")
                axes.set_xticks(share.index + 1)
            for axes in panels[1]:
                axes.set_xlabel("layer")
            for axes in panels[:, 0]:
                axes.set_ylabel("units, %")
            _legend(figure, colors)
        pruned = {COMPONENTS[part]: (shares["text", part].pruned + shares["vision", part].pruned).mean() / 2
                  for part in COMPONENTS}  # fmt: skip
        own = sum(shares["text", part].own for part in COMPONENTS) / len(COMPONENTS)
        most, least = max(pruned, key=pruned.__getitem__), min(pruned, key=pruned.__getitem__)
        said = (
            f"With {group} removed, {most} units are pruned most ({pruned[most]:.0f}%; {least}: {pruned[least]:.0f}%), "
            f"and of the text tower layer {own.idxmax() + 1} keeps most of its own ({own.max():.0f}%) and layer "
            f"{own.idxmin() + 1} least ({own.min():.0f}%){_stable(plans)}."
        )
        numbers = pd.DataFrame(
            {"tower": tower, "units": COMPONENTS[part]} | {kind: f"{share[kind].mean():.1f}%" for kind in colors}
            for (tower, part), share in shares.items()
        )
        return Plot(page.getvalue(), said, numbers)

    def types(self) -> Plot:
        """Which expressions suffer: differences to the dense model by what an expression is about."""
        group = self.groups[0]
        rows = [row for row in self.rows if row.group == group and row.method != DENSE]
        key = (BENCHMARK, ABOUT[BENCHMARK].splits[0], ABOUT[BENCHMARK].shown[0])
        typed = self.measured.scores.xs(key, level=["benchmark", "split", "metric"]).mean(axis=1).unstack("type")
        lost = typed.drop(columns=ALL, errors="ignore")[[*TYPES]] - typed.loc[self.dense.label, [*TYPES]]
        lost = lost.loc[[row.label for row in rows]].set_axis([row.name for row in rows])
        page = BytesIO()
        with drawing.picture(page, (7, 1.4 + 0.28 * len(lost)), dpi=DPI) as figure:
            axes = figure.subplots()
            for place, (kind, color, marker) in enumerate(zip(TYPES, drawing.COLORS, "os^", strict=False)):
                height = [line + 0.2 * (place - 1) for line in range(len(lost))]
                axes.plot(lost[kind], height, marker, color=color, label=kind)
            axes.axvline(0, color=drawing.GREY, linestyle=":")
            axes.set_yticks(range(len(lost)), lost.index)
            axes.invert_yaxis()
            axes.set_xlabel(f"points of {_figure()} beside the dense model, {group} removed")
            figure.legend(title="expressions about", loc="outside lower center", ncols=len(TYPES))
        name, kind = lost.stack().idxmin()
        worst, best = lost.loc[name, kind], lost.loc[name].idxmax()
        even = int((lost.max(axis=1) - lost.min(axis=1) <= ALIKE).sum())
        said = (
            f"{name} loses most on expressions about {kind} ({signed(worst)} points, beside "
            f"{signed(lost.loc[name, best])} on those about {best}), while {even} of {len(lost)} methods lose alike on "
            f"all three, within {ALIKE:g} points."
        )
        numbers = lost.map(signed).rename_axis("row").reset_index()
        return Plot(page.getvalue(), said, numbers)

    def learning(self) -> Plot:
        """How the dense model learns each type of expression."""
        names = [f"val/{kind}" for kind in TYPES]
        curve = pd.DataFrame(self.store.result(self.dense.pretrain).curve).set_index("step")[names].dropna()
        curve = (100 * curve).set_axis([*TYPES], axis=1)
        page = BytesIO()
        with drawing.picture(page, (7, 3), dpi=DPI) as figure:
            axes = figure.subplots()
            axes.set(xlabel="step of pre-training", ylabel=f"{_figure()}, %", ylim=(0, 100))
            ends = []
            for kind, color, marker in zip(TYPES, drawing.COLORS, "os^", strict=False):
                axes.plot(curve.index, curve[kind], color=color, marker=marker)
                ends.append(drawing.End(curve.index[-1], curve[kind].iloc[-1], kind, color))
            drawing.label(axes, ends)
        early = curve.index[(curve < HALF).all(axis=1)].max()
        late = curve.index[(curve > HALF).all(axis=1)].min()
        order = curve.mean().sort_values().index
        said = (
            f"All types of expressions pass {HALF:g}% between steps {early} and {late}, {order[0]} trails the others "
            f"({curve[order[0]].iloc[-1]:.0f}% in the end, {order[-1]}: {curve[order[-1]].iloc[-1]:.0f}%), and methods "
            "must not be ranked near that transition."
        )
        return Plot(page.getvalue(), said, curve.round(1).astype(str).rename_axis("step").reset_index())


def _switch(options: Iterable[str]) -> str:
    """The switch that these options are all of."""
    return next((name for name, own in SWITCHES.items() if {*options} <= {*own}), OTHERS)


def _interval(axes: Any, place: int, gap: pd.Series, value: Estimate, color: str) -> None:
    axes.plot(gap, [place] * len(gap), "o", markerfacecolor="none", color=color)
    axes.plot(value.mean, place, "|", markersize=14, markeredgewidth=2.5, color=color)
    if value.n > 1:
        axes.hlines(place, value.low, value.high, color=color, alpha=0.4, linewidth=3)


def _verdict(value: Estimate) -> str:
    if value.n < 2:
        return "has one seed"
    return "is better" if value.low > 0 else "is worse" if value.high < 0 else "is undecided"


def _layers(plans: list[dict[str, Any]], tower: str, part: str) -> pd.DataFrame:
    """Shares of the units of each layer in per cent, mean over plans: own, shared, pruned."""
    frames = [pd.DataFrame(plan[tower][part]) for plan in plans]
    mean = 100 * sum(frame[["own", "kept"]].div(frame.units, axis=0) for frame in frames) / len(frames)
    return pd.DataFrame({"own": mean.own, "shared": mean.kept - mean.own, "pruned": 100 - mean.kept})


def _decided(shares: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """What rows had decided by the end of their search, as a table of text."""
    return pd.DataFrame(
        {"row": name} | {DECIDED[kind][0]: f"{100 * share[kind].iloc[-1]:.1f}%" for kind in DECIDED}
        for name, share in shares.items()
        if len(share)
    )


def _stable(plans: list[dict[str, Any]]) -> str:
    """How much the units that layers keep of their own vary over seeds; nothing where there is one."""
    if len(plans) < 2:
        return ""
    alone = [
        pd.concat([_layers([plan], tower, part).own for tower in ("text", "vision") for part in COMPONENTS])
        for plan in plans
    ]
    return (
        f"; over seeds the share that a layer keeps varies by {pd.concat(alone, axis=1).std(axis=1).mean():.1f} points"
    )


def _mean(frames: Iterable[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(frames).groupby(level="step").mean()


def _legend(figure: "Figure", colors: dict[str, str]) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(facecolor=color, label=name) for name, color in colors.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(colors))


def _figure() -> str:
    return ABOUT[BENCHMARK].shown[0]


def _and(texts: list[str], word: str = "and") -> str:
    """As `a, b and c`."""
    return f" {word} ".join(filter(None, [", ".join(texts[:-1]), texts[-1]]))
