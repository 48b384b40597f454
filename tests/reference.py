"""Slow and plain forms of the unstructured methods, written apart from the code they check: loops and full sorts."""

import numpy as np

Arrays = dict[str, np.ndarray]


def keep_highest(scores: Arrays, count: int) -> Arrays:
    """Masks, False at the `count` lowest of all scores; the first of equals falls first; no array is emptied."""
    order = [
        (float(value), place, i, name)
        for place, (name, array) in enumerate(scores.items())
        for i, value in enumerate(array.ravel())
    ]
    safe = {(name, int(np.argmax(s))) for name, s in scores.items()}
    order.sort(key=lambda entry: entry[:3])
    masks = {name: np.ones(s.size, bool) for name, s in scores.items()}
    for _, _, i, name in order:
        if count and (name, i) not in safe:
            masks[name][i] = False
            count -= 1
    return {name: mask.reshape(scores[name].shape) for name, mask in masks.items()}


def shares(total: int, sizes: list[int]) -> list[int]:
    """`total` in proportion to `sizes`, by the largest remainder."""
    exact = [total * size / sum(sizes) for size in sizes]
    parts = [int(value) for value in exact]
    while sum(parts) < total:
        parts[max(range(len(sizes)), key=lambda i: (exact[i] - parts[i], -i))] += 1
    return parts


def by_sets(scores: Arrays, sets: list[list[str]], count: int) -> Arrays:
    """`keep_highest` in every set, each with its share of `count`."""
    masks: Arrays = {}
    for names, part in zip(sets, shares(count, [sum(scores[n].size for n in names) for names in sets]), strict=True):
        masks |= keep_highest({name: scores[name] for name in names}, part)
    return masks


def lamp(weight: np.ndarray) -> np.ndarray:
    """w_u^2 over the sum of the squares of all weights from u on in ascending order."""
    square = weight.ravel().astype(np.float64) ** 2
    order = np.argsort(square, kind="stable")
    score, total = np.empty_like(square), 0.0
    for u in order[::-1]:
        total += square[u]
        score[u] = square[u] / total
    return score.reshape(weight.shape)


def flow(weight: np.ndarray, energy: np.ndarray) -> np.ndarray:
    """MULTIFLOW's score, weight by weight."""
    out, into = weight.shape
    a = np.sqrt(energy)
    left = [np.mean([abs(weight[i, j]) * a[j] for j in range(into)]) for i in range(out)]
    right = [np.mean([abs(weight[i, j]) * a[j] for i in range(out)]) for j in range(into)]
    return np.array([[left[i] * right[j] * abs(weight[i, j]) for j in range(into)] for i in range(out)])


def multiflow(weights: Arrays, scores: Arrays, sets: list[list[str]], count: int) -> Arrays:
    """Magnitudes share a modality's zeros out among its matrices, scores place them."""
    by_size = by_sets({name: np.abs(w) for name, w in weights.items()}, sets, count)
    return {
        name: keep_highest({name: scores[name]}, int((~by_size[name]).sum()))[name] for name in weights
    }
