"""Bad files end a command with one line that names file and field, exit code 2, and nothing half-written.

Every way an annotation, a checkpoint or an option can be wrong is in test_annotations, test_checkpoint and test_cli
(there also: a result cut in half); here is what reaches the user.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from snp.cli import main
from snp.data.pixels import read_image
from snp.errors import InputError
from snp.experiment.labels import find
from snp.runs.store import Store
from snp.training import stages

ROW = find("scenes/snp@60", "smoke")


@pytest.fixture
def data(smoke_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set of one's own to spoil."""
    root = tmp_path / "data" / "scenes-smoke"
    shutil.copytree(smoke_data / "scenes-smoke", root, ignore=shutil.ignore_patterns("cache"))
    monkeypatch.setenv("SNP_DATA", str(root.parent))
    return root


def assert_one_line(error: str) -> str:
    """The last line of what a command printed, after its progress bar; it is the only one that complains."""
    *before, last = error.replace("\r", "\n").strip().splitlines()
    assert last.startswith("snp: ") and "Traceback" not in error
    assert not [line for line in before if "rror" in line or line.startswith("snp: ")]
    return last


def assert_nothing_half_written(*folders: Path) -> None:
    files = {path for folder in folders for path in folder.rglob("*") if path.is_file()}
    assert not [path for path in files if path.name.startswith(".")]
    for path in files:
        if path.suffix == ".npy":
            np.load(path, mmap_mode="r")  # the whole array is there
    written = {path.name for path in files}
    assert not written & {"result.json", "weights.safetensors", "plan.json", "state.pt"}


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as exit:
        main(list(arguments))
    assert exit.value.code == 2
    return assert_one_line(capsys.readouterr().err)


def spoil(data: Path, change: Callable[[dict], object]) -> None:
    path = data / "annotations" / "finetune_refcoco_train.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def rename(document: dict) -> None:
    document["images"][3]["file_name"] = "train/999999.png"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "field", "problem"),
    [
        (lambda d: d["annotations"].pop(3), "images[3]", "has no boxes"),
        (
            lambda d: d["annotations"][3].update(bbox=[60, 2, 10, 12]),
            "annotations[3].bbox",
            "[60, 2, 10, 12] lies outside its image of 64x64 pixels",
        ),
        (
            lambda d: d["annotations"][3].update(tokens_positive=[[0, 999]]),
            "annotations[3].tokens_positive",
            "span [0, 999] lies outside the caption",
        ),
        (rename, "images[3].file_name", "999999.png not found"),
        (lambda d: d["images"][3].update(caption="star " * 60), "images[3].caption", "tokens, the model takes"),
    ],
)
def test_a_wrong_annotation_ends_training_before_it_begins(
    capsys: pytest.CaptureFixture[str],
    data: Path,
    tmp_path: Path,
    change: Callable[[dict], object],
    field: str,
    problem: str,
) -> None:
    spoil(data, change)
    line = fails(capsys, "pretrain", "--scale", "smoke", "--out", str(tmp_path / "runs"))
    assert f"finetune_refcoco_train.json: {field}: " in line and problem in line
    assert_nothing_half_written(data, tmp_path / "runs")


def test_a_picture_that_is_cut_off_is_named(capsys: pytest.CaptureFixture[str], data: Path, tmp_path: Path) -> None:
    path = data / "images" / "train" / "000005.png"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    line = fails(capsys, "pretrain", "--scale", "smoke", "--out", str(tmp_path / "runs"))
    assert f"{path}: image cannot be read" in line
    assert_nothing_half_written(data, tmp_path / "runs")


def test_a_data_set_whose_description_is_damaged_is_named(
    capsys: pytest.CaptureFixture[str], data: Path, tmp_path: Path
) -> None:
    about = data / "dataset.json"
    whole = json.loads(about.read_text())
    del whole["pixels_sha256"]
    for content, problem in (
        (about.read_text()[:100], ": not valid JSON"),
        (json.dumps(whole), ": pixels_sha256: "),
    ):
        about.write_text(content)
        line = fails(capsys, "pretrain", "--scale", "smoke", "--out", str(tmp_path / "runs"))
        assert f"{about}{problem}" in line


def test_a_png_cut_anywhere_is_refused_or_whole(tmp_path: Path) -> None:
    """Without the last twenty bytes, two checksums and the chunk that says that the file ends, all pixels are there."""
    path = tmp_path / "cut.png"
    pixels = np.random.default_rng(0).integers(0, 256, (12, 12, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    data, refused = path.read_bytes(), 0
    for length in range(len(data)):
        path.write_bytes(data[:length])
        try:
            found = read_image(path, 12)
        except InputError as error:
            assert error.where == str(path) and "\n" not in str(error)
            refused += 1
        else:
            assert np.array_equal(found, pixels.transpose(2, 0, 1))
    assert refused >= len(data) - 20


@pytest.mark.parametrize("spoiled", ["no image", "changed bytes", "endless text", "too many pixels"])
def test_other_damaged_pictures_are_refused_too(spoiled: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, notes = tmp_path / "bad.png", PngInfo()
    if spoiled == "endless text":
        notes.add_text("note", "x" * 2_000_000, zip=True)
    Image.new("RGB", (12, 12)).save(path, pnginfo=notes)
    if spoiled == "no image":
        path.write_text("<html>")
    if spoiled == "changed bytes":
        data = bytearray(path.read_bytes())
        data[19] ^= 255  # of the width
        path.write_bytes(data)
    if spoiled == "too many pixels":
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    with pytest.raises(InputError, match=r"bad\.png: image cannot be read"):
        read_image(path, 12)


def borrowed(smoke_dense: Store, root: Path) -> Store:
    """A copy of the dense run, to spoil."""
    store = Store(root)
    shutil.copytree(smoke_dense.folder(ROW.pretrain), store.folder(ROW.pretrain))
    return store


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            lambda m: m["config"].update(fusion_ffn=48),
            r"weights\.safetensors: \S+: is torch\.float32 \[.*the model needs",
        ),
        (lambda m: m["config"].update(heads=7), r"model\.json: config: .*no multiple of heads=7"),
        (lambda m: m["config"].pop("depth"), r"model\.json: config: depth: Field required"),
        (lambda m: m.pop("vocabulary"), r"model\.json: vocabulary: missing"),
        (lambda m: m.update(vocabulary=None), r"model\.json: vocabulary: is not an array"),
        (lambda m: m.update(config=[1]), r"model\.json: config: is not an object"),
    ],
)
def test_a_checkpoint_of_another_model_is_named(
    smoke_dense: Store, data: Path, tmp_path: Path, change: Callable[[dict], object], problem: str
) -> None:
    store = borrowed(smoke_dense, tmp_path / "runs")
    path = store.folder(ROW.pretrain) / "model.json"
    about = json.loads(path.read_text())
    change(about)
    path.write_text(json.dumps(about))
    with pytest.raises(InputError, match=problem):
        stages.run(ROW.compress(0), store)
    assert_nothing_half_written(store.folder(ROW.compress(0)))


def test_the_real_command_ends_with_code_2_and_one_line_for_an_option(tmp_path: Path) -> None:
    done = snp("run", ROW.label, "--keep", "1.5", "--out", str(tmp_path / "runs"))
    assert done.returncode == 2 and done.stdout == ""
    assert assert_one_line(done.stderr).startswith("snp: --keep: must lie in (0, 1], got 1.5")
    assert done.stderr.count("\n") == 1 and not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_the_real_command_ends_with_code_2_and_one_line_for_a_file_that_a_worker_finds_damaged(
    smoke_dense: Store, data: Path, tmp_path: Path
) -> None:
    store = borrowed(smoke_dense, tmp_path / "runs")
    weights = store.folder(ROW.pretrain) / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    done = snp("run", ROW.label, "--scale", "smoke", "--workers", "1", "--out", str(store.root))
    assert done.returncode == 2
    assert f"{weights}: not a whole safetensors file" in assert_one_line(done.stderr)
    assert {path.name for path in store.folder(ROW.compress(0)).iterdir()} == {"failed.json", "spec.json"}
    assert store.state(ROW.compress(0)) == "failed"


def snp(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "snp", *arguments],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
