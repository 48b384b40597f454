"""SLURM's own words: what it says of jobs, and how many it takes in an array."""

import re
import subprocess
from typing import NamedTuple

from snp.errors import InputError

QUEUED = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT")
RUNNING = ("RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "RESIZING", "SIGNALING", "STAGE_OUT", "STOPPED")
ELEMENTS = 1001
"""Of an array, by SLURM's default."""


class Job(NamedTuple):
    """A job as SLURM sees it: state, `exit:signal` (empty where nobody knows) and what it waits for, or failed of."""

    state: str
    exit_code: str = ""
    reason: str = ""


def slurm_jobs(numbers: set[str]) -> dict[str, Job]:
    """What SLURM knows of these jobs: accounting (where it is kept), then the controller, which is ahead of it.

    Raises:
        InputError: SLURM is here and does not answer.
    """
    found: dict[str, Job] = {}
    arrays: dict[str, str] = {}  # number -> state of those elements that were never told apart
    if not numbers:
        return found
    names = ",".join(sorted({number.split("_")[0] for number in numbers}))
    # others may have launched into the same folder
    text = slurm_command(
        "sacct",
        "--noheader",
        "--parsable2",
        "--allusers",
        f"--jobs={names}",
        "--format=JobID,State,ExitCode",
        unless="accounting storage is disabled",
    )
    for name, state, code in (line.split("|") for line in text.splitlines()):
        job, _, step = name.partition("[")[0].partition(".")  # 7_[3-5], 7_2.batch
        state = state.split()[0]  # CANCELLED by 1000
        if not step or state == "OUT_OF_MEMORY":
            found[job] = Job(state, code)
        number, _, element = job.partition("_")
        arrays.setdefault(number, "CANCELLED")
        if not element and state not in QUEUED + RUNNING:
            arrays[number] = state
    text = slurm_command(
        "squeue",
        "--noheader",
        "--array",
        "--states=all",
        f"--jobs={names}",
        "--format=%i|%T|%r",
        unless="Invalid job id",
    )
    for name, state, reason in (line.split("|") for line in text.splitlines()):
        ended = state not in QUEUED + RUNNING
        if name in numbers:
            old = found.get(name, Job(""))
            found[name] = old if ended and old.state not in ("", *QUEUED, *RUNNING) else Job(state, "", reason)
        elif "_" not in name and ended:  # of an array whose elements were cancelled one by one this alone is left
            arrays.setdefault(name, state)
    # an element that is cancelled before it is told apart has no line of its own
    lost = {name: arrays[number] for name in numbers - found.keys() if (number := name.partition("_")[0]) in arrays}
    return {name: Job(state) for name, state in lost.items()} | {
        name: job for name, job in found.items() if name in numbers
    }


def array_limit() -> int:
    """How many elements SLURM takes in one array; by default, and where there is none that answers, `ELEMENTS`."""
    try:
        said = slurm_command("scontrol", "show", "config")
    except InputError:  # sbatch will say it, and a dry run needs no SLURM
        return ELEMENTS
    limits = map(int, re.findall(r"\b(?:MaxArraySize|max_array_tasks) *= *(\d+)", said))
    return max(min(limits, default=ELEMENTS), 1)  # 0: no arrays


def slurm_command(program: str, *arguments: str, unless: str | None = None) -> str:
    """What one of SLURM's programs says; nothing where there is no SLURM."""
    try:
        command = [program, *arguments]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False)
    except FileNotFoundError:
        return ""
    if done.returncode and (unless is None or unless not in done.stderr):
        raise InputError(program, done.stderr.strip() or f"exit code {done.returncode}", "is SLURM up?")
    return done.stdout
