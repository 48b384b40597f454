"""What a job does: it waits for who does its run, never does one twice, and is not requeued for nothing."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from synthetic import MANIFEST, cost, finetuned

from snp.errors import InputError
from snp.experiment.labels import find
from snp.experiment.places import data_folder
from snp.experiment.spec import Run
from snp.launch import runner, work
from snp.launch.work import Drawing, Place, Runs
from snp.runs.store import Store
from snp.training import stages, stopping
from snp.training.setup import Setup

ROW = find("scenes/magnitude@60", "smoke")
COMPRESS, *FINETUNE = ROW.runs(0)[1:]


@pytest.fixture
def store(smoke_dense: Store, smoke_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("SNP_DATA", str(smoke_data))
    monkeypatch.setattr(work, "one_thread", lambda: None)  # which a process may do once
    return Store(tmp_path / "runs", base=smoke_dense)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    """The runs that were done here, instead of training: a result and, of a compression, its weights."""
    found: list[Run] = []

    def do(run: Run, store: Store, progress: Callable[[int], None], setup: Setup) -> object:
        found.append(run)
        if run.kind == "compress":
            (store.folder(run) / "weights.safetensors").touch()
        return store.save(run, MANIFEST, cost(ROW) if run.kind == "compress" else finetuned(run.benchmark, 0.9))

    for kind in ("compress", "finetune"):
        monkeypatch.setattr(stages, kind, do)
    return found


def job(store: Store, *runs: Run) -> Runs:
    return Runs.from_runs(runs, Place.from_setup(store, Setup()))


def test_what_is_done_by_the_time_that_a_job_begins_is_not_done_again(store: Store, trained: list[Run]) -> None:
    job(store, COMPRESS)()
    job(store, COMPRESS)()
    assert trained == [COMPRESS]
    (store.folder(COMPRESS) / "weights.safetensors").unlink()  # as in a checkout
    job(store, COMPRESS)()
    assert trained == [COMPRESS] * 2, "others start from its model"
    job(store, FINETUNE[0])()
    job(store, FINETUNE[0])()
    assert trained == [COMPRESS, COMPRESS, FINETUNE[0]], "nothing starts from it"


@pytest.mark.parametrize("ends", ["done", "killed"])
def test_a_job_whose_run_another_process_does_waits_for_it(
    ends: str, store: Store, trained: list[Run], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other, waited = ExitStack(), []
    other.enter_context(store.attempt(COMPRESS))

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 3:
            if ends == "done":
                (store.folder(COMPRESS) / "weights.safetensors").touch()
                store.save(COMPRESS, MANIFEST, cost(ROW))
            other.close()

    monkeypatch.setattr(work.time, "sleep", sleep)
    job(store, COMPRESS)()
    assert waited == [work.POLL] * 3 and trained == ([] if ends == "done" else [COMPRESS])
    said = capsys.readouterr().err
    assert said.count("waiting") == 1 and f"is being run already (process {os.getpid()}" in said


def test_a_chain_goes_on_behind_a_run_that_fails_but_for_what_starts_from_it(
    store: Store, trained: list[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    do = stages.finetune

    def fail(run: Run, *others: object) -> object:
        if run == FINETUNE[0]:
            raise InputError("here", "too small")
        return do(run, *others)

    monkeypatch.setattr(stages, "finetune", fail)
    with pytest.raises(InputError, match="too small"):
        job(store, COMPRESS, *FINETUNE)()
    assert trained == [COMPRESS, *FINETUNE[1:]] and store.failure(FINETUNE[0]) == "here: too small"

    other = COMPRESS.model_copy(update={"seed": 1})
    monkeypatch.setattr(stages, "compress", lambda *_: fail(FINETUNE[0]))
    with pytest.raises(InputError, match="too small"):
        job(store, other, *(run for run in ROW.runs(1) if run.kind == "finetune"))()
    assert len(trained) == 3


@pytest.mark.parametrize(
    ("restarts", "steps", "signum", "code"),
    [
        ("0", 0, signal.SIGUSR1, 75),
        ("1", 1, signal.SIGUSR1, 75),
        ("1", 0, signal.SIGTERM, 143),
        ("1", 0, signal.SIGUSR1, "its time limit is too short"),
    ],
)
def test_a_job_that_came_no_step_further_between_two_requeues_has_failed(
    restarts: str, steps: int, signum: int, code: object, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_RESTART_COUNT", restarts)

    def stopped(run: Run, store: Store, *others: object) -> None:
        (store.folder(run) / "state.pt").write_text(str(steps)) if steps else None
        os.kill(os.getpid(), signum)

    monkeypatch.setattr(stages, "compress", stopped)
    asked: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda signum, frame: asked.append(signum))  # where submitit's would be
    try:
        with pytest.raises((SystemExit, InputError)) as error:
            job(store, COMPRESS)()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert asked == ([signal.SIGUSR1] if code == 75 else []), "it is requeued"
    if isinstance(code, int):
        assert isinstance(error.value, SystemExit) and error.value.code == code and store.failure(COMPRESS) is None
    else:
        assert code in str(error.value) and code in str(store.failure(COMPRESS))


def test_what_a_job_of_several_runs_has_finished_is_progress(store: Store, trained: list[Run], monkeypatch) -> None:
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    left = lambda: [run for run in (COMPRESS, FINETUNE[0]) if not store.settled(run)]  # noqa: E731
    with pytest.raises(stopping.Stopped), runner.advancing(left, store):
        stages.run(COMPRESS, store)
        raise stopping.Stopped(signal.SIGUSR1)
    with pytest.raises(InputError, match="no step further"), runner.advancing(left, store):
        raise stopping.Stopped(signal.SIGUSR1)
    assert "no step further" in str(store.failure(FINETUNE[0]))


@pytest.mark.slow
def test_a_job_starts_without_what_its_runs_do_not_need() -> None:
    names = "{'timm', 'transformers'} & {*sys.modules}"
    code = f"import sys; from snp.launch.runner import stage; stage(); print({names})"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "{'timm'}"


def test_data_are_drawn_by_a_job_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNP_DATA", str(tmp_path / "data"))
    [first] = runner.undrawn(ROW.runs(0))
    assert first == ROW.runs(0)[0]
    from snp.data.drawn import scenes

    made = scenes.make
    drawn = []
    monkeypatch.setattr(scenes, "make", lambda root, seed, **_: drawn.append(root) or made(root, seed, 8, 8, 4, 1))
    for _ in range(2):
        Drawing("smoke", "scenes", 1, Place.from_setup(Store(tmp_path / "runs"), Setup()))()
    assert drawn == [data_folder("smoke", "scenes")] and runner.undrawn(ROW.runs(0)) == []
