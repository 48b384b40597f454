"""Drawn scenes that look otherwise, of which the same language is true: what a model of scenes may have to adapt to."""

import colorsys
import random
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from snp.data.drawn import stamps
from snp.data.drawn.build import build
from snp.data.drawn.scenes import COLORS, SIZES, Look, Scenes
from snp.errors import InputError

TURN, DARKER = 10 / 360, 0.58
"""By how much hues are turned, less than half of what lies between two colours that have words; and lightness."""
SHRINK = 0.72
"""Of sizes; what is big is small beside what is medium among scenes, and still the biggest of its own picture."""


def photograph(rng: random.Random, source: Path = stamps.SOURCE) -> np.ndarray:
    """A piece of a photograph, hardly blurred: (64, 64, 3) of float32."""
    return stamps.piece(rng, _photographs(source), blur=0.7)


@cache
def _photographs(source: Path) -> list[Path]:
    return [cutout.path for cutout in stamps.find(source) if cutout.train]


def paper(rng: random.Random) -> np.ndarray:
    """Grey paper, on which every colour can be seen, not quite clean: (64, 64, 3) of float32."""
    noise = np.frombuffer(rng.randbytes(64 * 64), np.uint8).reshape(64, 64, 1).astype(np.float32)
    return np.repeat(rng.uniform(135, 160) + (noise - 127.5) * 0.06, 3, 2)


def repainted(color: tuple[int, int, int]) -> tuple[int, int, int]:
    """The colour with its hue turned, and darker if it has a hue; no other word fits it better than its own."""
    hue, lightness, saturation = colorsys.rgb_to_hls(*(value / 255 for value in color))
    if saturation:
        hue, lightness = (hue + TURN) % 1, DARKER * lightness
    red, green, blue = colorsys.hls_to_rgb(hue, lightness, saturation)
    return round(255 * red), round(255 * green), round(255 * blue)


def blurred(canvas: np.ndarray, rng: random.Random) -> np.ndarray:
    """The picture out of focus and noisy."""
    image = Image.fromarray(canvas.astype(np.uint8)).filter(ImageFilter.GaussianBlur(1.3))
    noise = np.frombuffer(rng.randbytes(canvas.size), np.uint8).reshape(canvas.shape).astype(np.float32)
    return np.clip(np.asarray(image, np.float32) + (noise - 127.5) * 0.35, 0, 255)


def faded(canvas: np.ndarray, rng: random.Random) -> np.ndarray:
    """The picture with a third of its contrast, as behind mist."""
    return 0.38 * canvas + 0.62 * rng.uniform(150, 200)


LOOKS = {
    look.name: look
    for look in (
        Look("outlines", background=paper, fill=0.6),
        Look("photographs", background=photograph),
        Look("repainted", colors={word: repainted(color) for word, color in COLORS.items()}),
        Look("blurred", finish=blurred),
        Look(
            "smaller", sizes={word: (round(SHRINK * low), round(SHRINK * high)) for word, (low, high) in SIZES.items()}
        ),
        Look("faded", finish=faded),
    )
}
"""All of them by the name of their data set. The last one is for choosing what methods need; it is not judged on."""


def make(
    root: str | Path,
    seed: int,
    look: str,
    train: int = 2_000,
    test: int = 2_000,
    pretrain_val: int = 40,
    workers: int = 2,
    source: str | Path = stamps.SOURCE,
) -> Path:
    """Draw scenes of a look into `root`; counts and errors as those of scenes.

    Args:
        source: folder of the stamps, of which photographs are.

    Raises:
        InputError: no such look.
    """
    if look not in LOOKS:
        raise InputError(look, "is no look of scenes", f"there are {', '.join(LOOKS)}")
    chosen = LOOKS[look]
    if chosen.background is photograph:
        _photographs(Path(source))  # now, and not in a worker, where they are missing
        chosen = replace(chosen, background=partial(photograph, source=Path(source)))
    return build(root, Scenes(chosen), seed, train, test, pretrain_val, workers)
