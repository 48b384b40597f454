"""Losses of grounding: MDETR's set loss after Hungarian matching, and dense losses on image tokens for small models."""

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad
from torchvision.ops import box_convert, generalized_box_iou_loss, sigmoid_focal_loss

from snp.data.batch import Batch
from snp.models.mdetr import MDETR, Grounding, Patches
from snp.tasks.precision import in_float32

TEMPERATURE = 0.07
NO_OBJECT_WEIGHT = 0.1
WEIGHTS = {
    "slot": 1.0,
    "l1": 5.0,
    "giou": 2.0,
    "contrast": 1.0,
    "score": 2.0,
    "patch_box": 1.0,
    "towers": 1.0,
    "category": 1.0,
}
"""slot, l1, giou, contrast: MDETR. score, patch_box, towers, category: dense losses of two-stage proposals. [ours]"""


def giou_loss(a: Tensor, b: Tensor) -> Tensor:
    """1 - GIoU of centre-size boxes, broadcast over leading axes."""
    a, b = torch.broadcast_tensors(box_convert(a, "cxcywh", "xyxy"), box_convert(b, "cxcywh", "xyxy"))
    return generalized_box_iou_loss(a, b)


@torch.no_grad()
def match(logits_BQS: Tensor, boxes_BQ4: Tensor, batch: Batch) -> Tensor:
    """The query of every box, [B, M]; -1 where no box stands or no query is left. Costs: class 1, L1 5, GIoU 2.

    A query of which something is no number is taken before all others, so that the losses are no numbers either.
    """
    target_BMS = slots(batch.positive_BML, logits_BQS.shape[-1])
    cost = -torch.einsum("bqs,bms->bqm", logits_BQS.softmax(-1), target_BMS)
    ours, theirs = boxes_BQ4[:, :, None], batch.boxes_BM4[:, None]
    cost = cost + WEIGHTS["l1"] * (ours - theirs).abs().sum(-1) + WEIGHTS["giou"] * giou_loss(ours, theirs)
    cost = cost.nan_to_num(nan=-1e6, posinf=-1e6, neginf=-1e6)
    found = torch.full(batch.valid_BM.shape, -1)
    counts = batch.valid_BM.sum(1).tolist()
    for b, (matrix, m) in enumerate(zip(cost.cpu().numpy(), counts, strict=True)):
        queries, targets = linear_sum_assignment(matrix[:, :m])
        found[b, targets] = torch.from_numpy(queries)
    return found.to(cost.device)


def slots(positive_BML: Tensor, S: int) -> Tensor:
    """The target over token slots of each box: uniform over its phrase's tokens, [B, M, S], S >= L + 1."""
    share = positive_BML.float() / positive_BML.sum(-1, keepdim=True).clamp(min=1)
    return pad(share, (0, S - share.shape[-1]))


def contrast(
    left_BXC: Tensor, token_BLC: Tensor, positive_BXL: Tensor, text_BL: Tensor, there_BX: Tensor | None = None
) -> Tensor:
    """MDETR's contrastive alignment, both directions, summed over rows that have a positive.

    Returns the two sums' mean of rows with positives on each side: each row costs its log-sum-exp minus the mean
    logit of its positives. Padding takes no part, so that what a caption costs does not depend on the longest one of
    its batch; in MDETR's public code it does. [ours] Nor do rows that are not `there`, of which none is positive.
    """
    logits = torch.einsum("bxc,blc->bxl", left_BXC, token_BLC) / TEMPERATURE
    logits = logits.masked_fill(~text_BL[:, None], -1e4)
    if there_BX is not None:
        logits = logits.masked_fill(~there_BX[..., None], -1e4)
    total = logits.new_zeros(())
    for axis in (2, 1):
        count = positive_BXL.sum(axis)
        mean = (logits * positive_BXL).sum(axis) / count.clamp(min=1)
        total = total + ((logits.logsumexp(axis) - mean) * (count > 0)).sum()
    return total / 2


def set_loss(out: Grounding, batch: Batch) -> dict[str, Tensor]:
    """Soft-token, L1, GIoU and contrastive losses of every decoder layer, re-matched at each, per box of the batch.

    Per caption where no caption has a box, as of questions; MDETR takes the whole sum there. [ours]
    """
    count = batch.divisor.valid_BM.sum()
    boxes = torch.where(count > 0, count, len(batch.divisor))
    losses = dict.fromkeys(("slot", "l1", "giou", "contrast"), out.logits_KBQS.new_zeros(()))
    for logits_BQS, boxes_BQ4, query_BQC in zip(out.logits_KBQS, out.boxes_KBQ4, out.query_KBQC, strict=True):
        query_BM = match(logits_BQS, boxes_BQ4, batch)
        b, m = (query_BM >= 0).nonzero(as_tuple=True)
        q = query_BM[b, m]
        target = torch.zeros_like(logits_BQS)
        target[..., -1] = 1
        target[b, q] = slots(batch.positive_BML, logits_BQS.shape[-1])[b, m]
        weight = torch.full(logits_BQS.shape[:2], NO_OBJECT_WEIGHT, device=target.device)
        weight[b, q] = 1
        losses["slot"] = losses["slot"] - ((logits_BQS.log_softmax(-1) * target).sum(-1) * weight).sum() / boxes
        found, wanted = boxes_BQ4[b, q], batch.boxes_BM4[b, m]
        losses["l1"] = losses["l1"] + (found - wanted).abs().sum() / boxes
        losses["giou"] = losses["giou"] + giou_loss(found, wanted).sum() / boxes
        positive = torch.zeros(*query_BQC.shape[:2], batch.tokens_BL.shape[1], dtype=torch.bool, device=target.device)
        positive[b, q] = batch.positive_BML[b, m]
        losses["contrast"] = losses["contrast"] + contrast(query_BQC, out.token_BLC, positive, batch.text_BL) / boxes
    return losses


def inside(centres_N2: Tensor, batch: Batch) -> Tensor:
    """Which image tokens belong to which box, [B, M, N]: their centre lies in it, or is the nearest to its own."""
    offset = (centres_N2 - batch.boxes_BM4[:, :, None, :2]).abs()
    within = (offset <= batch.boxes_BM4[:, :, None, 2:] / 2).all(-1)
    nearest = torch.zeros_like(within).scatter_(2, offset.square().sum(-1).argmin(2, keepdim=True), True)
    return (within | nearest) & batch.valid_BM[..., None]


def tokens_on_objects(centres_N2: Tensor, batch: Batch) -> Tensor:
    """How many image tokens lie on an object that their caption names, in the batch that losses are divided by.

    As many as there are captions where no caption has a box, as in `set_loss`: a token costs what it does elsewhere.
    """
    count = inside(centres_N2, batch.divisor).any(1).sum()
    return torch.where(count > 0, count, len(batch.divisor))


@in_float32
def patch_loss(patches: Patches, batch: Batch) -> dict[str, Tensor]:
    """Boxes of image tokens that lie on a named object, and their alignment with its phrase at the towers. [ours]

    Tokens that are trimmed take no part, or what they cost would teach gates to keep all.
    """
    within_BMN = inside(patches.centres_N2, batch)
    there_BN = None if patches.keep_BN is None else patches.keep_BN > 0.5
    if there_BN is not None:
        within_BMN = within_BMN & there_BN[:, None]
    area = batch.boxes_BM4[..., 2:].prod(-1, keepdim=True).masked_fill(~within_BMN, 2.0)
    owner_BN = area.argmin(1)  # a token on several objects answers for the smallest
    on_BN = within_BMN.any(1)
    b, n = on_BN.nonzero(as_tuple=True)
    found, wanted = patches.boxes_BN4[b, n], batch.boxes_BM4[b, owner_BN[b, n]]
    positive = torch.einsum("bmn,bml->bnl", within_BMN.float(), batch.positive_BML.float()) > 0
    count = tokens_on_objects(patches.centres_N2, batch)
    return {
        "patch_box": (5 * (found - wanted).abs().sum() + 2 * giou_loss(found, wanted).sum()) / count,
        "towers": contrast(patches.patch_BNC, patches.token_BLC, positive, batch.text_BL, there_BN) / count,
    }


def score_loss(score_BN: Tensor, centres_N2: Tensor, batch: Batch, keep_BN: Tensor | None = None) -> Tensor:
    """Focal loss of the image tokens' scores: which of them lie on an object that the caption names. [ours]"""
    loss_BN = sigmoid_focal_loss(score_BN, inside(centres_N2, batch).any(1).float(), reduction="none")
    if keep_BN is not None:
        loss_BN = loss_BN.masked_fill(keep_BN < 0.5, 0.0)
    return loss_BN.sum() / tokens_on_objects(centres_N2, batch)


class WarmUp(nn.Module):
    """The model beside a classifier of image tokens that only the first stage of pre-training has. [ours]

    Towers alone learn to see (category and box of every token on a named object) and to name (alignment with the
    phrase); alignment by itself stays at chance for thousands of steps.
    """

    def __init__(self, model: MDETR, categories: int) -> None:
        super().__init__()
        self.model = model
        self.category = nn.Linear(model.config.fusion_width, categories)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Losses of the towers alone, not yet weighted."""
        patches = self.model.towers_only(*batch.inputs)
        b, m, n = inside(patches.centres_N2, batch).nonzero(as_tuple=True)
        found = self.category(patches.image_BND[b, n]).float()
        share = len(b) / max(int(inside(patches.centres_N2, batch.divisor).sum()), 1)
        category = cross_entropy(found, batch.category_BM[b, m]) * share
        return patch_loss(patches, batch) | {"category": category}


@in_float32
def losses(out: Grounding, batch: Batch) -> dict[str, Tensor]:
    """All losses of one pass, not yet weighted."""
    found = set_loss(out, batch)
    if out.patches is not None and out.patch_score_BN is not None:
        found |= patch_loss(out.patches, batch)
        found["score"] = score_loss(out.patch_score_BN, out.patches.centres_N2, batch, out.patches.keep_BN)
    return found
