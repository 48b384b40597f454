"""What commands have in common: their options, and where runs, results and data are that they mean."""

import shlex
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Literal

import tyro
from pydantic import BeforeValidator, Field, PositiveInt
from tyro.conf import Positional

from snp.errors import InputError
from snp.experiment.labels import find
from snp.experiment.places import own_name
from snp.experiment.rows import Row
from snp.experiment.spec import DRAWN, REAL, Data, Run, Scale, Seed, is_own
from snp.experiment.tables import select
from snp.flags import App, Named
from snp.runs import inventory
from snp.runs.begun import meant
from snp.runs.present import present
from snp.runs.result import runs_in
from snp.runs.store import Store
from snp.training.setup import Setup, Towers

Published = Literal["refcoco", "refcoco+", "refcocog", "grefcoco", "gqa", "flickr30k", "coco", "mixed"]
app = App()
Format = Literal["text", "markdown", "csv", "latex", "html", "json"]


def _by_comma(values: object) -> object:
    """Numbers apart, whether blanks or commas stand between them."""
    return tuple(part for text in values for part in str(text).split(",")) if isinstance(values, tuple) else values


Table = Annotated[str, tyro.conf.arg(help="which table, as table1"), Positional]
SCALES = "smoke runs in minutes and says nothing, desk fits two cores, paper is of full size"
AtScale = Annotated[Scale, tyro.conf.arg(help=SCALES)]
OF_RUNS = "as of `snp run`; default: that of the runs in --out, else desk"
ScaleOfRuns = Annotated[Scale | None, tyro.conf.arg(help=OF_RUNS)]
SETS = f"{', '.join(DRAWN)}, {REAL}, or the folder of your own"
OneData = Annotated[str | None, tyro.conf.arg(help=f"{SETS}; default: all of the table")]
FOLDER = "folder of the runs; default: results/<scale>"
Out = Annotated[Named | None, tyro.conf.arg(help=FOLDER)]
Seeds = Annotated[
    tuple[Seed, ...],
    BeforeValidator(_by_comma),
    tyro.conf.arg(help="one or more, as 0 1 2 or 0,1,2; default: all seeds of a row", aliases=("--seeds",)),
]
OneSeed = Annotated[Seed, tyro.conf.arg(help="one of the row's, or any other", aliases=("--seeds",))]
Workers = Annotated[PositiveInt, tyro.conf.arg(help="runs at a time, each on one thread")]
DryRun = Annotated[bool, tyro.conf.arg(help="only list what would be run")]
Plugin = Annotated[tuple[Named, ...], tyro.conf.arg(help="Python files with methods of your own")]
OfRuns = Annotated[Setup, tyro.conf.OmitArgPrefixes]


class Submitted(Setup):
    """Which runs a command asks SLURM about."""

    scale: Scale | None = Field(None, description=OF_RUNS)
    out: Named | None = Field(None, description=FOLDER)

    @property
    def found(self) -> tuple[Scale, Store]:
        """Their scale, and where they are."""
        return results_at(self.scale, self.out, self)


class Results(Towers):
    """Which results a command shows."""

    scale: Scale | None = Field(None, description=OF_RUNS)
    out: Named | None = Field(None, description=FOLDER)
    plugin: tuple[Named, ...] = Field((), description="Python files with methods of your own")

    @property
    def found(self) -> tuple[Scale, Store]:
        """Their scale, and where they are; methods of a user's own are known from then on."""
        use_plugins(self.plugin)
        return results_at(self.scale, self.out, self)


OfResults = Annotated[Results, tyro.conf.OmitArgPrefixes]
OfSubmitted = Annotated[Submitted, tyro.conf.OmitArgPrefixes]


def use_plugins(plugin: Sequence[Path]) -> None:
    """Methods of a user's own, for commands that otherwise need none: they are loaded when a name asks for them."""
    if plugin:
        import_module("snp.compression.plugins").use(plugin)


def first_line(function: Callable[..., object]) -> str:
    """The first sentence of what a function says of itself."""
    return " ".join((function.__doc__ or "").split("\n\n")[0].split()).rstrip(".")


def shortened(path: Path) -> str:
    """A path as one would write it in the working folder."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_absolute() and path.is_relative_to(here) else path)


def new_file(name: str, option: str = "--png") -> Path:
    """A picture or page in the working folder that nobody named: it takes the place of none that is there."""
    if (path := Path(name)).exists():
        raise InputError(path, "is there already", f"{option} {name} replaces it, {option} FILE leaves it")
    return path


def flags(**given: object) -> str:
    """Flags as they are written behind a command, but for those that were not given."""
    named = {f"--{name.replace('_', '-')}": value for name, value in given.items() if value is not None}
    return "".join(f" {flag} {shlex.quote(str(value))}" for flag, value in named.items())


def starting(rows: list[Row], towers: Towers) -> list[Row]:
    """The rows, their dense models starting from the weights that are named."""
    weights = towers.weights
    return [row.starting(weights) for row in rows]


def runs_of(table: str, scale: Scale, data: str | None, seeds: Sequence[int], store: Store) -> list[Run]:
    """All runs of a table's rows in a store, each once, parents first; of some seeds, or of all."""
    chosen = meant(select(table, scale, known_data(data, store)), store)
    return list(dict.fromkeys(run for row in chosen for seed in seeds or row.seeds for run in row.runs(seed)))


def own_data(data: str | None, setup: Setup) -> tuple[Data | None, Setup]:
    """The name of the data that are named, and where a user's own are. One of those known here is known by its name.

    Raises:
        InputError: no data set and no folder, or one that cannot be a user's own.
    """
    if data is None or not is_own(data):
        return data, setup
    return own_name(Path(data)), setup.model_copy(update={"data_root": Path(data)})


def known_data(data: str | None, store: Store) -> Data | None:
    """As `own_data`, for results alone: a user's own, of which there are runs, may be named without their folder."""
    if data is None or not is_own(data) or any(run.data == data for _, run in runs_in(store.root)):
        return data
    return own_name(Path(data))


def heeded(setup: Setup, data: set[Data]) -> None:
    """Refuses an option that no run on these data heeds."""
    of_real = {"--data-root": setup.data_root, "--shortest": setup.shortest, "--loaders": setup.loaders}
    for option, given in of_real.items():
        if given is not None and data <= {*DRAWN}:
            problem = f"is of published benchmarks, but {' and '.join(sorted(data))} are drawn"
            raise InputError(option, problem, "leave it out, add --scale paper, or name your own with --data")


def store_for(scale: Scale, out: Path | None, setup: Towers) -> Store:
    """Where the runs are: the committed results, or a folder of one's own that borrows their dense checkpoint.

    Trials are apart from both, each in a folder of its own.
    """
    if out is not None and out.exists() and not out.is_dir():
        raise InputError(f"--out {out}", "is no folder", "name one, or a new one")
    if isinstance(setup, Setup) and setup.trial is not None:
        return Store((out or inventory.TRIALS) / setup.trial.name, trial=setup.trial, weights=setup.named)
    kept = Store.at(scale)
    return Store(out or kept.root, base=kept if out else None, weights=setup.named)


def results_at(scale: Scale | None, out: Path | None, setup: Towers = Towers()) -> tuple[Scale, Store]:
    """As `store_for`, for commands that only read: a folder that is named is there, and what is left out is said.

    The scale is the one that is named, else that of the runs in `--out` where they have one in common, else desk.
    """
    scale = scale or (inventory.scale_of(out) if out is not None else None) or "desk"
    if out is not None and not out.is_dir():
        problem = "is no folder" if out.exists() else "no such folder"
        raise InputError(f"--out {out}", problem, f"without --out it is {Store.at(scale).root}")
    store = store_for(scale, out, setup)
    if trials := sorted(path.name for path in store.root.glob("trial-*/")):
        print(f"snp: left out, as trials say nothing: {', '.join(trials)} in {store.root}", file=sys.stderr)
    return scale, store


def rows_of_labels(labels: Sequence[str], scale: Scale, store: Store) -> list[Row]:
    """The rows of these labels, with the seeds and benchmarks that are in the store, planned or not."""
    there = {row.label: row for row in reversed(present(store))}
    return [there.get(label) or find(label, scale) for label in labels]


def run_them(
    rows: list[Row],
    seeds: tuple[int, ...] | None,
    store: Store,
    workers: int,
    dry_run: bool,
    setup: Setup = Setup(),
) -> None:
    """Run what is missing, and say what was found; or only say what is missing."""
    from snp.launch.runner import planned, run_rows

    if dry_run:
        todo = planned(rows, seeds, store)
        print("\n".join(f"{store.state(spec):10}  {spec.slug}" for spec in todo) or "nothing to do: all runs are done")
        return

    def tell() -> None:
        from snp.report.ending import ending

        scale = rows[0].scale
        ran = [row if seeds is None else row.model_copy(update={"seeds": seeds}) for row in rows]
        print(f"\n{ending(ran, store, Store.at(scale), scale)}", end="")

    run_rows(rows, seeds, store, workers=workers, setup=setup, at_end=tell)
