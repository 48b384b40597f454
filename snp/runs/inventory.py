"""What folders of runs hold: every run with its state, its age and its size on the disk."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from snp.checkout import home
from snp.experiment.spec import Run, Scale
from snp.files import json_object
from snp.runs.owner import Owner
from snp.runs.result import read, runs_in
from snp.runs.store import FAILED, OWNER

TRIALS = Path(".runs")
"""Of the working folder: where trials are unless a folder is given."""
AUDITS, EXPORTS = TRIALS / "audit", TRIALS / "models"
"""Where runs of `snp audit`, a folder for each state of the code, and of `snp export` are."""
REPRODUCED = Path(".reproduce")
"""Of the working folder: where reproductions are, a folder for each scale."""


class Held(NamedTuple):
    """One run.

    Attributes:
        state: done, running, failed or incomplete; of one that a process of another machine does, or did when it was
            killed, which machine.
        when: it was done, by its manifest; or last written to.
        bytes: of all files in its folder.
    """

    folder: Path
    run: Run
    state: str
    when: datetime
    bytes: int


def roots(out: Path | None = None) -> list[Path]:
    """Folders of runs, those of trials apart: in `out`, or all that commands use when no folder is given."""
    apart = [*sorted(AUDITS.glob("*/")), EXPORTS, *sorted(REPRODUCED.glob("*/"))]
    usual = [*sorted((home() / "results").glob("*/")), TRIALS, *apart]
    bases = usual if out is None else [out]
    return [folder for base in bases for folder in (base, *sorted(base.glob("trial-*/")))]


def held(root: Path) -> Iterator[Held]:
    """The runs right below a folder, in the order of their names.

    Raises:
        InputError: one of them cannot be read.
    """
    for folder, run in runs_in(root):
        yield Held(folder, run, state(folder), _when(folder), size(folder))


def scale_of(root: Path) -> Scale | None:
    """The scale of the runs of a folder, if they have one in common.

    Raises:
        InputError: one of them cannot be read.
    """
    found = {run.scale for _, run in runs_in(root)}
    return found.pop() if len(found) == 1 else None


def size(folder: Path) -> int:
    """Bytes of all files below a folder; links are not followed."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_symlink() or path.is_file())


def state(folder: Path) -> str:
    """Where the run of a folder is, as `Held` has it."""
    owner = Owner.from_json(json_object((folder / OWNER).read_bytes())) if (folder / OWNER).is_file() else None
    if owner is not None and owner.lives:
        return "running"
    if (folder / "result.json").exists():
        return "done"
    if (folder / FAILED).exists():
        return "failed"
    here = Owner.here().host
    return "incomplete" if owner is None or owner.host == here else f"incomplete, or running on {owner.host}"


def _when(folder: Path) -> datetime:
    if (folder / "result.json").exists():
        manifest = read(folder / "result.json").manifest
        try:
            return datetime.fromisoformat(manifest["started"]) + timedelta(seconds=manifest["wall_seconds"])
        except (KeyError, TypeError, ValueError):  # not of this program's time
            pass
    last = max(path.stat().st_mtime for path in (folder, *folder.iterdir()) if not path.is_symlink())
    return datetime.fromtimestamp(last, UTC)
