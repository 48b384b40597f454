"""Fields of files that others made: of their kind, whole and in range, or one clear line that names them."""

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from snp.errors import InputError

Box = tuple[float, float, float, float]
MOST = 2**63 - 1
"""Of a whole number: what 64 bits hold."""
SIDE = 2**31 - 1
"""Of the sides of a picture: what 32 bits hold."""
EDGE = 1
"""Pixels by which a box may pass the edge of its picture: COCO rounds, and some count from 1."""
_NUMBER = (int, float)
_NO_BOX: tuple[Any, ...] = (None,) * 4
_SHOWN = 80


@contextmanager
def noted(faults: list[InputError] | None) -> Iterator[None]:
    """What is wrong within is added to `faults`, and left out; without such a list it is raised."""
    try:
        yield
    except InputError as error:
        if faults is None:
            raise
        faults.append(error)


def need(item: Any, key: str, kind: type, where: object) -> Any:
    """The value of a key that must be there: int (of 64 bits), float (a finite number), str (whole), list or dict.

    Raises:
        InputError: `item` is no dict, has no such key, or its value is of another kind.
    """
    if not isinstance(item, dict):
        raise InputError(where, f"{shown(item)} is not an object")
    if item.get(key) is None:
        raise InputError(f"{where}.{key}", "missing")
    return checked(item[key], kind, f"{where}.{key}")


def given(item: Any, key: str, kind: type, where: object, default: Any) -> Any:
    """As `need`, for a key that may be missing or null: `default` then."""
    return default if isinstance(item, dict) and item.get(key) is None else need(item, key, kind, where)


def checked(value: Any, kind: type, where: object) -> Any:
    """The value, which must be of this kind, as in `need`."""
    if type(value) not in (_NUMBER if kind is float else (kind,)):
        raise InputError(where, f"{shown(value)} is not {kind.__name__}")
    if kind is int and abs(value) > MOST:
        raise InputError(where, f"{shown(value)} has more than 64 bits")
    if kind is float and not finite(value):
        raise InputError(where, f"{shown(value)} is not a finite number")
    if kind is str and not whole(value):
        raise InputError(where, f"{shown(value)} holds half a character, which is no text", "write it again as UTF-8")
    return value


def words(item: Any, key: str, where: object) -> str:
    """The text of a key, which must be there and more than white space."""
    text: str = need(item, key, str, where)
    if not text.strip():
        raise InputError(f"{where}.{key}", "is empty")
    return text


def size(item: Any, where: object) -> tuple[int, int]:
    """Width and height of a picture in pixels."""
    width, height = (need(item, key, int, where) for key in ("width", "height"))
    if not (1 <= width <= SIDE and 1 <= height <= SIDE):
        raise InputError(f"{where}.height", f"picture of {width}x{height} pixels")
    return width, height


def check_box(box: Any, width: int, height: int, where: object, empty: bool = False) -> None:
    """The one place that says which boxes are accepted, whatever file they come from.

    Args:
        box: x, y, width and height in pixels.
        width, height: of its picture, whose edge it may pass by `EDGE`.
        empty: it may have no area.

    Raises:
        InputError: it is no box, has no area, or lies outside.
    """
    x, y, w, h = box if isinstance(box, (list, tuple)) and len(box) == 4 else _NO_BOX
    if type(x) in _NUMBER and type(y) in _NUMBER and type(w) in _NUMBER and type(h) in _NUMBER:
        # what is not a number fails every comparison, and what is too large for a sum fails the first ones
        if (
            -EDGE <= x <= width
            and -EDGE <= y <= height
            and 0 < w <= width + 2 * EDGE
            and 0 < h <= height + 2 * EDGE
            and x + w <= width + EDGE
            and y + h <= height + EDGE
        ):
            return
        if all(map(finite, box)):
            if min(w, h) < 0:
                raise InputError(where, f"{shown(box)} has a negative side")
            if min(w, h) == 0 and not empty:
                raise InputError(where, f"{shown(box)} is empty")
            if min(x, y) < -EDGE or x + w > width + EDGE or y + h > height + EDGE:
                raise InputError(where, f"{shown(box)} lies outside its image of {width}x{height} pixels")
            return
    raise InputError(where, f"{shown(box)} is not [x, y, width, height]")


SPANS = "spans are [begin, end) and count characters of the caption from 0, as [[4, 7]] for 'red' in 'the red star'"
"""What they must be, for who reads that they are not."""
_WORD = re.compile(r"\w(?:\S*\w)?")


def check_spans(spans: Any, caption: str, where: object) -> None:
    """InputError unless these are one or more [begin, end) spans of characters of the caption."""
    if not isinstance(spans, list) or not spans:
        raise InputError(where, "missing or empty", f"list those of its phrase: {SPANS}")
    for span in spans:
        if not isinstance(span, list) or len(span) != 2 or not type(span[0]) is type(span[1]) is int:
            raise InputError(where, f"{shown(span)} is not [begin, end)", SPANS)
        if not 0 <= span[0] < span[1] <= len(caption):
            outside = f"span {shown(span)} lies outside the caption of {len(caption)} characters"
            raise InputError(where, f"{outside}: {hit(caption, *span)}", SPANS)


def hit(caption: str, begin: int, end: int) -> str:
    """What a span holds of a caption, and the whole words that are nearest to it."""
    first, last = whole_words(caption, begin, end)
    held = shown(caption[max(begin, 0) : max(end, 0)])
    return f"it hits {held} of {shown(caption)}, nearest are the words {shown(caption[first:last])}, [{first}, {last}]"


def whole_words(caption: str, begin: int, end: int) -> tuple[int, int]:
    """The span of all words that a span touches, punctuation around them left out; of none, that of the nearest one."""
    words = [found.span() for found in _WORD.finditer(caption)] or [(0, len(caption))]
    touched = [word for word in words if word[0] < end and word[1] > begin]
    if not touched:
        touched = [min(words, key=lambda word: max(word[0] - end, begin - word[1]))]
    return touched[0][0], touched[-1][1]


def whole(text: str) -> bool:
    """Whether a text can be written: half a character, as a cut escape of JSON leaves it, cannot."""
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


def finite(value: float) -> bool:
    """Whether a number is finite, and small enough to be a float."""
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number of hundreds of digits
        return False


def shown(value: Any) -> str:
    """A value for an error: its beginning."""
    try:
        text = repr(value)
    except ValueError:  # a whole number of thousands of digits, which Python does not write
        text = "a number of thousands of digits"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
