"""Commands that run rows as jobs: launch, status, cancel."""

import sys
from contextlib import nullcontext
from typing import Annotated, Literal

import tyro
from pydantic import PositiveInt

from snp.cli.options import (
    AtScale,
    OfRuns,
    OfSubmitted,
    OneData,
    Out,
    Seeds,
    Submitted,
    Table,
    app,
    flags,
    heeded,
    own_data,
    runs_of,
    shortened,
    starting,
    store_for,
)
from snp.errors import InputError
from snp.experiment.resources import Resources
from snp.experiment.tables import select
from snp.training.setup import Setup


@app.command
def launch(
    table: Table,
    scale: AtScale = "desk",
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
    wish: Annotated[Resources, tyro.conf.OmitArgPrefixes] = Resources(),
    setup: OfRuns = Setup(),
) -> None:
    """Submit what is missing or incomplete of a table, a job for each run, and neither done nor queued.

    Where data are to be drawn first, a job of its own does it.

    local: one process of this machine does it all and outlives this one; debug: this process does it.
    """
    from tabulate import tabulate

    from snp.launch.arrays import Array, Draw, arrays
    from snp.launch.runner import look_for_data, planned, undrawn
    from snp.launch.slurm import array_limit
    from snp.launch.status import live, statuses
    from snp.launch.submit import Launch, look_for_slurm, resources
    from snp.launch.work import Place
    from snp.runs.submitted import launching

    setup.bring()
    given = data
    data, setup = own_data(data, setup)
    chosen, only = select(table, scale, data), seed or None
    heeded(setup, {row.data for row in chosen})
    setup.look_for_weights(scale)
    chosen = starting(chosen, setup)
    store, slurm = store_for(scale, out, setup), cluster == "slurm"
    if chains and not slurm:
        raise InputError("--chains", f"is not of --cluster {cluster}, where one process does all", "leave it out")
    jobs = Launch(store, Place.from_setup(store, setup), array_parallelism or (256 if slurm else 2))
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
                print(f"the scripts of a folder without runs: snp launch {table} --dry-run{flags(**where)}")
            return
        asked: list[Array | Draw] = []
        if dry_run or slurm:
            asked += [Draw.for_run(run, wish) for run in undrawn(left)]
            asked += arrays(resources(chosen, todo, wish), queued, array_limit(), chains)
            jobs.look_at_time(asked)
        if dry_run:
            print("\n\n".join(jobs.dry(asked, queued)))
            return
        look_for_data(left, setup)
        same = flags(
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
def status(table: Table, seed: Seeds = (), data: OneData = None, asked: OfSubmitted = Submitted()) -> None:
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

    scale, store = asked.found
    found = statuses(runs_of(table, scale, data, seed, store), store, ask)
    lines = [
        {"run": one.run.name, "state": one.state, "job": one.job, "steps": one.progress, "reason": one.reason[:100]}
        for one in found
    ]
    frame = DataFrame([{name: text or "" for name, text in line.items()} for line in lines])
    told = frame.loc[:, (frame != "").any()]
    title = f"Runs of {table} in {shortened(store.root)}:"
    print(fitted(told, title, width(), folds=["run", "reason"]))
    print(summary(found))


@app.command
def cancel(table: Table, seed: Seeds = (), data: OneData = None, asked: OfSubmitted = Submitted()) -> None:
    """End the queued and running jobs of a table; what runs saves its state first, and goes on when launched again."""
    from snp.launch.status import cancel as end
    from snp.launch.status import statuses

    scale, store = asked.found
    ended = end(statuses(runs_of(table, scale, data, seed, store), store), store)
    for one in ended:
        print(f"cancelled: {one.run.name} (job {one.job}, {one.state})")
    if not ended:
        print("nothing to cancel: no job of these runs is queued or running")
