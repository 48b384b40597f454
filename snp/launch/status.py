"""What was submitted, and what became of it: SLURM's word, the processes of this machine, and the run folders."""

import json
import os
import signal
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

from snp.experiment.recipes import phase_of
from snp.experiment.spec import Run
from snp.launch.slurm import QUEUED, RUNNING, Job, slurm_command, slurm_jobs
from snp.runs.owner import Owner
from snp.runs.store import Store
from snp.runs.submitted import Record, drawing, log_file, records

RunState = Literal["done", "running", "queued", "failed", "incomplete", "missing"]
REASONS = {
    "OUT_OF_MEMORY": "out of memory: ask for more with --mem",
    "TIMEOUT": "out of time, and not requeued",
    "NODE_FAIL": "its node failed",
    "PREEMPTED": "preempted, and not requeued",
}
SLURM_SAYS = ("slurmstepd", "srun:")
"""How lines of a log begin that are not the run's."""
TAIL = 4096
"""Bytes at the end of a log that are looked at."""


class Submission(NamedTuple):
    """A run, or data, as a job: it may have been submitted more than once."""

    record: Record
    job: str

    def lives(self, seen: Mapping[str, "Job"]) -> int:
        """2: it runs; 1: it is queued; 0: it has ended, or nobody knows of it."""
        if self.record.cluster == "local":
            return 2 * self.record.lives
        state = seen[self.job].state if self.job in seen else ""
        return 2 * (state in RUNNING) + (state in QUEUED)

    @property
    def chained(self) -> bool:
        """Whether its job does several runs, one after the other."""
        return [*self.record.runs.values()].count(self.job) > 1


class Status(NamedTuple):
    """Where one run is.

    Attributes:
        job: number of the job that does it, or will, or was the last to; empty where it was not submitted.
        progress: steps done and steps in all, as `8/16`; empty where it has not begun, and when it is done.
        reason: of a failure, or what it waits for.
    """

    run: Run
    state: RunState
    job: str = ""
    progress: str = ""
    reason: str = ""


def statuses(
    runs: Iterable[Run], store: Store, ask: Callable[[set[str]], Mapping[str, Job]] | None = None
) -> list[Status]:
    """Where these runs are; SLURM is asked twice, however many they are.

    Args:
        runs: parents before children.
        ask: what SLURM knows of jobs; default: `slurm_jobs`.

    Raises:
        InputError: a record or a result cannot be read, or SLURM does not answer.
    """
    found: dict[str, Status] = {}
    todo = {run.slug: run for run in runs}
    submitted: dict[str, list[Submission]] = {}
    for record in records(store):
        for slug, job in record.runs.items():
            submitted.setdefault(slug, []).append(Submission(record, job))
    # a job may make the weights of a result again
    known = {
        slug: Status(run, "done")
        for slug, run in todo.items()
        if store.find(run) and (slug not in submitted or store.has_weights(run))
    }
    left = {slug: run for slug, run in todo.items() if slug not in known}
    owners = {slug: store.owner(run) for slug, run in left.items()}
    asked = {
        one.job
        for slug in {*left, *map(drawing, left.values())}
        for one in submitted.get(slug, ())
        if one.record.cluster == "slurm"
    }
    scripts = {owner.job for owner in owners.values() if owner and owner.job}
    seen = (ask or slurm_jobs)(asked | scripts)

    def current(slug: str) -> Submission | None:
        """Of all submissions the one that counts: it runs, or is queued, or is the last."""
        return max(reversed(submitted.get(slug, ())), key=lambda one: one.lives(seen), default=None)

    for slug, run in todo.items():
        found[slug] = known.get(slug) or _status(
            run, store, current(slug), current(drawing(run)), owners[slug], seen, found
        )
    return list(found.values())


def _status(
    run: Run,
    store: Store,
    submitted: Submission | None,
    data: Submission | None,
    owner: Owner | None,
    seen: Mapping[str, Job],
    parents: dict[str, Status],
) -> Status:
    script = (owner and owner.job) or ""
    record, number = submitted or (None, script)
    job = seen.get(number) if record is None or record.cluster == "slurm" else None
    progress = _progress(run, store)
    lives = owner is not None and owner.lives
    local = record if record is not None and record.cluster == "local" else None
    if local is not None and local.lives:
        return Status(run, "running" if lives else "queued", number, progress)
    if job is not None and job.state in RUNNING:
        if submitted is None or not submitted.chained or owner is not None:
            return Status(run, "running", number, progress)
        if (failure := store.failure(run)) is not None:
            return Status(run, "failed", number, progress, failure)
        return Status(run, "queued", number, progress, "waits: for another run of its job")
    if job is not None and job.state in QUEUED:
        return Status(run, "queued", number, progress, f"waits: {job.reason}" if job.reason != "None" else "")
    if lives or (script in seen and seen[script].state in RUNNING):
        return Status(run, "running", script or number, progress)
    if store.find(run):
        return Status(run, "done")
    failure = store.failure(run)
    if job is not None and job.state not in ("FAILED", "COMPLETED"):
        lost = [
            parent.name
            for parent in run.parents()
            if (of := parents.get(parent.slug)) and of.state in ("failed", "incomplete")
        ]
        reason = REASONS.get(job.state, job.state.lower().replace("_", " "))
        if job.state == "CANCELLED" and not progress:
            if lost:
                reason = f"not begun: {lost[0]} did not end well"
            elif data is not None and data.job in seen and not data.lives(seen) and seen[data.job].state != "COMPLETED":
                reason = f"not begun: job {data.job}, which draws its data, did not end well"
        return Status(run, "failed", number, progress, reason)
    hosts = [owner.host for owner in (local, owner if not script else None) if owner is not None]
    elsewhere = [host for host in hosts if host != socket.gethostname()]
    if failure is not None or job is not None or (local is not None and progress and not elsewhere):
        return Status(run, "failed", number, progress, _ended(job, log_file(store, number), failure))
    reason = "SLURM does not know its job" if record is not None and local is None else ""
    if elsewhere:
        reason = f"whether it goes on is known on {elsewhere[0]}"
    return Status(run, "missing" if store.state(run) == "missing" else "incomplete", number, progress, reason)


def _ended(job: Job | None, log: Path, failure: str | None) -> str:
    """Why a job ended that nobody cancelled: for its memory, as the run noted, or as its log ends."""
    lines = [line.strip() for line in _tail(log) if line.strip()]
    about = [line for line in lines if line.startswith(SLURM_SAYS)]
    # where no cgroup counts memory, SLURM's own state is a plain failure
    if any("memory limit" in line or "oom" in line for line in about):
        return REASONS["OUT_OF_MEMORY"]
    last = next((line for line in reversed(lines) if line not in about), "")
    code = f"exit code {job.exit_code.split(':')[0]}" if job is not None and job.exit_code else "its job ended"
    return failure or (f"{code}: {last}" if last else code)


def live(found: Iterable[Status]) -> dict[str, str]:
    """Slug -> job of what is queued or running."""
    return {status.run.slug: status.job for status in found if status.state in ("queued", "running") and status.job}


def cancel(found: Sequence[Status], store: Store) -> list[Status]:
    """End the jobs of what was submitted and is queued or running, all of them where a run was submitted twice.

    What runs saves its state first.

    Returns:
        Of whom a job was ended.
    """
    wanted = live(found)
    every = {
        slug: [Submission(record, record.runs[slug]) for record in records(store) if slug in record.runs]
        for slug in wanted
    }
    seen = slurm_jobs({one.job for some in every.values() for one in some if one.record.cluster == "slurm"})
    alive = {slug: [one for one in some if one.lives(seen)] for slug, some in every.items()}
    ending = {(one.record.cluster, one.job) for some in alive.values() for one in some}
    if slurm := sorted(job for cluster, job in ending if cluster == "slurm"):
        slurm_command("scancel", *slurm)
    for job in (job for cluster, job in ending if cluster == "local"):
        with suppress(ProcessLookupError):  # it has ended by now
            os.kill(int(job), signal.SIGTERM)
    return [status for status in found if alive.get(status.run.slug)]


def summary(found: Iterable[Status]) -> str:
    """How many runs are in which state, as `3 done, 1 running`."""
    counts = Counter(status.state for status in found)
    order: tuple[RunState, ...] = ("done", "running", "queued", "failed", "incomplete", "missing")
    return ", ".join(f"{counts[state]} {state}" for state in order if counts[state])


def _progress(run: Run, store: Store) -> str:
    """Steps of the last line of the log, and steps in all."""
    for line in reversed(_tail(store.folder(run) / "log.jsonl")):
        try:
            return f"{json.loads(line)['step']}/{phase_of(run).steps}"
        except (ValueError, KeyError, TypeError):  # cut by a kill
            continue
    return ""


def _tail(path: Path) -> list[str]:
    """The last lines of a file that may be long."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
            return file.read().decode(errors="replace").splitlines()
    except OSError:
        return []
