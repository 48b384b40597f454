"""RefCOCO, RefCOCO+ and RefCOCOg as published: a pickle of references beside COCO's instances."""

import io
import pickle
from pathlib import Path
from typing import Any

from snp.data.annotations import Entry
from snp.data.sources import coco
from snp.errors import InputError

FILES = {"refcoco": "refs(unc).p", "refcoco+": "refs(unc).p", "refcocog": "refs(umd).p"}


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
        mend = "fetch the file again from its authors; only plain lists, dicts, strings and numbers are read"
        raise InputError(path, f"refused: {error or type(error).__name__}", mend) from None


def read(references: Path, instances: Path, benchmark: str) -> dict[str, list[Entry]]:
    """Split -> one entry for every sentence, with the box of the object it names; the span is the whole sentence.

    Args:
        references: ``refs(unc).p`` or ``refs(umd).p``.
        instances: COCO's ``instances_train2014.json``, or the ``instances.json`` that comes with the references.

    Raises:
        InputError: naming the file and the field at fault.
    """
    known = coco.read(instances)
    found = plain_pickle(references)
    if not isinstance(found, list):
        raise InputError(references, f"holds a {type(found).__name__}, not a list of references")
    splits: dict[str, list[Entry]] = {}
    for index, reference in enumerate(found):
        where = f"{references}: [{index}]"
        if not isinstance(reference, dict):
            raise InputError(where, "is not a dict")
        for key, kind in (("ann_id", int), ("image_id", int), ("split", str), ("sentences", list)):
            if not isinstance(reference.get(key), kind):
                raise InputError(f"{where}.{key}", f"missing or not {kind.__name__}")
        annotation, image = known.annotations.get(reference["ann_id"]), known.images.get(reference["image_id"])
        if annotation is None or image is None:
            missing = "ann_id" if annotation is None else "image_id"
            raise InputError(f"{where}.{missing}", f"{reference[missing]} is not in {instances}")
        entries = splits.setdefault(reference["split"], [])
        for place, sentence in enumerate(reference["sentences"]):
            text = sentence.get("sent") if isinstance(sentence, dict) else None
            if not isinstance(text, str) or not text.strip():
                raise InputError(f"{where}.sentences[{place}].sent", "missing or empty")
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
                    original_id=reference["ann_id"],
                    categories=(annotation.category,),
                )
            )
    return splits
