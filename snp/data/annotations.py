"""The one annotation format: MDETR's COCO-style JSON, one "image" per caption; read, checked and written."""

import gc
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from snp.data import fields
from snp.data.fields import Box as Box
from snp.data.fields import check_box, check_spans, need, noted, shown, whole
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
    """The keys that only Flickr's and GQA's files have."""
    if entry.question_id:
        return {"questionId": entry.question_id, "question_type": entry.question_type, "answer": entry.answer}
    if entry.evaluated:
        flickr = {"sentence_id": entry.sentence_id, "original_img_id": entry.original_id}
        return flickr | {"tokens_positive_eval": entry.evaluated, "phrase_types": entry.phrase_types}
    return {}


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


class Checks:
    """The checks of an annotation file, one image and then one annotation after the other."""

    def __init__(self, path: str | Path) -> None:
        self.path = path
        self._rows: dict[int, int] = {}
        self._seen: dict[int, tuple[int, int, str]] = {}  # by row: width, height and caption of a sound image
        self._named = bytearray()

    def image(self, index: int, image: Any) -> None:
        """InputError if image number `index` is not as it must be, or its id has been seen."""
        self._named.append(False)
        try:
            _check_image(image)
            if image["id"] in self._rows:
                raise InputError(".id", f"{image['id']} occurs twice")
        except InputError as error:
            raise _placed(f"{self.path}: images[{index}]", error) from None
        self._rows[image["id"]] = index
        self._seen[index] = image["width"], image["height"], image["caption"]

    def annotation(self, index: int, annotation: Any) -> int:
        """The number of its image; InputError if annotation number `index` has none, or is not as it must be."""
        try:
            number = annotation.get("image_id") if isinstance(annotation, dict) else None
            row = self._rows.get(number) if type(number) is int else None
            if row is None:
                raise InputError(".image_id", "names no image of this file")
            self._named[row] = True
            _check_annotation(annotation, *self._seen[row])
        except InputError as error:
            raise _placed(f"{self.path}: annotations[{index}]", error) from None
        return row

    def without_boxes(self) -> Iterator[InputError]:
        """An error for every sound image that no annotation has named."""
        for row, (_, _, caption) in self._seen.items():
            if not self._named[row]:
                mend = "give it an annotation with a bbox"
                yield InputError(f"{self.path}: images[{row}]", f"caption {caption!r} has no boxes", mend)


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
    )


def listed(path: str | Path, document: Any, key: str) -> list[Any]:
    """The list of this name in a document; InputError if there is none."""
    value = document.get(key) if isinstance(document, dict) else None
    if not isinstance(value, list):
        raise InputError(f"{path}: {key}", "missing or not a list", "the file must be COCO-style JSON")
    return value


_NEEDED = {"id": int, "file_name": str, "caption": str, "height": int, "width": int}
_OPTIONAL: dict[str, tuple[type, ...]] = {
    "dataset_name": (str,),
    "expression_type": (str,),
    "original_id": (int, str),
    "original_img_id": (int, str),
    "sentence_id": (int, str),
    "questionId": (int, str),
    "question_type": (str,),
    "answer": (str,),
    "tokens_positive_eval": (list,),
    "phrase_types": (list,),
}
"""The keys of an image that are read, and their kinds."""


def _check_image(image: Any) -> None:
    """InputError, placed in the image, unless it is as it must be."""
    if not isinstance(image, dict):
        raise InputError("", "not an object")
    number, name, caption, height, width = map(image.get, _NEEDED)
    sound = (
        type(number) is type(height) is type(width) is int
        and type(name) is type(caption) is str
        and -fields.MOST <= number <= fields.MOST
        and 1 <= height <= fields.SIDE
        and 1 <= width <= fields.SIDE
        and (name.isascii() or whole(name))
        and (caption.isascii() or whole(caption))
        and caption
        and not caption.isspace()
    )
    if not sound:
        for key, kind in _NEEDED.items():
            need(image, key, kind, "")
        fields.words(image, "caption", "")
        fields.size(image, "")
    for key, value in image.items():
        if key in _OPTIONAL and value is not None:
            _check_optional(image, key, value)


def _check_optional(image: dict[str, Any], key: str, value: Any) -> None:
    if type(value) is str and str in _OPTIONAL[key] and value.isascii():
        return
    if type(value) not in _OPTIONAL[key]:
        raise InputError(f".{key}", f"{shown(value)} is not {' or '.join(kind.__name__ for kind in _OPTIONAL[key])}")
    fields.checked(value, type(value), f".{key}")
    if key == "tokens_positive_eval":
        for place, spans in enumerate(value):
            check_spans(spans, image["caption"], f".{key}[{place}]")
    if key == "phrase_types":
        for place, types in enumerate(value):
            for kind in fields.checked(types, list, f".{key}[{place}]"):
                fields.checked(kind, str, f".{key}[{place}]")
        phrases = len(image.get("tokens_positive_eval") or ())
        if value and len(value) != phrases:
            raise InputError(f".{key}", f"has the types of {len(value)} phrases, where {phrases} are evaluated")


def _check_annotation(annotation: dict[str, Any], width: int, height: int, caption: str) -> None:
    """InputError, placed in the annotation, unless it is as it must be."""
    check_box(annotation.get("bbox"), width, height, ".bbox")
    check_spans(annotation.get("tokens_positive"), caption, ".tokens_positive")
    category = annotation.get("category_id")
    if category is not None and (type(category) is not int or abs(category) > fields.MOST):
        fields.checked(category, int, ".category_id")


def _placed(where: str, error: InputError) -> InputError:
    return InputError(f"{where}{error.where}", error.problem, error.mend)
