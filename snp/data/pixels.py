"""Picture files as people see them: upright as EXIF says, eight bits of red, green and blue, whatever they hold."""

from pathlib import Path

import numpy as np
from PIL import Image
from PIL.Image import Transpose

from snp.errors import InputError

VERSION = 2
"""Of the way in which pictures are read; caches of decoded ones are named by it."""
_ORIENTATION = 0x0112
_TURNS = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
"""What brings a picture upright, by its EXIF orientation; from 5 on it changes the sides."""
_HINT = "fetch or make it again"


def load(path: Path) -> Image.Image:
    """A whole picture, RGB.

    Raises:
        InputError: it is missing, cut, damaged, or of a kind that cannot be read.
    """
    return _opened(path)[0]


def look(path: Path) -> tuple[int, int]:
    """Width and height of a picture that `load` can read, seen upright; all of it is decoded, a JPEG at an eighth.

    Raises:
        InputError: as `load`.
    """
    return _opened(path, quickly=True)[1]


def read_image(path: Path, size: int) -> np.ndarray:
    """One picture as uint8 CHW, brought to size x size pixels.

    Raises:
        InputError: as `load`.
    """
    image = load(path)
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image).transpose(2, 0, 1)


def _opened(path: Path, quickly: bool = False) -> tuple[Image.Image, tuple[int, int]]:
    """A picture, and its size seen upright."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            if quickly:
                image.draft("RGB", (32, 32))
            image.load()
            turned, upright = _orientation(image), _rgb(image)
            if turned in _TURNS:
                upright = upright.transpose(_TURNS[turned])
            return upright, (height, width) if turned >= 5 else (width, height)
    except FileNotFoundError:
        raise InputError(path, "image not found", _HINT) from None
    except Exception as error:  # a damaged picture raises almost anything
        raise InputError(path, f"image cannot be read: {error or type(error).__name__}", _HINT) from None


def _orientation(image: Image.Image) -> int:
    """What its EXIF says of how it is turned, 1 to 8; 1 where that cannot be read."""
    try:
        turned = int(image.getexif().get(_ORIENTATION, 1))
        return turned if turned in _TURNS else 1
    except Exception:  # a damaged EXIF raises almost anything too, and the picture is there all the same
        return 1


def _rgb(image: Image.Image) -> Image.Image:
    """Eight bits of red, green and blue; what is transparent shows its colours."""
    if image.mode == "F" or image.mode.startswith("I"):  # Pillow itself cuts off all that is over 255
        return Image.fromarray(_bytes(np.asarray(image), 65535.0 if ";" in image.mode else None)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def _bytes(values: np.ndarray, white: float | None = None) -> np.ndarray:
    """Grey values of more than eight bits as uint8; what is no number is black.

    Args:
        white: the largest value of the file's kind; by default of the first kind that its own largest one fits in:
            shares (of floats alone), 8, 16 or 31 bits.
    """
    known = values[np.isfinite(values)]
    if white is None:
        most, whites = float(known.max(initial=0)), (1.0, 255.0, 65535.0, 2.0**31 - 1)
        white = next((w for w in whites[values.dtype.kind != "f" :] if most <= w), most)
    shares = np.nan_to_num(values.astype(np.float64), posinf=white).clip(0, white) / white
    return np.rint(shares * 255).astype(np.uint8)
