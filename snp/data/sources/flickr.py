"""Flickr30k Entities as published: a file of sentences and a file of boxes for every picture."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree

from snp.data.annotations import Box, Entry, Span
from snp.data.fields import SIDE, check_box, noted, shown
from snp.data.sources.images import jpg
from snp.errors import InputError
from snp.files import read_text

_HINT = "fetch the annotations of Flickr30k Entities"
_LINES = re.compile(r"\r\n?|\n")
"""Ends of lines; a sentence may hold what else Unicode calls so."""
_NUMBER = re.compile(r"\s*-?\d{1,18}\s*", re.ASCII)
_PICTURE = re.compile(r"0|[1-9]\d{0,17}", re.ASCII)
_PHRASE = re.compile(r"\[/EN#(\d+)((?:/[^\s/\]]+)+) ([^\]]+)\]")
UNSEEN = "0"
"""The number of phrases that name nothing visible."""


@dataclass(frozen=True, slots=True)
class Phrase:
    """Words of a sentence that name one entity: its number, its types (people, scene, ...) and where they stand."""

    entity: str
    types: tuple[str, ...]
    span: Span


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence without its marks, and its phrases in order."""

    text: str
    phrases: tuple[Phrase, ...]


@dataclass(frozen=True)
class Boxes:
    """What a picture's XML says: its size, entity -> boxes (x, y, width, height), and entities without a box."""

    width: int
    height: int
    boxes: dict[str, list[Box]]
    boxless: frozenset[str]


def sentence(line: str, where: str) -> Sentence:
    """A line such as ``[/EN#1/people Two men] ride [/EN#2/vehicles/other a cart] .``."""
    text, phrases, at = "", [], 0
    for match in _PHRASE.finditer(line):
        text += line[at : match.start()]
        phrases.append(Phrase(match[1], tuple(match[2][1:].split("/")), (len(text), len(text) + len(match[3]))))
        text += match[3]
        at = match.end()
    text += line[at:]
    if "[/EN#" in text or not text.strip():
        raise InputError(where, f"{line[:60]!r} is not a sentence with [/EN#number/type words]")
    return Sentence(text, tuple(phrases))


def sentences(path: Path, faults: list[InputError] | None = None) -> list[Sentence]:
    """All sentences of a ``Sentences/<id>.txt``; of `faults` see `read`."""
    found = list[Sentence]()
    for i, line in enumerate(_LINES.split(read_text(path, _HINT)), 1):
        with noted(faults):
            if line.strip():
                found.append(sentence(line, f"{path}: line {i}"))
    return found


def boxes(path: Path, faults: list[InputError] | None = None) -> Boxes:
    """What ``Annotations/<id>.xml`` says; of `faults` see `read`.

    A box is as wide as its corners are apart, as MDETR reads it: where they are the same, it has no area, and nothing
    that is found overlaps it.
    """
    try:
        root = ElementTree.fromstring(path.read_bytes())
    except FileNotFoundError:
        raise InputError(path, "file not found", _HINT) from None
    except OSError as error:
        raise InputError(path, f"cannot be read: {error.strerror}") from None
    except (ElementTree.ParseError, LookupError, ValueError) as error:  # the last two: of an encoding that is none
        raise InputError(path, f"not valid XML: {error}", "fetch it again") from None
    size = root.find("size")
    if size is None:
        raise InputError(f"{path}: size", "missing")
    width, height = (_number(size, tag, f"{path}: size") for tag in ("width", "height"))
    if not (1 <= width <= SIDE and 1 <= height <= SIDE):
        raise InputError(f"{path}: size", f"picture of {width}x{height} pixels")
    about = Boxes(width, height, {}, frozenset())
    boxless = set[str]()
    for i, node in enumerate(root.iter("object")):
        with noted(faults):
            boxless.update(_object(node, f"{path}: object[{i}]", about))
    return replace(about, boxless=frozenset(boxless - about.boxes.keys()))


def _object(node: ElementTree.Element, where: str, about: Boxes) -> list[str]:
    """Add the box of an object to those of its entities; without one, they are returned."""
    names = [name.text or "" for name in node.iter("name")]
    if not names:
        raise InputError(f"{where}.name", "missing")
    corners = node.find("bndbox")
    if corners is None:
        return names
    x0, y0, x1, y1 = (_number(corners, tag, f"{where}.bndbox") for tag in ("xmin", "ymin", "xmax", "ymax"))
    box = float(x0), float(y0), float(x1 - x0), float(y1 - y0)
    check_box(box, about.width, about.height, f"{where}.bndbox", empty=True)
    for name in names:
        about.boxes.setdefault(name, []).append(box)
    return []


def _number(node: ElementTree.Element, tag: str, where: str) -> int:
    text = node.findtext(tag)
    if text is None or not _NUMBER.fullmatch(text):
        raise InputError(f"{where}.{tag}", "missing" if text is None else f"{shown(text)} is not a whole number")
    return int(text)


def listed(path: Path, faults: list[InputError] | None = None) -> list[str]:
    """The numbers of pictures in a ``{train,val,test}.txt``, each once; of `faults` see `read`."""
    found: dict[str, None] = {}
    with noted(faults):
        for i, number in enumerate(read_text(path, _HINT).split(), 1):
            with noted(faults):
                if not _PICTURE.fullmatch(number):
                    raise InputError(f"{path}: picture {i}", f"{shown(number)} is not the number of a picture")
                if number in found:
                    raise InputError(f"{path}: picture {i}", f"{number} occurs twice")
                found[number] = None
    return list(found)


def read(
    root: Path,
    pictures: Iterable[str],
    name: Callable[[str], str] = jpg,
    faults: list[InputError] | None = None,
) -> list[Entry]:
    """One entry for every sentence of these pictures that has a phrase with a box.

    Args:
        root: holds ``Sentences/`` and ``Annotations/``.
        pictures: their numbers, as ``val.txt`` lists them.
        name: the file of a picture's number.
        faults: all that is wrong is added to them, and left out; by default the first of it is raised.

    Raises:
        InputError: naming the file and the line or field at fault.
    """
    entries: list[Entry] = []
    for picture in pictures:
        with noted(faults):
            about = boxes(root / "Annotations" / f"{picture}.xml", faults)
            for number, said in enumerate(sentences(root / "Sentences" / f"{picture}.txt", faults)):
                named = [phrase for phrase in said.phrases if about.boxes.get(phrase.entity)]
                if named:
                    entries.append(_entry(len(entries), picture, name(picture), about, number, said, named))
    return entries


def _entry(
    index: int, picture: str, file_name: str, about: Boxes, number: int, said: Sentence, named: list[Phrase]
) -> Entry:
    objects = [(box, (phrase.span,)) for phrase in named for box in about.boxes[phrase.entity]]
    return Entry(
        id=index,
        file_name=file_name,
        height=about.height,
        width=about.width,
        caption=said.text,
        dataset_name="flickr",
        boxes=tuple(box for box, _ in objects),
        spans=tuple(spans for _, spans in objects),
        original_id=int(picture),
        evaluated=tuple((phrase.span,) for phrase in named),
        phrase_types=tuple(phrase.types for phrase in named),
        sentence_id=number,
    )


def merged(entry: Entry) -> Entry:
    """The boxes of each phrase become the one box around them (merged-box protocol)."""
    of: dict[tuple[Span, ...], list[Box]] = {}
    for box, spans in zip(entry.boxes, entry.spans, strict=True):
        of.setdefault(spans, []).append(box)
    return replace(entry, boxes=tuple(map(around, of.values())), spans=tuple(of), categories=())


def around(found: list[Box]) -> Box:
    """The smallest box around boxes."""
    x, y = min(b[0] for b in found), min(b[1] for b in found)
    return x, y, max(b[0] + b[2] for b in found) - x, max(b[1] + b[3] for b in found) - y
