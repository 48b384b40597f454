"""What a job does: a run or a chain of some, drawing data, or on one machine the runs of a table.

Its process unpickles this and calls it.
"""

import os
import signal
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from submitit.helpers import Checkpointable

from snp.experiment.places import data_home
from snp.experiment.rows import Row
from snp.experiment.spec import Data, Run, Scale, parse
from snp.launch.runner import advancing, one_thread, run_rows, stage
from snp.runs.store import Busy, Store
from snp.training import stopping
from snp.training.setup import Setup

POLL = 5
"""Seconds until a job looks again whether a run that another process does is done."""


@dataclass(frozen=True)
class Place:
    """Where results and data are, as plain values: absolute, since a job runs the code in another folder."""

    root: str
    base: str | None
    data: str
    setup: dict[str, Any]

    @classmethod
    def from_setup(cls, store: Store, setup: Setup) -> "Place":
        """Of this store and setup, and of the data that this process would use."""
        base = str(store.base.root.resolve()) if store.base else None
        setup = setup.absolute()
        return cls(str(store.root.resolve()), base, str(data_home().resolve()), setup.model_dump(mode="json"))

    def enter(self) -> tuple[Store, Setup]:
        """The store and the setup, in a process that finds the data here."""
        os.environ["SNP_DATA"] = self.data
        setup = Setup.model_validate(self.setup)
        setup.bring()
        return Store(self.root, base=Store(self.base) if self.base else None, trial=setup.trial), setup


@dataclass(frozen=True)
class Runs(Checkpointable):
    """A run, or a chain of some, as a job; ahead of its time limit it is saved, then requeued."""

    specs: tuple[dict[str, Any], ...]
    place: Place

    @classmethod
    def from_runs(cls, runs: Iterable[Run], place: Place) -> "Runs":
        return cls(tuple(run.canonical() for run in runs), place)

    def __call__(self) -> None:
        requeue = signal.getsignal(signal.SIGUSR1)  # submitit's; until the run has ended, it has its own
        with stopping.ending():
            store, setup = self.place.enter()
            runs = [parse(spec, "the job's run") for spec in self.specs]
            try:
                with advancing(lambda: [run for run in runs if not store.settled(run)], store):
                    one_thread()
                    from snp import ranks

                    with ranks.together():  # a job of several tasks does it together
                        self._do(runs, store, setup)
            except stopping.Stopped as stopped:
                if stopped.signum == signal.SIGUSR1 and callable(requeue):
                    requeue(stopped.signum, None)
                raise

    def _do(self, runs: list[Run], store: Store, setup: Setup) -> None:
        """One after the other. Where one fails, those that do not start from it are done; then the job fails."""
        from snp import ranks

        failed: dict[Run, Exception] = {}
        for run in runs:
            if not failed.keys().isdisjoint(run.parents()):
                continue
            try:
                _in_turn(run, store, setup)
            except Exception as error:
                if ranks.size() > 1:  # the others would wait for this process
                    raise
                failed[run] = error
        for failure in failed.values():
            raise failure


def _in_turn(run: Run, store: Store, setup: Setup) -> None:
    """Do a run, as soon as nobody else does it: what was queued behind this job counts on its being done then."""
    execute, waits = stage(), False
    while True:
        try:
            execute(run, store, setup=setup)
            return
        except Busy as busy:
            if not waits:
                print(f"snp: {busy.where}: {busy.problem}; waiting", file=sys.stderr, flush=True)
            waits = True
        time.sleep(POLL)


@dataclass(frozen=True)
class Drawing:
    """The data of a scale as a job, drawn from their seed unless they are there."""

    scale: Scale
    data: Data
    workers: int
    place: Place

    def __call__(self) -> None:
        with stopping.ending():
            self.place.enter()
            from snp.training.made import data_root

            data_root(self.scale, self.data, self.workers)


@dataclass(frozen=True)
class AllRuns:
    """The runs of rows as one job of this machine, some at a time."""

    rows: list[dict[str, Any]]
    seeds: tuple[int, ...] | None
    workers: int
    place: Place

    @classmethod
    def from_rows(cls, rows: list[Row], seeds: tuple[int, ...] | None, workers: int, place: Place) -> "AllRuns":
        return cls([row.model_dump(mode="json") for row in rows], seeds, workers, place)

    def __call__(self) -> None:
        with stopping.ending():
            store, setup = self.place.enter()
            rows = [Row.model_validate(row) for row in self.rows]
            run_rows(rows, self.seeds, store, workers=self.workers, setup=setup)
