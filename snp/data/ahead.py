"""Batches made ahead of time by processes beside the one that trains, so that it does not wait for pictures."""

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from snp.errors import InputError
from snp.processes import end_with_parent, sheltered

S = TypeVar("S")
T = TypeVar("T")
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
"""Of SLURM and of a terminal, sent to a run and to all processes that it started: they are the run's to answer."""


def ahead(make: Callable[[S], T], items: Iterable[S], processes: int) -> Iterator[T]:
    """make(item) of every item, in order: by so many processes, two items each ahead of time, or by none but this one.

    The processes are forked, so that what `make` knows is theirs without a copy. They end with this iterator, with this
    process, and by no signal but its own.

    Raises:
        InputError: as `make` does.
    """
    if processes < 1:
        yield from map(make, items)
        return
    loader: DataLoader[Any] = DataLoader(
        _Made(make),
        batch_size=None,
        sampler=items,  # torch's hand-out of indices takes whatever these are
        num_workers=processes,
        collate_fn=_as_it_is,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_begin,
        multiprocessing_context="fork",
        generator=torch.Generator(),  # else it draws from the run's own random numbers
    )
    with sheltered(*SIGNALS):
        iterator = iter(loader)
    for made in iterator:
        if isinstance(made, InputError):
            raise made
        yield made


class _Made(Dataset[Any]):
    """What is made of items, in torch's words a data set; an error that names a file travels as a value."""

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self.make = make

    def __getitem__(self, item: Any) -> Any:
        try:
            return self.make(item)
        except InputError as error:
            return error


def _as_it_is(made: Any) -> Any:
    return made


def _begin(number: int) -> None:
    """Ready a process: it ends with its parent, and of signals heeds only those that its parent sends."""
    parent = os.getppid()

    def heed() -> None:
        while True:
            if signal.sigwaitinfo(SIGNALS).si_pid == parent:
                os._exit(1)

    for task in (heed, end_with_parent):
        threading.Thread(target=task, daemon=True).start()
