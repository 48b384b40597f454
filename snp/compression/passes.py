"""Batches pass after pass, from any place on, with all that is drawn at random on the way following from a seed."""

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from snp.errors import InputError


def stream(batches: Iterable[Any], seed: int, number: int = 0, within: int = 0) -> Iterator[tuple[Any, int]]:
    """Endlessly (batch, how many of its pass are gone with it), from the one with this number on.

    What is drawn for a batch, and until the next one is asked for, follows from the seed and the batch's number alone;
    so the first batches of a pass are drawn again and left out.

    Args:
        number: of batches that are gone.
        within: those of them that are of the last pass.

    Raises:
        InputError: a pass has no batch.
    """
    begun = number - within
    while True:
        settle(seed, begun, batches)
        gone = 0
        for batch in batches:
            gone += 1
            if begun + gone > number:
                yield batch, gone
            settle(seed, begun + gone)
        if not gone:
            raise InputError("recover", "there is no batch, or no further one", "give a list of batches")
        begun += gone


def settle(seed: int, number: int, batches: Any = None) -> None:
    """Let generators draw what follows from two numbers: torch's, numpy's, Python's, and those of a DataLoader."""
    mixed = seed * 2**32 + number
    torch.manual_seed(mixed)
    np.random.seed(mixed % 2**32)
    random.seed(mixed)
    for holder in (batches, getattr(batches, "sampler", None)):
        if isinstance(own := getattr(holder, "generator", None), torch.Generator):
            own.manual_seed(mixed)


@contextmanager
def apart(devices: Iterable[torch.device]) -> Iterator[None]:
    """Generators of the process, and those of the devices that are CUDA's, are afterwards as they were before."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng([device for device in devices if device.type == "cuda"]):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
