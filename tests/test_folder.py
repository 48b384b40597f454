"""Folders that data sets are made in: what was not made here is never touched, and one process at a time makes them."""

import json
import shutil
import subprocess
import sys
from multiprocessing.context import BaseContext
from pathlib import Path

import pytest

from snp.cli import main
from snp.data.dataset import GroundingSet
from snp.data.decoded import pixels_below
from snp.data.drawn import build, folder, pictures, scenes
from snp.data.sources.images import naming
from snp.errors import InputError
from snp.training import prepare

SMALL = {"train": 2, "test": 4, "pretrain_val": 1, "workers": 1}
MINE = {
    "images/me.png": b"mine",
    "images/train/me.png": b"mine",
    "images/train/1.png": b"mine",
    "cache/mine.npy": b"mine",
    "annotations/mine_train.json": b"{}",
    "flickr30k/Sentences/notes.txt": b"mine",
    "notes.txt": b"mine",
}
"""Files of a user, some of them named much like those that are made."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scenes.make(tmp_path_factory.mktemp("data") / "scenes", 3, **SMALL)


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    """A data set of one's own."""
    return Path(shutil.copytree(made, tmp_path / "scenes"))


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def put(root: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as exit:
        main(list(arguments))
    assert exit.value.code == 2
    return capsys.readouterr().err


# -- what was not made here ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*MINE, "dataset.json", "gqa/val_balanced_questions.json", ".hidden"])
@pytest.mark.parametrize("action", ["show", "make"])
def test_a_folder_that_holds_anything_else_is_refused_and_left_as_it_was(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str, action: str
) -> None:
    put(tmp_path / "mine", {name: b"[]"})
    line = fails(capsys, "data", action, "scenes", "--scale", "smoke", "--root", str(tmp_path / "mine"))
    assert str(tmp_path / "mine") in line and name.split("/")[0] in line
    assert contents(tmp_path / "mine") == {name: b"[]"} and not list(tmp_path.glob("*.png"))


def test_a_published_benchmark_is_no_place_to_draw_in(tmp_path: Path) -> None:
    put(tmp_path, {"annotations/instances_val2017.json": b"{}", "train2017/000000000009.jpg": b"jpeg"})
    before = contents(tmp_path)
    with pytest.raises(InputError, match="holds annotations, and holds no data set that was made by snp"):
        scenes.make(tmp_path, 0, **SMALL)
    assert contents(tmp_path) == before


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="file: is no folder"):
        scenes.make(tmp_path / "file", 0, **SMALL)
    assert (tmp_path / "file").read_text() == "mine"


def test_files_of_a_user_in_a_data_set_outlive_its_making_anew(root: Path) -> None:
    put(root, MINE)
    scenes.make(root, 4, **SMALL)
    now = contents(root)
    assert {name: now[name] for name in MINE} == MINE
    assert now["dataset.json"] and build.is_made(root)


def test_a_users_annotations_beside_those_that_were_made_are_not_read(root: Path, monkeypatch) -> None:
    before = prepare.vocabulary(root)
    shutil.rmtree(root / "cache")
    shutil.copy(root / "annotations/final_mixed_val.json", root / "annotations/mine_train.json")
    assert prepare.vocabulary(root) == before


@pytest.mark.parametrize("name", ["images", "images/train", "gqa", "flickr30k/Sentences"])
def test_a_link_in_the_place_of_a_folder_is_not_followed(root: Path, tmp_path: Path, name: str) -> None:
    other = tmp_path / "other"
    (root / name).rename(other)
    (root / name).symlink_to(other)
    before = contents(other)
    with pytest.raises(InputError, match=f"{name}: is a link"):
        scenes.make(root, 4, **SMALL)
    assert contents(other) == before


# -- what was ------------------------------------------------------------------------------------------------------


def test_all_that_is_made_is_known_and_taken_away_whole(root: Path) -> None:
    words = prepare.vocabulary(root)
    GroundingSet.read(root, "final_mixed_train", pixels_below(root / "images", 64, root / "cache"), words, 77)
    assert len(list((root / "cache").iterdir())) == 3
    folder.clear(root)
    assert list(contents(root)) == [folder.MARK]


def test_the_mark_is_there_before_anything_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def stop(*_: object) -> None:
        seen.extend(path.name for path in (tmp_path / "s").iterdir())
        raise KeyboardInterrupt

    monkeypatch.setattr(build, "_draw", stop)
    with pytest.raises(KeyboardInterrupt):
        scenes.make(tmp_path / "s", 0, **SMALL)
    assert sorted(seen) == sorted([folder.MARK, folder.LOCK])
    assert [path.name for path in (tmp_path / "s").iterdir()] == [folder.MARK]


def test_one_that_was_interrupted_is_made_again(root: Path, made: Path) -> None:
    (root / "dataset.json").unlink()
    shutil.rmtree(root / "coco")
    (root / "images/train/000001.png").write_bytes(b"cut")
    assert not build.is_made(root)
    assert contents(scenes.make(root, 3, **SMALL)) == contents(made)


def test_one_of_the_time_before_the_mark_is_told_by_its_description_and_made_anew(root: Path, made: Path) -> None:
    (root / folder.MARK).unlink()
    about = json.loads((root / "dataset.json").read_text())
    del about["tasks_version"]
    (root / "dataset.json").write_text(json.dumps(about))
    assert folder.ours(root) and not build.is_made(root), "a box of its Flickr30k files ends a pixel early"
    assert contents(scenes.make(root, 3, **SMALL)) == contents(made)


@pytest.mark.parametrize("content", ["[]", "{}", "3", '{"images": []}', "not json"])
def test_a_file_called_dataset_json_of_others_describes_no_data_set_of_ours(tmp_path: Path, content: str) -> None:
    (tmp_path / "dataset.json").write_text(content)
    (tmp_path / "flickr30k").mkdir()
    assert not folder.ours(tmp_path)
    assert naming(tmp_path / "flickr30k")("36979") == "36979.jpg" != pictures.file_name("36979")


# -- one process at a time -----------------------------------------------------------------------------------------


def make(root: Path) -> None:
    scenes.make(root, 3, **SMALL)


@pytest.mark.slow
def test_several_processes_that_want_fresh_data_make_them_once(
    processes: BaseContext, made: Path, tmp_path: Path
) -> None:
    several = [processes.Process(target=make, args=(tmp_path / "scenes",)) for _ in range(3)]
    for process in several:
        process.start()
    for process in several:
        process.join()
    assert [process.exitcode for process in several] == [0, 0, 0]
    assert contents(tmp_path / "scenes") == contents(made)


@pytest.mark.slow
def test_one_that_waits_takes_what_the_other_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "scenes"
    code = (
        "import sys, time; from pathlib import Path; from snp.data.drawn import build, scenes\n"
        "draw = build._draw\n"
        "def slowly(*a): print('drawing', flush=True); time.sleep(2); draw(*a)\n"
        f"build._draw = slowly; scenes.make(Path({str(root)!r}), 3, **{SMALL})"
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert other.stdout is not None and other.stdout.readline() == "drawing\n"
    monkeypatch.setattr(build, "_draw", lambda *_: pytest.fail("made a second time"))
    scenes.make(root, 3, **SMALL)
    assert other.wait() == 0 and build.is_made(root)
    assert f"{root} is being made" in capsys.readouterr().err


def test_one_that_waits_for_another_data_set_makes_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = scenes.make(tmp_path / "scenes", 3, **SMALL)
    monkeypatch.setattr(folder, "making", _waited)
    scenes.make(root, 4, **SMALL)
    assert json.loads((root / "dataset.json").read_text())["seed"] == 4


class _waited:
    """As `folder.making` of a process that had to wait."""

    def __init__(self, root: Path) -> None:
        pass

    def __enter__(self) -> bool:
        return True

    def __exit__(self, *_: object) -> None:
        pass


# -- the command ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_data_set_that_is_there_is_shown_and_nothing_in_it_changes(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(root, MINE)
    before = contents(root)
    main(["data", "show", "scenes", "--root", str(root), "--png", str(tmp_path / "page.png")])
    assert contents(root) == before and (tmp_path / "page.png").exists()


def test_another_data_set_than_the_one_that_is_asked_for_is_named(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(root)
    line = fails(capsys, "data", "show", "stamps", "--root", str(root), "--png", str(tmp_path / "page.png"))
    assert f"{root}: holds the data set scenes (choose another folder for stamps)" in line
    assert contents(root) == before and not (tmp_path / "page.png").exists()


def test_a_vocabulary_that_was_kept_and_is_damaged_is_worked_out_again(root: Path) -> None:
    whole = prepare.vocabulary(root)
    (kept,) = (root / "cache").iterdir()
    for content in ("", "[", "{}", '["a"]', "[1.5]", "[true]", "[-1]"):
        kept.write_text(content)
        assert prepare.vocabulary(root) == whole
    assert [path.name for path in (root / "cache").iterdir()] == [kept.name]


def test_what_stands_where_the_lock_shall_be_is_left_alone(root: Path, tmp_path: Path) -> None:
    (root / folder.ABOUT).unlink()  # so that it is to be made again
    mine, lock = tmp_path / "mine.txt", root / folder.LOCK
    mine.write_bytes(b"mine")
    lock.symlink_to(mine)
    with pytest.raises(InputError, match="was not made by snp"):
        scenes.make(root, 3, **SMALL)
    lock.unlink()
    lock.write_bytes(b"mine")
    with pytest.raises(InputError, match="was not made by snp"):
        scenes.make(root, 3, **SMALL)
    assert mine.read_bytes() == lock.read_bytes() == b"mine"


def test_a_page_that_nobody_named_takes_the_place_of_no_picture(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, command in {
        "scenes.png": ["data", "show", "scenes", "--root", str(made)],
        "figure1.png": ["figure", "figure1"],
        "scaling.png": ["figure", "scaling"],
        "demo.png": ["demo", str(next((made / "images").rglob("*.png"))), "the dog"],
        "predictions.png": ["predictions"],
    }.items():
        (tmp_path / name).write_bytes(b"mine")
        with pytest.raises(SystemExit) as ended:
            main(command)
        assert ended.value.code == 2 and f"{name}: is there already" in capsys.readouterr().err
        assert (tmp_path / name).read_bytes() == b"mine"
