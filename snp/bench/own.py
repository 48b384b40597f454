"""What a smaller model of the user's own saves in time, on this machine: the dense one and it in turns."""

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch

from snp.bench.pairs import WARM, pairs

SECONDS, FEWEST, MOST = 10.0, 5, 50


def latency(dense: Callable[[], object], small: Callable[[], object], seconds: float = SECONDS) -> dict[str, Any]:
    """Median seconds of both over as many rounds as fit the time, and of their ratio its 95% interval."""
    start = time.perf_counter()
    for call in (dense, small, dense, small):
        call()
    round_ = (time.perf_counter() - start) / 2
    rounds = min(max(round(seconds / round_) - WARM, FEWEST), MOST)
    return asdict(pairs(lambda at: dense(), lambda at: small(), rounds)) | {"threads": torch.get_num_threads()}
