"""What each switch of SNP does, what it decides, and who suffers: plots from results, each with one sentence."""

from io import BytesIO

import pandas as pd

from snp import drawing
from snp.experiment.benchmarks import ABOUT
from snp.experiment.rows import DENSE, WHOLE, Row
from snp.experiment.tables import STEPS
from snp.report.frame import ALL
from snp.report.plots import (
    BENCHMARK,
    COMPONENTS,
    DECIDED,
    OTHERS,
    SWITCHES,
    Ablated,
    Plot,
    decided,
    interval,
    layers_of,
    legend,
    listed,
    main_figure,
    mean_of,
    stability,
    verdict,
)
from snp.report.statistics import estimate, points, signed
from snp.runs.result import Result

EXAMPLES = {
    "alternation": "every=20", "alignment": "align=loss", "block size": "block=3", "budget schedule": "track=false",
}  # fmt: skip
GIVES = ("the basis", "a score over all layers", "sharing", "learning")
"""What each of `tables.STEPS` adds to the one before."""
TYPES = ("attribute", "relation", "order")
DPI = 120
HALF = 50.0
"""Per cent: what is below is not learned, what is above is."""
ALIKE = 3.0
"""Points within which losses count as alike."""


class Ablations(Ablated):
    """The plots, each of what a store holds."""

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
                interval(axes, place, gap, value, drawing.COLORS[self.groups.index(row.group)])
            axes.axvline(0, color=drawing.GREY, linestyle=":")
            axes.annotate(
                "snp", (0, 1), xycoords=("data", "axes fraction"), ha="center", va="bottom", color=drawing.INK
            )
            axes.set(xlabel=f"points of {main_figure()} beside snp", ylim=(len(rows) - 0.4, -0.6))
            axes.set_yticks(range(len(rows)), [f"{row.name}, {row.group} removed" for row in rows])
            axes.grid(axis="y", visible=False)
        told = [
            f"{row.name} {verdict(value)} at {row.group} removed ({points(value)})"
            for row, value in zip(rows, values, strict=True)
        ]
        numbers = pd.DataFrame(
            {
                "row": row.label,
                main_figure(): f"{self._score(row).mean():.1f}",
                "minus snp, points [95%]": points(value),
                "projection gap": self._projected(row),
                "seeds": str(value.n),
            }
            for row, value in zip(rows, values, strict=True)
        )
        return Plot(page.getvalue(), f"Beside snp, {listed(told)}.", numbers)

    def _missing(self, switch: str) -> str:
        if switch == OTHERS:
            return "No other variant of snp is measured."
        options = listed([f"`{option}`" for option in SWITCHES[switch]], "or")
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
            panels[0].set_ylabel("points beside dense")
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
        return f"{lost}, of which are given back: {listed(parts)}"

    def over_sizes(self, *names: str) -> Plot:
        """How rows of these names lose over sizes; a row is drawn where it is measured."""
        lines = {
            name: [row for row in self.rows if row.name == name and row.size.keep is not None and row.size != WHOLE]
            for name in names
        }
        missing = [name for name, rows in lines.items() if not rows]
        if missing:
            return Plot(b"", f"**Not measured.** No run of {listed(missing)}: `snp run ablations`.")
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
            axes.set(xlabel="parameters removed, %", ylabel=f"points of {main_figure()} beside dense")
            drawing.label(axes, ends)
        return Plot(page.getvalue(), f"Beside the dense model: {listed(told)}.", pd.DataFrame(rows_of))

    def search(self) -> Plot:
        """What SNP's variants decide for the units of the text tower while they search."""
        group = self.groups[0]
        rows = [row for row in self.rows if row.method == "snp" and row.group == group and self._results(row)]
        told = {
            row.name: mean_of(self._curve(result) for result in self._results(row))
            for row in rows
            if all("budget_ratio" in line for result in self._results(row) for line in result.curve[:1])  # not at once
        }
        shares = {name: share for name, share in told.items() if len(share) > 1}
        if "snp" not in shares:
            said = f"With {group} removed, snp has decided before its log has a second line."
            return Plot(b"", said, decided(told))
        page = BytesIO()
        with drawing.picture(page, (7, 2.6), dpi=DPI) as figure:
            panels = figure.subplots(1, len(shares), sharey=True, squeeze=False)[0]
            for axes, (name, share) in zip(panels, shares.items(), strict=True):
                colors = [DECIDED[kind][1] for kind in DECIDED]
                axes.stackplot(share.index, 100 * share[[*DECIDED]].T, colors=colors)
                axes.set(xlabel="step", ylim=(0, 100), xlim=(share.index.min(), share.index.max()), title=name)
            panels[0].set_ylabel("units of the text tower, %")
            legend(figure, dict(DECIDED.values()))
        snp = shares["snp"]
        met = snp.index[(snp.budget_ratio - 1).abs() < 0.01].min()
        end = 100 * snp.iloc[-1]
        said = (
            f"With {group} removed, snp is within 1% of its budget at step {met:.0f}, and ends with {end.pruned:.0f}% "
            f"of the text tower's units pruned, {end.cross:.0f}% shared with the vision tower and "
            f"{end.blockwise:.0f}% within a block (mean over seeds)."
        )
        return Plot(page.getvalue(), said, decided(told))

    @staticmethod
    def _curve(result: Result) -> pd.DataFrame:
        return pd.DataFrame(result.curve).set_index("step")[[*DECIDED, "budget_ratio"]].dropna()

    def layers(self) -> Plot:
        """What is left of each layer by the plan that SNP ends with."""
        group = self.groups[0]
        row = self._snp(group)
        assert row is not None
        plans = [result.costs.plan["units"] for result in self._results(row)]
        colors = {"own": drawing.BLUE, "shared": drawing.ORANGE, "pruned": DECIDED["pruned"][1]}
        shares = {(tower, part): layers_of(plans, tower, part) for tower in ("text", "vision") for part in COMPONENTS}
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
            legend(figure, colors)
        pruned = {COMPONENTS[part]: (shares["text", part].pruned + shares["vision", part].pruned).mean() / 2
                  for part in COMPONENTS}  # fmt: skip
        own = sum(shares["text", part].own for part in COMPONENTS) / len(COMPONENTS)
        most, least = max(pruned, key=pruned.__getitem__), min(pruned, key=pruned.__getitem__)
        said = (
            f"With {group} removed, {most} units are pruned most ({pruned[most]:.0f}%; {least}: {pruned[least]:.0f}%), "
            f"and of the text tower layer {own.idxmax() + 1} keeps most of its own ({own.max():.0f}%) and layer "
            f"{own.idxmin() + 1} least ({own.min():.0f}%){stability(plans)}."
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
            axes.set_xlabel(f"points of {main_figure()} beside the dense model, {group} removed")
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
            axes.set(xlabel="step of pre-training", ylabel=f"{main_figure()}, %", ylim=(0, 100))
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
