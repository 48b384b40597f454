"""The state of a run that is not done, on disk: the last one, and the one before it."""

import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from snp.errors import InputError
from snp.files import replacing
from snp.runs.store import STATES


def write(folder: Path, state: dict[str, Any]) -> None:
    """Leave a state in a run's folder; the last one becomes the one before it."""
    last, previous = _paths(folder)
    with replacing(last, previous) as temporary:
        torch.save(state, temporary)


def load(folder: Path) -> tuple[Path, dict[str, Any] | None]:
    """The last state that is whole, with its file; None where none was saved.

    Raises:
        InputError: there are some, and none can be read.
    """
    problems: dict[Path, Exception] = {}
    for path in filter(Path.exists, _paths(folder)):
        try:
            with zipfile.ZipFile(path) as archive:  # torch does not look at the check sums
                if (part := archive.testzip()) is not None:
                    raise zipfile.BadZipFile(f"{part} is damaged")
            state = torch.load(path, weights_only=True)
        except Exception as error:  # torch raises many kinds for a damaged file
            problems[path] = error
            continue
        for damaged, problem in problems.items():
            print(f"snp: {damaged}: {problem}; going on from {path.name}, step {state['step']}", file=sys.stderr)
        return path, state
    for path, problem in problems.items():
        raise InputError(path, f"cannot be read: {problem}", "delete it to start this run again") from None
    return _paths(folder)[0], None


@torch.no_grad()
def fill(path: Path, parameters: Mapping[str, nn.Parameter], weights: Mapping[str, Tensor]) -> None:
    """Give parameters the weights of a state.

    Raises:
        InputError: names one that is missing, or of another shape.
    """
    for name, parameter in parameters.items():
        saved = weights.get(name)
        if saved is None or saved.shape != parameter.shape:
            found = "missing" if saved is None else f"of shape {list(saved.shape)}"
            problem = f"is {found}, the model needs {list(parameter.shape)}"
            raise InputError(f"{path}: {name}", problem, "delete the file to start this run again")
        parameter.copy_(saved)


def forget(folder: Path) -> None:
    """Remove the states: the run has its result."""
    for path in _paths(folder):
        path.unlink(missing_ok=True)


def _paths(folder: Path) -> tuple[Path, Path]:
    last, previous = STATES
    return folder / last, folder / previous
