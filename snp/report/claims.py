"""The paper's claims that these rows can test: measured value, interval over seeds, verdict.

Definitions [ours]. A value is the main figure of a benchmark in points, mean over the splits of a row's benchmarks;
differences are paired over seeds. "Almost no loss" is at most `ALMOST` points below dense; "little more" is a step of
at most `OVERHEAD` times plain pre-training. A claim holds when its whole interval lies on the claimed side, fails
when the whole interval lies on the other, and is undecided when the interval spans both. Where one row shall beat
another, and the interval spans zero but lies within a point of it, that is an answer too: alike. With fewer than two
seeds there is no interval: not tested. Counts of parameters have no spread: one seed is enough.
"""

from collections.abc import Iterator, Sequence
from textwrap import fill

import pandas as pd

from snp.errors import InputError
from snp.experiment.benchmarks import ABOUT
from snp.experiment.rows import DENSE
from snp.experiment.spec import Scale
from snp.experiment.tables import HELPED, rows
from snp.report import absent, cheaper, few
from snp.report.evidence import ALIKE, Claim, Evidence, Verdict, line, points, removed, verdict
from snp.report.fitted import fitted, width
from snp.report.frame import Measured, over_benchmarks, unmeasured
from snp.report.statistics import CONFIDENCE, Estimate, estimate
from snp.runs.store import Store

ALMOST = 1.0
OVERHEAD = 1.10
CEILING = 0.5  # share of the towers that sharing one tower's weights with the other removes
CEILING_SLACK = 0.05
TESTBED = {"40%": 3.0, "60%": 8.0}  # points that random structure must lose for methods to part
LOST, LEAD = 1.5, 3.0  # points with 60% removed: at most lost, and at least ahead of rivals as published
CLAIMED = ("table1", "table2", "table3", "table4", "table5", "table6", "table7")
"""The tables whose rows can test some of them."""


def claims(measured: Measured) -> list[Claim]:
    """All claims that the rows can test, on every data set."""
    sets = dict.fromkeys(row.data for row in measured.rows)
    return [claim for data in sets for claim in _claims(Evidence(data, measured))]


def claims_table(table: str | None, store: Store, scale: Scale, terminal: bool = False) -> str:
    """The claims that the rows of a table, or of all tables, test, as markdown, or fitted to the terminal.

    Raises:
        InputError: no such table, one whose rows can test no claim, or no result of any of them.
    """
    parts = [Measured(rows(name, scale), store) for name in (CLAIMED if table is None else [table])]
    if not any(map(claims, parts)):
        problem = "its rows can test none of the paper's claims"
        raise InputError(str(table), problem, f"those of {', '.join(CLAIMED)} can")
    if not (found := [measured for measured in parts if not measured.empty]):
        raise unmeasured(table or "table1", table or "table1", store, scale)
    return (claims_text if terminal else claims_markdown)(*found)


def claims_markdown(*parts: Measured) -> str:
    """The claims of one or several tables as markdown with their definitions; empty where the rows can test none."""
    if not (found := [claim for measured in parts for claim in claims(measured)]):
        return ""
    return f"{_frame(found).to_markdown(index=False, disable_numparse=True)}\n\n{_legend(parts)}\n{_dirt(parts)}"


def claims_text(*parts: Measured) -> str:
    """As `claims_markdown`, fitted to the terminal."""
    if not (found := [claim for measured in parts for claim in claims(measured)]):
        return ""
    frame = _frame(found).astype(str)
    frame["measured"] += "\n" + frame.pop("interval")
    grid = fitted(frame, "What the paper claims, tested:", width(), folds=["claim", "rows"])
    return f"{grid}\n{fill(_legend(parts), width())}\n{_dirt(parts)}"


def _frame(found: list[Claim]) -> pd.DataFrame:
    return pd.DataFrame(found).rename(columns={"number": "#", "text": "claim", "where": "rows"})


def _legend(parts: Sequence[Measured]) -> str:
    benchmarks = [benchmark for part in parts for row in part.rows for benchmark in row.benchmarks]
    figures = ", ".join(dict.fromkeys(ABOUT[benchmark].shown[0] for benchmark in benchmarks))
    return (
        f"Points of {figures}, mean over splits, then benchmarks, paired over seeds, {CONFIDENCE:.0%} t interval "
        f"(claim 2: widened for the number of benchmarks). Almost no loss: at most {ALMOST:g} point. Holds or fails: "
        f"the whole interval lies on one side; alike: none beats the other, all of it lies within {ALIKE:g} point; "
        "undecided: it spans both; not tested: fewer than two seeds "
        "(parameter counts need one). Needed: seeds that would decide it, if mean and spread stay as measured. "
        "B: an aim of this project for the method at its best. S: SmartTrim's claims, D: DiDE's, A: ALTER's (of "
        "each seed a mean over draws), Q: Pair2Seq's. T: a check of the testbed, not a claim."
    )


def _dirt(parts: Sequence[Measured]) -> str:
    return "".join(f"\nTested on rows {told}" for part in parts if (told := part.dirt(part.rows)))


def _claims(seen: Evidence) -> Iterator[Claim]:
    """Claims in the order of their numbers; those whose rows the table does not have are left out."""
    first, later = seen.groups[:1], seen.groups[1:]
    for group in first:
        if seen.has(group, "snp", DENSE):
            text = "almost no loss at 35-40% of all parameters removed"
            yield points(seen, "1", text, "snp", DENSE, group, -ALMOST)
            yield _better_somewhere(seen, group)
    yield from _versus(seen, "3", "sharing and pruning beat pruning alone", "snp", "snp-prune-only")
    yield from _versus(seen, "3", "sharing and pruning beat sharing alone", "snp", "snp-cross-only")
    yield from _versus(seen, "4", "learned vectors beat whole layers", "snp-cross-only", "cross-modal")
    for group in later:
        if seen.has(group, "cross-modal"):
            yield _ceiling(seen, group)
    for group in first:
        if seen.has(group, "cross-modal", DENSE):
            text = "cross-modal sharing alone loses accuracy early"
            yield _loses(seen, "5", text, "cross-modal", group, ALMOST)
        # fine-tuned on something else, the models of Table 1 have no costs of their own
        if seen.has(group, "snp") and (seen.where == seen.members[0].data or seen.members[0].model != "mdetr"):
            yield _overhead(seen, group)
    yield from _versus(seen, "7", "a hypernetwork beats free parameters", "snp", "snp-free-logits")
    yield from _best(seen, later)
    yield from cheaper.trimming_claims(seen)
    yield from cheaper.dual_claims(seen)
    yield from few.adapting_claims(seen)
    yield from absent.made_claims(seen)
    for group in seen.groups:
        if group in TESTBED and seen.has(group, "random-structured", DENSE):
            text = f"random structure loses at least {TESTBED[group]:g} points"
            yield _loses(seen, "T", text, "random-structured", group, TESTBED[group])


def _best(seen: Evidence, groups: Sequence[str]) -> Iterator[Claim]:
    """What this project asks of the method at its best, beside rivals as published and with the same help [ours]."""
    for group in (group for group in groups if seen.has(group, "snp")):
        if group == "60%":
            if seen.has(group, DENSE):
                yield points(seen, "B", f"at most {LOST:g} points are lost", "snp", DENSE, group, -LOST)
            for rival in ("upop", "magnitude-structured-uniform"):
                if seen.has(group, rival):
                    text = f"ahead of a rival as published by {LEAD:g} points"
                    yield points(seen, "B", text, "snp", rival, group, LEAD)
        for rival in HELPED:
            if seen.has(group, rival):
                yield points(seen, "B", "ahead of a rival in the same basis", "snp", rival, group, 0)


def _versus(seen: Evidence, number: str, text: str, name: str, other: str) -> Iterator[Claim]:
    """One claim of superiority for every group that has both rows."""
    for group in seen.groups:
        if seen.has(group, name, other):
            yield points(seen, number, text, name, other, group, 0)


def _loses(seen: Evidence, number: str, text: str, name: str, group: str, bound: float) -> Claim:
    value = estimate(over_benchmarks(seen.gap(DENSE, name, group)))
    where = f"{seen.where}: dense - {name}, {group}{removed(seen, name, group)}"
    return line(number, text, where, value, verdict(value, bound), bound)


def _better_somewhere(seen: Evidence, group: str) -> Claim:
    """Claim 2: one benchmark is enough, so every interval is widened for their number (Bonferroni).

    What is shown is the benchmark that decides: of those with the best verdict the one with the highest interval.
    """
    gap = seen.gap("snp", DENSE, group)
    benchmarks = list(dict.fromkeys(gap.index.get_level_values("benchmark")))
    confidence = 1 - (1 - CONFIDENCE) / max(len(benchmarks), 1)
    values = {name: estimate(over_benchmarks(gap.loc[[name]]), confidence) for name in benchmarks}
    order: list[Verdict] = ["fails", "not tested", "undecided", "alike", "holds"]

    def standing(name: str) -> tuple[int, float]:
        value = values[name]
        return order.index(verdict(value, 0, strictly=True)), value.low if value.n > 1 else value.mean

    where, value = f"{seen.where}: snp - {DENSE}, {group}", estimate(pd.Series(dtype=float))
    if benchmarks:
        best = max(benchmarks, key=standing)
        where, value = f"{where}, {ABOUT[best].title}, which decides of {len(benchmarks)}", values[best]
    result = verdict(value, 0, strictly=True)
    return line("2", "better than the original on some tasks", where, value, result, 0, confidence=confidence)


def _ceiling(seen: Evidence, group: str) -> Claim:
    """Claim 5, first half: asked for more, whole-layer tying stops at about half of the towers."""
    towers, stored = (seen.cost("cross-modal", group, name) for name in ("tower_ratio", "stored_ratio"))
    value = estimate(100 * (1 - towers))
    result: Verdict = "not tested"
    if value.n:
        asked = seen.row("cross-modal", group).size.share
        reached = abs(1 - towers.mean() - CEILING) <= CEILING_SLACK and stored.mean() > asked
        result = "holds" if reached else "fails"
    text = "cross-modal sharing alone ends at about 50% of the towers"
    return line("5", text, f"{seen.where}: cross-modal, {group} asked", value, result, unit="% of towers")


def _overhead(seen: Evidence, group: str) -> Claim:
    value = estimate(seen.cost("snp", group, "step_overhead"))
    low = Estimate(-value.mean, value.std, -value.high, -value.low, value.n)
    text = f"the alternating scheme costs little more than plain pre-training (at most {OVERHEAD:.2f}x)"
    return line("6", text, f"{seen.where}: snp, {group}", value, verdict(low, -OVERHEAD), OVERHEAD, "x", decimals=2)
