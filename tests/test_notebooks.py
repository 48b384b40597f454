"""Notebooks: they run on the committed results, and what they show in the repository is what those results say."""

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat import NotebookNode
from run_notebooks import NOTEBOOKS, executed

LARGEST = 800_000
"""Bytes: it is kept in git, plots included."""


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_what_it_shows_is_what_the_results_say(path: Path) -> None:
    kept, fresh = nbformat.read(path, 4), executed(path)
    assert said(kept) == said(fresh), "run `nox -s run-notebooks`"
    assert [cell.execution_count for cell in code(kept)] == list(range(1, len(code(kept)) + 1))
    assert pictures(kept) == pictures(fresh) > 0
    assert path.stat().st_size < LARGEST


def code(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def said(notebook: NotebookNode) -> list[tuple[str, list[Any]]]:
    """Source and texts of every cell; lines of plots are left out, as they may differ by machine."""
    texts = ("text/plain", "text/markdown")
    return [
        (cell.source, [out.get("text") or [out.data.get(name) for name in texts] for out in cell.outputs])
        for cell in code(notebook)
    ]


def pictures(notebook: NotebookNode) -> int:
    return sum("image/png" in out.get("data", {}) for cell in code(notebook) for out in cell.outputs)
