"""Real photographs: scenes pasted from the photographic cut-outs of Debian's tuxpaint-stamps-default."""

import random
import re
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from snp.data.drawn.build import build, place
from snp.data.drawn.items import Item
from snp.errors import InputError

SOURCE = Path("/usr/share/tuxpaint/stamps")
PACKAGE = "tuxpaint-stamps-default"
SIDE = 64
SIZES = {"small": (15, 17), "medium": (21, 23), "big": (28, 30)}  # longer side of the box, pixels
# Plain English names, looked for at the end of a caption ("A great blue heron." -> heron).
NOUNS = (
    "almond", "apple", "apricot", "avocado", "ball", "banana", "basketball", "bear", "beaver", "bin",
    "bison", "blackbird", "broccoli", "bull", "bus", "camel", "camera", "carrot", "chicken", "chimpanzee",
    "clothespin", "cow", "crane", "crow", "cymbal", "daffodil", "deer", "dog", "dolphin", "donkey", "drum",
    "duck", "eggplant", "elephant", "ferret", "fireman", "fish", "flamingo", "flower", "football", "fox",
    "frog", "garbage can", "garlic", "giraffe", "gnu", "goat", "goose", "gorilla", "grasshopper",
    "gravestone", "guinea fowl", "gull", "hammer", "heron", "hippopotamus", "hornet", "horse", "iris",
    "kangaroo", "kettle", "key", "kiwi", "koala", "lemon", "lettuce", "lightbulb", "lime", "lion",
    "lobster", "magpie", "mailbox", "mango", "marigold", "marmot", "mouse", "mushroom", "onion", "orange",
    "orca", "ostrich", "otter", "owl", "paintbrush", "peacock", "pear", "pelican", "penguin", "pepper",
    "pig", "pigeon", "pineapple", "pinecone", "pitcher", "pomegranate", "potato", "pumpkin", "rabbit",
    "raspberry", "rooster", "rose", "sailboat", "saw", "sea lion", "seahorse", "sheep", "ship", "slug",
    "squirrel", "stethoscope", "strawberry", "teapot", "tiger", "tomato", "toolbox", "toucan", "tree",
    "tricycle", "truck", "turkey", "violin", "vulture", "walnut", "whale", "wheel", "wombat", "wreath",
    "wrench", "yak", "yam", "zebra",
)  # fmt: skip
# Narrower or second names of the same thing.
ALIASES = {
    "butterflyfish": "fish", "clownfish": "fish", "coral trout": "fish", "dolphinfish": "fish",
    "moon wrasse": "fish", "cep": "mushroom", "doe": "deer", "drake": "duck", "dromedary": "camel",
    "gander": "goose", "hen": "chicken", "holm oak": "tree", "kiwifruit": "kiwi", "mountaingoat": "goat",
    "seagull": "gull", "tombstone": "gravestone", "headstone": "gravestone", "avocado fruit": "avocado",
    "garlic bulb": "garlic", "grave marker": "gravestone",
    # Of another kind than their last word says: left out.
    "rubber duck": "", "alien tree": "", "bolted lettuce": "", "string of garlic": "",
}  # fmt: skip
DRAWN = {"cartoon", "symbols", "easter", "toys", "plastic", "roadsigns"}  # folders without photographs
# What tells a photograph from a drawing: many colours, and few neighbours of exactly the same colour.
COLORS, FLAT = 120, 0.3
SLIM = 2.6  # longest side over shortest; slimmer ones could not be made out
SEVERAL = 2  # names with so many cut-outs keep some of them for evaluation


@dataclass(frozen=True)
class Cutout:
    """A photograph with a name; `train` and `evaluate` say where it occurs, a name's only cut-out in both."""

    name: str
    path: Path
    train: bool
    evaluate: bool


class Stamps:
    """The generator of pasted scenes.  [ours]

    Args:
        source: folder of the stamps.

    Raises:
        InputError: the folder or its photographs are missing.
    """

    name, version = "stamps", 1
    attributes = {"size": tuple(SIZES)}
    held_out = frozenset[tuple[str, str]]()

    def __init__(self, source: str | Path = SOURCE) -> None:
        self.cutouts = find(source)
        self.categories = self.nouns = tuple(sorted({cutout.name for cutout in self.cutouts}))
        self.unseen = tuple(sorted({cutout.name for cutout in self.cutouts if not cutout.train}))

    def draw(self, rng: random.Random, split: str) -> tuple[np.ndarray, list[Item]]:
        """A picture (64, 64, 3) and its items; boxes are tight around what is pasted and do not overlap."""
        training = split in ("train", "pretrain-val")
        usable = defaultdict(list)
        for cutout in self.cutouts:
            if cutout.train if training else cutout.evaluate:
                usable[cutout.name].append(cutout)
        canvas = background(rng, [cutout.path for cutout in self.cutouts if cutout.train])
        items: list[Item] = []
        count = rng.randint(2, 5)
        while len(items) < count:
            # Two of a kind are frequent, or names alone would tell everything apart.
            again = items and rng.random() < 0.45
            names = self.unseen if split == "testB" and rng.random() < 0.6 else self.categories
            noun = rng.choice(items).noun if again else rng.choice(names)
            cutout, size = rng.choice(usable[noun]), rng.choice(list(SIZES))
            paint, mask = _sprite(cutout.path, rng.randint(*SIZES[size]), rng.random() < 0.5)
            if (box := place(rng, mask.shape, canvas.shape[:2], [item.box for item in items])) is None:
                if len(items) >= 3:
                    break  # full
                continue
            x, y, width, height = box
            patch = canvas[y : y + height, x : x + width]
            patch += mask[..., None] * (paint - patch)
            items.append(
                Item(
                    noun,
                    {"size": size},
                    list(SIZES).index(size),
                    box,
                    self.categories.index(noun),
                    split != "testB" or not cutout.train,
                )
            )
        return canvas.astype(np.uint8), items


def make(
    root: str | Path,
    seed: int,
    train: int = 32_000,
    test: int = 5_000,
    pretrain_val: int = 500,
    workers: int = 2,
    source: str | Path = SOURCE,
) -> Path:
    """Paste the data set into `root`.

    In the evaluation splits names with several cut-outs show ones never trained on: the targets of testB.

    Args:
        train: training pictures.
        test: expressions per benchmark and evaluation split (four a picture).
        pretrain_val: pictures of the validation split of pre-training.
        workers: processes; equal seeds give equal bytes whatever their number.
        source: folder of the stamps, never fetched.

    Raises:
        InputError: a count below one, stamps that are missing, or a folder that holds something else.
    """
    return build(root, Stamps(source), seed, train, test, pretrain_val, workers)


def find(source: str | Path) -> list[Cutout]:
    """All photographic cut-outs with a plain name, ordered by name and path."""
    source = Path(source)
    named, seen = defaultdict(list), set()
    for path in sorted(source.rglob("*.png")):
        name = None if DRAWN & set(path.relative_to(source).parts) else _name(path.with_suffix(".txt"))
        # Some photographs lie in two folders; a copy must not be trained on and tested with.
        if name and path.read_bytes() not in seen and photographic(path):
            named[name].append(path)
            seen.add(path.read_bytes())
    if len(named) < len(NOUNS) // 2:
        problem = "no such folder" if not source.is_dir() else f"photographs of only {len(named)} known things"
        raise InputError(source, problem, f"install Debian's {PACKAGE}, or name the folder that holds its stamps")
    found = []
    for name, paths in sorted(named.items()):
        for number, path in enumerate(paths):
            # Of several cut-outs every third, and at least the second, is kept for evaluation.
            kept = number % 3 == 1 and len(paths) >= SEVERAL
            found.append(Cutout(name, path, not kept, kept or len(paths) < SEVERAL))
    return found


def photographic(path: Path) -> bool:
    """Whether a cut-out is a photograph of a fair shape: many colours, hardly any flat area.  [ours]"""
    pixels = np.asarray(_rgba(path), int)
    solid = pixels[..., 3] > 200
    if solid.sum() < 300:
        return False
    height, width = (np.ptp(np.flatnonzero(solid.any(axis))) + 1 for axis in (1, 0))
    colors = len(np.unique(pixels[solid][:, :3] // 8, axis=0))
    both = solid[:, 1:] & solid[:, :-1]
    equal = (pixels[:, 1:, :3] == pixels[:, :-1, :3]).all(-1)
    return bool(max(height / width, width / height) <= SLIM and colors >= COLORS and equal[both].mean() < FLAT)


def _name(caption: Path) -> str | None:
    """The noun of an English caption: "A red apple." -> apple; None where it names nothing known."""
    if not caption.is_file():
        return None
    text = (caption.read_text(encoding="utf-8", errors="replace").splitlines() or [""])[0].lower()
    head = re.split(r"[.!?—(]|, from |, also | in | used | lets ", re.sub(r"[“”\"]", "", text))[0].strip()
    head = re.sub(r"^(an?|the|some) ", "", head)
    for name in sorted((*NOUNS, *ALIASES), key=len, reverse=True):
        if f" {head}".endswith(f" {name}"):
            return ALIASES.get(name, name) or None
    return None


def _rgba(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            return image.convert("RGBA")
    except Exception as error:  # a damaged picture raises almost anything
        raise InputError(path, f"cannot be read: {error}", f"install {PACKAGE} again") from None


@cache
def _cut(path: Path) -> Image.Image:
    """The cut-out, cropped to what can be seen; colours are weighted by alpha so that rims stay clean."""
    image = _rgba(path)
    solid = image.getchannel("A").point(lambda alpha: 255 * (alpha > 40))
    image = image.crop(solid.getbbox())
    image.thumbnail((128, 128), Image.Resampling.BOX)
    return image


@cache
def _sprite(path: Path, side: int, mirrored: bool) -> tuple[np.ndarray, np.ndarray]:
    """Colours (height, width, 3) and coverage (height, width) of a cut-out whose longer side is `side`."""
    image = _cut(path)
    scale = side / max(image.size)
    width, height = (max(1, round(length * scale)) for length in image.size)
    image = image.convert("RGBa").resize((width, height), Image.Resampling.LANCZOS).convert("RGBA")
    if mirrored:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pixels = np.asarray(image, np.float32)
    mask = pixels[..., 3] / 255
    # What is fainter would not be seen, and the box is tight around the rest.
    mask = np.where(mask < 0.3, 0, mask)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    inside = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    return pixels[inside][..., :3], mask[inside]


def background(rng: random.Random, paths: list[Path]) -> np.ndarray:
    """A natural background (64, 64, 3) of float32: a blurred crop of a photograph, or sky over ground."""
    if rng.random() < 0.5:
        canvas = piece(rng, paths, blur=3)
        tone = rng.uniform(110, 205)
        canvas = 0.5 * canvas + 0.5 * tone
    else:
        sky, ground = rng.choice(SKIES), rng.choice(GROUNDS)
        horizon, soft = rng.uniform(0.2, 0.8), rng.uniform(0.03, 0.3)
        rise = 1 / (1 + np.exp((horizon - np.linspace(0, 1, SIDE)) / soft))
        canvas = np.repeat((np.outer(1 - rise, sky) + np.outer(rise, ground))[:, None], SIDE, 1).astype(np.float32)
    noise = np.frombuffer(rng.randbytes(SIDE * SIDE), np.uint8).reshape(SIDE, SIDE, 1).astype(np.float32)
    return np.clip(canvas + (noise - 127.5) * 0.08, 0, 255)


def piece(rng: random.Random, paths: list[Path], blur: float) -> np.ndarray:
    """A square piece of one of these photographs, (64, 64, 3) of float32; `blur`: radius in pixels."""
    image = _cut(rng.choice(paths))
    mean = tuple(np.asarray(image, float)[np.asarray(image)[..., 3] > 200].mean(0)[:3].astype(int))
    whole = Image.new("RGB", image.size, mean)
    whole.paste(image, mask=image)
    reach = max(8, min(image.size) // 2)
    x, y = (rng.randint(0, max(0, length - reach)) for length in image.size)
    crop = whole.crop((x, y, x + reach, y + reach)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return np.asarray(crop.filter(ImageFilter.GaussianBlur(blur)), np.float32)


SKIES = ((135, 185, 225), (190, 205, 215), (225, 195, 160), (95, 120, 160), (170, 180, 185))
GROUNDS = ((95, 130, 70), (180, 160, 115), (125, 100, 75), (130, 130, 125), (205, 205, 200), (80, 115, 135))
