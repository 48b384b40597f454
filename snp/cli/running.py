"""Commands that run rows here: rows, run, reproduce, pretrain, audit."""

import sys
from importlib import import_module
from textwrap import fill
from typing import Annotated

import tyro
from pydantic import PositiveInt
from tyro.conf import Positional

from snp.cli.options import (
    SETS,
    AtScale,
    DryRun,
    OfResults,
    OfRuns,
    OneData,
    OneSeed,
    Out,
    Plugin,
    Results,
    ScaleOfRuns,
    Seeds,
    Table,
    Workers,
    app,
    first_line,
    heeded,
    known_data,
    own_data,
    results_at,
    run_them,
    shortened,
    starting,
    store_for,
)
from snp.errors import InputError
from snp.experiment.labels import find, find_own
from snp.experiment.places import NEEDED
from snp.experiment.rows import DENSE
from snp.experiment.scores import Model
from snp.experiment.spec import Seed, dense, is_own
from snp.experiment.tables import TABLES, reproduced, select
from snp.experiment.tables import rows as rows_of
from snp.flags import Named
from snp.runs.begun import meant
from snp.runs.inventory import REPRODUCED
from snp.runs.progress import mean_seconds, sort_of, states, time_left
from snp.runs.store import Store
from snp.terminal import progress
from snp.training.setup import Setup


@app.command
def rows(
    table: Annotated[str, tyro.conf.arg(help="which table, as table1; none: the tables are listed"), Positional] = "",
    data: OneData = None,
    asked: OfResults = Results(),
) -> None:
    """List the rows of a table: label, state of every seed, and the time that is left to run; or the tables."""
    from pandas import DataFrame

    from snp.report.fitted import fitted, width

    if not table:
        tables = [
            {"table": name, "rows": str(len(of(asked.scale or "desk"))), "what": first_line(of)}
            for name, of in TABLES.items()
        ]
        print(fitted(DataFrame(tables), "Tables (`snp rows TABLE` lists the rows of one):", width(), ["what"]), end="")
        return
    scale, store = asked.found
    chosen = meant(select(table, scale, known_data(data, store)), store)
    costs = mean_seconds(store)
    lines = [
        {
            "row": row.label if len(row.label) <= width() // 2 else row.label.replace("+", "\n+"),
            "removed": DENSE if row.method == DENSE else row.size.removed,
            "main": "yes" if row.main else "",
        }
        | {f"seed {seed}": state for seed, state in zip(row.seeds, states(row, store), strict=True)}
        | {"time left": time_left([row], row.seeds, store, costs)}
        for row in chosen
    ]
    frame = DataFrame(lines).fillna("")
    print(fitted(frame, f"Rows of {table} in {shortened(store.root)}:", width()), end="")
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
    scale: AtScale = "desk",
    data: Annotated[Named | None, tyro.conf.arg(help="folder of your own: rows are run on it")] = None,
    keep: Annotated[float | None, tyro.conf.arg(help="share of all parameters to keep, in (0, 1]")] = None,
    option: Annotated[tuple[str, ...], tyro.conf.arg(help="of the method, as block=4; several: block=4 every=8")] = (),
    out: Out = None,
    workers: Workers = 2,
    dry_run: DryRun = False,
    setup: OfRuns = Setup(),
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
    own, setup = own_data(None if data is None else str(data), setup)
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
    heeded(setup, {found.data for found in chosen})
    setup.look_for_weights(scale)
    store = store_for(scale, out, setup)
    run_them(starting(chosen, setup), seed or None, store, workers, dry_run, setup)


@app.command
def reproduce(
    table: Table,
    scale: AtScale = "desk",
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
        hint = f"`snp run {table} --scale paper {NEEDED}` runs all rows on published benchmarks"
        raise InputError("--scale paper", "is not for a reproduction of one seed", hint)
    data, setup = own_data(data, Setup())
    chosen = [row.model_copy(update={"seeds": (seed,)}) for row in reproduced(select(table, scale, data))]
    run_them(chosen, (seed,), Store(out or REPRODUCED / scale, base=committed), workers, dry_run, setup)


@app.command
def pretrain(
    scale: AtScale = "desk",
    data: Annotated[str | None, tyro.conf.arg(help=f"{SETS}; default: that of the scale's rows")] = None,
    model: Annotated[Model, tyro.conf.arg(help="which of the two grounding models")] = "mdetr",
    out: Out = None,
    threads: Annotated[PositiveInt, tyro.conf.arg(help="compute threads; another number gives other sums")] = 1,
    setup: OfRuns = Setup(),
) -> None:
    """Train the dense model that all rows start from, unless its result is there already."""
    from snp.launch.runner import advancing, captions, make_data

    named, setup = own_data(data, setup)
    data = named or rows_of("table1", scale)[0].data
    if is_own(data) and model != "mdetr":
        raise InputError(f"--model {model}", "does not go with data of your own, which have expressions alone")
    heeded(setup, {data})
    setup.look_for_weights(scale)
    spec, store = dense(scale, data, model, setup.weights), store_for(scale, out, setup)
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
def audit(
    sample: Annotated[PositiveInt, tyro.conf.arg(help="scored runs that are drawn by chance")] = 10,
    seed: Annotated[Seed, tyro.conf.arg(help="of the draw")] = 0,
    scale: ScaleOfRuns = None,
    out: Out = None,
    workers: Workers = 2,
    dry_run: DryRun = False,
    data_root: Annotated[Named | None, tyro.conf.arg(help="folder of your own data, where runs are on such")] = None,
    plugin: Plugin = (),
) -> None:
    """Run some of the results afresh by the code of now, and say which come out the same.

    To the bit, near (sums in another order), or off, which ends the command with code 1. Killed, it goes on.
    """
    from snp.launch.runner import run_all, undone
    from snp.report.audit import audited
    from snp.runs import audit as audits

    setup = Setup(data_root=data_root, plugin=plugin)
    setup.bring()
    scale, store = results_at(scale, out)
    chosen = audits.sample(store, sample, seed)
    heeded(setup, {run.data for run in chosen})
    afresh = audits.afresh(store, scale)
    runs = [run for one in chosen for run in (*one.parents(), one)]
    if dry_run:
        todo, costs = undone(runs, afresh), mean_seconds(store)
        print("\n".join(run.slug for run in todo) or "nothing to do: all runs are done")
        if todo:
            seconds = [costs.get(sort_of(run)) for run in todo]
            least = "at least" if None in seconds else "about"
            time = f"; {least} {sum(filter(None, seconds)) / 60:.0f} minutes of one thread" if any(seconds) else ""
            print(f"\n{len(todo)} runs, {sum(run.kind == 'finetune' for run in todo)} of them scored{time}")
        return
    run_all(lambda: undone(runs, afresh), afresh, workers, setup)
    found = audits.compared(chosen, store, afresh)
    print(f"\n{audited(found)}", end="")
    if any(one.verdict == "off" for one in found):
        sys.exit(1)
