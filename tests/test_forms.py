"""Every form in which a benchmark is published: what the check of data accepts a run reads, and says from where."""

import json
import os
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_check import QUESTION, check, good, picture, prepared
from test_check_and_run import refusal, run_phrases

from snp.data.annotations import Entry
from snp.data.sources import refer
from snp.data.tokens import Vocabulary
from snp.models.config import PAPER
from snp.tasks.phrases import Truth
from snp.training import prepare
from snp.training.prepare import Source

WORDS = Vocabulary.full()
SENTENCE = Entry(
    id=0,
    file_name="36979.jpg",
    height=48,
    width=64,
    caption="two men and a dog",
    dataset_name="flickr",
    boxes=((4, 6, 10, 20), (20, 6, 10, 20), (30, 6, 10, 20)),
    spans=(((0, 7),), ((0, 7),), ((12, 17),)),
    original_id=36979,
    evaluated=(((0, 7),), ((12, 17),)),
    sentence_id=2,
)


@pytest.fixture(autouse=True)
def afresh() -> None:
    """As a new process reads."""
    for known in (prepare._captions, prepare._expressions, prepare._pictures, prepare._told):
        known.cache_clear()


def sentences(root: Path, *entries: Entry, split: str = "val") -> Path:
    """A folder with MDETR's file of Flickr30k, as MDETR wrote it, and its picture."""
    picture(root / "flickr30k-images/36979.jpg")
    path = prepared(root, f"final_flickr_separateGT_{split}", *entries)
    document = json.loads(path.read_text())
    for image, entry in zip(document["images"], entries, strict=True):
        image |= {"original_img_id": entry.original_id, "sentence_id": entry.sentence_id}
        for name in ("original_id", "phrase_types"):
            image.pop(name, None)
    path.write_text(json.dumps(document))
    return path


# -- MDETR's files -------------------------------------------------------------------------------------------------


def test_sentences_of_mdetrs_file_are_those_of_flickr30k_but_for_the_types_of_phrases(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = sentences(tmp_path, SENTENCE)
    code, text = check(capsys, "flickr30k", tmp_path)
    assert code == 0 and f"{path}: val: 1 where 1,000 are published" in text
    source = Source(tmp_path, real=True)
    found = source.phrases("val")
    assert [(e.original_id, e.sentence_id, e.boxes, e.evaluated) for e in found] == [
        (36979, 2, SENTENCE.boxes, SENTENCE.evaluated)
    ]
    assert len(source.set(found, WORDS, PAPER).batch(np.array([0]))) == 1
    assert [len(Truth.from_entries(found, merged).boxes_T4) for merged in (False, True)] == [3, 2]
    assert capsys.readouterr().err == f"snp: {path}: Flickr30k's sentences of val\n"


def test_the_published_sentences_come_first_and_those_without_boxes_are_left_out(tmp_path: Path) -> None:
    sentences(tmp_path, SENTENCE, replace(SENTENCE, id=1, boxes=(), spans=(), evaluated=()))
    assert len(Source(tmp_path, real=True).phrases("val")) == 1
    good(tmp_path, "flickr30k")
    assert Source(tmp_path, real=True).phrases("val")[0].phrase_types


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (dict(evaluated=()), "tokens_positive_eval: missing"),
        (dict(evaluated=(((0, 3),),)), "tokens_positive_eval[0]: no box has these tokens_positive"),
        (dict(), "sentence 2 of picture 36979 occurs twice"),
    ],
)
def test_a_sentence_that_cannot_be_judged_is_refused_by_check_and_run_and_is_good_enough_to_learn_from(
    changes: dict[str, object], problem: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pair = SENTENCE, replace(SENTENCE, id=1, sentence_id=3 if changes else 2, **changes)
    for split in ("val", "train"):
        sentences(tmp_path, *pair, split=split)
    code, text = check(capsys, "flickr30k", tmp_path)
    assert code == 2 and f"val.json: id 1{'' if not changes else '.'}" in text and problem in text
    assert problem in refusal(lambda: run_phrases(tmp_path))
    assert len(Source(tmp_path, real=True).phrases("train")) == 2


def test_questions_of_mdetrs_file_are_read_and_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    root = good(tmp_path, "gqa")
    (root / "val_balanced_questions.json").unlink()
    path = prepared(root, "finetune_gqa_val_balanced", QUESTION)
    assert check(capsys, "gqa", root)[0] == 0
    assert Source(root, real=True).questions("val") == [QUESTION]
    assert capsys.readouterr().err == f"snp: {path}: GQA's questions of val\n"


# -- references ----------------------------------------------------------------------------------------------------


def test_references_are_converted_once_into_the_cache(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = good(tmp_path, "refcoco")

    def read() -> list[str]:
        for known in (prepare._captions, prepare._expressions):
            known.cache_clear()
        return Source(root, real=True).captions("finetune_refcoco_val", WORDS, PAPER).captions

    assert read() == ["the dog", "left animal"]
    assert f"refs(unc).p: val is converted, for {root / 'cache'}" in capsys.readouterr().err
    assert len([*(root / "cache").glob("finetune_refcoco_val-*.safetensors")]) == 1

    reader = refer.plain_pickle
    monkeypatch.setattr(refer, "plain_pickle", lambda path: pytest.fail("read again"))
    assert read() == ["the dog", "left animal"]

    monkeypatch.setattr(refer, "plain_pickle", reader)
    file = root / "refcoco/refs(unc).p"  # another one: what was made of the last is not taken for it
    changed = pickle.loads(file.read_bytes())
    changed[0]["sentences"] = changed[0]["sentences"][:1]
    file.write_bytes(pickle.dumps(changed))
    assert read() == ["the dog"]


def test_references_without_their_objects_are_named_alike(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    root = good(tmp_path, "refcoco")
    (root / "refcoco/instances.json").unlink()
    read = lambda: Source(root, real=True).captions("finetune_refcoco_val", WORDS, PAPER)  # noqa: E731
    assert "instances_train2014.json: file not found" in refusal(read)
    code, text = check(capsys, "refcoco", root)
    assert code == 2 and "instances_train2014.json: file not found" in text


# -- pictures ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["published", "mdetr"])
def test_pictures_of_gqas_own_folder_count_for_check_and_run(
    form: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    root = good(tmp_path, "gqa")
    if form == "mdetr":
        (root / "val_balanced_questions.json").unlink()
        prepared(root, "finetune_gqa_val_balanced", QUESTION)
    (root / "gqa").mkdir()
    shutil.move(root / "images", root / "gqa/images")  # annotations stay in the folder that holds all
    assert check(capsys, "gqa", root)[0] == 0
    source = Source(root, real=True)
    assert len(source.set(source.questions("val"), WORDS, PAPER, source.answers(), strict=False))


@pytest.mark.parametrize(("name", "folder"), [("2405722.jpg", "gqa/images"), ("000000000007.jpg", "coco/train2017")])
def test_the_mixture_finds_pictures_in_the_folders_of_those_whose_they_are(
    name: str, folder: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    entry = replace(SENTENCE, file_name=name, dataset_name="mixed", evaluated=())
    prepared(tmp_path, "final_mixed_train", entry)
    prepared(tmp_path, "final_flickr_separateGT_train", SENTENCE)
    picture(tmp_path / "flickr30k-images/36979.jpg")
    picture(tmp_path / folder / name)
    assert check(capsys, "mixed", tmp_path)[0] == 0
    assert len(Source(tmp_path, real=True).captions("final_mixed_train", WORDS, PAPER)) == 1


def test_two_pictures_of_one_name_are_found_and_copies_are_none(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    root = good(tmp_path, "coco")
    first, second = root / "val2017/000000000007.jpg", root / "images/000000000007.jpg"
    second.parent.mkdir()
    shutil.copy(first, second)
    assert check(capsys, "coco", root)[0] == 0
    Image.new("RGB", (64, 48), "red").save(second)
    os.utime(second, ns=(first.stat().st_mtime_ns,) * 2)
    code, text = check(capsys, "coco", root)
    assert code == 2 and f"{second}: is another picture than {first}, which has its name (a run would take" in text


def test_flickr30ks_and_visual_genomes_pictures_share_names_by_chance(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    root = good(tmp_path, "flickr30k")
    (root / "images").mkdir()
    Image.new("RGB", (20, 20)).save(root / "images/36979.jpg")
    assert check(capsys, "flickr30k", root)[0] == 0


def test_all_of_cocos_pictures_are_looked_for(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """RefCOCO's are COCO's, in whichever folder of it."""
    root = good(tmp_path, "refcoco")
    shutil.move(root / "train2014", root / "coco/train2014")
    assert check(capsys, "refcoco", root)[0] == 0
