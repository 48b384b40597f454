"""Runs the notebooks and keeps what they show; `nox -s run-notebooks` is this file."""

from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbmake.nb_run import NotebookRun

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
PATIENCE = 600
"""Seconds for a cell."""


def executed(path: Path) -> NotebookNode:
    """A notebook as it is after it has run from its first to its last cell; without the time of day, which would make
    two files of equal results.

    Raises:
        RuntimeError: a cell failed.
    """
    run = NotebookRun(path, PATIENCE).execute()
    if run.error is not None:
        raise RuntimeError(f"{path}: {run.error.summary}\n{run.error.trace}")
    for cell in run.nb.cells:
        cell.metadata.pop("execution", None)
    return run.nb


if __name__ == "__main__":
    for notebook in NOTEBOOKS:
        nbformat.write(executed(notebook), notebook)
        print(notebook)
