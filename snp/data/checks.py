"""What an annotation file must be, one image and then one annotation after the other; every fault is placed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from snp.data import fields
from snp.data.fields import check_box, check_spans, need, shown, whole
from snp.errors import InputError


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
                hint = "give it an annotation with a bbox"
                yield InputError(f"{self.path}: images[{row}]", f"caption {caption!r} has no boxes", hint)


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
    "difficulty": (str,),
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
    return InputError(f"{where}{error.where}", error.problem, error.hint)
