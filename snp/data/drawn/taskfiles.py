"""Drawn pictures in the formats in which GQA, Flickr30k Entities and COCO are published.

A benchmark's folder lies beside the images: ``gqa/``, ``flickr30k/``, ``coco/``; pictures go by `pictures.identity`.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from snp.data.annotations import Span
from snp.data.drawn.items import Expression
from snp.data.drawn.pictures import Picture, identity
from snp.files import write_atomic

VERSION = 2
"""Of the files: since 2 a box of Flickr30k ends at its last corner, as MDETR reads it. Older ones are made anew."""
QUESTIONS = 4
"""Questions about a picture."""
SENTENCES = 3
"""Most sentences about a picture."""
SPLITS = {
    "gqa": {"train": "train", "val": "val", "testdev": "test"},
    "flickr30k": {"train": "train", "val": "val", "test": "test"},
    "coco": {"train2017": "train", "val2017": "val"},
}
"""Benchmark -> its splits -> those of the pictures."""
TRAIN = {"gqa": 16_000, "flickr30k": 4_000, "coco": 8_000}
"""Pictures of training each benchmark has, the first ones, so that its files are quickly read; of others it has all."""
STRUCTURE = {"exist": "verify", "count": "query", "query": "query", "compare": "compare", "logical": "logical"}
"""GQA's structural type of a semantic one."""

_Splits = Mapping[str, Sequence[tuple[int, Picture]]]
_Files = Iterator[tuple[str, str]]


def used(benchmark: str, split: str, number: int) -> bool:
    """Whether this picture is one of the benchmark's."""
    return split in SPLITS[benchmark].values() and (split != "train" or number < TRAIN[benchmark])


def write(root: Path, pictures: Mapping[str, Sequence[Picture]], nouns: Sequence[str]) -> dict[str, str]:
    """Write all benchmarks below `root`; benchmark -> sha256 of its files.

    Args:
        pictures: by split, in order.
        nouns: the categories of detection.
    """
    makers: dict[str, Callable[[_Splits], _Files]] = {
        "gqa": _gqa,
        "flickr30k": _flickr,
        "coco": lambda splits: _coco(splits, nouns),
    }
    hashes = {}
    for benchmark, make in makers.items():
        splits = {
            name: [
                (identity(split, number), picture)
                for number, picture in enumerate(pictures[split])
                if used(benchmark, split, number)
            ]
            for name, split in SPLITS[benchmark].items()
        }
        digest = hashlib.sha256()
        for name, text in make(splits):
            path = root / benchmark / name
            if path.suffix == ".json":
                write_atomic(path, text)
            else:
                # Thousands of small files, as many as pictures, each synced, would take longer than drawing. A build
                # that was cut is told by dataset.json, which is written last.
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
            digest.update(f"{name}\n{text}".encode())
        hashes[benchmark] = digest.hexdigest()
    return hashes


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":")) + "\n"


def _gqa(splits: _Splits) -> _Files:
    answers = defaultdict[str, set[str]](set)
    for split, numbered in splits.items():
        questions: dict[str, Any] = {}
        for number, picture in numbered:
            for place, question in enumerate(picture.questions):
                answers[question.type].add(question.answer)
                questions[f"{number * QUESTIONS + place:08d}"] = {
                    "question": question.text,
                    "imageId": str(number),
                    "answer": question.answer,
                    "fullAnswer": f"The answer is {question.answer}.",
                    "isBalanced": True,
                    "groups": {"global": None, "local": question.template},
                    "types": {
                        "structural": STRUCTURE[question.type],
                        "semantic": question.type,
                        "detailed": question.template,
                    },
                    "annotations": {
                        "question": {
                            _words(question.text, span): _object(number, index) for index, span in question.named
                        },
                        "answer": {},
                        "fullAnswer": {},
                    },
                }
        yield f"{split}_balanced_questions.json", _json(questions)
        yield f"{split}_sceneGraphs.json", _json({str(number): _graph(number, picture) for number, picture in numbered})
    # Of every split: the few training questions of a tiny set may miss answers of the others.
    by_type = {f"answer_{kind}": _ids(found) for kind, found in sorted(answers.items())}
    yield "gqa_answer2id_by_type.json", _json(by_type)
    yield "gqa_answer2id.json", _json(_ids(set().union(*answers.values())))


def _ids(answers: set[str]) -> dict[str, int]:
    return {answer: number for number, answer in enumerate(sorted(answers))}


def _object(number: int, index: int) -> str:
    return str(number * 100 + index)


def _words(text: str, span: Span) -> str:
    """The place of a span as GQA writes it: "4", or "4:6" for the words 4 and 5."""
    first, count = text[: span[0]].count(" "), text[slice(*span)].count(" ") + 1
    return str(first) if count == 1 else f"{first}:{first + count}"


def _graph(number: int, picture: Picture) -> dict[str, Any]:
    height, width = picture.size
    objects = {
        _object(number, index): {
            "name": item.noun,
            **dict(zip("xywh", item.box, strict=True)),
            "attributes": list(item.attributes.values()),
            "relations": [],
        }
        for index, item in enumerate(picture.items)
    }
    return {"width": width, "height": height, "objects": objects}


def _flickr(splits: _Splits) -> _Files:
    for split, numbered in splits.items():
        yield f"{split}.txt", "".join(f"{number}\n" for number, _ in numbered)
        for number, picture in numbered:
            entities: dict[frozenset[int], int] = {}
            lines = [_marked(sentence, entities) for sentence in picture.sentences]
            yield f"Sentences/{number}.txt", "\n".join(lines) + "\n"
            yield f"Annotations/{number}.xml", _xml(picture, entities)


def _marked(sentence: Expression, entities: dict[frozenset[int], int]) -> str:
    """A sentence with its marks; phrases of the same items are one entity, as in a chain of coreference."""
    phrases = defaultdict[Span, set[int]](set)
    for index, span in sentence.named:
        phrases[span].add(index)
    text, at = "", 0
    for (begin, end), items in sorted(phrases.items()):
        entity = entities.setdefault(frozenset(items), len(entities) + 1)
        kind = "single" if len(items) == 1 else "several"
        text += f"{sentence.caption[at:begin]}[/EN#{entity}/{kind} {sentence.caption[begin:end]}]"
        at = end
    return text + sentence.caption[at:]


def _xml(picture: Picture, entities: dict[frozenset[int], int]) -> str:
    root = ElementTree.Element("annotation")

    def add(parent: ElementTree.Element, tag: str, value: object = "") -> ElementTree.Element:
        node = ElementTree.SubElement(parent, tag)
        node.text = str(value)
        return node

    add(root, "filename", picture.file_name)
    size = add(root, "size")
    for tag, value in zip(("height", "width", "depth"), (*picture.size, 3), strict=True):
        add(size, tag, value)
    for index, item in enumerate(picture.items):
        names = [entity for items, entity in entities.items() if index in items]
        if not names:
            continue
        node = add(root, "object")
        for name in names:
            add(node, "name", name)
        x, y, width, height = item.box
        box = add(node, "bndbox")
        corners = {"xmin": x, "ymin": y, "xmax": x + width, "ymax": y + height}
        for tag, value in corners.items():
            add(box, tag, value)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _coco(splits: _Splits, nouns: Sequence[str]) -> _Files:
    categories = {noun: number for number, noun in enumerate(nouns, start=1)}
    for split, numbered in splits.items():
        images, annotations = list[dict[str, Any]](), list[dict[str, Any]]()
        for number, picture in numbered:
            height, width = picture.size
            images.append(
                {"id": number, "file_name": picture.file_name, "height": height, "width": width, "license": 0}
            )
            for item in picture.items:
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": number,
                        "category_id": categories[item.noun],
                        "bbox": item.box,
                        "area": item.box[2] * item.box[3],
                        "iscrowd": 0,
                        "segmentation": [],
                    }
                )
        yield (
            f"annotations/instances_{split}.json",
            _json(
                {
                    "info": {},
                    "licenses": [],
                    "images": images,
                    "annotations": annotations,
                    "categories": [
                        {"id": number, "name": noun, "supercategory": "thing"} for noun, number in categories.items()
                    ],
                }
            ),
        )
