"""The entries of question answering, phrase grounding and detection, read from a benchmark's folder.

The folder may be one as published, or one of a data set drawn here (its ``gqa/``, ``flickr30k/`` or ``coco/``): both
are read alike. File names of drawn pictures are relative to the data set's ``images/``.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from snp.data.annotations import Entry, Span
from snp.data.sources import coco, flickr, gqa
from snp.data.sources.check import NEEDS
from snp.data.sources.images import naming
from snp.errors import InputError
from snp.files import read_text

FOLDERS = ("", "questions", "sceneGraphs", "annotations")
"""Folders below a benchmark's own in which its files are looked for, in this order."""


def questions(root: Path, split: str) -> list[Entry]:
    """The balanced questions of GQA in the order of their file, with the boxes of what they name. [paper: the task]

    Sizes of pictures, and boxes, come from the split's scene graphs; without these sizes are 0 and no question has
    boxes. No box is needed to answer.

    Args:
        split: train, val, testdev or test.
    """
    graphs = _find(root, f"{split}_sceneGraphs.json")
    known = gqa.scene_graphs(graphs) if graphs else None
    return gqa.questions(_found(root, "gqa", f"{split}_balanced_questions.json"), known, naming(root))


def answers(root: Path) -> dict[str, dict[str, int]]:
    """The answers a question of each type may have, numbered from 0 on: MDETR's vocabularies of GQA."""
    return gqa.answers_by_type(_found(root, "gqa", "gqa_answer2id_by_type.json"))


def phrases(root: Path, split: str, merged: bool = False) -> list[Entry]:
    """The sentences of Flickr30k Entities that have a phrase with a box.

    Args:
        split: train, val or test.
        merged: the boxes of one phrase become the one box around them.
    """
    listed = read_text(_found(root, "flickr30k", f"{split}.txt")).split()
    return flickr.read(root, listed, merged, naming(root))


def classes(root: Path, split: str) -> dict[int, str]:
    """COCO's category ids and names, in the order of the ids."""
    return dict(sorted(_instances(root, split).categories.items()))


def detection(root: Path, split: str, prompts: Iterable[tuple[str, Sequence[Span]]]) -> list[Entry]:
    """An entry for every picture of COCO and every prompt, picture by picture; one prompt's entries may have no box.

    Boxes are those of the classes that the prompt names; crowds and empty boxes are left out. `original_id` is the
    picture's id, `categories` the ids of the classes.

    Args:
        split: train2017 or val2017.
        prompts: texts with the span of every class name, as `snp.tasks.detect.prompts` makes them.

    Raises:
        InputError: a span that holds no name of a class; a file that is missing or broken.
    """
    known = _instances(root, split)
    ids = {name: number for number, name in known.categories.items()}
    prompted = [(text, {_class(ids, text, span): span for span in spans}) for text, spans in prompts]
    there: dict[int, list[coco.Instance]] = defaultdict(list)
    for instance in known.annotations.values():
        if not instance.crowd and min(instance.box[2:]) > 0:
            there[instance.image].append(instance)
    entries = list[Entry]()
    for picture in known.images.values():
        for text, spans in prompted:
            named = [instance for instance in there[picture.id] if instance.category in spans]
            entries.append(
                Entry(
                    id=len(entries),
                    file_name=picture.file_name,
                    height=picture.height,
                    width=picture.width,
                    caption=text,
                    dataset_name="coco",
                    boxes=tuple(instance.box for instance in named),
                    spans=tuple((spans[instance.category],) for instance in named),
                    original_id=picture.id,
                    categories=tuple(instance.category for instance in named),
                )
            )
    return entries


def _class(ids: dict[str, int], text: str, span: Span) -> int:
    name = text[slice(*span)]
    if name not in ids:
        raise InputError(f"prompt {text!r}", f"{name!r} is no class", "make prompts of `classes`")
    return ids[name]


def instances(root: Path, split: str) -> Path:
    """COCO's file of a split, as pycocotools reads it."""
    return _found(root, "coco", f"instances_{split}.json")


def _instances(root: Path, split: str) -> coco.Instances:
    return coco.read(instances(root, split))


def _find(root: Path, file: str) -> Path | None:
    return next((path for folder in FOLDERS if (path := root / folder / file).is_file()), None)


def _found(root: Path, benchmark: str, file: str) -> Path:
    path = _find(root, file)
    if path is None:
        looked = ", ".join(str(root / folder) for folder in FOLDERS)
        raise InputError(root / file, f"file not found, looked in {looked}", f"needs {NEEDS[benchmark]}")
    return path
