"""The headline: a few methods on one line each, with what they lose and what they save."""

import pandas as pd

from snp.errors import InputError
from snp.experiment.benchmarks import ABOUT, Benchmark
from snp.experiment.rows import DENSE, Row
from snp.experiment.spec import Data, Scale
from snp.experiment.tables import HEADLINE, select
from snp.report.frame import Measured, on, over_benchmarks, unmeasured
from snp.report.statistics import estimate, points, share
from snp.report.table import markdown
from snp.runs.store import Store


def headline(name: str, store: Store, scale: Scale, data: Data) -> str:
    """A line for each of `HEADLINE` among the rows of a table, as markdown.

    What is lost: points of the main figure below the dense row, in each group of sizes, mean over splits and then over
    benchmarks, paired over seeds, with its 95% interval. Stored and arithmetic: shares of the dense model in the first
    group. A size that a method does not reach is said below the table.

    Raises:
        InputError: no such table, no rows on this data set, or no result of any.
    """
    rows = select(name, scale, data)
    measured = Measured(rows, store)
    if measured.empty:
        raise unmeasured(f"{name} on {data}", name, store, scale)
    dense = next((row for row in rows if row.method == DENSE), None)
    if dense is None:
        raise InputError(name, "has no dense row", "a headline compares with it, as in table1")
    groups = {group: [row for row in rows if row.group == group] for group in dict.fromkeys(row.group for row in rows)}
    first_group = next(iter(groups))
    found = {(row.name, row.group): row for row in rows}
    lines, notes = [], []
    for method in HEADLINE:
        sizes = {group: found[method, group] for group in groups if (method, group) in found}
        if not sizes:
            continue
        first = next(iter(sizes.values()))
        cost = measured.cost(first)
        line = {"method": f"**{method}**" if method == "snp" else method, "kind": "".join(cost.kind[:1])}
        for group, members in groups.items():
            whole = method == DENSE
            line[f"{group} removed"] = (
                _whole(measured, dense, members) if whole else _lost(measured, sizes.get(group), dense)
            )
        stored, arithmetic = share(cost.stored_ratio.mean()), share(cost.flops_ratio.mean())
        lines.append(line | {f"stored at {first_group}": stored, f"arithmetic at {first_group}": arithmetic})
        notes += [_short(measured, row) for row in sizes.values()]
    metric = ABOUT[dense.benchmarks[0]].shown[0]
    about = (
        f"Dense: {metric} in per cent; others: points of change, with 95% intervals over seeds; means over benchmarks"
    )
    of = [f"{group}: {', '.join(ABOUT[name].title for name in _common(members))}" for group, members in groups.items()]
    said = f"{about} ({'; '.join(of)}). {''.join(notes)}".rstrip()
    return f"{markdown(pd.DataFrame(lines))}\n{said}\n"


def _common(rows: list[Row]) -> list[Benchmark]:
    """The benchmarks that all methods of the headline are judged on."""
    judged = [set(row.benchmarks) for row in rows if row.name in HEADLINE]
    return [name for name in ABOUT if judged and all(name in of for of in judged)]


def _whole(measured: Measured, dense: Row, rows: list[Row]) -> str:
    """The dense score that the losses of a group are from."""
    own = on(measured.main(dense), *_common(rows))
    return "missing" if own.empty else f"{over_benchmarks(own).mean():.1f}%"


def _lost(measured: Measured, row: Row | None, dense: Row) -> str:
    if row is None:
        return ""
    return points(estimate(over_benchmarks(measured.difference(row, dense)))) or "missing"


def _short(measured: Measured, row: Row) -> str:
    """One sentence where a method stores clearly more than it was asked to."""
    stored = measured.cost(row).nonzero_ratio.mean()
    if row.size.keep is None or pd.isna(stored) or stored < 1.01 * row.size.keep:
        return ""
    return f"{row.name} cannot remove {row.group}: {share(stored)} remain. "
