"""Launching, watching and ending jobs on a real SLURM, at smoke scale."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from cluster import REPOSITORY, Cluster

from snp.experiment.jobs import Status, cancel, launch_folder, records, statuses
from snp.experiment.launch import Array, Launch
from snp.experiment.resources import RESOURCES, Resources
from snp.experiment.setup import Setup
from snp.experiment.snapshot import freeze
from snp.experiment.store import AnyRun, Store
from snp.experiment.tables import find, rows
from snp.experiment.work import Place

LONG = Setup(steps=40, batch=256)
"""A pre-training of smoke scale whose steps take long enough for something to happen between them."""
PRETRAIN = find("scenes/snp@60", "smoke").pretrain
ASKED = RESOURCES["smoke"]["pretrain"]


def snp(*arguments: object) -> str:
    """What the command prints."""
    command = [sys.executable, "-m", "snp", *map(str, arguments)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def wait(ready: Callable[[], bool], seconds: float = 300) -> None:
    limit = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < limit, f"not within {seconds} s"
        time.sleep(0.3)


def submit(store: Store, run: AnyRun, resources: Resources = ASKED, setup: Setup = LONG, warning: int = 90) -> str:
    """Submit one run; the number of its job."""
    launch = Launch(store, Place.of(store, setup), parallelism=1, warning=warning)
    [(_, record, _)] = launch.slurm([Array((run,), resources)], {})
    return record.job


def status(store: Store, run: AnyRun) -> Status:
    return statuses([run], store)[0]


def logged(store: Store, run: AnyRun) -> list[int]:
    """Steps in the run's log, as written."""
    path = store.folder(run) / "log.jsonl"
    return [json.loads(line)["step"] for line in path.read_text().splitlines()] if path.exists() else []


def test_a_table_is_launched_once_and_finished(slurm: Cluster, tmp_path: Path) -> None:
    store = Store(tmp_path)
    runs = list(dict.fromkeys(run for row in rows("table1", "smoke") for run in row.runs(0)))
    # equal code is frozen once: the mark put on the copy that is there comes back with every result
    code = freeze(launch_folder(store) / "code")
    (code / "code.json").write_text('{"commit": "frozen", "dirty": false}')

    launch = ["launch", "table1", "--scale", "smoke", "--out", tmp_path]
    lines = snp(*launch).splitlines()[2:]
    assert [line.split()[1] for line in lines][:3] == ["snp-pretrain", "snp-compress", "snp-compress"]
    assert sum(int(line.split()[2]) for line in lines) == len(runs)
    assert f"nothing to submit: {len(runs)} runs are queued or running" in snp(*launch)
    assert "afterok" in slurm.run("squeue", "--format=%E")

    wait(lambda: all(one.state in ("done", "failed") for one in statuses(runs, store)), 900)
    assert [one for one in statuses(runs, store) if one.state != "done"] == []
    assert {store.result(run).manifest["commit"] for run in runs} == {"frozen"}
    assert "nothing to submit: 0 runs are queued or running" in snp(*launch)
    assert f"{len(runs)} done" in snp("status", "table1", "--scale", "smoke", "--out", tmp_path)
    assert len(records(store)) == len(lines)
    table = snp("table", "table1", "--scale", "smoke", "--out", tmp_path)
    assert all(f"| {row.name} " in table for row in rows("table1", "smoke"))


def test_a_script_ends_in_a_done_run_and_a_row_of_its_table(slurm: Cluster, tmp_path: Path) -> None:
    given = f"ALL,SCALE=smoke,OUT={tmp_path},PYTHON={sys.executable}"
    output = slurm.run("sbatch", "--wait", "--mem=3G", f"--output={tmp_path}/job.log", f"--export={given}",
                       "slurm/glip_coco.sh", check=True)  # fmt: skip
    assert "Submitted batch job" in output
    store, row = Store(tmp_path), find("scenes/snp@60:coco", "smoke")
    assert [store.state(run) for run in row.runs(0)] == ["done"] * 4
    assert "| snp " in snp("table", "table4", "--scale", "smoke", "--out", tmp_path)


def test_a_run_that_slurm_requeues_goes_on_from_its_last_step(slurm: Cluster, tmp_path: Path) -> None:
    store = Store(tmp_path)
    job = submit(store, PRETRAIN)
    wait(lambda: bool(logged(store, PRETRAIN)))
    assert status(store, PRETRAIN).state == "running"
    slurm.run("scontrol", "requeue", job, check=True)
    wait(lambda: status(store, PRETRAIN).state == "queued")
    assert (store.folder(PRETRAIN) / "state.pt").exists() and status(store, PRETRAIN).progress

    wait(lambda: status(store, PRETRAIN).state in ("done", "failed"))
    assert status(store, PRETRAIN).state == "done"
    steps = logged(store, PRETRAIN)
    assert steps == sorted({*steps}), "steps were done twice"
    assert "Restarts=1" in slurm.run("scontrol", "show", "job", job)


def test_a_run_whose_time_is_up_saves_and_is_requeued(slurm: Cluster, tmp_path: Path) -> None:
    store = Store(tmp_path)
    slow = Setup(steps=40, batch=768)
    # SLURM looks at limits every half minute: it warns within the first one, when the run has begun
    job = submit(store, PRETRAIN, ASKED.overridden(Resources(time="1")), slow, warning=5)
    wait(lambda: status(store, PRETRAIN).state in ("done", "failed"))
    assert status(store, PRETRAIN).state == "done", status(store, PRETRAIN)
    assert "Restarts=0" not in slurm.run("scontrol", "show", "job", job)
    steps = logged(store, PRETRAIN)
    assert steps == sorted({*steps}), "steps were done twice"


def test_a_cancelled_run_is_saved_and_not_requeued(slurm: Cluster, tmp_path: Path) -> None:
    store, child = Store(tmp_path), find("scenes/snp@60", "smoke").compress(0)
    launch = Launch(store, Place.of(store, LONG), parallelism=1)
    arrays = [Array((PRETRAIN,), ASKED), Array((child,), ASKED)]
    assert [waits for _, _, waits in launch.slurm(arrays, {})][0] is None
    wait(lambda: bool(logged(store, PRETRAIN)))
    assert [one.state for one in statuses([PRETRAIN, child], store)] == ["running", "queued"]
    ended = cancel(statuses([PRETRAIN], store), store)
    assert [one.run for one in ended] == [PRETRAIN]

    wait(lambda: {one.state for one in statuses([PRETRAIN, child], store)} == {"failed"})
    parent, dependent = statuses([PRETRAIN, child], store)
    assert parent.reason == "cancelled" and (store.folder(PRETRAIN) / "state.pt").exists()
    assert dependent.reason == f"not begun: {PRETRAIN.name} did not end well"


def test_a_job_killed_for_its_memory_is_reported_as_such(slurm: Cluster, tmp_path: Path) -> None:
    store = Store(tmp_path)
    submit(store, PRETRAIN, ASKED.overridden(Resources(mem="200M")))
    wait(lambda: status(store, PRETRAIN).state == "failed")
    assert status(store, PRETRAIN).reason == "out of memory: ask for more with --mem"


def test_a_run_that_raises_says_why(slurm: Cluster, tmp_path: Path) -> None:
    store, orphan = Store(tmp_path), find("scenes/snp@60", "smoke").compress(0)
    submit(store, orphan)
    wait(lambda: status(store, orphan).state == "failed")
    assert "needs this run, which is missing" in status(store, orphan).reason


def test_what_sbatch_refuses_is_said(slurm: Cluster, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "snp", "launch", "table1", "--scale", "smoke", "--out", tmp_path,
                           "--partition", "nowhere"], cwd=REPOSITORY, capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 2 and "invalid partition" in done.stderr
    assert records(Store(tmp_path)) == []


def test_tasks_on_two_nodes_meet_at_the_first_host(slurm: Cluster, tmp_path: Path) -> None:
    work = tmp_path / "work.py"
    work.write_text("""\
import os, torch, torch.distributed as dist
rank, world = int(os.environ["SLURM_PROCID"]), int(os.environ["SLURM_NTASKS"])
dist.init_process_group("gloo", rank=rank, world_size=world)
total = torch.tensor([rank + 1.0])
dist.all_reduce(total)
print(os.environ["SLURMD_NODENAME"], int(total), flush=True)
""")
    instead = tmp_path / "python"  # of `python -m snp ...`
    instead.write_text(f"#!/bin/sh\nexec {sys.executable} {work}\n")
    instead.chmod(0o755)
    slurm.run("sbatch", "--wait", "-p", "two", "-N2", "--mem=2G", f"--output={tmp_path}/job.log",
              f"--export=ALL,PYTHON={instead}", "slurm/mdetr_pretrain.sh", check=True)  # fmt: skip
    assert {"n1 3", "n2 3"} <= {*(tmp_path / "job.log").read_text().splitlines()}
