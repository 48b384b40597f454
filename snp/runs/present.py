"""The rows that the runs of a folder are of, whether a table has them or not."""

from collections.abc import Iterable, Mapping, Sequence

from snp.asking.augment import Augment
from snp.compression.aliases import ALIASES, Given, named
from snp.errors import InputError
from snp.experiment.benchmarks import ABOUT, Benchmark
from snp.experiment.rows import DENSE, Row, make
from snp.experiment.spec import Compress, Finetune, Pretrain, Run
from snp.models.distill import Distill
from snp.runs.store import Store
from snp.trimming.trim import Trim

How = tuple[Trim | None, Distill | None, Augment | None]
"""What is special in a fine-tuning."""
PLAIN: How = (None, None, None)


def present(store: Store) -> list[Row]:
    """The rows that the runs of a folder are of, planned or not, each with the seeds and benchmarks that are there.

    Raises:
        InputError: runs of several scales, which have no table in common.
    """
    runs = [result.run for result in store.results()]
    compressions = [run for run in runs if isinstance(run, Compress)]
    judged: dict[How, dict[Compress, set[Benchmark]]] = {PLAIN: {}}
    for run in runs:
        if isinstance(run, Finetune):
            judged.setdefault(_how(run), {}).setdefault(run.parent, set()).add(run.benchmark)
    compressions += [run for tuned in judged.values() for run in tuned]
    scales = {run.scale for run in compressions}
    if len(scales) > 1:
        raise InputError(store.root, f"holds runs of several scales ({', '.join(sorted(scales))})", "say --scale")
    others = {run for how, tuned in judged.items() if how != PLAIN for run in tuned}
    plain = [run for run in compressions if run in judged[PLAIN] or run not in others]
    rows = [
        _row_of(members, tuned, how)
        for how, tuned in judged.items()
        for members in _alike(plain if how == PLAIN else tuned)
    ]
    return [_among(row, rows) if row.method == DENSE and _how(row) == PLAIN else row for row in rows]


def _how(of: Row | Finetune) -> How:
    return of.trim, of.dual, of.augment


def _among(dense: Row, rows: Sequence[Row]) -> Row:
    """The dense row in the first group that it goes with, as in tables."""

    def phase(row: Row) -> tuple[str, str, bool, int]:
        return row.data, row.model, row.recovery, row.times

    others = [row for row in rows if row.method != DENSE and row.of]
    first = next((row for row in others if phase(row) == phase(dense)), dense)
    return dense.model_copy(update={"group": first.group, "of": first.of})


def label_of(run: Run) -> str:
    """The label of the row that a run is of; of a dense model, which all rows start from, its data and model."""
    if isinstance(run, Pretrain):
        return f"{run.data}/{run.model}"
    compression = run.parent if isinstance(run, Finetune) else run
    if isinstance(run, Finetune):
        return _row_of([compression], {compression: {run.benchmark}}, _how(run)).label
    return _row_of([compression], {}).label


def _alike(compressions: Iterable[Compress]) -> list[list[Compress]]:
    """Compressions that differ by their seed alone, the dense model first."""
    found: dict[Compress, dict[Compress, None]] = {}
    for run in compressions:
        found.setdefault(run.model_copy(update={"seed": 0}), {})[run] = None
    order = sorted(found, key=lambda run: (run.data, run.model, run.method != DENSE))
    return [sorted(found[run], key=lambda run: run.seed) for run in order]


def _row_of(members: list[Compress], judged: Mapping[Compress, set[Benchmark]], how: How = PLAIN) -> Row:
    first = members[0]
    benchmarks = tuple(name for name in ABOUT if any(name in judged.get(run, ()) for run in members))
    name = _name(first.method, first.options)
    row = make(
        first.scale,
        first.data,
        name.split(",")[0],
        model=first.model,
        benchmarks=benchmarks,
        seeds=tuple(run.seed for run in members),
        recovery=first.recovery,
        times=first.times,
        task=first.task,
        size=first.size,
        trim=how[0],
        dual=how[1],
        augment=how[2],
    )
    own = {"name": name, "method": first.method, "options": first.options, "size": first.size}
    return row.model_copy(update=own).starting(first.parent.weights)


def _name(method: str, options: Given) -> str:
    """The shortest name of a method with options: an alias where one stands for some of them."""
    fitting = [
        (alias, preset)
        for alias, (of, preset) in ALIASES.items()
        if of == method and preset and preset.items() <= options.items()
    ]
    plain = [alias for alias, known in ALIASES.items() if known == (method, {})]
    own = plain[0] if len(plain) == 1 else method  # several names of the same say what it was compressed for
    alias, preset = max(fitting, key=lambda pair: len(pair[1]), default=(own, {}))
    return named(alias, {key: value for key, value in options.items() if key not in preset})
