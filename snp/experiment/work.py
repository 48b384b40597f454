"""What a job does: one run, or on one machine the runs of a table. Its process unpickles this and calls it."""

import os
import signal
from dataclasses import dataclass
from typing import Any

from submitit.helpers import Checkpointable

from snp.experiment import stopping
from snp.experiment.runner import one_thread, run_rows
from snp.experiment.setup import Setup, data_home
from snp.experiment.spec import parse
from snp.experiment.store import AnyRun, Store
from snp.experiment.tables import Row


@dataclass(frozen=True)
class Place:
    """Where results and data are, as plain values: absolute, since a job runs the code in another folder."""

    root: str
    base: str | None
    data: str
    setup: dict[str, Any]

    @classmethod
    def of(cls, store: Store, setup: Setup) -> "Place":
        """Of this store and setup, and of the data that this process would use."""
        base = str(store.base.root.resolve()) if store.base else None
        setup = setup.absolute()
        return cls(str(store.root.resolve()), base, str(data_home().resolve()), setup.model_dump(mode="json"))

    def enter(self) -> tuple[Store, Setup]:
        """The store and the setup, in a process that finds the data here."""
        os.environ["SNP_DATA"] = self.data
        setup = Setup.model_validate(self.setup)
        return Store(self.root, base=Store(self.base) if self.base else None, trial=setup.trial), setup


@dataclass(frozen=True)
class OneRun(Checkpointable):
    """A run as a job; ahead of its time limit it is saved, then requeued."""

    spec: dict[str, Any]
    place: Place

    @classmethod
    def of(cls, run: AnyRun, place: Place) -> "OneRun":
        return cls(run.canonical(), place)

    def __call__(self) -> None:
        requeue = signal.getsignal(signal.SIGUSR1)  # submitit's; until the run has ended, it has its own
        with stopping.ending():
            store, setup = self.place.enter()
            one_thread()
            from snp import ranks
            from snp.experiment.stages import run as execute

            try:
                with ranks.together():  # a job of several tasks does it together
                    execute(parse(self.spec, "the job's run"), store, setup=setup)
            except stopping.Stopped as stopped:
                if stopped.signum == signal.SIGUSR1 and callable(requeue):
                    requeue(stopped.signum, None)
                raise


@dataclass(frozen=True)
class AllRuns:
    """The runs of rows as one job of this machine, some at a time."""

    rows: list[dict[str, Any]]
    seeds: tuple[int, ...] | None
    workers: int
    place: Place

    @classmethod
    def of(cls, rows: list[Row], seeds: tuple[int, ...] | None, workers: int, place: Place) -> "AllRuns":
        return cls([row.model_dump(mode="json") for row in rows], seeds, workers, place)

    def __call__(self) -> None:
        with stopping.ending():
            store, setup = self.place.enter()
            rows = [Row.model_validate(row) for row in self.rows]
            run_rows(rows, self.seeds, store, workers=self.workers, setup=setup)
