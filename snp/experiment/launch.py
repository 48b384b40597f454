"""Rows to jobs: which runs go into which array, what each array waits for, and their submission through submitit."""

import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from submitit import DebugExecutor, LocalExecutor, SlurmExecutor
from submitit.core.utils import FailedJobError
from submitit.slurm.slurm import _make_sbatch_string

from snp.errors import InputError
from snp.experiment.jobs import Record, keep, launch_folder
from snp.experiment.resources import Resources
from snp.experiment.snapshot import freeze
from snp.experiment.spec import Compress, Finetune
from snp.experiment.store import AnyRun, Store
from snp.experiment.tables import Row
from snp.experiment.work import AllRuns, OneRun, Place

Cluster = Literal["slurm", "local", "debug"]
REQUEUES = 1000
"""A pre-training is longer than any limit; submitit ends a job that was requeued so often."""


@dataclass(frozen=True)
class Array:
    """Runs that become one array of jobs (or a single job): of one kind, with equal resources and dependency."""

    runs: tuple[AnyRun, ...]
    resources: Resources

    @property
    def name(self) -> str:
        """The name of the job, as `snp-finetune-refcoco`."""
        run = self.runs[0]
        return f"snp-{run.kind}" + (f"-{run.benchmark}" if isinstance(run, Finetune) else "")

    def numbers(self, job: str) -> dict[str, str]:
        """Slug -> number of its job, where the array has the number `job`."""
        if len(self.runs) == 1:
            return {self.runs[0].slug: job}
        return {run.slug: f"{job}_{index}" for index, run in enumerate(self.runs)}

    def waits_for(self, jobs: Mapping[str, str]) -> str | None:
        """SLURM's dependency: on one job, or element by element on an array; None where all parents are done.

        Args:
            jobs: slug -> number of the jobs that are queued.
        """
        parents = [jobs.get(run.parent.slug) if run.parent is not None else None for run in self.runs]
        if parents[0] is None:
            return None
        if len({*parents}) == 1:
            return f"afterok:{parents[0]}"
        return f"aftercorr:{parents[0].split('_')[0]}"


def arrays(todo: Mapping[AnyRun, Resources], queued: Mapping[str, str]) -> list[Array]:
    """Put runs into as few arrays as their resources and dependencies allow, parents first.

    A compression is beside those with the same parent and the same benchmarks to come: so each of its fine-tuning
    arrays has the same order, and waits for it element by element.

    Args:
        todo: runs, parents first, with what they ask of the cluster.
        queued: slug -> job of runs that are queued already; they are left out, and may be waited for.
    """
    slugs = {run.slug: run for run in todo}
    benchmarks: dict[str, list[str]] = {}
    for run in todo:
        if isinstance(run, Finetune):
            benchmarks.setdefault(run.parent.slug, []).append(run.benchmark)
    keys: dict[str, tuple[Any, ...]] = {}
    groups: dict[tuple[Any, ...], list[AnyRun]] = {}
    for slug, run in slugs.items():
        if slug in queued:
            continue
        parent = run.parent.slug if run.parent is not None else None
        after: Any = parent if parent in slugs or parent in queued else None
        if isinstance(run, Finetune):
            after = keys.get(run.parent.slug, after)
        own = sorted(benchmarks.get(slug, ())) if isinstance(run, Compress) else getattr(run, "benchmark", None)
        keys[slug] = (run.kind, str(own), todo[run], after)
        groups.setdefault(keys[slug], []).append(run)
    place = {slug: i for i, slug in enumerate(slugs)}
    ordered = [
        Array(tuple(sorted(runs, key=lambda run: place.get(run.parent.slug, 0) if run.parent else 0)), key[2])
        for key, runs in groups.items()
    ]
    rank = {"pretrain": 0, "compress": 1, "finetune": 2}
    return sorted(ordered, key=lambda array: rank[array.runs[0].kind])


def resources(rows: Sequence[Row], todo: Sequence[AnyRun], wish: Resources) -> dict[AnyRun, Resources]:
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

    def dry(self, planned: Sequence[Array], queued: Mapping[str, str]) -> Iterator[str]:
        """The sbatch script of every array; JOB1 stands for the number that the first one will have."""
        code = freeze(self._code, copy=False)
        command = shlex.join([sys.executable, "-u", "-m", "submitit.core._submit", str(self._folder)])
        jobs = dict(queued)
        for number, array in enumerate(planned, 1):
            parameters = self._parameters(array, jobs, code)
            if len(array.runs) > 1:
                parameters["map_count"] = len(array.runs)
            jobs |= (own := array.numbers(f"JOB{number}"))
            runs = "\n".join(f"#   {job}  {slug}" for slug, job in own.items())
            script = _make_sbatch_string(command, self._folder, **parameters)
            yield f"# {array.name}, {len(own)} runs:\n{runs}\n{script}"

    def slurm(self, planned: Sequence[Array], queued: Mapping[str, str]) -> Iterator[tuple[Array, Record, str | None]]:
        """Submit the arrays; yields each with its record and what it waits for.

        Raises:
            InputError: there is no SLURM, or sbatch refuses.
        """
        if SlurmExecutor.affinity() < 0:
            raise InputError("--cluster slurm", "there is no srun here", "--cluster local, or --dry-run")
        code = freeze(self._code)
        jobs = dict(queued)
        for array in planned:
            executor = SlurmExecutor(self._folder, max_num_timeout=REQUEUES)
            executor.update_parameters(**self._parameters(array, jobs, code))
            try:
                first, *_ = executor.submit_array([OneRun.of(run, self.place) for run in array.runs])
            except FailedJobError as error:
                raise InputError("sbatch", str(error), "see `snp launch --help`") from None
            job = first.job_id.split("_")[0]
            yield array, keep(self.store, "slurm", job, code, array.numbers(job)), array.waits_for(jobs)
            jobs |= array.numbers(job)

    def local(self, rows: Sequence[Row], seeds: tuple[int, ...] | None, todo: Sequence[AnyRun]) -> Record:
        """One process on this machine, which outlives this one and does all runs, `parallelism` at a time."""
        code = freeze(self._code)
        executor = LocalExecutor(self._folder)
        executor.update_parameters(timeout_min=366 * 24 * 60)  # there is no limit here
        with chdir(code):  # jobs import from where they were started
            job = executor.submit(AllRuns.of(list(rows), seeds, self.parallelism, self.place))
        return keep(self.store, "local", job.job_id, code, {run.slug: job.job_id for run in todo})

    def debug(self, todo: Sequence[AnyRun]) -> None:
        """All runs in this process, one after the other; an error opens the debugger."""
        executor = DebugExecutor(self._folder)
        for run in todo:
            executor.submit(OneRun.of(run, self.place)).result()

    @property
    def _folder(self) -> Path:
        return (launch_folder(self.store) / "jobs").resolve()

    @property
    def _code(self) -> Path:
        return (launch_folder(self.store) / "code").resolve()

    def _parameters(self, array: Array, jobs: Mapping[str, str], code: Path) -> dict[str, Any]:
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
