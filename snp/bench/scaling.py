"""What the model of scaling rests on: counted parameters and operations, measured step times, a measured all-reduce.

Written to results/bench/scaling.json; `snp.report.scaling` makes tables and a figure of it without measuring again.
"""

import os
import time
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.distributed
from rich.progress import track

from snp.bench.counts import WORDS, counts, decoding
from snp.data.batch import Batch
from snp.files import read_json, write_json
from snp.models import config as configs
from snp.models.family import build
from snp.processes import pool
from snp.report import scaling
from snp.runs.manifest import bench_state
from snp.tasks.objective import losses
from snp.training.learning import learning
from snp.training.prepare import Source

STEPS = 40
BATCH = 32
"""Captions in a step of desk scale; two processes have half of them each."""
PROCESSES = 2


def measure(path: Path = scaling.MEASURED, keep: bool = False) -> str:
    """Count, measure (desk scale, scenes, one thread a process), write `path`, and give what follows from it.

    Args:
        keep: step times stay as they were measured, with the manifest that tells where; all else is counted anew.
    """
    about = bench_state()
    counted = {"counted": {name: counts(name) for name in WORDS}, "decoding": {name: decoding(name) for name in WORDS}}
    if keep:
        before = read_json(path)
        found = {"manifest": before["manifest"], "counting": about, **counted, "measured": before["measured"]}
    else:
        found = {"manifest": about, "counting": about, **counted, "measured": _measured()}
    write_json(path, found, indent=1)
    return scaling.markdown(path)


def _measured() -> dict[str, Any]:
    """Step times of one process with a whole and with half a batch, and of two with half each; their all-reduce."""
    whole, half = _steps(BATCH), _steps(BATCH // PROCESSES)
    with pool(PROCESSES) as processes:
        first, *_ = processes.map(_rank, range(PROCESSES))
    return {"batch": BATCH, "whole": whole, "half": half, **first}


def _rank(rank: int) -> dict[str, Any]:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(PROCESSES), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29417"}
    torch.distributed.init_process_group("gloo")
    alone = _steps(BATCH // PROCESSES)  # beside the other: they share the memory of the machine
    model = build(_config())
    gradients = torch.zeros(sum(p.numel() for p in model.parameters()))
    torch.distributed.barrier()
    times = []
    for _ in range(STEPS):
        began = time.perf_counter()
        torch.distributed.all_reduce(gradients)
        times.append(time.perf_counter() - began)
    together = _steps(BATCH // PROCESSES, ranks=True)
    torch.distributed.destroy_process_group()
    return {"beside": alone, "together": together, "all_reduce": median(times), "bytes": 4 * len(gradients)}


def _config() -> Any:
    source = Source.from_scale("desk", "scenes")
    config = configs.DESK
    return config.model_copy(update={"vocabulary": len(source.vocabulary(config))})


def _steps(batch: int, ranks: bool = False) -> list[float]:
    """Seconds of each of `STEPS` weight steps; with `ranks` the gradients of all processes are added up."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    source, config = Source.from_scale("desk", "scenes"), _config()
    model: torch.nn.Module = _Learner(build(config))
    if ranks:
        model = torch.nn.parallel.DistributedDataParallel(model)
    train, _ = learning(source, source.vocabulary(config), config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    times = []
    for one in track(islice(train.stream(batch, seed=0), STEPS + 3), f"{batch} captions", STEPS + 3, disable=ranks):
        began = time.perf_counter()
        model(one).backward()
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter() - began)
    return times[3:]


class _Learner(torch.nn.Module):
    """A model whose forward pass ends in its loss, as processes that share the work need it."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> torch.Tensor:
        return torch.stack(list(losses(self.model, batch).values())).sum()
