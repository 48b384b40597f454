"""The one annotation format: MDETR's COCO-style JSON, one "image" per caption; read, checked and written."""

import gc
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from snp.data.checks import Checks
from snp.data.fields import Box as Box
from snp.data.fields import noted
from snp.errors import InputError
from snp.files import read_json, write_atomic

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Entry:
    """One caption of one picture, with a box and the characters that name it for every annotated object.

    Args:
        id: number of the caption, unique within its file.
        file_name: picture, relative to the image folder.
        height, width: of the picture, in pixels.
        caption: the sentence.
        dataset_name: benchmark it belongs to, for example ``refcoco+``.
        boxes: one (x, y, width, height) per object, in pixels; at least one.
        spans: for every box the [begin, end) character spans of the caption that name it; at least one each.
        type: expression type (attribute, relation, order), "" where unknown; ``expression_type`` in the file.
        original_id: number of the picture, or of the expression in the source data; GQA's may be words.
        categories: category id of every box.
        evaluated: Flickr: the spans of every phrase that is evaluated (``tokens_positive_eval``).
        phrase_types: Flickr: the types of each of them, as ``people``; ``phrase_types`` in the file [ours].
        sentence_id: Flickr: number of the sentence among those of its picture.
        question_id, question_type, answer: GQA.
        difficulty: of a caption without a target, "hard" where all that it names is in the picture, else "easy". [ours]
    """

    id: int
    file_name: str
    height: int
    width: int
    caption: str
    dataset_name: str
    boxes: tuple[Box, ...]
    spans: tuple[tuple[Span, ...], ...]
    type: str = ""
    original_id: int | str = 0
    categories: tuple[int, ...] = field(default=())
    evaluated: tuple[tuple[Span, ...], ...] = ()
    phrase_types: tuple[tuple[str, ...], ...] = ()
    sentence_id: int | str = 0
    question_id: str = ""
    question_type: str = ""
    answer: str = ""
    difficulty: str = ""


def read(path: str | Path, boxless: bool = False, faults: list[InputError] | None = None) -> list[Entry]:
    """Read an annotation file, in the order of its images.

    Boxes may pass the edge of the picture by a pixel (COCO rounds). Unknown keys are ignored; of those that not every
    file has, null is as good as none.

    Args:
        boxless: captions may have no box, as questions have.
        faults: all that is wrong is added to them, and left out; by default the first of it is raised.

    Raises:
        InputError: naming the file and the field that is missing, of the wrong kind or out of range.
    """
    # Hundreds of thousands of small objects are made, none of them garbage: collecting would double the time.
    collecting = gc.isenabled()
    gc.disable()
    try:
        return _entries(path, boxless, faults)
    finally:
        if collecting:
            gc.enable()


def write(path: str | Path, entries: Iterable[Entry], categories: Sequence[str]) -> Path:
    """Write `entries` as an annotation file, atomically; equal entries give equal bytes.

    Args:
        categories: names; the index is the category id.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for entry in entries:
        images.append(
            {
                "file_name": entry.file_name,
                "height": entry.height,
                "width": entry.width,
                "id": entry.id,
                "caption": entry.caption,
                "dataset_name": entry.dataset_name,
                "expression_type": entry.type,
                "tokens_negative": [[0, len(entry.caption)]],
                "original_id": entry.original_id,
                **_of_task(entry),
            }
        )
        ids = entry.categories or (0,) * len(entry.boxes)
        for box, spans, category in zip(entry.boxes, entry.spans, ids, strict=True):
            annotations.append(
                {
                    "id": len(annotations),
                    "image_id": entry.id,
                    "category_id": category,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                    "tokens_positive": spans,
                    "original_id": entry.original_id,
                }
            )
    document = {
        "info": {},
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": [{"id": index, "name": name} for index, name in enumerate(categories)],
    }
    return write_atomic(path, json.dumps(document, separators=(",", ":")) + "\n")


def _of_task(entry: Entry) -> dict[str, Any]:
    """The keys that only Flickr's and GQA's files have, and those of captions without a target."""
    if entry.question_id:
        return {"questionId": entry.question_id, "question_type": entry.question_type, "answer": entry.answer}
    if entry.evaluated:
        flickr = {"sentence_id": entry.sentence_id, "original_img_id": entry.original_id}
        return flickr | {"tokens_positive_eval": entry.evaluated, "phrase_types": entry.phrase_types}
    return {"difficulty": entry.difficulty} if entry.difficulty else {}


def _entries(path: str | Path, boxless: bool, faults: list[InputError] | None) -> list[Entry]:
    images, annotations = list[Any](), list[Any]()
    with noted(faults):
        document = read_json(path)
        images, annotations = (listed(path, document, key) for key in ("images", "annotations"))
    checks = Checks(path)
    sound = list[dict[str, Any]]()
    for index, image in enumerate(images):
        with noted(faults):
            checks.image(index, image)
            sound.append(image)
    found: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in sound}
    for index, annotation in enumerate(annotations):
        with noted(faults):
            checks.annotation(index, annotation)
            found[annotation["image_id"]].append(annotation)
    for error in () if boxless else checks.without_boxes():
        with noted(faults):
            raise error
    return [entry_of(image, found[image["id"]]) for image in sound]


def entry_of(image: dict[str, Any], annotations: list[dict[str, Any]]) -> Entry:
    """An entry from its image and annotations, which must be sound."""
    question = image.get("questionId")
    return Entry(
        id=image["id"],
        file_name=image["file_name"],
        height=image["height"],
        width=image["width"],
        caption=image["caption"],
        dataset_name=image.get("dataset_name") or "",
        boxes=tuple(tuple(annotation["bbox"]) for annotation in annotations),
        spans=tuple(tuple(map(tuple, annotation["tokens_positive"])) for annotation in annotations),
        type=image.get("expression_type") or "",
        original_id=image.get("original_id") or image.get("original_img_id") or 0,
        categories=tuple(annotation.get("category_id") or 0 for annotation in annotations),
        evaluated=tuple(tuple(map(tuple, spans)) for spans in image.get("tokens_positive_eval") or ()),
        phrase_types=tuple(map(tuple, image.get("phrase_types") or ())),
        sentence_id=image.get("sentence_id") or 0,
        question_id="" if question is None else str(question),
        question_type=image.get("question_type") or "",
        answer=image.get("answer") or "",
        difficulty=image.get("difficulty") or "",
    )


def listed(path: str | Path, document: Any, key: str) -> list[Any]:
    """The list of this name in a document; InputError if there is none."""
    value = document.get(key) if isinstance(document, dict) else None
    if not isinstance(value, list):
        raise InputError(f"{path}: {key}", "missing or not a list", "the file must be COCO-style JSON")
    return value
