"""`snp data check`: good folders pass, every kind of fault is named with its mend, exit code 2."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_sources import DOGS, GENERAL, GRAPHS, INSTANCES, QUESTIONS, REFS, SENTENCE, XML, write

from snp.cli import main
from snp.data import annotations
from snp.data.annotations import Entry
from snp.data.sources.findings import CAPTION, PROMPT
from snp.data.sources.layout import NEEDS, PUBLISHED
from snp.data.tokens import Vocabulary
from snp.errors import InputError
from snp.models.config import GLIP_PAPER, PAPER
from snp.training.prepare import Source

BENCHMARKS = [name for name in NEEDS if name != "own"]
"""Of a user's own data: test_own_data.py."""
ENTRY = Entry(
    id=0,
    file_name="COCO_train2014_000000000007.jpg",
    height=48,
    width=64,
    caption="the dog",
    dataset_name="refcoco",
    boxes=((4, 6, 10.5, 20),),
    spans=(((0, 7),),),
)
QUESTION = Entry(
    id=0,
    file_name="2405722.jpg",
    height=48,
    width=64,
    caption="is it small",
    dataset_name="gqa",
    boxes=(),
    spans=(),
    question_id="7",
    question_type="rel",
    answer="yes",
)


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
    elif benchmark == "grefcoco":
        write(root / benchmark / "instances.json", DOGS)
        write(root / benchmark / "grefs(unc).json", GENERAL)
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
        prepared(root, "final_flickr_separateGT_train", ENTRY)
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


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_a_sound_folder_passes_and_its_counts_are_held_against_the_published_ones(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, benchmark: str
) -> None:
    code, text = check(capsys, benchmark, good(tmp_path, benchmark))
    assert code == 0 and "0 error" in text and "pictures, all of them whole" in text
    assert ("are published" in text) == any(PUBLISHED.get(benchmark, {}).values())


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_an_empty_folder_says_what_to_fetch_and_where_to_put_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, benchmark: str
) -> None:
    code, text = check(capsys, benchmark, tmp_path)
    assert code == 2 and f"holds nothing of {benchmark} (needs {NEEDS[benchmark]})" in text


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_missing_pictures_are_counted(capsys: pytest.CaptureFixture[str], tmp_path: Path, benchmark: str) -> None:
    root = good(tmp_path, benchmark)
    (path,) = root.rglob("*.jpg")
    path.unlink()
    code, text = check(capsys, benchmark, root)
    assert code == 2 and "1 of 1 pictures are missing, as " in text and path.stem in text


@pytest.mark.parametrize("benchmark", BENCHMARKS)
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


@pytest.mark.parametrize(
    ("benchmark", "file", "old", "new", "problem"),
    [
        ("coco", "annotations/instances_val2017.json", '"bbox": [4,', '"bbox": [-9,', "annotations[0].bbox"),
        ("flickr30k", "Annotations/36979.xml", "<xmax>10<", "<xmax>99<", "36979.xml: object[0].bndbox"),
        ("flickr30k", "Sentences/36979.txt", "Two young men]", "Two young men", "36979.txt: line 1"),
        ("gqa", "gqa_answer2id_by_type.json", "0", "1", "gqa_answer2id_by_type.json: answer_rel: its numbers are not"),
        ("gqa", "val_balanced_questions.json", '"imageId"', '"image"', "05515938.imageId: missing"),
    ],
)
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
    assert (PAPER.context, GLIP_PAPER.context) == (CAPTION, PROMPT)


# -- what a run refuses --------------------------------------------------------------------------------------------


LONG = ". ".join(f"sign no {n}" for n in range(10, 28))


@pytest.mark.parametrize(
    ("benchmark", "file", "old", "place"),
    [
        ("mixed", "annotations/final_mixed_train.json", "the dog", "final_mixed_train.json: id 0.caption"),
        ("flickr30k", "Sentences/36979.txt", " under ", "Sentences/36979.txt: sentence 0.caption"),
        ("gqa", "val_balanced_questions.json", "left?", "val_balanced_questions.json: 05515938.caption"),
    ],
)
def test_a_caption_longer_than_the_papers_model_reads_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, benchmark: str, file: str, old: str, place: str
) -> None:
    path = good(tmp_path, benchmark) / file
    path.write_text(path.read_text().replace(old, f"{old} {LONG} "))
    code, text = check(capsys, benchmark, tmp_path)
    assert code == 2 and f"{place}: " in text and f"tokens, the model takes {PAPER.context}" in text


def test_a_reference_that_is_too_long_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    root = good(tmp_path, "refcoco")
    refs = [REFS[0] | {"split": "val", "sentences": [{"sent": "the dog"}, {"sent": LONG}]}]
    (root / "refcoco/refs(unc).p").write_bytes(pickle.dumps(refs))
    code, text = check(capsys, "refcoco", root)
    assert code == 2 and "refs(unc).p: ann_id 70.caption: 9" in text


def test_the_name_of_a_class_that_fits_in_no_prompt_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = good(tmp_path, "coco") / "annotations/instances_val2017.json"
    path.write_text(path.read_text().replace('"dog"', json.dumps(f"{LONG} {LONG} {LONG}")))
    code, text = check(capsys, "coco", tmp_path)
    assert code == 2 and f"category 3.caption: 269 tokens, the model takes {GLIP_PAPER.context}" in text


def test_answers_that_no_model_gives_are_refused_in_training_and_told_elsewhere(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    root = good(tmp_path, "gqa")
    write(root / "gqa_answer2id_by_type.json", {"answer_rel": {"no": 0}})
    code, text = check(capsys, "gqa", root)
    assert code == 0 and "answer 'yes' of 1 questions is not in gqa_answer2id_by_type.json" in text
    (root / "val_balanced_questions.json").rename(root / "train_balanced_questions.json")
    code, text = check(capsys, "gqa", root)
    assert code == 2 and "answer 'yes' of 1 questions is not in gqa_answer2id_by_type.json, type 'rel' (add it" in text


def test_answers_are_needed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (good(tmp_path, "gqa") / "gqa_answer2id_by_type.json").unlink()
    code, text = check(capsys, "gqa", tmp_path)
    assert code == 2 and "gqa_answer2id_by_type.json: file not found, looked in" in text


def test_scene_graphs_are_looked_through_as_they_are_read(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = good(tmp_path, "gqa") / "sceneGraphs/val_sceneGraphs.json"
    path.write_text(path.read_text().replace('"x": 10', '"x": -5'))
    code, text = check(capsys, "gqa", tmp_path)
    assert code == 2 and "val_sceneGraphs.json: 2405722.objects.1061537: (-5, 20, 30, 40) lies outside" in text


def test_all_faults_of_all_files_of_a_picture_are_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    root = good(tmp_path, "flickr30k")
    write(root / "Sentences/36979.txt", "[/EN#1/people Two men\n" + SENTENCE)
    write(root / "Annotations/36979.xml", XML.replace("<xmax>10<", "<xmax>99<"))
    write(root / "val.txt", "36979 no7")
    text = check(capsys, "flickr30k", root)[1]
    for place in ("val.txt: picture 2", "36979.txt: line 1", "36979.xml: object[0].bndbox"):
        assert f"{place}: " in text


# -- pictures ------------------------------------------------------------------------------------------------------


def sized(root: Path, size: tuple[int, int], orientation: int = 1) -> Path:
    """The one picture of a benchmark, which its annotation says is 64x48, with another size."""
    (path,) = root.rglob("*.jpg")
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", size).save(path, exif=exif)
    return path


@pytest.mark.parametrize("benchmark", ["refcoco", "coco", "mixed"])
def test_a_picture_with_its_sides_swapped_is_turned_or_of_another_data_set(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, benchmark: str
) -> None:
    path = sized(good(tmp_path, benchmark), (48, 64))
    code, text = check(capsys, benchmark, tmp_path)
    assert code == 2 and f"{path}: has 48x64 pixels, where its annotation says 64x48: it is turned, or" in text


@pytest.mark.parametrize(("benchmark", "size"), [("flickr30k", (40, 50)), ("gqa", (480, 640))])
def test_so_is_one_whose_size_stands_in_another_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, benchmark: str, size: tuple[int, int]
) -> None:
    sized(good(tmp_path, benchmark), size)
    code, text = check(capsys, benchmark, tmp_path)
    assert code == 2 and "it is turned, or of another data set" in text


@pytest.mark.parametrize(
    ("size", "orientation"), [((64, 48), 1), ((128, 96), 1), ((21, 16), 1), ((48, 64), 6), ((48, 64), 8)]
)
def test_copies_of_another_size_and_pictures_that_are_seen_upright_are_as_good(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, size: tuple[int, int], orientation: int
) -> None:
    sized(good(tmp_path, "coco"), size, orientation)
    code, text = check(capsys, "coco", tmp_path)
    assert code == 0 and "where its annotation says" not in text


@pytest.mark.parametrize(("size", "orientation", "code"), [((64, 64), 1, 0), ((64, 40), 1, 0), ((64, 48), 6, 2)])
def test_other_proportions_are_told_and_a_picture_that_exif_turns_away_from_its_boxes_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, size: tuple[int, int], orientation: int, code: int
) -> None:
    sized(good(tmp_path, "coco"), size, orientation)
    found, text = check(capsys, "coco", tmp_path)
    assert found == code and ("of other proportions" in text) == (code == 0) and "pictures" in text


# -- where files lie -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("benchmark", ["gqa", "flickr30k", "coco"])
def test_a_benchmark_may_have_a_folder_of_its_own_and_check_and_run_find_it_alike(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, benchmark: str
) -> None:
    """Its folder is named, or the one that holds all; pictures are in either."""
    good(tmp_path / benchmark, benchmark)
    for root in (tmp_path, tmp_path / benchmark):
        assert check(capsys, benchmark, root)[0] == 0
        source, words = Source(root, real=True), Vocabulary.full()
        read = {
            "gqa": lambda: source.set(source.questions("val"), words, PAPER, source.answers()),  # noqa: B023
            "flickr30k": lambda: source.set(source.phrases("val"), words, PAPER),  # noqa: B023
            "coco": lambda: source.set(source.detection("val2017", [("dog", [(0, 3)])]), words, PAPER),  # noqa: B023
        }[benchmark]
        assert read().batch(np.array([0])).images_ICHW.shape[0] == 1


def test_a_run_reads_references_as_their_authors_publish_them(tmp_path: Path) -> None:
    source = Source(good(tmp_path, "refcoco"), real=True)
    data = source.captions("finetune_refcoco_val", Vocabulary.full(), PAPER)
    assert data.captions == ["the dog", "left animal"]
    box = data.batch(np.array([0, 1])).boxes_BM4[1, 0]
    assert box.tolist() == pytest.approx([9.25 / 64, 16 / 48, 10.5 / 64, 20 / 48])
    with pytest.raises(InputError, match=r"testB\.json: file not found, and .* has nothing of testB \(needs annota"):
        source.captions("finetune_refcoco_testB", Vocabulary.full(), PAPER)


def test_a_run_reads_mdetrs_questions_where_the_published_ones_are_missing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    root = good(tmp_path, "gqa")
    (root / "val_balanced_questions.json").unlink()
    prepared(root, "finetune_gqa_val_balanced", QUESTION)
    assert Source(root, real=True).questions("val") == [QUESTION]
    code, text = check(capsys, "gqa", root)
    assert code == 0 and "finetune_gqa_val_balanced.json: val: 1 samples" in text


def test_a_folder_that_cannot_be_listed_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = good(tmp_path, "coco")

    def refuse(path: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("snp.data.sources.images.os.scandir", refuse)
    code, text = check(capsys, "coco", root)
    assert code == 2 and f"{root}: cannot be listed: Permission denied" in text
