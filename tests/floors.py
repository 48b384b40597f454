"""What rooms of the code use of one another, by their imports, and its drawing: `python tests/floors.py` makes it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from snp import drawing

HERE = Path(__file__).parents[1]
PAGE = HERE / "docs" / "architecture.md"
DRAWING = HERE / "docs" / "architecture.png"
FILES = [path for path in [*HERE.glob("snp/**/*.py"), *HERE.glob("baselines/*.py")] if path != HERE / "snp/__init__.py"]
ROOMS = re.findall(r"^\| (\d+) \| ([^|]+) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
FLOORS = {
    name.removesuffix(".py").replace("/", "."): int(floor)
    for floor, names in ROOMS
    for name in re.findall(r"`([^`]+)`", names)
}
GROUND = {name for name, floor in FLOORS.items() if floor == 0}
WIDE, HIGH, GAP = 2.2, 0.55, 0.5
Point = tuple[float, float]


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


def drawn() -> dict[str, set[str]]:
    """Room -> the rooms that it uses and that none of the others it uses does: what is left, all others follow from."""
    uses: dict[str, set[str]] = {name: set() for name in FLOORS.keys() - GROUND}
    for own, other, _ in arrows():
        if not {own, other} & GROUND:
            uses[own].add(other)

    def below(name: str) -> set[str]:
        return uses[name].union(*map(below, uses[name]))

    return {name: found - set().union(*map(below, found)) for name, found in uses.items()}


def ends(start: Point, end: Point) -> dict[str, Any]:
    """Where an arrow begins and ends: below and above boxes, or at their sides where others stand between."""
    (x, y), (to_x, to_y) = start, end
    if y - to_y < 1.5 * (HIGH + GAP):
        return {"posA": (x, y - HIGH / 2), "posB": (to_x, to_y + HIGH / 2)}
    if x == to_x:
        side = WIDE / 2
        return {"posA": (x + side, y), "posB": (x + side, to_y), "connectionstyle": "arc3,rad=-0.45"}
    side = WIDE / 2 if x > to_x else -WIDE / 2
    return {"posA": (x, y - HIGH / 2), "posB": (to_x + side, to_y), "connectionstyle": "arc3,rad=0"}


def draw(path: Path = DRAWING) -> None:
    """The rooms on their floors, and an arrow to each that `drawn` has; what all stand on is left out."""
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

    levels: dict[int, list[str]] = {}
    for name in sorted(FLOORS.keys() - GROUND, key=lambda name: (FLOORS[name], name)):
        levels.setdefault(FLOORS[name], []).append(name)
    place = {
        name: ((k - (len(names) - 1) / 2) * (WIDE + 0.6), floor * (HIGH + GAP))
        for floor, names in levels.items()
        for k, name in enumerate(names)
    }
    with drawing.picture(path, (7, 7.5), dpi=120) as figure:
        axes = figure.subplots()
        for name, others in sorted(drawn().items()):
            for other in sorted(others):
                arrow = {"arrowstyle": "-|>", "mutation_scale": 9, "color": drawing.GREY, "linewidth": 0.9}
                axes.add_patch(FancyArrowPatch(**ends(place[name], place[other]), shrinkA=0, shrinkB=0, **arrow))
        for name, (x, y) in place.items():
            box = (x - WIDE / 2, y - HIGH / 2)
            face = "#e8f1f8" if name.startswith("snp") else "#fdf1e3"
            axes.add_patch(
                FancyBboxPatch(box, WIDE, HIGH, "round,pad=0.02", facecolor=face, edgecolor=drawing.INK, zorder=2)
            )
            label = name.replace("snp.", "snp/").replace("__main__", "__main__.py")
            axes.text(x, y, label, ha="center", va="center", size=9, zorder=3)
        axes.set_axis_off()
        axes.set_aspect("equal")
        axes.autoscale_view()


if __name__ == "__main__":
    draw()
