"""Data of a user's own: one folder in the annotation format, at any scale, named in results by its own name."""

import json
from pathlib import Path
from typing import Any

import pytest
from owndata import write

from snp.cli import main
from snp.data.fields import hit, whole_words
from snp.errors import InputError
from snp.experiment.labels import find_own
from snp.experiment.places import own_name
from snp.experiment.spec import dense
from snp.experiment.tables import select
from snp.models.config import SMOKE
from snp.models.family import build
from snp.runs.store import Store
from snp.training import stages
from snp.training.prepare import Source, limits
from snp.training.setup import Setup
from snp.training.tuning import tuning

RUN = ("run", "magnitude-structured-uniform@60", "dense@100", "--scale", "smoke", "--workers", "1")


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("mine") / "squares")


@pytest.fixture(scope="module")
def runs(squares: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the finished runs of two rows on the squares, their dense model among them."""
    root = tmp_path_factory.mktemp("runs")
    main([*RUN, "--data", str(squares), "--out", str(root)])
    return root


def said(capsys: pytest.CaptureFixture[str], *command: object) -> str:
    main([*map(str, command)])
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *command: object) -> str:
    with pytest.raises(SystemExit) as exit:
        main([*map(str, command)])
    assert exit.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.slow
def test_rows_run_on_it_and_are_called_by_its_name(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = {path.name.rpartition("-")[0] for path in runs.iterdir()}
    row = "squares-magnitude-structured-uniform-keep60-seed0"
    assert {"squares-pretrain-seed0", row, f"{row}-own", "squares-dense-keep100-seed0-own"} <= names
    text = said(capsys, "table", "--out", runs)
    assert text.startswith("squares: 40% of all parameters removed") and "own val   own test" in text
    assert "magnitude-structured-uniform" in said(capsys, "table", "table1", "--data", "squares", "--out", runs)
    assert "difference" in said(
        capsys, "compare", "squares/magnitude-structured-uniform@60", "squares/dense@100", "--out", runs
    )


@pytest.mark.slow
def test_a_folder_of_the_same_name_with_other_captions_is_refused(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write(tmp_path / "squares", seed=1)
    row = find_own("snp@60", "squares", "smoke")
    with pytest.raises(InputError, match="learned from other annotations, which were called squares too"):
        stages.run(row.compress(0), Store(runs), setup=Setup(data_root=other))


@pytest.mark.slow
def test_every_command_takes_the_folder(squares: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slug = dense("smoke", "squares").slug
    out = ("--scale", "smoke", "--out", tmp_path / "runs", "--data", squares, "--dry-run")
    assert slug in said(capsys, "reproduce", "table1", *out)
    assert slug in said(capsys, "run", "table1", *out)
    assert said(capsys, "run", "snp@60", *out) == said(capsys, "run", "squares/snp@60", *out)
    text = said(capsys, "launch", "table1", *out)
    assert "snp-pretrain" in text and "snp-data" not in text  # nothing is drawn


def test_it_is_named_by_its_description_or_its_folder(squares: Path, tmp_path: Path) -> None:
    assert own_name(squares) == "squares"
    described = tmp_path / "my data!"
    described.mkdir()
    with pytest.raises(InputError, match="cannot stand in results"):
        own_name(described)
    (described / "dataset.json").write_text('{"name": "birds"}')
    assert own_name(described) == "birds"
    (described / "dataset.json").write_text('{"name": "scenes"}')
    with pytest.raises(InputError, match="none of a known data set"):
        own_name(described)


@pytest.mark.parametrize(("command", "problem"), [
    (("reproduce", "table2"), "data of your own have expressions alone"),
    (("run", "scenes/snp@60"), "is of scenes, where --data names squares"),
    (("run", "snp@60:gqa"), "data of your own have expressions alone"),
    (("run", "snpp@60"), "near: squares/snp@60"),
    (("pretrain", "--model", "glip"), "have expressions alone"),
])  # fmt: skip
def test_what_it_does_not_have_is_one_line(
    command: tuple[str, ...], problem: str, squares: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert problem in refused(capsys, *command, "--data", squares, "--scale", "smoke")


def test_a_name_that_is_no_data_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is no data set and no folder" in refused(capsys, "rows", "table1", "--data", "sceens")
    assert "is no data set and no folder" in refused(capsys, "run", "snp@60", "--data", tmp_path / "none")


def checked(root: Path, capsys: pytest.CaptureFixture[str], code: int) -> str:
    """What `snp data check` says of a folder, and the exit code it ends with."""
    try:
        main(["data", "check", str(root), "--scale", "smoke"])
        found = 0
    except SystemExit as exit:
        found = exit.code
    assert found == code
    return capsys.readouterr().out


def changed(root: Path, split: str, change: Any) -> Path:
    path = root / "annotations" / f"{split}.json"
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))
    return root


def test_a_sound_folder_is_passed(squares: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = checked(squares, capsys, 0)
    assert text.startswith("squares, as runs at scale smoke read it:") and "0 warning, 0 error" in text


def test_what_a_run_refuses_the_check_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    least = limits("smoke")["least"]
    root = write(tmp_path / "few", train=least - 1)
    (root / "annotations" / "test.json").unlink()
    text = checked(root, capsys, 2)
    assert f"has {least - 1} captions, and a run learns from {least} at least" in text
    assert "test.json: file not found (needs annotations/train.json, val.json and test.json" in text


def test_spans_outside_a_caption_are_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write(tmp_path / "wrong")

    def spoil(value: Any) -> None:
        value["images"][0]["caption"] = "the red square on the left"
        value["annotations"][0]["tokens_positive"] = [[4, 40]]
        value["images"][1]["caption"] = "the red square on the left"
        value["annotations"][1]["tokens_positive"] = [4, 14]

    text = checked(changed(root, "val", spoil), capsys, 2)
    assert "span [4, 40] lies outside the caption of 26 characters" in text
    assert "it hits 'red square on the left' of 'the red square on the left'" in text
    assert "nearest are the words 'red square on the left', [4, 26]" in text
    assert "4 is not [begin, end) (spans are [begin, end) and count characters of the caption from 0" in text


def test_spans_that_count_words_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write(tmp_path / "words")

    def spoil(value: Any) -> None:
        value["images"][0]["caption"] = "the red square on the left"
        value["annotations"][0]["tokens_positive"] = [[1, 3]]

    text = checked(changed(root, "val", spoil), capsys, 0)
    assert "it hits 'he' of 'the red square on the left', nearest are the words 'the', [0, 3]" in text
    assert "1 warning, 0 error" in text


@pytest.mark.parametrize(("span", "words"), [
    ((4, 7), (4, 7)), ((4, 8), (4, 7)), ((5, 9), (4, 14)), ((7, 8), (4, 7)), ((20, 90), (15, 17)), ((-3, 2), (0, 3)),
])  # fmt: skip
def test_the_nearest_words_of_a_span(span: tuple[int, int], words: tuple[int, int]) -> None:
    caption = "the red square on."
    assert whole_words(caption, *span) == words
    assert repr(caption[slice(*words)]) in hit(caption, *span)


def test_a_category_below_zero_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = changed(write(tmp_path / "below"), "train", lambda value: value["annotations"][0].update(category_id=-3))
    told = "train.json: 1 of its category_id are negative, as -3 (number categories from 0)"
    assert told in checked(root, capsys, 2)
    with pytest.raises(InputError, match="category_id: -3 is negative"):
        stages.run(dense("smoke", "below"), Store(tmp_path / "runs"), setup=Setup(data_root=root))


def test_categories_that_are_all_below_zero_are_refused_too(tmp_path: Path) -> None:
    def spoil(value: Any) -> None:
        for annotation in value["annotations"]:
            annotation["category_id"] = -3

    root = changed(write(tmp_path / "minus"), "train", spoil)
    with pytest.raises(InputError, match="category_id: -3 is negative"):
        stages.run(dense("smoke", "minus"), Store(tmp_path / "runs"), setup=Setup(data_root=root))


def test_a_split_without_a_caption_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = changed(write(tmp_path / "empty"), "test", lambda value: value.update(images=[], annotations=[]))
    assert "test.json: holds no caption that could be used (add some)" in checked(root, capsys, 2)


def test_a_picture_that_the_test_split_lacks_is_missed_before_anything_is_trained(tmp_path: Path) -> None:
    folder = write(tmp_path / "squares", train=40)
    (folder / "images" / "test-3.png").unlink()
    source = Source(folder, real=True, own=True)
    vocabulary = source.vocabulary(SMOKE)
    model = build(SMOKE.model_copy(update={"vocabulary": len(vocabulary)}))
    with pytest.raises(InputError, match=r"image .*test-3.png not found"):
        tuning("own", source, model, vocabulary)


def test_categories_that_no_classifier_has_are_refused(tmp_path: Path) -> None:
    root = write(tmp_path / "large")

    def spoil(value: Any) -> None:
        value["annotations"][0]["category_id"] = 10**9

    setup = Setup(data_root=changed(root, "train", spoil))
    with pytest.raises(InputError, match="number categories from 0"):
        stages.run(dense("smoke", "large"), Store(tmp_path / "runs"), setup=setup)


def test_rows_of_a_table_on_it_are_those_of_its_first_data_set() -> None:
    rows = select("table1", "desk", "squares")
    assert {row.data for row in rows} == {"squares"} and {row.benchmarks for row in rows} == {("own",)}
    assert len(rows) == len(select("table1", "desk", "scenes"))
