"""What starting costs: twenty runs of smoke scale from submission to their table, a job for each and as chains.

On whatever SLURM is here; it must keep accounts.
"""

import tempfile
import time
from pathlib import Path

from snp.errors import InputError
from snp.experiment.resources import Resources
from snp.experiment.rows import Row
from snp.experiment.spec import Run
from snp.experiment.tables import select
from snp.launch.arrays import arrays
from snp.launch.runner import make_data, one_thread, planned, stage
from snp.launch.slurm import array_limit, slurm_command
from snp.launch.status import statuses
from snp.launch.submit import Launch, look_for_slurm, resources
from snp.launch.work import Place
from snp.runs.store import Store
from snp.training.setup import Setup

ROWS = 5
"""Each a compression and its fine-tunings on three benchmarks."""


def starting() -> str:
    """Time both ways, one after the other; the data and the dense model that all start from are made before."""
    folder = Path(tempfile.mkdtemp(prefix="snp-bench-", dir=Path.cwd()))  # where all nodes see it
    dense, rows = Store(folder / "dense"), [row for row in select("table1", "smoke") if len(row.benchmarks) == 3][:ROWS]
    look_for_slurm(dense)
    one_thread()
    make_data([rows[0].pretrain], Setup())
    stage()(rows[0].pretrain, dense)
    found = [_line(rows, Store(folder / name, base=dense), name == "chains") for name in ("one by one", "chains")]
    return "\n".join([*found, f"see {folder}"])


def _line(rows: list[Row], store: Store, chained: bool) -> str:
    from snp.report.table import brief

    runs = planned(rows, (0,), store)
    asked = arrays(resources(rows, runs, Resources()), {}, array_limit(), chained)
    begun, jobs = time.time(), list[str]()
    for _, record, _ in Launch(store, Place.from_setup(store, Setup()), parallelism=256).slurm(asked, {}):
        jobs.append(record.job)
    while left := [one for one in statuses(runs, store) if one.state != "done"]:
        if failed := [one for one in left if one.state == "failed"]:
            raise InputError(store.root, f"{failed[0].run.name} failed: {failed[0].reason}", "see its log")
        time.sleep(1)
    brief("table1", store, "smoke")
    seconds = time.time() - begun
    held, work = _held(jobs), sum(_worked(run, store) for run in runs)
    return (
        f"{len(runs)} runs in {sum(len(array.chains) for array in asked)} jobs: {seconds:.0f} s from submission to the "
        f"table; jobs held processors for {held:.0f} s, runs worked {work:.0f} s: {1 - work / held:.0%} is starting"
    )


def _held(jobs: list[str]) -> int:
    """Seconds that these jobs ran, as accounted for; SLURM may take some to know that the last one has ended."""
    while True:
        said = slurm_command(
            "sacct", "-X", "--noheader", "--parsable2", f"--jobs={','.join(jobs)}", "--format=State,ElapsedRaw"
        )
        lines = [line.split("|") for line in said.splitlines()]
        if lines and all(state == "COMPLETED" for state, _ in lines):
            return sum(int(seconds) for _, seconds in lines)
        time.sleep(1)


def _worked(run: Run, store: Store) -> float:
    """Seconds from the begin of a run to its result."""
    begun, ended = (store.folder(run) / name for name in ("spec.json", "result.json"))
    return ended.stat().st_mtime - begun.stat().st_mtime
