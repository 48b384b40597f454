"""What MULTIFLOW's scoring costs beside a plain implementation: CPU time and peak memory, in processes of their own."""

import resource
import time
from collections.abc import Callable
from statistics import median

import torch
from open_clip.transformer import TextTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from baselines.masking import weights
from baselines.multiflow import exact_masks, flow
from snp.compression.budget import Budget
from snp.compression.problem import Problem
from snp.compression.statistics import input_energy, open_attention
from snp.compression.tower import towers_of
from snp.processes import pool

SPARSITIES = (0.63, 0.75, 0.9)
BATCHES, BATCH, ROUNDS = 8, 8, 5
WORDS, VOCABULARY = 24, 100


class Pair(nn.Module):
    """A ViT and a text transformer of one shape."""

    def __init__(self, width: int, depth: int, heads: int, image: int, patch: int) -> None:
        super().__init__()
        self.image = image
        self.vision = VisionTransformer(
            img_size=image, patch_size=patch, embed_dim=width, depth=depth, num_heads=heads, num_classes=0
        )
        self.text = TextTransformer(
            context_length=WORDS, vocab_size=VOCABULARY, width=width, heads=heads, layers=depth, output_dim=None
        )

    def forward(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return self.vision(batch[0]), self.text(batch[1])


DESK = {"width": 160, "depth": 6, "heads": 5, "image": 64, "patch": 8}
"""About 3.7 million weights in the linear maps of both towers."""
LARGE = {"width": 768, "depth": 6, "heads": 12, "image": 32, "patch": 16}
"""About 85 million weights: DeiT-B's and CLIP-L's width, half their depth, a tiny image."""


def scoring() -> str:
    """Measure both implementations in turns, `ROUNDS` times, one thread; medians."""
    ours, plain = ([_apart(work, DESK) for _ in range(ROUNDS)] for work in (streamed, stored))
    seconds, peak = ([median(run[i] for run in runs) for runs in (ours, plain)] for i in (0, 1))
    large_seconds, large_peak, large = _apart(score_only, LARGE)
    return "\n".join(
        [
            f"{ours[0][2] / 1e6:.1f}M weights, {BATCHES} batches of {BATCH}, sparsities {SPARSITIES}, one thread:",
            f"streamed, one pass for all   {seconds[0]:7.2f} s CPU   {peak[0] / 2**20:8.1f} MiB extra",
            f"stored, one pass for each    {seconds[1]:7.2f} s CPU   {peak[1] / 2**20:8.1f} MiB extra",
            f"ratio                        {seconds[0] / seconds[1]:7.2f} x       {peak[0] / peak[1]:8.2f} x",
            f"{large / 1e6:.1f}M weights, scores and masks of one sparsity, without calibration:",
            f"                             {large_seconds:7.2f} s CPU   {large_peak / (4 * large):8.2f} x the weights",
        ]
    )


def streamed(problem: Problem) -> None:
    """This project's: statistics of one pass serve all sparsities."""
    energy = input_energy(problem.model, problem.groups, problem.batches(), problem.run)
    for sparsity in SPARSITIES:
        problem.budget = _budget(problem, sparsity)
        dense = weights(problem)

        def score(name: str, dense: dict[str, Tensor] = dense) -> Tensor:
            return flow(dense[name], energy[name])

        exact_masks(problem, dense, score)


@torch.no_grad()
def stored(problem: Problem) -> None:
    """The straightforward way: every input is kept, then reduced; and all of it again for every sparsity."""
    names = {id(problem.model.get_parameter(name)): name for names in problem.groups.values() for name in names}
    for sparsity in SPARSITIES:
        inputs: dict[str, list[Tensor]] = {name: [] for name in names.values()}

        def keep(module: nn.Linear, arguments: tuple[Tensor, ...], inputs: dict[str, list[Tensor]] = inputs) -> None:
            inputs[names[id(module.weight)]].append(arguments[0])

        with open_attention(problem.model, names):
            handles = [
                module.register_forward_pre_hook(keep)
                for module in problem.model.modules()
                if isinstance(module, nn.Linear) and id(module.weight) in names
            ]
            for batch in problem.batches():
                problem.run(batch)
            for handle in handles:
                handle.remove()
        energy = {name: torch.cat(x).flatten(0, -2).square().sum(0) / (BATCHES * BATCH) for name, x in inputs.items()}
        scores = {name: flow(problem.model.get_parameter(name).detach(), a) for name, a in energy.items()}
        problem.budget = _budget(problem, sparsity)
        exact_masks(problem, weights(problem), scores.__getitem__)


def score_only(problem: Problem) -> None:
    """Scores and masks from statistics that are there."""
    problem.budget = _budget(problem, 0.75)
    dense = weights(problem)
    exact_masks(problem, dense, lambda name: flow(dense[name], torch.ones(dense[name].shape[1])))


def _budget(problem: Problem, sparsity: float) -> Budget:
    total = sum(p.numel() for p in problem.model.parameters())
    return Budget(1 - int(sparsity * _weights(problem)) / total, total, 0)


def _weights(problem: Problem) -> int:
    return sum(problem.model.get_parameter(name).numel() for names in problem.groups.values() for name in names)


def _apart(work: Callable[[Problem], None], sizes: dict[str, int]) -> tuple[float, int, int]:
    """(CPU seconds, bytes of peak memory above that before, weights) of `work` in a fresh process."""
    with pool(1) as processes:
        return processes.submit(_measure, work, sizes).result()


def _measure(work: Callable[[Problem], None], sizes: dict[str, int]) -> tuple[float, int, int]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = Pair(**sizes).eval()
    towers = towers_of(model, {"vision": "vision", "text": "text"})
    batches = [
        (torch.randn(BATCH, 3, model.image, model.image), torch.randint(0, VOCABULARY, (BATCH, WORDS)))
        for _ in range(BATCHES)
    ]
    problem = Problem(
        model,
        towers,
        Budget.from_model(model, towers, 1.0),
        0,
        lambda b, o: b,
        lambda: batches[0],
        forward=lambda model, batch: model(batch),
        calibration=batches,
    )
    with torch.no_grad():
        model((batches[0][0][:1], batches[0][1][:1]))  # what the libraries allocate once
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    work(problem)
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return seconds, max(peak - before, 1) * 1024, _weights(problem)
