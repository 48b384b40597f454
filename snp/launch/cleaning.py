"""What may be deleted to make room, and its deletion: trials, saved states, drawn data, environments.

Results are never touched, nor a run or data set that a process is at, nor what this program did not make.
"""

import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from snp.checkout import checkout, home
from snp.data.drawn import folder as datasets
from snp.errors import InputError
from snp.experiment.places import data_folder, data_home
from snp.files import alone
from snp.runs import inventory
from snp.runs.owner import Owner
from snp.runs.result import read, runs_in
from snp.runs.store import OWNER, STATES

Kind = Literal["trials", "states", "data", "environments"]
KINDS: dict[Kind, str] = {
    "trials": "runs cut short with --steps, which count nowhere",
    "states": "of runs that are not done: those begin anew",
    "data": "data sets that are drawn from their seed again when they are needed",
    "environments": "what `nox` installs again, and what takes most room",
}
NONE: dict[Kind, str] = {
    "trials": "no run with --steps is there that no process is at",
    "states": "no unfinished run is there that no process is at",
    "data": "no drawn data set is there that no process reads",
    "environments": "there is none beside the one at work, which is never deleted",
}
"""Why nothing of a kind is listed."""
_TRIAL = re.compile(r"trial-steps\d+(-batch\d+)?(-shortest\d+)?")


@dataclass(frozen=True)
class Item:
    """One thing that may be deleted.

    Attributes:
        bytes: that become free.
        delete: does it; False where a process is at it by now.
    """

    kind: Kind
    path: Path
    bytes: int
    delete: Callable[[], bool]


def items(out: Path | None = None) -> list[Item]:
    """All that may be deleted: of runs in `out` or where commands keep them, of data and environments their usual ones.

    Raises:
        InputError: `out` is among the results.
    """
    if out is not None and _kept(out):
        raise InputError(f"--out {out}", "holds results, which are never deleted", "name another folder of runs")
    roots = [root for root in inventory.roots(out) if not root.is_symlink() and not _kept(root)]
    found = [*_runs(roots), *_data({*roots, *inventory.roots()}), *_environments()]
    return sorted(found, key=lambda item: list(KINDS).index(item.kind))


def _kept(path: Path) -> bool:
    results = home() / "results"
    places = [results.resolve(), *(folder.resolve() for folder in results.glob("*/"))]  # some are on another disk
    return path.absolute().is_relative_to(results) or any(path.resolve().is_relative_to(place) for place in places)


def _runs(roots: list[Path]) -> Iterator[Item]:
    for root in roots:
        trial = _TRIAL.fullmatch(root.name) is not None
        for folder, _ in runs_in(root):
            if "running" in inventory.state(folder):
                continue
            if trial and (folder / "result.json").exists() and read(folder / "result.json").trial is None:
                continue  # a real run, whatever its folder is called
            if trial:
                yield Item("trials", folder, inventory.size(folder), lambda folder=folder: _trial(folder))  # type: ignore[misc]
            elif states := [path for name in STATES if (path := folder / name).is_file() and not path.is_symlink()]:
                bytes = sum(path.stat().st_size for path in states)
                yield Item("states", folder, bytes, lambda folder=folder: _states(folder))  # type: ignore[misc]


def _trial(folder: Path) -> bool:
    with alone(folder / OWNER, Owner.here().model_dump()) as other:
        if other is not None:
            return False
        (folder / "result.json").unlink(missing_ok=True)  # cut off from here on, it counts as begun and not as done
        shutil.rmtree(folder)
    with suppress(OSError):  # others are in it
        folder.parent.rmdir()
    return True


def _states(folder: Path) -> bool:
    with alone(folder / OWNER, Owner.here().model_dump()) as other:
        if other is None:
            for name in STATES:
                (folder / name).unlink(missing_ok=True)
    return other is None


def _data(roots: set[Path]) -> Iterator[Item]:
    running = (run for root in roots for folder, run in runs_in(root) if "running" in inventory.state(folder))
    used = {data_folder(run.scale, data).resolve() for run in running for data in run.reads}
    for root in sorted(data_home().glob("*/")):
        if datasets.ours(root) and not root.is_symlink() and root.resolve() not in used and not _kept(root):
            yield Item("data", root, inventory.size(root), lambda root=root: datasets.remove(root))  # type: ignore[misc]


def _environments() -> Iterator[Item]:
    place = home() / ".nox"
    for root in sorted(place.glob("*/")) if checkout() and not place.is_symlink() else ():
        mine = Path(sys.prefix).resolve() == root.resolve()  # it would delete what it is made of
        if (root / "pyvenv.cfg").is_file() and not root.is_symlink() and not mine:
            yield Item("environments", root, inventory.size(root), lambda root=root: _environment(root))  # type: ignore[misc]


def _environment(root: Path) -> bool:
    shutil.rmtree(root)
    return True
