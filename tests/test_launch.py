"""Rows to arrays of jobs, their sbatch scripts, and what became of them: all that needs no SLURM."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from processes import alive
from synthetic import fill

from snp.cli import main
from snp.errors import InputError
from snp.experiment import bench_plan
from snp.experiment.jobs import Job, cancel, keep, launch_folder, live, records, statuses
from snp.experiment.launch import Array, Launch, arrays, resources
from snp.experiment.manifest import code_state
from snp.experiment.resources import Resources
from snp.experiment.runner import planned
from snp.experiment.setup import Setup
from snp.experiment.snapshot import freeze
from snp.experiment.store import Store
from snp.experiment.tables import Row, find, rows
from snp.experiment.work import Place

SNP, OMP = find("scenes/snp@60", "smoke"), find("scenes/magnitude@60", "smoke")


def plan(chosen: Sequence[Row], store: Store, queued: dict[str, str] | None = None) -> list[Array]:
    todo = planned(chosen, None, store)
    return arrays(resources(chosen, todo, Resources()), queued or {})


def launch(store: Store) -> Launch:
    return Launch(store, Place.of(store, Setup()), parallelism=1)


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


@pytest.mark.parametrize(("time", "minutes"), [("90", 90), ("01:30:00", 90), ("30:01", 31), ("1-2", 1560)])
def test_time_is_written_as_for_sbatch(time: str, minutes: int) -> None:
    assert Resources(time=time).minutes == minutes


def test_a_dry_run_prints_every_script_needs_no_slurm_and_writes_nothing(tmp_path: Path) -> None:
    code = (
        "import sys; from snp.cli import main; "
        f"main(['launch', 'table1', '--scale', 'smoke', '--dry-run', '--out', {str(tmp_path / 'runs')!r}, "
        "'--partition', 'gpu', '--time', '2:00:00', '--array-parallelism', '4', '--sbatch', 'qos=high', 'exclusive']); "
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"PATH": "", "PYTHONPATH":
                          str(Path(__file__).parents[1])}, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    scripts = done.stdout.split("#!/bin/bash")[1:]
    assert len(scripts) == 1 + 2 + 2 + 2  # table 1: compressions with three benchmarks, and with one
    for line in ("--partition=gpu", "--time=120", "--qos=high", "--exclusive", "--signal=USR1@90", "--requeue"):
        assert all(f"#SBATCH {line}\n" in script for script in scripts)
    assert "#SBATCH --array=0-9%4\n" in scripts[1] and "#SBATCH --dependency=afterok:JOB1\n" in scripts[1]
    assert any("#SBATCH --dependency=aftercorr:JOB2\n#" in script for script in scripts)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("arguments", "problem"), [
    (["--seeds", "0,x"], "--seeds: must be numbers"), (["--data", "stamps"], "has no rows at scale smoke"),
    ([], "--cluster slurm: there is no srun here"),
])  # fmt: skip
def test_bad_input_is_one_line(
    arguments: list[str], problem: str, tmp_path: Path, smoke_data: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("SNP_DATA", str(smoke_data))
    with pytest.raises(SystemExit) as exit:
        main(["launch", "table1", "--scale", "smoke", "--out", str(tmp_path), *arguments])
    assert exit.value.code == 2
    assert problem in capsys.readouterr().err


def test_jobs_import_a_frozen_copy_that_knows_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = freeze(tmp_path)
    assert freeze(tmp_path) == freeze(tmp_path, copy=False) == snapshot
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))  # the checkout's: the working folder is before it
    work = tmp_path / "work.py"
    work.write_text("import snp\nfrom snp.experiment.manifest import code_state\nprint(snp.__file__, code_state())\n")
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
    said = {"7_0": Job("TIMEOUT", "0:0"), "7_1": Job("RUNNING"), "7_3": Job("FAILED", "1:0"),
            "7_4": Job("PENDING", "", "Priority")}  # fmt: skip
    found = statuses(runs, store, lambda jobs: said)
    assert [(one.run, one.state, one.progress, one.reason) for one in found] == [
        (pretrain, "failed", "", "out of time, and not requeued"),
        (compress, "running", "4/16", ""),
        (first, "done", "", ""),
        (second, "failed", "", "exit code 1: ValueError: too small"),
        (third, "queued", "", "waits: Priority"),
    ]
    assert live(found) == {compress.slug: "7_1", third.slug: "7_4"}


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


def test_a_record_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    keep(store, "slurm", "7", Path("code"), {})
    [path] = (launch_folder(store) / "submitted").iterdir()
    path.write_text('{"cluster": "moon"}')
    with pytest.raises(InputError, match=r"-7\.json: cluster: "):
        records(store)


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
    code = "import sys, snp.experiment.bench_plan; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


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


def test_a_launch_for_debugging_runs_in_this_process(
    tmp_path: Path, smoke_data: Path, smoke_dense: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SNP_DATA", str(smoke_data))
    store = Store(tmp_path, base=smoke_dense)
    launch(store).debug([OMP.compress(0)])
    assert store.state(OMP.compress(0)) == "done"


def wait(ready: Callable[[], bool], seconds: float = 120) -> None:
    limit = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < limit, f"not within {seconds} s"
        time.sleep(0.1)
