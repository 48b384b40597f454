"""The picture of the method: two towers of weight vectors, what is shared, what is pruned, and what decides it."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from snp import drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OWN, CROSS, BLOCK, PRUNED, INK = drawing.BLUE, drawing.RED, drawing.ORANGE, "#ffffff", drawing.INK
VISION, TEXT = "#DCE6F1", "#F3F3F3"
LAYERS = ("base layer", "layer", "base layer", "layer")
"""Of the text tower, from below: blocks of two."""


class Unit(NamedTuple):
    """One place in both towers: what becomes of its vector in each."""

    vision: str
    text: str


o, c, b, p = Unit(OWN, OWN), Unit(OWN, CROSS), Unit(OWN, BLOCK), Unit(PRUNED, PRUNED)
UNITS = ((c, o, p, o, c, o), (c, b, p, p, o, b), (o, p, c, o, c, o), (b, c, p, b, p, o))
"""An example, no result: layers from below, in each six places; only layers above a base take from it."""
SIDE, WIDE, HIGH = 0.42, 3.4, 1.0


def picture(path: str | Path) -> Path:
    """Draw the method as PNG. A picture of the idea: no figure in it is measured."""
    with drawing.picture(path, (10, 4.6), dpi=150) as canvas:
        axes = canvas.subplots()
        axes.set(xlim=(-0.2, 12.6), ylim=(-1.35, 5.5), aspect="equal")
        axes.axis("off")
        _tower(axes, 0.4, "vision tower", VISION, [[unit.vision for unit in layer] for layer in UNITS])
        _tower(axes, 8.8, "text tower", TEXT, [[unit.text for unit in layer] for layer in UNITS])
        _hypernetwork(axes)
        for layer, units in enumerate(UNITS):
            for place, unit in enumerate(units):
                if unit.text == BLOCK:
                    _arrow(axes, _at(8.8, layer - 1, place, 0.5), _at(8.8, layer, place, -0.5), BLOCK)
        _arrow(axes, (3.95, 0.5), (8.65, 0.5), CROSS)
        said = "cross-modal: the vector of the same layer and place"
        axes.text(6.3, 0.62, said, color=CROSS, ha="center", fontsize=8)
        _legend(axes)
    return Path(path)


def _at(left: float, layer: int, place: int, edge: float = 0) -> tuple[float, float]:
    """The middle of a vector; `edge` halves of its side above it."""
    return left + 0.45 + place * 0.5, 0.5 + layer * 1.1 + edge * SIDE


def _box(axes: "Axes", left: float, low: float, wide: float, high: float, face: str, edge: str = INK) -> None:
    from matplotlib.patches import FancyBboxPatch

    form = "round,pad=0,rounding_size=0.1"
    box = FancyBboxPatch((left, low), wide, high, boxstyle=form, linewidth=0.8, facecolor=face, edgecolor=edge)
    axes.add_patch(box)


def _arrow(axes: "Axes", start: tuple[float, float], end: tuple[float, float], colour: str) -> None:
    arrow = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.6, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", xy=end, xytext=start, arrowprops=arrow)


def _vector(axes: "Axes", middle: tuple[float, float], colour: str) -> None:
    from matplotlib.patches import Rectangle

    corner = (middle[0] - SIDE / 2, middle[1] - SIDE / 2)
    gone = colour == PRUNED
    style, edge = (":", "#999999") if gone else ("-", INK)
    axes.add_patch(Rectangle(corner, SIDE, SIDE, facecolor=colour, linewidth=0.8, linestyle=style, edgecolor=edge))


def _tower(axes: "Axes", left: float, name: str, face: str, layers: list[list[str]]) -> None:
    for layer, colours in enumerate(layers):
        _box(axes, left, _at(left, layer, 0)[1] - HIGH / 2 + 0.05, WIDE, HIGH - 0.1, face)
        for place, colour in enumerate(colours):
            _vector(axes, _at(left, layer, place), colour)
        if name == "text tower":
            axes.text(left + WIDE + 0.1, _at(left, layer, 0)[1], LAYERS[layer], va="center", fontsize=7, color=INK)
    axes.text(left + WIDE / 2, 4.75, name, ha="center", fontsize=11, color=INK)


def _hypernetwork(axes: "Axes") -> None:
    _box(axes, 4.95, 2.15, 2.7, 1.9, "#E9E4F0")
    axes.text(6.3, 3.55, "hypernetwork", ha="center", fontsize=11, color=INK)
    said = "one network decides all vectors\nof all layers of both towers;\ntrained in turn with the weights"
    axes.text(6.3, 2.8, said, ha="center", va="center", fontsize=7.5, color=INK)
    _arrow(axes, (4.95, 3.1), (3.95, 3.1), INK)
    _arrow(axes, (7.65, 3.1), (8.65, 3.1), INK)


def _legend(axes: "Axes") -> None:
    meanings = {
        OWN: "own: stored",
        CROSS: "taken from the vision tower:\nstored once",
        BLOCK: "taken from the block's base\nlayer: stored once",
        PRUNED: "pruned in both towers:\ncut out",
    }
    for place, (colour, meaning) in enumerate(meanings.items()):
        left = 0.6 + (0.0, 2.3, 5.7, 9.0)[place]
        _vector(axes, (left, -0.85), colour)
        axes.text(left + 0.4, -0.85, meaning, va="center", fontsize=8, color=INK)
