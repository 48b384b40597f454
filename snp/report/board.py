"""The leaderboard: a line for each row and benchmark: its score, loss and costs, and the Pareto fronts it is on."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from snp.experiment.benchmarks import ABOUT, Benchmark
from snp.experiment.rows import DENSE, Row
from snp.report.figures import PANELS
from snp.report.frame import RATIOS, Measured, on, over_benchmarks, subtract
from snp.report.special import kind
from snp.report.statistics import Estimate, estimate, estimates
from snp.report.summary import state

Line = dict[str, Any]
FRONTS = {"size": "remaining", "FLOPs": "flops_ratio"}
"""Name of a front, and the cost that it weighs against the score."""
_SAME = 3  # decimals of a share: sizes that differ by less are one size, as no method meets a budget to the last weight


def board(tables: dict[str, Measured]) -> list[Line]:
    """The lines of all rows, each row once, in the order of the tables.

    Scores and losses are of the benchmark's main figure, per cent and points, mean over its splits; losses are paired
    over seeds with the dense row of the same data, model and phase. What is not measured is None.
    `remaining` is the share of all parameters that counts as a row's size: stored, for unstructured methods not zero.
    A line is on a front when none of its kind (whole units, or single weights; for FLOPs: any), on the same data,
    model, benchmark and phase, scores as much at no higher cost. [ours]
    """
    seen: dict[str, tuple[Row, Measured]] = {}
    for measured in tables.values():
        for row in measured.rows:
            seen.setdefault(row.label, (row, measured))
    dense = {
        (row.data, row.model, phase(row), benchmark): (row, measured)
        for row, measured in seen.values()
        if row.method == DENSE and row.dual is None and row.augment is None and (row.trim is None or row.trim.whole)
        for benchmark in row.benchmarks
    }
    of_weights = {row.method: one for row, measured in seen.values() for one in measured.cost(row).kind[:1]}
    lines = []
    for row, measured in seen.values():
        for benchmark in row.benchmarks:
            whole = dense.get((row.data, row.model, phase(row), benchmark))
            lines.append(
                _line(row, measured, benchmark, whole) | {"kind": kind(row, of_weights.get(row.method, "")) or None}
            )
    for line in lines:
        line["remaining"] = line["nonzero_ratio" if line["kind"] == "unstructured" else "stored_ratio"]
        line["fronts"] = []
    for name, cost in FRONTS.items():
        for members in _compared(lines, name):
            for line in front(members, cost):
                if name not in line["fronts"]:
                    line["fronts"].append(name)
    return lines


def phase(row: Row) -> str:
    """What follows, or goes with, the compression of a row before it is fine-tuned."""
    if not row.recovery:
        return "fine-tuning alone"
    longer = f", {row.times} times as long" if row.times > 1 else ""
    return "continued pre-training" + longer + (", then trimming" if row.trim else "")


def front(lines: list[Line], cost: str) -> list[Line]:
    """The lines that no other beats: more score than all that cost no more. Costs count to a tenth of a per cent."""
    measured = [line for line in lines if line["score"] is not None and line[cost] is not None]
    best, found = float("-inf"), []
    for line in sorted(measured, key=lambda line: (round(line[cost], _SAME), -line["score"])):
        if line["score"] > best:
            best = line["score"]
            found.append(line)
    return found


def _compared(lines: list[Line], name: str) -> Iterator[list[Line]]:
    """The groups of lines within which a front is one: equal data, model, benchmark and phase."""
    everything = tuple(kind for panel in PANELS.values() for kind in panel)
    for key in dict.fromkeys(_setting(line) for line in lines):
        for kinds in PANELS.values() if name == "size" else (everything,):
            yield [line for line in lines if _setting(line) == key and line["kind"] in (DENSE, *kinds)]


def _setting(line: Line) -> tuple[str, ...]:
    return tuple(line[name] for name in ("data", "model", "benchmark", "phase"))


def _line(row: Row, measured: Measured, benchmark: Benchmark, dense: tuple[Row, Measured] | None) -> Line:
    own = on(measured.main(row), benchmark)
    score, loss = estimate(over_benchmarks(own)), None
    if dense is not None and row.label != dense[0].label:
        other, where = dense
        loss = estimate(over_benchmarks(subtract(own, on(where.main(other), benchmark))))
    cost = measured.cost(row)
    shares = {name: number(cost[name].mean(), 5) for name in [*RATIOS, "sparsity", "projection_gap"]}
    return {
        "label": row.label,
        "method": row.title,
        "data": row.data,
        "model": row.model,
        "benchmark": benchmark,
        "title": ABOUT[benchmark].title,
        "metric": ABOUT[benchmark].shown[0],
        "phase": phase(row),
        "group": row.group,
        "of": row.of,
        **_told("score", score),
        **_told("delta", loss),
        **shares,
        "stored_params": number(cost.stored_params.mean(), 0),
        "seeds": score.n,
        "wanted": len(row.seeds),
        "state": state(score.n, row),
        "splits": _splits(measured.shown(row), benchmark),
    }


def _told(name: str, value: Estimate | None) -> Line:
    """Mean, and interval where there is one."""
    known = value if value is not None and value.n else None
    several = known is not None and known.n > 1
    return {
        name: number(known.mean) if known else None,
        f"{name}_low": number(known.low) if known and several else None,
        f"{name}_high": number(known.high) if known and several else None,
    }


def _splits(wide: pd.DataFrame, benchmark: Benchmark) -> list[Line]:
    """Every figure of a benchmark over its samples of all types."""
    found = estimates(on(wide, benchmark)).reset_index()
    return [
        {"split": line["split"], "metric": line["metric"]}
        | {name: number(line[name]) for name in ("mean", "std", "low", "high")}
        | {"n": int(line["n"])}
        for line in found.to_dict("records")
    ]


def number(value: Any, decimals: int = 3) -> float | None:
    """A number as JSON has it, rounded; None where there is none."""
    return None if value is None or pd.isna(value) else round(float(value), decimals) + 0.0
