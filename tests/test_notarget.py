"""Files of captions without a target: made on first need beside a drawn data set, of which they change nothing."""

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from snp.data import annotations
from snp.data.drawn import build, folder, notarget, scenes
from snp.data.drawn.edits import KINDS
from snp.data.drawn.sketch import sketch
from snp.data.drawn.truth import truth
from snp.errors import InputError

FILES = {"about.json", "pairs_train.json", "train.json", "val.json", "testA.json"}


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set as those are that were made before there were such files."""
    return scenes.make(tmp_path_factory.mktemp("data") / "scenes", 3, train=40, test=60, pretrain_val=1, workers=1)


@pytest.fixture(scope="module")
def root(bare: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = Path(shutil.copytree(bare, tmp_path_factory.mktemp("data") / "scenes"))
    notarget.ready(root)
    return root


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def pairs(root: Path) -> list[dict]:
    return json.loads((root / "no-target/pairs_train.json").read_text())


def test_a_finished_folder_gets_the_files_and_nothing_else_in_it_changes(bare: Path, root: Path) -> None:
    before, now = contents(bare), contents(root)
    assert {name: now[name] for name in before} == before
    assert now.keys() - before.keys() == {f"no-target/{name}" for name in FILES}
    assert folder.data_hash(root) == folder.data_hash(bare) and folder.tasks_hash(root) == folder.tasks_hash(bare)
    assert build.is_made(root) and not (root / folder.LOCK).exists()


def test_they_are_made_once_and_the_same_in_any_folder(bare: Path, root: Path, tmp_path: Path, monkeypatch) -> None:
    other = Path(shutil.copytree(bare, tmp_path / "other"))
    assert notarget.hash_of(other) == notarget.hash_of(root) and contents(other) == contents(root)
    monkeypatch.setattr(notarget, "sketch", lambda *_: pytest.fail("drawn a second time"))
    assert notarget.ready(other) == other / "no-target"


def test_those_of_another_data_set_are_made_anew(root: Path, tmp_path: Path) -> None:
    other = scenes.make(tmp_path / "s", 4, train=3, test=4, pretrain_val=1, workers=1)
    shutil.copytree(root / "no-target", other / "no-target")
    before = notarget.hash_of(root)
    assert notarget.hash_of(other) != before and len(pairs(other)) <= 3


def test_they_are_taken_away_with_the_data_set(root: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(root, tmp_path / "other"))
    folder.clear(other)
    assert list(contents(other)) == [folder.MARK]


def test_pictures_that_would_be_drawn_otherwise_today_are_told(bare: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(bare, tmp_path / "other"))
    about = json.loads((other / "dataset.json").read_text())
    about["pixels_sha256"]["val"] = "0" * 64
    (other / "dataset.json").write_text(json.dumps(about))
    with pytest.raises(InputError, match="its pictures of val would be drawn otherwise today"):
        notarget.ready(other)
    assert not (other / "no-target/about.json").exists()


def test_captions_have_no_box_and_fit_nothing_in_the_picture_that_they_name(root: Path) -> None:
    kinds = {}
    for split in notarget.SPLITS:
        entries = notarget.read(root, split)
        kinds[split] = Counter(entry.type for entry in entries)
        for entry in entries:
            assert entry.boxes == entry.spans == () and entry.difficulty in ("hard", "easy")
            assert entry.file_name == f"{split}/{entry.original_id:06d}.png"
            items = sketch(scenes.Scenes(), 3, split, int(entry.original_id)).scene.items
            assert truth(entry.caption, items) == "none"
    assert {*KINDS} > set(kinds["train"]) > {"attribute", "noun"} and "landmark" not in kinds["train"]
    assert "landmark" in kinds["val"] + kinds["testA"], "which is kept from training alone"
    assert sum(kinds["val"].values()) == sum(kinds["testA"].values()) == 15, "one a picture"


def test_pairs_are_of_training_pictures_with_the_expression_and_the_box_of_its_target(root: Path) -> None:
    told = {e.file_name: e for e in annotations.read(root / "annotations/finetune_refcoco_train.json")}
    found, captions = pairs(root), notarget.read(root, "train")
    assert len(found) > 30 and [pair["id"] for pair in found] == list(range(len(found)))
    for pair, entry in zip(found, captions, strict=True):
        source = told[pair["file_name"]]
        assert (pair["source"], [tuple(pair["box"])]) == (source.caption, [*source.boxes])
        assert (pair["caption"], pair["edit"], pair["file_name"]) == (entry.caption, entry.type, entry.file_name)
        assert pair["hard"] == (entry.difficulty == "hard") and pair["caption"] != pair["source"]


def test_only_the_first_pictures_of_training_give_captions(bare: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(notarget, "MOST", 5)
    other = Path(shutil.copytree(bare, tmp_path / "other"))
    notarget.ready(other)
    assert len(pairs(other)) == 5 and max(pair["file_name"] for pair in pairs(other)) < "train/000010.png"


@pytest.mark.parametrize("name", ["val.json", "pairs_train.json"])
def test_a_file_that_is_gone_or_was_changed_is_made_anew(name: str, root: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(root, tmp_path / "scenes"))
    path = other / "no-target" / name
    whole = path.read_bytes()
    for damage in (path.unlink, lambda: path.write_bytes(whole.replace(b"the", b"tha", 1))):
        damage()
        notarget.ready(other)
        assert path.read_bytes() == whole
