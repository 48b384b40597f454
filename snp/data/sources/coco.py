"""COCO's instances: pictures, boxes and categories, with every field checked."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snp.data.annotations import Box
from snp.data.fields import check_box, given, need, noted, shown, size, words
from snp.errors import InputError
from snp.files import read_json

EXACT = 2**53
"""Ids are smaller: pycocotools holds those of detections as floats."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One image: file name and size in pixels."""

    id: int
    file_name: str
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class Instance:
    """One object: its box (x, y, width, height) in pixels, its category id, its area in pixels, whether it is a crowd.

    Area and crowd may be missing in a file: the area of the box, and none.
    """

    image: int
    category: int
    box: Box
    area: float
    crowd: bool


@dataclass(frozen=True)
class Instances:
    """A whole file: by id, images, annotations and category names."""

    images: dict[int, Picture]
    annotations: dict[int, Instance]
    categories: dict[int, str]


def read(path: Path, faults: list[InputError] | None = None) -> Instances:
    """Read an ``instances_*.json``. Boxes may have no area.

    Args:
        faults: all that is wrong is added to them, and left out; by default the first of it is raised.

    Raises:
        InputError: naming the file and the field that is missing, of the wrong kind, repeated or out of range.
    """
    found = Instances({}, {}, {})
    lists: dict[str, list[Any]] = {}
    with noted(faults):
        document = read_json(path)
        lists = {key: _list(path, document, key) for key in ("categories", "images", "annotations")}
    for key, take in (("categories", _category), ("images", _image), ("annotations", _annotation)):
        for index, value in enumerate(lists.get(key, ())):
            with noted(faults):
                take(found, value, f"{path}: {key}[{index}]")
    return found


def _category(found: Instances, value: Any, where: str) -> None:
    number, name = _id(value, found.categories, where), words(value, "name", where)
    if name in found.categories.values():
        raise InputError(f"{where}.name", f"{shown(name)} occurs twice: a prompt could not tell them apart")
    found.categories[number] = name


def _image(found: Instances, value: Any, where: str) -> None:
    number, file_name = _id(value, found.images, where), need(value, "file_name", str, where)
    width, height = size(value, where)
    found.images[number] = Picture(number, file_name, height, width)


def _annotation(found: Instances, value: Any, where: str) -> None:
    number = _id(value, found.annotations, where)
    image, category = (need(value, key, int, where) for key in ("image_id", "category_id"))
    box = need(value, "bbox", list, where)
    if image not in found.images:
        raise InputError(f"{where}.image_id", f"{image} names no image of this file")
    if category not in found.categories:
        raise InputError(f"{where}.category_id", f"{category} names no category of this file")
    picture = found.images[image]
    check_box(box, picture.width, picture.height, f"{where}.bbox", empty=True)
    area = given(value, "area", float, where, float(box[2] * box[3]))
    if area < 0:
        raise InputError(f"{where}.area", f"{area} is below zero")
    crowd = value.get("iscrowd")
    if crowd is not None and (not isinstance(crowd, int) or crowd not in (0, 1)):
        raise InputError(f"{where}.iscrowd", f"{shown(crowd)} is neither 0 nor 1")
    x, y, w, h = map(float, box)
    found.annotations[number] = Instance(image, category, (x, y, w, h), area, bool(crowd))


def _id(value: Any, known: dict[int, Any], where: str) -> int:
    number: int = need(value, "id", int, where)
    if abs(number) >= EXACT:
        raise InputError(f"{where}.id", f"{number} has more than 53 bits", "number anew")
    if number in known:
        raise InputError(f"{where}.id", f"{number} occurs twice")
    return number


def _list(path: Path, document: Any, key: str) -> list[Any]:
    value = document.get(key) if isinstance(document, dict) else None
    if not isinstance(value, list):
        raise InputError(f"{path}: {key}", "missing or not a list", "the file must be COCO's instances JSON")
    return value
