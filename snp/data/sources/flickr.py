"""Flickr30k Entities as published: a file of sentences and a file of boxes for every picture."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from snp.data.annotations import Box, Entry, Span
from snp.data.sources.images import jpg
from snp.errors import InputError
from snp.files import read_text

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


def sentences(path: Path) -> list[Sentence]:
    """All sentences of a ``Sentences/<id>.txt``."""
    lines = read_text(path, "fetch the annotations of Flickr30k Entities").splitlines()
    return [sentence(line, f"{path}: line {i + 1}") for i, line in enumerate(lines) if line.strip()]


def boxes(path: Path) -> Boxes:
    """What ``Annotations/<id>.xml`` says; corners are inclusive there, so a box of one pixel has size one."""
    try:
        root = ElementTree.fromstring(path.read_bytes())
    except FileNotFoundError:
        raise InputError(path, "file not found", "fetch the annotations of Flickr30k Entities") from None
    except ElementTree.ParseError as error:
        raise InputError(path, f"not valid XML: {error}", "fetch it again") from None

    def number(node: ElementTree.Element, tag: str, where: str) -> int:
        text = node.findtext(tag)
        if text is None or not text.strip().lstrip("-").isdigit():
            raise InputError(f"{where}.{tag}", "missing" if text is None else f"{text!r} is not a whole number")
        return int(text)

    size = root.find("size")
    if size is None:
        raise InputError(f"{path}: size", "missing")
    width, height = (number(size, tag, f"{path}: size") for tag in ("width", "height"))
    found: dict[str, list[Box]] = {}
    boxless = set()
    for i, node in enumerate(root.iter("object")):
        where = f"{path}: object[{i}]"
        names = [name.text or "" for name in node.iter("name")]
        if not names:
            raise InputError(f"{where}.name", "missing")
        box = node.find("bndbox")
        if box is None:
            boxless.update(names)
            continue
        x0, y0, x1, y1 = (number(box, tag, f"{where}.bndbox") for tag in ("xmin", "ymin", "xmax", "ymax"))
        if not (0 <= x0 <= x1 <= width and 0 <= y0 <= y1 <= height):
            raise InputError(f"{where}.bndbox", f"{[x0, y0, x1, y1]} lies outside its image of {width}x{height} pixels")
        for name in names:
            found.setdefault(name, []).append((float(x0), float(y0), float(x1 - x0 + 1), float(y1 - y0 + 1)))
    return Boxes(width, height, found, frozenset(boxless - found.keys()))


def read(
    root: Path, pictures: Iterable[str], merged: bool = False, name: Callable[[str], str] = jpg
) -> list[Entry]:
    """One entry for every sentence of these pictures that has a phrase with a box.

    Args:
        root: holds ``Sentences/`` and ``Annotations/``.
        pictures: their numbers, as ``val.txt`` lists them.
        merged: the boxes of one phrase become the one box around them (merged-box protocol).
        name: the file of a picture's number.
    """
    entries: list[Entry] = []
    for picture in pictures:
        about = boxes(root / "Annotations" / f"{picture}.xml")
        for number, said in enumerate(sentences(root / "Sentences" / f"{picture}.txt")):
            named = [phrase for phrase in said.phrases if about.boxes.get(phrase.entity)]
            if not named:
                continue
            objects = [
                (box, (phrase.span,))
                for phrase in named
                for box in ([around(about.boxes[phrase.entity])] if merged else about.boxes[phrase.entity])
            ]
            entries.append(
                Entry(
                    id=len(entries),
                    file_name=name(picture),
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
            )
    return entries


def around(found: list[Box]) -> Box:
    """The smallest box around boxes."""
    x, y = min(b[0] for b in found), min(b[1] for b in found)
    return x, y, max(b[0] + b[2] for b in found) - x, max(b[1] + b[3] for b in found) - y
