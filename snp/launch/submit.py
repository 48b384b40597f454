"""Rows to jobs: which runs go into which array, what each array waits for, and their submission through submitit."""

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
from snp.experiment.resources import DRAWING, Resources
from snp.experiment.rows import Row
from snp.experiment.spec import Compress, Data, Finetune, Run, Scale
from snp.launch.slurm import ELEMENTS, slurm_command
from snp.launch.snapshot import freeze
from snp.launch.work import AllRuns, Drawing, Place, Runs
from snp.processes import sheltered
from snp.runs.store import Busy, Store
from snp.runs.submitted import Record, drawing, keep, launch_folder, records
from snp.training import stopping

Cluster = Literal["slurm", "local", "debug"]
REQUEUES = 1000
"""A pre-training is longer than any limit; submitit ends a job that was requeued so often."""


START_UP = 90
"""Seconds that a job may take until its first step: code and data are read from disks that many share."""


@dataclass(frozen=True)
class Draw:
    """Data that a job draws before the runs on them begin."""

    scale: Scale
    data: Data
    resources: Resources
    slug: str

    @classmethod
    def of(cls, run: Run, wish: Resources) -> "Draw":
        """The data of a run. Of what is wished for runs their place in the cluster counts here too."""
        place = Resources(partition=wish.partition, account=wish.account, sbatch=wish.sbatch)
        return cls(run.scale, run.data, DRAWING.overridden(place), drawing(run))

    @property
    def name(self) -> str:
        """The name of the job."""
        return f"snp-{self.slug}"

    def numbers(self, job: str) -> dict[str, str]:
        """What stands for the data -> number of the job."""
        return {self.slug: job}

    def waits_for(self, jobs: Mapping[str, str]) -> str | None:
        """Nothing."""
        return None

    def work(self, place: Place) -> list[Drawing]:
        """What the job does."""
        return [Drawing(self.scale, self.data, self.resources.cpus or 1, place)]


@dataclass(frozen=True)
class Array:
    """Runs that become one array of jobs (or a single job): of one kind, with equal resources and dependency.

    Args:
        chains: for each job the runs that it does, one after the other; all but the first start from it, or from what
            it starts from.
    """

    chains: tuple[tuple[Run, ...], ...]
    resources: Resources

    @property
    def runs(self) -> tuple[Run, ...]:
        """All of them."""
        return tuple(run for chain in self.chains for run in chain)

    @property
    def name(self) -> str:
        """The name of the job, as `snp-finetune-refcoco`."""
        run, kinds = self.runs[0], dict.fromkeys(run.kind for run in self.runs)
        alone = len(self.runs) == len(self.chains)
        return "-".join(["snp", *kinds, *([run.benchmark] if alone and isinstance(run, Finetune) else [])])

    def numbers(self, job: str) -> dict[str, str]:
        """Slug -> number of its job, where the array has the number `job`."""
        single = len(self.chains) == 1
        return {run.slug: job if single else f"{job}_{i}" for i, chain in enumerate(self.chains) for run in chain}

    def work(self, place: Place) -> list[Runs]:
        """What each of its jobs does."""
        return [Runs.of(chain, place) for chain in self.chains]

    def waits_for(self, jobs: Mapping[str, str]) -> str | None:
        """SLURM's dependency: on one job, or element by element on an array; None where nothing is waited for.

        A run waits for its parent, and where that is done for the data.

        Args:
            jobs: slug -> number of the jobs that are queued.
        """
        heads = [chain[0] for chain in self.chains]
        parents = [jobs.get(run.parent.slug if run.parent is not None else "", jobs.get(drawing(run))) for run in heads]
        if parents[0] is None:
            return None
        if len({*parents}) == 1:
            return f"afterok:{parents[0]}"
        return f"aftercorr:{parents[0].split('_')[0]}"


def arrays(
    todo: Mapping[Run, Resources], queued: Mapping[str, str], limit: int = ELEMENTS, chained: bool = False
) -> list[Array]:
    """Put runs into as few arrays as their resources and dependencies allow, parents first.

    A compression is beside those with the same parent and the same benchmarks to come: so each of its fine-tuning
    arrays has the same order, is split at the same places, and waits for it element by element.

    Args:
        todo: runs, parents first, with what they ask of the cluster.
        queued: slug -> job of runs that are queued already; they are left out, and may be waited for.
        limit: elements that SLURM takes in one array.
        chained: a compression and its fine-tunings are one job, where they ask for the same.
    """
    slugs = {run.slug: run for run in todo}
    left = {run: asked for run, asked in todo.items() if run.slug not in queued}
    heads = _chains(left) if chained else {run: [run] for run in left}
    benchmarks: dict[str, list[str]] = {}
    for run in heads:
        if isinstance(run, Finetune):
            benchmarks.setdefault(run.parent.slug, []).append("" if chained else run.benchmark)
    keys: dict[str, tuple[Any, ...]] = {}
    groups: dict[tuple[Any, ...], list[Run]] = {}
    for run in heads:
        parent = run.parent.slug if run.parent is not None else ""
        after: Any = queued[parent].split("_")[0] if parent in queued else parent if parent in slugs else None
        if isinstance(run, Finetune):
            after = keys.get(run.parent.slug, after)
        own: Any = run.benchmark if isinstance(run, Finetune) and not chained else None
        if isinstance(run, Compress):
            own = str(sorted(benchmarks.get(run.slug, ())))
        keys[run.slug] = (run.kind, run.data, own, todo[run], after)
        groups.setdefault(keys[run.slug], []).append(run)
    place = {slug: i for i, slug in enumerate(slugs)} | {slug: _element(job) for slug, job in queued.items()}
    ordered = []
    for (*_, asked, _), runs in groups.items():
        runs.sort(key=lambda run: place.get(run.parent.slug, 0) if run.parent else 0)
        for start in range(0, len(runs), limit):
            part = runs[start : start + limit]
            parts = [part] if _fits(part, queued) else [[run] for run in part]
            ordered += [Array(tuple(tuple(heads[run]) for run in some), asked) for some in parts]
    rank = {"pretrain": 0, "compress": 1, "finetune": 2}
    return sorted(ordered, key=lambda array: rank[array.runs[0].kind])


def _chains(todo: Mapping[Run, Resources]) -> dict[Run, list[Run]]:
    """Compressions with their fine-tunings, and fine-tunings of a model that is there already, by the first of each."""
    first: dict[tuple[str, Resources], Run] = {}
    chains: dict[Run, list[Run]] = {}
    for run, asked in todo.items():
        of = run.parent.slug if isinstance(run, Finetune) else run.slug
        head = first.setdefault((of, asked), run)
        chains.setdefault(head, []).append(run)
    return chains


def _fits(runs: Sequence[Run], queued: Mapping[str, str]) -> bool:
    """Whether one dependency says what these runs wait for that is queued: one job, or an array from its beginning."""
    jobs = [queued[run.parent.slug] for run in runs if run.parent is not None and run.parent.slug in queued]
    return len({*jobs}) < 2 or [_element(job) for job in jobs] == [*range(len(runs))]


def _element(job: str) -> int:
    """Which element of its array a job is."""
    return int(job.partition("_")[2] or 0)


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
            mend = "what was submitted before is recorded, the same command goes on; options: `snp launch --help`"
            raise InputError(f"sbatch: {array.name}", str(error), mend) from None
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
                job = executor.submit(AllRuns.of(list(rows), seeds, self.parallelism, self.place))
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
            executor.submit(Runs.of([run], self.place)).result()

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
