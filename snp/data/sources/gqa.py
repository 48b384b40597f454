"""GQA as published: questions with typed answers, and scene graphs with the boxes that they speak of."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from snp.data.annotations import Entry
from snp.data.sources.images import jpg
from snp.errors import InputError
from snp.files import read_json


def questions(
    path: Path, graphs: dict[str, Any] | None = None, name: Callable[[str], str] = jpg
) -> list[Entry]:
    """One entry for every question of a ``{split}_{balanced,all}_questions.json``, in the order of the file.

    Args:
        graphs: scene graphs by picture, as `scene_graphs` reads them; with them, objects that a question names
            (its ``annotations.question``: word place -> object) become boxes with spans.
        name: the file of a picture's number.

    Raises:
        InputError: naming the file and the field at fault.
    """
    document = read_json(path)
    if not isinstance(document, dict):
        raise InputError(path, "is not a dict of questions by number")
    entries = []
    for index, (number, question) in enumerate(document.items()):
        where = f"{path}: {number}"
        if not isinstance(question, dict):
            raise InputError(where, "is not a question")
        for key in ("question", "imageId"):
            if not isinstance(question.get(key), str) or not question[key].strip():
                raise InputError(f"{where}.{key}", "missing or empty")
        graph = (graphs or {}).get(question["imageId"], {})
        boxes, spans = _named(question, graph, where)
        types = question.get("types")
        entries.append(
            Entry(
                id=index,
                file_name=name(question["imageId"]),
                height=graph.get("height", 0),
                width=graph.get("width", 0),
                caption=question["question"],
                dataset_name="gqa",
                boxes=boxes,
                spans=spans,
                question_id=number,
                question_type=types.get("semantic", "") if isinstance(types, dict) else "",
                answer=question.get("answer", ""),
            )
        )
    return entries


def scene_graphs(path: Path) -> dict[str, Any]:
    """Picture -> its scene graph (width, height, objects with x, y, w, h and name), checked."""
    document = read_json(path)
    if not isinstance(document, dict):
        raise InputError(path, "is not a dict of scene graphs by picture")
    for picture, graph in document.items():
        where = f"{path}: {picture}"
        if not isinstance(graph, dict) or not isinstance(graph.get("objects"), dict):
            raise InputError(f"{where}.objects", "missing or not a dict")
        width, height = (_number(graph, key, where) for key in ("width", "height"))
        for name, item in graph["objects"].items():
            x, y, w, h = (_number(item, key, f"{where}.objects.{name}") for key in "xywh")
            if x <= -1 or y <= -1 or w < 0 or h < 0 or x + w >= width + 1 or y + h >= height + 1:
                box = [x, y, w, h]
                raise InputError(f"{where}.objects.{name}", f"{box} lies outside its image of {width}x{height} pixels")
    return document


def answers(path: Path) -> dict[str, int]:
    """The vocabulary of answers, ``gqa_answer2id.json``: answer -> number, each number once."""
    return _numbered(path, read_json(path))


def answers_by_type(path: Path) -> dict[str, dict[str, int]]:
    """The vocabularies of MDETR's ``gqa_answer2id_by_type.json``: type, without its ``answer_`` -> answer -> number."""
    document = read_json(path)
    if not isinstance(document, dict):
        raise InputError(path, "is not a dict of answers by type")
    return {kind.removeprefix("answer_"): _numbered(f"{path}: {kind}", found) for kind, found in document.items()}


def _numbered(where: Path | str, answers: Any) -> dict[str, int]:
    if not isinstance(answers, dict) or not all(type(v) is int for v in answers.values()):
        raise InputError(where, "is not a dict of answer -> whole number")
    if sorted(answers.values()) != list(range(len(answers))):
        raise InputError(where, "its numbers are not 0, 1, 2, ... each once")
    return answers


def _named(question: dict[str, Any], graph: dict[str, Any], where: str) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Boxes and spans of the objects that the words of a question name."""
    named = question.get("annotations", {}).get("question", {})
    starts = [0]
    words = question["question"].split(" ")
    for word in words:
        starts.append(starts[-1] + len(word) + 1)
    boxes, spans = [], []
    for place, item in named.items():
        found = graph.get("objects", {}).get(item)
        if found is None:
            continue
        first, _, last = str(place).partition(":")  # "4" or, of several words, "4:6"
        end = int(last) if last else int(first) + 1
        if not 0 <= int(first) < end <= len(words):
            raise InputError(f"{where}.annotations.question", f"place {place!r} lies outside the question")
        boxes.append((found["x"], found["y"], found["w"], found["h"]))
        spans.append(((starts[int(first)], starts[end] - 1),))
    return tuple(boxes), tuple(spans)


def _number(value: Any, key: str, where: str) -> float:
    found = value.get(key) if isinstance(value, dict) else None
    if type(found) not in (int, float):
        raise InputError(f"{where}.{key}", "missing" if found is None else f"{found!r} is not a number")
    return found
