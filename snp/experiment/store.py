"""Where runs live: one folder per run, its state, and its result, written whole or not at all."""

import errno
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from snp.checkout import home
from snp.errors import InputError
from snp.experiment.metrics import check
from snp.experiment.spec import Compress, Finetune, Pretrain, Scale, parse
from snp.files import alone, read_json, write_json

State = Literal["missing", "incomplete", "failed", "done"]
AnyRun = Pretrain | Compress | Finetune
CURVE_POINTS = 100  # results are kept in git: a longer curve is thinned, the full one stays in log.jsonl
OWNER, FAILED = "owner.json", "failed.json"
_AGAIN = "then start it again: what was saved is kept, and the run goes on from there"
_MENDS = {
    errno.ENOSPC: f"make room on the disk, {_AGAIN}",
    errno.EDQUOT: f"make room in your quota, {_AGAIN}",
    errno.EROFS: f"make the folder writable, or give another one with --out, {_AGAIN}",
    errno.EACCES: f"make the folder writable, or give another one with --out, {_AGAIN}",
    errno.ENOENT: f"bring back what was there when the run began, {_AGAIN}",
}
MEND = "delete the file and start the run again, or restore it from git"


@dataclass(frozen=True)
class Result:
    """What a finished run leaves behind: the content of result.json."""

    run: AnyRun
    manifest: dict[str, Any]
    metrics: dict[str, Any]
    curve: list[dict[str, Any]] = field(default_factory=list)


class Busy(InputError):
    """Another process does this run at the moment."""


class Store:
    """The runs below `root`, one folder each, named by their slug.

    Args:
        root: the folder of all runs, for example `results/desk`; it need not exist.
        base: another store whose finished pre-training runs count as done here, so that
            a reproduction starts from the committed dense checkpoint.
    """

    def __init__(self, root: str | Path, base: "Store | None" = None) -> None:
        self.root, self.base = Path(root), base

    @classmethod
    def at(cls, scale: Scale) -> "Store":
        """The committed results of a scale: `results/<scale>` of this repository, or of the working folder."""
        return cls(home() / "results" / scale)

    def options(self, scale: Scale) -> str:
        """What leads a command of this scale here, as ` --scale smoke --out runs`; nothing where its defaults do."""
        size = "" if scale == "desk" else f" --scale {scale}"
        return size + ("" if self.root == Store.at(scale).root else f" --out {self.root}")

    def folder(self, run: AnyRun) -> Path:
        """The folder of a run: in the base store where the run is done there and not here."""
        own = self.root / run.slug
        if self._borrowed(run):
            return self.base.folder(run)  # type: ignore[union-attr]
        return own

    def _borrowed(self, run: AnyRun) -> bool:
        if self.base is None or run.kind != "pretrain" or (self.root / run.slug / "result.json").exists():
            return False
        return self.base.state(run) == "done"

    def state(self, run: AnyRun) -> State:
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

    def has_weights(self, run: AnyRun) -> bool:
        """Whether the model of a finished run is there, and not only its result."""
        return self.state(run) == "done" and (self.folder(run) / "weights.safetensors").exists()

    def begin(self, run: AnyRun) -> Path:
        """Make the folder of a run, with its spec, and return it: from here on the run is incomplete.

        Files that a kill cut off while they were written are removed.
        """
        folder = self.folder(run)
        for part in folder.glob(".*"):
            part.unlink()
        if not (folder / "spec.json").exists():
            write_json(folder / "spec.json", run.canonical())
        return folder

    @contextmanager
    def attempt(self, run: AnyRun) -> Iterator[None]:
        """The run is begun, and this process's alone until the end of the block; how it fails is noted in its folder.

        One folder has one writer, so that many runs need no lock among them, whatever the file system.

        Raises:
            Busy: another process does it now.
            InputError: instead of an error of the system that can be mended, as a full disk.
        """
        folder = self.root / run.slug
        with self.noting(run), alone(folder / OWNER, _about_process()) as owner:
            if owner is not None:
                about = ", ".join(f"{name} {value}" for name, value in owner.items() if value)
                raise Busy(folder, f"{run.name} is being run already ({about or 'just begun'})",
                           "wait for it, or stop it")  # fmt: skip
            (folder / FAILED).unlink(missing_ok=True)
            self.begin(run)
            yield

    @contextmanager
    def noting(self, run: AnyRun) -> Iterator[None]:
        """An error within is noted in the run's folder; of several, in one process or in many, the first.

        Raises:
            InputError: instead of an error of the system that can be mended, as a full disk.
        """
        try:
            yield
        except Busy:
            raise
        except OSError as error:
            if error.errno not in _MENDS:
                self._fail(run, error)
                raise
            where = error.filename or self.root / run.slug
            mendable = InputError(where, error.strerror or str(error), _MENDS[error.errno])
            self._fail(run, mendable)
            raise mendable from error
        except Exception as error:
            self._fail(run, error)
            raise

    def _fail(self, run: AnyRun, error: Exception) -> None:
        """Note why a run failed, as far as its folder can be written."""
        reason = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        path = self.root / run.slug / FAILED
        with suppress(OSError, InputError):
            if not path.exists():  # where a process fails, those that it trains with lose it
                write_json(path, {"reason": reason, **_about_process()})

    def failure(self, run: AnyRun) -> str | None:
        """Why a run failed, or None where it did not."""
        path = self.root / run.slug / FAILED
        return str(read_json(path).get("reason", "")) if path.exists() else None

    def save(
        self,
        run: AnyRun,
        manifest: dict[str, Any],
        metrics: dict[str, Any],
        curve: list[dict[str, Any]] | None = None,
    ) -> Result:
        """Write result.json atomically, after checking the metrics: the run is done."""
        path = self.folder(run) / "result.json"
        check(run, metrics, f"{path}: metrics")
        curve = _thin(curve or [])
        value = {"spec": run.canonical(), "manifest": manifest, "metrics": metrics, "curve": curve}
        write_json(path, value, indent=1)
        return self.result(run)

    def result(self, run: AnyRun) -> Result:
        """The result of a run.

        Raises:
            InputError: it is missing, cut, of another run, or lacks a measurement; it names the file.
        """
        path = self.folder(run) / "result.json"
        result = read(path)
        if result.run != run:
            raise InputError(path, f"holds the result of {result.run.slug}, not of {run.slug}", MEND)
        return result

    def find(self, run: AnyRun) -> Result | None:
        """The result of a run, or None when it is not done; an unreadable one raises as in `result`."""
        return self.result(run) if (self.folder(run) / "result.json").exists() else None

    def results(self, kind: str | None = None) -> Iterator[Result]:
        """All finished runs of a kind, in the order of their slugs."""
        for path in sorted(self.root.glob("*/result.json")):
            result = read(path)
            if kind is None or result.run.kind == kind:
                yield result

    def log(self, run: AnyRun, record: dict[str, Any]) -> None:
        """Append one record to the run's log.jsonl."""
        line = json.dumps(record, sort_keys=True) + "\n"
        with open(self.folder(run) / "log.jsonl", "ab+") as file:
            if file.tell() and file.seek(-1, os.SEEK_END) is not None and file.read(1) != b"\n":
                line = "\n" + line  # a kill, or a full disk, cut the last one
            file.write(line.encode())

    def read_log(self, run: AnyRun) -> list[dict[str, Any]]:
        """The log of a run, each (stage, step) once: a resumed run repeats steps since its last checkpoint.

        A last line cut by a kill is left out.
        """
        path = self.folder(run) / "log.jsonl"
        records: dict[object, dict[str, Any]] = {}
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines() if path.exists() else []):
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue
            records[(record.get("stage"), record.get("step", f"line {number}"))] = record
        return list(records.values())


def read(path: Path) -> Result:
    """A result from its file, checked against the schema of its kind."""
    try:
        value = read_json(path)
    except InputError as error:
        raise InputError(error.where, error.problem, MEND) from None
    if not isinstance(value, dict) or not {"spec", "manifest", "metrics"} <= value.keys():
        raise InputError(path, "not a result: fields spec, manifest and metrics are needed", MEND)
    run = parse(value["spec"], f"{path}: spec")
    check(run, value["metrics"], f"{path}: metrics")
    return Result(run, value["manifest"], value["metrics"], value.get("curve", []))


def _about_process() -> dict[str, Any]:
    """Who does a run, for people: process, host, SLURM's job, and since when."""
    return {
        "process": os.getpid(),
        "host": socket.gethostname(),
        "job": os.environ.get("SLURM_JOB_ID"),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _thin(curve: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if len(curve) <= CURVE_POINTS:
        return curve
    last = len(curve) - 1
    return [curve[round(i * last / (CURVE_POINTS - 1))] for i in range(CURVE_POINTS)]
