"""Rows to arrays of jobs, their sbatch scripts, and what became of them: all that needs no SLURM."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
import standin
from processes import alive
from synthetic import fill

from snp.bench import planning as bench_plan
from snp.cli import main
from snp.errors import InputError
from snp.experiment.labels import find
from snp.experiment.resources import Resources
from snp.experiment.rows import Row
from snp.experiment.tables import rows
from snp.launch.arrays import Array, Draw, arrays
from snp.launch.runner import planned
from snp.launch.slurm import ELEMENTS, Job, array_limit, slurm_jobs
from snp.launch.snapshot import freeze
from snp.launch.status import cancel, live, statuses
from snp.launch.submit import Launch, resources
from snp.launch.work import Place
from snp.runs.manifest import code_state
from snp.runs.owner import Owner
from snp.runs.store import Store
from snp.runs.submitted import keep, launch_folder, launching, records
from snp.training.setup import Setup

SNP, OMP = find("scenes/snp@60", "smoke"), find("scenes/magnitude@60", "smoke")


def plan(chosen: Sequence[Row], store: Store, queued: dict[str, str] | None = None) -> list[Array]:
    todo = planned(chosen, None, store)
    return arrays(resources(chosen, todo, Resources()), queued or {})


def launch(store: Store) -> Launch:
    return Launch(store, Place.from_setup(store, Setup()), parallelism=1)


def test_runs_of_a_kind_are_one_array_and_a_fine_tuning_stands_beside_its_compression(tmp_path: Path) -> None:
    pretrain, compress, *finetune = plan([SNP, OMP], Store(tmp_path))
    assert (pretrain.runs, compress.runs) == ((SNP.pretrain,), (SNP.compress(0), OMP.compress(0)))
    assert [array.runs for array in finetune] == [
        (SNP.finetune(0, benchmark), OMP.finetune(0, benchmark)) for benchmark in SNP.benchmarks
    ]
    jobs = pretrain.numbers("5") | compress.numbers("6")
    assert pretrain.waits_for({}) is None
    assert compress.waits_for(jobs) == "afterok:5"
    assert {array.waits_for(jobs) for array in finetune} == {"aftercorr:6"}


def test_compressions_with_other_benchmarks_to_come_are_another_array(tmp_path: Path) -> None:
    one = OMP.model_copy(update={"benchmarks": OMP.benchmarks[:1]})
    planned = plan([SNP, one], Store(tmp_path))
    assert [len(array.runs) for array in planned] == [1, 1, 1, 1, 1, 1, 1]
    jobs = {slug: str(i) for i, array in enumerate(planned) for slug in array.numbers("")}
    assert all(array.waits_for(jobs) == f"afterok:{jobs[array.runs[0].parent.slug]}" for array in planned[1:])


def test_the_tower_model_of_the_other_one_is_waited_for(tmp_path: Path) -> None:
    first, second, *_ = plan(rows("table4", "smoke"), Store(tmp_path))
    assert second.runs[0].parent == first.runs[0]
    assert second.waits_for(first.numbers("3")) == "afterok:3"


def test_a_student_waits_for_its_teacher_too(tmp_path: Path) -> None:
    student = find("scenes/snp@60+dual", "smoke")
    run = student.finetune(0, "refcoco")
    planned = plan([SNP, student], Store(tmp_path))
    jobs = {slug: number for i, array in enumerate(planned) for slug, number in array.numbers(str(i)).items()}
    assert planned[-1].runs == (run,) and run.teacher is not None
    assert planned[-1].waits_for(jobs) == f"afterok:{jobs[run.parent.slug]}:{jobs[run.teacher.slug]}"
    assert planned[-1].waits_for({run.teacher.slug: "7"}) == "afterok:7" and planned[-1].waits_for({}) is None


def test_what_is_queued_is_waited_for_and_not_submitted_again(tmp_path: Path) -> None:
    queued = {SNP.pretrain.slug: "5", SNP.compress(0).slug: "6_0"}
    planned = plan([SNP, OMP], Store(tmp_path), queued)
    assert not {run.slug for array in planned for run in array.runs} & queued.keys()
    waits = {array.runs[0].slug: array.waits_for(queued) for array in planned}
    assert waits[OMP.compress(0).slug] == "afterok:5"
    assert waits[SNP.finetune(0, "refcoco").slug] == "afterok:6_0"


def test_what_is_done_is_not_waited_for(tmp_path: Path) -> None:
    store = Store(tmp_path)
    fill(store, SNP, [0.9])
    (store.folder(SNP.finetune(0, "refcoco")) / "result.json").unlink()
    (store.folder(SNP.compress(0)) / "weights.safetensors").touch()
    (only,) = [array for array in plan([SNP], store) if array.runs[0].kind == "finetune"]
    assert only.runs == (SNP.finetune(0, "refcoco"),) and only.waits_for({}) is None


def holds(planned: Sequence[Array], queued: dict[str, str]) -> None:
    """Each run of arrays waits for its own parent, where that is still to come."""
    known = dict(queued)
    for number, array in enumerate(planned, 1000):
        waits = array.waits_for(known)
        for index, run in enumerate(array.runs):
            parent = known.get(run.parent.slug) if run.parent is not None else None
            if waits is None:
                assert parent is None
            elif waits.startswith("aftercorr:"):
                assert parent == f"{waits.removeprefix('aftercorr:')}_{index}"
            else:
                assert f"afterok:{parent}" == waits
        known |= array.numbers(str(number))


@pytest.mark.slow
@pytest.mark.parametrize("limit", [1, 2, 3, 7, 24, 1001])
def test_arrays_are_as_long_as_slurm_takes_them_and_each_run_waits_for_its_own_parent(
    tmp_path: Path, limit: int
) -> None:
    chosen, store = rows("table1", "smoke"), Store(tmp_path)
    todo = planned(chosen, (0, 1), store)
    asked = resources(chosen, todo, Resources())
    found = arrays(asked, {}, limit)
    assert max(len(array.runs) for array in found) <= limit
    assert sorted(run.slug for array in found for run in array.runs) == sorted(run.slug for run in todo)
    holds(found, {})
    assert len(found) == sum(-(-len(array.runs) // limit) for array in arrays(asked, {}))


@pytest.mark.slow
@pytest.mark.parametrize("limit", [3, 1001])
@pytest.mark.parametrize("submitted", [1, 2, 3, 4])
def test_what_comes_later_waits_for_the_elements_that_are_queued(tmp_path: Path, submitted: int, limit: int) -> None:
    chosen, store = rows("table1", "smoke"), Store(tmp_path)
    asked = resources(chosen, planned(chosen, (0,), store), Resources())
    queued: dict[str, str] = {}
    for number, array in enumerate(arrays(asked, {}, limit)[:submitted], 500):
        queued |= array.numbers(str(number))
    left = arrays(asked, queued, limit)
    holds(left, queued)
    assert not {run.slug for array in left for run in array.runs} & queued.keys()
    # nothing was lost of arrays, as what is queued is as it was submitted
    assert len(left) == len(arrays(asked, {}, limit)) - submitted
    # of an array that is queued in part, or in another order, each waits for itself
    first = next(slug for slug, job in queued.items() if job.endswith("_0")) if submitted > 1 else None
    queued.pop(first, None)
    holds(arrays(asked, queued, limit), queued)


def test_a_fine_tuning_that_is_queued_already_does_not_shift_the_others(tmp_path: Path) -> None:
    queued = {SNP.pretrain.slug: "5", SNP.finetune(0, "refcoco").slug: "9"}
    holds(plan([SNP, OMP], Store(tmp_path), queued), queued)


def test_resources_are_those_of_scale_and_kind_but_for_what_the_row_or_the_user_says() -> None:
    row = find("real/snp@60", "paper").model_copy(update={"asks": Resources(mem="96G")})
    run = row.compress(0)
    given = resources([row], [run], Resources(time="2-12:00:00", gpus=4))[run]
    assert (given.mem, given.cpus, given.gpus, given.minutes) == ("96G", 8, 4, 3600)
    assert given.slurm() | {"gpus_per_node": 4, "ntasks_per_node": 4, "time": 3600} == given.slurm()


def test_rows_of_glip_at_paper_scale_ask_for_eight_gpus() -> None:
    row = find("real/snp@60:coco", "paper")
    for run in row.runs(0):
        asked = row.resources(run).slurm()
        assert (asked["gpus_per_node"], asked["ntasks_per_node"], asked["nodes"], asked["mem"]) == (8, 8, 1, "256G")
    for other in (find("real/snp@60", "paper"), find("real/snp@60:gqa", "paper")):
        assert all(other.resources(run).gpus == 1 for run in other.runs(0))
    assert find("scenes/snp@60:coco", "desk").asks == Resources()


@pytest.mark.parametrize("time", ["3", "0"])
def test_a_limit_that_leaves_time_for_a_step_is_taken(tmp_path: Path, time: str) -> None:
    todo = planned([SNP], None, Store(tmp_path))
    launch(Store(tmp_path)).look_at_time(arrays(resources([SNP], todo, Resources(time=time)), {}))


def test_runs_wait_for_their_data_where_no_other_run_is_waited_for(tmp_path: Path) -> None:
    store = Store(tmp_path)
    drawing = Draw.for_run(SNP.pretrain, Resources(partition="cheap", gpus=8, time="5"))
    assert (drawing.resources.partition, drawing.resources.gpus, drawing.resources.minutes) == ("cheap", None, 120)
    pretrain, compress, *_ = plan([SNP, OMP], store)
    jobs = drawing.numbers("4")
    assert pretrain.waits_for(jobs) == "afterok:4"
    assert compress.waits_for(jobs) == "afterok:4", "as where the dense model is there"
    assert compress.waits_for(jobs | pretrain.numbers("5")) == "afterok:5"


def test_a_compression_and_its_fine_tunings_may_be_one_job(tmp_path: Path) -> None:
    store = Store(tmp_path)
    todo = planned([SNP, OMP], (0,), store)
    asked = resources([SNP, OMP], todo, Resources())
    pretrain, chains = arrays(asked, {}, chained=True)
    assert chains.chains == tuple(tuple(row.runs(0)[1:]) for row in (SNP, OMP))
    assert (chains.name, chains.waits_for(pretrain.numbers("5"))) == ("snp-compress-finetune", "afterok:5")
    assert set(chains.numbers("6").values()) == {"6_0", "6_1"} and len(chains.numbers("6")) == 8

    queued = pretrain.numbers("5") | {SNP.compress(0).slug: "6_0", OMP.compress(0).slug: "6_1"}
    [rest] = arrays(asked, queued, chained=True)
    assert (rest.name, rest.waits_for(queued)) == ("snp-finetune", "aftercorr:6")
    assert rest.chains == tuple(tuple(row.runs(0)[2:]) for row in (SNP, OMP))


@pytest.mark.parametrize("limit", [1, 3, 1001])
def test_a_fine_tuning_that_asks_for_more_than_its_compression_is_no_part_of_the_chain(
    tmp_path: Path, limit: int
) -> None:
    chosen, store = rows("table1", "smoke"), Store(tmp_path)
    todo = planned(chosen, (0, 1), store)
    asked = {run: Resources(mem="8G" if run.kind == "finetune" and i % 3 else "4G") for i, run in enumerate(todo)}
    found = arrays(asked, {}, limit, chained=True)
    assert sorted(run.slug for array in found for run in array.runs) == sorted(run.slug for run in todo)
    assert all({asked[run] for run in array.runs} == {array.resources} for array in found)
    known: dict[str, str] = {}
    for number, array in enumerate(found, 1000):
        waits = array.waits_for(known)
        for index, (head, *_) in enumerate(array.chains):
            parent = known.get(head.parent.slug) if head.parent is not None else None
            element = {f"afterok:{parent}", f"aftercorr:{parent.removesuffix(f'_{index}')}"} if parent else {None}
            assert waits in element
        known |= array.numbers(str(number))


@pytest.mark.parametrize(("time", "minutes"), [("90", 90), ("01:30:00", 90), ("30:01", 31), ("1-2", 1560)])
def test_time_is_written_as_for_sbatch(time: str, minutes: int) -> None:
    assert Resources(time=time).minutes == minutes


@pytest.mark.slow
def test_a_dry_run_prints_every_script_needs_no_slurm_and_writes_nothing(tmp_path: Path) -> None:
    code = (
        "import sys; from snp.cli import main; "
        f"main(['launch', 'table1', '--scale', 'smoke', '--dry-run', '--out', {str(tmp_path / 'runs')!r}, "
        "'--partition', 'gpu', '--time', '2:00:00', '--array-parallelism', '4', '--sbatch', 'qos=high', 'exclusive']); "
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={"PATH": "", "PYTHONPATH": str(Path(__file__).parents[1]), "SNP_DATA": str(tmp_path / "data")},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    scripts = done.stdout.split("#!/bin/bash")[1:]
    assert len(scripts) == 1 + 1 + 2 + 2 + 2  # table 1: its data, compressions with three benchmarks, and with one
    for line in ("--partition=gpu", "--time=120", "--qos=high", "--exclusive", "--signal=USR1@90", "--requeue"):
        assert all(f"#SBATCH {line}\n" in script for script in scripts)
    assert "#SBATCH --job-name=snp-data-scenes-smoke\n" in scripts[0] and "--dependency" not in scripts[0]
    assert "#SBATCH --dependency=afterok:JOB1\n" in scripts[1]
    assert "#SBATCH --array=0-13%4\n" in scripts[2] and "#SBATCH --dependency=afterok:JOB2\n" in scripts[2]
    assert any("#SBATCH --dependency=aftercorr:JOB3\n#" in script for script in scripts)
    assert not (tmp_path / "runs").exists() and not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--seeds", "0,x"], "--seed: must be a whole number, got x"),
        (["--data", "stamps"], "has no rows at scale smoke"),
        ([], "--cluster slurm: there is no srun here"),
        (["--cluster", "local", "--chains"], "--chains: is not of --cluster local"),
        (
            ["--dry-run", "--time", "2"],
            "--time 2: is too short for snp-pretrain: up to 90 s go by until its first step",
        ),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str],
    problem: str,
    tmp_path: Path,
    smoke_data: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("SNP_DATA", str(smoke_data))
    with pytest.raises(SystemExit) as exit:
        main(["launch", "table1", "--scale", "smoke", "--out", str(tmp_path), *arguments])
    assert exit.value.code == 2
    assert problem in capsys.readouterr().err


# -- a SLURM that takes jobs ---------------------------------------------------------------------------------------


@pytest.fixture
def command(tmp_path: Path, smoke_data: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("SNP_DATA", str(smoke_data))
    return ["launch", "table1", "--scale", "smoke", "--out", str(tmp_path / "runs")]


def left_behind(store: Store) -> list[str]:
    """What submitit wrote for jobs that were never submitted."""
    folder = launch_folder(store) / "jobs"
    scripts = [path.name for path in folder.glob(".submission*") if not path.is_symlink()]
    return scripts + [path.name for path in folder.glob("*.pkl") if "submitted" not in path.name]


@pytest.mark.slow
def test_more_runs_than_slurm_takes_in_an_array_are_several(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slurm = standin.slurm(tmp_path / "slurm", elements=4)
    monkeypatch.setenv("PATH", slurm.path)
    main(command)
    store = Store(tmp_path / "runs")
    submitted = [slug for record in records(store) for slug in record.runs]
    assert sorted(submitted) == sorted({run.slug for row in rows("table1", "smoke") for run in row.runs(0)})
    assert {len(record.runs) for record in records(store)} <= {1, 2, 3, 4} and left_behind(store) == []
    assert [record.job for record in records(store)] == list(slurm.jobs), "in the order of submission"
    assert f"see `snp status table1 --scale smoke --out {tmp_path / 'runs'}`" in capsys.readouterr().out


@pytest.mark.slow
def test_where_sbatch_refuses_in_the_middle_nothing_is_lost_and_a_second_launch_goes_on(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slurm = standin.slurm(tmp_path / "slurm", most=3)
    monkeypatch.setenv("PATH", slurm.path)
    store, every = Store(tmp_path / "runs"), {run.slug for row in rows("table1", "smoke") for run in row.runs(0)}
    with pytest.raises(SystemExit) as exit:
        main(command)
    told = capsys.readouterr()
    assert exit.value.code == 2 and "Job violates accounting/QOS policy" in told.err
    assert "what was submitted before is recorded, the same command goes on" in told.err
    assert told.err.strip().splitlines()[-1].startswith("snp: sbatch: snp-") and "Traceback" not in told.err
    assert [record.job for record in records(store)] == list(slurm.jobs) and len(slurm.jobs) == 3
    assert all(job in told.out for job in slurm.jobs), "what was submitted is shown"
    assert left_behind(store) == []

    slurm.become()
    main(command)
    submitted = [slug for record in records(store) for slug in record.runs]
    assert sorted(submitted) == sorted(every) and left_behind(store) == []
    main(command)
    assert f"nothing to submit: {len(every)} runs are queued or running" in capsys.readouterr().out


def test_what_a_launch_that_was_killed_left_behind_is_removed_by_the_next(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", standin.slurm(tmp_path / "slurm").path)
    folder = launch_folder(Store(tmp_path / "runs")) / "jobs"
    folder.mkdir(parents=True)
    (folder / f"{'0f' * 16}.pkl").touch()
    (folder / "mine.pkl").touch()
    main(command)
    assert left_behind(Store(tmp_path / "runs")) == ["mine.pkl"]


def test_what_cannot_be_recorded_is_cancelled(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slurm = standin.slurm(tmp_path / "slurm")
    monkeypatch.setenv("PATH", slurm.path)
    folder = launch_folder(Store(tmp_path / "runs"))
    folder.mkdir(parents=True)
    (folder / "submitted").touch()  # a file where the records would be
    with pytest.raises(SystemExit) as exit:
        main(command)
    assert exit.value.code == 2 and "a file is where a folder should be" in capsys.readouterr().err
    assert slurm.begun == 1 and slurm.jobs == {}


def test_of_two_launches_one_submits(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slurm = standin.slurm(tmp_path / "slurm")
    monkeypatch.setenv("PATH", slurm.path)
    with launching(Store(tmp_path / "runs")), pytest.raises(SystemExit) as exit:
        main(command)
    assert exit.value.code == 2 and slurm.begun == 0
    assert f"another launch submits runs of it (process {os.getpid()}, " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("config", "limit"),
    [
        ("MaxArraySize            = 1001\nMaxJobCount             = 10000", 1001),
        ("MaxArraySize = 4000001", 4000001),
        ("MaxArraySize = 5000\nSchedulerParameters     = bf_interval=1,max_array_tasks=200,defer", 200),
        ("MaxArraySize = 0", 1),
        ("nothing of the kind", ELEMENTS),
    ],
)
def test_slurm_is_asked_how_long_an_array_may_be(
    config: str, limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", standin.slurm(tmp_path / "slurm", config=config).path)
    assert array_limit() == limit
    monkeypatch.setenv("PATH", "")
    assert array_limit() == ELEMENTS


def test_jobs_import_a_frozen_copy_that_knows_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = freeze(tmp_path)
    assert freeze(tmp_path) == freeze(tmp_path, copy=False) == snapshot
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))  # the checkout's: the working folder is before it
    work = tmp_path / "work.py"
    work.write_text("import snp\nfrom snp.runs.manifest import code_state\nprint(snp.__file__, code_state())\n")
    code = "import runpy, sys; runpy.run_path(sys.argv[1])"
    said = subprocess.check_output([sys.executable, "-c", code, work], cwd=snapshot, text=True)
    assert said.strip() == f"{snapshot / 'snp' / '__init__.py'} {code_state()}"


def test_status_joins_folders_records_and_what_slurm_says(tmp_path: Path) -> None:
    store, runs = Store(tmp_path), SNP.runs(0)
    pretrain, compress, first, second, third = runs
    fill(store, SNP.model_copy(update={"benchmarks": ("refcoco",)}), [0.9])
    (store.folder(compress) / "result.json").unlink()
    keep(store, "slurm", "7", Path("code"), {run.slug: f"7_{i}" for i, run in enumerate(runs)})
    store.begin(compress)
    store.log(compress, {"step": 4, "loss": 1.0})
    log = launch_folder(store) / "jobs" / "7_3_0_log.err"
    log.parent.mkdir(parents=True)
    log.write_text("Traceback\nValueError: too small\nsrun: error: n1: task 0: Exited with exit code 1\n")
    said = {
        "7_0": Job("TIMEOUT", "0:0"),
        "7_1": Job("RUNNING"),
        "7_3": Job("FAILED", "1:0"),
        "7_4": Job("PENDING", "", "Priority"),
    }
    found = statuses(runs, store, lambda jobs: said)
    assert [(one.run, one.state, one.progress, one.reason) for one in found] == [
        (pretrain, "failed", "", "out of time, and not requeued"),
        (compress, "running", "4/16", ""),
        (first, "done", "", ""),
        (second, "failed", "", "exit code 1: ValueError: too small"),
        (third, "queued", "", "waits: Priority"),
    ]
    assert live(found) == {compress.slug: "7_1", third.slug: "7_4"}


@pytest.mark.parametrize(
    ("states", "state", "job"),
    [
        (("RUNNING", "FAILED"), "running", "7"),
        (("PENDING", "CANCELLED"), "queued", "7"),
        (("PENDING", "RUNNING"), "running", "8"),
        (("RUNNING", "PENDING"), "running", "7"),
        (("FAILED", "FAILED"), "failed", "8"),
    ],
)
def test_of_a_run_that_was_submitted_twice_the_job_counts_that_goes_on(
    tmp_path: Path, states: tuple[str, str], state: str, job: str
) -> None:
    store, run = Store(tmp_path), SNP.pretrain
    for number in ("7", "8"):
        keep(store, "slurm", number, Path("code"), {run.slug: number})
    [one] = statuses([run], store, lambda jobs: dict(zip(sorted(jobs), map(Job, states), strict=True)))
    assert (one.state, one.job) == (state, job)


def test_all_jobs_of_a_run_that_was_submitted_twice_are_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm = standin.slurm(tmp_path / "slurm")
    monkeypatch.setenv("PATH", slurm.path)
    store, run = Store(tmp_path / "runs"), SNP.pretrain
    (slurm.folder / "jobs.json").write_text('{"7": null, "8": null, "9": null}')
    for number in ("6", "7", "8"):
        keep(store, "slurm", number, Path("code"), {run.slug: number})
    assert [one.run for one in cancel(statuses([run], store), store)] == [run]
    assert list(slurm.jobs) == ["9"]


def test_elements_that_were_cancelled_before_they_were_told_apart_are_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm = standin.slurm(tmp_path / "slurm")
    monkeypatch.setenv("PATH", slurm.path)
    slurm.become(accounts="7_0|FAILED|2:0\n7_[1-2%2]|CANCELLED by 1000|0:0\n8_[0,2-...]|CANCELLED by 0|0:0")
    runs, store = SNP.runs(0)[2:], Store(tmp_path / "runs")
    keep(store, "slurm", "7", Path("code"), {run.slug: f"7_{i}" for i, run in enumerate(runs)})
    assert [(one.state, one.reason) for one in statuses(runs, store)] == [
        ("failed", "exit code 2"),
        ("failed", "cancelled"),
        ("failed", "cancelled"),
    ]
    slurm.become(accounts="8_[0,2-...]|CANCELLED by 0|0:0\n9|CANCELLED by 0|0:0\n10_[2-3]|PENDING|0:0")
    cancelled = {"8_2", "9_0", "10_1"}  # all at once, one by one, and but for some
    assert slurm_jobs(cancelled) == dict.fromkeys(cancelled, Job("CANCELLED"))
    (slurm.folder / "jobs.json").write_text('{"10": 4}')
    assert slurm_jobs({"10_2"})["10_2"].state == "PENDING"
    slurm.become(accounts="10_[2-3]|PENDING|0:0")
    assert slurm_jobs({"7_0"}) == {}


def test_runs_of_a_chain_are_running_one_after_the_other(tmp_path: Path) -> None:
    store, runs = Store(tmp_path), SNP.runs(0)[1:]
    keep(store, "slurm", "7", Path("code"), {run.slug: "7" for run in runs})
    fill(store, SNP.model_copy(update={"benchmarks": ()}), [0.9])
    (store.folder(runs[0]) / "weights.safetensors").touch()
    (store.begin(runs[1]) / "failed.json").write_text('{"reason": "too small"}')
    (store.begin(runs[2]) / "owner.json").write_text(Owner.here().model_copy(update={"mark": None}).model_dump_json())
    found = statuses(runs, store, lambda jobs: {"7": Job("RUNNING")})
    assert [(one.state, one.reason) for one in found] == [
        ("done", ""),
        ("failed", "too small"),
        ("running", ""),
        ("queued", "waits: for another run of its job"),
    ]


def test_runs_whose_data_could_not_be_drawn_say_so(tmp_path: Path) -> None:
    store = Store(tmp_path)
    keep(store, "slurm", "6", Path("code"), Draw.for_run(SNP.pretrain, Resources()).numbers("6"))
    keep(store, "slurm", "7", Path("code"), {SNP.pretrain.slug: "7"})
    said = {"6": Job("FAILED", "2:0"), "7": Job("CANCELLED", "0:0")}
    [one] = statuses([SNP.pretrain], store, lambda jobs: {number: said[number] for number in jobs})
    assert (one.state, one.reason) == ("failed", "not begun: job 6, which draws its data, did not end well")


def test_without_slurm_the_folders_speak(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    store = Store(tmp_path)
    keep(store, "slurm", "7", Path("code"), {SNP.pretrain.slug: "7"})
    compress = store.begin(SNP.compress(0))
    (compress / "failed.json").write_text('{"reason": "disk full"}')
    main(["status", "table1", "--scale", "smoke", "--out", str(tmp_path)])
    lines = {line.split()[0]: " ".join(line.split()[1:]) for line in capsys.readouterr().out.splitlines() if line}
    assert lines[SNP.pretrain.name] == "missing 7 SLURM does not know its job"
    assert lines[SNP.compress(0).name] == "failed disk full"
    assert lines[OMP.compress(0).name] == "missing"
    main(["cancel", "table1", "--scale", "smoke", "--out", str(tmp_path)])
    assert "nothing to cancel" in capsys.readouterr().out


class Clock(datetime):
    """The system's, which somebody sets."""

    hour = 12

    @classmethod
    def now(cls, tz: object = None) -> datetime:
        return datetime(2026, 1, 1, cls.hour, tzinfo=UTC)


def test_of_two_submissions_the_later_one_counts_though_the_clock_was_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, run = Store(tmp_path), SNP.pretrain
    monkeypatch.setattr("snp.runs.submitted.datetime", Clock)
    said = {str(job): Job("CANCELLED") for job in range(100, 112)} | {"111": Job("RUNNING")}
    for job in range(100, 112):  # and more than nine
        monkeypatch.setattr(Clock, "hour", 23 - (job - 100))
        keep(store, "slurm", str(job), Path("code"), {run.slug: str(job)})
    [one] = statuses([run], store, lambda jobs: said)
    assert (one.state, one.job) == ("running", "111")
    assert [record.job for record in records(store)] == [str(job) for job in range(100, 112)]


def test_records_of_before_they_had_numbers_come_first(tmp_path: Path) -> None:
    store = Store(tmp_path)
    keep(store, "slurm", "7", Path("code"), {SNP.pretrain.slug: "7"})
    [path] = (launch_folder(store) / "submitted").iterdir()
    old = json.loads(path.read_text())
    del old["number"], old["mark"]
    path.with_name("2026-11-25T10:00:00+00:00-6.json").write_text(json.dumps(old | {"job": "6"}))
    assert [record.job for record in records(store)] == ["6", "7"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b'{"cluster": "moon"}', "cluster: "),
        (b"[]", "valid dictionary"),
        (b"", "not valid JSON"),
        (b"\xff\xfe\xfa", "not valid JSON"),
        (b"null", "valid dictionary"),
        (b"[" * 100_000, "not valid JSON"),
    ],
)
def test_a_record_that_cannot_be_read_is_named(content: bytes, problem: str, tmp_path: Path) -> None:
    store = Store(tmp_path)
    keep(store, "slurm", "7", Path("code"), {})
    [path] = (launch_folder(store) / "submitted").iterdir()
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"-7\.json: .*{problem}") as error:
        records(store)
    assert "\n" not in str(error.value) and ": : " not in str(error.value)


@pytest.mark.parametrize(
    "change",
    [{"runs": {"a": "7; rm"}}, {"job": "-1"}, {"job": "x"}, {"job": 7}, {"runs": []}, {"number": -1}, {"more": 1}],
)
def test_a_record_whose_fields_are_odd_is_named(change: dict[str, object], tmp_path: Path) -> None:
    store = Store(tmp_path)
    keep(store, "slurm", "7", Path("code"), {"a": "7"})
    [path] = (launch_folder(store) / "submitted").iterdir()
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=rf"-7\.json: {next(iter(change))}"):
        records(store)


def test_a_process_that_has_the_number_of_a_launch_by_now_is_left_alone(tmp_path: Path) -> None:
    store, run = Store(tmp_path), SNP.pretrain
    code = "import sys, time; print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, "submitit"], stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        keep(store, "local", str(other.pid), Path("code"), {run.slug: str(other.pid)})
        assert statuses([run], store)[0].state == "queued", "as long as it is the one that was launched"
        [path] = (launch_folder(store) / "submitted").iterdir()
        about = json.loads(path.read_text())
        for mark in (about["mark"] + "0", None):
            path.write_text(json.dumps(about | {"mark": mark}))
            found = statuses([run], store)
            assert found[0].state == "missing" and cancel(found, store) == [] and other.poll() is None
        other.kill()


def test_what_goes_on_on_another_machine_is_not_said_to_have_failed(tmp_path: Path) -> None:
    store, (run, other) = Store(tmp_path), (SNP.pretrain, SNP.compress(0))
    with subprocess.Popen(["true"]) as ended:  # whose number is no process's now
        number = str(ended.pid)
    record = keep(store, "local", number, Path("code"), {run.slug: number})
    [path] = (launch_folder(store) / "submitted").iterdir()
    store.begin(run)
    store.log(run, {"step": 4})
    assert statuses([run], store)[0][1:] == ("failed", number, "4/40", "its job ended")
    path.write_text(record.model_copy(update={"host": "elsewhere", "mark": "another-boot/7/1"}).model_dump_json())
    assert statuses([run], store)[0][1:] == ("incomplete", number, "4/40", "whether it goes on is known on elsewhere")
    owner = Owner.here().model_copy(update={"host": "elsewhere", "mark": "another-boot/7/1"})
    (store.begin(other) / "owner.json").write_text(owner.model_dump_json())
    assert statuses([other], store)[0][1:] == ("incomplete", "", "", "whether it goes on is known on elsewhere")


def test_a_job_of_slurm_with_the_number_of_a_process_is_not_taken_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm = standin.slurm(tmp_path / "slurm")
    monkeypatch.setenv("PATH", slurm.path)
    store, (parent, child) = Store(tmp_path / "runs"), (SNP.pretrain, SNP.compress(0))
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        number = str(process.pid)
        keep(store, "local", number, Path("code"), {parent.slug: number})
        (slurm.folder / "jobs.json").write_text(json.dumps({number: None}))
        keep(store, "slurm", number, Path("code"), {child.slug: number})
        assert [one.run for one in cancel(statuses([child], store), store)] == [child]
        assert slurm.jobs == {} and process.poll() is None
        assert [one.run for one in cancel(statuses([parent], store), store)] == [parent]
        assert process.wait(60) == -signal.SIGTERM


def test_jobs_cannot_wait_for_a_process_of_this_machine(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slurm = standin.slurm(tmp_path / "slurm")
    monkeypatch.setenv("PATH", slurm.path)
    store, number = Store(tmp_path / "runs"), str(os.getpid())
    keep(store, "local", number, Path("code"), {SNP.pretrain.slug: number})
    with pytest.raises(SystemExit):
        main(command)
    assert f"process {number} of this machine does its runs" in capsys.readouterr().err and slurm.begun == 0


@pytest.mark.slow
def test_five_hundred_rows_are_planned_and_watched_in_seconds_without_torch(tmp_path: Path) -> None:
    begun = time.process_time()
    rows, asked = bench_plan.made_rows(500), []
    store = Store(tmp_path, base=Store.at("desk"))
    planned = plan(rows, store)
    assert [len(array.runs) for array in planned] == [500] * 4
    known = bench_plan.fill(store, rows, 500)
    runs = [run for row in rows for run in row.runs(0)[1:]][:500]
    found = statuses(runs, store, lambda jobs: asked.append(jobs) or known)
    assert len(asked) == 1 and {one.state for one in found} == {"done", "running", "queued", "failed"}
    assert time.process_time() - begun < 15  # about two
    code = "import sys, snp.bench.planning; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_a_launch_on_this_machine_outlives_its_command_can_be_cancelled_and_goes_on(
    tmp_path: Path, smoke_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SNP_DATA", str(smoke_data))
    store, row = Store(tmp_path), SNP.model_copy(update={"benchmarks": ("refcoco",)})
    runs = row.runs(0)
    first = launch(store).local([row], (0,), runs)
    assert {*live(statuses(runs, store)).values()} == {first.job}
    assert [one.run for one in cancel(statuses(runs, store), store)] == runs
    wait(lambda: not live(statuses(runs, store)))
    assert "done" not in {one.state for one in statuses(runs, store)[1:]}

    second = launch(store).local([row], (0,), runs)
    wait(lambda: all(store.state(run) == "done" for run in runs))
    for record in (first, second):  # children of this process, unlike a command's: their time is counted here
        wait(lambda job=int(record.job): not alive(job))
        with suppress(ChildProcessError):
            os.waitpid(int(record.job), 0)
    assert [one.state for one in statuses(runs, store)] == ["done"] * 3
    assert [record.job for record in records(store)] == [first.job, second.job]


@pytest.mark.slow
def test_a_launch_for_debugging_runs_in_this_process(
    tmp_path: Path, smoke_data: Path, smoke_dense: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SNP_DATA", str(smoke_data))
    store = Store(tmp_path, base=smoke_dense)
    launch(store).debug([OMP.compress(0)])
    assert store.state(OMP.compress(0)) == "done"


def wait(ready: Callable[[], bool], seconds: float = 600) -> None:
    limit = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < limit, f"not within {seconds} s"
        time.sleep(0.1)
