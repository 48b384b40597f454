"""How every picture is drawn: one style of the project's own, whatever matplotlibrc, style or backend a user has."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from snp.errors import InputError
from snp.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE: dict[str, Any] = {"font.family": "DejaVu Sans"}
"""What differs from matplotlib's own defaults; its font comes with it, and so is the same everywhere."""


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
    with matplotlib.style.context(STYLE | changes, after_reset=True):
        yield


@contextmanager
def picture(
    path: str | Path, size: tuple[float, float], dpi: int = 100, changes: Mapping[str, Any] = MappingProxyType({})
) -> Iterator["Figure"]:
    """A figure to draw on, `size` inches wide and high; at the end of the block it is in `path` as PNG.

    Equal drawings give equal bytes. `changes` and errors as in `style`.
    """
    with style(changes):
        from matplotlib.figure import Figure  # which needs no backend, other than pyplot

        canvas = Figure(figsize=size, dpi=dpi, layout="constrained")
        yield canvas
        page = BytesIO()
        canvas.savefig(page, format="png", metadata={"Software": None})
    write_atomic(path, page.getvalue())
