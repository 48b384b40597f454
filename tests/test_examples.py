"""The scripts of examples/ run as they stand, and say what they are said to."""

import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from snp.runs.store import Store

EXAMPLES = Path(__file__).parents[1] / "examples"
Run = Callable[..., str]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """What a script says when Python is given it with these arguments."""

    def said(name: str, *arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return said


@pytest.mark.slow
def test_three_ways_to_compress_a_model(run: Run) -> None:
    structured, masked, joint, _ = run("compress_a_model.py").splitlines()
    assert "stores  70%" in structured and structured.endswith("0% are zero, 0 shares")
    assert "stores 100%" in masked and not masked.endswith("  0% are zero, 0 shares")
    assert "stores  70%" in joint and not joint.endswith(" 0 shares")


@pytest.mark.slow
def test_a_model_that_is_recovered_is_right_about_as_often_as_the_dense_one(run: Run) -> None:
    lines = run("recover_a_model.py").splitlines()
    parameters, right = zip(
        *([int(n) for n in re.findall(r"(\d+) parameters, +(\d+)%", line)[0]] for line in lines), strict=True
    )
    assert parameters[0] * 0.2 > parameters[1] - 100 and len(set(parameters[1:])) == 1
    assert right[1] < right[0] - 8 and all(after > right[0] - 5 for after in right[2:])


def test_what_is_loaded_is_what_was_saved_and_smaller(run: Run, tmp_path: Path) -> None:
    saved, loaded, *sizes, size = run("save_and_load.py", tmp_path / "model").splitlines()
    assert saved == loaded
    numbers = [[int(number) for number in re.findall(r"\d+", line)] for line in sizes]
    assert [after / before for before, after in zip(*numbers, strict=True)] == pytest.approx([0.5, 0.45, 0.5], abs=0.05)
    assert int(size.split()[0]) < 4.2 * numbers[1][0]


@pytest.mark.slow
def test_examples_need_no_argument(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run("read_results.py")
    assert (tmp_path / "loss.png").exists()
    assert "is what it says" in run("save_and_load.py")
    assert "--plugin examples/own_method.py" in run("own_method.py")


def test_results_are_read_and_plotted(run: Run, tmp_path: Path) -> None:
    shown = run("read_results.py", tmp_path / "loss.png")
    ours = re.search(r"scenes/cross-modal@60 +shared +(\S+)", shown)
    text = (EXAMPLES.parent / "README.md").read_text(encoding="utf-8")
    readme = re.search(r"^\| cross-modal +\|[^|]*\| (\S+)", text, re.MULTILINE)
    assert ours and readme and ours[1] == readme[1]
    assert "scenes/snp@60        joint  " in shown and "dense@100" not in shown
    with Image.open(tmp_path / "loss.png") as picture:
        assert picture.width == 700


@pytest.mark.slow
def test_a_method_in_a_file_is_trained_and_shown(
    smoke_dense: Store, smoke_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SNP_DATA", str(smoke_data))
    out = shutil.copytree(smoke_dense.root, tmp_path / "runs")  # with its dense model, which takes longest
    text = (EXAMPLES / "own_method.py").read_text(encoding="utf-8").replace("FOLDER", str(out))
    for line in re.findall("^snp (.*)$", text, re.MULTILINE):
        command = [sys.executable, "-m", "snp", *shlex.split(line)]
        done = subprocess.run(command, cwd=EXAMPLES.parent, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert re.search(r"keep-middle.* structured", done.stdout)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_public_models_go_all_the_way(run: Run) -> None:
    said = run("public_models.py")
    assert re.findall(r"^(\S+): ", said, re.MULTILINE) == ["clip", "siglip", "blip", "grounding-dino", "vit"]
    assert said.count("80% of the parameters, loaded the same: True") == 5
    assert all(float(apart) < 1e-5 for apart in re.findall(r"exported: (\S+) apart", said))
    assert said.count("apart") == 5
