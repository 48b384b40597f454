"""Processes: which one a number stands for, and workers that end with the process that started them."""

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import active_children, parent_process
from multiprocessing.context import SpawnContext, SpawnProcess
from pathlib import Path
from typing import Any, TypeVar

S = TypeVar("S")
T = TypeVar("T")


def mark(number: int) -> str | None:
    """What tells a process of this machine from all others that have or had its number; None where it has ended.

    The boot of the machine, and when after it the process began: numbers are given again, names of machines are not
    theirs alone, and clocks are set back.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        # the name of its program, in parentheses, may hold anything
        stat = Path(f"/proc/{number}/stat").read_bytes().rpartition(b")")[2].decode("ascii")
        state, *others = stat.split()
    except OSError:
        return None
    return None if state in "ZX" else f"{boot}/{number}/{others[18]}"


@contextmanager
def sheltered(*signals: signal.Signals) -> Iterator[None]:
    """Processes that are started within do not see the Ctrl-C of a terminal, which goes to all that run there.

    Args:
        signals: in place of Ctrl-C alone.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals or (signal.SIGINT,))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Worker(SpawnProcess):
    """A fresh process, spawned and not forked: the caller may hold threads (torch), which do not survive a fork.

    A Ctrl-C is left to the process that started it.
    """

    def start(self) -> None:
        with sheltered():
            super().start()


class Workers(SpawnContext):
    """What multiprocessing needs to start such processes."""

    Process = Worker


@contextmanager
def pool(workers: int, begin: Callable[..., None] | None = None, *arguments: Any) -> Iterator[ProcessPoolExecutor]:
    """Processes to give work to; each calls `begin(*arguments)` first.

    They end with this process, even where it is killed. Where an exception leaves the block they are asked to end
    (SIGTERM), and waited for.
    """
    others = set(active_children())
    with ProcessPoolExecutor(workers, Workers(), initializer=_begin, initargs=(begin, arguments)) as executor:
        try:
            yield executor
        except BaseException:
            # what waits to be done is given up with the workers: to cancel it first would make their executor stumble
            for process in set(active_children()) - others:
                process.terminate()
            raise


def spread(executor: ProcessPoolExecutor, work: Callable[[S], T], jobs: Iterable[S]) -> Iterator[T]:
    """work(job) of every job, in order, done by the processes of a pool.

    The executor's own `map` cancels what waits when an exception leaves it, and stumbles where its workers end then.
    """
    waiting = deque([executor.submit(work, job) for job in jobs])
    while waiting:
        yield waiting.popleft().result()


def _begin(begin: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    threading.Thread(target=end_with_parent, daemon=True).start()  # it would wait for work for ever
    if begin is not None:
        begin(*arguments)


def end_with_parent() -> None:
    """Wait until the process that started this one has ended, and then end it at once."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
