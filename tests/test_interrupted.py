"""Ctrl-C, as a terminal sends it to all processes of a command: one line, exit code 130, nothing lost, nobody left."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.context import BaseContext, SpawnProcess
from pathlib import Path
from types import SimpleNamespace

import pytest
import standin
from processes import MODEL_FILES, PRETRAIN, ROW, alive, assert_bit_equal, start

from snp.experiment.tables import rows
from snp.processes import pool, spread
from snp.runs.store import Store
from snp.runs.submitted import records
from snp.training import stopping

pytestmark = pytest.mark.slow

LINE = "snp: stopped; the same command goes on from what is saved"


Done = subprocess.CompletedProcess[str]


def interrupted(command: list[str], ready: Callable[[int], bool], times: int = 1) -> Done:
    """Start `snp` in a terminal of its own, press Ctrl-C when it is ready, wait until all its processes are gone."""
    process = begin(*command)
    limit = time.monotonic() + 180
    while not ready(process.pid):
        assert process.poll() is None and time.monotonic() < limit, process.communicate()
        time.sleep(0.005)
    for _ in range(times):
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.02)
    out, said = process.communicate(timeout=60)
    while left := [number for number in session(process.pid) if alive(number)]:
        assert time.monotonic() < limit, f"processes are left: {left}"
        time.sleep(0.05)
    return Done(command, process.returncode, out, said)


def begin(*command: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "snp", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # a shell that has these tests in its background ignores it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def session(leader: int) -> list[int]:
    """The processes of a terminal."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            fields = (path / "stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == leader:
            found.append(int(path.name))
    return found


def listens(process: int) -> bool:
    """Whether the command's own answer to signals is in place: from its first lines on."""
    try:
        caught = Path(f"/proc/{process}/status").read_text().split("SigCgt:")[1].split()[0]
    except (OSError, IndexError):
        return False
    return bool(int(caught, 16) & 1 << (signal.SIGUSR1 - 1))


def assert_one_line(done: Done) -> None:
    *before, last = done.stderr.replace("\r", "\n").strip().splitlines()
    assert last == LINE and done.returncode == 130, done.stderr
    assert not re.search("[Ee]rror|Traceback|Interrupt|leak|ignored", "".join(before))


@pytest.mark.parametrize("delay", [0, 0.1, 0.3])
def test_while_a_command_is_loaded(delay: float) -> None:
    """There may be more to load than there is time: what is raised within an import may vanish."""
    begun: list[float] = []

    def ready(process: int) -> bool:
        if not begun and listens(process):
            begun.append(time.monotonic())
        return bool(begun) and time.monotonic() - begun[0] >= delay

    assert_one_line(interrupted(["table", "table1"], ready))


def test_while_data_are_drawn(tmp_path: Path) -> None:
    root = tmp_path / "data"
    command = ["data", "make", "scenes", "--scale", "smoke", "--root", str(root)]
    assert_one_line(interrupted(command, lambda _: any(root.glob("images/train/*.png"))))
    assert not (root / "dataset.json").exists()


def test_while_workers_start(smoke_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNP_DATA", str(smoke_data))
    command = ["run", ROW.label, "--scale", "smoke", "--out", str(tmp_path)]
    assert_one_line(interrupted(command, lambda process: len(session(process)) > 2))  # and multiprocessing's own


@pytest.mark.parametrize("times", [1, 3])
def test_workers_save_and_the_run_ends_bit_equal(
    times: int, processes: BaseContext, smoke_dense: Store, tmp_path: Path
) -> None:
    store = Store(tmp_path)
    command = ["run", ROW.label, "--scale", "smoke", "--workers", "1", "--out", str(tmp_path)]
    assert_one_line(interrupted(command, lambda _: (store.folder(PRETRAIN) / "log.jsonl").exists(), times))
    assert store.state(PRETRAIN) == "incomplete" and (store.folder(PRETRAIN) / "state.pt").exists()
    assert start(processes, tmp_path, tmp_path, [PRETRAIN]) == 0
    assert_bit_equal(store, smoke_dense, PRETRAIN, MODEL_FILES)


def test_a_run_of_the_command_itself_saves(smoke_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNP_DATA", str(smoke_data))
    store = Store(tmp_path)
    command = ["pretrain", "--scale", "smoke", "--out", str(tmp_path)]
    assert_one_line(interrupted(command, lambda _: (store.folder(PRETRAIN) / "log.jsonl").exists()))
    assert (store.folder(PRETRAIN) / "state.pt").exists() and not (store.folder(PRETRAIN) / "owner.json").exists()


def test_a_launch_for_debugging_saves(
    smoke_data: Path, smoke_dense: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SNP_DATA", str(smoke_data))
    command = ["launch", "table1", "--scale", "smoke", "--cluster", "debug", "--out", str(tmp_path)]
    store = Store(tmp_path)
    assert_one_line(interrupted(command, lambda _: (store.folder(PRETRAIN) / "log.jsonl").exists()))
    assert (store.folder(PRETRAIN) / "state.pt").exists()


def test_what_a_launch_has_submitted_is_recorded_and_not_submitted_again(
    smoke_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SNP_DATA", str(smoke_data))
    slurm = standin.slurm(tmp_path / "slurm", seconds=0.5)
    monkeypatch.setenv("PATH", slurm.path)
    out = tmp_path / "runs"
    command = ["launch", "table1", "--scale", "smoke", "--out", str(out)]
    assert_one_line(interrupted(command, lambda _: slurm.begun == 2))  # within the second submission
    assert slurm.begun == len(slurm.jobs) == len(records(Store(out))) == 2, "it was ended, and is known"
    done = begin(*command)
    assert done.wait(120) == 0
    submitted = [slug for record in records(Store(out)) for slug in record.runs]
    assert sorted(submitted) == sorted({run.slug for row in rows("table1", "smoke") for run in row.runs(0)})


def test_in_the_background_of_a_shell_it_is_not_ours() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stopping.catching():
            os.kill(os.getpid(), signal.SIGINT)
            assert not stopping.asked()
    finally:
        signal.signal(signal.SIGINT, before)


def test_one_command_that_is_stopped_while_it_is_loaded_wants_to_be_requeued(
    smoke_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SNP_DATA", str(smoke_data))
    process = begin("run", ROW.label, "--scale", "smoke", "--out", str(tmp_path))
    while not listens(process.pid):
        time.sleep(0.005)
    process.send_signal(signal.SIGUSR1)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 75 and said.rstrip().endswith(LINE)


@pytest.fixture
def foreground() -> Iterator[None]:
    """Ctrl-C is not ignored: it is where a shell has these tests in its background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("foreground")
def test_a_process_that_is_being_started_is_started_before_a_signal_is_answered() -> None:
    begun = []

    class Half(SpawnProcess):
        @staticmethod
        def _Popen(process: object) -> SimpleNamespace:
            os.kill(os.getpid(), signal.SIGINT)
            begun.append(process)
            return SimpleNamespace(sentinel=0, poll=lambda: 0)

    with pytest.raises(stopping.Stopped), stopping.catching():
        Half().start()
        time.sleep(10)
    assert begun


def test_work_that_waits_is_given_up_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[object] = []
    monkeypatch.setattr(threading, "excepthook", said.append)
    with pytest.raises(SystemExit), pool(1) as executor:
        list(spread(executor, sys.exit, range(50)))
    assert not said
