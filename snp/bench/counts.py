"""What is counted of the models of paper scale: parameters, operations, bytes, and processor time of decoding."""

import math
import time
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image
from rich.progress import track

from snp.bench.live import Live
from snp.bench.params import dense
from snp.compression import count
from snp.data.annotations import Entry
from snp.data.batch import Batch
from snp.data.dataset import GroundingSet
from snp.data.loading import Pictures
from snp.data.tokens import Vocabulary
from snp.data.views import Draws
from snp.experiment.recipes import RECIPES, Training
from snp.models import config as configs
from snp.models.checkpointing import checkpointing
from snp.models.family import build
from snp.models.pictures import grid
from snp.tasks.objective import losses
from snp.training.prepare import fit_of

WORDS = {"mdetr": 24, "glip": 176}
"""Tokens of a sample: a caption of MDETR's mixture with room to spare, and all classes of COCO in one prompt. [ours]"""
SHAPE = (3, 4)
"""Height to width of most of COCO's pictures."""
MEMORY = (480, 640)
"""Height and width of the pictures of which memory is counted."""
PHOTOGRAPHS = 60
"""Pictures that are decoded, as large as COCO's and as hard to decode."""


def counts(name: str) -> dict[str, float]:
    """Of the full-size model: parameters; operations of a sample's forward pass, the mean over the sizes of training;
    bytes that a training step takes beside weights, gradients and the optimizer: fixed ones, and of every patch of the
    pictures that pass at once.
    """
    torch.manual_seed(0)
    training: Training = getattr(RECIPES["paper"], name)
    config = getattr(configs, training.model)
    fit, model = fit_of(config), build(config)
    assert fit is not None and training.pretrain.sides is not None
    sizes = [fit(SHAPE, side) for side in training.pretrain.sides]
    flops = [count.flops(model, *_sample(name, [size]).inputs) for size in track(sizes, f"{name}: operations")]
    one, two = (_bytes(model, _sample(name, [MEMORY] * pictures)) for pictures in (1, 2))
    patches = math.prod(grid(MEMORY, config.patch))
    return {
        "parameters": sum(parameter.numel() for parameter in dense(config)[0].parameters()),
        "forward_flops": sum(flops) / len(flops),
        "largest_flops": max(flops),
        "fixed_bytes": 2 * one - two,
        "patch_bytes": (two - one) / patches,
    }


def _sample(name: str, sizes: list[tuple[int, int]]) -> Batch:
    """Pictures of these heights and widths, each with a caption that names three things."""
    B, L, M = len(sizes), WORDS[name], 3
    height, width = (max(sides) for sides in zip(*sizes, strict=True))
    box = torch.tensor([0.5, 0.5, 0.3, 0.3]).expand(B, M, 4)
    words = torch.ones(B, L, dtype=torch.int64)
    every = torch.ones(B, M, dtype=torch.bool)
    return Batch(
        torch.zeros(B, 3, height, width, dtype=torch.uint8),
        torch.arange(B),
        words,
        words > 0,
        box,
        every,
        every[..., None].expand(B, M, L),
        torch.zeros(B, M, dtype=torch.int64),
        sizes_I2=torch.tensor(sizes),
    )


def _bytes(model: torch.nn.Module, batch: Batch) -> int:
    """Most bytes that live beside weights and gradients while a batch passes forth and back, as at paper scale."""
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    with Live() as live, checkpointing(model), torch.autocast("cpu", torch.bfloat16):
        torch.stack(list(losses(model.train(), batch).values())).sum().backward()
    return live.peak


def decoding(name: str) -> float:
    """Processor seconds that a picture takes from its JPEG to a batch, at the sizes and with the crops of training."""
    training: Training = getattr(RECIPES["paper"], name)
    config, phase = getattr(configs, training.model), training.pretrain
    source = np.random.default_rng(0)
    with TemporaryDirectory() as folder:
        for i in range(PHOTOGRAPHS):  # shapes as coarse and noise as fine as in photographs
            coarse = Image.fromarray(source.integers(0, 256, (15, 20, 3), np.uint8)).resize((640, 480))
            noisy = np.asarray(coarse, np.int16) + source.normal(0, 8, (480, 640, 3)).astype(np.int16)
            Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(Path(folder) / f"{i}.jpg", quality=90)
        entries = [
            Entry(i, f"{i}.jpg", 480, 640, "a thing", "made", ((200, 150, 100, 90),), (((0, 7),),))
            for i in range(PHOTOGRAPHS)
        ]
        pictures = Pictures((Path(folder),), False, config.image_size, fit_of(config))
        data = GroundingSet(entries, pictures, Vocabulary.from_captions(["a thing"]), config.context)
        assert phase.sides is not None
        batches = data.stream(1, 0, draws=Draws(phase.sides, phase.crop, 0))
        next(batches)
        began = time.process_time()
        for _ in islice(batches, PHOTOGRAPHS):
            pass
        return (time.process_time() - began) / PHOTOGRAPHS
