"""The command `snp`: runs, tables, claims, figures and data. Bad input is one line on stderr and exit code 2.

Heavy parts are imported by the command that needs them: rendering a table never loads torch.
"""

import os
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from textwrap import fill
from typing import Annotated, Any, Literal, NoReturn, get_args

import tyro
from pydantic import BeforeValidator, NonNegativeInt, PositiveInt
from tyro.conf import Positional

from snp import __version__
from snp.errors import InputError
from snp.experiment.begun import meant
from snp.experiment.inventory import EXPORTS, REPRODUCED, TRIALS
from snp.experiment.labels import find, find_own, present
from snp.experiment.places import NEEDED, own_name
from snp.experiment.resources import Resources
from snp.experiment.rows import DENSE, Row
from snp.experiment.spec import DRAWN, REAL, Data, Model, Scale, Seed, dense, is_own
from snp.experiment.store import AnyRun, Store, mendable, run_of, runs_in
from snp.experiment.tables import TABLES, reproduced, select
from snp.experiment.tables import rows as rows_of
from snp.files import read_text
from snp.flags import CONFIG, App, Named, registry
from snp.launch.cleaning import Kind
from snp.terminal import lenient, progress
from snp.training import stopping
from snp.training.setup import Setup, Towers

Published = Literal["refcoco", "refcoco+", "refcocog", "gqa", "flickr30k", "coco", "mixed"]
app = App()
Format = Literal["text", "markdown", "csv", "latex", "html", "json"]


def _by_comma(values: object) -> object:
    """Numbers apart, whether blanks or commas stand between them."""
    return tuple(part for text in values for part in str(text).split(",")) if isinstance(values, tuple) else values


Table = Annotated[str, tyro.conf.arg(help="which table, as table1"), Positional]
SCALES = "smoke runs in minutes and says nothing, desk fits two cores, paper is of full size"
Size = Annotated[Scale, tyro.conf.arg(help=SCALES)]
SizeOfRuns = Annotated[
    Scale | None, tyro.conf.arg(help="as of `snp run`; default: that of the runs in --out, else desk")
]
SETS = f"{', '.join(DRAWN)}, {REAL}, or the folder of your own"
OneData = Annotated[str | None, tyro.conf.arg(help=f"{SETS}; default: all of the table")]
Out = Annotated[Named | None, tyro.conf.arg(help="folder of the runs; default: results/<scale>")]
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
OfTowers = Annotated[Towers, tyro.conf.OmitArgPrefixes]


def main(arguments: list[str] | None = None) -> None:
    """Run one command; the entry point of the console script."""
    lenient()
    if (sys.argv[1:] if arguments is None else arguments) == ["--version"]:
        print(f"snp {__version__}")
        return
    with stopping.ending():
        try:
            about = "Jointly share and prune the weights of vision-language models: runs, tables, figures, data."
            app.cli(prog="snp", description=about, args=arguments, registry=registry, config=CONFIG)
        except InputError as error:
            _refuse(error)
        except BrokenPipeError:  # the reader, as `head`, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except OSError as error:
            if (mended := mendable(error)) is None and error.filename is None:
                raise
            _refuse(mended or InputError(error.filename2 or error.filename, error.strerror or str(error)))


def _refuse(error: InputError) -> NoReturn:
    print("snp:", " ".join(str(error).split()), file=sys.stderr)
    sys.exit(2)


@app.command
def rows(
    table: Annotated[str, tyro.conf.arg(help="which table, as table1; none: the tables are listed"), Positional] = "",
    scale: SizeOfRuns = None,
    data: OneData = None,
    out: Out = None,
    towers: OfTowers = Towers(),  # noqa: B008 - frozen
) -> None:
    """List the rows of a table: label, state of every seed, and the time that is left to run; or the tables."""
    from pandas import DataFrame

    from snp.report.fitted import fitted, width

    if not table:
        tables = [
            {"table": name, "rows": str(len(of(scale or "desk"))), "what": _first(of)} for name, of in TABLES.items()
        ]
        print(fitted(DataFrame(tables), "Tables (`snp rows TABLE` lists the rows of one):", width(), ["what"]), end="")
        return
    scale = _scale(scale, out)
    store = _results(scale, out, towers)
    chosen = meant(select(table, scale, _known(data, store)), store)
    costs = _mean_seconds(store)
    lines = [
        {"row": row.label, "removed": DENSE if row.method == DENSE else row.group, "main": "yes" if row.main else ""}
        | {f"seed {seed}": state for seed, state in zip(row.seeds, _states(row, store), strict=True)}
        | {"time left": _left([row], row.seeds, store, costs)}
        for row in chosen
    ]
    frame = DataFrame(lines).fillna("")
    print(fitted(frame, f"Rows of {table} in {_short(store.root)}:", width()), end="")
    note = "@60: 60% of all parameters are kept. Time: mean of finished runs of the same kind; ?: none yet."
    print(f"\n{fill(note, width())}")


@app.command
def run(
    row: Annotated[
        tuple[str, ...],
        tyro.conf.arg(help="labels as `snp rows` prints them, for example scenes/snp@60, or a table: all its rows"),
        Positional,
    ],
    seed: Seeds = (),
    scale: Size = "desk",
    data: Annotated[Named | None, tyro.conf.arg(help="folder of your own: rows are run on it")] = None,
    keep: Annotated[float | None, tyro.conf.arg(help="share of all parameters to keep, in (0, 1]")] = None,
    option: Annotated[tuple[str, ...], tyro.conf.arg(help="of the method, as block=4; several: block=4 every=8")] = (),
    out: Out = None,
    workers: Workers = 2,
    dry_run: DryRun = False,
    setup: OfRuns = Setup(),  # noqa: B008 - frozen
) -> None:
    """Run what is missing or incomplete of rows: pre-training, compression, fine-tuning.

    With --steps it is a trial: it is kept apart, below --out or .runs, in a folder of its own, and counts nowhere.
    """
    setup.bring()
    if not row:
        raise InputError("snp run", "names no row", "see `snp rows table1`, or run all: `snp run table1`")
    if keep is not None and (tables := TABLES.keys() & {*row}):
        raise InputError("--keep", f"does not go with a whole table ({min(tables)})", "name a row")
    if option and (tables := TABLES.keys() & {*row}):
        raise InputError("--option", f"does not go with a whole table ({min(tables)})", "name a row")
    own, setup = _own_data(None if data is None else str(data), setup)
    if data is not None and (own is None or not is_own(own)):
        raise InputError(f"--data {data}", "is no folder of your own", f"write it into labels, as {data}/snp@60")
    chosen = [
        found
        for name in row
        for found in (
            select(name, scale, own)
            if name in TABLES
            else [find(name, scale, keep, option) if own is None else find_own(name, own, scale, keep, option)]
        )
    ]
    _heeded(setup, {found.data for found in chosen})
    setup.look_for_weights(scale)
    store = _store(scale, out, setup)
    _run(_starting(chosen, setup), seed or None, store, workers, dry_run, setup)


@app.command
def reproduce(
    table: Table,
    scale: Size = "desk",
    data: Annotated[str | None, tyro.conf.arg(help=f"{SETS}; default: the first of the table")] = None,
    seed: OneSeed = 0,
    out: Annotated[Named | None, tyro.conf.arg(help="default: .reproduce/<scale>")] = None,
    workers: Workers = 2,
    dry_run: DryRun = False,
    from_results: Annotated[bool, tyro.conf.arg(help="run nothing, only render the committed results")] = False,
) -> None:
    """Run the main rows of a table's first group afresh, one seed; print them beside the committed ones."""
    from snp.report.table import table as render

    committed = Store.at(scale)
    if from_results:
        if out is not None:
            raise InputError("--out", "does not go with --from-results", f"`snp table {table} --out {out}` renders it")
        print(render(table, committed, scale, data), end="")
        return
    if scale == "paper":
        mend = f"`snp run {table} --scale paper {NEEDED}` runs all rows on published benchmarks"
        raise InputError("--scale paper", "is not for a reproduction of one seed", mend)
    data, setup = _own_data(data, Setup())
    chosen = [row.model_copy(update={"seeds": (seed,)}) for row in reproduced(select(table, scale, data))]
    _run(chosen, (seed,), Store(out or REPRODUCED / scale, base=committed), workers, dry_run, setup)


@app.command
def launch(
    table: Table,
    scale: Size = "desk",
    cluster: Annotated[
        Literal["slurm", "local", "debug"], tyro.conf.arg(help="who runs the jobs: SLURM, or a process of this machine")
    ] = "slurm",
    seed: Seeds = (),
    data: OneData = None,
    out: Out = None,
    array_parallelism: Annotated[
        PositiveInt | None, tyro.conf.arg(help="elements of an array at a time; default: 256; local: runs at a time, 2")
    ] = None,
    chains: Annotated[
        bool, tyro.conf.arg(help="a compression and its fine-tunings are one job: for runs shorter than their start")
    ] = False,
    dry_run: Annotated[bool, tyro.conf.arg(help="print every sbatch script; needs no SLURM")] = False,
    wish: Annotated[Resources, tyro.conf.OmitArgPrefixes] = Resources(),  # noqa: B008 - frozen
    setup: OfRuns = Setup(),  # noqa: B008 - frozen
) -> None:
    """Submit what is missing or incomplete of a table, a job for each run, and neither done nor queued.

    Where data are to be drawn first, a job of its own does it.

    local: one process of this machine does it all and outlives this one; debug: this process does it.
    """
    from tabulate import tabulate

    from snp.experiment.submitted import launching
    from snp.launch.runner import look_for_data, planned, undrawn
    from snp.launch.slurm import array_limit
    from snp.launch.status import live, statuses
    from snp.launch.submit import Array, Draw, Launch, arrays, look_for_slurm, resources
    from snp.launch.work import Place

    setup.bring()
    given = data
    data, setup = _own_data(data, setup)
    chosen, only = select(table, scale, data), seed or None
    _heeded(setup, {row.data for row in chosen})
    setup.look_for_weights(scale)
    chosen = _starting(chosen, setup)
    store, slurm = _store(scale, out, setup), cluster == "slurm"
    if chains and not slurm:
        raise InputError("--chains", f"is not of --cluster {cluster}, where one process does all", "leave it out")
    jobs = Launch(store, Place.of(store, setup), array_parallelism or (256 if slurm else 2))
    todo = planned(chosen, only, store)
    if todo and not dry_run:
        look_for_slurm(store) if slurm else setup.look_for_device()
    with nullcontext() if dry_run or not todo else launching(store):
        queued = live(statuses(todo, store))
        left = [run for run in todo if run.slug not in queued]
        if not left:
            others = f"{len(queued)} runs are queued or running, all others are done" if queued else "all runs are done"
            print(f"nothing to submit: {others}")
            if dry_run and not queued:
                where = {"scale": None if scale == "desk" else scale, "data": given, "out": "NEW-FOLDER"}
                print(f"the scripts of a folder without runs: snp launch {table} --dry-run{_flags(**where)}")
            return
        asked: list[Array | Draw] = []
        if dry_run or slurm:
            asked += [Draw.of(run, wish) for run in undrawn(left)]
            asked += arrays(resources(chosen, todo, wish), queued, array_limit(), chains)
            jobs.look_at_time(asked)
        if dry_run:
            print("\n\n".join(jobs.dry(asked, queued)))
            return
        look_for_data(left, setup)
        same = _flags(
            scale=scale, seed=",".join(map(str, seed)) or None, data=given, out=out, steps=setup.steps,
            batch=setup.batch, shortest=setup.shortest, vision_weights=setup.vision_weights,
            text_weights=setup.text_weights,
        )  # fmt: skip
        if cluster == "debug":
            jobs.debug(left)
        elif cluster == "local":
            print(f"process {jobs.local(chosen, only, left).job}: {len(left)} runs; see `snp status {table}{same}`")
        else:
            lines = []
            head = ["job", "name", "runs", "time", "memory", "GPUs", "waits for"]
            try:
                for array, record, waits in jobs.slurm(asked, queued):
                    of = array.resources
                    runs = len(record.runs.keys() & {run.slug for run in left})
                    lines.append([record.job, array.name, runs, of.time, of.mem, of.gpus or 0, waits or ""])
            finally:
                if lines:
                    print(tabulate(lines, head, disable_numparse=True))
                    print(f"\nsee `snp status {table}{same}`")


@app.command
def status(
    table: Table,
    scale: SizeOfRuns = None,
    seed: Seeds = (),
    data: OneData = None,
    out: Out = None,
    setup: OfRuns = Setup(),  # noqa: B008 - frozen
) -> None:
    """List the runs of a table: done, running, queued or failed, and why; from SLURM and from the run folders."""
    from pandas import DataFrame

    from snp.launch.slurm import Job, slurm_jobs
    from snp.launch.status import statuses, summary
    from snp.report.fitted import fitted, width

    def ask(jobs: set[str]) -> dict[str, Job]:
        try:
            return slurm_jobs(jobs)
        except InputError as error:
            print("snp: only what the run folders say:", " ".join(str(error).split()), file=sys.stderr)
            return {}

    scale = _scale(scale, out)
    store = _results(scale, out, setup)
    found = statuses(_runs(table, scale, data, seed, store), store, ask)
    lines = [
        {"run": one.run.name, "state": one.state, "job": one.job, "steps": one.progress, "reason": one.reason[:100]}
        for one in found
    ]
    frame = DataFrame([{name: text or "" for name, text in line.items()} for line in lines])
    told = frame.loc[:, (frame != "").any()]
    title = f"Runs of {table} in {_short(store.root)}:"
    print(fitted(told, title, width(), folds=["run", "reason"]))
    print(summary(found))


@app.command
def cancel(
    table: Table,
    scale: SizeOfRuns = None,
    seed: Seeds = (),
    data: OneData = None,
    out: Out = None,
    setup: OfRuns = Setup(),  # noqa: B008 - frozen
) -> None:
    """End the queued and running jobs of a table; what runs saves its state first, and goes on when launched again."""
    from snp.launch.status import cancel as end
    from snp.launch.status import statuses

    scale = _scale(scale, out)
    store = _results(scale, out, setup)
    ended = end(statuses(_runs(table, scale, data, seed, store), store), store)
    for one in ended:
        print(f"cancelled: {one.run.name} (job {one.job}, {one.state})")
    if not ended:
        print("nothing to cancel: no job of these runs is queued or running")


@app.command
def pretrain(
    scale: Size = "desk",
    data: Annotated[str | None, tyro.conf.arg(help=f"{SETS}; default: that of the scale's rows")] = None,
    model: Annotated[Model, tyro.conf.arg(help="which of the two grounding models")] = "mdetr",
    out: Out = None,
    threads: Annotated[PositiveInt, tyro.conf.arg(help="compute threads; another number gives other sums")] = 1,
    setup: OfRuns = Setup(),  # noqa: B008 - frozen
) -> None:
    """Train the dense model that all rows start from, unless its result is there already."""
    from snp.launch.runner import advancing, captions, make_data

    data, setup = _own_data(data or rows_of("table1", scale)[0].data, setup)
    if is_own(data) and model != "mdetr":
        raise InputError(f"--model {model}", "does not go with data of your own, which have expressions alone")
    _heeded(setup, {data})
    setup.look_for_weights(scale)
    spec, store = dense(scale, data, model, setup.weights), _store(scale, out, setup)
    with advancing(lambda: [] if store.state(spec) == "done" else [spec], store):
        from snp import ranks

        with ranks.together():
            first = ranks.rank() == 0
            if ranks.once(lambda: store.state(spec)) != "done":
                setup.look_for_device()
                import_module("torch").set_num_threads(threads)
                make_data([spec], setup)
                total = captions(spec, setup)
                look = {"unit": "caption", "unit_scale": True, "smoothing": 0.05, "disable": not first}
                with progress(total=total, desc=spec.name, **look) as bar:
                    import_module("snp.training.stages").run(spec, store, bar.update, setup)
            if first:
                print(f"done: {store.folder(spec)}")


@app.command
def params(
    scale: Size = "paper",
    model: Annotated[Model, tyro.conf.arg(help="which of the two grounding models")] = "mdetr",
) -> None:
    """Print where a model's parameters are, dense and at the paper's sizes; its weights are not made."""
    print(import_module("snp.bench.params").table(scale, model))


@app.command
def methods(plugin: Plugin = ()) -> None:
    """List the compression methods, and the names of rows that are one of them with options."""
    from snp.compression import plugins
    from snp.compression.aliases import ALIASES, TICKETS
    from snp.compression.registry import methods as registered
    from snp.report.fitted import width

    plugins.use(plugin)
    found = [(name, cls, cls.summary) for name, cls in registered().items()]
    for name, (method, options) in ALIASES.items():
        told = ", ".join([method, *(f"{option}={value}" for option, value in options.items())])
        ticket = f": {TICKETS[name]}" if name in TICKETS else ""
        found.append((name, registered()[method], f"the same as {told}{ticket}"))
    for name, cls, summary in found:
        modes = f" (modes: {', '.join(cls.modes())})" if cls.modes() else ""
        print(f"{name}  {cls.kind}, {cls.stage}{modes}")
        print(fill(f"{summary}. From: {cls.source}", width(), initial_indent="    ", subsequent_indent="    "))


@app.command
def new_method(
    name: Annotated[str, tyro.conf.arg(help="of the method, as my-method"), Positional],
    folder: Annotated[Named, tyro.conf.arg(help="where the file is written")] = Path(),
) -> None:
    """Write the beginning of a method of your own: a file that works as it stands."""
    from snp.compression.template import begin

    path = begin(name, folder)
    print(f"{path}\n\nsnp check-method {name} --plugin {path}\nsnp run scenes/{name}@60 --plugin {path} --scale smoke")


@app.command
def check_method(
    name: Annotated[str, tyro.conf.arg(help="of the method"), Positional],
    plugin: Plugin = (),
) -> None:
    """Run the tests that every method must pass on one of them: budget, seeds, types, copies, errors."""
    from snp.checkout import checkout
    from snp.compression import plugins
    from snp.compression.registry import get

    plugins.use(plugin)
    get(name)
    if (home := checkout()) is None:
        raise InputError("snp check-method", "needs the tests, which an installation does not bring", "use a checkout")
    pytest = import_module("pytest")
    verdicts: dict[str, bool] = {}

    class Count:
        def pytest_runtest_logreport(self, report: Any) -> None:
            """A test is passed when its preparation, itself and what follows are."""
            verdicts[report.nodeid] = verdicts.get(report.nodeid, True) and not report.failed

    shown = ["-q", "--disable-warnings"]  # with the -q of pyproject.toml: failures alone, and no count of others
    code = pytest.main([f"--rootdir={home}", *shown, "-k", name, str(home / "tests" / "test_contract.py")], [Count()])
    failed = [test.rpartition("::")[2] for test, passed in verdicts.items() if not passed]
    if failed:
        print(f"{name} fails {len(failed)} of {len(verdicts)} contract tests: {', '.join(failed)}")
    elif not code:
        print(f"\n{name} passes all {len(verdicts)} contract tests")
    sys.exit(int(code))


@app.command
def table(
    table: Annotated[
        tuple[str, ...],
        tyro.conf.arg(help="one table, as table1, or labels of rows; none: all runs that are in --out"),
        Positional,
    ] = (),
    scale: SizeOfRuns = None,
    data: OneData = None,
    format: Annotated[Format, tyro.conf.arg(help="text is fitted to the terminal, the others hold all of it")] = "text",
    out: Out = None,
    plugin: Plugin = (),
    towers: OfTowers = Towers(),  # noqa: B008 - frozen
) -> None:
    """Print a table from results alone: fitted to the terminal, or in a format that holds all of it."""
    from snp.report.frame import Measured, unmeasured
    from snp.report.table import render
    from snp.report.table import table as of_table

    _use(plugin)
    scale = _scale(scale, out)
    store = _results(scale, out, towers)
    if len(table) == 1 and table[0] in TABLES:
        print(of_table(table[0], store, scale, _known(data, store), format), end="")
        return
    if not table and out is None:
        raise InputError("snp table", "names no table", f"one of {', '.join(TABLES)}; or --out: all runs in a folder")
    wanted = _present(table, scale, store) if table else present(store)
    name = _known(data, store)
    chosen = [row for row in wanted if name in (None, row.data)]
    if (measured := Measured(chosen, store)).empty:
        raise unmeasured(", ".join(table) or "any row", table[0] if table else "table1", store, scale)
    print(render(measured, format), end="")


@app.command
def compare(
    row: Annotated[str, tyro.conf.arg(help="label of a row, as scenes/snp@60"), Positional],
    other: Annotated[str, tyro.conf.arg(help="of the row that it is compared with"), Positional],
    scale: SizeOfRuns = None,
    out: Out = None,
    plugin: Plugin = (),
    towers: OfTowers = Towers(),  # noqa: B008 - frozen
) -> None:
    """Print how two rows differ on every split: in points, paired over the seeds that both have."""
    from snp.report.compare import compare as compared

    _use(plugin)
    scale = _scale(scale, out)
    store = _results(scale, out, towers)
    print(compared(*_present((row, other), scale, store), store, scale), end="")


@app.command
def audit(
    sample: Annotated[PositiveInt, tyro.conf.arg(help="scored runs that are drawn by chance")] = 10,
    seed: Annotated[Seed, tyro.conf.arg(help="of the draw")] = 0,
    scale: SizeOfRuns = None,
    out: Out = None,
    workers: Workers = 2,
    dry_run: DryRun = False,
) -> None:
    """Run some of the results afresh by the code of now, and say which come out the same.

    To the bit, near (sums in another order), or off, which ends the command with code 1. Killed, it goes on.
    """
    from snp.experiment import audit as audits
    from snp.launch.runner import run_all, undone
    from snp.report.audit import audited

    scale = _scale(scale, out)
    store = _results(scale, out)
    chosen = audits.sample(store, sample, seed)
    afresh = audits.afresh(store, scale)
    runs = [run for one in chosen for run in (*one.parents(), one)]
    if dry_run:
        todo, costs = undone(runs, afresh), _mean_seconds(store)
        print("\n".join(run.slug for run in todo) or "nothing to do: all runs are done")
        if todo:
            seconds = [costs.get(_sort(run)) for run in todo]
            least = "at least" if None in seconds else "about"
            time = f"; {least} {sum(filter(None, seconds)) / 60:.0f} minutes of one thread" if any(seconds) else ""
            print(f"\n{len(todo)} runs, {sum(run.kind == 'finetune' for run in todo)} of them scored{time}")
        return
    run_all(lambda: undone(runs, afresh), afresh, workers)
    found = audits.compared(chosen, store, afresh)
    print(f"\n{audited(found)}", end="")
    if any(one.verdict == "off" for one in found):
        sys.exit(1)


@app.command
def claims(
    table: Annotated[str | None, tyro.conf.arg(help="which table's rows; default: all"), Positional] = None,
    scale: SizeOfRuns = None,
    out: Out = None,
    towers: OfTowers = Towers(),  # noqa: B008 - frozen
) -> None:
    """Print each claim of the paper that the rows can test: measured value, interval, verdict."""
    from snp.report.claims import claims_table

    scale = _scale(scale, out)
    print(claims_table(table, _results(scale, out, towers), scale, terminal=True), end="")


@app.command
def figure(
    name: Annotated[
        str, tyro.conf.arg(help="method, figure1, tickets, scaling, or a table whose rows are drawn"), Positional
    ],
    png: Annotated[Named | None, tyro.conf.arg(help="file to write; default: <name>.png")] = None,
    scale: SizeOfRuns = None,
    data: Annotated[str | None, tyro.conf.arg(help=f"{SETS}; default: the first of the rows")] = None,
    out: Out = None,
    towers: OfTowers = Towers(),  # noqa: B008 - frozen
) -> None:
    """Draw a figure from results alone, and print how far each of its curves reaches without loss."""
    from snp.report.figures import figure as draw
    from snp.report.figures import limits
    from snp.report.table import markdown

    if name == "method":
        print(import_module("snp.report.method").picture(png or _new("method.png")))
        return
    if name == "scaling":
        if out or data or scale:
            raise InputError("--scale, --data, --out", "are not of this figure", "it is of results/bench/scaling.json")
        scaling = import_module("snp.report.scaling")
        print(scaling.figure(scaling.MEASURED, png or _new("scaling.png")))
        return
    scale = _scale(scale, out)
    store = _results(scale, out, towers)
    data = _known(data, store) or rows_of(name, scale)[0].data
    print(draw(name, store, scale, data, png or _new(f"{name}.png")))
    print(f"\n{markdown(limits(name, store, scale, data))}", end="")


@app.command
def report(
    html: Annotated[Named | None, tyro.conf.arg(help="page to write; default: report.html")] = None,
    scale: SizeOfRuns = None,
    out: Out = None,
) -> None:
    """Write all results as one page for a browser, which needs no network; beside it, the same as JSON and CSV."""
    from snp.report.page import report as write

    scale = _scale(scale, out)
    store = _results(scale, out)
    page = html or _new("report.html", "--html")
    for path in write(store, scale, page):
        print(path)
    print(f"\nopen {page} in a browser")


@app.command
def curve(
    run: Annotated[str, tyro.conf.arg(help="label of a row, as scenes/snp@60, or the folder of a run"), Positional],
    seed: OneSeed = 0,
    png: Annotated[Named | None, tyro.conf.arg(help="draw the curves too, in this file")] = None,
    scale: SizeOfRuns = None,
    out: Out = None,
) -> None:
    """Print the learning curves of a run, or of a row's compression and fine-tunings: every series over the steps."""
    from snp.report.curve import picture, told

    scale = _scale(scale, out)
    store = _results(scale, out)
    folder = next((path for path in (Path(run), store.root / run) if path.is_dir()), None)
    if folder is None:
        (row,) = _present([run], scale, store)
        chosen = _own(row, seed)
    elif (one := run_of(folder)) is None:
        raise InputError(folder, "is no folder of a run", "name one, as `snp runs --out FOLDER` lists them, or a label")
    else:
        chosen, store = [one], Store(folder.parent)
    curves, text = told(chosen, store)
    print(text, end="")
    if png:
        print(f"\n{picture(curves, png)}")


@app.command
def runs(out: Annotated[Named | None, tyro.conf.arg(help="one folder of runs, with each of them")] = None) -> None:
    """List the folders of runs with what they hold and how large they are; with --out every run of one of them."""
    from pandas import DataFrame
    from rich.filesize import decimal

    from snp.experiment import inventory
    from snp.experiment.labels import label_of
    from snp.report.fitted import fitted, width

    if out is not None and not out.is_dir():
        raise InputError(f"--out {out}", "no such folder", "`snp runs` lists those that are there")
    found = {root: there for root in inventory.roots(out) if (there := [*inventory.held(root)])}
    if not found:
        raise InputError(out or Path().resolve(), "holds no runs", "`snp run` makes some")
    if out is None:
        lines = [
            {
                "folder": _short(root),
                "runs": str(len(there)),
                "done": str(sum(one.state == "done" for one in there)),
                "last": f"{max(one.when for one in there):%Y-%m-%d %H:%M}",
                "size": decimal(sum(one.bytes for one in there)),
            }
            for root, there in found.items()
        ]
        every = decimal(sum(one.bytes for there in found.values() for one in there))
        title = f"Folders of runs: {sum(map(len, found.values()))} runs, {every}"
        print(fitted(DataFrame(lines), title, width(), folds=["folder"]), end="")
        print(f"\neach run of one: snp runs --out {shlex.quote(lines[-1]['folder'])}")
    for root, there in found.items() if out is not None else ():
        lines = [
            {"row": label_of(one.run), "seed": str(one.run.seed), "stage": getattr(one.run, "benchmark", one.run.kind),
             "state": one.state, "size": decimal(one.bytes), "when": f"{one.when:%m-%d %H:%M}"}
            for one in there
        ]  # fmt: skip
        states = Counter(one.state for one in there)
        total = decimal(sum(one.bytes for one in there))
        title = f"{_short(root)}: {', '.join(f'{n} {state}' for state, n in states.items())}; {total}"
        print(fitted(DataFrame(lines), title, width(), folds=["row"]))


@app.command
def clean(
    kind: Annotated[
        tuple[Kind, ...],
        tyro.conf.arg(help="trials, states, data or environments; default: all, one after the other"),
        Positional,
    ] = (),
    yes: Annotated[bool, tyro.conf.arg(help="do not ask; the kinds are to be named")] = False,
    dry_run: Annotated[bool, tyro.conf.arg(help="only list what would be deleted")] = False,
    out: Annotated[Named | None, tyro.conf.arg(help="folder of runs; default: .runs and .reproduce")] = None,
) -> None:
    """List what takes room and can be made again, and delete it, one kind after the other, when you say yes.

    Results stay, and so do runs and data that a process is at.
    """
    from pandas import DataFrame
    from rich.filesize import decimal

    from snp.launch import cleaning
    from snp.report.fitted import fitted, width

    if out is not None and not out.is_dir():
        raise InputError(f"--out {out}", "no such folder", "`snp runs` lists those that are there")
    if yes and not kind:
        raise InputError("--yes", "names no kind", f"say which: {', '.join(cleaning.KINDS)}")
    found = [item for item in cleaning.items(out) if not kind or item.kind in kind]
    totals = []
    for name in kind or cleaning.KINDS:
        sizes = [item.bytes for item in found if item.kind == name]
        totals.append(f"{name}: " + (f"{len(sizes)}, {decimal(sum(sizes))}" if sizes else cleaning.NONE[name]))
    if not found:
        print("\n".join(["nothing to delete", *(totals if dry_run else [])]))
        return
    lines = [{"what": item.kind, "where": _short(item.path), "size": decimal(item.bytes)} for item in found]
    print(fitted(DataFrame(lines), "What can be made again:", width(), folds=["where"]))
    if dry_run:
        print("\n".join(totals))
        return
    if not yes and not sys.stdin.isatty():
        raise InputError("snp clean", "asks before it deletes, and there is no terminal", "--yes with the kinds")
    for name, about in cleaning.KINDS.items():
        if not (chosen := [item for item in found if item.kind == name]):
            continue
        total = decimal(sum(item.bytes for item in chosen))
        if not yes and input(f"Delete {len(chosen)} {name}, {total} ({about})? [y/N] ").strip().lower() != "y":
            continue
        deleted = [item for item in chosen if item.delete()]
        print(f"deleted: {decimal(sum(item.bytes for item in deleted))} of {name}")
        for item in chosen:
            if item not in deleted:
                print(f"kept, as a process is at it: {_short(item.path)}")


@app.command
def readme(
    page: Annotated[
        tuple[Named, ...], tyro.conf.arg(help="default: README.md, slurm/README.md and docs/*.md"), Positional
    ] = (),
    check: Annotated[bool, tyro.conf.arg(help="only say which are stale")] = False,
) -> None:
    """Write the tables of README and docs anew from the committed results."""
    from snp.report.readme import pages, rendered, update

    store = Store.at("desk")
    chosen = page or pages(Path())
    if not chosen:
        raise InputError(Path().resolve(), "holds no page with a part to render", "name one, as README.md")
    stale = [path for path in chosen if rendered(text := read_text(path), store, path) != text] if check else []
    if stale:
        raise InputError(", ".join(map(str, stale)), "not what the results say", "run `snp readme`")
    for path in () if check else chosen:
        print(f"{path}: {'rewritten' if update(path, store) else 'up to date'}")


@app.command
def data(
    action: Annotated[Literal["make", "show", "check"], tyro.conf.arg(help="what to do"), Positional],
    name: Annotated[
        str, tyro.conf.arg(help="check: a published benchmark, or the folder of your own; else drawn data"), Positional
    ],
    scale: Size = "desk",
    root: Annotated[Named | None, tyro.conf.arg(help="folder of the data; default: .data/<name>-<scale>")] = None,
    source: Annotated[Named | None, tyro.conf.arg(help="stamps: folder of the photographic cut-outs")] = None,
    png: Annotated[Named | None, tyro.conf.arg(help="show: the page to write; default: <name>.png")] = None,
    data_root: Annotated[Named | None, tyro.conf.arg(help="check: folder of annotations and pictures")] = None,
    decode: Annotated[bool, tyro.conf.arg(help="check: only see that pictures are there, do not read them")] = True,
    workers: Workers = 2,
) -> None:
    """Make a data set from its seed, show its samples, or check the folder of a published benchmark or of your own."""
    if action == "check" and Path(name).is_dir():
        name, data_root = "own", data_root or Path(name)
    known = (*get_args(Published), "own") if action == "check" else DRAWN
    if name not in known:
        mend = f"choose one of {', '.join(known)}" + (", or name a folder of your own" if action == "check" else "")
        raise InputError(f"snp data {action} {name}", "no such data", mend)
    unheeded = {
        "--root": action == "check" and root,
        "--data-root": action != "check" and data_root,
        "--png": action != "show" and png,
        "--source": name != "stamps" and source,
    }
    if ignored := [option for option, given in unheeded.items() if given]:
        raise InputError(ignored[0], f"is not an option of `snp data {action} {name}`", "leave it out")
    if action == "check":
        _check(name, data_root, decode, scale)
        return
    page = (png or _new(f"{name}.png")) if action == "show" else None
    from snp.training import prepare

    options = {} if source is None else {"source": source}
    root = prepare.ready(root or prepare.data_folder(scale, name), scale, name, workers, **options)
    if page is None:
        print(root)
        return
    from snp.data.show import sample_page

    print(sample_page(root, page))


def _check(name: str, root: Path | None, decode: bool, scale: Scale) -> None:
    """Print the report on a folder; exit code 2 where it has an error."""
    from snp.data.sources.check import NEEDS, check, report
    from snp.training.prepare import limits

    if root is None:
        raise InputError("--data-root", "missing", f"the folder that holds {NEEDS[name]}")
    about = f"{own_name(root)}, as runs at scale {scale} read it:\n" if name == "own" and root.is_dir() else ""
    findings = check(name, root, decode, **(limits(scale) if name == "own" else {}))
    print(about, end="")
    print(report(findings))
    if any(finding.level == "error" for finding in findings):
        sys.exit(2)


@app.command
def demo(
    picture: Annotated[
        Named, tyro.conf.arg(help="any picture file; in a checkout results/figures/scenes.png"), Positional
    ],
    text: Annotated[str, tyro.conf.arg(help="a phrase or a question; GLIP: class names, as 'dog. cup'"), Positional],
    checkpoint: Annotated[
        tuple[Named, ...],
        tyro.conf.arg(help="folders of models; default: the committed ones of scenes, dense and by SNP"),
    ] = (),
    png: Annotated[Named | None, tyro.conf.arg(help="file to write; default: demo.png")] = None,
) -> None:
    """Draw what trained models find in a picture for a sentence, side by side, and print it."""
    from snp.data.pixels import load
    from snp.demo import Checkpoint, Panel, draw, predict
    from snp.training.export import COMMITTED, models

    load(picture)
    png = png or _new("demo.png")
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")  # in whatever locale it was typed
    row, kept = find(COMMITTED[0], "desk"), models()
    folders = checkpoint or (kept.folder(row.pretrain), kept.folder(row.compress(0)))
    checkpoints = [Checkpoint.of(folder) for folder in folders]
    found = [(one, predict(one, picture, text)) for one in checkpoints]
    for one, said in found:
        best = [f"{seen.words} {seen.score:.2f} at {tuple(round(v, 2) for v in seen.box)}" for seen in said.seen]
        print(f"{one.title}: {'; '.join(best) or 'nothing'}" + (f"; answer: {said.answer}" if said.answer else ""))
        if "?" in text and not one.answers:
            print(f"{one.title}: answers no questions, as it was not fine-tuned on them; it only points at things")
    print(draw([Panel(one.title, picture, text, said) for one, said in found], png))


@app.command
def predictions(
    png: Annotated[Named | None, tyro.conf.arg(help="file to write; default: predictions.png")] = None,
    number: Annotated[NonNegativeInt, tyro.conf.arg(help="which sample of each benchmark")] = 0,
    scale: SizeOfRuns = None,
    data: Annotated[Literal["scenes", "stamps", "real"], tyro.conf.arg(help="whose samples")] = "scenes",
    out: Out = None,
) -> None:
    """Draw samples as the dense and as the compressed model see them, beside what is right.

    By the committed models before fine-tuning; with --out one sample of every task, by the models that learned it.
    """
    from snp.demo import page
    from snp.training.export import models

    scale = _scale(scale, out)
    store = models() if out is None and scale == "desk" else _results(scale, out)
    print(page(store, scale, data, png or _new("predictions.png"), number, tuned=store.root != models().root))


@app.command
def export(
    row: Annotated[
        tuple[str, ...],
        tyro.conf.arg(help="labels, as scenes/snp@60; default: the rows whose models are committed"),
        Positional,
    ] = (),
    seed: OneSeed = 0,
    scale: Size = "desk",
    out: Annotated[Named, tyro.conf.arg(help="folder of the runs; what is missing is run")] = EXPORTS,
    to: Annotated[Named | None, tyro.conf.arg(help="folder of the models; default: results/models")] = None,
    workers: Workers = 2,
    dry_run: DryRun = False,
) -> None:
    """Compress models, and write them small, in half precision where the score stays: to commit, or to pass on."""
    from snp.launch.runner import run_rows
    from snp.training.export import COMMITTED, models
    from snp.training.export import export as write

    store = Store(out, base=Store.at(scale))
    chosen = [find(label, scale).model_copy(update={"benchmarks": ()}) for label in row or COMMITTED]
    if dry_run:
        return _run(chosen, (seed,), store, workers, dry_run)
    run_rows(chosen, (seed,), store, workers=workers)
    for one in chosen:
        print(write(one.compress(seed), store, Store(to) if to else models()))


@app.command
def bench(
    what: Annotated[
        Literal["train", "scoring", "eval", "annotations", "scaling", "plan", "launch"],
        tyro.conf.arg(
            help="train: samples/s, share of the matmul peak, step overheads; scoring; eval: evaluators; annotations: "
            "reading them; plan: planning; launch: how much of twenty short jobs is starting them; scaling: what its "
            "model rests on, written to results/bench"
        ),
        Positional,
    ],
    scale: Annotated[Scale | None, tyro.conf.arg(help="train: of the model; default: desk")] = None,
    data: Annotated[
        Literal["scenes", "stamps"] | None, tyro.conf.arg(help="train: what it sees; default: scenes")
    ] = None,
    keep: Annotated[bool, tyro.conf.arg(help="scaling: keep the measured step times, count the rest anew")] = False,
) -> None:
    """Measure what one part of the program costs, in time and throughput."""
    if what != "train" and (scale or data):
        raise InputError("--scale, --data", f"are not of `snp bench {what}`", "it has one size")
    if what == "scoring":
        print(import_module("snp.bench.scoring").scoring())
    elif what == "eval":
        print(import_module("snp.bench.evaluation").evaluators())
    elif what == "annotations":
        print(import_module("snp.bench.annotations").reading())
    elif what == "scaling":
        print(import_module("snp.bench.scaling").measure(keep=keep))
    elif what == "launch":
        print(import_module("snp.bench.launching").starting())
    elif what == "plan":
        print(import_module("snp.bench.planning").planning())
    else:
        print(import_module("snp.bench.training").train(scale or "desk", data or "scenes"))


def _use(plugin: Sequence[Path]) -> None:
    """Methods of a user's own, for commands that otherwise need none: they are loaded when a name asks for them."""
    if plugin:
        import_module("snp.compression.plugins").use(plugin)


def _scale(scale: Scale | None, out: Path | None) -> Scale:
    """The scale that is named, else that of the runs in `--out` where they have one in common, else desk."""
    from snp.experiment.inventory import scale_of

    return scale or (scale_of(out) if out is not None else None) or "desk"


def _first(function: Callable[..., object]) -> str:
    """The first sentence of what a function says of itself."""
    return " ".join((function.__doc__ or "").split("\n\n")[0].split()).rstrip(".")


def _short(path: Path) -> str:
    """A path as one would write it in the working folder."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_absolute() and path.is_relative_to(here) else path)


def _new(name: str, option: str = "--png") -> Path:
    """A picture or page in the working folder that nobody named: it takes the place of none that is there."""
    if (path := Path(name)).exists():
        raise InputError(path, "is there already", f"{option} {name} replaces it, {option} FILE leaves it")
    return path


def _flags(**given: object) -> str:
    """Flags as they are written behind a command, but for those that were not given."""
    flags = {f"--{name.replace('_', '-')}": value for name, value in given.items() if value is not None}
    return "".join(f" {flag} {shlex.quote(str(value))}" for flag, value in flags.items())


def _starting(rows: list[Row], towers: Towers) -> list[Row]:
    """The rows, their dense models starting from the weights that are named."""
    weights = towers.weights
    return [row.starting(weights) for row in rows]


def _runs(table: str, scale: Scale, data: str | None, seeds: Sequence[int], store: Store) -> list[AnyRun]:
    """All runs of a table's rows in a store, each once, parents first; of some seeds, or of all."""
    chosen = meant(select(table, scale, _known(data, store)), store)
    return list(dict.fromkeys(run for row in chosen for seed in seeds or row.seeds for run in row.runs(seed)))


def _own_data(data: str | None, setup: Setup) -> tuple[Data | None, Setup]:
    """The name of the data that are named, and where a user's own are. One of those known here is known by its name.

    Raises:
        InputError: no data set and no folder, or one that cannot be a user's own.
    """
    if data is None or not is_own(data):
        return data, setup
    return own_name(Path(data)), setup.model_copy(update={"data_root": Path(data)})


def _known(data: str | None, store: Store) -> Data | None:
    """As `_own_data`, for results alone: a user's own, of which there are runs, may be named without their folder."""
    if data is None or not is_own(data) or any(run.data == data for _, run in runs_in(store.root)):
        return data
    return own_name(Path(data))


def _heeded(setup: Setup, data: set[Data]) -> None:
    """Refuses an option that no run on these data heeds."""
    of_real = {"--data-root": setup.data_root, "--shortest": setup.shortest, "--loaders": setup.loaders}
    for option, given in of_real.items():
        if given is not None and data <= {*DRAWN}:
            problem = f"is of published benchmarks, but {' and '.join(sorted(data))} are drawn"
            raise InputError(option, problem, "leave it out, add --scale paper, or name your own with --data")


def _store(scale: Scale, out: Path | None, setup: Towers) -> Store:
    """Where the runs are: the committed results, or a folder of one's own that borrows their dense checkpoint.

    Trials are apart from both, each in a folder of its own.
    """
    if out is not None and out.exists() and not out.is_dir():
        raise InputError(f"--out {out}", "is no folder", "name one, or a new one")
    if isinstance(setup, Setup) and setup.trial is not None:
        return Store((out or TRIALS) / setup.trial.name, trial=setup.trial, weights=setup.named)
    kept = Store.at(scale)
    return Store(out or kept.root, base=kept if out else None, weights=setup.named)


def _results(scale: Scale, out: Path | None, setup: Towers = Towers()) -> Store:  # noqa: B008 - frozen
    """As `_store`, for commands that only read: a folder that is named is there, and what is left out is said."""
    if out is not None and not out.is_dir():
        problem = "is no folder" if out.exists() else "no such folder"
        raise InputError(f"--out {out}", problem, f"without --out it is {Store.at(scale).root}")
    store = _store(scale, out, setup)
    if trials := sorted(path.name for path in store.root.glob("trial-*/")):
        print(f"snp: left out, as trials say nothing: {', '.join(trials)} in {store.root}", file=sys.stderr)
    return store


def _present(labels: Sequence[str], scale: Scale, store: Store) -> list[Row]:
    """The rows of these labels, with the seeds and benchmarks that are in the store, planned or not."""
    there = {row.label: row for row in reversed(present(store))}
    return [there.get(label) or find(label, scale) for label in labels]


def _run(
    rows: list[Row],
    seeds: tuple[int, ...] | None,
    store: Store,
    workers: int,
    dry_run: bool,
    setup: Setup = Setup(),  # noqa: B008 - frozen
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


def _states(row: Row, store: Store) -> list[str]:
    """Per seed: missing, done, or how many of the row's runs are done."""
    texts = []
    for seed in row.seeds:
        states = [store.state(run) for run in _own(row, seed)]
        done = states.count("done")
        partial = f"{done} of {len(states)} runs"
        texts.append("done" if done == len(states) else partial if {*states} != {"missing"} else "missing")
    return texts


def _mean_seconds(store: Store) -> dict[str, float]:
    """Mean wall time of the finished runs of each sort."""
    times: dict[str, list[float]] = {}
    for result in store.results():
        if seconds := result.manifest.get("wall_seconds"):
            times.setdefault(_sort(result.run), []).append(seconds)
    return {kind: sum(values) / len(values) for kind, values in times.items()}


def _left(rows: list[Row], seeds: tuple[int, ...], store: Store, costs: dict[str, float]) -> str:
    """Time that the missing and incomplete runs will take, pre-training left out."""
    todo = [_sort(run) for row in rows for seed in seeds for run in _own(row, seed) if not store.find(run)]
    if not all(sort in costs for sort in todo):
        return "?"
    return f"{sum(costs[sort] for sort in todo) / 60:.0f} min" if todo else ""


def _own(row: Row, seed: int) -> list[AnyRun]:
    """The runs of a seed that are its row's own: dense models are shared by all."""
    return [run for run in row.runs(seed) if run.kind != "pretrain"]


def _sort(run: AnyRun) -> str:
    """Runs that take about the same time: the kind, compression without training, or with more of it, apart."""
    if not getattr(run, "recovery", True):
        return "compress at once"
    return run.kind if (times := getattr(run, "times", 1)) == 1 else f"{run.kind} x{times}"
