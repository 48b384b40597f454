"""Arrays of runs become jobs: what they ask of a cluster, and their submission through submitit."""

import os
import shlex
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from submitit import DebugExecutor, LocalExecutor, SlurmExecutor
from submitit.core.utils import FailedJobError, FailedSubmissionError
from submitit.slurm.slurm import _make_sbatch_string

from snp.errors import InputError
from snp.experiment.resources import Resources
from snp.experiment.rows import Row
from snp.experiment.spec import Run
from snp.launch.arrays import Array, Draw
from snp.launch.slurm import slurm_command
from snp.launch.snapshot import freeze
from snp.launch.work import AllRuns, Place, Runs
from snp.processes import sheltered
from snp.runs.store import Busy, Store
from snp.runs.submitted import Record, keep, launch_folder, records
from snp.training import stopping

Cluster = Literal["slurm", "local", "debug"]
REQUEUES = 1000
"""A pre-training is longer than any limit; submitit ends a job that was requeued so often."""


START_UP = 90
"""Seconds that a job may take until its first step: code and data are read from disks that many share."""


def look_for_slurm(store: Store) -> None:
    """Before any work is done.

    Raises:
        InputError: there is no SLURM here.
        Busy: a process of this machine does runs of the store, and no job can wait for it.
    """
    for program in ("srun", "sbatch"):
        if shutil.which(program) is None:
            raise InputError("--cluster slurm", f"there is no {program} here", "--cluster local, or --dry-run")
    for record in records(store):
        if record.lives:
            raise Busy(store.root, f"process {record.job} of this machine does its runs", "wait, or `snp cancel`")


def resources(rows: Sequence[Row], todo: Sequence[Run], wish: Resources) -> dict[Run, Resources]:
    """What each of these runs asks of the cluster: what its row says, but for what `wish` names."""
    of = {run.slug: row for row in reversed(rows) for seed in {run.seed for run in todo} for run in row.runs(seed)}
    return {run: of[run.slug].resources(run).overridden(wish) for run in todo}


@dataclass(frozen=True)
class Launch:
    """Where jobs run and keep things.

    Args:
        place: of results and data.
        parallelism: elements of an array at a time; on this machine: runs at a time.
        warning: seconds between SLURM's signal and the end of the time limit: for one step and for saving.
    """

    store: Store
    place: Place
    parallelism: int
    warning: int = 90

    def look_at_time(self, planned: Sequence[Array | Draw]) -> None:
        """Before anything is submitted.

        Raises:
            InputError: a limit leaves no time for a step between starting and SLURM's warning.
        """
        needed = -(-(START_UP + self.warning) // 60)
        for array in planned:
            if 0 < array.resources.minutes < needed:  # 0: no limit
                problem = f"is too short for {array.name}: up to {START_UP} s go by until its first step, and SLURM"
                problem += f" warns {self.warning} s before the limit"
                raise InputError(f"--time {array.resources.time}", problem, f"ask for {needed} minutes or more")

    def dry(self, planned: Sequence[Array | Draw], queued: Mapping[str, str]) -> Iterator[str]:
        """The sbatch script of every array; JOB1 stands for the number that the first one will have."""
        code = freeze(self._code, copy=False)
        command = shlex.join([sys.executable, "-u", "-m", "submitit.core._submit", str(self._folder)])
        jobs = dict(queued)
        for number, array in enumerate(planned, 1):
            parameters = self._parameters(array, jobs, code)
            if (count := len(array.work(self.place))) > 1:
                parameters["map_count"] = count
            jobs |= (own := array.numbers(f"JOB{number}"))
            runs = "\n".join(f"#   {job}  {slug}" for slug, job in own.items())
            script = _make_sbatch_string(command, self._folder, **parameters)
            yield f"# {array.name}, {len(own)} runs:\n{runs}\n{script}"

    def slurm(
        self, planned: Sequence[Array | Draw], queued: Mapping[str, str]
    ) -> Iterator[tuple[Array | Draw, Record, str | None]]:
        """Submit the arrays; yields each with its record and what it waits for.

        Raises:
            InputError: as of `look_for_slurm`, or sbatch refuses; what was submitted until then is recorded.
        """
        look_for_slurm(self.store)
        self._tidy()
        code = freeze(self._code)
        jobs = dict(queued)
        for array in planned:
            with stopping.held(), sheltered():
                record = self._submit(array, jobs, code)
            yield array, record, array.waits_for(jobs)
            jobs |= record.runs

    def _submit(self, array: Array | Draw, jobs: Mapping[str, str], code: Path) -> Record:
        """An array that is submitted and recorded, or neither."""
        executor = SlurmExecutor(self._folder, max_num_timeout=REQUEUES)
        executor.update_parameters(**self._parameters(array, jobs, code))
        try:
            first, *_ = executor.submit_array(array.work(self.place))
        except BaseException as error:
            self._tidy()
            if not isinstance(error, FailedJobError | FailedSubmissionError):
                raise
            hint = "what was submitted before is recorded, the same command goes on; options: `snp launch --help`"
            raise InputError(f"sbatch: {array.name}", str(error), hint) from None
        job = first.job_id.split("_")[0]
        try:
            return keep(self.store, "slurm", job, code, array.numbers(job), self.store.weights)
        except BaseException:
            slurm_command("scancel", job)
            raise

    def _tidy(self) -> None:
        """Remove what submitit has left of jobs that were never submitted."""
        for pattern in ("[0-9a-f]" * 32 + ".pkl", ".submission_file_*.sh"):
            for path in self._folder.glob(pattern):
                if not path.is_symlink():  # to the script of a job that was
                    path.unlink()

    def local(self, rows: Sequence[Row], seeds: tuple[int, ...] | None, todo: Sequence[Run]) -> Record:
        """One process on this machine, which outlives this one and does all runs, `parallelism` at a time."""
        code = freeze(self._code)
        executor = LocalExecutor(self._folder)
        executor.update_parameters(timeout_min=366 * 24 * 60)  # there is no limit here
        with stopping.held(), sheltered():
            with chdir(code):  # jobs import from where they were started
                job = executor.submit(AllRuns.from_rows(list(rows), seeds, self.parallelism, self.place))
            try:
                return keep(
                    self.store, "local", job.job_id, code, {run.slug: job.job_id for run in todo}, self.store.weights
                )
            except BaseException:
                os.kill(int(job.job_id), signal.SIGTERM)
                raise

    def debug(self, todo: Sequence[Run]) -> None:
        """All runs in this process, one after the other; an error opens the debugger."""
        executor = DebugExecutor(self._folder)
        for run in todo:
            executor.submit(Runs.from_runs([run], self.place)).result()

    @property
    def _folder(self) -> Path:
        return (launch_folder(self.store) / "jobs").resolve()

    @property
    def _code(self) -> Path:
        return (launch_folder(self.store) / "code").resolve()

    def _parameters(self, array: Array | Draw, jobs: Mapping[str, str], code: Path) -> dict[str, Any]:
        """As SlurmExecutor takes them."""
        asked = array.resources.slurm()
        others: dict[str, Any] = {"signal": f"USR1@{self.warning}", "requeue": True, "chdir": str(code)}
        if (waits := array.waits_for(jobs)) is not None:
            # without the second, dependents of a job that failed would be queued for ever
            others |= {"dependency": waits, "kill-on-invalid-dep": "yes"}
        return asked | {
            "job_name": array.name,
            "array_parallelism": self.parallelism,
            "srun_args": ["--wait=60"],  # where a process fails, those that wait for it end a minute later
            "setup": ["export SUBMITIT_PREEMPT_SIGNAL=USR1"],
            "additional_parameters": others | asked["additional_parameters"],
        }
