"""COCO's files as detection is judged by them: whatever reads one as sound judges by it, and ids are only names."""

import contextlib
import copy
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO

from snp.data.sources import coco
from snp.errors import InputError
from snp.tasks import average_precision

BOX = [10, 10, 40, 40]
ONE: dict[str, Any] = {
    "images": [{"id": 1, "file_name": "1.jpg", "height": 200, "width": 200}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": BOX, "area": 1600, "iscrowd": 0}],
    "categories": [{"id": 1, "name": "cat"}],
}
FOUND = {1: (np.array([BOX], float), np.array([0.9]), np.array([1]))}


def write(path: Path, document: Any) -> Path:
    path.write_text(json.dumps(document))
    return path


def many(seed: int = 0) -> tuple[dict[str, Any], dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]]]:
    """Objects of three classes and all sizes on ten images, some of them crowds, and detections of most."""
    rng = np.random.default_rng(seed)
    images = [{"id": n, "file_name": f"{n}.jpg", "height": 400, "width": 400} for n in range(10)]
    annotations = []
    for n in range(60):
        box = [*rng.integers(0, 150, 2).tolist(), *rng.integers(5, 240, 2).tolist()]
        annotations.append(
            {
                "id": n + 1,
                "image_id": n % 10,
                "category_id": n % 3,
                "bbox": box,
                "area": box[2] * box[3] * 0.6,
                "iscrowd": int(n % 11 == 0),
                "segmentation": [],
            }
        )
    found = {}
    for n in range(10):
        own = [a for a in annotations if a["image_id"] == n]
        boxes = np.array([a["bbox"] for a in own]) + rng.normal(0, 5, (len(own), 4))
        found[n] = boxes, rng.random(len(own)), np.array([a["category_id"] for a in own])
    categories = [{"id": n, "name": f"class {n}"} for n in range(3)]
    return {"images": images, "annotations": annotations, "categories": categories}, found


def test_figures_are_those_of_pycocotools_own_reading(tmp_path: Path) -> None:
    document, found = many()
    path = write(tmp_path / "i.json", document)
    with contextlib.redirect_stdout(io.StringIO()):
        own = COCO(str(path))
    figures = average_precision.score(path, found)
    assert figures == average_precision.score(own, found) and 0.1 < figures["AP"] < 1 and figures["AP_small"] > -1


@pytest.mark.parametrize("key", ["area", "iscrowd"])
def test_area_and_crowd_may_be_missing(tmp_path: Path, key: str) -> None:
    document = copy.deepcopy(ONE)
    del document["annotations"][0][key]
    assert average_precision.score(write(tmp_path / "i.json", document), FOUND)["AP"] == pytest.approx(1)


@pytest.mark.parametrize("shift", [-1, -30, 10**9])
def test_numbers_of_objects_are_only_names(tmp_path: Path, shift: int) -> None:
    """With 0 among them, which pycocotools takes for no match."""
    document, found = many()
    figures = average_precision.score(write(tmp_path / "i.json", document), found)
    for annotation in document["annotations"]:
        annotation["id"] += shift
    assert average_precision.score(write(tmp_path / "i.json", document), found) == figures


@pytest.mark.parametrize("number", [0, -1, 2**53 - 1])
def test_so_are_those_of_images_and_classes(tmp_path: Path, number: int) -> None:
    document = copy.deepcopy(ONE)
    document["images"][0]["id"] = document["annotations"][0]["image_id"] = number
    document["categories"][0]["id"] = document["annotations"][0]["category_id"] = number
    boxes, scores, _ = FOUND[1]
    said = {number: (boxes, scores, np.array([number]))}
    assert average_precision.score(write(tmp_path / "i.json", document), said)["AP"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("annotations", {"bbox": [1, 2, 3]}),
        ("annotations", {"bbox": [1, 2, float("nan"), 4]}),
        ("annotations", {"image_id": "1"}),
        ("annotations", {"area": "big"}),
        ("images", {"id": None}),
        ("categories", {"id": [1]}),
        ("images", {"width": 0}),
    ],
)
def test_what_is_not_sound_is_refused_alike_by_reader_and_judge(tmp_path: Path, part: str, change: dict) -> None:
    path = write(tmp_path / "i.json", ONE | {part: [ONE[part][0] | change]})
    with pytest.raises(InputError) as read:
        coco.read(path)
    with pytest.raises(InputError) as judged:
        average_precision.score(path, FOUND)
    assert str(judged.value) == str(read.value) and f"i.json: {part}[0]." in str(read.value)


def test_objects_that_share_a_number_are_refused(tmp_path: Path) -> None:
    """pycocotools would judge by the last of them, twice."""
    twice = [ONE["annotations"][0], ONE["annotations"][0] | {"bbox": [90, 90, 9, 9]}]
    with pytest.raises(InputError, match=r"annotations\[1\]\.id: 1 occurs twice"):
        average_precision.score(write(tmp_path / "i.json", ONE | {"annotations": twice}), FOUND)
