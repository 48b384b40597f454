"""Phrase grounding: every phrase of a sentence finds its boxes; recall as Flickr30k Entities counts it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torchvision.ops import box_convert

from snp.data.annotations import Entry
from snp.data.batch import Batch
from snp.data.dataset import GroundingSet
from snp.errors import InputError
from snp.models.family import Answering
from snp.models.mdetr import Grounding
from snp.tasks.outputs import DIVERGED
from snp.tasks.passes import passes

RANKS = (1, 5, 10)
Key = tuple[int | str, int | str]
"""(picture, sentence)."""


def key_of(entry: Entry) -> Key:
    """Which sentence of which picture an entry is."""
    return entry.original_id, entry.sentence_id


@dataclass(frozen=True)
class Truth:
    """The phrases that are asked for: S sentences, N phrases, T true boxes.

    Attributes:
        keys: of every sentence. sentence_N: the sentence of every phrase; phrases of one stand together, in order.
        boxes_T4: corners (x0, y0, x1, y1). first_N: where the boxes of every phrase begin.
        types: the types of every phrase.
    """

    keys: list[Key]
    sentence_N: np.ndarray
    boxes_T4: np.ndarray
    first_N: np.ndarray
    types: list[tuple[str, ...]]

    @classmethod
    def from_entries(cls, entries: Iterable[Entry], merged: bool = False) -> "Truth":
        """What entries with `evaluated` phrases ask for; a phrase's boxes are those with its spans.

        Args:
            merged: the boxes of a phrase count as the one box around them (merged-box protocol), else finding any of
                them is right (any-box protocol).

        Raises:
            InputError: a sentence that occurs twice; a phrase without a box.
        """
        keys: dict[Key, None] = {}
        sentences, boxes, types = [], [], []
        for entry in entries:
            key = key_of(entry)
            if key in keys:
                raise InputError(f"picture {key[0]}, sentence {key[1]}", "occurs twice")
            corners = np.array(entry.boxes, np.float64).reshape(-1, 4)
            corners[:, 2:] += corners[:, :2]
            for place, spans in enumerate(entry.evaluated):
                own = corners[[named == spans for named in entry.spans]]
                if not len(own):
                    raise InputError(f"picture {key[0]}, sentence {key[1]}", f"phrase {place} has no box")
                if merged:
                    own = np.concatenate([own[:, :2].min(0), own[:, 2:].max(0)])[None]
                boxes.append(own)
                sentences.append(len(keys))
                types.append(entry.phrase_types[place] if entry.phrase_types else ())
            keys[key] = None
        flat = np.concatenate(boxes) if boxes else np.zeros((0, 4))
        first = np.cumsum([0, *map(len, boxes)])[:-1]
        return cls(list(keys), np.array(sentences, np.int64), flat, first, types)


def score(truth: Truth, predictions: Mapping[Key, tuple[np.ndarray, np.ndarray]]) -> dict[str, Any]:
    """Recall at 1, 5, 10 and of all boxes together (upper bound), over all phrases and by phrase type.

    A phrase is found at k when one of its k best boxes has an IoU of at least 0.5 with one of its true boxes.

    Args:
        predictions: sentence -> (boxes [Q, 4] as corners, scores [phrases, Q]); Q may differ and be 0. Boxes are
            tried from the highest score down, ties in their order.

    Raises:
        InputError: a sentence or a phrase without a prediction, or with one that is not finite.
    """
    counts = np.bincount(truth.sentence_N, minlength=len(truth.keys))
    for key, count in zip(truth.keys, counts, strict=True):
        if key not in predictions:
            raise InputError(f"picture {key[0]}, sentence {key[1]}", "has no prediction")
        boxes, scores = predictions[key]
        if scores.shape != (count, len(boxes)):
            problem = f"scores of shape {list(scores.shape)} for {count} phrases and {len(boxes)} boxes"
            raise InputError(f"picture {key[0]}, sentence {key[1]}", problem)
        if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
            raise InputError(f"picture {key[0]}, sentence {key[1]}", "a box or score is not finite", DIVERGED)
    Q = max((len(predictions[key][0]) for key in truth.keys), default=0)
    right_NK = np.zeros((len(truth.types), len(RANKS) + 1), bool)
    ends = [*truth.first_N[1:], len(truth.boxes_T4)]
    block = max(1, 2_000_000 // max(Q, 1))  # phrases at a time: memory stays bounded
    edges = np.cumsum([0, *counts])
    start = 0
    while start < len(truth.keys):
        stop = max(start + 1, int(np.searchsorted(edges, edges[start] + block, "right")) - 1)
        keys, span = truth.keys[start:stop], slice(int(edges[start]), int(edges[stop]))
        if span.stop > span.start:
            pieces = [predictions[key] for key in keys]
            found = slice(int(truth.first_N[span.start]), int(ends[span.stop - 1]))
            sentence = truth.sentence_N[span] - start
            first = truth.first_N[span] - found.start
            right_NK[span] = _right(pieces, sentence, truth.boxes_T4[found], first, Q)
        start = stop
    return _summary(right_NK, truth.types)


def _right(
    pieces: Sequence[tuple[np.ndarray, np.ndarray]],
    sentence_N: np.ndarray,
    boxes_T4: np.ndarray,
    first_N: np.ndarray,
    Q: int,
) -> np.ndarray:
    """Whether each phrase is found at each rank, and at all: bool [N, ranks + 1]."""
    if Q == 0:
        return np.zeros((len(first_N), len(RANKS) + 1), bool)
    predicted = np.zeros((len(pieces), Q, 4))
    scores = np.full((len(first_N), Q), -np.inf)
    at = 0
    for place, (boxes, rows) in enumerate(pieces):
        predicted[place, : len(boxes)] = boxes
        scores[at : at + len(rows), : len(boxes)] = rows
        at += len(rows)
    phrase_T = np.repeat(np.arange(len(first_N)), np.diff([*first_N, len(boxes_T4)]))
    # corners of all predicted boxes beside each true one, coordinate by coordinate: small arrays, few copies
    x0, y0, x1, y1 = (predicted[:, :, i][sentence_N[phrase_T]] for i in range(4))
    tx0, ty0, tx1, ty1 = (boxes_T4[:, i, None] for i in range(4))
    overlap = np.clip(np.minimum(x1, tx1) - np.maximum(x0, tx0), 0, None)
    overlap *= np.clip(np.minimum(y1, ty1) - np.maximum(y0, ty0), 0, None)
    union = (x1 - x0) * (y1 - y0) + (tx1 - tx0) * (ty1 - ty0) - overlap
    hit_TQ = overlap >= 0.5 * np.maximum(union, 1e-12)
    hit_NQ = np.logical_or.reduceat(hit_TQ, first_N, axis=0)
    order = np.argsort(-scores, axis=1, kind="stable")
    ranked = np.take_along_axis(hit_NQ, order, axis=1)
    return np.stack([*(ranked[:, :k].any(1) for k in RANKS), ranked.any(1)], 1)


def _summary(right_NK: np.ndarray, types: Sequence[tuple[str, ...]]) -> dict[str, Any]:
    names = [*(f"recall@{k}" for k in RANKS), "upper_bound"]

    def over(where: np.ndarray) -> dict[str, Any]:
        return {"n": int(where.sum()), **dict(zip(names, map(float, right_NK[where].mean(0)), strict=True))}

    by_type = {
        kind: over(np.array([kind in own for own in types])) for kind in sorted({kind for own in types for kind in own})
    }
    return over(np.ones(len(types), bool)) | {"by_type": by_type}


def evaluate(model: Answering, data: GroundingSet, sentences: int = 64) -> dict[str, Any]:
    """Recall of every evaluated phrase of `data` by both protocols, ``any_box`` and ``merged_box``.

    A query's score for a phrase is its largest probability among the phrase's token slots. Which words a phrase has is
    part of the question, as in Flickr30k Entities; where its boxes lie is not.

    Args:
        sentences: how many are read at once; each image passes the vision tower once for all of its own.

    Raises:
        InputError: `data` asks for no phrase; a sentence that occurs twice; a phrase without a box; a sentence of which
            the model says what is not finite.
    """
    truths = {"any_box": Truth.from_entries(data.entries), "merged_box": Truth.from_entries(data.entries, merged=True)}
    if not truths["any_box"].types:
        raise InputError("sentences", "none has a phrase that is evaluated")

    def look(index: np.ndarray, batch: Batch, out: Grounding) -> dict[Key, tuple[np.ndarray, np.ndarray]]:
        found = {}
        chance_BQS = out.logits_KBQS[-1].softmax(-1)
        corners_BQ4 = box_convert(out.boxes_KBQ4[-1], "cxcywh", "xyxy").double()
        for i, chance_QS, corners_Q4 in zip(index, chance_BQS, corners_BQ4, strict=True):
            entry, asked_PL = data.entries[i], torch.from_numpy(data.asked(i))
            # probabilities are positive: a slot that is not asked for is never the largest
            score_PQ = (chance_QS[:, : asked_PL.shape[1]] * asked_PL[:, None]).amax(-1)
            pixels = np.array([entry.width, entry.height] * 2)
            found[key_of(entry)] = (corners_Q4.numpy() * pixels, score_PQ.numpy())
        return found

    predictions = {key: said for found in passes(model, data, sentences, look) for key, said in found.items()}
    return {name: score(truth, predictions) for name, truth in truths.items()}
