"""Runs rows: what is missing or incomplete, parents first, as many at a time as there are workers."""

import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from typing import Any

from snp.errors import InputError
from snp.experiment.places import data_folder
from snp.experiment.recipes import times_trained
from snp.experiment.rows import Row
from snp.experiment.spec import DRAWN, Run
from snp.processes import Workers, pool
from snp.runs.store import STATE, Busy, Store
from snp.terminal import progress
from snp.training import stopping
from snp.training.setup import Setup


def planned(rows: Iterable[Row], seeds: Sequence[int] | None, store: Store) -> list[Run]:
    """The runs of these rows that are not done, each once, parents first, the first seed of all rows before the next.

    A parent is run again where its result is there but its weights are not: a checkout holds results alone.

    Args:
        seeds: None: every row's own.
    """
    pairs = [(row, seed) for row in rows for seed in (row.seeds if seeds is None else seeds)]
    return undone((run for row, seed in sorted(pairs, key=lambda pair: pair[1]) for run in row.runs(seed)), store)


def undone(wanted: Iterable[Run], store: Store) -> list[Run]:
    """Of these runs, their parents before them, those that are not done, and parents whose weights are missing."""
    runs = dict.fromkeys(wanted)
    needed = {run for run in runs if store.state(run) != "done"}
    for run in reversed(runs):
        parent = getattr(run, "parent", None)
        if run in needed and parent is not None and not store.has_weights(parent):
            needed.add(parent)
    return [run for run in runs if run in needed]


def captions(run: Run, setup: Setup = Setup()) -> int:
    """Captions that a run trains on: the unit of the progress bar."""
    phase = setup.phase(run)
    return phase.steps * phase.batch * times_trained(run)


@contextmanager
def advancing(left: Callable[[], list[Run]], store: Store) -> Iterator[None]:
    """Around all that a job of SLURM does: a job that comes no step further between two requeues is not requeued again.

    Args:
        left: the runs that are still to be done.

    Raises:
        InputError: instead of the `Stopped` that asks for it; it is noted in the folder of the run that was to go on.
    """

    def standing() -> dict[Run, int]:
        """When each of them was last saved."""
        states = {run: store.folder(run) / STATE for run in left()}
        return {run: path.stat().st_mtime_ns if path.exists() else 0 for run, path in states.items()}

    requeued = os.environ.get("SLURM_RESTART_COUNT", "0") != "0"
    before = standing() if requeued else {}
    try:
        yield
    except stopping.Stopped as stopped:
        if stopped.signum != signal.SIGUSR1 or not before or standing() != before:
            raise
        stopping.answer()
        run = next(iter(before))
        with store.noting(run):
            problem = "came no step further between two requeues: its time limit is too short"
            raise InputError(store.folder(run), problem, "ask for more with --time") from None


def make_data(runs: Sequence[Run], setup: Setup, workers: int = 2) -> None:
    """Make the data of these runs before the first of them starts, or see that the user's are there."""
    look_for_data(runs, setup)
    from snp import ranks

    for first in ranks.once(lambda: undrawn(runs)):
        from snp.training.made import data_root  # slow to import

        data_root(first.scale, first.data, workers)


def look_for_data(runs: Iterable[Run], setup: Setup) -> None:
    """See that the user's own data are there, where runs are on them."""
    for scale, data in sorted({(run.scale, run.data) for run in runs if run.data not in DRAWN}):
        from snp.training.prepare import Source

        Source.from_scale(scale, data, setup.data_root)


def undrawn(runs: Iterable[Run]) -> list[Run]:
    """Of each data set that is drawn from its seed and is not there yet, the first of these runs on it."""
    from snp.data.drawn.build import is_made

    first = {(run.scale, run.data): run for run in reversed([*runs])}
    return [run for (scale, data), run in first.items() if data in DRAWN and not is_made(data_folder(scale, data))]


def run_rows(
    rows: Iterable[Row],
    seeds: Sequence[int] | None,
    store: Store,
    workers: int = 2,
    setup: Setup = Setup(),
    at_end: Callable[[], None] = lambda: None,
) -> list[Run]:
    """Do all runs of `rows` that are not done: see `run_all`."""
    rows = list(rows)
    return run_all(lambda: planned(rows, seeds, store), store, workers, setup, at_end)


def run_all(
    left: Callable[[], list[Run]],
    store: Store,
    workers: int = 2,
    setup: Setup = Setup(),
    at_end: Callable[[], None] = lambda: None,
) -> list[Run]:
    """Do all runs that are left, `workers` at a time with one compute thread each.

    One thread each, because two runs side by side finish sooner than one on two threads, and because sums, and so
    results, depend on the number of threads.

    Where torchrun or srun has started several processes, they do every run together, one run after the other.

    Args:
        left: what is to be done, parents first.
        at_end: is called when all is done, by one of the processes; not of a trial.

    Returns:
        The runs that were done.

    Raises:
        Stopped: by a signal; what was under way has saved its state.
        Busy: at the end, where some runs were being done by others; all the rest are done.
    """
    with advancing(left, store):
        from snp import ranks

        with ranks.together():
            todo = ranks.once(left)
            if not todo and ranks.rank() == 0:
                print("nothing to do: all runs are done")
            if todo:
                setup.look_for_device()
                make_data(todo, setup, workers)
                elsewhere = _jointly(todo, store, setup) if ranks.size() > 1 else _apart(todo, store, workers, setup)
                if elsewhere:
                    raise elsewhere[0]
            if ranks.rank() == 0 and store.trial is None:
                at_end()
            elif ranks.rank() == 0:
                print(f"a trial: its runs are in {store.root}, and count nowhere")
    return todo


def _jointly(todo: list[Run], store: Store, setup: Setup) -> list[Busy]:
    """All processes do each run; rank 0 tells of it. Returns what others are busy with."""
    import torch

    from snp import ranks

    execute = stage()
    torch.set_num_threads(1)
    total, first = sum(captions(run, setup) for run in todo), ranks.rank() == 0
    elsewhere, left = list[Busy](), set[Run]()
    look = {"unit": "caption", "unit_scale": True, "smoothing": 0.05, "dynamic_ncols": True, "disable": not first}
    with stopping.catching(), progress(total=total, **look) as bar:
        for run in todo:
            if left.intersection(run.parents()):
                left.add(run)
                continue
            bar.set_description(run.name[:60])
            try:
                execute(run, store, bar.update, setup)
            except Busy as busy:
                elsewhere.append(busy)
                left.add(run)
            if first:
                bar.write(f"{'left to its process' if run in left else 'done'}: {run.slug}")
    return elsewhere


def _apart(todo: list[Run], store: Store, workers: int, setup: Setup) -> list[Busy]:
    """A process for each run, `workers` at a time. Returns what others are busy with."""
    counter = Workers().Value("q", 0)
    total = sum(captions(run, setup) for run in todo)
    waiting, running, elsewhere = list(todo), dict[Future[Any], Run](), list[Busy]()
    with (
        stopping.catching(),
        progress(total=total, unit="caption", unit_scale=True, smoothing=0.05, dynamic_ncols=True) as bar,
        pool(workers, _start, counter) as processes,
        stopping.held(),  # by the time a signal is looked at, every process is known
    ):
        while waiting or running:
            for run in _ready(waiting, running, workers):
                waiting.remove(run)
                running[processes.submit(_do, run, store, setup)] = run
            done, _ = wait(running, timeout=1, return_when=FIRST_COMPLETED)
            for future in done:
                run = running.pop(future)
                try:
                    future.result()
                except Busy as busy:
                    elsewhere.append(busy)
                    waiting = [other for other in waiting if run not in other.parents()]
                    bar.write(f"left to its process: {run.slug}")
                else:
                    bar.write(f"done: {run.slug}")
            bar.set_description(", ".join(run.name for run in running.values())[:60])
            bar.n = min(counter.value, total)
            bar.refresh()
            if stopping.asked():
                stopping.stop()  # the processes are asked too: they save, and the pool waits for them
    return elsewhere


def _ready(waiting: list[Run], running: dict[Future[Any], Run], workers: int) -> list[Run]:
    """The next runs whose parents are neither waiting nor running, as many as there are free workers."""
    held = {*waiting, *running.values()}
    ready = [run for run in waiting if not held.intersection(run.parents())]
    return ready[: workers - len(running)]


_counter: Any = None


def _start(counter: Any) -> None:
    global _counter
    _counter = counter
    one_thread()


def one_thread() -> None:
    """Compute on one thread from here on: sums, and so results, depend on their number."""
    import torch

    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)


def stage() -> Callable[..., Any]:
    """`stages.run`: its process does nothing but runs.

    So transformers, which open_clip would import for towers that are not ours, is left out: a fifth of the start.
    """
    missing: dict[str, Any] = {} if "transformers" in sys.modules else {"transformers": None}
    sys.modules |= missing
    try:
        from snp.training.stages import run
    finally:
        for name in missing:
            del sys.modules[name]
    return run


def _do(run: Run, store: Store, setup: Setup) -> None:
    def progress(captions: int) -> None:
        with _counter.get_lock():
            _counter.value += captions

    stage()(run, store, progress, setup)
