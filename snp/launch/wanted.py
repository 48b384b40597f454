"""Models that are asked for: whether they are there, and the command that makes those that are not."""

from collections.abc import Sequence
from pathlib import Path

from snp.compression.checkpoint import WEIGHTS
from snp.errors import InputError
from snp.experiment.places import NEEDED
from snp.experiment.spec import Pretrain, Run, dense_of
from snp.experiment.tables import TABLES
from snp.experiment.tables import rows as rows_of
from snp.runs.result import run_of
from snp.runs.store import Store


def check_models(store: Store, runs: Sequence[Run], again: str) -> None:
    """Whether the models of these runs, of one scale and seed, are there, and not only their results.

    What is not done, `snp run` does where it is asked for. But a run whose result is there counts as done, as in a
    checkout, which holds hardly a model: the command that makes its model does it in another folder.

    Args:
        again: what to do then, with FOLDER for the folder of the runs.

    Raises:
        InputError: names the first run without a model, and the command.
    """
    without = [run for run in runs if not store.has_weights(run)]
    if not without:
        return
    first, kept = without[0], Store.at(without[0].scale)
    only_result = any(store.state(run) == "done" for run in without)
    problem = "only its result is there, not its model" if store.state(first) == "done" else "its model is not there"
    problem += f", and so it is with {len(without) - 1} more" if without[1:] else ""
    if isinstance(first, Pretrain) and kept.has_weights(first):
        raise InputError(store.folder(first), problem, f"it is in {kept.folder(first)}")
    folder = "FOLDER" if only_result else str(store.root)
    options = "" if first.scale == "desk" else f" --scale {first.scale}"
    options += f" {NEEDED}" if first.scale == "paper" else ""
    if only_result or store.root.resolve() != kept.root.resolve():
        options += f" --out {folder}"
    labels = " ".join(dict.fromkeys(map(_label, runs if only_result else without)))
    hint = f"`snp run {labels} --seed {first.seed}{options}`, then {again.replace('FOLDER', folder)}"
    raise InputError(store.folder(first), problem, hint)


def check_folder(folder: Path) -> None:
    """Whether a run left its model in this folder.

    Raises:
        InputError: it did not; as in `check_models` where the folder tells which run it is of.
    """
    if not folder.is_dir():
        raise InputError(folder, "no such folder", "name the folder of a finished run, as results/desk/<run>")
    if (folder / WEIGHTS).exists():
        return
    if (run := run_of(folder)) is not None:
        check_models(Store(folder.parent), [run], f"name FOLDER/{run.slug}")
    raise InputError(folder, "holds no model", "name the folder of a finished run, as results/desk/<run>")


def _label(run: Run) -> str:
    """A row that has this run."""
    known = (row for table in TABLES for row in rows_of(table, run.scale))
    weights = dense_of(run).weights
    return next((row.label for row in known if run in row.starting(weights).runs(run.seed)), "ROW")
