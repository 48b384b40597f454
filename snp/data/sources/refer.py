"""RefCOCO, RefCOCO+ and RefCOCOg as published: a pickle of references beside COCO's instances."""

import io
import pickle
from pathlib import Path
from typing import Any

from snp.data.annotations import Entry
from snp.data.fields import check_box, checked, need, noted, shown, words
from snp.data.sources import coco
from snp.data.sources.layout import FILES, PUBLISHED
from snp.errors import InputError


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
    """Split -> one entry for every sentence, with the box of the object it names; the span is the whole sentence.

    Args:
        references: ``refs(unc).p`` or ``refs(umd).p``.
        instances: COCO's ``instances_train2014.json``, or the ``instances.json`` that comes with the references.
        faults: all that is wrong is added to them, and left out; by default the first of it is raised.

    Raises:
        InputError: naming the file and the field at fault.
    """
    known = coco.read(instances, faults)
    found = list[Any]()
    with noted(faults):
        found = checked(plain_pickle(references), list, references)
    splits: dict[str, list[Entry]] = {}
    for index, reference in enumerate(found):
        with noted(faults):
            _take(reference, f"{references}: [{index}]", known, instances, benchmark, splits)
    return splits


def _take(
    reference: Any, where: str, known: coco.Instances, instances: Path, benchmark: str, splits: dict[str, list[Entry]]
) -> None:
    """Add the sentences of one reference to those of its split."""
    number, picture, split, sentences = (
        need(reference, key, kind, where)
        for key, kind in (("ann_id", int), ("image_id", int), ("split", str), ("sentences", list))
    )
    if split not in PUBLISHED[benchmark]:
        hint = f"fetch {FILES[benchmark]} again; its splits are {', '.join(PUBLISHED[benchmark])}"
        raise InputError(f"{where}.split", f"{shown(split)} is no split of {benchmark}", hint)
    annotation, image = known.annotations.get(number), known.images.get(picture)
    if annotation is None or image is None:
        missing = "ann_id" if annotation is None else "image_id"
        raise InputError(f"{where}.{missing}", f"{reference[missing]} is not in {instances}")
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
                boxes=(annotation.box,),
                spans=(((0, len(text)),),),
                original_id=number,
                categories=(annotation.category,),
            )
        )
