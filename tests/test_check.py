"""`snp data check`: good folders pass, every kind of fault is named with its mend, exit code 2."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
from PIL import Image
from test_sources import GRAPHS, INSTANCES, QUESTIONS, REFS, SENTENCE, XML, write

from snp.cli import main
from snp.data import annotations
from snp.data.annotations import Entry
from snp.data.sources.check import CAPTION, NEEDS, PROMPT, PUBLISHED
from snp.models import config as configs

ENTRY = Entry(
    id=0, file_name="COCO_train2014_000000000007.jpg", height=48, width=64, caption="the dog", dataset_name="refcoco",
    boxes=((4, 6, 10.5, 20),), spans=(((0, 7),),),
)  # fmt: skip


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.effect_noise((64, 48), 40).convert("RGB").save(path)


def prepared(root: Path, name: str, *entries: Entry) -> Path:
    return annotations.write(root / "annotations" / f"{name}.json", entries, ["thing"])


def good(root: Path, benchmark: str) -> Path:
    """A small folder of a benchmark, in its true format."""
    if benchmark in ("refcoco", "refcoco+", "refcocog"):
        file = "refs(umd).p" if benchmark == "refcocog" else "refs(unc).p"
        write(root / benchmark / "instances.json", INSTANCES)
        (root / benchmark / file).write_bytes(pickle.dumps([REFS[0] | {"split": "val"}], protocol=2))
        picture(root / "train2014/COCO_train2014_000000000007.jpg")
    elif benchmark == "coco":
        image = INSTANCES["images"][0] | {"file_name": "000000000007.jpg"}
        write(root / "annotations/instances_val2017.json", INSTANCES | {"images": [image]})
        picture(root / "val2017/000000000007.jpg")
    elif benchmark == "flickr30k":
        write(root / "Sentences/36979.txt", SENTENCE)
        write(root / "Annotations/36979.xml", XML)
        write(root / "val.txt", "36979\n")
        picture(root / "flickr30k-images/36979.jpg")
    elif benchmark == "gqa":
        write(root / "val_balanced_questions.json", QUESTIONS)
        write(root / "gqa_answer2id_by_type.json", {"answer_rel": {"yes": 0}})
        write(root / "sceneGraphs/val_sceneGraphs.json", GRAPHS)
        picture(root / "images/2405722.jpg")
    else:
        prepared(root, "final_mixed_train", ENTRY)
        picture(root / "train2014/COCO_train2014_000000000007.jpg")
    return root


def check(capsys: pytest.CaptureFixture[str], benchmark: str, root: Path) -> tuple[int, str]:
    """Exit code and report."""
    try:
        main(["data", "check", benchmark, "--data-root", str(root)])
        code = 0
    except SystemExit as exit:
        code = int(exit.code or 0)
    return code, capsys.readouterr().out


@pytest.mark.parametrize("benchmark", NEEDS)
def test_a_sound_folder_passes_and_its_counts_are_held_against_the_published_ones(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, benchmark: str
) -> None:
    code, text = check(capsys, benchmark, good(tmp_path, benchmark))
    assert code == 0 and "0 error" in text and "pictures, all of them whole" in text
    assert ("are published" in text) == (benchmark in PUBLISHED)


@pytest.mark.parametrize("benchmark", NEEDS)
def test_an_empty_folder_says_what_to_fetch_and_where_to_put_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, benchmark: str
) -> None:
    code, text = check(capsys, benchmark, tmp_path)
    assert code == 2 and f"holds nothing of {benchmark} (needs {NEEDS[benchmark]})" in text


@pytest.mark.parametrize("benchmark", NEEDS)
def test_missing_pictures_are_counted(capsys: pytest.CaptureFixture[str], tmp_path: Path, benchmark: str) -> None:
    root = good(tmp_path, benchmark)
    (path,) = root.rglob("*.jpg")
    path.unlink()
    code, text = check(capsys, benchmark, root)
    assert code == 2 and "1 of 1 pictures are missing, as " in text and path.stem in text


@pytest.mark.parametrize("benchmark", NEEDS)
def test_a_picture_that_is_cut_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path, benchmark: str) -> None:
    root = good(tmp_path, benchmark)
    (path,) = root.rglob("*.jpg")
    path.write_bytes(path.read_bytes()[:700])
    code, text = check(capsys, benchmark, root)
    assert code == 2 and f"{path}: image cannot be read" in text


def test_mdetrs_own_files_of_refcoco_are_taken_first(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    root = good(tmp_path, "refcoco")
    prepared(root, "finetune_refcoco_val", ENTRY)
    text = check(capsys, "refcoco", root)[1]
    assert "finetune_refcoco_val.json: val: 1 where 10,834 are published" in text
    assert "refs(unc).p: " not in text


def test_a_pickle_that_wants_to_run_code_is_refused_and_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    root = good(tmp_path, "refcoco")
    (root / "refcoco/refs(unc).p").write_bytes(pickle.dumps([Path("anything")]))
    code, text = check(capsys, "refcoco", root)
    assert code == 2 and "refs(unc).p: refused: it wants to load pathlib" in text


def test_all_faults_of_a_file_are_counted_and_the_first_are_told(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    root = good(tmp_path, "mixed")
    path = root / "annotations/final_mixed_train.json"
    document = json.loads(path.read_text())
    first = document["annotations"][0]
    document["annotations"] = [
        first | {"bbox": [60, 2, 9, 3]},
        first | {"tokens_positive": [[0, 99]]},
        first | {"bbox": [1, 2, 0, 3]},
        first | {"image_id": 5},
        first | {"bbox": None},
    ]
    write(path, document)
    code, text = check(capsys, "mixed", root)
    assert code == 2
    assert "annotations[0].bbox: [60, 2, 9, 3] lies outside its image of 64x48 pixels" in text
    assert "annotations[1].tokens_positive: span [0, 99] lies outside the caption of 7 characters" in text
    assert "and 2 more problems like these" in text


@pytest.mark.parametrize(("benchmark", "file", "old", "new", "problem"), [
    ("coco", "annotations/instances_val2017.json", '"bbox": [4,', '"bbox": [-9,', "annotations[0].bbox"),
    ("flickr30k", "Annotations/36979.xml", "<xmax>10<", "<xmax>99<", "36979.xml: object[0].bndbox"),
    ("flickr30k", "Sentences/36979.txt", "Two young men]", "Two young men", "36979.txt: line 1"),
    ("gqa", "gqa_answer2id_by_type.json", "0", "1", "gqa_answer2id_by_type.json: answer_rel: its numbers are not"),
    ("gqa", "val_balanced_questions.json", '"imageId"', '"image"', "05515938.imageId: missing"),
])  # fmt: skip
def test_a_broken_file_of_every_format_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, benchmark: str, file: str, old: str, new: str, problem: str
) -> None:
    path = good(tmp_path, benchmark) / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    code, text = check(capsys, benchmark, tmp_path)
    assert code == 2 and problem in text


def test_pictures_are_found_flat_by_split_and_by_the_names_of_either_year(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    root = good(tmp_path, "refcoco")
    for folder, name in (("", "COCO_train2014_000000000007.jpg"), ("train2017", "000000000007.jpg")):
        shutil.rmtree(root / "train2014", ignore_errors=True)
        picture(root / folder / name)
        assert check(capsys, "refcoco", root)[0] == 0
        (root / folder / name).unlink()


def test_a_benchmark_that_is_none_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        main(["data", "check", "scenes", "--data-root", str(tmp_path)])
    assert "choose one of refcoco" in capsys.readouterr().err


def test_texts_are_as_long_as_the_models_of_paper_scale_read() -> None:
    assert (configs.PAPER.context, configs.GLIP_PAPER.context) == (CAPTION, PROMPT)
