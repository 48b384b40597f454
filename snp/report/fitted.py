"""Tables for a terminal: as many columns as its width has room for, the most telling ones first."""

import shutil
from collections.abc import Sequence
from textwrap import fill

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

LAST = ("needed", "kind", "FLOPs", "removed", "sparsity", "non-zero", "towers", "main")
"""Columns that go first where there is no room, the last of these before the others."""
BETWEEN = 3
"""Blanks and line between two columns."""
FIRST = ("method", "row", "Δ dense", "stored", "claim", "measured", "verdict", "reason")
"""Columns that stay."""
LEFT = (
    "kind",
    "curve",
    "stage",
    "state",
    "where",
    "claim",
    "rows",
    "verdict",
    "main",
    "what",
    "reason",
    "needs",
    "methods",
)
"""Columns of words, as the first one is; others are numbers."""
FOLDED = 18
"""Characters that a column has at least whose cells go on in more lines."""


def width() -> int:
    """Characters in a line of the terminal; 80 where there is none, or what COLUMNS says."""
    return shutil.get_terminal_size((80, 24)).columns


def fitted(frame: pd.DataFrame, title: str, columns: int, folds: Sequence[str] = (), first: Sequence[str] = ()) -> str:
    """A frame of texts within so many columns, and a line with the names of what had no room.

    Columns stand in their own order; `FIRST` and `first` have room before the others, `LAST` after them. The
    cells of those that fold go on in more lines where there is no room for them in one.
    """
    names = list(frame.columns)
    ahead = [name for name in names if name in (*FIRST, *first) or name == names[0]]
    middle = [name for name in names if name not in (*ahead, *LAST)]
    last = [name for name in LAST if name in names and name not in ahead]
    room, chosen = columns - 2, []
    for name in [*ahead, *middle, *last]:
        longest = max(
            len(line) for text in (_head(name), *frame[name].astype(str)) for line in text.splitlines() or [""]
        )
        needed = (min(longest, FOLDED) if name in folds else longest) + BETWEEN
        if name in ahead or needed <= room:
            chosen.append(name)
            room -= needed
    grid = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for name in names:
        if name in chosen:
            left = name in (*LEFT, names[0])
            one_line = bool(folds) and name not in folds
            grid.add_column(_head(name), justify="left" if left else "right", overflow="fold", no_wrap=one_line)
    for line in frame[[name for name in names if name in chosen]].itertuples(index=False):
        grid.add_row(*map(str, line))
    console = Console(width=columns, highlight=False, markup=False, color_system=None)
    with console.capture() as text:
        console.print(grid)
    lines = "\n".join(line.rstrip() for line in text.get().splitlines()).strip("\n")
    missing = [name for name in names if name not in chosen]
    left_out = fill(f"no room for: {', '.join(missing)}", columns)
    return f"{title}\n\n{lines}\n" + (f"\n{left_out}\n" if missing else "")


def _head(name: str) -> str:
    """A head in lines of a word each, unless it is short."""
    return name.replace(" ", "\n") if len(name) > 8 else name
