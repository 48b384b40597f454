"""What a run found, said when it ends: scores beside dense and committed ones, minutes, and what is next."""

import shlex

import pandas as pd

from snp.experiment.benchmarks import ABOUT
from snp.experiment.rows import DENSE, Row
from snp.experiment.spec import Scale
from snp.report.fitted import fitted, width
from snp.report.frame import Measured, dense_of, on, over_benchmarks, subtract, undense
from snp.report.statistics import signed
from snp.runs.store import Store

SMOKE = "At smoke scale figures mean nothing: they show that everything runs."
LABELS = 3
"""Rows that the next command names; of more it is about all that there is."""


def ending(rows: list[Row], store: Store, committed: Store, scale: Scale) -> str:
    """A line for each row, as text fitted to the terminal.

    For every benchmark the main figure, mean over splits and over the seeds of the row; the difference to the dense
    model over the same seeds; minutes of its runs. Runs in another folder than the committed one stand beside what that
    one has for them, with the largest gap on any split.

    Args:
        rows: with the seeds that were run.
        store: where they are; its dense model, or else the committed one, is compared with.
    """
    dense = [dense_of(row) for row in rows]
    wanted = list({row.label: row for row in [*dense, *rows]}.values())
    here = Measured(wanted, store)
    elsewhere = store.root.resolve() != committed.root.resolve()
    there = Measured(wanted, committed) if elsewhere else here
    named = len({row.name for row in rows}) == len(rows)
    lines, lacking = [], list[Row]()
    for row, whole in zip(rows, dense, strict=True):
        ours, theirs = here.main(row), there.main(row)
        line = {"row": row.name if named else row.label}
        for benchmark in row.benchmarks:
            line[ABOUT[benchmark].title] = _mean(on(ours, benchmark))
        own = here.main(whole)
        gap = subtract(ours, there.main(whole) if own.empty else own)
        line["Δ dense"] = "" if row.method == DENSE or gap.empty else signed(over_benchmarks(gap).mean())
        if row.method != DENSE and gap.empty and not ours.empty:
            lacking.append(row)
        known = subtract(ours, theirs)
        if elsewhere and not known.empty:
            line["committed"] = _mean(theirs.loc[known.index, known.columns])
            line["largest gap"] = f"{known.abs().max().max():.1f}"
        lines.append(line)
    frame = pd.DataFrame(lines).fillna("")
    seeds = sorted({seed for row in rows for seed in row.seeds})
    seen = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    title = f"What they found, in per cent, mean over splits ({seen}):"
    labels = [row.label for row in rows] if len(rows) <= LABELS else []
    where = store.options(scale)
    next_one = f"snp table {' '.join(map(shlex.quote, labels))}".rstrip() + where
    minutes = sum(_minutes(row, store) for row in rows)
    said = [fitted(frame, title, width()), f"runs: {store.root} ({minutes:.1f} minutes of one thread)"]
    said += dict.fromkeys(undense(row, store) for row in lacking)
    said += [f"next: {next_one}"] if labels or " --out" in where else []
    said += [note.rstrip() for measured in dict.fromkeys((here, there)) if (note := measured.dirt(rows))]
    return "\n".join([*said, *([SMOKE] if scale == "smoke" else [])]) + "\n"


def _mean(values: pd.DataFrame) -> str:
    """Over splits, then benchmarks, then seeds."""
    return "missing" if values.empty else f"{over_benchmarks(values).mean():.1f}"


def _minutes(row: Row, store: Store) -> float:
    """Of the runs of a row that are there, without the dense model that it starts from."""
    runs = [run for seed in row.seeds for run in row.runs(seed) if run.kind != "pretrain"]
    return sum((result.manifest.get("wall_seconds") or 0) / 60 for run in runs if (result := store.find(run)))
