"""What a store holds on the rows of a table, read once, as pandas frames: scores by seed, costs by seed."""

import shlex
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import pandas as pd

from snp.checkout import checkout
from snp.compression.size import Size
from snp.errors import InputError
from snp.experiment.benchmarks import ABOUT, Benchmark
from snp.experiment.places import NEEDED
from snp.experiment.rows import DENSE, WHOLE, Row
from snp.experiment.spec import Scale, is_own
from snp.models.adapt import Adapt
from snp.models.special import Special, word_of
from snp.runs.begun import meant
from snp.runs.result import Result
from snp.runs.store import Store
from snp.trimming.trim import Trim

ALL = "all"  # the type of a score over samples of every type
ZERO_SHOT = "zero_shot_"  # prefix of metrics measured before fine-tuning
KEYS = ["label", "benchmark", "split", "type", "metric"]
RATIOS = ["stored_ratio", "tower_ratio", "nonzero_ratio", "flops_ratio"]
COSTS = [
    "label",
    "seed",
    "kind",
    "stored_params",
    *RATIOS,
    "sparsity",
    "projection_gap",
    "step_overhead",
    "mode",
    "note",
]


WHOLE_COSTS: dict[str, Any] = dict.fromkeys(RATIOS, 1.0) | {"sparsity": None}
"""Of the dense model, of which a ticket only says where it learns."""
DIRTY, UNCOMMITTED = "†", "of code with changes that are not in its commit"
"""The mark of rows that no commit makes again, and what it means."""


class Measured:
    """The results of `rows`.

    Attributes:
        rows: the rows asked for, whether measured or not; of paper scale those that are `meant`.
        store: where they were looked for.
        scores: per cent; lines are `KEYS` in table order, columns are seeds, NaN where a run is not done.
        costs: one line per finished compression; columns `COSTS`.
        dirty: label -> measured seeds of which a run, the dense one included, is of code that its commit does not have.
    """

    def __init__(self, rows: list[Row], store: Store) -> None:
        self.rows = rows = meant(rows, store)
        self.store = store
        find = cache(store.find)
        self.dirty = {
            row.label: seeds
            for row in rows
            if (seeds := [seed for seed in row.seeds if _dirty([find(run) for run in row.runs(seed)])])
        }
        lines = [
            (row.label, benchmark, *line[:3], seed, 100 * line[3])
            for row in rows
            for benchmark in row.benchmarks
            for seed in row.seeds
            if (result := find(row.finetune(seed, benchmark)))
            for line in _lines(result, benchmark)
        ]
        long = pd.DataFrame(lines, columns=[*KEYS, "seed", "value"])
        self.scores = long.set_index([*KEYS, "seed"]).value.unstack("seed", sort=False)
        told = [
            (row.label, name, benchmark, split, metric, seed, 100 * figures[metric])
            for row in rows
            for benchmark in row.benchmarks
            for seed in row.seeds
            if (result := find(row.finetune(seed, benchmark)))
            for name, splits in result.scores.baselines.items()
            for split, figures in splits.items()
            for metric in ABOUT[benchmark].shown
            if metric in figures
        ]
        keys = ["label", "name", *KEYS[1:3], "metric"]
        self._baselines = pd.DataFrame(told, columns=[*keys, "seed", "value"]).set_index([*keys, "seed"]).value
        plans: list[dict[str, Any]] = [
            {
                **dict(result.costs),
                "step_overhead": result.costs.overhead,
                "mode": result.costs.options.get("mode"),
                "label": row.label,
                "seed": seed,
                **_of_inputs(find(row.finetune(seed, row.benchmarks[0])) if row.benchmarks else None),
                **(WHOLE_COSTS if isinstance(row.special, Adapt) and row.special.rest == "dense" else {}),
            }
            for row in rows
            for seed in row.seeds
            if (result := find(row.compress(seed)))
            and (not _of_tuning(row) or find(row.finetune(seed, row.benchmarks[0])))
        ]
        self.costs = pd.DataFrame(plans, columns=COSTS).astype({"sparsity": float})
        keys = self.scores.index.to_frame()
        self._overall = self.scores[keys.type == ALL].droplevel("type")
        keys = self._overall.index.to_frame()
        main = keys.benchmark.map({name: about.shown[0] for name, about in ABOUT.items()})
        self._main = self._overall[keys.metric == main].droplevel("metric")

    @property
    def empty(self) -> bool:
        """Whether the store has no result of any of the rows."""
        return self.scores.empty and self.costs.empty

    def shown(self, row: Row) -> pd.DataFrame:
        """All figures over samples of every type: lines are (benchmark, split, metric), columns are seeds."""
        return self._overall[self._overall.index.get_level_values("label") == row.label].droplevel("label")

    def baselines(self, row: Row) -> dict[str, pd.DataFrame]:
        """What answers reach that see no picture, judged beside a row: name -> figures as in `shown`."""
        own = self._baselines[self._baselines.index.get_level_values("label") == row.label].droplevel("label")
        names = dict.fromkeys(own.index.get_level_values("name"))
        return {name: own.xs(name, level="name").unstack("seed", sort=False) for name in names}

    def main(self, row: Row) -> pd.DataFrame:
        """The main figure of every benchmark: lines are (benchmark, split), columns are seeds."""
        return self._main[self._main.index.get_level_values("label") == row.label].droplevel("label")

    def cost(self, row: Row) -> pd.DataFrame:
        """The costs of a row, one line per seed."""
        return self.costs[self.costs.label == row.label].set_index("seed")

    def trimmed(self, row: Row) -> pd.DataFrame:
        """What was kept of each input, per cent: a line a seed; empty for a row that trims nothing."""
        lines = {}
        for seed, result in self._tuned(row):
            if (found := result.scores.trimmed) is not None:
                parts = {
                    "tokens": found.tokens,
                    "heads": found.heads,
                    "flops": found.flops,
                    "cached": found.flops_cached,
                }
                lines[seed] = {
                    (name, what): 100 * getattr(part, what)
                    for name, part in parts.items()
                    for what in ("mean", "p10", "p90")
                }
        return pd.DataFrame.from_dict(lines, orient="index")

    def dual(self, row: Row) -> pd.DataFrame:
        """What a caption costs a dual encoder, shares and bytes: a line a seed; empty for a row of another kind."""
        lines = {}
        for seed, result in self._tuned(row):
            if result.scores.dual is not None:
                lines[seed] = dict(result.scores.dual)
        return pd.DataFrame.from_dict(lines, orient="index")

    def learns(self, row: Row) -> pd.Series:
        """Which share of the parameters that are there learns, of an adapted model, by seed."""
        known = {seed: result.scores.learns for seed, result in self._tuned(row) if result.scores.learns is not None}
        return pd.Series(known, dtype=float)

    def asked(self, row: Row) -> pd.DataFrame:
        """What is told of the captions that were made for a row: a line a seed; empty where none were."""
        known = {
            seed: dict(result.scores.asked) for seed, result in self._tuned(row) if result.scores.asked is not None
        }
        return pd.DataFrame.from_dict(known, orient="index")

    def draws(self, row: Row) -> pd.DataFrame:
        """Precision of every draw, per cent: a line for each look, a column (seed, draw); empty where none is."""
        found = {
            (seed, draw): {look: 100 * figures["draws"][draw] for look, figures in result.scores.splits.items()}
            for seed, result in self._tuned(row)
            if result.scores.learns is not None
            for draw in range(len(next(iter(result.scores.splits.values()))["draws"]))
        }
        return pd.DataFrame.from_dict(found)

    def _tuned(self, row: Row) -> Iterator[tuple[int, Result]]:
        """The fine-tunings on a row's first benchmark, by seed."""
        for benchmark in row.benchmarks[:1]:
            for seed in row.seeds:
                if (result := self.store.find(row.finetune(seed, benchmark))) is not None:
                    yield seed, result

    def dirt(self, rows: Sequence[Row]) -> str:
        """What the mark of some of these rows means, a line; nothing where none has it."""
        seeds = {row.name: map(str, self.dirty[row.label]) for row in rows if row.label in self.dirty}
        told = "; ".join(f"{name} (seed {', '.join(of)})" for name, of in seeds.items())
        return f"{DIRTY} {UNCOMMITTED}: {told}\n" if told else ""

    def difference(self, row: Row, reference: Row) -> pd.DataFrame:
        """Main figure of `row - reference` over the (benchmark, split) pairs and the seeds that both have."""
        return subtract(self.main(row), self.main(reference))


def _of_tuning(row: Row) -> bool:
    """What a row costs is known when it is fine-tuned, and not before."""
    return word_of(row.special) in ("trim", "dual") and not row.whole


def _of_inputs(tuned: Result | None) -> dict[str, Any]:
    """What of a compression's costs is otherwise where inputs are trimmed, or the model is a dual encoder."""
    if tuned is None:
        return {}
    if tuned.scores.dual is not None:
        return {"stored_ratio": tuned.scores.dual.stored, "flops_ratio": tuned.scores.dual.flops_new}
    return {} if tuned.scores.trimmed is None else {"flops_ratio": tuned.scores.trimmed.flops.mean}


def dense_of(row: Row) -> Row:
    """The dense model on the same benchmarks, after the same phases."""
    size = WHOLE if row.recovery else Size(sparsity=0.0)
    special: Special | None = Trim(tokens=1) if isinstance(row.special, Trim) else None
    if isinstance(row.special, Adapt):
        special = Adapt(shots=row.special.shots)
    same: dict[str, Any] = {"name": DENSE, "method": DENSE, "options": {}, "task": None, "size": size}
    return row.model_copy(update=same | {"special": special})


def undense(row: Row, store: Store) -> str:
    """Why a row has no difference to the dense model, and the command that makes what it lacks; a line."""
    seeds = " ".join(map(str, row.seeds))
    own = " --data DIR" if is_own(row.data) else ""
    command = f"snp run {shlex.quote(dense_of(row).label)} --seed {seeds}{own}{store.options(row.scale)}"
    return f"Δ dense is empty where the dense row is not there; `{command}` makes it"


def subtract(values: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    """`values - reference` over the lines and columns that both have."""
    lines = values.index.intersection(reference.index, sort=False)
    seeds = values.columns.intersection(reference.columns)
    return values.loc[lines, seeds] - reference.loc[lines, seeds]


def on(wide: pd.DataFrame, *benchmarks: Benchmark) -> pd.DataFrame:
    """The lines of these benchmarks alone."""
    return wide[wide.index.get_level_values("benchmark").isin(benchmarks)]


def over_benchmarks(wide: pd.DataFrame) -> pd.Series:
    """Mean over splits, then over benchmarks, per seed; a seed that lacks any of them, or all, is left out."""
    whole = wide.loc[:, wide.notna().all() & bool(len(wide))]
    return whole.groupby(level="benchmark", sort=False).mean().mean()


def unmeasured(what: str, table: str, store: Store, scale: Scale) -> InputError:
    """Says that a store holds no results of `what`, and how to come by some: nothing is not rendered as if it were."""
    if checkout() is None and store.root == Store.at(scale).root and not store.root.is_dir():
        problem = "no such folder, as an installation brings no results"
        return InputError(store.root, problem, "give a folder of runs with --out, or work in a checkout")
    command = f"snp run {table}{store.options(scale)}" + (f" {NEEDED}" if scale == "paper" else "")
    return InputError(store.root, f"holds no results of {what}", f"`{command}` makes them")


def _dirty(results: Sequence[Result | None]) -> bool:
    """Whether it is so of a row and seed that has results of its own."""
    there = [result for result in results if result is not None]
    own = any(result.run.kind != "pretrain" for result in there)
    return own and any(result.manifest.get("dirty") is True for result in there)


def _lines(result: Result, benchmark: Benchmark) -> Iterator[tuple[str, str, str, float]]:
    """Split, type, metric and value of every score, in reading order (JSON files are sorted by key)."""
    about = ABOUT[benchmark]
    for prefix, splits in (("", result.scores.splits), (ZERO_SHOT, result.scores.zero_shot)):
        for split in _ordered(splits, about.splits):
            parts = {ALL: splits[split], **splits[split].get("by_type", {})}
            for kind in _ordered(parts, (ALL, *about.task.types)):
                for metric in about.task.figures:
                    if parts[kind].get(metric) is not None:
                        yield split, kind, prefix + metric, parts[kind][metric]


def _ordered(names: dict[str, Any], first: tuple[str, ...]) -> list[str]:
    return [name for name in first if name in names] + sorted(set(names) - set(first))
