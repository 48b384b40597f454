"""RefCOCO, RefCOCO+, RefCOCOg and gRefCOCO as published: a file of references beside COCO's instances."""

import io
import pickle
from pathlib import Path
from typing import Any

from snp.data.annotations import Entry
from snp.data.fields import check_box, checked, given, need, noted, shown, words
from snp.data.sources import coco
from snp.data.sources.layout import FILES, PUBLISHED
from snp.errors import InputError
from snp.files import read_json

GENERAL = "grefcoco"
"""The one whose sentences may name several objects, or none."""
NONE = -1
"""Stands there for the number of an object where there is none."""


class _Plain(pickle.Unpickler):
    """Reads lists, dicts, tuples, strings and numbers; whatever would import or call anything is refused."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it wants to load {module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it refers to an object outside the file")


def plain_pickle(path: Path) -> Any:
    """The plain value in a pickle.

    Raises:
        InputError: the file is missing, cut, or holds anything but plain values; nothing of it has run then.
    """
    try:
        return _Plain(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except FileNotFoundError:
        raise InputError(path, "file not found") from None
    except Exception as error:  # a damaged pickle raises almost anything
        hint = "fetch the file again from its authors; only plain lists, dicts, strings and numbers are read"
        raise InputError(path, f"refused: {error or type(error).__name__}", hint) from None


def read(
    references: Path, instances: Path, benchmark: str, faults: list[InputError] | None = None
) -> dict[str, list[Entry]]:
    """Split -> one entry for every sentence, with the boxes of what it names; the span is the whole sentence.

    It names one object; in gRefCOCO also several, or none: its type says which.

    Args:
        references: ``refs(unc).p`` or ``refs(umd).p``, a pickle; ``grefs(unc).json``.
        instances: COCO's ``instances_train2014.json``, or the ``instances.json`` that comes with the references.
        faults: all that is wrong is added to them, and left out; by default the first of it is raised.

    Raises:
        InputError: naming the file and the field at fault.
    """
    known = coco.read(instances, faults)
    found = list[Any]()
    with noted(faults):
        load = read_json if references.suffix == ".json" else plain_pickle
        found = checked(load(references), list, references)
    splits: dict[str, list[Entry]] = {}
    for index, reference in enumerate(found):
        with noted(faults):
            _take(reference, f"{references}: [{index}]", known, instances, benchmark, splits)
    return splits


def _take(
    reference: Any, where: str, known: coco.Instances, instances: Path, benchmark: str, splits: dict[str, list[Entry]]
) -> None:
    """Add the sentences of one reference to those of its split."""
    numbers = _named(reference, where, benchmark)
    picture, split, sentences = (
        need(reference, key, kind, where) for key, kind in (("image_id", int), ("split", str), ("sentences", list))
    )
    if split not in PUBLISHED[benchmark]:
        hint = f"fetch {FILES[benchmark]} again; its splits are {', '.join(PUBLISHED[benchmark])}"
        raise InputError(f"{where}.split", f"{shown(split)} is no split of {benchmark}", hint)
    for number in numbers:
        if number not in known.annotations:
            raise InputError(f"{where}.ann_id", f"{number} is not in {instances}")
    image = known.images.get(picture)
    if image is None:
        raise InputError(f"{where}.image_id", f"{picture} is not in {instances}")
    found = [known.annotations[number] for number in numbers]
    for number, annotation in zip(numbers, found, strict=True):
        if annotation.image != picture:
            problem = f"{number} is an object of image {annotation.image}, not of image_id {picture}"
            raise InputError(f"{where}.ann_id", problem, f"fetch this file and {instances.name} again, of one origin")
        check_box(annotation.box, image.width, image.height, f"{where}.ann_id: box of {number} in {instances.name}")
    said = [words(sentence, "sent", f"{where}.sentences[{place}]") for place, sentence in enumerate(sentences)]
    entries = splits.setdefault(split, [])
    for text in said:
        entries.append(
            Entry(
                id=len(entries),
                file_name=image.file_name,
                height=image.height,
                width=image.width,
                caption=text,
                dataset_name=benchmark,
                boxes=tuple(annotation.box for annotation in found),
                spans=(((0, len(text)),),) * len(found),
                type=""
                if benchmark != GENERAL or not found
                else "one target"
                if len(found) == 1
                else "several targets",
                original_id=numbers[0] if numbers else NONE,
                categories=tuple(annotation.category for annotation in found),
            )
        )


def _named(reference: Any, where: str, benchmark: str) -> list[int]:
    """The objects that a reference names, by their numbers, each once; none of gRefCOCO's that have no target."""
    several = benchmark == GENERAL and isinstance(reference, dict) and isinstance(reference.get("ann_id"), list)
    if not several:
        numbers = [need(reference, "ann_id", int, where)]
    else:
        numbers = [checked(number, int, f"{where}.ann_id[{k}]") for k, number in enumerate(reference["ann_id"])]
    if benchmark != GENERAL:
        return numbers
    without = numbers == [NONE]
    if not numbers or given(reference, "no_target", bool, where, without) != without:
        problem = f"{shown(reference['ann_id'])} does not go with no_target {reference.get('no_target')}"
        raise InputError(f"{where}.ann_id", problem, f"fetch {FILES[benchmark]} again; [{NONE}] stands for no target")
    return [] if without else list(dict.fromkeys(numbers))
