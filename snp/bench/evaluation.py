"""How fast evaluators are at the size of the real benchmarks, beside plain loops that compute the same."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from snp.data.annotations import Entry
from snp.tasks import phrases, rec

QUERIES = 100
EXPRESSIONS = 50_000
SENTENCES, PHRASES = 5_000, 14_481  # Flickr30k Entities, test: 1,000 pictures of five sentences
PART = 50
"""One in so many samples is given to the slow reference; its time is multiplied."""


def evaluators() -> str:
    """Time REC and phrase grounding on random predictions of full size, both against plain loops."""
    lines = [f"{'':20} {'ours':>8}   plain loops (measured on one in {PART})   same figures on that part"]
    for name, make in (("rec", _rec), ("phrases", _phrases)):
        whole, ours, part, slow = make()
        seconds = _timed(ours, whole)[0]
        loops, expected = _timed(slow, part)
        same = np.isclose(_headline(ours(part)), expected)
        lines.append(f"{name:20} {seconds:6.2f} s   {loops * PART:8.1f} s{'':29} {'yes' if same else 'NO'}")
    return "\n".join(lines)


def _timed(call: Callable[..., Any], argument: object) -> tuple[float, Any]:
    start = time.perf_counter()
    result = call(argument)
    return time.perf_counter() - start, result


def _first(scores: list[float]) -> list[int]:
    """The five queries of the highest scores."""
    return sorted(range(QUERIES), key=scores.__getitem__, reverse=True)[:5]


def _headline(found: dict[str, float]) -> float:
    return found["precision@5"] if "precision@5" in found else found["recall@5"]


def _rec() -> tuple:
    """50,000 expressions of 100 boxes each: right at five, by our evaluator and one box at a time."""
    source = torch.Generator().manual_seed(0)
    boxes = torch.rand(EXPRESSIONS, QUERIES, 4, generator=source) * 0.3 + 0.2
    ranks = torch.rand(EXPRESSIONS, QUERIES, generator=source)
    target = torch.rand(EXPRESSIONS, 4, generator=source) * 0.3 + 0.2
    types = np.array(["attribute", "relation"])[np.arange(EXPRESSIONS) % 2]

    def slow(arguments: tuple) -> float:
        right = 0
        for b, r, t in zip(*(a.tolist() for a in arguments[:3]), strict=True):
            best = _first(r)
            right += any(_iou(_corners(b[q]), _corners(t)) >= 0.5 for q in best)
        return right / len(arguments[0])

    whole = (boxes, ranks, target, types)
    return whole, lambda a: rec.score(*a), tuple(a[::PART] for a in whole), slow


def _phrases() -> tuple:
    """The test split of Flickr30k Entities in size: sentences of about three phrases, each of one or two boxes."""
    rng = np.random.default_rng(0)
    counts = np.full(SENTENCES, PHRASES // SENTENCES)
    counts[: PHRASES - counts.sum()] += 1
    entries = list[Entry]()
    predictions = dict[phrases.Key, tuple[np.ndarray, np.ndarray]]()
    for i, count in enumerate(counts):
        spans = tuple(((place, place + 1),) for place in range(count))
        named = [span for span in spans for _ in range(int(rng.integers(1, 3)))]
        boxes = np.concatenate([rng.integers(0, 200, (len(named), 2)), rng.integers(50, 200, (len(named), 2))], 1)
        entries.append(
            Entry(
                id=i,
                file_name="a.jpg",
                height=500,
                width=500,
                caption="x" * count,
                dataset_name="flickr",
                boxes=tuple(map(tuple, boxes.astype(float).tolist())),
                spans=tuple(named),
                evaluated=spans,
                phrase_types=(("people",),) * count,
                original_id=i // 5,
                sentence_id=i % 5,
            )
        )
        corner = rng.random((QUERIES, 2)) * 200
        said = np.concatenate([corner, corner + 50 + rng.random((QUERIES, 2)) * 150], 1)
        predictions[i // 5, i % 5] = (said, rng.random((count, QUERIES)))

    def ours(part: list[Entry]) -> dict:
        return phrases.score(phrases.Truth.from_entries(part), predictions)

    def slow(part: list[Entry]) -> float:
        found = []
        for entry in part:
            boxes, scores = predictions[phrases.key_of(entry)]
            for place, spans in enumerate(entry.evaluated):
                own = [b for b, s in zip(entry.boxes, entry.spans, strict=True) if s == spans]
                best = _first(scores[place].tolist())
                true = [(x, y, x + w, y + h) for x, y, w, h in own]
                found.append(any(_iou(boxes[q], b) >= 0.5 for q in best for b in true))
        return float(np.mean(found))

    return entries, ours, entries[::PART], slow


def _corners(box: list[float]) -> tuple[float, float, float, float]:
    x, y, w, h = box
    return x - w / 2, y - h / 2, x + w / 2, y + h / 2


def _iou(a: tuple, b: tuple) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height)
