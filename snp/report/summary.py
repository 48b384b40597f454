"""The long form of a table: every metric with mean, interval, paired difference and cost (the CSV)."""

import pandas as pd

from snp.experiment.rows import DENSE, Row
from snp.report.frame import KEYS, RATIOS, Measured
from snp.report.statistics import estimates

COLUMNS = [
    "data", "method", "label", "kind", "group", "target", "benchmark", "split", "type", "metric",
    "mean", "std", "ci_low", "ci_high", "seeds",
    "delta_vs_dense", "delta_ci_low", "delta_ci_high",
    "stored_params", *RATIOS, "sparsity", "note", "state", "dirty",
]  # fmt: skip
_FORMATS = {"target": "{:g}", "seeds": "{:.0f}", "stored_params": "{:.0f}", "dirty": "{:.0f}"}


def summary(measured: Measured) -> pd.DataFrame:
    """One line per row, benchmark, split, expression type and metric; scores are in per cent.

    A benchmark of a row without any result is one line with state `missing`; one with some of its seeds has
    state `n of m`. `target` is the share of all parameters to keep, or of the prunable weights to zero. Costs are
    means over the seeds compressed so far; ratios are shares of the dense model. `dirty` is how many seeds are of code
    that is in no commit.
    """
    wide, rows = measured.scores, measured.rows
    found = estimates(wide).join(estimates(_minus_dense(wide, rows)), rsuffix="_delta").reset_index()
    parts = {key: group for key, group in found.groupby(["label", "benchmark"], sort=False)}
    grouped = measured.costs.groupby("label", sort=False)
    numbers = dict.fromkeys(["stored_params", *RATIOS, "sparsity"], "mean")
    cost = grouped.agg({"kind": "first", **numbers, "note": "first"}).to_dict("index")
    lines = []
    for row in rows:
        about = {
            "data": row.data,
            "method": row.method,
            "label": row.label,
            "group": row.group,
            "target": row.size.share,
        }
        about |= cost.get(row.label, {}) | {"dirty": len(measured.dirty.get(row.label, ()))}
        for benchmark in row.benchmarks:
            group = parts.get((row.label, benchmark))
            if group is None:
                lines.append(about | {"benchmark": benchmark, "seeds": 0, "state": "missing"})
                continue
            for line in group.to_dict("records"):
                lines.append(about | _named(line) | {"state": state(int(line["n"]), row)})
    return pd.DataFrame(lines, columns=COLUMNS)


def state(seeds: int, row: Row) -> str:
    """`done`, `missing`, or `n of m` seeds."""
    if seeds == 0:
        return "missing"
    return "done" if seeds >= len(row.seeds) else f"{seeds} of {len(row.seeds)}"


def csv(frame: pd.DataFrame) -> str:
    """A summary as CSV: scores with three decimals, ratios with five; equal results give equal bytes."""
    text = frame.copy()
    for column in frame.select_dtypes("number"):
        form = _FORMATS.get(column, "{:.5f}" if column.endswith("_ratio") else "{:.3f}")
        text[column] = ["" if pd.isna(value) else form.format(value + 0.0) for value in frame[column]]
    return text.to_csv(index=False, lineterminator="\n")


def _minus_dense(wide: pd.DataFrame, rows: list[Row]) -> pd.DataFrame:
    """Every score minus the dense one of the same data set, benchmark, split, type, metric and seed."""
    data = {row.label: row.data for row in rows}
    dense = {row.data: row.label for row in rows if row.method == DENSE}
    keys = wide.index.to_frame(index=False)
    keys["label"] = keys.label.map(data).map(dense)
    reference = wide.reindex(pd.MultiIndex.from_frame(keys[KEYS])).set_axis(wide.index)
    is_dense = wide.index.get_level_values("label").isin(list(dense.values()))
    return (wide - reference)[~is_dense]


def _named(line: dict[str, object]) -> dict[str, object]:
    return {key: line[key] for key in ("benchmark", "split", "type", "metric", "mean", "std")} | {
        "ci_low": line["low"],
        "ci_high": line["high"],
        "seeds": line["n"],
        "delta_vs_dense": line["mean_delta"],
        "delta_ci_low": line["low_delta"],
        "delta_ci_high": line["high_delta"],
    }
