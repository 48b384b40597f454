"""What trimming saves in time: what runs learned to keep is kept again, beside the dense model, in interleaved pairs.

Time depends on how many tokens stay, not on which: so models here have random weights, their gates do their work, and
then keep so many tokens of each input as a run's inputs kept, drawn from what was measured of it.
"""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from rich.progress import track
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from snp.bench.pairs import Pairs, pairs
from snp.checkout import home
from snp.errors import InputError
from snp.experiment.rows import Row
from snp.experiment.tables import rows
from snp.files import write_json
from snp.models.config import DESK
from snp.models.mdetr import MDETR
from snp.report.cheaper import TIMES
from snp.runs.manifest import bench_state
from snp.runs.metrics import Trimmed
from snp.runs.store import Store
from snp.trimming.trim import Trim
from snp.trimming.trimmer import Trimmer, untrimmed

THREADS = (1, 2)
BATCHES = {1: 200, 32: 30}
"""Captions at a time -> pairs."""
PAPER = {"width": 768, "depth": 12, "heads": 12, "side": 14}
"""DeiT-B/16 on pictures of 224 pixels: 196 tokens."""
WORDS = (3, 12)
"""Fewest and most tokens of a caption."""


class Replay(Trimmer):
    """Gates do their work, and then each row keeps as many tokens in every layer as it is told.

    Attributes:
        shares_RS: of all tokens, for the rows of the pass that is next. whole: how many those are.
    """

    shares_RS: Tensor
    whole: int

    def _kept(self, gate: nn.Module, x: Tensor, keep: Tensor, places: Tensor | None, guide: Tensor | None) -> Tensor:
        super()._kept(gate, x, keep, places, guide)
        layer = next(int(name) for name, one in self.tokens.items() if one is gate)
        count = (self.shares_RS[: len(x), layer] * self.whole).round().clamp(min=self.least)
        order = torch.rand_like(keep).masked_fill(keep < 0.5, -1.0).argsort(1, descending=True).argsort(1)
        return (order < count[:, None]).to(keep)


def drawn(found: Trimmed, depth: int, captions: int, seed: int) -> Tensor:
    """Shares of tokens in every layer of captions drawn by chance [captions, depth], falling from layer to layer.

    A caption keeps on average what one of the run's inputs did (of which the quantiles are known); its layers share in
    that as all inputs' did, read off between layers where the tower is deeper than the run's.
    """
    random, layers = np.random.default_rng(seed), np.asarray(found.tokens_by_layer)
    whole = np.interp(np.linspace(0, 1, depth), np.linspace(0, 1, len(layers)), layers)
    own = np.interp(random.random(captions), np.linspace(0, 1, len(found.tokens_deciles)), found.tokens_deciles)
    dropped = (1 - whole)[None] * ((1 - own) / max(1 - whole.mean(), 1e-6))[:, None]
    return torch.from_numpy(np.minimum.accumulate(1 - dropped.clip(0, 1), 1)).float()


def trimming(store: Store, write: bool = True) -> str:
    """Measure all rows of Table 5 that trim the dense model of scenes on expressions and are in the store.

    Raises:
        InputError: there is none.
    """
    known = [
        (row, found)
        for row in rows("table5", "desk")
        if row.method == "dense" and row.benchmarks == ("refcoco",)
        and isinstance(row.special, Trim) and row.special.policy == "learned"
        if (result := store.find(row.finetune(0, "refcoco"))) and (found := result.scores.trimmed)
        and row.special.heads == 1
    ]  # fmt: skip
    if not known:
        raise InputError(store.root, "holds no row that trims", "`snp run table5` makes them")
    threads = torch.get_num_threads()
    try:
        lines = [line for row, found in track(known, "rows", total=len(known)) for line in _lines(row, found)]
    finally:
        torch.set_num_threads(threads)
    if write:
        write_json(home() / TIMES, {"manifest": bench_state(), "measured": lines})
    return "\n".join(map(_told, lines))


def _lines(row: Row, found: Trimmed) -> Iterator[dict[str, Any]]:
    trim = row.special
    assert isinstance(trim, Trim)
    for threads in THREADS:
        torch.set_num_threads(threads)
        for batch, rounds in BATCHES.items():
            for in_order in (False, True) if batch > 1 else (False,):
                shares = drawn(found, DESK.depth, batch * rounds, seed=0)
                if in_order:  # as one who has all captions at hand, and knows how much each will keep, would do
                    shares = shares[shares.mean(1).argsort()]
                measured, padded = whole_model(trim, shares.view(rounds, batch, -1))
                about = {"row": row.label, "shape": "desk", "batch": batch, "threads": threads, "sorted": in_order}
                yield about | {"padding": padded} | asdict(measured)
        shares = drawn(found, PAPER["depth"], 30, seed=0)[:, None]
        about = {"row": row.label, "shape": "paper", "batch": 1, "threads": threads, "sorted": False, "padding": 0.0}
        yield about | asdict(tower(trim, shares))


@torch.inference_mode()
def whole_model(trim: Trim, shares_KBS: Tensor) -> tuple[Pairs, float]:
    """Dense time over trimmed time of the desk model, a picture for each caption; and the share of padded tokens."""
    torch.manual_seed(0)
    K, B, _ = shares_KBS.shape
    model = MDETR(DESK)
    model.add_trimmer(trim)
    model.trimmer = _replay(trim, DESK.width, DESK.depth, DESK.heads, DESK.image_tokens, DESK.queries)
    model.eval()
    lengths = torch.randint(WORDS[0], WORDS[1] + 1, (K, B))
    padded = []

    def captions(at: int) -> tuple[Tensor, ...]:
        text = torch.arange(int(lengths[at].max())) < lengths[at][:, None]
        images = torch.randint(0, 256, (B, 3, DESK.image_size, DESK.image_size), dtype=torch.uint8)
        return images, torch.arange(B), torch.ones_like(text, dtype=torch.long), text

    inputs = [captions(at) for at in range(K)]

    def dense(at: int) -> None:
        with untrimmed(model):
            model(*inputs[at])

    def trimmed(at: int) -> None:
        assert isinstance(model.trimmer, Replay)
        model.trimmer.shares_RS = shares_KBS[at]
        kept = model(*inputs[at]).kept
        padded.append(1 - float(kept.keep_RN.mean()))

    return pairs(dense, trimmed, K), float(np.mean(padded))


@torch.inference_mode()
def tower(trim: Trim, shares_KBS: Tensor) -> Pairs:
    """The same of the layers of a vision tower of the paper's shape, one picture and caption at a time."""
    torch.manual_seed(0)
    width, depth, heads, side = (PAPER[name] for name in ("width", "depth", "heads", "side"))
    vision = VisionTransformer(img_size=side, patch_size=1, embed_dim=width, depth=depth, num_heads=heads,
                               class_token=False, num_classes=0, global_pool="").eval()  # fmt: skip
    trimmer = _replay(trim, width, depth, heads, side**2, 1).eval()
    x, guide, index = torch.randn(1, side**2, width), torch.randn(1, width), torch.zeros(1, dtype=torch.long)
    every = torch.tensor([float(side**2)])

    def dense(at: int) -> None:
        vision.norm(vision.blocks(x))

    def trimmed(at: int) -> None:
        trimmer.shares_RS = shares_KBS[at]
        trimmer(vision, x, None, every, guide if trimmer.by_text else None, index, index)

    return pairs(dense, trimmed, len(shares_KBS))


def _replay(trim: Trim, width: int, depth: int, heads: int, tokens: int, least: int) -> Replay:
    made = Replay(trim, width, depth, heads, tokens, least)
    made.whole = tokens
    return made


def _told(line: dict[str, Any]) -> str:
    order = ", sorted" if line["sorted"] else ""
    return (
        f"{line['row']:40} {line['shape']:6} batch {line['batch']:2}{order:8} {line['threads']} threads  "
        f"{1e3 * line['one']:7.2f} ms dense  {1e3 * line['other']:7.2f} ms trimmed  "
        f"{line['ratio']:.2f}x [{line['low']:.2f}, {line['high']:.2f}]  {line['padding']:.0%} padding"
    )
