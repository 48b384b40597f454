"""What the model of scaling rests on: counted parameters and operations, measured step times, a measured all-reduce.

Written to results/bench/scaling.json; `snp.report.scaling` makes tables and a figure of it without measuring again.
"""

import os
import time
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.distributed
from rich.progress import track

from snp.compression import count
from snp.data.dataset import Batch
from snp.experiment.manifest import code_state, cpu_name
from snp.experiment.params import dense
from snp.experiment.prepare import Source
from snp.experiment.recipes import RECIPES
from snp.experiment.stages import learning
from snp.files import write_json
from snp.models import config as configs
from snp.models.family import build
from snp.processes import pool
from snp.report import scaling
from snp.tasks.objective import losses

WORDS = {"mdetr": 24, "glip": 176}
"""Tokens of a sample: a caption of MDETR's mixture with room to spare, and all classes of COCO in one prompt. [ours]"""
STEPS = 40
BATCH = 32
"""Captions in a step of desk scale; two processes have half of them each."""
PROCESSES = 2


def measure(path: Path = scaling.MEASURED) -> str:
    """Count, measure (desk scale, scenes, one thread a process), write `path`, and give what follows from it."""
    found = {"counted": {name: _counted(name) for name in WORDS}, "measured": _measured()}
    about = {**code_state(), "cpu": cpu_name(), "torch": torch.__version__,
             "time": datetime.now(UTC).isoformat(timespec="seconds")}  # fmt: skip
    write_json(path, {"manifest": about, **found}, indent=1)
    return scaling.markdown(path)


def _counted(name: str) -> dict[str, float]:
    """Parameters of the full-size model, and operations of one sample's forward pass."""
    config = getattr(configs, getattr(RECIPES["paper"], name).model)
    size = config.image_size
    model = build(config)
    example = (
        torch.zeros(1, 3, size, size, dtype=torch.uint8),
        torch.zeros(1, dtype=torch.int64),
        torch.ones(1, WORDS[name], dtype=torch.int64),
        torch.ones(1, WORDS[name], dtype=torch.bool),
    )
    stored = sum(parameter.numel() for parameter in dense(config)[0].parameters())
    return {"parameters": stored, "forward_flops": count.flops(model, *example)}


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
    source = Source.of("desk", "scenes")
    config = configs.DESK
    return config.model_copy(update={"vocabulary": len(source.vocabulary(config))})


def _steps(batch: int, ranks: bool = False) -> list[float]:
    """Seconds of each of `STEPS` weight steps; with `ranks` the gradients of all processes are added up."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    source, config = Source.of("desk", "scenes"), _config()
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
