"""Two pieces of work timed in turns: how many times the first takes of the second, whatever else a machine does."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import bootstrap

WARM = 3


@dataclass(frozen=True)
class Pairs:
    """Median seconds of each, and the median of `one / other` over the pairs with its 95% bootstrap interval."""

    one: float
    other: float
    ratio: float
    low: float
    high: float
    rounds: int


def pairs(one: Callable[[int], object], other: Callable[[int], object], rounds: int) -> Pairs:
    """Time both in turns; each is given the number of the round, from 0, and the first of a pair alternates."""
    seconds = np.empty((rounds, 2))
    for at in range(-WARM, rounds):
        for which in (0, 1) if at % 2 else (1, 0):
            start = time.perf_counter()
            (one, other)[which](max(at, 0))
            if at >= 0:
                seconds[at, which] = time.perf_counter() - start
    ratios = seconds[:, 0] / seconds[:, 1]
    found = bootstrap((ratios,), np.median, confidence_level=0.95, method="percentile", rng=0).confidence_interval
    of_one, of_other = (float(value) for value in np.median(seconds, 0))
    return Pairs(of_one, of_other, float(np.median(ratios)), float(found.low), float(found.high), rounds)
