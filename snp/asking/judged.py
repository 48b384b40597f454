"""How good captions without a target are, by all that is known of drawn pictures: in place of people's judgement."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from snp.asking.pairs import Pair
from snp.data.drawn import folder
from snp.data.drawn.expressions import Scene
from snp.data.drawn.notarget import GENERATORS
from snp.data.drawn.sketch import sketch
from snp.data.drawn.truth import Language, judge, named

Scenes = Callable[[str], Scene]
"""The scene of a picture, by its file name."""


def drawn(root: Path) -> tuple[Scenes, Language]:
    """The scenes of a drawn data set, each drawn again when it is asked for, and its language.

    Raises:
        InputError: no complete data set is there.
    """
    generator, seed = GENERATORS[folder.said(root, "name")](), folder.said(root, "seed")

    def scene(file_name: str) -> Scene:
        path = Path(file_name)
        return sketch(generator, seed, path.parent.name, int(path.stem)).scene

    return scene, Language.of(generator)


def report(pairs: Sequence[Pair], scenes: Scenes, language: Language) -> dict[str, float]:
    """What captions are, as shares of all.  [ours]

    noise: an item of the picture clearly fits. doubt: none does, and one may. readable: is a sentence. related: names
    only what is in the picture. copied: of the words of a caption, the mean share that its expression has too.
    """
    verdicts = [_verdict(pair, scenes, language) for pair in pairs]
    copied = [np.isin(pair.caption.split(), pair.source.caption.split()).mean() for pair in pairs]
    verdict_P = np.array([verdict for verdict, _ in verdicts])
    return {
        "noise": float((verdict_P == "fits").mean()),
        "doubt": float((verdict_P == "doubt").mean()),
        "readable": float((verdict_P != "unreadable").mean()),
        "related": float(np.mean([related for _, related in verdicts])),
        "copied": float(np.mean(copied)),
    }


def _verdict(pair: Pair, scenes: Scenes, language: Language) -> tuple[str, bool]:
    """Whether a caption means anything in its picture, and whether it is about it; read once for both."""
    if (sentence := language.parse(pair.caption)) is None:
        return "unreadable", False
    scene = scenes(pair.source.file_name)
    return judge(sentence, scene), named(sentence, scene.items)
