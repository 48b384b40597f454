"""How long it takes to plan 500 rows and to list where 500 runs are; neither needs torch, nor a cluster."""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from snp.compression.size import Size
from snp.experiment.labels import find
from snp.experiment.resources import Resources
from snp.experiment.rows import Row
from snp.launch.arrays import arrays
from snp.launch.runner import planned
from snp.launch.slurm import Job
from snp.launch.status import statuses
from snp.launch.submit import Launch, resources
from snp.launch.work import Place
from snp.runs.store import Store
from snp.runs.submitted import keep
from snp.training.setup import Setup

ROWS, RUNS = 500, 500


def planning() -> str:
    """Time what launching and watching do before and besides SLURM."""
    rows = made_rows(ROWS)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder, base=Store.at("desk"))
        todo, planning = _timed(lambda: planned(rows, None, store))
        groups, grouping = _timed(lambda: arrays(resources(rows, todo, Resources()), {}))
        launch = Launch(store, Place.from_setup(store, Setup()), 256)
        text, rendering = _timed(lambda: "\n".join(launch.dry(groups, {})))
        known = fill(store, rows, RUNS)
        runs = [run for row in rows for run in row.runs(0)[1:]][:RUNS]
        found, watching = _timed(lambda: statuses(runs, store, lambda jobs: known))
    states = {state: sum(one.state == state for one in found) for state in ("done", "running", "queued", "failed")}
    return "\n".join(
        [
            f"{len(rows)} rows, {len(todo)} runs: planned and hashed {planning:.2f} s, put into {len(groups)} arrays "
            f"{grouping:.2f} s, listed with {len(text.splitlines())} lines of sbatch {rendering:.2f} s",
            f"status of {len(found)} runs ({', '.join(f'{n} {s}' for s, n in states.items())}): {watching:.2f} s",
            f"torch imported: {'YES' if 'torch' in sys.modules else 'no'}",
        ]
    )


def made_rows(count: int) -> list[Row]:
    """As many rows as asked: one method at many sizes, on three benchmarks."""
    row = find("scenes/snp@60", "desk")
    return [row.model_copy(update={"size": Size(0.3 + 0.5 * i / count), "seeds": (0,)}) for i in range(count)]


def fill(store: Store, rows: list[Row], count: int) -> dict[str, Job]:
    """Folders and records as of runs under way: half of `count` runs are done, others run, are queued or have failed.

    Returns:
        What SLURM would say of the jobs.
    """
    row, committed = find("scenes/snp@60", "desk"), Store.at("desk")
    examples = [committed.result(run) for run in row.runs(0)[1:]]
    jobs: dict[str, Job] = {}
    runs = [(run, example) for row in rows for run, example in zip(row.runs(0)[1:], examples, strict=True)][:count]
    for i, (run, example) in enumerate(runs):
        if i % 2 == 0:
            store.save(run, example.manifest, example.metrics, example.curve)
            continue
        store.begin(run)
        for step in range(0, 500, 5):
            store.log(run, {"step": step, "loss": 1.0})
        jobs[f"7_{i}"] = Job(("RUNNING", "PENDING", "TIMEOUT")[i // 2 % 3], "0:0", "None")
    keep(store, "slurm", "7", Path("code"), {run.slug: f"7_{i}" for i, (run, _) in enumerate(runs)})
    return jobs


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    return work(), time.perf_counter() - start
