"""What a model sees, drawn: on any picture, with any checkpoint; and how to come by models that are not there."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from synthetic import fill
from torchvision.ops import box_iou

from snp.cli import main
from snp.data.annotations import Entry
from snp.demo.page import Panel, Truth
from snp.demo.predict import OVERLAP, Checkpoint, Prediction, Seen, predict
from snp.errors import InputError
from snp.experiment.labels import find
from snp.experiment.spec import Pretrain
from snp.files import write_json
from snp.runs.store import Store


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photograph's shape and size, not those of training."""
    path = tmp_path_factory.mktemp("pictures") / "any.jpg"
    Image.effect_noise((200, 120), 60).convert("RGB").save(path)
    return path


@pytest.fixture(scope="module")
def folder(smoke_dense: Store) -> Path:
    return smoke_dense.folder(Pretrain(scale="smoke", data="scenes"))


@pytest.mark.slow
def test_it_points_at_something_inside_the_picture(folder: Path, picture: Path) -> None:
    said = predict(Checkpoint.from_folder(folder), picture, "the red circle left of the star")
    assert said.seen and said.answer == ""
    for seen in said.seen:
        assert 0 <= seen.box[0] <= seen.box[2] <= 1 and 0 <= seen.box[1] <= seen.box[3] <= 1
        assert set(seen.words.split()) <= set(["the", "red", "circle", "left", "of", "the", "star"])


@pytest.mark.slow
def test_of_boxes_on_the_same_thing_only_the_surest_is_shown(folder: Path, picture: Path) -> None:
    boxes = torch.tensor([seen.box for seen in predict(Checkpoint.from_folder(folder), picture, "the red circle").seen])
    assert (box_iou(boxes, boxes) - torch.eye(len(boxes)) <= OVERLAP).all()


@pytest.mark.slow
def test_a_model_that_learned_to_says_that_nothing_fits_where_no_box_is_sure_enough(
    folder: Path, picture: Path
) -> None:
    one = Checkpoint.from_folder(folder)
    surest = predict(one, picture, "the red circle").seen[0].score
    assert one.threshold is None  # nobody has told it
    never = predict(replace(one, threshold=surest + 1e-6), picture, "the red circle")
    assert never.seen == [] and never.absent.startswith("nothing here fits") and f"{surest:.2f}" in never.absent
    always = predict(replace(one, threshold=surest), picture, "the red circle")
    assert always.absent == "" and [seen.score for seen in always.seen] == [surest]


@pytest.mark.parametrize(("boxes", "seen", "right"), [(0, 0, True), (0, 1, False), (1, 0, False), (1, 1, True)])
def test_of_a_caption_without_a_target_no_box_is_right(boxes: int, seen: int, right: bool) -> None:
    box = (0.0, 0.0, 0.5, 0.5)
    panel = Panel("snp", Path("a.png"), "it", Prediction([Seen(box, 0.9, "it")] * seen, ""), Truth([(box, "")] * boxes))
    assert panel.heading == f"snp: {'✓ right' if right else '✗ wrong'}"


@pytest.mark.slow
def test_asked_for_phrases_it_gives_each_its_best_box(folder: Path, picture: Path) -> None:
    text, phrases = "a red circle and the star", [[(2, 12)], [(17, 25)]]
    said = predict(Checkpoint.from_folder(folder), picture, text, phrases)
    assert [seen.words for seen in said.seen] == ["red circle", "the star"]
    assert all(0 < seen.score < 1 for seen in said.seen)


@pytest.mark.slow
def test_the_command_draws_every_checkpoint_beside_the_others(
    folder: Path, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    png = tmp_path / "demo.png"
    main(["demo", str(picture), "the red circle", "--checkpoint", str(folder), str(folder), "--png", str(png)])
    with Image.open(png) as page:
        assert page.width == 990, "two panels"
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines[:-1]] == ["dense", "dense"] and lines[-1] == str(png)


@pytest.mark.slow
def test_models_are_called_what_they_are(folder: Path, tmp_path: Path) -> None:
    """A folder that says nothing of its run keeps its name."""
    row = find("scenes/magnitude@s75", "smoke")
    runs = {"dense": row.pretrain, "magnitude, 75% of prunable weights zero": row.compress(0)}
    runs["snp, 40% removed, tuned on RefCOCO+"] = find("scenes/snp@60", "smoke").finetune(0, "refcoco+")
    for title, run in runs.items():
        shutil.copytree(folder, place := tmp_path / run.slug)
        (place / "result.json").unlink(missing_ok=True)
        write_json(place / "spec.json", run.canonical())
        assert Checkpoint.from_folder(place).title == title
    for about in ("spec.json", "result.json"):
        (place / about).unlink(missing_ok=True)
    assert Checkpoint.from_folder(place).title == place.name


@pytest.mark.slow
def test_a_question_to_a_model_that_answers_none_is_said_to_be_one(
    folder: Path, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    png = ["--checkpoint", str(folder), "--png", str(tmp_path / "demo.png")]
    main(["demo", str(picture), "what colour is the circle?", *png])
    assert "dense: answers no questions" in capsys.readouterr().out
    main(["demo", str(picture), "the red circle", *png])
    assert "answers no" not in capsys.readouterr().out


def test_a_picture_that_is_not_there_is_told_before_one_that_would_be_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("demo.png").touch()
    assert "none.jpg: " in refused(capsys, "demo", "none.jpg", "the red circle")


def entry(**changes: object) -> Entry:
    """A picture of 100 x 100 pixels with a circle and a star."""
    known = {"boxes": ((0, 0, 50, 50), (60, 60, 40, 40)), "spans": (((2, 8),), ((15, 19),))}
    return Entry(1, "a.png", 100, 100, "a circle and a star", "flickr", **(known | changes))


HERE, BESIDE, AWAY = (0.0, 0.1, 0.5, 0.5), (0.3, 0.3, 0.8, 0.8), (0.6, 0.6, 1.0, 1.0)


def panel(truth: Truth | None, *seen: Seen, answer: str = "") -> Panel:
    return Panel("snp", Path("a.png"), "a circle and a star", Prediction([*seen], answer), truth)


def test_a_box_is_right_where_it_meets_a_true_one_of_its_words() -> None:
    shown = panel(
        Truth.from_entry(entry()), Seen(HERE, 0.9, "circle"), Seen(HERE, 0.8, "star"), Seen(AWAY, 0.7, "star")
    )
    assert shown.verdicts == [True, False, True] and shown.heading == "snp: 2 of 3 right"


def test_of_an_expression_the_first_box_counts_whatever_words_it_is_given() -> None:
    truth = Truth.from_entry(entry(type="relation", boxes=((0, 0, 50, 50),), spans=(((0, 8),),)))
    shown = panel(truth, Seen(BESIDE, 0.9, "star"), Seen(HERE, 0.8, "a"))
    assert shown.verdicts == [False, True] and shown.heading == "snp: ✗ wrong"
    assert panel(truth, Seen(HERE, 0.9, "star")).heading == "snp: ✓ right"


def test_of_a_question_the_answer_counts() -> None:
    truth = Truth.from_entry(entry(answer="small"))
    assert panel(truth, Seen(HERE, 0.9, "star"), answer="small").heading == "snp: ✓ right"
    wrong = panel(truth, Seen(HERE, 0.9, "a"), Seen(BESIDE, 0.9, "a"), answer="big")
    assert wrong.heading == "snp: ✗ wrong, it is small" and wrong.verdicts == [True, False]


def test_where_nothing_is_known_nothing_is_judged() -> None:
    assert panel(None, Seen(HERE, 0.9, "star")).heading == "snp"
    boxless = panel(Truth.from_entry(entry(boxes=(), spans=(), answer="two")), Seen(HERE, 0.9, "star"), answer="two")
    assert boxless.verdicts == [None]


@pytest.mark.slow
def test_words_it_never_saw_and_texts_too_long_are_refused(folder: Path, picture: Path) -> None:
    checkpoint = Checkpoint.from_folder(folder)
    with pytest.raises(InputError, match="no word that the model knows"):
        predict(checkpoint, picture, "xylophone zeppelin")
    with pytest.raises(InputError, match="the model takes 56"):
        predict(checkpoint, picture, "the red circle and " * 20)


@pytest.mark.slow
def test_a_model_that_says_no_number_is_not_drawn(folder: Path, picture: Path) -> None:
    checkpoint = Checkpoint.from_folder(folder)
    torch.nn.init.constant_(checkpoint.model.slot_head.bias, float("nan"))
    with pytest.raises(InputError, match=r"scenes-pretrain-.*any\.jpg: what the model says of it is not finite"):
        predict(checkpoint, picture, "the red circle")


# -- models that are not there -------------------------------------------------------------------------------------


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line of a command that cannot go on."""
    with pytest.raises(SystemExit) as exit:
        main(list(arguments))
    assert exit.value.code == 2
    return capsys.readouterr().err


def told(line: str, folder: Path) -> list[str]:
    """The command that a line names, for this folder."""
    (command,) = re.findall(r"`snp ([^`]+)`", line)
    return [str(folder) if word == "FOLDER" else word for word in command.split()]


def test_a_folder_without_a_model_is_named(picture: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        Checkpoint.from_folder(tmp_path / "nothing")
    with pytest.raises(InputError, match="holds no model"):
        Checkpoint.from_folder(tmp_path)


@pytest.mark.slow
def test_every_checkpoint_is_looked_for_before_anything_is_drawn(
    folder: Path, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(capsys, "demo", str(picture), "the red circle", "--checkpoint", str(folder), str(tmp_path / "none"))
    assert "no such folder" in line and not capsys.readouterr().out


@pytest.mark.slow
def test_a_result_without_its_model_names_a_command_that_makes_it_elsewhere(
    picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in a checkout, which has results and no models: there the run counts as done, and is not done again."""
    store, row = Store(tmp_path / "runs"), find("scenes/snp@60", "smoke")
    fill(store, row, [0.9])
    run = row.finetune(0, "refcoco+")
    line = refused(capsys, "demo", str(picture), "the red star", "--checkpoint", str(store.folder(run)))
    assert "only its result is there, not its model" in line and f"then name FOLDER/{run.slug}" in line
    main([*told(line, tmp_path / "new"), "--dry-run"])
    assert re.search(rf"missing +{re.escape(run.slug)}\n", capsys.readouterr().out)
    main([*told(line, store.root), "--dry-run"])
    assert run.slug not in capsys.readouterr().out, "in its own folder nothing would be done"


def test_a_run_that_is_not_done_is_gone_on_with_where_it_is(
    picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, run = Store(tmp_path / "runs"), find("scenes/snp@60", "desk").compress(1)
    store.begin(run)
    line = refused(capsys, "demo", str(picture), "the red star", "--checkpoint", str(store.folder(run)))
    assert "its model is not there" in line
    assert told(line, tmp_path) == ["run", "scenes/snp@60", "--seed", "1", "--out", str(store.root)]


def test_the_committed_dense_models_are_pointed_at(tmp_path: Path) -> None:
    kept, run = Store.at("desk"), Pretrain(scale="desk", data="scenes")
    (tmp_path / run.slug).mkdir()
    shutil.copy(kept.folder(run) / "result.json", tmp_path / run.slug)
    with pytest.raises(InputError, match=f"it is in {re.escape(str(kept.folder(run)))}"):
        Checkpoint.from_folder(tmp_path / run.slug)


@pytest.mark.slow
def test_a_page_of_predictions_says_which_models_it_needs_before_data_are_made_and_with_them_is_drawn(
    smoke_dense: Store,
    smoke_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    store, png = Store(tmp_path / "runs"), tmp_path / "a.png"
    page = ["predictions", "--scale", "smoke", "--png", str(png), "--out", str(store.root)]
    monkeypatch.setenv("SNP_DATA", str(tmp_path / "data"))
    store.root.mkdir()
    line = refused(capsys, *page)
    assert "its model is not there, and so it is with 7 more" in line
    assert not (tmp_path / "data").exists() and not any(store.root.iterdir())
    fill(store, find("scenes/dense@100", "smoke"), [0.9])  # a result: from here on another folder is needed
    line, other = refused(capsys, *page), tmp_path / "other"
    assert "only its result is there" in line and "then this again with --out FOLDER" in line
    assert not (tmp_path / "data").exists()
    monkeypatch.setenv("SNP_DATA", str(smoke_data))
    shutil.copytree(smoke_dense.root, other)
    main(told(line, other))
    main([*page[:-1], str(other)])
    with Image.open(png) as drawn:
        assert drawn.width == 1980, "four panels side by side, in two rows"
    line = refused(capsys, *page[:-1], str(other), "--number", "100000")
    assert re.search(r"--number 100000: refcoco has \d+ samples", line)


def test_what_a_page_cannot_be_of_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--data real: this page is of data that are made here" in refused(
        capsys, "predictions", "--scale", "paper", "--data", "real"
    )
    assert "--scale paper --data scenes: no row dense" in refused(capsys, "predictions", "--scale", "paper")
    assert "there are scenes at scales smoke and desk" in refused(
        capsys, "predictions", "--scale", "smoke", "--data", "stamps"
    )
