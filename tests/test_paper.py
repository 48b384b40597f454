"""The road to paper scale: the real models, on the real formats, for two steps of every phase, within 16 GiB."""

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from snp.data.drawn import pictures, scenes
from snp.data.sources.layout import MIXTURE
from snp.data.tokens import Vocabulary
from snp.models.config import PAPER
from snp.training.learning import learning
from snp.training.prepare import Source

pytestmark = pytest.mark.slow

LIMIT = 16 * 2**30
SIDES = ((96, 64), (64, 96))
"""Width and height of pictures of even and of odd numbers; they are drawn as squares."""


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as users have it: annotations, GQA, Flickr30k, COCO, and pictures under the names of their numbers."""
    root = tmp_path_factory.mktemp("real")
    made = scenes.make(root / "made", seed=0, train=48, test=4, pretrain_val=4, workers=1)
    for folder in ("annotations", "gqa", "flickr30k", "coco", "images"):
        shutil.move(made / folder, root / folder)
    shutil.rmtree(made)
    for split in pictures.SPLITS:
        for file in (root / "images" / split).iterdir():
            with Image.open(file) as image:
                stretched = image.resize(SIDES[int(file.stem) % 2])
            stretched.save(file)
            stretched.save(root / "images" / f"{pictures.identity(split, int(file.stem))}.jpg")
    for file in (*(root / "annotations").glob("*.json"), *(root / "coco").rglob("instances_*.json")):
        stretch(file)
    shutil.copy(root / "annotations/final_mixed_train.json", root / "annotations/final_flickr_separateGT_train.json")
    return root


def stretch(file: Path) -> None:
    """Sizes and boxes of an annotation file as those of the stretched pictures."""
    content = json.loads(file.read_text())
    factors = {}
    for image in content["images"]:
        sides = SIDES[int(Path(image["file_name"]).stem) % 2]
        factors[image["id"]] = [new / image[name] for new, name in zip(sides, ("width", "height"), strict=True)]
        image["width"], image["height"] = sides
    for annotation in content["annotations"]:
        factor = factors[annotation["image_id"]] * 2
        annotation["bbox"] = [f * v for f, v in zip(factor, annotation["bbox"], strict=True)]
    file.write_text(json.dumps(content))


FULL = "SNP_LONG_TESTS" in os.environ
LONG = pytest.mark.skipif(not FULL, reason="an hour: nox -s paper-trial")


@pytest.mark.parametrize(
    ("row", "batch", "shortest"),
    [
        ("real/snp@40", "2", "160"),
        pytest.param("real/magnitude-structured-uniform@60:coco", "1", "160", marks=LONG),
        pytest.param("real/snp@40", "2", None, marks=LONG),
        pytest.param("real/magnitude-structured-uniform@60:coco", "1", None, marks=LONG),
    ],
)
def test_two_steps_of_every_phase_run_on_a_cpu(
    row: str, batch: str, shortest: str | None, real: Path, tmp_path: Path
) -> None:
    command = [
        sys.executable,
        "-m",
        "snp",
        "run",
        row,
        "--scale",
        "paper",
        "--steps",
        "2",
        "--batch",
        batch,
        "--random-towers",
        "--workers",
        "1",
        "--data-root",
        str(real),
        "--out",
        str(tmp_path),
    ]
    command += [] if shortest is None else ["--shortest", shortest]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    results = list(tmp_path.glob("trial-*/*/result.json"))
    assert len(results) == 3  # dense, compressed, fine-tuned
    peak = 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(f"{row} with pictures of {shortest or 800} pixels: peak memory {peak / 2**30:.1f} GiB")
    assert peak < LIMIT


def test_what_models_learn_from_is_mdetrs_mixture_with_flickr30ks_sentences(real: Path) -> None:
    source, words = Source.from_scale("paper", "real", real), Vocabulary.full()
    count = {name: len(source.captions(name, words, PAPER)) for name in (*MIXTURE, "finetune_refcoco_train")}
    sets = {task: learning(source, words, PAPER, task) for task in (None, "refcoco")}
    sizes = {task: sum(map(len, both)) for task, both in sets.items()}
    assert sizes == {None: sum(count[name] for name in MIXTURE), "refcoco": count["finetune_refcoco_train"]}
    batch = sets[None][0].batch(np.arange(4))
    assert {tuple(size) for size in batch.sizes_I2.tolist()} == {(800, 1200), (1200, 800)}


def test_without_a_folder_it_is_said_what_is_needed(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "snp",
        "run",
        "real/snp@60",
        "--scale",
        "paper",
        "--random-towers",
        "--out",
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "--data-root" in done.stderr
