"""The entries of expressions, question answering, phrase grounding and detection, read from a benchmark's folder.

The folder may be one as published, the one that holds those of all benchmarks, or one of a data set drawn here (its
``gqa/``, ``flickr30k/`` or ``coco/``): all are read alike. File names of drawn pictures are relative to the data set's
``images/``.

A reader that is given a list of `faults` adds to it all that is wrong, and leaves that out; without it the first fault
is raised, an InputError.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from snp.data import annotations
from snp.data.annotations import Entry, Span
from snp.data.fields import noted
from snp.data.sources import coco, flickr, gqa, refer
from snp.data.sources.images import naming
from snp.data.sources.layout import FILES, NEEDS, find, found, home, homes, references
from snp.errors import InputError

Faults = list[InputError] | None


def expressions(root: Path, benchmark: str, faults: Faults = None) -> dict[str, list[Entry]]:
    """The expressions of RefCOCO and its kin as their authors publish them, by split; `root` may hold all others."""
    files = references(root, benchmark)
    if files is None:
        raise InputError(root / benchmark / FILES[benchmark], "file not found", f"needs {NEEDS[benchmark]}")
    return refer.read(*files, benchmark, faults)


def questions(root: Path, split: str, faults: Faults = None) -> list[Entry]:
    """The balanced questions of GQA in the order of their file, with the boxes of what they name. [paper: the task]

    Sizes of pictures, and boxes, come from the split's scene graphs; without these sizes are 0 and no question has
    boxes. No box is needed to answer. Where the published file is missing, MDETR's pre-processed one is read.

    Args:
        split: train, val, testdev or test.
    """
    path = asked(root, split)
    if path.name.startswith("finetune_"):
        return annotations.read(path, boxless=True, faults=faults)
    graphs = find(root, "gqa", f"{split}_sceneGraphs.json")
    known = gqa.scene_graphs(graphs, faults) if graphs else None
    return gqa.questions(path, known, naming(home(root, "gqa")), faults)


def asked(root: Path, split: str) -> Path:
    """The file of GQA's questions of a split."""
    return found(root, "gqa", f"{split}_balanced_questions.json", f"finetune_gqa_{split}_balanced.json")


def answers(root: Path) -> dict[str, dict[str, int]]:
    """The answers a question of each type may have, numbered from 0 on: MDETR's vocabularies of GQA."""
    return gqa.answers_by_type(found(root, "gqa", "gqa_answer2id_by_type.json"))


def phrases(root: Path, split: str, merged: bool = False, faults: Faults = None) -> list[Entry]:
    """The sentences of Flickr30k Entities that have a phrase with a box.

    Where the published files are missing, MDETR's pre-processed one is read, which does not know the types of phrases.

    Args:
        split: train, val or test.
        merged: the boxes of one phrase become the one box around them.
    """
    path = said(root, split)
    if path.suffix == ".json":
        entries = _pre_processed(path, split, faults)
    else:
        base = _entities(root) or home(root, "flickr30k")
        entries = flickr.read(base, flickr.listed(path, faults), naming(base), faults)
    return [flickr.merged(entry) for entry in entries] if merged else entries


def said(root: Path, split: str) -> Path:
    """The file of Flickr30k's sentences of a split, or the one that lists its pictures."""
    return found(root, "flickr30k", f"{split}.txt", f"final_flickr_separateGT_{split}.json")


def _entities(root: Path) -> Path | None:
    """The folder of Flickr30k Entities; None where there is none."""
    return next((base for base in homes(root, "flickr30k") if (base / "Sentences").is_dir()), None)


def _pre_processed(path: Path, split: str, faults: Faults) -> list[Entry]:
    """MDETR's sentences that have boxes; of those that are judged each must ask for phrases, and these have boxes."""
    entries, seen = list[Entry](), set[tuple[object, object]]()
    for entry in annotations.read(path, boxless=True, faults=faults):
        if not entry.boxes:
            continue
        where, key = f"{path}: id {entry.id}", (entry.original_id, entry.sentence_id)
        with noted(faults):
            if split != "train":
                if key in seen:
                    raise InputError(where, f"sentence {key[1]} of picture {key[0]} occurs twice")
                seen.add(key)
                if not entry.evaluated:
                    raise InputError(f"{where}.tokens_positive_eval", "missing", "no phrase of it is asked for")
                for place, spans in enumerate(entry.evaluated):
                    if spans not in entry.spans:
                        raise InputError(f"{where}.tokens_positive_eval[{place}]", "no box has these tokens_positive")
            entries.append(entry)
    return entries


def called(root: Path, entry: Entry) -> str:
    """What an entry is called in errors: where it stands in the files of its benchmark."""
    if entry.evaluated:
        base = _entities(root)
        place = f"{root}: picture {entry.original_id}" if base is None else base / f"Sentences/{entry.original_id}.txt"
        return f"{place}: sentence {entry.sentence_id}"
    if entry.question_id:
        return f"{root}: question {entry.question_id}"
    return f"{root}: {entry.dataset_name} {entry.id}"


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
    """COCO's file of a split."""
    return found(root, "coco", f"instances_{split}.json")


def _instances(root: Path, split: str) -> coco.Instances:
    return coco.read(instances(root, split))
