"""Pictures: the same bytes whatever their user has set for matplotlib, in every place that draws."""

import ast
import hashlib
import json
import os
import platform
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from snp.cli import main

HERE = Path(__file__).parents[1]
ALL_PICTURES = """
import sys, json, hashlib
from pathlib import Path
from snp.data.show import sample_page
from snp.demo.page import Panel, Truth, draw
from snp.demo.predict import Prediction, Seen
from snp.runs.store import Store
from snp.report import figures, method, scaling

made, data = Path(sys.argv[1]), Path(sys.argv[2])
photo = min((data / "images").rglob("*.png"))
said = Prediction([Seen((0.1, 0.1, 0.5, 0.6), 0.9, "a $red$ star"), Seen((0.2, 0.3, 0.9, 0.9), 0.5, "")], "yes")
drawn = [
    sample_page(data, made / "samples.png", n=4),
    draw([Panel("dense", photo, "a $red$ star", said, Truth([((0.1, 0.1, 0.5, 0.5), "")])),
          Panel("snp", photo, "a star", said)], made / "demo.png"),
    scaling.figure(scaling.MEASURED, made / "scaling.png"),
    method.picture(made / "method.png"),
    figures.figure("figure1", Store.at("desk"), "desk", "scenes", made / "figure1.png"),
    figures.figure("tickets", Store.at("desk"), "desk", "scenes", made / "tickets.png"),
]
print(json.dumps({path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in drawn}))
"""
LOUD = """\
backend: svg
font.size: 30
font.family: monospace
lines.linewidth: 9
lines.antialiased: False
axes.facecolor: yellow
axes.prop_cycle: cycler('color', ['red'])
axes.grid: True
figure.dpi: 33
figure.constrained_layout.w_pad: 0.5
savefig.dpi: 33
savefig.bbox: tight
savefig.transparent: True
text.antialiased: False
image.interpolation: bilinear
legend.loc: center
path.sketch: 5, 5, 5
nonsense: 3
"""


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, smoke_data: Path) -> dict[str, str]:
    return drawn(tmp_path_factory.mktemp("plain"), smoke_data)


def drawn(folder: Path, data: Path, **environment: str) -> dict[str, str]:
    """The hash of every picture of the project, drawn in `folder`, which may have a matplotlibrc of its own."""
    given = {name: value for name, value in os.environ.items() if name not in ("MATPLOTLIBRC", "MPLBACKEND")}
    given |= {"PYTHONPATH": str(HERE), "SNP_DATA": str(data)} | environment
    command = [sys.executable, "-c", ALL_PICTURES, str(folder), str(data / "scenes-smoke")]
    done = subprocess.run(command, cwd=folder, env=given, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_no_file_of_settings_and_no_backend_changes_a_byte(
    plain: dict[str, str], tmp_path: Path, smoke_data: Path
) -> None:
    assert len(set(plain.values())) == 6
    (tmp_path / "matplotlibrc").write_text(LOUD, encoding="utf-8")  # in the working folder it comes before all others
    assert drawn(tmp_path, smoke_data, MPLBACKEND="pdf") == plain


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="another processor may round a line otherwise")
def test_the_figures_in_the_repository_are_what_the_commands_draw(plain: dict[str, str]) -> None:
    for name in ("figure1.png", "tickets.png", "scaling.png"):
        committed = (HERE / "results" / "figures" / name).read_bytes()
        assert hashlib.sha256(committed).hexdigest() == plain[name], f"run `snp figure {name[:-4]}`"


def test_a_style_of_the_process_is_left_alone_and_as_it_was(tmp_path: Path) -> None:
    import matplotlib
    from matplotlib import rc_context

    from snp.drawing import picture

    pages = []
    for size in (10.0, 44.0):
        with rc_context({"font.size": size}):
            with picture(tmp_path / "page.png", (2, 2)) as figure:
                figure.subplots().set_title("a title")
            assert matplotlib.rcParams["font.size"] == size
        pages.append((tmp_path / "page.png").read_bytes())
    assert pages[0] == pages[1]


def test_names_of_lines_that_end_together_stand_beside_them_in_their_order_and_none_over_another(
    tmp_path: Path,
) -> None:
    from matplotlib.text import Text

    from snp.drawing import End, label, picture

    heights = [70.0, 70.1, 70.2, 20.0, 70.1]
    with picture(tmp_path / "page.png", (4, 3)) as figure:
        axes = figure.subplots()
        axes.set(xlim=(0, 1), ylim=(0, 100))
        label(axes, [End(1.0, height, str(number)) for number, height in enumerate(heights)])
        figure.draw_without_rendering()
        boxes = {text.get_text(): Text.get_window_extent(text) for text in axes.texts}  # without its line
        right = axes.get_window_extent().x1
    order = [boxes[name] for name in "30142"]
    assert all(low.y1 < high.y0 for low, high in pairwise(order))
    assert all(right < box.x0 < box.x1 < 400 for box in order)


def test_what_is_spread_moves_no_more_than_it_must() -> None:
    from snp.drawing import spread

    assert spread([1.0, 5.0, 5.0, 9.0], 2.0) == pytest.approx([1.0, 4.0, 6.0, 9.0])


def test_the_style_names_the_colours_that_code_names() -> None:
    from matplotlib import rcParams

    from snp import drawing

    with drawing.style():
        cycle = rcParams["axes.prop_cycle"].by_key()["color"]
    assert [color.lower() for color in cycle] == [*drawing.COLORS]


@pytest.mark.slow
@pytest.mark.parametrize("words", [("figure", "figure1"), ("data", "show", "scenes", "--scale", "smoke")])
def test_a_backend_that_does_not_exist_is_one_line(words: tuple[str, ...], smoke_data: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "snp", *words, "--png", str(tmp_path / "page.png")]
    environment = os.environ | {"PYTHONPATH": str(HERE), "MPLBACKEND": "paper", "SNP_DATA": str(smoke_data)}
    done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("snp: matplotlib: does not start: ") and "unset MPLBACKEND" in done.stderr


@pytest.mark.slow
def test_a_page_that_cannot_be_written_leaves_nothing_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit:
        main(["figure", "figure1", "--png", str(tmp_path)])
    assert exit.value.code == 2
    hint = "a folder is where a file should be: give another name"
    assert capsys.readouterr().err == f"snp: {tmp_path}: Is a directory ({hint})\n"
    assert not any(tmp_path.iterdir()) and not list(tmp_path.parent.glob(f".{tmp_path.name}.*"))


def test_only_one_file_makes_figures() -> None:
    """All others draw on what it gives them, and so in its style."""
    makers = {"savefig", "rc_context", "rcParams", "pyplot", "Figure"}
    for path in [*(HERE / "snp").rglob("*.py"), *(HERE / "baselines").rglob("*.py")]:
        tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        used = {getattr(node, "attr", getattr(node, "id", "")) for node in tree if isinstance(node, ast.expr)}
        assert path.name == "drawing.py" or not used & makers, path
