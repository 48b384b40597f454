"""What paper scale costs and how it grows with GPUs: a stated model of time, fed with what was counted and measured."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from snp import drawing
from snp.checkout import home
from snp.errors import InputError
from snp.experiment.benchmarks import FIRST
from snp.experiment.recipes import RECIPES, Phase
from snp.files import read_json
from snp.models import config as configs

PASSES = 4
"""Forward passes that a training step is worth: one, two backward, and one again for activation checkpointing."""
COPIES = 4
"""Of the weights in a saved state, in 32 bits each: weights, their average, and two moments of AdamW. A GPU holds their
gradients too."""
MEASURED = home() / "results" / "bench" / "scaling.json"
GPUS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
DRAWS = 4000


@dataclass(frozen=True)
class Cluster:
    """What is assumed of the machines.

    Args:
        peak: FLOP/s of a GPU in bfloat16, NVIDIA's data sheet of the A100. share: of it that is reached. [ours]
        half: captions on a GPU at which half of that share is reached: small batches leave it idle. [ours]
        node: GPUs in a node.
        within, between: bytes/s around the ring inside a node (three quarters of the 300 GB/s that the data sheet gives
            NVLink in one direction), and between nodes (one port of 200 Gbit/s each). [ours]
        hop: seconds of each step around the ring. [ours]
        hidden: share of the backward pass behind which gradients travel unseen. [ours]
        loaders: processes that decode pictures for each GPU, at the speed of the processor on which decoding was
            measured: of eight processors all but the one that trains. [ours]
    """

    peak: float = 312e12
    share: float = 0.30
    half: float = 1.0
    node: int = 8
    within: float = 225e9
    between: float = 25e9
    hop: float = 15e-6
    hidden: float = 0.5
    loaders: int = 7

    def compute(self, flops: float, captions: float) -> float:
        """Seconds of a step's arithmetic on one GPU with so many captions of so many operations each."""
        return flops * captions / (self.peak * self.share * captions / (captions + self.half))

    def all_reduce(self, size: float, gpus: int) -> float:
        """Seconds to add up `size` bytes over all GPUs: a ring inside every node, then one of the nodes."""
        inside, nodes = min(gpus, self.node), max(1, gpus // self.node)
        seconds = 2 * (inside - 1) / inside * size / self.within + 2 * (inside - 1) * self.hop
        return seconds + 2 * (nodes - 1) / nodes * size / self.between + 2 * (nodes - 1) * self.hop


@dataclass(frozen=True)
class Point:
    """A run on so many GPUs: seconds of a step, captions a second, and the share of what they could do at best.

    at_once: captions that are on a GPU at the same time. decoding: seconds in which the pictures of a step are decoded.
    """

    gpus: int
    step: float
    throughput: float
    efficiency: float
    at_once: float
    decoding: float


@dataclass(frozen=True)
class Work:
    """What a step of a run is made of.

    Args:
        flops: of a sample in training. size: bytes of the gradients.
        batch: captions of a step. parts: in which one process passes it (`Phase.accumulate`).
        decoding: processor seconds of a picture.
    """

    flops: float
    size: float
    batch: int
    parts: int = 1
    decoding: float = 0.0

    def parts_on(self, gpus: int) -> int:
        """In which each of so many processes passes its share, as the training loop has it."""
        return min(-(-self.parts // gpus), max(self.batch // gpus, 1))


def simulate(work: Work, spread: np.ndarray, cluster: Cluster, gpus: int) -> Point:
    """One run whose batch is shared out over `gpus`: a step ends when the slowest of them is done, and no sooner than
    the pictures of the next one are decoded.

    Args:
        spread: measured step times over their mean; every GPU draws its own of them in every step.
    """
    share, parts = work.batch / gpus, work.parts_on(gpus)
    alone = parts * cluster.compute(work.flops, share / parts)
    draws = np.random.default_rng(gpus).choice(spread, (DRAWS, gpus)).max(1)
    seen = max(0.0, cluster.all_reduce(work.size, gpus) - cluster.hidden * alone * 2 / PASSES) if gpus > 1 else 0.0
    decoding = work.decoding * share / cluster.loaders
    step = max(alone * float(draws.mean()) + seen, decoding)
    best = cluster.compute(work.flops, work.batch)
    return Point(gpus, step, work.batch / step, best / (gpus * step), share / parts, decoding)


def rows(found: dict[str, Any], cluster: Cluster) -> pd.DataFrame:
    """Every sort of run at paper scale: steps, samples, what a GPU holds and takes, size of state and of weights."""
    lines = []
    for name in FIRST:
        training, counted = getattr(RECIPES["paper"], name), found["counted"][name]
        first = "refcoco, refcoco+" if name == "mdetr" else "coco"
        phases: dict[str, Phase] = {"pretrain": training.pretrain, "compress": training.compress,
                                    f"finetune {first}": training.finetune}  # fmt: skip
        phases |= {f"finetune {benchmark}": phase for benchmark, phase in training.tune.items()}
        for kind, phase in phases.items():
            point = simulate(work(found, name, phase), spread(found), cluster, cluster.node)
            gigabytes = 4 * counted["parameters"] / 1e9
            lines.append({
                "model": name,
                "run": kind,
                "steps": f"{phase.steps:,}",
                "batch": str(phase.batch),
                "at once": f"{point.at_once:g}",
                "a GPU holds": f"{held(found, name, point.at_once) / 1e9:.0f} GB",
                "GPU hours": f"{cluster.node * point.step * phase.steps / 3600:,.1f}",
                "hours on 8 GPUs": f"{point.step * phase.steps / 3600:,.1f}",
                "decoding": f"{point.decoding / point.step:.0%}",
                "state": f"{2 * COPIES * gigabytes:.1f} GB",
                "weights": f"{gigabytes:.1f} GB",
            })  # fmt: skip
    return pd.DataFrame(lines)


def work(found: dict[str, Any], name: str, phase: Phase) -> Work:
    """What a step of this phase is made of, from what was counted."""
    counted = found["counted"][name]
    return Work(PASSES * counted["forward_flops"], 4 * counted["parameters"], phase.batch, phase.accumulate,
                found["decoding"][name])  # fmt: skip


def held(found: dict[str, Any], name: str, at_once: float) -> float:
    """Bytes on a GPU with so many of the largest pictures: all copies of the weights, and what passes make."""
    counted, config = found["counted"][name], getattr(configs, getattr(RECIPES["paper"], name).model)
    copies = 4 * (COPIES + 1) * counted["parameters"]
    return float(copies + counted["fixed_bytes"] + at_once * config.image_tokens * counted["patch_bytes"])


def spread(found: dict[str, Any]) -> np.ndarray:
    """Step times of one process over their median, as measured; what the machine did beside is in them."""
    times = np.array(found["measured"]["half"])
    return times / np.median(times)


def curve(found: dict[str, Any], name: str, cluster: Cluster) -> list[Point]:
    """One run of a model from one GPU to one caption a GPU."""
    phase: Phase = getattr(RECIPES["paper"], name).compress
    step = work(found, name, phase)
    return [simulate(step, spread(found), cluster, gpus) for gpus in GPUS if gpus <= phase.batch]


def checked(found: dict[str, Any]) -> str:
    """The model against a measurement: two processes on this machine, whose step and all-reduce are known."""
    seen = found["measured"]
    times, half = np.array(seen["beside"]), float(np.mean(seen["half"]))
    draws = np.random.default_rng(0).choice(times, (DRAWS, 2)).max(1)
    told, true = float(draws.mean()) + seen["all_reduce"], float(np.mean(seen["together"]))
    return (
        f"Two processes on this machine, half of {seen['batch']} captions each: a step takes {1e3 * true:.0f} ms, "
        f"the model says {1e3 * told:.0f} ms\n(one process alone: {1e3 * half:.0f} ms for half, "
        f"{1e3 * float(np.mean(seen['whole'])):.0f} ms for all; all-reduce of {seen['bytes'] / 1e6:.1f} MB: "
        f"{1e3 * seen['all_reduce']:.1f} ms)."
    )


def markdown(path: Path, cluster: Cluster = Cluster()) -> str:
    """Tables of costs and of throughput, from the measurements in a file."""
    found = _read(path)
    costs = rows(found, cluster).to_markdown(index=False, disable_numparse=True)
    growth = pd.DataFrame(
        {
            "GPUs": str(gpus),
            "captions/s": f"{point.throughput:,.0f}",
            "efficiency": f"{point.efficiency:.0%}",
            "compressions beside each other": f"{max(1, gpus // cluster.node)}",
            "all together, captions/s": f"{together:,.0f}",
        }
        for gpus, point, together in _growth(found, cluster)
    )
    parts = [assumed(found, cluster), costs, growth.to_markdown(index=False, disable_numparse=True), checked(found)]
    return "\n\n".join(parts) + "\n"


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise InputError(path, "file not found", "`snp bench scaling` measures what it holds; it comes with a checkout")
    return read_json(path)


def assumed(found: dict[str, Any], cluster: Cluster) -> str:
    """What stands behind the numbers, in one paragraph."""
    sizes = "; ".join(
        f"{name}: {counted['parameters'] / 1e6:.0f}M parameters, {counted['forward_flops'] / 1e9:,.0f} GFLOP a sample, "
        f"the mean over the sizes of pictures in training ({counted['largest_flops'] / 1e9:,.0f} for the largest), "
        f"{counted['patch_bytes'] / 1e3:.0f} kB a patch"
        for name, counted in found["counted"].items()
    )
    decoding = ", ".join(f"{1e3 * seconds:.0f} ms ({name})" for name, seconds in found["decoding"].items())
    varied = np.std(spread(found)) / np.mean(spread(found))
    return (
        f"Counted: {sizes}; a training step is worth {PASSES} forward passes; a picture takes a processor {decoding} "
        f"from its file to a batch, and {cluster.loaders} decode beside each GPU. A GPU holds {COPIES + 1} copies of "
        f"the weights, and what passes make of as many of the largest pictures as are on it at once. Assumed: GPUs of "
        f"{cluster.peak / 1e12:.0f} TFLOP/s (A100, bfloat16), {cluster.share:.0%} of it reached, half of that with "
        f"{cluster.half:g} sample on a GPU; {cluster.node} GPUs a node; all-reduce at {cluster.within / 1e9:.0f} GB/s "
        f"inside and {cluster.between / 1e9:.0f} GB/s between nodes, {1e6 * cluster.hop:.0f} µs a hop; "
        f"{cluster.hidden:.0%} of the backward pass hides it. Simulated: {DRAWS:,} steps, each as long as the slowest "
        f"GPU's, whose times vary as measured on one processor (coefficient of variation {varied:.0%})."
    )


def _growth(found: dict[str, Any], cluster: Cluster) -> list[tuple[int, Point, float]]:
    """GPUs; MDETR's run on them or on as many as its batch can feed; runs on a node each, beside each other."""
    points = curve(found, "mdetr", cluster)
    by_gpus = {point.gpus: point for point in points}
    lines = []
    for gpus in GPUS:
        point = by_gpus.get(gpus, points[-1])
        beside = by_gpus[min(gpus, cluster.node)].throughput * max(1, gpus // cluster.node)
        lines.append((gpus, point, beside))
    return lines


def figure(measured: Path, path: Path, cluster: Cluster = Cluster()) -> Path:
    """Draw throughput over GPUs: one run, whose batch ends it, and rows beside each other; equal input, equal bytes."""
    found = _read(measured)
    with drawing.picture(path, (10, 4.2), dpi=150) as canvas:
        for axes, name in zip(canvas.subplots(1, 2), FIRST, strict=True):
            points = curve(found, name, cluster)
            node = next(point for point in points if point.gpus == cluster.node)
            shared = [point.throughput for point in points]
            axes.plot([point.gpus for point in points], shared, "o-", label="one run, its batch shared out")
            beside = [gpus for gpus in GPUS if gpus >= cluster.node]
            axes.plot(beside, [node.throughput * gpus / cluster.node for gpus in beside], "s--",
                      label=f"rows beside each other, {cluster.node} GPUs each")  # fmt: skip
            axes.plot(GPUS, [shared[0] * gpus for gpus in GPUS], ":", color=drawing.GREY, label="without any loss")
            title = f"{name}, paper scale: simulated"
            axes.set(xscale="log", yscale="log", xlabel="GPUs", ylabel="samples/s", title=title)
            axes.set_xticks(GPUS, [str(gpus) for gpus in GPUS])
            axes.minorticks_off()
            axes.legend()
    return path
