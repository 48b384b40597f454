"""COCO's instances: pictures, boxes and categories, with every field checked."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snp.data.annotations import Box
from snp.errors import InputError
from snp.files import read_json


@dataclass(frozen=True, slots=True)
class Picture:
    """One image: file name and size in pixels."""

    id: int
    file_name: str
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class Instance:
    """One object: its box (x, y, width, height) in pixels, its category id, and whether it is a crowd."""

    image: int
    category: int
    box: Box
    crowd: bool


@dataclass(frozen=True)
class Instances:
    """A whole file: by id, images, annotations and category names."""

    images: dict[int, Picture]
    annotations: dict[int, Instance]
    categories: dict[int, str]


def read(path: Path) -> Instances:
    """Read an ``instances_*.json``.

    Raises:
        InputError: naming the file and the field that is missing, of the wrong kind or out of range.
    """
    document = read_json(path)
    images, annotations, categories = (_list(path, document, key) for key in ("images", "annotations", "categories"))
    names = {_field(path, "categories", i, c, "id", int): _field(path, "categories", i, c, "name", str)
             for i, c in enumerate(categories)}  # fmt: skip
    pictures = {}
    for i, image in enumerate(images):
        number, file, height, width = (
            _field(path, "images", i, image, key, kind)
            for key, kind in (("id", int), ("file_name", str), ("height", int), ("width", int))
        )
        pictures[number] = Picture(number, file, height, width)
    found = {}
    for i, annotation in enumerate(annotations):
        number, image, category, box = (
            _field(path, "annotations", i, annotation, key, kind)
            for key, kind in (("id", int), ("image_id", int), ("category_id", int), ("bbox", list))
        )
        where = f"{path}: annotations[{i}]"
        if image not in pictures:
            raise InputError(f"{where}.image_id", f"{image} names no image of this file")
        if category not in names:
            raise InputError(f"{where}.category_id", f"{category} names no category of this file")
        if len(box) != 4 or not all(type(v) in (int, float) and math.isfinite(v) for v in box) or min(box[2:]) < 0:
            raise InputError(f"{where}.bbox", f"{box!r} is not [x, y, width, height]")
        picture = pictures[image]
        if min(box[:2]) <= -1 or box[0] + box[2] >= picture.width + 1 or box[1] + box[3] >= picture.height + 1:
            size = f"{picture.width}x{picture.height}"
            raise InputError(f"{where}.bbox", f"{box} lies outside its image of {size} pixels")
        found[number] = Instance(image, category, tuple(map(float, box)), bool(annotation.get("iscrowd", 0)))
    return Instances(pictures, found, names)


def _list(path: Path, document: Any, key: str) -> list[Any]:
    value = document.get(key) if isinstance(document, dict) else None
    if not isinstance(value, list):
        raise InputError(f"{path}: {key}", "missing or not a list", "the file must be COCO's instances JSON")
    return value


def _field(path: Path, part: str, index: int, value: Any, key: str, kind: type) -> Any:
    found = value.get(key) if isinstance(value, dict) else None
    if type(found) is not kind:
        problem = "missing" if found is None else f"{found!r} is not {kind.__name__}"
        raise InputError(f"{path}: {part}[{index}].{key}", problem)
    return found
