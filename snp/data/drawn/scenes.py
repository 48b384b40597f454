"""Drawn scenes: 3 to 8 coloured, textured shapes on a busy background, made from a seed."""

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import binary_erosion

from snp.data.drawn.build import build, place
from snp.data.drawn.items import Item

SIDE = 64
SHAPES = ("circle", "square", "triangle", "star", "heart", "diamond", "cross", "ring", "moon", "arrow")
COLORS = {
    "red": (225, 40, 40),
    "green": (40, 185, 60),
    "blue": (50, 90, 240),
    "yellow": (245, 225, 50),
    "orange": (250, 140, 25),
    "purple": (165, 60, 205),
    "cyan": (60, 215, 225),
    "white": (248, 248, 248),
}
# The second colour of a texture is this part of the first; the dark colours get a light one instead.
SHADE = {"yellow": 0.45, "orange": 0.45, "cyan": 0.45, "green": 0.45, "white": 0.15}
TEXTURES = ("plain", "striped", "dotted", "checked")
SIZES = {"small": (8, 10), "medium": (13, 15), "big": (19, 22)}  # longer side of the box, pixels
FINE = 4  # masks are drawn this much larger and averaged down
PAIRS = tuple((color, shape) for color in COLORS for shape in SHAPES)
# Two shapes of every colour are kept from training and from all tests but testB, whose targets they are.
HELD_OUT = frozenset((color, SHAPES[(3 * i + k) % len(SHAPES)]) for i, color in enumerate(COLORS) for k in (0, 5))


class Scenes:
    """The generator of drawn scenes.  [ours]

    Args:
        look: another one than scenes have; what is said of them stays true, and is drawn by chances of its own.
    """

    version = 1
    categories = tuple(f"{color} {shape}" for color, shape in PAIRS)
    nouns = SHAPES
    attributes = {"size": tuple(SIZES), "texture": TEXTURES, "color": tuple(COLORS)}
    held_out = HELD_OUT

    def __init__(self, look: "Look | None" = None) -> None:
        self.look = look or Look("scenes")

    @property
    def name(self) -> str:
        return self.look.name

    def draw(self, rng: random.Random, split: str) -> tuple[np.ndarray, list[Item]]:
        """A picture (64, 64, 3) and its items; boxes are tight around what is drawn and do not overlap."""
        look, count = self.look, rng.randint(3, 8)
        canvas = look.background(rng)
        items: list[Item] = []
        while len(items) < count:
            color, shape, texture = _looks(rng, items, split)
            size = rng.choice(list(look.sizes))
            mask = _mask(shape, rng.randint(*look.sizes[size]), rng.randrange(-12, 13, 4))
            if (box := place(rng, mask.shape, canvas.shape[:2], [item.box for item in items])) is None:
                if len(items) >= 3:
                    break  # full
                continue
            x, y, width, height = box
            _paint(canvas[y : y + height, x : x + width], mask, color, texture, rng, look)
            attributes = {"size": size, "texture": texture, "color": color}
            items.append(
                Item(
                    shape,
                    attributes,
                    list(look.sizes).index(size),
                    box,
                    PAIRS.index((color, shape)),
                    split != "testB" or (color, shape) in HELD_OUT,
                )
            )
        if look.finish is not None:
            canvas = look.finish(canvas, rng)
        return canvas.astype(np.uint8), items


def make(
    root: str | Path, seed: int, train: int = 32_000, test: int = 5_000, pretrain_val: int = 500, workers: int = 2
) -> Path:
    """Draw the data set into `root`.

    Args:
        train: training scenes.
        test: expressions per benchmark and evaluation split (four a scene).
        pretrain_val: scenes of the validation split of pre-training.
        workers: processes; equal seeds give equal bytes whatever their number.

    Raises:
        InputError: a count below one, or a folder that holds something else.
    """
    return build(root, Scenes(), seed, train, test, pretrain_val, workers)


def background(rng: random.Random) -> np.ndarray:
    """A busy, muted background (64, 64, 3) of float32: gradient, clutter and noise."""
    low, high = (
        [grey + rng.randint(-22, 22) for _ in range(3)] for grey in (rng.randint(50, 120), rng.randint(50, 120))
    )
    angle = rng.uniform(0, 2 * math.pi)
    ramp = (math.cos(angle) * _GRID[0] + math.sin(angle) * _GRID[1] + 1.5) / 3
    image = Image.fromarray((low + ramp[..., None] * (np.subtract(high, low, dtype=np.float32))).astype(np.uint8))
    pen = ImageDraw.Draw(image)
    for _ in range(rng.randint(6, 12)):
        x, y = rng.randrange(SIDE), rng.randrange(SIDE)
        angle, reach = rng.uniform(0, math.pi), rng.randint(4, 30)
        drawn = rng.choices(range(50, 131), k=3)
        shade = tuple((value + sum(drawn) // 3) // 2 for value in drawn)
        end = x + reach * math.cos(angle), y + reach * math.sin(angle)
        pen.line((x, y, *end), fill=shade, width=rng.randint(1, 2))
    noise = np.frombuffer(rng.randbytes(SIDE * SIDE * 3), np.uint8).reshape(SIDE, SIDE, 3)
    return np.asarray(image, np.float32) + (noise.astype(np.float32) - 127.5) * 0.2


@dataclass(frozen=True)
class Look:
    """How scenes look.

    Args:
        name: of the data set.
        background: what things are drawn on, (64, 64, 3) of float32.
        colors: what colour a word of colour is.
        sizes: what a word of size is, pixels of the longer side.
        fill: how much of what is behind a thing its paint covers, but for the rim, which covers all and has no texture.
        finish: what happens to the picture in the end.
    """

    name: str
    background: Callable[[random.Random], np.ndarray] = background
    colors: Mapping[str, tuple[int, int, int]] = field(default_factory=lambda: COLORS)
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=lambda: SIZES)
    fill: float = 1.0
    finish: Callable[[np.ndarray, random.Random], np.ndarray] | None = None


def _looks(rng: random.Random, items: list[Item], split: str) -> tuple[str, str, str]:
    """Colour, shape and texture, often those of an earlier item, so that no single word tells items apart."""

    def choose(chance: float, name: str, words: tuple[str, ...]) -> str:
        if items and rng.random() < chance:
            item = rng.choice(items)
            return item.noun if name == "noun" else item.attributes[name]
        return rng.choice(words)

    while True:
        shape, color = choose(0.5, "noun", SHAPES), choose(0.35, "color", tuple(COLORS))
        # Half of the items of testB are held-out pairs; the others are their rivals and landmarks.
        if split == "testB" and rng.random() < 0.5:
            color, shape = rng.choice([pair for pair in sorted(HELD_OUT) if shape in pair])
        if split == "testB" or (color, shape) not in HELD_OUT:
            return color, shape, choose(0.3, "texture", TEXTURES)


@cache
def _mask(shape: str, side: int, degrees: int) -> np.ndarray:
    """Coverage in [0, 1] of each pixel (height, width), turned by `degrees`; no empty row at the rim."""
    turn = math.radians(degrees)
    cosine, sine = math.cos(turn), math.sin(turn)
    rings = [[(x * cosine - y * sine, x * sine + y * cosine) for x, y in ring] for ring in _outline(shape)]
    points = np.array(rings[0])
    lowest, extent = points.min(0), np.ptp(points, 0).max()
    fine = Image.new("L", (side * FINE, side * FINE))
    pen = ImageDraw.Draw(fine)
    for ring, fill in zip(rings, (255, 0), strict=False):
        pen.polygon([tuple(p) for p in (np.array(ring) - lowest) * ((side * FINE - 1) / extent)], fill=fill)
    mask = np.asarray(fine.reduce(FINE), np.float32) / 255
    # What is fainter would not be seen, and the box is tight around the rest.
    mask = np.where(mask < 0.3, 0, mask)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _outline(shape: str) -> list[list[tuple[float, float]]]:
    """Polygons of a shape around the origin: the outer one and, for a ring, its hole."""
    around = [2 * math.pi * k / 48 for k in range(48)]
    circle = [(math.cos(t), math.sin(t)) for t in around]
    third = 0.36
    match shape:
        case "circle":
            return [circle]
        case "ring":
            return [circle, [(0.5 * x, 0.5 * y) for x, y in circle]]
        case "square":
            return [[(-1, -1), (1, -1), (1, 1), (-1, 1)]]
        case "diamond":
            return [[(0, -1), (0.75, 0), (0, 1), (-0.75, 0)]]
        case "triangle":
            return [[(0, -0.95), (1, 0.85), (-1, 0.85)]]
        case "star":
            spokes = [(1 if k % 2 == 0 else 0.45, math.pi * k / 5 - math.pi / 2) for k in range(10)]
            return [[(r * math.cos(t), r * math.sin(t)) for r, t in spokes]]
        case "heart":
            return [
                [
                    (math.sin(t) ** 3, sum(w * math.cos(k * t) for k, w in enumerate((-13, 5, 2, 1), 1)) / 16)
                    for t in around
                ]
            ]
        case "cross":
            arm = [(-third, -1), (third, -1), (third, -third), (1, -third), (1, third), (third, third)]
            return [arm + [(-x, -y) for x, y in arm]]
        case "moon":
            half = [math.radians(50 + 260 * k / 24) for k in range(25)]
            inner = [(0.35 + 0.78 * math.cos(t), 0.78 * math.sin(t)) for t in half[::-1]]
            return [[(math.cos(t), math.sin(t)) for t in half] + inner]
        case "arrow":
            return [[(0, -1), (0.9, 0), (third, 0), (third, 1), (-third, 1), (-third, 0), (-0.9, 0)]]
    raise ValueError(shape)


def _paint(patch: np.ndarray, mask: np.ndarray, color: str, texture: str, rng: random.Random, look: Look) -> None:
    """Paint a textured shape into `patch` (height, width, 3), which is changed."""
    paint = np.array(look.colors[color], np.float32) + rng.uniform(-12, 12)
    if look.fill < 1:
        inside = binary_erosion(mask > 0.5)
        patch += (mask * ~inside)[..., None] * (np.minimum(paint, 255) - patch)
        mask = mask * inside * look.fill
    if texture != "plain":
        other = paint * SHADE[color] if color in SHADE else paint * 0.3 + 170
        second = _texture(texture, max(mask.shape), rng.randrange(4), rng.randrange(3))
        paint = np.where(second[: mask.shape[0], : mask.shape[1], None], other, paint)
    alpha = mask[..., None]
    patch += alpha * (np.minimum(paint, 255) - patch)


@cache
def _texture(texture: str, side: int, phase: int, direction: int) -> np.ndarray:
    """Where a texture shows its second colour, (side, side) of bool; coarser on larger shapes."""
    y, x = np.indices((side, side)) + phase
    unit = 2 if side < 17 else 3
    match texture:
        case "striped":
            return (x, y, x + y)[direction] // unit % 2 == 0
        case "dotted":
            return (x % (2 * unit) < unit) & (y % (2 * unit) < unit)
        case "checked":
            return (x // unit + y // unit) % 2 == 0
    raise ValueError(texture)


_GRID = np.meshgrid(*[np.linspace(-1, 1, SIDE, dtype=np.float32)] * 2)
