"""How fast training is here: samples a second, the share of the matmul peak, and what steps of SNP and UPop add."""

import time
from itertools import islice
from statistics import median

import numpy as np
import torch
from rich.progress import track

from snp.compression import count
from snp.compression.budget import Budget
from snp.compression.method import Session, weight_step
from snp.compression.problem import Problem
from snp.compression.registry import get
from snp.compression.tower import towers_of
from snp.data.batch import Batch
from snp.experiment.recipes import RECIPES
from snp.experiment.spec import Data, Scale
from snp.models import config as configs
from snp.models.mdetr import MDETR, TOWERS
from snp.tasks.objective import losses
from snp.training.held_out import inference_loss
from snp.training.learning import learning
from snp.training.prepare import Source

ROUNDS = 5
STEPS = 24  # weight steps timed at once; three hypernetwork steps of SNP, or two rankings of UPop, fall among them
METHODS = {"snp": "freeze", "upop": "search"}
"""Those that decide while the model trains, and add to its steps: the option that says for which share of them."""


def train(scale: Scale, data: Data, threads: int = 1) -> str:
    """Measure plain pre-training and that with SNP and UPop in turns, `ROUNDS` times, and report medians.

    The peak is that of one large matrix product with the same threads; a training step counts as three forward passes.
    The overhead of a method is the ratio of step times while it searches, measured in pairs, and that of its whole
    phase: for a part of it SNP only trains on, and UPop retrains a smaller model.
    """
    torch.set_num_threads(threads)
    recipe, source = RECIPES[scale].mdetr, Source.from_scale(scale, data)
    config = getattr(configs, recipe.model)
    vocabulary = source.vocabulary(config)
    config = config.model_copy(update={"vocabulary": len(vocabulary)})
    torch.manual_seed(0)
    model = MDETR(config)
    phase = recipe.compress
    weights, held_out = learning(source, vocabulary, config)
    batches = list(islice(weights.stream(phase.batch, seed=0, per_image=phase.per_image), STEPS))
    held = next(held_out.stream(phase.batch // phase.per_image, seed=1))
    towers = towers_of(model, TOWERS)
    problem = Problem(
        model=model,
        towers=towers,
        budget=Budget.from_model(model, towers, 0.6),
        steps=1_000_000,  # the search goes on for as long as is measured
        loss=inference_loss(model),
        heldout=lambda: held,
    )
    methods = {name: get(name) for name in METHODS}
    sessions = {name: method.start(problem) for name, method in methods.items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    seconds: dict[str, list[float]] = {name: [] for name in ("plain", *METHODS)}
    _run(model, batches[:3], optimizer, None)
    for _ in track(range(ROUNDS), "measuring"):
        for name, times in seconds.items():
            times.append(_run(model, batches, optimizer, sessions.get(name)))
    step = median(seconds["plain"]) / STEPS
    captions = phase.batch / step
    forward = np.mean([count.flops(model, *b.inputs) / len(b) for b in batches[:4]])
    achieved, peak = 3 * forward * captions / 1e9, _peak()
    lines = [
        f"plain pre-training   {captions:8.1f} captions/s   "
        f"({1000 * step:.0f} ms a step of {phase.batch}, threads: {threads})",
        f"arithmetic           {achieved:8.1f} GFLOP/s      "
        f"({achieved / peak:.0%} of the measured matmul peak, {peak:.0f} GFLOP/s)",
    ]
    for name, method in methods.items():
        share = getattr(method.options, METHODS[name])
        overhead = median(b / a for a, b in zip(seconds["plain"], seconds[name], strict=True))
        lines.append(
            f"{f'{name} step overhead':20} {overhead:8.3f} x            "
            f"(while it searches, {share:.0%} of the steps; over a whole phase {1 + (overhead - 1) * share:.3f} x)"
        )
    return "\n".join(lines)


def _run(model: MDETR, batches: list[Batch], optimizer: torch.optim.Optimizer, session: Session | None) -> float:
    """Seconds for one weight step on each batch."""
    start = time.perf_counter()
    for step, batch in enumerate(batches):
        with weight_step(session, step) as now:
            parts, penalty = list(losses(model, batch, now.overrides).values()), now.penalty()
            torch.stack(parts if penalty is None else [*parts, penalty]).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    return time.perf_counter() - start


def _peak(side: int = 1024, repeats: int = 7) -> float:
    """GFLOP/s of a float32 product of two square matrices, the best of several."""
    a, b = torch.randn(2, side, side)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - start)
    return 2 * side**3 / min(times) / 1e9
