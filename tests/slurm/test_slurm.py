"""Launching, watching and ending jobs on a real SLURM, at smoke scale."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from getpass import getuser
from pathlib import Path

import pytest
import torch
from cluster import ELEMENTS, NODES, REPOSITORY, Cluster

from snp.data.drawn.folder import making
from snp.experiment.labels import find
from snp.experiment.recipes import phase_of
from snp.experiment.resources import RESOURCES, Resources
from snp.experiment.spec import Run
from snp.experiment.tables import rows
from snp.launch.arrays import Array, Draw, arrays
from snp.launch.runner import planned
from snp.launch.slurm import array_limit, slurm_jobs
from snp.launch.snapshot import freeze
from snp.launch.status import Status, cancel, statuses
from snp.launch.submit import Launch, resources
from snp.launch.work import Place
from snp.runs.store import Store
from snp.runs.submitted import drawing, launch_folder, log_file, records
from snp.training.setup import Setup

LONG = Setup(steps=20, batch=32)
"""A pre-training of desk scale on few scenes, whose steps take long enough for something to happen between them."""
PRETRAIN, PRETRAIN_SMOKE = (find("scenes/snp@60", scale).pretrain for scale in ("desk", "smoke"))
ASKED = RESOURCES["smoke"]["pretrain"]
BESIDE = Resources(partition="two", sbatch=(f"nodelist={NODES[1]}",))
"""A node that most tests do not use."""


def begin(checkout: Path, *arguments: object) -> "subprocess.Popen[str]":
    """Start the command in a checkout."""
    command = [sys.executable, "-m", "snp", *map(str, arguments)]
    return subprocess.Popen(command, cwd=checkout, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def snp(*arguments: object, checkout: Path = REPOSITORY) -> str:
    """What the command prints."""
    process = begin(checkout, *arguments)
    said, problem = process.communicate(timeout=120)
    assert process.returncode == 0, problem
    return said


def git(folder: Path, *arguments: str) -> str:
    """What git says in a folder."""
    command = ["git", "-c", "user.name=x", "-c", "user.email=x", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


def until(ready: Callable[[], bool], seconds: float = 120) -> None:
    """Wait."""
    limit = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < limit, f"not within {seconds} s"
        time.sleep(0.3)


def wait(store: Store, run: Run, ready: Callable[[Status], bool], seconds: float = 120) -> Status:
    """The status of a run as soon as it is `ready`, or has ended otherwise."""
    limit = time.monotonic() + seconds
    while not ready(now := statuses([run], store)[0]):
        assert now.state not in ("done", "failed") and time.monotonic() < limit, now
        time.sleep(0.3)
    return now


def trials(folder: Path, setup: Setup = LONG) -> Store:
    """The store of a trial, which is all of `folder`."""
    return Store(folder, trial=setup.trial)


def submit(store: Store, run: Run, resources: Resources = ASKED, setup: Setup = LONG, warning: int = 90) -> str:
    """Submit one run; the number of its job."""
    launch = Launch(store, Place.from_setup(store, setup), parallelism=1, warning=warning)
    [(_, record, _)] = launch.slurm([Array(((run,),), resources)], {})
    return record.job


def sbatch(folder: Path, out: Path, script: str, *options: str, **variables: object) -> str:
    """Submit one of the scripts in a folder, at smoke scale where `variables` name no other; the number of its job."""
    given = {"SCALE": "smoke", "OUT": out, "PYTHON": sys.executable} | variables
    export = ",".join(["ALL", *(f"{name}={value}" for name, value in given.items())])
    command = ["sbatch", *options, f"--export={export}", script]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert "Submitted batch job" in done.stdout and done.returncode == 0, done.stderr
    return done.stdout.split()[-1]


def logged(store: Store, run: Run) -> list[int]:
    """Steps in the run's log, as written."""
    path = store.folder(run) / "log.jsonl"
    return [json.loads(line)["step"] for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean checkout of this code."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("snp", "baselines", "slurm"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", ".gitignore"):
        shutil.copy(REPOSITORY / name, folder)
    for command in (("init",), ("add", "."), ("commit", "-m", "all")):
        git(folder, *command)
    return folder


@pytest.fixture(scope="module")
def stuck(slurm: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A run whose job is up before its first step, again and again: it waits for data that somebody makes for ever."""
    store, data = trials(tmp_path_factory.mktemp("stuck")), tmp_path_factory.mktemp("data")
    with making(data / "scenes-desk"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SNP_DATA", str(data))
            submit(store, PRETRAIN, ASKED.overridden(BESIDE).overridden(Resources(time="1")), warning=50)
        yield store


@pytest.fixture(scope="module")
def out_of_time(slurm: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A run that is longer than its job may be. SLURM looks at limits every half minute, and so warns within the first
    one, when the run has begun; other tests go on meanwhile."""
    setup = Setup(steps=5000, batch=32)
    store = trials(tmp_path_factory.mktemp("out_of_time"), setup)
    submit(store, PRETRAIN, ASKED.overridden(BESIDE).overridden(Resources(time="1")), setup, warning=5)
    return store


def test_a_script_ends_in_a_done_run_and_a_row_of_its_table_and_leaves_the_checkout_clean(
    slurm: Cluster, out_of_time: Store, stuck: Store, checkout: Path, tmp_path: Path
) -> None:
    sbatch(checkout / "slurm", tmp_path, "glip_coco.sh", "--wait", "--mem=3G")  # from inside its folder
    store, row = Store(tmp_path), find("scenes/snp@60:coco", "smoke")
    assert [store.state(run) for run in row.runs(0)] == ["done"] * 4
    assert "| snp " in snp("table", "table4", "--format", "markdown", "--scale", "smoke", "--out", tmp_path)

    [log] = (checkout / ".runs" / "logs").iterdir()
    assert log.name.startswith("glip-coco-") and b"done: " in log.read_bytes()  # its bars are cut within letters
    assert git(checkout, "status", "--porcelain") == ""
    said = [store.result(run).manifest for run in row.runs(0)]
    head = git(checkout, "rev-parse", "HEAD").strip()
    assert {(manifest["commit"], manifest["dirty"]) for manifest in said} == {(head, False)}


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


def test_a_cancelled_run_is_saved_and_its_dependents_end_with_it(
    slurm: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ["table3", "--data", "scenes", "--seeds", "0", "--out", tmp_path]
    same = [*given, "--steps", LONG.steps, "--batch", LONG.batch]
    store = trials(tmp_path / LONG.trial.name)
    runs = list(dict.fromkeys(run for row in rows("table3", "desk") if row.data == "scenes" for run in row.runs(0)))
    snp("launch", *same, "--mem", "3G")
    wait(store, PRETRAIN, lambda now: bool(now.progress))
    assert [(one.state, one.reason) for one in statuses(runs, store)] == [
        ("running", ""),
        *[("queued", "waits: Dependency")] * (len(runs) - 1),
    ]
    assert [one.run for one in cancel(statuses([PRETRAIN], store), store)] == [PRETRAIN]

    assert wait(store, PRETRAIN, lambda now: now.state == "failed").reason == "cancelled"
    assert (store.folder(PRETRAIN) / "state.pt").exists()
    for run in runs:  # arrays, which were never split
        wait(store, run, lambda now: now.state == "failed")
    assert {one.reason for one in statuses(runs, store)[1:]} == {f"not begun: {PRETRAIN.name} did not end well"}
    assert snp("status", *same).splitlines()[-1] == f"{len(runs)} failed"
    with monkeypatch.context() as patch:  # in accounting they are one line
        (hidden := tmp_path / "squeue").write_text("#!/bin/sh\n")
        hidden.chmod(0o755)
        patch.setenv("PATH", f"{tmp_path}:{slurm.environment['PATH']}")
        numbers = {job for record in records(store) for job in record.runs.values()}
        ended = lambda: {number: job.state for number, job in slurm_jobs(numbers).items()}  # noqa: E731
        until(lambda: ended() == dict.fromkeys(numbers, "CANCELLED"))

    snp("launch", *same, "--mem", "3G")
    assert "nothing to cancel" in snp("cancel", *given), "a trial is no run"
    assert snp("cancel", *same).count("cancelled: ") == len(runs)
    for run in runs:
        wait(store, run, lambda now: now.state == "failed")


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
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "snp",
            "launch",
            "table1",
            "--scale",
            "smoke",
            "--out",
            tmp_path,
            "--partition",
            "nowhere",
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "invalid partition" in done.stderr
    assert records(Store(tmp_path)) == []


def test_tasks_on_two_nodes_train_together_and_go_on_with_the_same_code_when_they_are_requeued(
    slurm: Cluster, checkout: Path, tmp_path: Path
) -> None:
    setup = Setup(steps=30, batch=32)
    longer = tmp_path / "python"
    longer.write_text(
        f'#!/bin/sh\ncase "$*" in *pretrain*) set -- "$@" --steps 30 --batch 32;; esac\nexec {sys.executable} "$@"\n'
    )
    longer.chmod(0o755)
    two = ("-p", "two", "-N2", "--mem=2G", f"--output={tmp_path}/job.log")
    job = sbatch(checkout, tmp_path, "slurm/mdetr_pretrain.sh", *two, SCALE="desk", PYTHON=longer)
    store = trials(tmp_path / setup.trial.name, setup)
    wait(store, PRETRAIN, lambda now: bool(now.progress))
    (checkout / "snp" / "__init__.py").write_text("raise SystemExit('the checkout has moved on')")
    slurm.run("scancel", "--signal=USR1", job, check=True)
    until(lambda: "Restarts=1" in slurm.run("scontrol", "show", "job", job))
    assert (store.folder(PRETRAIN) / "state.pt").exists()
    wait(store, PRETRAIN, lambda now: now.state == "done")
    git(checkout, "checkout", "snp/__init__.py")
    assert logged(store, PRETRAIN) == [*range(1, 31)], "steps were lost or done twice"
    manifest = store.result(PRETRAIN).manifest
    assert (manifest["processes"], manifest["dirty"]) == (2, False)
    until(lambda: "COMPLETED" in slurm.run("sacct", "-X", "-n", "-j", job, "--format=State"))
    assert (tmp_path / "job.log").read_bytes().count(b"done: ") == 1, "one of them speaks"
    nodes = slurm.run("sacct", "-X", "--noheader", "-j", job, "--format=NodeList").strip()
    assert tuple(slurm.run("scontrol", "show", "hostnames", nodes).split()) == NODES


def test_a_run_that_comes_to_no_step_is_not_requeued_for_ever(slurm: Cluster, stuck: Store) -> None:
    ended = wait(stuck, PRETRAIN, lambda now: now.state == "failed")
    assert "came no step further between two requeues: its time limit is too short" in ended.reason
    assert "Restarts=1" in slurm.run("scontrol", "show", "job", ended.job)


def test_a_table_that_two_checkouts_launch_into_one_folder_and_that_crashes_is_done_once(
    slurm: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SNP_DATA", str(tmp_path / "data"))  # nothing is drawn yet
    monkeypatch.setenv("SNP_SAVE_EVERY", "0")
    store, chosen = Store(tmp_path / "runs"), rows("table3", "smoke")
    runs = list(dict.fromkeys(run for row in chosen for run in row.runs(0)))
    compressions = [run for run in runs if run.kind == "compress"]
    # equal code is frozen once: the mark put on the copy that is there comes back with every result
    code = freeze(launch_folder(store) / "code")
    other = Path(shutil.copytree(code, tmp_path / "checkout"))
    (code / "code.json").write_text('{"commit": "frozen", "dirty": false}')

    launch = ["launch", "table3", "--scale", "smoke", "--out", store.root]
    both = [begin(checkout, *launch) for checkout in (REPOSITORY, other)]
    said = sorted((process.communicate(timeout=120) for process in both), key=lambda texts: "waits for" not in texts[0])
    assert "another launch submits runs of it" in said[1][1] or "nothing to submit: " in said[1][0]
    lines = said[0][0].splitlines()[2:-2]
    assert [line.split()[1] for line in lines][:4] == ["snp-data-scenes-smoke", "snp-pretrain", *["snp-compress"] * 2]
    sizes = [int(line.split()[2]) for line in lines]
    assert sum(sizes) == len(runs) and max(sizes) == ELEMENTS == array_limit(), "more were split"
    every = [slug for record in records(store) for slug in record.runs]
    assert sorted(every) == sorted([drawing(PRETRAIN_SMOKE), *(run.slug for run in runs)])
    # another table wants the same data at the same time
    draw = Draw.for_run(PRETRAIN_SMOKE, BESIDE)
    draw = replace(draw, resources=draw.resources.overridden(Resources(cpus=1)))
    second = Store(tmp_path / "second")
    [(_, beside, _)] = Launch(second, Place.from_setup(second, Setup()), 1).slurm([draw], {})

    until(lambda: sum(store.state(run) == "done" for run in compressions) >= 2)
    drew = [log_file(store, records(store)[0].job), log_file(second, beside.job)]
    assert sorted(b"drawing scenes" in log.read_bytes() for log in drew) == [False, True], "it was drawn twice"
    assert slurm_jobs({beside.job})[beside.job].state == "COMPLETED"

    slurm.run("scancel", f"--user={getuser()}", "--state=PENDING")
    slurm.run("scancel", f"--user={getuser()}", "--signal=KILL")
    until(lambda: not slurm.run("squeue", "--noheader"))
    whole = {run: (store.folder(run) / "result.json").stat().st_mtime_ns for run in runs if store.settled(run)}
    before = {run: logged(store, run) for run in runs}
    assert 3 <= len(whole) < len(runs)
    snp(*launch, "--chains", checkout=other)
    again = [slug for record in records(store) for slug in record.runs][len(every) :]
    assert sorted(again) == sorted(run.slug for run in runs if run not in whole), "what is done is not submitted again"
    # and all once more, as by somebody who does not see these jobs
    left = planned(chosen, (0,), store)
    asked = arrays(resources(chosen, left, Resources()), {}, array_limit(), chained=True)
    twice = [record.job for _, record, _ in Launch(store, Place.from_setup(store, Setup()), 256).slurm(asked, {})]

    for run in runs:
        wait(store, run, lambda now: now.state == "done", seconds=300)
    until(lambda: not slurm.run("squeue", "--noheader"))

    def ended() -> set[str]:
        return {*slurm.run("sacct", "-X", "--noheader", f"--jobs={','.join(twice)}", "--format=State").split()}

    until(lambda: "RUNNING" not in ended())  # accounts come after the queue
    assert ended() == {"COMPLETED"}, "who finds a run busy or done ends well"
    for run in runs:
        if run in whole:
            assert whole[run] == (store.folder(run) / "result.json").stat().st_mtime_ns, "done twice"
        steps = logged(store, run)
        assert steps.count(phase_of(run).steps) == 1, "trained twice"
        if not before[run] or run in whole:
            assert steps == sorted({*steps}), "steps were done twice"
    found = [store.result(run).manifest for run in runs]
    assert {(manifest["commit"], manifest["dirty"]) for manifest in found} == {("frozen", False)}
    assert "nothing to submit: all runs are done" in snp(*launch)
    assert f"{len(runs)} done" in snp("status", *launch[1:])
    table = snp("table", *launch[1:], "--format", "markdown")
    assert all(f"| {row.name} " in table for row in chosen)
