"""Where runs live: one folder per run, its state, and its result, written whole or not at all."""

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from snp.checkout import home
from snp.errors import InputError
from snp.experiment.places import Trial
from snp.experiment.spec import Run, Scale
from snp.experiment.weights import Weights
from snp.files import PART, alone, json_object, read_json, write_json
from snp.runs.metrics import check
from snp.runs.owner import Owner
from snp.runs.result import CURVE_POINTS, HINT, Result, is_measured, read, thinned

State = Literal["missing", "incomplete", "failed", "done"]
OWNER, FAILED = "owner.json", "failed.json"
STATE = "state.pt"
"""Of a run that is not done, as it was last saved."""
STATES = (STATE, "state.previous.pt")
"""The same, and as it was saved before."""
_AGAIN = "then start it again: what was saved is kept, and the run goes on from there"
_HINTS = {
    errno.ENOSPC: f"make room on the disk, {_AGAIN}",
    errno.EDQUOT: f"make room in your quota, {_AGAIN}",
    errno.EROFS: f"make the folder writable, or give another one with --out, {_AGAIN}",
    errno.EACCES: f"make the folder writable, or give another one with --out, {_AGAIN}",
    errno.EPERM: f"make the folder writable, or give another one with --out, {_AGAIN}",
    errno.ENOTDIR: "a file is where a folder should be: give another one with --out",
    errno.EEXIST: "a file is where a folder should be: give another one with --out",
    errno.EISDIR: "a folder is where a file should be: give another name",
    errno.ENAMETOOLONG: "give a folder with a shorter name with --out",
    errno.ENOENT: f"bring back what was there when the run began, {_AGAIN}",
}


class Busy(InputError):
    """Another process does this run at the moment."""


class Store:
    """The runs below `root`, one folder each, named by their slug.

    Args:
        root: the folder of all runs, for example `results/desk`; it need not exist.
        base: another store whose finished pre-training runs count as done here, so that
            a reproduction starts from the committed dense checkpoint.
        trial: the runs are those of a trial, for which the folder is kept; they are never taken for real ones.
        weights: that the runs of paper scale start from which are meant; None: those that are found.
    """

    def __init__(
        self, root: str | Path, base: "Store | None" = None, trial: Trial | None = None, weights: Weights | None = None
    ) -> None:
        self.root, self.base, self.trial, self.weights = Path(root), base, trial, weights

    @classmethod
    def at(cls, scale: Scale) -> "Store":
        """The committed results of a scale: `results/<scale>` of this repository, or of the working folder."""
        return cls(home() / "results" / scale)

    def options(self, scale: Scale) -> str:
        """What leads a command of this scale here, as ` --scale smoke --out runs`; nothing where its defaults do."""
        size = "" if scale == "desk" else f" --scale {scale}"
        return size + ("" if self.root == Store.at(scale).root else f" --out {self.root}")

    def folder(self, run: Run) -> Path:
        """The folder of a run: in the base store where the run is done there and not here."""
        own = self.root / run.slug
        if self._borrowed(run):
            return self.base.folder(run)  # type: ignore[union-attr]
        return own

    def _borrowed(self, run: Run) -> bool:
        if self.base is None or run.kind != "pretrain" or (self.root / run.slug / "result.json").exists():
            return False
        return self.base.state(run) == "done"

    def state(self, run: Run) -> State:
        """`done` with a valid result, `failed` where an error ended it, `incomplete` with anything else in the folder,
        otherwise `missing`.

        Raises:
            InputError: the result exists but cannot be read; it is never silently run again.
        """
        if self.find(run):
            return "done"
        folder = self.folder(run)
        if (folder / FAILED).exists():
            return "failed"
        return "incomplete" if folder.is_dir() and any(folder.iterdir()) else "missing"

    def has_weights(self, run: Run) -> bool:
        """Whether the model of a finished run is there, and not only its result."""
        return self.state(run) == "done" and (self.folder(run) / "weights.safetensors").exists()

    def settled(self, run: Run) -> bool:
        """Whether nothing is left to do of a run: it is done and, where others start from it, its model is there."""
        return self.has_weights(run) or (run.kind == "finetune" and self.state(run) == "done")

    def begin(self, run: Run) -> Path:
        """Make the folder of a run, with its spec, and return it: from here on the run is incomplete.

        Files that a kill cut off while they were written are removed.
        """
        folder = self.folder(run)
        for part in folder.glob(f".*{PART}"):
            part.unlink()
        if not (folder / "spec.json").exists():
            write_json(folder / "spec.json", run.canonical())
        return folder

    @contextmanager
    def attempt(self, run: Run) -> Iterator[None]:
        """The run is begun, and this process's alone until the end of the block; how it fails is noted in its folder.

        One folder has one writer, so that many runs need no lock among them, whatever the file system.

        Raises:
            Busy: another process does it now.
            InputError: instead of an error of the system that can be mended, as a full disk.
        """
        folder = self.root / run.slug
        with self.noting(run), alone(folder / OWNER, Owner.here().model_dump()) as about:
            if about is not None:
                owner = Owner.from_json(about) or "just begun"
                raise Busy(folder, f"{run.name} is being run already ({owner})", "wait for it, or stop it")
            (folder / FAILED).unlink(missing_ok=True)
            self.begin(run)
            yield

    @contextmanager
    def noting(self, run: Run) -> Iterator[None]:
        """An error within is noted in the run's folder; of several, in one process or in many, the first.

        Raises:
            InputError: instead of an error of the system that can be mended, as a full disk.
        """
        try:
            yield
        except Busy:
            raise
        except OSError as error:
            if (told := hinted(error, self.root / run.slug)) is None:
                self._fail(run, error)
                raise
            self._fail(run, told)
            raise told from error
        except Exception as error:
            self._fail(run, error)
            raise

    def _fail(self, run: Run, error: Exception) -> None:
        """Note why a run failed, as far as its folder can be written."""
        reason = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        path = self.root / run.slug / FAILED
        with suppress(OSError, InputError):
            if not path.exists():  # where a process fails, those that it trains with lose it
                write_json(path, {"reason": reason, **Owner.here().model_dump(exclude={"mark"})})

    def failure(self, run: Run) -> str | None:
        """Why a run failed, or None where it did not."""
        path = self.root / run.slug / FAILED
        if not path.exists():
            return None
        about = read_json(path)
        if not isinstance(about, dict):
            raise InputError(path, "does not say why the run failed", "delete it, and start the run again")
        return str(about.get("reason", ""))

    def owner(self, run: Run) -> Owner | None:
        """Who does a run, or did it when it was killed; None where nobody is noted whom one can make out."""
        try:
            return Owner.from_json(json_object((self.folder(run) / OWNER).read_bytes()))
        except OSError:
            return None

    def save(
        self,
        run: Run,
        manifest: dict[str, Any],
        metrics: dict[str, Any],
        curve: list[dict[str, Any]] | None = None,
    ) -> Result:
        """Write result.json atomically, after checking the metrics: the run is done."""
        path = self.folder(run) / "result.json"
        check(run, metrics, f"{path}: metrics")
        curve = curve or []
        curve = thinned(curve, max(CURVE_POINTS - sum(map(is_measured, curve)), 2))
        value = {"spec": run.canonical(), "manifest": manifest, "metrics": metrics, "curve": curve}
        write_json(path, value, indent=1)
        return self.result(run)

    def result(self, run: Run) -> Result:
        """The result of a run.

        Raises:
            InputError: it is missing, cut, of another run, of a trial and no real run, or lacks a measurement; it names
                the file.
        """
        if self._borrowed(run):
            return self.base.result(run)  # type: ignore[union-attr]
        path = self.root / run.slug / "result.json"
        result = read(path)
        if result.run != run:
            raise InputError(path, f"holds the result of {result.run.slug}, not of {run.slug}", HINT)
        if result.trial != self.trial:
            of = f"a trial ({result.trial.name}), whose figures count nowhere" if result.trial else "a real run"
            raise InputError(path, f"is the result of {of}", "give another folder with --out, or move its folder away")
        return result

    def find(self, run: Run) -> Result | None:
        """The result of a run, or None when it is not done; an unreadable one raises as in `result`."""
        return self.result(run) if (self.folder(run) / "result.json").exists() else None

    def results(self, kind: str | None = None) -> Iterator[Result]:
        """All finished runs of a kind, in the order of their slugs; trials are none, but in their own store."""
        for path in sorted(self.root.glob("*/result.json")):
            result = read(path)
            if result.trial == self.trial and kind in (None, result.run.kind):
                yield result

    def log(self, run: Run, record: dict[str, Any]) -> None:
        """Append one record to the run's log.jsonl."""
        line = json.dumps(record, sort_keys=True) + "\n"
        with open(self.folder(run) / "log.jsonl", "ab+") as file:
            if file.tell() and file.seek(-1, os.SEEK_END) is not None and file.read(1) != b"\n":
                line = "\n" + line  # a kill, or a full disk, cut the last one
            file.write(line.encode())

    def read_log(self, run: Run) -> list[dict[str, Any]]:
        """The log of a run, each (stage, training, step) once: a resumed run repeats steps since its last checkpoint.

        Lines cut by a kill are left out.
        """
        path = self.folder(run) / "log.jsonl"
        records: dict[object, dict[str, Any]] = {}
        for number, line in enumerate(path.read_bytes().splitlines() if path.exists() else []):
            if record := json_object(line):
                records[(record.get("stage"), record.get("of"), str(record.get("step", f"line {number}")))] = record
        return list(records.values())


def hinted(error: OSError, where: object = "") -> InputError | None:
    """What the system says, with a hint, where a user can mend it, as a full disk; else None."""
    if error.errno not in _HINTS:
        return None
    return InputError(error.filename2 or error.filename or where, error.strerror or str(error), _HINTS[error.errno])
