"""Referring expression comprehension: one box for one sentence; precision@k and mean IoU."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_convert

from snp.data.batch import Batch
from snp.data.dataset import GroundingSet
from snp.errors import InputError
from snp.models.family import Answering
from snp.models.mdetr import Grounding
from snp.tasks.grounding import giou_loss
from snp.tasks.outputs import check_finite
from snp.tasks.passes import passes

RANKS = (1, 5, 10)


def pairwise_iou(boxes_NQ4: Tensor, target_N4: Tensor) -> Tensor:
    """IoU [N, Q] of every predicted box with the one true box; boxes as centre and size."""
    a, b = box_convert(boxes_NQ4, "cxcywh", "xyxy"), box_convert(target_N4, "cxcywh", "xyxy")[:, None]
    overlap = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    union = boxes_NQ4[..., 2:].prod(-1) + target_N4[:, None, 2:].prod(-1) - overlap
    return overlap / union.clamp(min=1e-12)


def score(
    boxes_NQ4: Tensor, rank_NQ: Tensor, target_N4: Tensor, types: np.ndarray, mdetr_compatible: bool = False
) -> dict[str, Any]:
    """Precision at 1, 5 and 10 (IoU >= 0.5) and mean IoU of the first box, over all and by expression type.

    Args:
        rank_NQ: 1 - P(no object) of each query; boxes are tried from the highest down, ties in query order.
        mdetr_compatible: threshold GIoU instead, and of equally ranked boxes try the one with the larger corners first,
            x0 before y0, x1 and y1, as MDETR's public evaluator does.

    Raises:
        InputError: no expression; or one whose boxes or ranks are not finite.
    """
    if not len(boxes_NQ4):
        raise InputError("expressions", "there are none to be judged")
    check_finite(lambda n: f"expression {n}", boxes_NQ4, rank_NQ)
    in_order = rank_NQ.argsort(dim=1, descending=True, stable=True)
    order = _by_corners(rank_NQ, boxes_NQ4) if mdetr_compatible else in_order
    iou = pairwise_iou(boxes_NQ4, target_N4).gather(1, order)
    judged = 1 - giou_loss(boxes_NQ4, target_N4[:, None]).gather(1, order) if mdetr_compatible else iou
    right = (judged >= 0.5).cummax(1).values.numpy()
    first = iou[:, 0].double().numpy()

    def summary(where: np.ndarray) -> dict[str, Any]:
        at = {f"precision@{k}": float(right[where, min(k, right.shape[1]) - 1].mean()) for k in RANKS}
        return {"n": int(where.sum()), **at, "mean_iou": float(first[where].mean())}

    by_type = {str(t): summary(types == t) for t in sorted(set(types.tolist()))}
    return summary(np.ones(len(first), bool)) | {"by_type": by_type}


def _by_corners(rank_NQ: Tensor, boxes_NQ4: Tensor) -> Tensor:
    """Queries from the highest rank down; of equal ranks, from the largest corners down."""
    corners = box_convert(boxes_NQ4, "cxcywh", "xyxy").unbind(-1)
    keys = [key.numpy() for key in (*reversed(corners), rank_NQ)]  # the last one counts most
    return torch.from_numpy(np.lexsort(keys)[:, ::-1].copy())


def evaluate(model: Answering, data: GroundingSet, captions: int = 128) -> dict[str, Any]:
    """Score the model on every expression of `data`; each image passes the vision tower once for all its sentences.

    Only pixels and words reach the model: spans and boxes of the batch are used for judging alone.

    Raises:
        InputError: no expression; or one of which the model says what is not finite.
    """
    if not len(data):
        raise InputError("expressions", "there are none to be judged")

    def look(index: np.ndarray, batch: Batch, out: Grounding) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        rank_BQ = 1 - out.logits_KBQS[-1].softmax(-1)[..., -1]
        return out.boxes_KBQ4[-1], rank_BQ, batch.boxes_BM4[:, 0], torch.from_numpy(index)

    boxes, ranks, targets, order = map(torch.cat, zip(*passes(model, data, captions, look), strict=True))
    return score(boxes, ranks, targets, data.types[order.numpy()])
