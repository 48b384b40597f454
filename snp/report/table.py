"""A table for readers, in several formats, from results alone; equal results give equal bytes."""

from collections.abc import Iterator
from html import escape
from textwrap import fill
from typing import Literal

import pandas as pd

from snp.experiment.benchmarks import ABOUT, OWN, Benchmark, of_looks
from snp.experiment.rows import WHOLE, Row
from snp.experiment.spec import Data, Scale
from snp.experiment.tables import select
from snp.report.claims import claims_markdown
from snp.report.fitted import fitted, width
from snp.report.frame import (
    ALL,
    DIRTY,
    UNCOMMITTED,
    ZERO_SHOT,
    Measured,
    dense_of,
    over_benchmarks,
    undense,
    unmeasured,
)
from snp.report.latex import latex
from snp.report.published import quoted
from snp.report.special import columns, dense_beside, kind
from snp.report.statistics import estimate, estimates, points, share
from snp.report.summary import csv, state, summary
from snp.runs.store import Store

Format = Literal["text", "markdown", "csv", "latex", "html", "json"]
SHARES = {
    "stored": "stored_ratio",
    "non-zero": "nonzero_ratio",
    "towers": "tower_ratio",
    "FLOPs": "flops_ratio",
}
FEWER = "‡"
"""The mark of a difference over fewer benchmarks than others of its group have."""
LEGEND = """\
{figures} in per cent, mean ± standard deviation over seeds. Δ dense: difference in points{of} to
the dense row, paired over seeds, mean over splits, then over the row's benchmarks, with its 95% t interval.
Stored, non-zero, FLOPs: share of the whole dense model; towers: share of the two towers' parameters; sparsity:
share of the prunable weights (linear maps of both towers and of fusion) that is zero.
"""


def table(name: str, store: Store, scale: Scale, data: Data | None = None, format: Format = "markdown") -> str:
    """A table as text.

    Args:
        name: which table, as `table1`.
        store: where the results are.
        scale: smoke, desk or paper.
        data: one data set; None stands for all.
        format: as in `render`.

    Raises:
        InputError: no such table, no rows for this data set, an unreadable result, or no result at all.
    """
    measured = Measured(select(name, scale, data), store)
    if measured.empty:
        raise unmeasured(name if data is None else f"{name} on {data}", name, store, scale)
    return render(measured, format)


def render(measured: Measured, format: Format = "markdown") -> str:
    """Measured rows as text.

    Args:
        format: text (the main tables, fitted to the terminal), markdown (with claims and published figures), csv and
            json (every metric, long form), latex or html (the main tables).
    """
    parts = _parts(measured)
    match format:
        case "csv":
            return csv(summary(measured))
        case "json":
            return summary(measured).to_json(orient="records", indent=1, force_ascii=False) + "\n"
        case "latex":
            return "\n".join(latex(frame, title + _dagger(frame)) for title, frame, _ in parts)
        case "html":
            tables = [(escape(title), frame.to_html(index=False, border=0)) for title, frame, _ in parts]
            return "".join(f"<h3>{title}</h3>\n{frame}\n" for title, frame in tables)
        case "text":
            texts = [
                f"{fitted(frame, title, width(), first=_telling(frame))}{notes.lstrip()}"
                for title, frame, notes in parts
            ]
            return "\n".join([*texts, fill(_legend(measured.rows), width()) + "\n"])
    return "\n".join(
        [
            *_main(measured),
            *(f"### {title}\n\n{markdown(frame)}" for title, frame in _by_type(measured)),
            *_tested(measured, "### What the paper claims, tested\n"),
            "### Published figures\n",
            _quoted(measured.rows),
        ]
    )


def _telling(frame: pd.DataFrame) -> list[str]:
    """What has room before single splits: where weights are stored that are zero, how many are not."""
    if "non-zero" not in frame:
        return ["FLOPs"]
    return [] if frame["stored"].equals(frame["non-zero"]) else ["non-zero"]


def brief(name: str, store: Store, scale: Scale, data: Data | None = None) -> str:
    """The main tables of `table` alone, as markdown."""
    return "\n".join(_main(Measured(select(name, scale, data), store)))


def markdown(frame: pd.DataFrame) -> str:
    """A frame of texts as a markdown table."""
    return frame.to_markdown(index=False, disable_numparse=True) + "\n"


def _main(measured: Measured) -> list[str]:
    """The main tables and what their columns mean."""
    parts = [f"### {title}\n\n{markdown(frame)}{notes}" for title, frame, notes in _parts(measured)]
    return [*parts, _legend(measured.rows)]


def _parts(measured: Measured) -> Iterator[tuple[str, pd.DataFrame, str]]:
    """Title, frame and notes of every (data set, group): the readable main tables.

    The notes are what methods say about their own plan, as a ceiling short of the target, and of which code rows are.
    """
    for data, members in _groups(measured.rows):
        lines, notes, fewer = [], [], dict[str, None]()
        most = max(len(row.benchmarks) for row in members)
        whole = dense_beside(members, measured.rows)
        for row in members:
            values, cost = measured.shown(row), measured.cost(row)
            found = estimates(values)
            line = {"method": _title(row, measured), "kind": "".join(cost.kind[:1])}
            for key in _columns(members):
                line[_head(*key)] = _cell(found, key, "missing" if key[0] in row.benchmarks else "")
            line["Δ dense"] = ""
            if whole is not None and row != whole:
                line["Δ dense"] = points(estimate(over_benchmarks(measured.difference(row, whole))))
            if line["Δ dense"] and len(row.benchmarks) < most:
                line["Δ dense"] += f" {FEWER}"
                fewer |= dict.fromkeys(ABOUT[name].title for name in row.benchmarks)
            shares = SHARES if row.of == WHOLE.of else SHARES | {"sparsity": "sparsity"}
            if row.of:
                line |= {head: share(cost[name].mean()) for head, name in shares.items()}
            else:
                line |= {"kind": kind(row, line["kind"])} | columns(row, measured)
            lines.append(line)
            lines += [
                {"method": f"{name.replace('_', ' ')} answer", "kind": "sees no picture"}
                | {_head(*key): _cell(estimates(figures), key, "") for key in _columns(members)}
                for name, figures in measured.baselines(row).items()
            ]
            notes += [f"- {row.name}: {note}\n" for note in cost.note[:1] if note]
            notes += [f"- {row.name}: in its {mode} mode\n" for mode in cost["mode"][:1] if not pd.isna(mode)]
        notes += [f"- {FEWER} over {', '.join(fewer)} alone, others over {most} benchmarks\n"] if fewer else []
        lone = next((row for row in members if whole is None and not measured.main(row).empty), None)
        if lone is not None and Measured([dense_of(lone)], measured.store).main(dense_of(lone)).empty:
            notes += [f"- {undense(lone, measured.store)}\n"]
        notes += [f"- {told}"] if (told := measured.dirt(members)) else []
        yield f"{data}: {members[0].heading}", pd.DataFrame(lines).fillna(""), "\n" + "".join(notes) if notes else ""


def _by_type(measured: Measured) -> Iterator[tuple[str, pd.DataFrame]]:
    """Title and frame of every (data set, group): what the mean hides, on the first split of the first benchmark."""
    means = estimates(measured.scores)["mean"].to_dict()
    gaps = measured.costs.astype({"projection_gap": float}).groupby("label").projection_gap.mean()
    for data, members in _groups(measured.rows):
        benchmark = members[0].benchmarks[0]
        about, split = ABOUT[benchmark], ABOUT[benchmark].splits[0]
        main = about.shown[0]
        kinds = [key[3] for key in means if (*key[1:3], key[4]) == (benchmark, split, main) and key[3] != ALL]
        kinds = list(dict.fromkeys([*about.task.types, *kinds]))
        wanted = {f"{_short(main)} {kind}": (kind, main) for kind in kinds}
        others = [metric for metric in about.task.figures if metric == "mean_iou"]
        wanted |= {_short(metric): (ALL, metric) for metric in others}
        wanted |= {f"{_short(metric)} before tuning": (ALL, ZERO_SHOT + metric) for metric in (main, *others)}
        lines = [
            {"method": row.title}
            | {head: _number(means.get((row.label, benchmark, split, *key))) for head, key in wanted.items()}
            | {"projection gap": _number(gaps.get(row.label), 3)}
            for row in members
        ]
        mirror = about.title + ("" if benchmark in OWN or of_looks(benchmark) else "-like")
        yield (
            f"{data}: {members[0].heading}, by {about.task.sample} type ({mirror} {split})",
            pd.DataFrame(lines),
        )


def _short(metric: str) -> str:
    return {"precision@1": "P@1", "recall@1": "R@1", "mean_iou": "mean IoU"}.get(metric, metric)


def _groups(chosen: list[Row]) -> Iterator[tuple[str, list[Row]]]:
    for data, group in dict.fromkeys((row.data, row.group) for row in chosen):
        yield data, [row for row in chosen if (row.data, row.group) == (data, group)]


def _columns(members: list[Row]) -> list[tuple[Benchmark, str, str]]:
    benchmarks = dict.fromkeys(benchmark for row in members for benchmark in row.benchmarks)
    return [
        (benchmark, split, metric)
        for benchmark in benchmarks
        for split in ABOUT[benchmark].splits
        for metric in ABOUT[benchmark].shown
    ]


def _head(benchmark: Benchmark, split: str, metric: str) -> str:
    """A column: the figure is named where the benchmark shows several."""
    about = ABOUT[benchmark]
    several = f" {_short(metric).replace('_', ' ')}" if len(about.shown) > 1 else ""
    return f"{about.title} {split}{several}"


def _explained(rows: list[Row]) -> str:
    tasks = dict.fromkeys(ABOUT[benchmark].task for row in rows for benchmark in row.benchmarks)
    return "; ".join(task.explained for task in tasks)


def _legend(rows: list[Row]) -> str:
    shown = dict.fromkeys(ABOUT[benchmark].shown for row in rows for benchmark in row.benchmarks)
    several = [figures[0] for figures in shown if len(figures) > 1]
    return LEGEND.format(figures=_explained(rows), of=f" of {', '.join(several)}" if several else "")


def _title(row: Row, measured: Measured) -> str:
    """Name of a row, with a mark where its code is in no commit, and the number of seeds where some are missing."""
    values = measured.shown(row)
    wanted = values.reindex(pd.MultiIndex.from_tuples(_columns([row]), names=values.index.names))
    found = state(int(wanted.notna().all().sum()), row)
    name = row.title + (f" {DIRTY}" if row.label in measured.dirty else "")
    return name if found == "done" else f"{name} ({found})"


def _cell(found: pd.DataFrame, key: tuple[str, str, str], empty: str) -> str:
    if key not in found.index or pd.isna(found.at[key, "mean"]):
        return empty
    mean, std = found.at[key, "mean"], found.at[key, "std"]
    return f"{mean:.1f}" + ("" if pd.isna(std) else f" ±{std:.1f}")


def _tested(measured: Measured, title: str) -> list[str]:
    """The claims that these rows can test, below `title`; nothing where there are none."""
    return [title, text] if (text := claims_markdown(measured)) else []


def _quoted(rows: list[Row]) -> str:
    return quoted({benchmark for row in rows for benchmark in row.benchmarks}, {row.method for row in rows})


def _number(value: object, decimals: int = 1) -> str:
    return "" if value is None or pd.isna(value) else f"{value:.{decimals}f}"


def _dagger(frame: pd.DataFrame) -> str:
    """What the mark of rows means, where one has it."""
    return f" ({DIRTY} {UNCOMMITTED})" if frame.method.str.contains(DIRTY).any() else ""
