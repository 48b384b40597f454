"""Expressions that may have no target, as gRefCOCO counts them: boxes for those that have one, and none for the others.

How sure a model is of a box is 1 - P(no object) of its query; how sure it is of a target, that of its surest box. It
answers with all boxes from a threshold on.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from scipy.stats import rankdata
from torch import Tensor
from torchvision.ops import box_convert, box_iou, generalized_box_iou, nms

from snp.data.annotations import Entry
from snp.data.batch import Batch
from snp.data.dataset import GroundingSet
from snp.errors import InputError
from snp.models.family import Answering
from snp.models.mdetr import Grounding
from snp.tasks.outputs import check_finite
from snp.tasks.passes import passes

OVERLAP = 0.5
"""Of a right box with its object; of boxes that are taken for one object [ours]."""
OFFICIAL = 0.7
"""The threshold of gRefCOCO's public evaluator, for whatever model."""
NONE = "no target"


def score(
    boxes_NQ4: Tensor,
    rank_NQ: Tensor,
    targets: Sequence[Tensor],
    kinds: Sequence[Sequence[str]],
    threshold: float | None = None,
    compatible: bool = False,
) -> dict[str, Any]:
    """How well captions with a target are told from those without, over all captions and by kind.

    auroc: of the surest box, captions with a target against those without, ties count half. precision@1: the surest box
    has an IoU of at least 0.5 with one of the targets. n_acc and t_acc: no box for captions without a target; some for
    those with one. precision@f1: as many boxes as targets, each with a target of its own (F1 = 1). A kind is held
    against all captions that, other than its own, have a target or have none.

    MDETR's queries say one object several times: of boxes that overlap by half, the surest counts alone. [ours]

    Args:
        boxes_NQ4: centre and size. rank_NQ: how sure the model is of each.
        targets: of every caption the true boxes [m, 4], centre and size; m = 0 where it has no target.
        kinds: of every caption, those that it is counted in.
        threshold: from which boxes count; by default the lowest one with which precision@f1 is highest.
        compatible: as gRefCOCO's public evaluator: threshold 0.7, GIoU instead of IoU, targets taken in the order of
            GIoU instead of matched, and all boxes count.

    Raises:
        InputError: no caption has a target, or all have; boxes or ranks are not finite.
    """
    absent_N = np.array([not len(target) for target in targets], bool)
    if absent_N.all() or not absent_N.any():
        raise InputError("captions", f"{'none has' if absent_N.all() else 'all have'} a target", "both are needed")
    check_finite(lambda n: f"caption {n}", boxes_NQ4, rank_NQ)
    corners_NQ4 = box_convert(boxes_NQ4, "cxcywh", "xyxy").double()
    corners = [box_convert(target, "cxcywh", "xyxy").double() for target in targets]
    answers = list(zip(corners_NQ4, rank_NQ.double(), corners, strict=True))
    first_N = rank_NQ.max(1).values.double().numpy()
    found_N = np.array([_hit(boxes_Q4[rank_Q.argmax()], target) for boxes_Q4, rank_Q, target in answers])
    low_N, high_N = np.array([_between(*answer, compatible) for answer in answers]).T
    if compatible:
        threshold = OFFICIAL
    elif threshold is None:
        threshold = best(low_N, high_N)
    exact_N, said_N = (low_N < threshold) & (threshold <= high_N), first_N >= threshold

    def summary(of_N: np.ndarray) -> dict[str, Any]:
        there_N, gone_N = of_N & ~absent_N, of_N & absent_N
        figures = {"n": int(of_N.sum()), "precision@f1": float(exact_N[of_N].mean())}
        figures["auroc"] = auroc(
            first_N[there_N if there_N.any() else ~absent_N], first_N[gone_N if gone_N.any() else absent_N]
        )
        if there_N.any():
            figures |= {"precision@1": float(found_N[there_N].mean()), "t_acc": float(said_N[there_N].mean())}
        if gone_N.any():
            figures["n_acc"] = float(1 - said_N[gone_N].mean())
        return figures

    names = sorted({name for own in kinds for name in own})
    by_type = {name: summary(np.array([name in own for own in kinds])) for name in names}
    return summary(np.ones(len(targets), bool)) | {"threshold": float(threshold), "by_type": by_type}


def auroc(with_N: np.ndarray, without_M: np.ndarray) -> float:
    """The chance that one of the first is larger than one of the second; half of it where they are equal."""
    n, m = len(with_N), len(without_M)
    ranks = rankdata(np.concatenate([with_N, without_M]))[:n]
    return float((ranks.sum() - n * (n + 1) / 2) / (n * m))


def best(low_N: np.ndarray, high_N: np.ndarray) -> float:
    """The lowest threshold t for which low < t <= high is true of the most captions; it is one of `high`, or above all.

    Never is it true where low >= high.
    """
    low, high = (np.sort(each[low_N < high_N]) for each in (low_N, high_N))
    above = np.nextafter(max(1.0, *low[-1:]), np.inf)
    tried = np.append(high[np.isfinite(high)], above)
    return float(tried[(np.searchsorted(low, tried) - np.searchsorted(high, tried)).argmax()])


def _between(boxes_Q4: Tensor, rank_Q: Tensor, target_M4: Tensor, compatible: bool) -> tuple[float, float]:
    """Between which thresholds, above the first and up to the second, the boxes are the targets and no others."""
    order = rank_Q.argsort(descending=True, stable=True) if compatible else nms(boxes_Q4, rank_Q, OVERLAP)
    ranks, m = [*rank_Q[order].tolist(), -np.inf], len(target_M4)
    if m == 0:
        return ranks[0], np.inf
    matches = _greedily if compatible else _matched
    if m >= len(ranks) or not matches(boxes_Q4[order[:m]], target_M4):
        return np.inf, -np.inf
    return ranks[m], ranks[m - 1]


def _matched(boxes_M4: Tensor, target_M4: Tensor) -> bool:
    """Whether every target can have a box of its own."""
    hit = (box_iou(boxes_M4, target_M4) >= OVERLAP).numpy()
    return bool(hit[linear_sum_assignment(hit, maximize=True)].all())


def _greedily(boxes_M4: Tensor, target_M4: Tensor) -> bool:
    """Whether every target gets a box where the pair of the largest GIoU is taken first."""
    giou = generalized_box_iou(boxes_M4, target_M4)
    for _ in range(len(target_M4)):
        box, target = divmod(int(giou.argmax()), len(target_M4))
        if giou[box, target] < OVERLAP:
            return False
        giou[box], giou[:, target] = -1.0, -1.0
    return True


def _hit(box_4: Tensor, target_M4: Tensor) -> bool:
    """Whether a box is right for any of the targets."""
    return bool((box_iou(box_4[None], target_M4) >= OVERLAP).any())


def kinds_of(entry: Entry) -> tuple[str, ...]:
    """What a caption is counted in: the type of an expression; of one without a target what was changed, how hard."""
    if entry.boxes:
        return (entry.type,) if entry.type else ()
    return tuple(f"{NONE}: {name}" for name in (entry.type, entry.difficulty) if name)


def evaluate(
    model: Answering,
    data: GroundingSet,
    threshold: float | None = None,
    compatible: bool = False,
    captions: int = 128,
) -> dict[str, Any]:
    """Score the model on all captions of `data`, those without a box being those without a target.

    Raises:
        InputError: as `score`; or the model says of a caption what is not finite.
    """

    def look(index: np.ndarray, batch: Batch, out: Grounding) -> list[tuple[int, Tensor, Tensor, Tensor]]:
        rank_BQ = 1 - out.logits_KBQS[-1].softmax(-1)[..., -1]
        targets = [boxes_M4[valid_M] for boxes_M4, valid_M in zip(batch.boxes_BM4, batch.valid_BM, strict=True)]
        return list(zip(index.tolist(), out.boxes_KBQ4[-1], rank_BQ, targets, strict=True))

    seen = [one for group in passes(model, data, captions, look) for one in group]
    if not seen:
        raise InputError("captions", "there are none to be judged")
    order, boxes, ranks, targets = zip(*seen, strict=True)
    kinds = [kinds_of(data.entries[i]) for i in order]
    return score(torch.stack(boxes), torch.stack(ranks), targets, kinds, threshold, compatible)
