"""What a model that trims kept of the samples of a split, and what they cost beside the dense model."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from snp.data.batch import Batch
from snp.data.dataset import GroundingSet
from snp.models import pictures
from snp.models.cost import cost
from snp.models.mdetr import MDETR, Grounding
from snp.tasks import trimming
from snp.tasks.passes import passes
from snp.training.learning import Objective

CAPTIONS = 4
"""Of one picture, for what they cost where its part is kept: as many as drawn scenes have in an evaluation split."""


def objective(steps: int) -> Objective:
    """The named, weighted losses of a model that trims, in a phase of so many steps."""

    def losses(model: nn.Module, batch: Batch, overrides: dict[str, Tensor] | None, step: int) -> dict[str, Tensor]:
        assert isinstance(model, MDETR) and overrides is None
        return trimming.losses(model, batch, step, steps)

    return losses


def kept(model: MDETR, data: GroundingSet, captions: int = 128) -> dict[str, Any]:
    """Shares of tokens and heads kept, and of operations done, over the captions of `data`.

    Shares are of the dense model on the same captions: mean, and 10th and 90th percentile of captions. `flops`: where
    each caption's picture is new; `flops_cached`: a mean over `CAPTIONS` of one picture, what depends on it alone being
    done once. `tokens_by_layer`, `heads_by_layer`: means. `target`: share of the tokens on what a caption asks for that
    are left at the end, where captions ask for boxes.
    """
    dense = MDETR(model.config.model_copy(update={"trim": None}))

    def look(index: np.ndarray, batch: Batch, out: Grounding) -> tuple[Tensor, ...]:
        words_B = batch.text_BL.sum(1)
        assert out.kept is not None
        whole, done = cost(dense, None, words_B, out.kept.all_R), cost(model, out.kept, words_B)
        flops = [one.over(n) for one in (done, whole) for n in (1, CAPTIONS)]
        share_BS = out.kept.tokens_RS / out.kept.all_R[:, None]
        return torch.stack(flops, 1), share_BS, out.kept.heads_RS, on_target(out, batch)

    flops, tokens, heads, target = map(torch.cat, zip(*passes(model, data, captions, look), strict=True))
    new, cached, dense_new, dense_cached = flops.unbind(1)
    found = {
        "tokens": _spread(tokens.mean(1)),
        "heads": _spread(heads.mean(1)),
        "tokens_deciles": np.percentile(tokens.mean(1).numpy(), range(0, 101, 10)).tolist(),
        "tokens_by_layer": tokens.mean(0).tolist(),
        "heads_by_layer": heads.mean(0).tolist(),
        "flops": _spread(new / dense_new.mean()),
        "flops_cached": _spread(cached / dense_cached.mean()),
    }
    asked = target[target.isfinite()]
    return found | ({"target": float(asked.mean())} if len(asked) else {})


def on_target(out: Grounding, batch: Batch) -> Tensor:
    """Share of the image tokens within the first box of each caption that are left, [B]; nan where there are none."""
    assert out.kept is not None
    if out.patches is None:  # of pictures that are no squares
        return torch.full((len(batch),), torch.nan)
    side = math.isqrt(int(out.kept.all_R[0]))
    whole = pictures.centres([(side, side)], batch.boxes_BM4)
    left = _within(out.patches.centres_N2, batch) & (out.kept.keep_RN > 0.5)
    return left.sum(1) / _within(whole, batch).sum(1)


def _within(centres: Tensor, batch: Batch) -> Tensor:
    """Which tokens, with centres [N, 2] or [B, N, 2], lie in the first box of each caption: [B, N]."""
    box = batch.boxes_BM4[:, :1]
    return ((centres - box[..., :2]).abs() <= box[..., 2:] / 2).all(-1) & batch.valid_BM[:, :1]


def _spread(values_N: Tensor) -> dict[str, float]:
    low, high = np.percentile(values_N.numpy(), (10, 90)).tolist()
    return {"mean": float(values_N.double().mean()), "p10": low, "p90": high}
