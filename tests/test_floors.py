"""Imports go down: every room of the architecture page uses floors below its own, and nothing else."""

import subprocess
import sys
from pathlib import Path

import pytest
from floors import DRAWING, FILES, FLOORS, GROUND, HERE, arrows, draw, module, room

METHODS = ("snp.compression", "snp.sharing", "baselines")
LONGEST = 300


def test_every_room_is_on_a_floor_of_the_architecture_page() -> None:
    assert {room(module(path)) for path in FILES} == FLOORS.keys()


def test_no_arrow_goes_up_or_aside() -> None:
    wrong = [
        f"{file}: {own} (floor {FLOORS[own]}) uses {other} (floor {FLOORS[other]})"
        for own, other, file in arrows()
        if FLOORS[other] >= FLOORS[own] and not {own, other} <= GROUND
    ]
    assert not wrong


def test_the_drawing_on_the_architecture_page_is_of_these_imports(tmp_path: Path) -> None:
    draw(tmp_path / "now.png")
    assert (tmp_path / "now.png").read_bytes() == DRAWING.read_bytes(), "draw it anew: python tests/floors.py"


def test_no_file_is_longer_than_a_reader_can_hold() -> None:
    assert not {path.name: n for path in FILES if (n := path.read_text(encoding="utf-8").count("\n")) > LONGEST}


def test_methods_know_nothing_of_processes_that_train_together_or_of_pictures() -> None:
    used = {other for own, other, _ in arrows() if own in METHODS}
    assert used <= {*METHODS, "snp.errors", "snp.files", "snp.terminal"}


@pytest.mark.slow
@pytest.mark.parametrize("package", ["snp.experiment", "snp.runs", "snp.report"])
def test_what_declares_and_what_reports_never_loads_torch(package: str) -> None:
    names = [module(path) for path in FILES if room(module(path)) == package]
    code = f"import sys, {', '.join(names)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=HERE, check=False).returncode == 0
