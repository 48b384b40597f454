"""One picture of a data set by its number: what is drawn, and all that is said of it, before anything is written."""

import hashlib
import random
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from snp.data.drawn.expressions import STYLES, Scene
from snp.data.drawn.items import Expression, Item

BENCHMARKS = {
    "refcoco": ("train", "val", "testA", "testB"),
    "refcoco+": ("train", "val", "testA", "testB"),
    "refcocog": ("train", "val", "test"),
}
PER_PICTURE = 4  # expressions per picture and benchmark in the evaluation splits
# Ten slots of expression kinds, dealt out in turn over the pictures, so that every split has the same mix.
_MIX = {
    "refcoco": "arao" + "arar" + "ao",  # 50% attribute, 30% relation, 20% order
    "refcoco+": "arao" + "arar" + "ao",
    "refcocog": "arro" + "arar" + "or",  # 30% attribute, 50% relation, 20% order
}
_KIND = {"a": "attribute", "r": "relation", "o": "order"}


class Generator(Protocol):
    """What a data set brings: its name, version, categories, the words for its items, and a way to draw a picture."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> int: ...

    @property
    def categories(self) -> Sequence[str]: ...

    @property
    def nouns(self) -> Sequence[str]: ...

    @property
    def attributes(self) -> Mapping[str, tuple[str, ...]]:
        """Class of adjectives -> its words, in the order of speech."""
        ...

    @property
    def held_out(self) -> Set[tuple[str, str]]:
        """Pairs (adjective, noun) that no picture but those of testB has."""
        ...

    def draw(self, rng: random.Random, split: str) -> tuple[np.ndarray, list[Item]]:
        """A picture (height, width, 3) of bytes and its items; `rng` is the only source of chance."""
        ...


@dataclass(frozen=True)
class Sketch:
    """A picture as it is drawn: its pixels (height, width, 3), its scene, and what is said of it as in a Picture."""

    image: np.ndarray
    scene: Scene
    caption: Expression | None
    single: Expression | None
    expressions: dict[str, list[Expression]]

    @property
    def pixels(self) -> str:
        """sha256 of the pixels."""
        return hashlib.sha256(self.image.tobytes()).hexdigest()


def sketch(generator: Generator, seed: int, split: str, number: int) -> Sketch:
    """Draw until the items give every expression this picture owes; nothing but the arguments decides."""
    rng = random.Random(f"{generator.name}/{seed}/{split}/{number}")
    while True:
        image, items = generator.draw(rng, split)
        scene = Scene(items)
        expressions = _expressions(scene, split, number, rng)
        pretraining = split in ("train", "pretrain-val")
        style = STYLES[number % len(STYLES)]
        single = scene.refer(style, _kind(style, number // len(STYLES)), rng) if pretraining else None
        if expressions is None or (pretraining and single is None):
            continue
        return Sketch(image, scene, scene.caption(rng) if pretraining else None, single, expressions)


def _expressions(scene: Scene, split: str, number: int, rng: random.Random) -> dict[str, list[Expression]] | None:
    made: dict[str, list[Expression]] = {}
    for benchmark, splits in BENCHMARKS.items():
        if split not in splits:
            continue
        taken: set[str] = set()
        made[benchmark] = []
        each = 1 if split == "train" else PER_PICTURE
        for slot in range(number * each, (number + 1) * each):
            found = scene.refer(benchmark, _kind(benchmark, slot), rng, taken)
            if found is None:
                return None
            taken.add(found.caption)
            made[benchmark].append(found)
    return made


def _kind(benchmark: str, slot: int) -> str:
    mix = _MIX[benchmark]
    return _KIND[mix[slot % len(mix)]]
