"""`snp data check` and a run agree: whatever files hold, both read them, or both say in an InputError what is wrong."""

import copy
import json
import math
import pickle
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_check import good
from test_sources import GRAPHS, QUESTIONS

from snp.data import annotations
from snp.data.annotations import Entry
from snp.data.sources import layout
from snp.data.sources.check import check
from snp.data.tokens import Vocabulary
from snp.errors import InputError
from snp.models.config import GLIP_PAPER, PAPER
from snp.tasks import average_precision
from snp.tasks.phrases import Truth
from snp.training import prepare
from snp.training.prepare import Source

pytestmark = pytest.mark.slow

TRIALS = 120
"""Random changes of each format."""
ODD = [
    None, True, False, 0, -1, 1, 7, 2**31, 2**63, 2**64, -(2**70), 10**400, 0.5, 1.0, -0.0, math.nan, math.inf, "",
    " ", "x", "7", "\ud83d", "\x00", "İ &amp; é", "word " * 90, [], [None], [[]], [0, 3], [[0, 3]], [[[0, 3]]],
    [[0, 2**40]], [1, 2, 10, 10], [0, 0, 65, 49], [-1, 0, 3, 4], [1, 2, 0, 4], {}, {"a": 1}, {"2:4": "1061537"},
    {"a": "9"},
]  # fmt: skip
ENTRIES = [
    Entry(
        id=k,
        file_name="1.jpg",
        height=48,
        width=64,
        caption="the red star",
        dataset_name="refcoco",
        boxes=((1, 2, 10, 12), (30, 20.5, 8, 9)),
        spans=(((0, 12),), ((4, 7), (8, 12))),
        type="relation",
        original_id=9,
        categories=(1, 0),
    )
    for k in range(2)
]
INSTANCES = {
    "images": [{"id": n, "file_name": f"{n}.jpg", "height": 48, "width": 64} for n in (0, 7)],
    "annotations": [
        {"id": n, "image_id": 7, "category_id": 3, "bbox": [4, 6, 10.5, 20], "iscrowd": 0, "area": 9} for n in (0, 70)
    ],
    "categories": [{"id": 3, "name": "dog"}, {"id": 0, "name": "traffic light"}],
}
REFS = [
    {"ann_id": 70, "image_id": 7, "split": "val", "sentences": [{"sent": "the dog"}, {"sent": "left animal"}]},
    {"ann_id": 0, "image_id": 7, "split": "testA", "sentences": [{"sent": "dog"}]},
]


def picture(root: Path, *names: str) -> None:
    (root / "images").mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("RGB", (64, 48)).save(root / "images" / name)


def spoil(value: Any, draw: random.Random) -> Any:
    """The value with one thing in it changed: taken away, doubled, of another kind, or out of range."""
    value = copy.deepcopy(value)
    holder, key = draw.choice([*_places(value)])
    if draw.random() < 0.2:
        del holder[key]
    elif draw.random() < 0.2 and isinstance(holder, list):
        holder.insert(key, copy.deepcopy(holder[key]))
    else:
        holder[key] = draw.choice(ODD)
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield value, key
        yield from _places(item)


def faults(benchmark: str, root: Path) -> list[str]:
    """What the check calls an error, of files, not of pictures' sizes, which a run does not look at."""
    found = check(benchmark, root)
    return [f"{f.where}: {f.text}" for f in found if f.level == "error" and "turned" not in f.text]


def refusal(read: Callable[[], Any]) -> str:
    """What a run says of files that it refuses, "" where it reads them."""
    prepare._captions.cache_clear()
    prepare._expressions.cache_clear()
    prepare._pictures.cache_clear()
    try:
        read()
    except InputError as error:
        return str(error)
    return ""


def all_of(data: Any) -> None:
    """Whatever a batch is made of."""
    if len(data):
        batch = data.batch(np.arange(len(data)), share_images=True)
        assert batch.boxes_BM4.isfinite().all()


def run_expressions(root: Path) -> None:
    for name in ("val", "testA"):
        try:
            all_of(Source(root, real=True).captions(f"finetune_refcoco_{name}", Vocabulary.full(), PAPER))
        except InputError as error:
            if "file not found" not in str(error):  # a split that is missing is a warning
                raise


def run_questions(root: Path) -> None:
    source = Source(root, real=True)
    all_of(source.set(source.questions("train"), Vocabulary.full(), PAPER, source.answers()))


def run_phrases(root: Path) -> None:
    source = Source(root, real=True)
    entries = source.phrases("val")
    all_of(source.set(entries, Vocabulary.full(), PAPER))
    for merged in (False, True):
        Truth.from_entries(entries, merged)


def run_detection(root: Path) -> None:
    source = Source(root, real=True)
    prompts = source.prompts(Vocabulary.full(), GLIP_PAPER)
    all_of(source.set(source.detection("val2017", prompts), Vocabulary.full(), GLIP_PAPER))
    average_precision.score(source.instances("val2017"), {})


def agree(benchmark: str, root: Path, run: Callable[[Path], None]) -> bool:
    """Whether both read it; they must not disagree."""
    said, told = refusal(lambda: run(root)), faults(benchmark, root)
    assert bool(said) == bool(told), f"check: {told or 'sound'}; run: {said or 'reads it'}"
    return not said


def outcomes(sound: list[bool]) -> None:
    """The changes were not all harmless, nor all fatal."""
    assert 0 < sum(sound) < len(sound)


def test_pre_processed_files(tmp_path: Path) -> None:
    draw, sound = random.Random(0), []
    for trial in range(TRIALS):
        root = tmp_path / str(trial)
        picture(root, "1.jpg")
        path = annotations.write(root / "annotations/finetune_refcoco_val.json", ENTRIES, ["heart", "star"])
        path.write_text(json.dumps(spoil(json.loads(path.read_text()), draw)))
        sound.append(agree("refcoco", root, run_expressions))
    outcomes(sound)


def test_references_and_the_objects_that_they_name(tmp_path: Path) -> None:
    draw, sound = random.Random(1), []
    for trial in range(TRIALS):
        root = tmp_path / str(trial)
        picture(root, "0.jpg", "7.jpg")
        refs, instances = (spoil(REFS, draw), INSTANCES) if trial % 2 else (REFS, spoil(INSTANCES, draw))
        (root / layout.FILES["refcoco"]).write_bytes(pickle.dumps(refs))
        (root / "instances.json").write_text(json.dumps(instances))
        sound.append(agree("refcoco", root, run_expressions))
    outcomes(sound)


def test_questions_graphs_and_answers(tmp_path: Path) -> None:
    draw, sound = random.Random(2), []
    for trial in range(TRIALS):
        root = tmp_path / str(trial)
        picture(root, "2405722.jpg")
        files = {
            "train_balanced_questions.json": QUESTIONS,
            "train_sceneGraphs.json": GRAPHS,
            "gqa_answer2id_by_type.json": {"answer_rel": {"yes": 0, "no": 1}},
        }
        chosen = draw.choice([*files])
        for name, value in files.items():
            (root / name).write_text(json.dumps(spoil(value, draw) if name == chosen else value))
        sound.append(agree("gqa", root, run_questions))
    outcomes(sound)


def test_mdetrs_files_of_questions_and_of_sentences(tmp_path: Path) -> None:
    draw, sound = random.Random(6), []
    question = {"dataset_name": "gqa", "question_id": "7", "question_type": "rel", "answer": "yes"}
    asked = [replace(entry, **question) for entry in ENTRIES]
    told = [replace(entry, dataset_name="flickr", evaluated=entry.spans, sentence_id=entry.id) for entry in ENTRIES]
    for trial in range(TRIALS):
        root = tmp_path / str(trial)
        picture(root, "1.jpg")
        benchmark, name, entries, run = (
            ("gqa", "finetune_gqa_train_balanced", asked, run_questions),
            ("flickr30k", "final_flickr_separateGT_val", told, run_phrases),
        )[trial % 2]
        path = annotations.write(root / f"annotations/{name}.json", entries, ["heart", "star"])
        path.write_text(json.dumps(spoil(json.loads(path.read_text()), draw)))
        (root / "gqa_answer2id_by_type.json").write_text(json.dumps({"answer_rel": {"yes": 0, "no": 1}}))
        sound.append(agree(benchmark, root, run))
    outcomes(sound)


def test_instances(tmp_path: Path) -> None:
    draw, sound = random.Random(3), []
    for trial in range(TRIALS):
        root = tmp_path / str(trial)
        picture(root, "0.jpg", "7.jpg")
        (root / "annotations").mkdir()
        (root / "annotations/instances_val2017.json").write_text(json.dumps(spoil(INSTANCES, draw)))
        sound.append(agree("coco", root, run_detection))
    outcomes(sound)


def test_sentences_and_boxes(tmp_path: Path) -> None:
    draw, sound = random.Random(4), []
    pieces = [b"", b"0", b"-", b"--1", b"<", b">", b"[/EN#", b"]", b"\xe9", b"\xef\xbb\xbf", b"\x00", b"9" * 20, b"\n"]
    for trial in range(TRIALS):
        root = good(tmp_path / str(trial), "flickr30k")
        path = draw.choice([root / "Sentences/36979.txt", root / "Annotations/36979.xml", root / "val.txt"])
        content = path.read_bytes()
        begin = draw.randrange(len(content))
        path.write_bytes(content[:begin] + draw.choice(pieces) + content[begin + draw.randint(0, 3) :])
        sound.append(agree("flickr30k", root, run_phrases))
    outcomes(sound)


@pytest.mark.parametrize(
    ("benchmark", "run"),
    [("refcoco", run_expressions), ("gqa", run_questions), ("coco", run_detection), ("flickr30k", run_phrases)],
)
def test_bytes_of_any_file(tmp_path: Path, benchmark: str, run: Callable[[Path], None]) -> None:
    """Cut, changed, in another encoding, or with a byte order mark."""
    draw, sound = random.Random(5), []
    for trial in range(TRIALS // 2):
        root = good(tmp_path / str(trial), benchmark)
        if benchmark == "gqa":
            for path in root.rglob("val_*"):
                path.rename(path.with_name(path.name.replace("val", "train")))
        path = draw.choice(sorted(path for path in root.rglob("*") if path.suffix != ".jpg" and path.is_file()))
        content = path.read_bytes()
        place = draw.randrange(len(content))
        content = draw.choice(
            [
                content[:place],
                content[:place] + bytes([draw.randrange(256)]) + content[place + 1 :],
                b"\xef\xbb\xbf" + content,
                content.decode("latin-1").encode("utf-16"),
                b"",
                b"[" * 100_000,
                b"9" * 5000,
            ]
        )
        path.write_bytes(content)
        sound.append(agree(benchmark, root, run))
    outcomes(sound)
