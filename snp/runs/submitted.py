"""What was submitted: a record of every array, and of every process of this machine, kept beside the runs."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError

from snp.experiment.spec import Run, explain
from snp.files import alone, read_json, write_json
from snp.models.named import Weights
from snp.processes import mark
from snp.runs.owner import Owner
from snp.runs.store import Busy, Store

Number = Annotated[str, Field(pattern=r"^\d+(_\d+)?$")]


class Record(BaseModel):
    """One submission: an array, or a process on this machine; kept in a file of its own below `.launch`.

    Args:
        number: of the submission in its store: clocks are set back, and the last one counts.
        cluster: slurm, or local: then `job` is a process, and `mark` tells it from others that get its number.
        job: its number; array elements have `<job>_<index>`.
        time: of submission, ISO 8601. host: where it was submitted. code: the snapshot that it runs.
        runs: slug -> job, in the order of the array; runs of a chain have the same one. A job that draws data has
            `drawing` for a slug.
        weights: that its dense models start from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: NonNegativeInt = 0
    cluster: Literal["slurm", "local"]
    job: Annotated[str, Field(pattern=r"^\d+$")]
    time: str
    host: str
    code: str
    runs: dict[str, Number]
    mark: str | None = None
    weights: Weights | None = None

    @property
    def lives(self) -> bool:
        """Whether a job of this machine goes on."""
        return self.mark is not None and self.mark == mark(int(self.job))


def launch_folder(store: Store) -> Path:
    """Where a store keeps records of submissions, logs of jobs, and the code that they run."""
    return store.root / ".launch"


def drawing(run: Run) -> str:
    """What stands for the data of a run where those are drawn by a job: no run has such a slug."""
    return f"data-{run.data}-{run.scale}"


def log_file(store: Store, job: str) -> Path:
    """What a job wrote to stderr; the name is submitit's."""
    return launch_folder(store) / "jobs" / f"{job}_0_log.err"


@contextmanager
def launching(store: Store) -> Iterator[None]:
    """Within, no other launch submits runs of this store, which would then be submitted twice.

    Raises:
        Busy: another launch is under way.
    """
    with alone(launch_folder(store) / "launching.json", Owner.here().model_dump()) as about:
        if about is not None:
            owner = Owner.from_json(about) or "just begun"
            raise Busy(store.root, f"another launch submits runs of it ({owner})", "wait for it, or stop it")
        yield


def keep(
    store: Store,
    cluster: Literal["slurm", "local"],
    job: str,
    code: Path,
    runs: dict[str, str],
    weights: Weights | None = None,
) -> Record:
    """Note a submission; it is the last one."""
    record = Record(
        number=1 + max((known.number for known in records(store)), default=0),
        cluster=cluster,
        job=job,
        time=datetime.now(UTC).isoformat(),
        host=socket.gethostname(),
        code=str(code),
        runs=runs,
        mark=mark(int(job)) if cluster == "local" else None,
        weights=weights,
    )
    write_json(launch_folder(store) / "submitted" / f"{record.number:06d}-{job}.json", record.model_dump())
    return record


def records(store: Store) -> list[Record]:
    """All submissions, the last one last."""
    found = []
    for path in sorted((launch_folder(store) / "submitted").glob("*.json")):
        try:
            found.append(Record.model_validate(read_json(path)))
        except ValidationError as error:
            raise explain(error, path) from None
    return sorted(found, key=lambda record: record.number)
