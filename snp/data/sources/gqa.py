"""GQA as published: questions with typed answers, and scene graphs with the boxes that they speak of."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snp.data.annotations import Box, Entry, Span
from snp.data.fields import check_box, checked, given, need, noted, shown, size, words
from snp.data.sources.images import jpg
from snp.errors import InputError
from snp.files import read_json

_PLACE = re.compile(r"(\d{1,9})(?::(\d{1,9}))?", re.ASCII)
"""Of words in a question: "4" or, of several, "4:6"."""


@dataclass(frozen=True, slots=True)
class Graph:
    """A picture's size in pixels, and the box of every object in it, by the object's number."""

    width: int
    height: int
    boxes: dict[str, Box]


def questions(
    path: Path,
    graphs: dict[str, Graph] | None = None,
    name: Callable[[str], str] = jpg,
    faults: list[InputError] | None = None,
) -> list[Entry]:
    """One entry for every question of a ``{split}_{balanced,all}_questions.json``, in the order of the file.

    Args:
        graphs: scene graphs by picture, as `scene_graphs` reads them; with them, objects that a question names
            (its ``annotations.question``: word place -> object) become boxes with spans, those without area left out.
        name: the file of a picture's number.
        faults: all that is wrong is added to them, and left out; by default the first of it is raised.

    Raises:
        InputError: naming the file and the field at fault.
    """
    entries = list[Entry]()
    for number, question in _document(path, "questions by number", faults).items():
        with noted(faults):
            entries.append(_entry(len(entries), number, question, f"{path}: {number}", graphs or {}, name))
    return entries


def _entry(
    index: int, number: str, question: Any, where: str, graphs: dict[str, Graph], name: Callable[[str], str]
) -> Entry:
    text, picture = words(question, "question", where), words(question, "imageId", where)
    graph = graphs.get(picture)
    boxes, spans = _named(question, text, graph.boxes if graph else {}, where)
    return Entry(
        id=index,
        file_name=name(picture),
        height=graph.height if graph else 0,
        width=graph.width if graph else 0,
        caption=text,
        dataset_name="gqa",
        boxes=boxes,
        spans=spans,
        question_id=checked(number, str, where),
        question_type=given(given(question, "types", dict, where, {}), "semantic", str, f"{where}.types", ""),
        answer=given(question, "answer", str, where, ""),
    )


def scene_graphs(path: Path, faults: list[InputError] | None = None) -> dict[str, Graph]:
    """Picture -> its scene graph (width, height, objects with x, y, w, h), checked; `faults` as in `questions`."""
    found: dict[str, Graph] = {}
    for picture, graph in _document(path, "scene graphs by picture", faults).items():
        where = f"{path}: {picture}"
        with noted(faults):
            width, height = size(graph, where)
            found[picture] = Graph(width, height, {})
            for number, item in need(graph, "objects", dict, where).items():
                with noted(faults):
                    box = tuple(need(item, key, float, f"{where}.objects.{number}") for key in "xywh")
                    check_box(box, width, height, f"{where}.objects.{number}", empty=True)
                    found[picture].boxes[number] = box
    return found


def answers_by_type(path: Path) -> dict[str, dict[str, int]]:
    """The vocabularies of MDETR's ``gqa_answer2id_by_type.json``: type, without its ``answer_`` -> answer -> number."""
    found: dict[str, dict[str, int]] = {}
    for name, known in _document(path, "answers by type", None).items():
        if (kind := name.removeprefix("answer_")) in found:
            raise InputError(f"{path}: {name}", f"is the second type called {kind}")
        found[kind] = _numbered(f"{path}: {name}", known)
    return found


def _document(path: Path, what: str, faults: list[InputError] | None) -> dict[str, Any]:
    with noted(faults):
        document = read_json(path)
        if not isinstance(document, dict):
            raise InputError(path, f"is not a dict of {what}")
        return document
    return {}


def _numbered(where: str, answers: Any) -> dict[str, int]:
    """answer -> number, each number from 0 on once."""
    if not isinstance(answers, dict) or not all(type(v) is int for v in answers.values()):
        raise InputError(where, "is not a dict of answer -> whole number")
    if sorted(answers.values()) != list(range(len(answers))):
        raise InputError(where, "its numbers are not 0, 1, 2, ... each once")
    for answer in answers:
        checked(answer, str, where)
    return answers


def _named(
    question: dict[str, Any], text: str, known: dict[str, Box], where: str
) -> tuple[tuple[Box, ...], tuple[tuple[Span], ...]]:
    """Boxes and spans of the objects that the words of a question name."""
    named = given(given(question, "annotations", dict, where, {}), "question", dict, f"{where}.annotations", {})
    starts = [0]
    for word in text.split(" "):
        starts.append(starts[-1] + len(word) + 1)
    boxes, spans = list[Box](), list[tuple[Span]]()
    for place, number in named.items():
        found, field = _PLACE.fullmatch(place), f"{where}.annotations.question"
        first = int(found[1]) if found else -1
        end = int(found[2] or first + 1) if found else 0
        if not 0 <= first < end < len(starts):
            raise InputError(field, f"place {shown(place)} lies outside the question")
        box = known.get(checked(number, str, field))
        if box and min(box[2:]) > 0:
            boxes.append(box)
            spans.append(((starts[first], starts[end] - 1),))
    return tuple(boxes), tuple(spans)
