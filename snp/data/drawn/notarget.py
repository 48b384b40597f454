"""Files of expressions without a target, made on first need beside a drawn data set, of which they change nothing.

``no-target/{train,val,testA}.json``: captions without a box, in the annotation format; ``pairs_train.json``: those of
training beside the expressions that they were made of, and the boxes of these.
"""

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from snp.data import annotations
from snp.data.annotations import Entry
from snp.data.drawn import folder
from snp.data.drawn.edits import KINDS, Edit, edit
from snp.data.drawn.scenes import Scenes
from snp.data.drawn.sketch import Generator, Sketch, sketch
from snp.data.drawn.stamps import Stamps
from snp.data.drawn.truth import Language
from snp.errors import InputError
from snp.files import read_json, write_json
from snp.terminal import progress

VERSION = 1
"""Of the files; others are made anew."""
FOLDER = "no-target"
ABOUT = "about.json"
"""Says what the captions are about; written last of them."""
PAIRS = "pairs_train"
STYLE = "refcoco"
"""Whose expressions are changed: of another style than the answerable ones, captions would be told by their style."""
HELD_OUT = "landmark"
"""The kind of edits that training has none of."""
ADDED = "order"
"""The kind of edits that makes captions longer."""
SELDOM = 10
"""One picture in so many may have it: words that few expressions have would tell that nothing is meant."""
MOST = 8_000
"""Captions for training, of the first pictures; of evaluation every picture gives one."""
SPLITS = ("train", "val", "testA")
GENERATORS = {"scenes": Scenes, "stamps": Stamps}


def ready(root: Path) -> Path:
    """The folder with the files of the data set in `root`; made if they are not there.

    Raises:
        InputError: no complete data set is there, or one that is drawn otherwise today.
    """
    if not _made(root):
        with folder.making(root):
            if not _made(root):
                _make(root)
    return root / FOLDER


def read(root: Path, split: str) -> list[Entry]:
    """The captions without a target of a split, made if they are not there."""
    return annotations.read(ready(root) / f"{split}.json", boxless=True)


def hash_of(root: Path) -> str:
    """sha256 of the files, and of the data set that they are about."""
    ready(root)
    return hashlib.sha256((root / FOLDER / ABOUT).read_bytes()).hexdigest()


def _made(root: Path) -> bool:
    path = root / FOLDER / ABOUT
    about = read_json(path) if path.is_file() else None
    if not isinstance(about, dict) or (about.get("version"), about.get("of")) != (VERSION, folder.data_hash(root)):
        return False
    return about.get("sha256") == _sums(root)


def _sums(root: Path) -> dict[str, str]:
    """sha256 of every file that is there: one that is missing, or was changed, is made anew."""
    files = [root / FOLDER / f"{name}.json" for name in (*SPLITS, PAIRS)]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path.is_file()}


def _make(root: Path) -> None:
    name, pictures = folder.said(root, "name"), folder.said(root, "pictures")
    generator = GENERATORS[name]()
    made = {split: list(_edits(root, generator, split, pictures[split])) for split in SPLITS}
    for split in SPLITS:
        entries = [_entry(place, split, *one) for place, one in enumerate(made[split])]
        annotations.write(root / FOLDER / f"{split}.json", entries, generator.categories)
    pairs = [_pair(place, *one) for place, one in enumerate(made["train"])]
    write_json(root / FOLDER / f"{PAIRS}.json", pairs, indent=None)
    about = {
        "version": VERSION,
        "of": folder.data_hash(root),
        "captions": {split: len(found) for split, found in made.items()},
        "sha256": _sums(root),
    }
    write_json(root / FOLDER / ABOUT, about)


def _edits(root: Path, generator: Generator, split: str, count: int) -> Iterator[tuple[int, Sketch, Edit]]:
    """Number, picture and edit of the pictures of a split; chance is their own."""
    seed, language = folder.said(root, "seed"), Language.of(generator)
    usable = [kind for kind in KINDS if kind != ADDED and (split != "train" or kind != HELD_OUT)]
    found, drawn = 0, list[str]()
    for number in progress(range(count), desc=f"captions without a target, {split}", unit="picture", leave=False):
        if split == "train" and found == MOST:
            return
        made = sketch(generator, seed, split, number)
        drawn.append(made.pixels)
        rng = random.Random(f"{generator.name}/{seed}/{split}/{number}/no-target")
        kinds = rng.sample(usable, len(usable))
        kinds = kinds if rng.randrange(SELDOM) else [ADDED, *kinds]
        if one := edit(made.scene, made.expressions[STYLE], kinds, STYLE, language, rng):
            found += 1
            yield number, made, one
    if hashlib.sha256("".join(drawn).encode()).hexdigest() != folder.said(root, "pixels_sha256")[split]:
        raise InputError(
            root, f"its pictures of {split} would be drawn otherwise today", "make it again with `snp data make`"
        )


def _entry(place: int, split: str, number: int, made: Sketch, one: Edit) -> Entry:
    height, width = made.image.shape[:2]
    return Entry(
        id=place,
        file_name=f"{split}/{number:06d}.png",
        height=height,
        width=width,
        caption=one.caption,
        dataset_name=FOLDER,
        boxes=(),
        spans=(),
        type=one.kind,
        original_id=number,
        difficulty="hard" if one.hard else "easy",
    )


def _pair(place: int, number: int, made: Sketch, one: Edit) -> dict[str, Any]:
    return {
        "id": place,
        "file_name": f"train/{number:06d}.png",
        "box": made.scene.items[one.target].box,
        "source": one.source,
        "caption": one.caption,
        "edit": one.kind,
        "hard": one.hard,
    }
