"""What goes wrong on clusters: signals, full disks, lost folders, damaged files, many writers. Nothing is lost."""

import random
import shutil
import signal
import subprocess
import sys
import time
from multiprocessing.context import BaseContext
from pathlib import Path

import pytest
from processes import COMPRESS, FINETUNE, MODEL_FILES, Blow, assert_bit_equal, said, start, work
from synthetic import MANIFEST, cost

from snp.errors import InputError
from snp.experiment.labels import find
from snp.experiment.recipes import RECIPES
from snp.runs.store import Busy, Store
from snp.training import stages

pytestmark = pytest.mark.slow

NEVER = 1e9
KEPT = (*MODEL_FILES, "trained.pt")


@pytest.fixture(scope="module")
def whole(processes: BaseContext, smoke_dense: Store, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A compression and its fine-tuning that nothing disturbed."""
    root = tmp_path_factory.mktemp("whole")
    assert start(processes, root, smoke_dense.root, [COMPRESS, FINETUNE]) == 0
    return Store(root, base=smoke_dense)


@pytest.fixture
def store(tmp_path: Path, smoke_dense: Store) -> Store:
    return Store(tmp_path / "runs", base=smoke_dense)


# -- signals -------------------------------------------------------------------------------------------------------


def test_a_run_stopped_by_signals_saves_within_seconds_and_ends_bit_equal(
    processes: BaseContext, whole: Store, store: Store
) -> None:
    draw, steps = random.Random(1), RECIPES["smoke"].mdetr.compress.steps
    for number, (signum, code) in enumerate(((signal.SIGUSR1, 75), (signal.SIGTERM, 143), (signal.SIGUSR1, 75))):
        step = draw.randrange(number * steps // 3 + 1, (number + 1) * steps // 3)
        blow = Blow(COMPRESS, step, draw.uniform(0, 0.02), signum)
        began = time.monotonic()
        # nothing is saved but by the signal
        assert start(processes, store.root, store.base.root, [COMPRESS], blow, NEVER) == code
        assert store.state(COMPRESS) == "incomplete" and (store.folder(COMPRESS) / "state.pt").exists()
        assert time.monotonic() - began < 60
        assert not (store.folder(COMPRESS) / "owner.json").exists(), "it is nobody's by now"
    assert start(processes, store.root, store.base.root, [COMPRESS]) == 0
    assert_bit_equal(store, whole, COMPRESS, KEPT)


def test_a_command_that_is_stopped_lets_its_workers_save_and_says_that_it_wants_to_go_on(
    processes: BaseContext, smoke_dense: Store, tmp_path: Path
) -> None:
    pretrain = COMPRESS.parent
    store, folder = Store(tmp_path), Store(tmp_path).folder(pretrain)
    command = [sys.executable, "-m", "snp", "run", "scenes/snp@60", "--scale", "smoke", "--out", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wait_for(folder / "log.jsonl")
    process.send_signal(signal.SIGUSR1)
    _, said = process.communicate(timeout=60)  # SLURM gives 90
    assert process.returncode == 75
    assert "snp: stopped" in said and "Traceback" not in said
    assert store.state(pretrain) == "incomplete" and (folder / "state.pt").exists()
    assert start(processes, tmp_path, tmp_path, [pretrain]) == 0
    assert_bit_equal(store, smoke_dense, pretrain, MODEL_FILES)


# -- saved states --------------------------------------------------------------------------------------------------


def flip(path: Path) -> None:
    """Change one byte in the middle: the archive opens, its content is wrong."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])


@pytest.mark.parametrize("damage", [flip, cut])
def test_a_damaged_last_state_falls_back_to_the_one_before_says_so_and_ends_bit_equal(
    damage: object, processes: BaseContext, whole: Store, store: Store
) -> None:
    assert start(processes, store.root, store.base.root, [COMPRESS], Blow(COMPRESS, 9)) == -signal.SIGKILL
    state = store.folder(COMPRESS) / "state.pt"
    damage(state)  # type: ignore[operator]
    assert start(processes, store.root, store.base.root, [COMPRESS]) == 0
    assert "going on from state.previous.pt, step" in said(store.root).read_text()
    assert_bit_equal(store, whole, COMPRESS, KEPT)


def test_with_both_states_damaged_the_file_and_the_mend_are_named(processes: BaseContext, store: Store) -> None:
    assert start(processes, store.root, store.base.root, [COMPRESS], Blow(COMPRESS, 9)) == -signal.SIGKILL
    for name in ("state.pt", "state.previous.pt"):
        cut(store.folder(COMPRESS) / name)
    assert start(processes, store.root, store.base.root, [COMPRESS]) == 2
    assert "state.pt: cannot be read" in store.failure(COMPRESS) and "delete it" in store.failure(COMPRESS)


# -- disks and folders ---------------------------------------------------------------------------------------------


def on_small_disk(store: Store, kilobytes: int, then: str = "true") -> subprocess.CompletedProcess[str]:
    """COMPRESS in a folder that is a disk of this size; then what is in it, and what it says of a failure."""
    disk = store.root
    disk.mkdir(parents=True, exist_ok=True)
    here = Path(__file__).parent
    code = (
        f"import sys; sys.path.insert(0, {str(here)!r}); from pathlib import Path; import processes as p; "
        f"p.work(Path({str(disk)!r}), Path({str(store.base.root)!r}), [p.COMPRESS])"
    )
    script = (
        f'mount -t tmpfs -o size={kilobytes}k tmpfs {disk} && {then}; {sys.executable} -c "{code}"; code=$?; '
        f"ls -A {disk}/*; cat {disk}/*/failed.json; exit $code"
    )
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system lets nobody mount a disk of their own")
    return subprocess.run(["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True, check=False)


def test_a_full_disk_is_named_the_run_marked_failed_and_nothing_half_written(
    processes: BaseContext, store: Store
) -> None:
    done = on_small_disk(store, 600)
    assert done.returncode == 2, done.stderr
    assert "state.pt: No space left on device (make room on the disk" in done.stderr
    assert "Traceback" not in done.stderr
    files = done.stdout[: done.stdout.index("{")].split()
    assert {"spec.json", "failed.json"} <= {*files} and not [name for name in files if name.startswith(".")]
    assert "No space left on device" in done.stdout[done.stdout.index("{") :]


def test_a_read_only_folder_is_named(processes: BaseContext, store: Store) -> None:
    done = on_small_disk(store, 600, then=f"mount -o remount,ro {store.root}")
    assert done.returncode == 2, done.stderr
    assert "Read-only file system (make the folder writable" in done.stderr and "Traceback" not in done.stderr


def test_vanished_data_are_named_and_the_run_goes_on_when_they_are_back(
    whole: Store, store: Store, smoke_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, away = tmp_path / "data", tmp_path / "away"
    shutil.copytree(smoke_data, data)
    monkeypatch.setenv("SNP_DATA", str(data))
    shutil.copytree(whole.folder(COMPRESS), store.folder(COMPRESS))

    def vanish(captions: int) -> None:
        if captions and data.exists():
            data.rename(away)

    with pytest.raises(InputError, match=str(data)):
        stages.run(FINETUNE, store, vanish)
    assert store.state(FINETUNE) == "failed" and str(data) in store.failure(FINETUNE)
    assert not data.exists(), "lost data are not made anew in the middle of a run"
    away.rename(data)
    stages.run(FINETUNE, store)
    assert store.state(FINETUNE) == "done" and store.failure(FINETUNE) is None
    assert store.result(FINETUNE).metrics == whole.result(FINETUNE).metrics


def test_of_processes_that_fail_one_after_the_other_the_first_says_why(store: Store) -> None:
    with pytest.raises(ConnectionError), store.attempt(COMPRESS):
        with pytest.raises(ZeroDivisionError), store.noting(COMPRESS):  # as another process of the same run has it
            raise ZeroDivisionError("its loss is no number")
        raise ConnectionError("the other process is gone")
    assert store.failure(COMPRESS) == "ZeroDivisionError: its loss is no number"
    with store.attempt(COMPRESS):
        assert store.failure(COMPRESS) is None


# -- many at once --------------------------------------------------------------------------------------------------


def test_of_two_processes_one_does_the_run_and_the_other_says_so(processes: BaseContext, store: Store) -> None:
    first = processes.Process(target=work, args=(store.root, store.base.root, [COMPRESS]))
    first.start()
    wait_for(store.folder(COMPRESS) / "owner.json")
    assert start(processes, store.root, store.base.root, [COMPRESS]) == 2
    first.join()
    assert first.exitcode == 0 and store.state(COMPRESS) == "done" and store.failure(COMPRESS) is None
    assert f"is being run already (process {first.pid}, host " in said(store.root).read_text()


def test_whoever_was_killed_holds_nothing(processes: BaseContext, store: Store) -> None:
    assert start(processes, store.root, store.base.root, [COMPRESS], Blow(COMPRESS, 2)) == -signal.SIGKILL
    assert (store.folder(COMPRESS) / "owner.json").exists()
    with store.attempt(COMPRESS), pytest.raises(Busy, match="is being run already"), store.attempt(COMPRESS):
        raise AssertionError("two at once")
    assert not (store.folder(COMPRESS) / "owner.json").exists()


def finish(root: Path, seed: int, ready: object, go: object) -> None:
    """Write the result of one run when all others do."""
    row, store = find("scenes/snp@60", "smoke"), Store(root)
    run = row.compress(seed)
    ready.release()  # type: ignore[attr-defined]
    go.wait()  # type: ignore[attr-defined]
    with store.attempt(run):
        store.log(run, {"step": 1})
        store.save(run, MANIFEST, cost(row))


def test_64_runs_that_finish_at_once_leave_64_whole_results(processes: BaseContext, tmp_path: Path) -> None:
    ready, go = processes.Semaphore(0), processes.Event()
    workers = [processes.Process(target=finish, args=(tmp_path, seed, ready, go)) for seed in range(64)]
    for worker in workers:
        worker.start()
    for _ in workers:
        assert ready.acquire(timeout=60)
    go.set()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 64
    store = Store(tmp_path)
    assert sorted(result.run.seed for result in store.results()) == list(range(64))
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"spec.json", "log.jsonl", "result.json"}


def wait_for(path: Path, seconds: float = 120) -> None:
    limit = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < limit, f"{path} never came"
        time.sleep(0.005)
