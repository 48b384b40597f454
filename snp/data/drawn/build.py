"""Lays a data set out on disk: pictures drawn by worker processes, captions, and the benchmarks of all tasks."""

import hashlib
import math
import random
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any

from PIL import Image
from rich.filesize import decimal

from snp.data import annotations
from snp.data.annotations import Box, Entry, Span
from snp.data.drawn import folder, taskfiles
from snp.data.drawn.expressions import STYLES, Scene
from snp.data.drawn.items import Expression
from snp.data.drawn.pictures import SPLITS, Picture
from snp.data.drawn.questions import TYPES, Question, ask
from snp.data.drawn.sketch import BENCHMARKS, PER_PICTURE, Generator, sketch
from snp.errors import InputError
from snp.files import write_json
from snp.processes import pool, spread
from snp.terminal import progress

_CHUNK = 50  # pictures a worker makes at a time
_BYTES = 27_000  # of a picture with all that is said of it, as of desk data


def build(
    root: str | Path, generator: Generator, seed: int, train: int, test: int, pretrain_val: int, workers: int
) -> Path:
    """Make the data set in `root` (replacing one that was made there) and return `root`.

    Of several processes one makes it, and those that waited for it take what it made.

    Args:
        train: pictures for training; each gives a caption and one expression a benchmark.
        test: expressions per benchmark and evaluation split.
        pretrain_val: pictures of the validation split of pre-training.
        workers: processes; the result does not depend on them.

    Raises:
        InputError: counts below one, or `root` is a folder of something else.
    """
    for name, value in (
        ("train", train),
        ("test", test),
        ("pretrain_val", pretrain_val),
        ("workers", workers),
    ):
        if value < 1:
            raise InputError(name, f"{value} is below one")
    root, evaluation = Path(root), math.ceil(test / PER_PICTURE)
    counts = dict.fromkeys(SPLITS, evaluation) | {"train": train, "pretrain-val": pretrain_val}
    about = {"name": generator.name, "version": generator.version, "seed": seed, "pictures": counts}
    with folder.making(root) as waited:
        if not (waited and is_made(root) and (folder.about(root) or {}).items() >= about.items()):
            _draw(root, generator, about, test, workers)
    return root


def _draw(root: Path, generator: Generator, about: dict[str, Any], test: int, workers: int) -> None:
    """Make it in a folder that is ours alone."""
    folder.clear(root)
    seed, counts = about["seed"], about["pictures"]
    number = sum(counts.values())
    print(f"snp: drawing {number:,} pictures into {root}, about {decimal(number * _BYTES)}", file=sys.stderr)
    jobs = [
        (generator, root, seed, split, start, min(start + _CHUNK, count))
        for split, count in counts.items()
        for start in range(0, count, _CHUNK)
    ]
    for split in counts:
        (root / "images" / split).mkdir(parents=True, exist_ok=True)
    pictures: dict[str, list[Picture]] = defaultdict(list)
    with (
        progress(total=sum(counts.values()), desc=f"drawing {generator.name}", unit="picture") as bar,
        _work(jobs, workers) as drawn,
    ):
        for job, made in zip(jobs, drawn, strict=True):
            pictures[job[3]] += made
            bar.update(len(made))
    files = dict(_files(pictures, test))
    for name, entries in files.items():
        annotations.write(root / "annotations" / f"{name}.json", entries, generator.categories)
    write_json(
        root / folder.ABOUT,
        about
        | {
            "captions": {name: len(entries) for name, entries in files.items()},
            "tasks_version": taskfiles.VERSION,
            "tasks_sha256": taskfiles.write(root, pictures, generator.nouns),
            "annotations_sha256": {
                name: hashlib.sha256((root / "annotations" / f"{name}.json").read_bytes()).hexdigest() for name in files
            },
            "pixels_sha256": {
                split: hashlib.sha256("".join(p.pixels for p in made).encode()).hexdigest()
                for split, made in pictures.items()
            },
        },
    )


def place(
    rng: random.Random, shape: tuple[int, int], canvas: tuple[int, int], boxes: Sequence[Box]
) -> tuple[int, int, int, int] | None:
    """A box (x, y, width, height) for something of `shape` (height, width), clear of `boxes`; None if none is found."""
    height, width = shape
    for _ in range(40):
        x, y = rng.randint(0, canvas[1] - width), rng.randint(0, canvas[0] - height)
        if all(
            x >= bx + bw + 1 or bx >= x + width + 1 or y >= by + bh + 1 or by >= y + height + 1
            for bx, by, bw, bh in boxes
        ):
            return x, y, width, height
    return None


@contextmanager
def _work(jobs: list[tuple[Any, ...]], workers: int) -> Iterator[Iterator[list[Picture]]]:
    if workers == 1:
        yield map(_chunk, jobs)
        return
    with pool(workers) as processes:
        yield spread(processes, _chunk, jobs)


def _chunk(job: tuple[Generator, Path, int, str, int, int]) -> list[Picture]:
    generator, root, seed, split, start, stop = job
    return [picture(generator, root, seed, split, number) for number in range(start, stop)]


def picture(generator: Generator, root: Path, seed: int, split: str, number: int) -> Picture:
    """Draw one and write its pixels; the others are not needed for it."""
    made = sketch(generator, seed, split, number)
    name = f"{split}/{number:06d}.png"
    Image.fromarray(made.image).save(root / "images" / name, compress_level=1)
    items, tasks = list(made.scene.items), _tasks(generator, made.scene, seed, split, number)
    return Picture(name, made.image.shape[:2], items, made.caption, made.single, made.expressions, made.pixels, *tasks)


def _tasks(
    generator: Generator, scene: Scene, seed: int, split: str, number: int
) -> tuple[tuple[Question, ...], tuple[Expression, ...]]:
    """Questions and sentences about a picture; their chance is their own, and changes nothing of the rest."""
    rng = random.Random(f"{generator.name}/{seed}/{split}/{number}/tasks")
    questions, sentences = list[Question](), dict[str, Expression]()
    if taskfiles.used("gqa", split, number):
        _, others = generator.draw(rng, split)
        first = number * taskfiles.QUESTIONS  # types are dealt out in turn over the pictures
        kinds = [TYPES[slot % len(TYPES)] for slot in range(first, first + taskfiles.QUESTIONS)]
        questions = ask(scene, others, kinds, rng)
    if taskfiles.used("flickr30k", split, number):
        said = (scene.caption(rng) for _ in range(taskfiles.SENTENCES))
        sentences = {sentence.caption: sentence for sentence in said}
    return tuple(questions), tuple(sentences.values())


def _files(pictures: dict[str, list[Picture]], test: int) -> Any:
    yield "regions_train", [_regions(number, picture) for number, picture in enumerate(pictures["train"])]
    for split, name in (("train", "final_mixed_train"), ("pretrain-val", "final_mixed_val")):
        said = []
        for number, picture in enumerate(pictures[split]):
            said.append((number, picture, picture.caption, "mixed"))
            said.append((number, picture, picture.single, STYLES[number % len(STYLES)]))
        yield name, _entries(said)
    for benchmark, splits in BENCHMARKS.items():
        for split in splits:
            said = [
                (number, picture, expression, benchmark)
                for number, picture in enumerate(pictures[split])
                for expression in picture.expressions[benchmark]
            ]
            yield f"finetune_{benchmark}_{split}", _entries(said if split == "train" else said[:test])


def _regions(number: int, picture: Picture) -> Entry:
    """Every item of a picture by all its attributes, as "small plain red circle, big striped blue star"."""
    phrases = [" ".join((*item.attributes.values(), item.noun)) for item in picture.items]
    ends = list(accumulate(len(phrase) + 2 for phrase in phrases))
    spans = tuple(((end - 2 - len(phrase), end - 2),) for phrase, end in zip(phrases, ends, strict=True))
    return Entry(
        number,
        picture.file_name,
        *picture.size,
        ", ".join(phrases),
        "regions",
        tuple(item.box for item in picture.items),
        spans,
        "",
        number,
        tuple(item.category for item in picture.items),
    )


def _entries(said: list[tuple[int, Picture, Any, str]]) -> list[Entry]:
    entries = []
    for number, (original, picture, expression, dataset) in enumerate(said):
        # Of a referring expression only the referent is annotated; of a caption every item it names, once.
        spans: dict[int, list[Span]] = defaultdict(list)
        for index, span in expression.named[:1] if expression.kind else expression.named:
            spans[index].append(span)
        items = [picture.items[index] for index in spans]
        entries.append(
            Entry(
                number,
                picture.file_name,
                *picture.size,
                expression.caption,
                dataset,
                tuple(item.box for item in items),
                tuple(map(tuple, spans.values())),
                expression.kind,
                original,
                tuple(item.category for item in items),
            )
        )
    return entries


def is_made(root: Path) -> bool:
    """Whether a whole data set is there, with all that is read of one today.

    Raises:
        InputError: what it says of itself cannot be read.
    """
    return (folder.about(root) or {}).get("tasks_version") == taskfiles.VERSION
