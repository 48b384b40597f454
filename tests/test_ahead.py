"""Batches made ahead by other processes: the same bits in the same order, and no process is left behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import count, islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from processes import alive

from snp.data.ahead import ahead
from snp.data.annotations import Entry
from snp.data.dataset import GroundingSet
from snp.data.loading import Pictures
from snp.data.tokens import Vocabulary
from snp.data.views import Draws, Fit
from snp.errors import InputError
from snp.training.setup import MOST_LOADERS, Setup


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, source = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for i in range(6):
        Image.fromarray(source.integers(0, 256, (30 + 10 * i, 70, 3), np.uint8)).save(root / f"{i}.png")
    return root


def data(folder: Path, loaders: int, names: range = range(6)) -> GroundingSet:
    entries = [
        Entry(i, f"{k}.png", 30 + 10 * k, 70, "a thing " * (1 + i % 3), "toy", ((5, 5, 20, 20),), (((0, 7),),))
        for i in names
        for k in (i % 6,)
    ]
    found = GroundingSet(
        entries, Pictures((folder,), False, 32, Fit(40, 64)), Vocabulary.from_captions(["a thing"]), 12
    )
    found.loaders = loaders
    return found


def wait_until(true: Callable[[], bool], seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.05)
    return true()


def identities(_: int) -> int:
    return os.getpid()


@pytest.mark.parametrize("loaders", [1, 2])
def test_a_stream_is_the_same_to_the_bit_however_many_processes_make_it(folder: Path, loaders: int) -> None:
    drawn = {"batch": 4, "seed": 3, "start": 1, "share": (1, 2), "draws": Draws((24, 32, 40), 0.5, 3)}
    expected, found = (
        list(islice(data(folder, n, range(24)).stream(**drawn), 14))
        for n in (0, loaders)  # over two epochs
    )
    for a, b in zip(expected, found, strict=True):
        for one, other in ((a, b), (a.whole, b.whole)):
            assert one.sizes_I2 is not None
            for name, tensor in one._tensors().items():
                assert torch.equal(tensor, getattr(other, name)), name


@pytest.mark.parametrize("loaders", [1, 2])
def test_evaluation_sees_the_same_groups(folder: Path, loaders: int) -> None:
    sets = [data(folder, n, range(18)) for n in (0, loaders)]
    for (index, batch), (also, again) in zip(*(s.made(s.by_image(4)) for s in sets), strict=True):
        assert np.array_equal(index, also) and torch.equal(batch.images_ICHW, again.images_ICHW)


def test_the_runs_own_random_numbers_are_not_touched() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    assert list(ahead(float, range(5), 2)) == [0, 1, 2, 3, 4]
    assert torch.equal(torch.rand(3), expected)


def test_a_picture_that_cannot_be_read_is_named_as_without_other_processes(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    broken = data(tmp_path, 2)
    (tmp_path / "3.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"3\.png: image cannot be read"):
        list(broken.made(broken.by_image(1)))


@pytest.mark.slow
def test_processes_work_at_the_same_time_and_end_with_the_iterator() -> None:
    batches = ahead(identities, count(), 2)
    workers = {next(batches) for _ in range(8)}
    assert len(workers) == 2 and os.getpid() not in workers and all(map(alive, workers))
    batches.close()
    assert wait_until(lambda: not any(map(alive, workers)))


def test_signals_to_all_of_a_job_are_the_runs_to_answer() -> None:
    batches = ahead(identities, count(), 2)
    workers = {next(batches) for _ in range(8)}
    stranger = "import os, sys; [os.kill(int(pid), int(sys.argv[1])) for pid in sys.argv[2:]]"
    for signum in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT):
        subprocess.run([sys.executable, "-c", stranger, str(int(signum)), *map(str, workers)], check=True)
    assert {next(batches) for _ in range(8)} == workers
    batches.close()
    assert wait_until(lambda: not any(map(alive, workers)))


CHILD = """
import os, sys, time
from itertools import count
from snp.data.ahead import ahead

def identities(_):
    return os.getpid()

batches = ahead(identities, count(), 2)
print(*{next(batches) for _ in range(8)}, flush=True)
if sys.argv[1] == "wait":
    time.sleep(60)
if sys.argv[1] == "raise":
    raise SystemExit(3)
"""


@pytest.mark.slow
@pytest.mark.parametrize("end", ["wait", "raise", "return"])
def test_no_process_outlives_its_parent_however_that_ends(end: str) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, end], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]
    )
    assert child.stdout is not None
    workers = list(map(int, child.stdout.readline().split()))
    assert len(workers) == 2
    if end == "wait":
        child.kill()
    assert child.wait(timeout=30) == {"wait": -signal.SIGKILL, "raise": 3, "return": 0}[end]
    assert wait_until(lambda: not any(map(alive, workers)))


def test_real_pictures_are_decoded_ahead_by_default_and_drawn_ones_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def here(processors: int, processes: int = 1) -> tuple[int, int, int]:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(processors)))
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
        return tuple(Setup().ahead(data) for data in ("real", "scenes", "stamps"))

    assert [here(*asked) for asked in ((1,), (4,), (64,), (16, 4))] == [
        (0, 0, 0),
        (3, 0, 0),
        (MOST_LOADERS, 0, 0),
        (3, 0, 0),
    ]
    assert [Setup(loaders=n).ahead("real") for n in (0, 5)] == [0, 5]
