"""Launching, watching and ending jobs on a real SLURM, at smoke scale."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from cluster import ELEMENTS, NODES, REPOSITORY, Cluster

from snp.experiment.jobs import Status, array_limit, cancel, launch_folder, records, statuses
from snp.experiment.launch import Array, Launch
from snp.experiment.resources import RESOURCES, Resources
from snp.experiment.setup import Setup
from snp.experiment.snapshot import freeze
from snp.experiment.spec import dense
from snp.experiment.store import AnyRun, Store
from snp.experiment.tables import find, rows
from snp.experiment.work import Place

LONG = Setup(steps=20, batch=32)
"""A pre-training of desk scale on few scenes, whose steps take long enough for something to happen between them."""
PRETRAIN = find("scenes/snp@60", "desk").pretrain
ASKED = RESOURCES["smoke"]["pretrain"]


def snp(*arguments: object) -> str:
    """What the command prints."""
    command = [sys.executable, "-m", "snp", *map(str, arguments)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def wait(store: Store, run: AnyRun, ready: Callable[[Status], bool], seconds: float = 120) -> Status:
    """The status of a run as soon as it is `ready`, or has ended otherwise."""
    limit = time.monotonic() + seconds
    while not ready(now := statuses([run], store)[0]):
        assert now.state not in ("done", "failed") and time.monotonic() < limit, now
        time.sleep(0.3)
    return now


def trials(folder: Path, setup: Setup = LONG) -> Store:
    """The store of a trial, which is all of `folder`."""
    return Store(folder, trial=setup.trial)


def submit(store: Store, run: AnyRun, resources: Resources = ASKED, setup: Setup = LONG, warning: int = 90) -> str:
    """Submit one run; the number of its job."""
    launch = Launch(store, Place.of(store, setup), parallelism=1, warning=warning)
    [(_, record, _)] = launch.slurm([Array(((run,),), resources)], {})
    return record.job


def sbatch(slurm: Cluster, out: Path, script: str, *options: str, **variables: object) -> str:
    """Submit one of the project's scripts, at smoke scale where `variables` name no other; the number of its job."""
    given = {"SCALE": "smoke", "OUT": out, "PYTHON": sys.executable} | variables
    export = ",".join(["ALL", *(f"{name}={value}" for name, value in given.items())])
    said = slurm.run("sbatch", *options, f"--output={out}/job.log", f"--export={export}", script, check=True)
    assert "Submitted batch job" in said
    return said.split()[-1]


def logged(store: Store, run: AnyRun) -> list[int]:
    """Steps in the run's log, as written."""
    path = store.folder(run) / "log.jsonl"
    return [json.loads(line)["step"] for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture(scope="module")
def out_of_time(slurm: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A run that is longer than its job may be. SLURM looks at limits every half minute, and so warns within the first
    one, when the run has begun; other tests go on meanwhile."""
    setup = Setup(steps=5000, batch=32)
    store = trials(tmp_path_factory.mktemp("out_of_time"), setup)
    submit(store, PRETRAIN, ASKED.overridden(Resources(time="1")), setup, warning=5)
    return store


def test_a_script_ends_in_a_done_run_and_a_row_of_its_table(
    slurm: Cluster, out_of_time: Store, tmp_path: Path
) -> None:
    sbatch(slurm, tmp_path, "slurm/glip_coco.sh", "--wait", "--mem=3G")
    store, row = Store(tmp_path), find("scenes/snp@60:coco", "smoke")
    assert [store.state(run) for run in row.runs(0)] == ["done"] * 4
    assert "| snp " in snp("table", "table4", "--scale", "smoke", "--out", tmp_path)


def test_a_run_that_slurm_requeues_goes_on_from_its_last_step(slurm: Cluster, tmp_path: Path) -> None:
    store = trials(tmp_path)
    job = submit(store, PRETRAIN)
    assert wait(store, PRETRAIN, lambda now: bool(now.progress)).state == "running"
    slurm.run("scontrol", "requeue", job, check=True)
    wait(store, PRETRAIN, lambda now: now.state == "queued")
    assert (store.folder(PRETRAIN) / "state.pt").exists()
    wait(store, PRETRAIN, lambda now: now.state == "done")
    assert logged(store, PRETRAIN) == [*range(1, LONG.steps + 1)], "steps were lost or done twice"
    assert "Restarts=1" in slurm.run("scontrol", "show", "job", job)


def test_a_run_whose_time_is_up_saves_and_is_requeued(out_of_time: Store) -> None:
    [record] = records(out_of_time)
    output = launch_folder(out_of_time) / "jobs" / f"{record.job}_0_log.out"
    wait(out_of_time, PRETRAIN, lambda _: output.exists() and "Job has timed out" in output.read_text())
    wait(out_of_time, PRETRAIN, lambda now: now.state == "queued")
    before = len(logged(out_of_time, PRETRAIN))
    wait(out_of_time, PRETRAIN, lambda _: len(logged(out_of_time, PRETRAIN)) > before)
    cancel(statuses([PRETRAIN], out_of_time), out_of_time)
    steps = logged(out_of_time, PRETRAIN)
    assert before > 0 and steps == [*range(1, len(steps) + 1)], "steps were lost or done twice"


def test_a_cancelled_run_is_saved_and_its_dependents_end_with_it(slurm: Cluster, tmp_path: Path) -> None:
    store, child = trials(tmp_path), find("scenes/snp@60", "desk").compress(0)
    launch = Launch(store, Place.of(store, LONG), parallelism=1)
    parent, _ = launch.slurm([Array(((PRETRAIN,),), ASKED), Array(((child,),), ASKED)], {})
    wait(store, PRETRAIN, lambda now: bool(now.progress))
    assert [(one.state, one.reason) for one in statuses([PRETRAIN, child], store)] == [
        ("running", ""), ("queued", "waits: Dependency")
    ]  # fmt: skip
    assert [one.run for one in cancel(statuses([PRETRAIN], store), store)] == [PRETRAIN]

    assert wait(store, PRETRAIN, lambda now: now.state == "failed").reason == "cancelled"
    assert (store.folder(PRETRAIN) / "state.pt").exists()
    assert wait(store, child, lambda now: now.state == "failed").job != parent[1].job
    assert statuses([PRETRAIN, child], store)[1].reason == f"not begun: {PRETRAIN.name} did not end well"


def test_a_run_whose_node_fails_is_requeued_and_goes_on_from_what_was_saved(
    slurm: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SNP_SAVE_EVERY", "2")
    store = trials(tmp_path, setup := Setup(steps=100, batch=32))
    job = submit(store, PRETRAIN, setup=setup)
    wait(store, PRETRAIN, lambda now: bool(now.progress))
    time.sleep(12)  # SLURM takes a job for lost only where it began 11 s ago
    slurm.crash(NODES[0], job)
    saved = torch.load(store.folder(PRETRAIN) / "state.pt", weights_only=True)["step"]
    before = logged(store, PRETRAIN)
    assert 0 < saved <= before[-1] < setup.steps and before == [*range(1, before[-1] + 1)]
    wait(store, PRETRAIN, lambda now: "Restarts=1" in slurm.run("scontrol", "show", "job", job))
    wait(store, PRETRAIN, lambda now: now.state == "done")
    assert logged(store, PRETRAIN) == [*before, *range(saved + 1, setup.steps + 1)], "it went on from elsewhere"
    assert f"{job}|NODE_FAIL" in slurm.run("sacct", "-j", job, "--duplicates", "-P", "--format=JobID,State")


def test_a_job_killed_for_its_memory_is_reported_as_such(slurm: Cluster, tmp_path: Path) -> None:
    store = trials(tmp_path)
    submit(store, PRETRAIN, ASKED.overridden(Resources(mem="200M")))
    assert wait(store, PRETRAIN, lambda now: now.state == "failed").reason == "out of memory: ask for more with --mem"


def test_a_run_that_raises_says_why(slurm: Cluster, tmp_path: Path) -> None:
    store, orphan = trials(tmp_path), find("scenes/snp@60", "desk").compress(0)
    submit(store, orphan)
    assert "needs this run, which is missing" in wait(store, orphan, lambda now: now.state == "failed").reason


def test_what_sbatch_refuses_is_said(slurm: Cluster, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "snp", "launch", "table1", "--scale", "smoke", "--out", tmp_path,
                           "--partition", "nowhere"], cwd=REPOSITORY, capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 2 and "invalid partition" in done.stderr
    assert records(Store(tmp_path)) == []


def test_tasks_on_two_nodes_meet_and_train_together(slurm: Cluster, tmp_path: Path) -> None:
    job = sbatch(slurm, tmp_path, "slurm/mdetr_pretrain.sh", "--wait", "-p", "two", "-N2", "--mem=2G")
    assert Store(tmp_path).result(dense("smoke", "scenes")).manifest["processes"] == 2
    printed = (tmp_path / "job.log").read_text()
    assert printed.count("done: ") == 1, "one of them speaks"
    nodes = slurm.run("sacct", "-X", "--noheader", "-j", job, "--format=NodeList").strip()
    assert tuple(slurm.run("scontrol", "show", "hostnames", nodes).split()) == NODES


def test_tasks_on_two_nodes_that_are_asked_to_stop_are_requeued_and_go_on(slurm: Cluster, tmp_path: Path) -> None:
    longer = tmp_path / "python"
    longer.write_text(f'#!/bin/sh\nexec {sys.executable} "$@" --steps 60 --batch 32\n')
    longer.chmod(0o755)
    two = ("-p", "two", "-N2", "--mem=2G")
    job = sbatch(slurm, tmp_path, "slurm/mdetr_pretrain.sh", *two, SCALE="desk", PYTHON=longer)
    setup = Setup(steps=60, batch=32)
    store = trials(tmp_path / setup.trial.name, setup)
    wait(store, PRETRAIN, lambda now: bool(now.progress))
    slurm.run("scancel", "--signal=USR1", job, check=True)
    wait(store, PRETRAIN, lambda now: "Restarts=1" in slurm.run("scontrol", "show", "job", job))
    assert (store.folder(PRETRAIN) / "state.pt").exists()
    wait(store, PRETRAIN, lambda now: now.state == "done")
    assert logged(store, PRETRAIN) == [*range(1, 61)], "steps were lost or done twice"


def test_a_table_is_launched_once_and_finished(slurm: Cluster, tmp_path: Path) -> None:
    store = Store(tmp_path)
    runs = list(dict.fromkeys(run for row in rows("table1", "smoke") for run in row.runs(0)))
    # equal code is frozen once: the mark put on the copy that is there comes back with every result
    code = freeze(launch_folder(store) / "code")
    (code / "code.json").write_text('{"commit": "frozen", "dirty": false}')

    launch = ["launch", "table1", "--scale", "smoke", "--out", tmp_path]
    lines = snp(*launch).splitlines()[2:-2]
    assert [line.split()[1] for line in lines][:3] == ["snp-pretrain", "snp-compress", "snp-compress"]
    sizes = [int(line.split()[2]) for line in lines]
    assert sum(sizes) == len(runs) and max(sizes) == ELEMENTS == array_limit(), "more were split"
    assert any("afterok" in line for line in lines)
    assert "nothing to submit: " in snp(*launch)  # the first may be done by now

    for run in runs:
        wait(store, run, lambda now: now.state == "done", seconds=900)  # the first may be queued behind all others
    assert {store.result(run).manifest["commit"] for run in runs} == {"frozen"}
    assert "nothing to submit: 0 runs are queued or running" in snp(*launch)
    assert f"{len(runs)} done" in snp("status", "table1", "--scale", "smoke", "--out", tmp_path)
    assert len(records(store)) == len(lines)
    table = snp("table", "table1", "--scale", "smoke", "--out", tmp_path)
    assert all(f"| {row.name} " in table for row in rows("table1", "smoke"))
