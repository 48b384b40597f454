"""Imports go down: every room of the architecture page uses floors below its own, and nothing else."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parents[1]
FLOORS = {
    room.removesuffix(".py").replace("/", "."): int(floor)
    for floor, rooms in re.findall(
        r"^\| (\d+) \| ([^|]+) \|", (HERE / "docs" / "architecture.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    for room in re.findall(r"`([^`]+)`", rooms)
}
METHODS = ("snp.compression", "snp.sharing", "baselines")
FILES = [path for path in [*HERE.glob("snp/**/*.py"), *HERE.glob("baselines/*.py")] if path != HERE / "snp/__init__.py"]


def module(path: Path) -> str:
    return ".".join(path.relative_to(HERE).with_suffix("").parts).removesuffix(".__init__")


def room(name: str) -> str:
    """The room of a module."""
    parts = name.split(".")
    return parts[0] if parts[0] == "baselines" else ".".join(parts[:2])


def imported(path: Path) -> Iterator[str]:
    """The modules of this project that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "snp":
            yield from (f"snp.{name.name}" for name in node.names if not name.name.startswith("__"))
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "import_module":
            yield from (one.value for one in node.args if isinstance(one, ast.Constant))


def arrows() -> Iterator[tuple[str, str, str]]:
    """Room, the room it uses, and the file that does."""
    for path in FILES:
        for name in imported(path):
            if name.split(".")[0] in ("snp", "baselines") and room(name) != (own := room(module(path))):
                yield own, room(name), str(path.relative_to(HERE))


def test_every_room_is_on_a_floor_of_the_architecture_page() -> None:
    assert {room(module(path)) for path in FILES} == FLOORS.keys()


def test_no_arrow_goes_up_or_aside() -> None:
    ground = {name for name, floor in FLOORS.items() if floor == 0}
    wrong = [
        f"{file}: {own} (floor {FLOORS[own]}) uses {other} (floor {FLOORS[other]})"
        for own, other, file in arrows()
        if FLOORS[other] >= FLOORS[own] and not {own, other} <= ground
    ]
    assert not wrong


def test_methods_know_nothing_of_processes_that_train_together_or_of_pictures() -> None:
    used = {other for own, other, _ in arrows() if own in METHODS}
    assert used <= {*METHODS, "snp.errors", "snp.files"}


@pytest.mark.slow
@pytest.mark.parametrize("package", ["snp.experiment", "snp.runs", "snp.report"])
def test_what_declares_and_what_reports_never_loads_torch(package: str) -> None:
    names = [module(path) for path in FILES if room(module(path)) == package]
    code = f"import sys, {', '.join(names)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=HERE, check=False).returncode == 0
