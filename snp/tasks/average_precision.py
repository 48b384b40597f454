"""Object detection: average precision as COCO counts it, by pycocotools."""

import contextlib
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from snp.data.sources import coco
from snp.errors import InputError
from snp.tasks.outputs import DIVERGED

NAMES = (
    "AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large",
    "AR@1", "AR@10", "AR@100", "AR_small", "AR_medium", "AR_large",
)  # fmt: skip


def score(
    instances: Path | COCO, detections: Mapping[int, tuple[np.ndarray, np.ndarray, np.ndarray]]
) -> dict[str, float]:
    """COCO's twelve figures; -1 where nothing of a size is asked for, as pycocotools gives it.

    Args:
        instances: an ``instances_*.json``, or one that is loaded.
        detections: image id -> (boxes [D, 4] as x, y, width, height in pixels, scores [D], category ids [D]).

    Raises:
        InputError: detections on an image or of a category that the file does not have, or that are not finite: of such
            boxes pycocotools makes an AP of 1.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints as it goes
        truth = instances if isinstance(instances, COCO) else _loaded(instances)
        known, categories = set(truth.getImgIds()), set(truth.getCatIds())
        rows = []
        for image, (boxes, scores, labels) in detections.items():
            if image not in known:
                raise InputError(f"image {image}", "is not in the instances")
            if not all(np.isfinite(given).all() for given in (boxes, scores, labels)):
                raise InputError(f"image {image}", "a box or score is not finite (nan or infinite)", DIVERGED)
            if stranger := {*map(int, labels)} - categories:
                raise InputError(f"image {image}", f"category {min(stranger)} is not in the instances")
            rows.append(np.column_stack([np.full(len(boxes), image), boxes, scores, labels]))
        table = np.concatenate(rows) if rows else np.zeros((0, 7))
        if not len(table):
            return {name: 0.0 for name in NAMES}
        judge = COCOeval(truth, truth.loadRes(table), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return dict(zip(NAMES, map(float, judge.stats), strict=True))


def _loaded(path: Path) -> COCO:
    """A file as `coco.read` reads it; annotations are numbered from 1 on: pycocotools takes a match of 0 for none."""
    known, truth = coco.read(path), COCO()
    truth.dataset = {
        "images": [{"id": number} for number in known.images],
        "categories": [{"id": number, "name": name} for number, name in known.categories.items()],
        "annotations": [
            {
                "id": number,
                "image_id": a.image,
                "category_id": a.category,
                "bbox": [*a.box],
                "area": a.area,
                "iscrowd": int(a.crowd),
            }
            for number, a in enumerate(known.annotations.values(), 1)
        ],
    }
    truth.createIndex()
    return truth
