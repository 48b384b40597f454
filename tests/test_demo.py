"""What a model sees, drawn: on any picture, with any checkpoint."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision.ops import box_iou

from snp.cli import main
from snp.errors import InputError
from snp.experiment.demo import OVERLAP, Checkpoint, predict
from snp.experiment.spec import Pretrain
from snp.experiment.store import Store


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photograph's shape and size, not those of training."""
    path = tmp_path_factory.mktemp("pictures") / "any.jpg"
    Image.effect_noise((200, 120), 60).convert("RGB").save(path)
    return path


@pytest.fixture(scope="module")
def folder(smoke_dense: Store) -> Path:
    return smoke_dense.folder(Pretrain(scale="smoke", data="scenes"))


def test_it_points_at_something_inside_the_picture(folder: Path, picture: Path) -> None:
    said = predict(Checkpoint.of(folder), picture, "the red circle left of the star")
    assert said.seen and said.answer == ""
    for seen in said.seen:
        assert 0 <= seen.box[0] <= seen.box[2] <= 1 and 0 <= seen.box[1] <= seen.box[3] <= 1
        assert set(seen.words.split()) <= set(["the", "red", "circle", "left", "of", "the", "star"])


def test_of_boxes_on_the_same_thing_only_the_surest_is_shown(folder: Path, picture: Path) -> None:
    boxes = torch.tensor([seen.box for seen in predict(Checkpoint.of(folder), picture, "the red circle").seen])
    assert (box_iou(boxes, boxes) - torch.eye(len(boxes)) <= OVERLAP).all()


def test_asked_for_phrases_it_gives_each_its_best_box(folder: Path, picture: Path) -> None:
    text, phrases = "a red circle and the star", [[(2, 12)], [(17, 25)]]
    said = predict(Checkpoint.of(folder), picture, text, phrases)
    assert [seen.words for seen in said.seen] == ["red circle", "the star"]
    assert all(0 < seen.score < 1 for seen in said.seen)


def test_the_command_draws_every_checkpoint_beside_the_others(
    folder: Path, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    png = tmp_path / "demo.png"
    main(["demo", str(picture), "the red circle", "--checkpoint", str(folder), str(folder), "--png", str(png)])
    with Image.open(png) as page:
        assert page.width == 660, "two panels"
    assert capsys.readouterr().out.count(folder.name) == 2


def test_words_it_never_saw_and_texts_too_long_are_refused(folder: Path, picture: Path) -> None:
    checkpoint = Checkpoint.of(folder)
    with pytest.raises(InputError, match="no word that the model knows"):
        predict(checkpoint, picture, "xylophone zeppelin")
    with pytest.raises(InputError, match="the model takes 56"):
        predict(checkpoint, picture, "the red circle and " * 20)


def test_a_folder_without_a_model_is_named(picture: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        Checkpoint.of(tmp_path / "nothing")
