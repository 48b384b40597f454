"""Which runs go into which array of jobs, and what each array waits for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from snp.experiment.resources import DRAWING, Resources
from snp.experiment.spec import Compress, Data, Finetune, Run, Scale
from snp.launch.slurm import ELEMENTS
from snp.launch.work import Drawing, Place, Runs
from snp.runs.submitted import drawing


@dataclass(frozen=True)
class Draw:
    """Data that a job draws before the runs on them begin."""

    scale: Scale
    data: Data
    resources: Resources
    slug: str

    @classmethod
    def for_run(cls, run: Run, wish: Resources) -> "Draw":
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
        return [Runs.from_runs(chain, place) for chain in self.chains]

    def waits_for(self, jobs: Mapping[str, str]) -> str | None:
        """SLURM's dependency: on one job, or element by element on an array; None where nothing is waited for.

        A run waits for its parent, and for its teacher, and where they are done for the data.

        Args:
            jobs: slug -> number of the jobs that are queued.
        """
        heads = [chain[0] for chain in self.chains]
        if (teacher := _teacher(heads[0])) is not None:  # it has an array of its own
            data = drawing(heads[0]) or ""
            asked = [one.slug for one in (heads[0].parent, teacher) if one is not None and one.slug in jobs]
            waited = [jobs[slug] for slug in asked or [data] if slug in jobs]
            return f"afterok:{':'.join(dict.fromkeys(waited))}" if waited else None
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
        if _teacher(run) is not None:  # no one dependency is that of several
            own = run.slug
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
    return sorted(ordered, key=lambda array: rank[array.runs[0].kind] + (_teacher(array.runs[0]) is not None))


def _teacher(run: Run) -> Finetune | None:
    """Whom a run learns from, if anyone."""
    return run.teacher if isinstance(run, Finetune) else None


def _chains(todo: Mapping[Run, Resources]) -> dict[Run, list[Run]]:
    """Compressions with their fine-tunings, and fine-tunings of a model that is there already, by the first of each."""
    first: dict[tuple[str, Resources], Run] = {}
    chains: dict[Run, list[Run]] = {}
    for run, asked in todo.items():
        of = run.parent.slug if isinstance(run, Finetune) and _teacher(run) is None else run.slug
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
