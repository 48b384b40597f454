"""The one annotation format: MDETR's COCO-style JSON, one "image" per caption; read, checked and written."""

import gc
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from snp.errors import InputError
from snp.files import read_json, write_atomic

Box = tuple[float, float, float, float]
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
        original_id: number of the picture, or of the expression in the source data.
        categories: category id of every box.
        evaluated: Flickr: the spans of every phrase that is evaluated (``tokens_positive_eval``).
        phrase_types: Flickr: the types of each of them, as ``people``; ``phrase_types`` in the file [ours].
        sentence_id: Flickr: number of the sentence among those of its picture.
        question_id, question_type, answer: GQA.
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
    original_id: int = 0
    categories: tuple[int, ...] = field(default=())
    evaluated: tuple[tuple[Span, ...], ...] = ()
    phrase_types: tuple[tuple[str, ...], ...] = ()
    sentence_id: int = 0
    question_id: str = ""
    question_type: str = ""
    answer: str = ""


def read(path: str | Path, boxless: bool = False) -> list[Entry]:
    """Read an annotation file, in the order of its images.

    Boxes may pass the edge of the picture by less than a pixel (COCO rounds). Unknown keys are ignored.

    Args:
        boxless: captions may have no box, as questions have.

    Raises:
        InputError: naming the file and the field that is missing, of the wrong kind or out of range.
    """
    # Hundreds of thousands of small objects are made, none of them garbage: collecting would double the time.
    collecting = gc.isenabled()
    gc.disable()
    try:
        return _entries(path, read_json(path), boxless)
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
        images.append({
            "file_name": entry.file_name, "height": entry.height, "width": entry.width, "id": entry.id,
            "caption": entry.caption, "dataset_name": entry.dataset_name, "expression_type": entry.type,
            "tokens_negative": [[0, len(entry.caption)]], "original_id": entry.original_id, **_of_task(entry),
        })  # fmt: skip
        ids = entry.categories or (0,) * len(entry.boxes)
        for box, spans, category in zip(entry.boxes, entry.spans, ids, strict=True):
            annotations.append({
                "id": len(annotations), "image_id": entry.id, "category_id": category, "bbox": box,
                "area": box[2] * box[3], "iscrowd": 0, "tokens_positive": spans,
                "original_id": entry.original_id,
            })  # fmt: skip
    document = {
        "info": {}, "licenses": [], "images": images, "annotations": annotations,
        "categories": [{"id": index, "name": name} for index, name in enumerate(categories)],
    }  # fmt: skip
    return write_atomic(path, json.dumps(document, separators=(",", ":")) + "\n")


def _of_task(entry: Entry) -> dict[str, Any]:
    """The keys that only Flickr's and GQA's files have."""
    if entry.question_id:
        return {"questionId": entry.question_id, "question_type": entry.question_type, "answer": entry.answer}
    if entry.evaluated:
        flickr = {"sentence_id": entry.sentence_id, "original_img_id": entry.original_id}
        return flickr | {"tokens_positive_eval": entry.evaluated, "phrase_types": entry.phrase_types}
    return {}


def _entries(path: str | Path, document: Any, boxless: bool) -> list[Entry]:
    images, annotations = (listed(path, document, key) for key in ("images", "annotations"))
    for error in _faults(path, images, annotations, boxless):
        raise error
    found: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in images}
    for annotation in annotations:
        found[annotation["image_id"]].append(annotation)
    return [entry_of(image, found[image["id"]]) for image in images]


def problems(path: str | Path, boxless: bool = False) -> Iterator[InputError]:
    """Everything that is wrong with an annotation file, where `read` stops at the first."""
    try:
        document = read_json(path)
        images, annotations = (listed(path, document, key) for key in ("images", "annotations"))
    except InputError as error:
        yield error
        return
    yield from _faults(path, images, annotations, boxless)


def _faults(path: str | Path, images: list[Any], annotations: list[Any], boxless: bool) -> Iterator[InputError]:
    """What is wrong with images, then with annotations, then captions without a box."""
    checks = Checks(path)
    for check, values in ((checks.image, images), (checks.annotation, annotations)):
        for index, value in enumerate(values):
            try:
                check(index, value)
            except InputError as error:
                yield error
    if not boxless:
        yield from checks.without_boxes()


class Checks:
    """The checks of an annotation file, one image and then one annotation after the other."""

    def __init__(self, path: str | Path) -> None:
        self.path = path
        self._rows: dict[int, int] = {}
        self._seen: dict[int, tuple[int, int, str]] = {}  # by row: width, height and caption of a sound image
        self._named = bytearray()

    def image(self, index: int, image: Any) -> None:
        """InputError if image number `index` is not as it must be, or its id has been seen."""
        where = f"{self.path}: images[{index}]"
        self._named.append(False)
        _check_image(where, image)
        if image["id"] in self._rows:
            raise InputError(f"{where}.id", f"{image['id']} occurs twice")
        self._rows[image["id"]] = index
        self._seen[index] = image["width"], image["height"], image["caption"]

    def annotation(self, index: int, annotation: Any) -> int:
        """The number of its image; InputError if annotation number `index` has none, or is not as it must be."""
        where = f"{self.path}: annotations[{index}]"
        row = self._rows.get(annotation.get("image_id")) if isinstance(annotation, dict) else None
        if row is None:
            raise InputError(f"{where}.image_id", "names no image of this file")
        self._named[row] = True
        _check_annotation(where, annotation, *self._seen[row])
        return row

    def without_boxes(self) -> Iterator[InputError]:
        """An error for every sound image that no annotation has named."""
        for row, (_, _, caption) in self._seen.items():
            if not self._named[row]:
                mend = "give it an annotation with a bbox"
                yield InputError(f"{self.path}: images[{row}]", f"caption {caption!r} has no boxes", mend)


def entry_of(image: dict[str, Any], annotations: list[dict[str, Any]]) -> Entry:
    """An entry from its image and annotations, which must be sound."""
    return Entry(
        id=image["id"],
        file_name=image["file_name"],
        height=image["height"],
        width=image["width"],
        caption=image["caption"],
        dataset_name=image.get("dataset_name", ""),
        boxes=tuple(tuple(annotation["bbox"]) for annotation in annotations),
        spans=tuple(tuple(map(tuple, annotation["tokens_positive"])) for annotation in annotations),
        type=image.get("expression_type", ""),
        original_id=image.get("original_id", 0),
        categories=tuple(annotation.get("category_id", 0) for annotation in annotations),
        evaluated=tuple(tuple(map(tuple, spans)) for spans in image.get("tokens_positive_eval", ())),
        phrase_types=tuple(map(tuple, image.get("phrase_types", ()))),
        sentence_id=image.get("sentence_id", 0),
        question_id=str(image.get("questionId", "")),
        question_type=image.get("question_type", ""),
        answer=image.get("answer", ""),
    )


def listed(path: str | Path, document: Any, key: str) -> list[Any]:
    """The list of this name in a document; InputError if there is none."""
    value = document.get(key) if isinstance(document, dict) else None
    if not isinstance(value, list):
        raise InputError(f"{path}: {key}", "missing or not a list", "the file must be COCO-style JSON")
    return value


def _check_image(where: str, image: Any) -> None:
    if not isinstance(image, dict):
        raise InputError(where, "not an object")
    for key, kind in (("id", int), ("file_name", str), ("caption", str), ("height", int), ("width", int)):
        value = image.get(key)
        if type(value) is not kind:
            raise InputError(
                f"{where}.{key}", "missing" if value is None else f"{value!r} is not {kind.__name__}"
            )
    if not image["caption"].strip():
        raise InputError(f"{where}.caption", "is empty")
    if image["height"] < 1 or image["width"] < 1:
        raise InputError(f"{where}.height", f"picture of {image['width']}x{image['height']} pixels")


def _check_annotation(
    where: str, annotation: dict[str, Any], image_width: int, image_height: int, caption: str
) -> None:
    box, spans = annotation.get("bbox"), annotation.get("tokens_positive")
    if (
        not isinstance(box, list)
        or len(box) != 4
        or not {*map(type, box)} <= {int, float}
        or not all(map(math.isfinite, box))
    ):
        raise InputError(f"{where}.bbox", f"{box!r} is not [x, y, width, height]")
    x, y, width, height = box
    if width <= 0 or height <= 0:
        raise InputError(f"{where}.bbox", f"{box} is empty")
    if x <= -1 or y <= -1 or x + width >= image_width + 1 or y + height >= image_height + 1:
        size = f"{image_width}x{image_height}"
        raise InputError(f"{where}.bbox", f"{box} lies outside its image of {size} pixels")
    if not isinstance(spans, list) or not spans:
        raise InputError(
            f"{where}.tokens_positive", "missing or empty", "list the [begin, end) spans of its phrase"
        )
    for span in spans:
        if not isinstance(span, list) or len(span) != 2 or {*map(type, span)} != {int}:
            raise InputError(f"{where}.tokens_positive", f"{span!r} is not [begin, end)")
        if not 0 <= span[0] < span[1] <= len(caption):
            raise InputError(
                f"{where}.tokens_positive", f"span {span} lies outside the caption of {len(caption)} characters"
            )
