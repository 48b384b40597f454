"""Detection as grounding: prompts of class names, GLIP's losses on ATSS assignment, detections, and their score."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from pycocotools.coco import COCO
from torch import Tensor
from torchvision.ops import batched_nms, box_convert, box_iou, generalized_box_iou_loss, sigmoid_focal_loss

from snp.data.annotations import Span
from snp.data.batch import Batch
from snp.data.dataset import GroundingSet
from snp.data.tokens import END, START, Vocabulary, cover
from snp.errors import InputError
from snp.models.anchors import NOWHERE
from snp.models.glip import GLIP, Detection
from snp.tasks import average_precision
from snp.tasks.grounding import slots
from snp.tasks.outputs import check_finite
from snp.tasks.passes import passes
from snp.tasks.precision import in_float32

CODING = (10.0, 10.0, 5.0, 5.0)
LARGEST = math.log(1000 / 16)
"""Largest log of a box's growth over its anchor."""
CANDIDATES = 9
WEIGHTS = {"word": 1.0, "box": 2.0, "centre": 1.0}
THRESHOLD, PER_LEVEL, OVERLAP, MOST = 0.05, 1000, 0.6, 100


def prompts(names: Sequence[str], vocabulary: Vocabulary, context: int) -> Iterator[tuple[str, list[Span]]]:
    """Prompts that hold all class names, joined by ". ", each within `context` tokens: (text, span of every name).

    One prompt where all names fit, as in GLIP; else as many as are needed. [ours]

    Raises:
        InputError: one name alone is too long.
    """

    def fits(prompt: str) -> bool:
        return len(vocabulary.encode(prompt)[0]) <= context

    text, spans = "", list[Span]()
    for name in names:
        if not fits(name):
            raise InputError(f"class {name!r}", f"is longer than the {context} tokens of a prompt", "shorten it")
        longer = f"{text}. {name}" if text else name
        if not fits(longer):
            yield text, spans
            text, spans, longer = "", [], name
        spans = [*spans, (len(longer) - len(name), len(longer))]
        text = longer
    if text:
        yield text, spans


def encode(boxes_N4: Tensor, anchors_N4: Tensor) -> Tensor:
    """Corners of boxes as deltas of their anchors: Faster R-CNN's coding with weights 10, 10, 5, 5."""
    box, anchor = (box_convert(x, "xyxy", "cxcywh") for x in (boxes_N4, anchors_N4))
    shift = (box[..., :2] - anchor[..., :2]) / anchor[..., 2:]
    return torch.cat([shift, (box[..., 2:] / anchor[..., 2:]).log()], -1) * boxes_N4.new_tensor(CODING)


def decode(deltas_N4: Tensor, anchors_N4: Tensor) -> Tensor:
    """The corners that deltas say, growth limited as in Faster R-CNN."""
    anchor = box_convert(anchors_N4, "xyxy", "cxcywh")
    d = deltas_N4 / deltas_N4.new_tensor(CODING)
    centre = d[..., :2] * anchor[..., 2:] + anchor[..., :2]
    size = d[..., 2:].clamp(max=LARGEST).exp() * anchor[..., 2:]
    return torch.cat([centre - size / 2, centre + size / 2], -1)


@torch.no_grad()
def assign(boxes_M4: Tensor, anchors_N4: Tensor, level_N: Tensor) -> Tensor:
    """ATSS (Zhang et al. 2020): the box that each anchor learns, [N], -1 for none.

    Of every level the 9 anchors nearest to a box are candidates; those whose IoU is at least the mean plus the standard
    deviation of all its candidates', and whose centre lies in the box, learn it. An anchor of several boxes learns the
    one that it overlaps most. Boxes are shares of the picture, from edge to edge; in the public code edges lie half a
    pixel aside, which now and then decides otherwise about an anchor. [ours]
    """
    if not len(boxes_M4):
        return torch.full((len(anchors_N4),), -1, device=anchors_N4.device)
    iou_NM = box_iou(anchors_N4, boxes_M4)
    centre_N2 = (anchors_N4[:, :2] + anchors_N4[:, 2:]) / 2
    distance_NM = torch.cdist(centre_N2, (boxes_M4[:, :2] + boxes_M4[:, 2:]) / 2)
    chosen = []
    for level in level_N[level_N != NOWHERE].unique():
        where = (level_N == level).nonzero()[:, 0]
        nearest = distance_NM[where].topk(min(CANDIDATES, len(where)), 0, largest=False).indices
        chosen.append(where[nearest])
    candidate_CM = torch.cat(chosen)
    overlap_CM = iou_NM.gather(0, candidate_CM)
    threshold_M = overlap_CM.mean(0) + overlap_CM.std(0)
    inside_NM = torch.cat([centre_N2[:, None] - boxes_M4[:, :2], boxes_M4[:, 2:] - centre_N2[:, None]], -1).amin(-1) > 0
    good_CM = (overlap_CM >= threshold_M) & inside_NM.gather(0, candidate_CM)
    best_NM = torch.full_like(iou_NM, -1).scatter(0, candidate_CM, overlap_CM.masked_fill(~good_CM, -1))
    value, box = best_NM.max(1)
    return box.masked_fill(value < 0, -1)


def centerness(anchors_N4: Tensor, boxes_N4: Tensor) -> Tensor:
    """How near the centre of a box the centre of its anchor lies, in [0, 1] (FCOS, ATSS)."""
    centre = (anchors_N4[..., :2] + anchors_N4[..., 2:]) / 2
    low, high = centre - boxes_N4[..., :2], boxes_N4[..., 2:] - centre
    ratio = torch.minimum(low, high) / torch.maximum(low, high).clamp(min=1e-9)
    return ratio.clamp(min=0).prod(-1).sqrt()


def assigned(anchors_BN4: Tensor, level_BN: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The P places that learn a box: caption, place, box of the caption, [P] each; corners [P, 4]; centerness [P]."""
    corners_BM4 = box_convert(batch.boxes_BM4, "cxcywh", "xyxy")
    unit_B4 = torch.ones_like(corners_BM4[:, 0])
    if (sizes_B2 := batch.sizes_B2) is not None:  # so that as far in shares of one side is as far in those of the other
        unit_B4 = (sizes_B2 / sizes_B2.amax(1, keepdim=True)).flip(1).repeat(1, 2)
    each = zip(corners_BM4, batch.valid_BM, anchors_BN4, level_BN, unit_B4, strict=True)
    found = [assign(boxes[valid] * unit, anchors * unit, level) for boxes, valid, anchors, level, unit in each]
    box_BN = torch.stack(found)  # boxes of a caption stand first, so that their places are those in the batch
    where_B, where_N = (box_BN >= 0).nonzero(as_tuple=True)
    box = box_BN[where_B, where_N]
    true = corners_BM4[where_B, box]
    return where_B, where_N, box, true, centerness(anchors_BN4[where_B, where_N], true)


@in_float32
def losses(out: Detection, batch: Batch, shared: bool = False) -> dict[str, Tensor]:
    """word: focal loss of every place and token, over positives; box: 1 - GIoU, weighed by centerness; centre: BCE.

    Args:
        shared: each of the n tokens of a phrase is told 1/n, as in GLIP's public code; else 1. [ours]
    """
    where_B, where_N, box, true, near = assigned(out.corners_BN4, out.level_BN, batch)
    all_near = near
    if (whole := batch.whole) is not None:
        assert out.anchors is not None
        corners_BN4, level_BN = out.anchors.places(len(whole), whole.sizes_B2, out.corners_BN4)
        all_near = assigned(corners_BN4, level_BN, whole)[-1]
    target_BNL = torch.zeros_like(out.logits_BNL)
    positive_BML = slots(batch.positive_BML, target_BNL.shape[-1]) if shared else batch.positive_BML
    target_BNL[where_B, where_N] = positive_BML[where_B, box].to(target_BNL.dtype)
    counts_BNL = batch.text_BL[:, None] & (out.level_BN != NOWHERE)[..., None]
    word = sigmoid_focal_loss(out.logits_BNL, target_BNL, alpha=0.25, gamma=2.0) * counts_BNL
    positives = max(len(all_near), 1)
    said = decode(out.deltas_BN4[where_B, where_N], out.corners_BN4[where_B, where_N])
    centre = F.binary_cross_entropy_with_logits(out.centre_BN[where_B, where_N], near, reduction="sum")
    return {
        "word": word.sum() / positives,
        "box": (generalized_box_iou_loss(said, true) * near).sum() / all_near.sum().clamp(min=1e-6),
        "centre": centre / positives,
    }


@torch.inference_mode()
def detections(out: Detection, classes_CL: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Per prompt: boxes [D, 4] (corners, shares of the image side), scores [D] and classes [D], the best first.

    A class is as likely as the mean over its tokens; a score is the root of that times centerness. At most 100 boxes of
    a score over 0.05, after suppression of those that overlap a better one of their class by more than 0.6.

    Args:
        classes_CL: bool, the tokens of every class in the prompt.

    Raises:
        InputError: names the prompt of which the model says what is not finite.
    """
    check_finite(lambda b: f"prompt {b}", *out.judged)
    share_LC = (classes_CL.float() / classes_CL.sum(1, keepdim=True).clamp(min=1)).T
    likely_BNC = out.logits_BNL.sigmoid() @ share_LC
    score_BNC = (likely_BNC * out.centre_BN.sigmoid()[..., None]).sqrt().where(likely_BNC > THRESHOLD, 0)
    boxes_BN4 = decode(out.deltas_BN4, out.corners_BN4).clamp(0, 1)
    found = []
    for boxes, score_NC, level_N in zip(boxes_BN4, score_BNC, out.level_BN, strict=True):
        place, kind = [], []
        for level in level_N[level_N != NOWHERE].unique():
            own = score_NC.masked_fill((level_N != level)[:, None], 0).flatten()
            best = own.topk(min(PER_LEVEL, int((own > 0).sum()))).indices
            place.append(best // score_NC.shape[1])
            kind.append(best % score_NC.shape[1])
        where, label = torch.cat(place), torch.cat(kind)
        score = score_NC[where, label]
        kept = batched_nms(boxes[where], score, label, OVERLAP)[:MOST]
        found.append((boxes[where][kept], score[kept], label[kept]))
    return found


def evaluate(
    model: GLIP,
    data: GroundingSet,
    instances: Path | COCO,
    prompts: Sequence[tuple[str, Sequence[Span]]],
    categories: Sequence[int],
    pictures: int = 64,
) -> dict[str, float]:
    """COCO's figures of the model on pictures that are each asked with every prompt; at most 100 boxes a picture.

    Args:
        data: one entry for every picture and prompt: its caption is the prompt, its `original_id` the image id.
        instances: what is there, as in `snp.tasks.average_precision.score`.
        prompts: as the function of this name makes them. categories: of all their names, in order.
        pictures: how many are looked at at once; each passes the vision tower once for all prompts.

    Raises:
        InputError: names and categories do not match; a caption is none of the prompts; a picture of which the model
            says what is not finite.
    """
    if len(categories) != sum(len(spans) for _, spans in prompts):
        raise InputError("categories", f"{len(categories)} for the {sum(len(s) for _, s in prompts)} names of prompts")
    classes, first = {}, 0
    for text, spans in prompts:
        tokens_CL = torch.from_numpy(cover(data.vocabulary.encode(text)[1], [[span] for span in spans]))
        classes[text] = tokens_CL, np.array(categories[first : first + len(spans)])
        first += len(spans)
    asked = np.array([entry.caption for entry in data.entries])
    if strange := {*asked.tolist()} - classes.keys():
        raise InputError("entries", f"{min(strange)!r} is none of the prompts")

    def look(index: np.ndarray, batch: Batch, out: Detection) -> list[tuple[int, np.ndarray]]:
        """(picture, table of its boxes) for every prompt: corner and size in pixels, score, category."""
        tables = []
        for text, (tokens_CL, category_C) in classes.items():
            rows = np.flatnonzero(asked[index] == text)
            part = replace(
                out,
                logits_BNL=out.logits_BNL[rows],
                deltas_BN4=out.deltas_BN4[rows],
                centre_BN=out.centre_BN[rows],
                corners_BN4=out.corners_BN4[rows],
                level_BN=out.level_BN[rows],
            )
            padded_CL = F.pad(tokens_CL, (0, batch.tokens_BL.shape[1] - tokens_CL.shape[1]))
            for i, (boxes_D4, score_D, class_D) in zip(index[rows], detections(part, padded_CL), strict=True):
                entry = data.entries[i]
                pixels_D4 = box_convert(boxes_D4, "xyxy", "xywh").double().numpy() * ([entry.width, entry.height] * 2)
                table_D6 = np.column_stack([pixels_D4, score_D.numpy(), category_C[class_D.numpy()]])
                tables.append((int(entry.original_id), table_D6))
        return tables

    found: dict[int, list[np.ndarray]] = {}
    for tables in passes(model, data, pictures * len(prompts), look):
        for image, table_D6 in tables:
            found.setdefault(image, []).append(table_D6)
    best = {}
    for image, parts in found.items():
        table = np.concatenate(parts)
        table = table[np.argsort(-table[:, 4], kind="stable")[:MOST]]
        best[image] = table[:, :4], table[:, 4], table[:, 5].astype(int)
    return average_precision.score(instances, best)


@torch.inference_mode()
def ground(model: GLIP, batch: Batch, phrase_BL: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The one box that GLIP would point at for every caption: corners [B, 4] as shares of the image side, scores [B].

    It stands at the place where the mean over the phrase's words, times centerness, is largest. [ours]

    Args:
        phrase_BL: bool, the tokens that name what is meant; by default all words, which needs no parser.

    Raises:
        InputError: names the caption of which the model says what is not finite.
    """
    out = model(*batch.inputs)
    check_finite(lambda b: f"caption {b}", *out.judged)
    if phrase_BL is None:
        phrase_BL = batch.text_BL & (batch.tokens_BL != START) & (batch.tokens_BL != END)
    share_BL = phrase_BL.float() / phrase_BL.sum(1, keepdim=True).clamp(min=1)
    likely_BN = torch.einsum("bnl,bl->bn", out.logits_BNL.sigmoid(), share_BL)
    score_BN = (likely_BN * out.centre_BN.sigmoid()).sqrt().masked_fill(out.level_BN == NOWHERE, -1)
    score_B, place_B = score_BN.max(1)
    rows = torch.arange(len(batch))
    return decode(out.deltas_BN4[rows, place_B], out.corners_BN4[rows, place_B]).clamp(0, 1), score_B
