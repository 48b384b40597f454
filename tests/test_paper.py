"""The road to paper scale: the real models, on the real formats, for two steps of every phase, within 16 GiB."""

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from snp.data import pictures, scenes

LIMIT = 16 * 2**30


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as users have it: annotations, GQA, Flickr30k, COCO, and pictures under the names of their numbers."""
    root = tmp_path_factory.mktemp("real")
    made = scenes.make(root / "made", seed=0, train=48, test=4, pretrain_val=4, workers=1)
    for folder in ("annotations", "gqa", "flickr30k", "coco", "images"):
        shutil.move(made / folder, root / folder)
    for split in pictures.SPLITS:
        for file in (root / "images" / split).iterdir():
            os.link(file, root / "images" / f"{pictures.identity(split, int(file.stem))}.jpg")
    shutil.rmtree(made)
    return root


LONG = pytest.mark.skipif("SNP_LONG_TESTS" not in os.environ, reason="ten minutes: nox -s paper-trial")


@pytest.mark.parametrize(
    ("row", "batch"),
    [("real/snp@40", "2"), pytest.param("real/magnitude-structured-uniform@60:coco", "1", marks=LONG)],
)
def test_two_steps_of_every_phase_run_on_a_cpu(row: str, batch: str, real: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "snp", "run", row, "--scale", "paper", "--steps", "2", "--batch", batch,
               "--workers", "1", "--data-root", str(real), "--out", str(tmp_path)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(list(tmp_path.glob("trial-*/*/result.json"))) == 3  # dense, compressed, fine-tuned
    peak = 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(f"{row}: peak memory {peak / 2**30:.1f} GiB")
    assert peak < LIMIT


def test_without_a_folder_it_is_said_what_is_needed(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "snp", "run", "real/snp@60", "--scale", "paper", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "--data-root" in done.stderr
