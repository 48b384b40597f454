"""How every picture is drawn: one style of the project's own, whatever matplotlibrc, style or backend a user has."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from snp.errors import InputError
from snp.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLE = Path(__file__).with_name("snp.mplstyle")
"""What differs from matplotlib's own defaults."""
BLUE, RED, GREEN, PINK, ORANGE, SKY, BLACK = COLORS = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000",
)  # fmt: skip
"""The colours of Okabe and Ito, as the style has them in turn."""
INK, GREY = "#333333", "#888888"
KINDS = {
    "joint": (BLUE, "o"),
    "structured": (RED, "s"),
    "shared": (GREEN, "^"),
    "unstructured": (PINK, "X"),
    "dense": (GREY, "D"),
    "dynamic": (ORANGE, "v"),
    "distilled": (SKY, "P"),
}
"""Colour and marker of each kind; of one that is two, as `joint + dynamic`, the colour of what is special."""
KINDS |= {
    f"{weights} + {special}": (KINDS[special][0], KINDS[weights][1])
    for weights in ("joint", "structured", "shared", "unstructured")
    for special in ("dynamic", "distilled")
}


@contextmanager
def style(changes: Mapping[str, Any] = MappingProxyType({})) -> Iterator[None]:
    """The project's style until the end of the block, then the user's again; `changes` are parameters of matplotlib.

    Raises:
        InputError: matplotlib does not start, as with a backend that it does not know.
    """
    try:
        import matplotlib.style  # slow to import, and only needed to draw
    except ValueError as error:
        where = "matplotlib"
        raise InputError(where, f"does not start: {error}", "mend your matplotlibrc, or unset MPLBACKEND") from None
    with matplotlib.style.context([STYLE, dict(changes)], after_reset=True):
        yield


@contextmanager
def picture(
    path: str | Path | BytesIO,
    size: tuple[float, float],
    dpi: int = 100,
    changes: Mapping[str, Any] = MappingProxyType({}),
) -> Iterator["Figure"]:
    """A figure to draw on, `size` inches wide and high; at the end of the block it is in `path`, or memory, as PNG.

    Equal drawings give equal bytes. `changes` and errors as in `style`.
    """
    with style(changes):
        from matplotlib.figure import Figure  # which needs no backend, other than pyplot

        canvas = Figure(figsize=size, dpi=dpi, layout="constrained")
        yield canvas
        page = path if isinstance(path, BytesIO) else BytesIO()
        canvas.savefig(page, format="png", metadata={"Software": None})
    if not isinstance(path, BytesIO):
        write_atomic(path, page.getvalue())


class End(NamedTuple):
    """What stands beside the last point (x, y) of a line, and how it is drawn there."""

    x: float
    y: float
    text: str
    color: str = INK
    weight: str = "normal"


def label(axes: "Axes", ends: Sequence[End], size: float = 8) -> None:
    """Write names beside the ends of lines, in place of a legend: right of the axes, none over another.

    Call it last, when limits are set. Each name has a thin line to its end.

    Args:
        size: of the letters in points.
    """
    figure = axes.figure
    figure.draw_without_rendering()  # type: ignore[union-attr]  # it finds out how high the axes are
    box, (low, high) = axes.get_window_extent(), axes.get_ylim()
    points = box.height * 72 / figure.dpi
    order = sorted(ends, key=lambda end: end.y)
    places = spread([(end.y - low) / (high - low) * points for end in order], 1.3 * size)
    for end, place in zip(order, places, strict=True):
        axes.annotate(
            end.text, (end.x, end.y), (1.04, place / points), textcoords="axes fraction", annotation_clip=False,
            va="center", fontsize=size, color=INK, fontweight=end.weight,
            arrowprops={"arrowstyle": "-", "color": end.color, "linewidth": 0.7, "shrinkA": 1, "shrinkB": 3,
                        "relpos": (0, 0.5)},
        )  # fmt: skip


def spread(places: Sequence[float], gap: float) -> list[float]:
    """Places in rising order, moved as little as it takes to stand at least `gap` apart (least squares)."""
    from scipy.optimize import isotonic_regression

    steps = gap * np.arange(len(places))
    return list(isotonic_regression(places - steps).x + steps)
