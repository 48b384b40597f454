"""Slow and plain forms of the unstructured methods, written apart from the code they check: loops and full sorts.

Everything is float64, but for `official_multiflow`, which is to give the public code's bits.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

Arrays = dict[str, np.ndarray]
Gradient = Callable[[Arrays, int], Arrays]
"""(weights, batch number) -> the loss's gradient in each weight."""


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
    return {name: keep_highest({name: scores[name]}, int((~by_size[name]).sum()))[name] for name in weights}


def official_multiflow(
    weights: dict[str, Tensor], inputs: dict[str, Sequence[Tensor]], sets: list[list[str]], sparsity: float
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(masks, scores) in the order of operations of the public code; inputs: the [B, L, in] of every batch."""
    masks, scores = {}, {}
    for names in sets:
        ascending = torch.cat([weights[name].abs().flatten() for name in names]).sort().values
        threshold = ascending[int(len(ascending) * sparsity) - 1]
        for name in names:
            w, energy, seen = weights[name], torch.zeros(weights[name].shape[1]), 0
            for x in inputs[name]:
                energy *= seen / (seen + len(x))
                seen += len(x)
                energy = energy + torch.norm(x.reshape(-1, x.shape[-1]), p=2, dim=0) ** 2 / seen
            carried = w.abs() * energy.sqrt()
            scores[name] = torch.outer(carried.mean(dim=1), carried.mean(dim=0)) * w.abs()
            lost = int((1 - (w.abs() > threshold).sum().item() / w.numel()) * w.numel())
            masks[name] = torch.ones_like(w, dtype=torch.bool)
            if lost:
                masks[name] = scores[name] > scores[name].flatten().sort().values[lost - 1]
    return masks, scores


def random(weights: Arrays, count: int, seed: int) -> Arrays:
    """Uniform scores, drawn matrix after matrix."""
    source = torch.Generator().manual_seed(seed)
    return keep_highest({name: torch.rand(w.shape, generator=source).numpy() for name, w in weights.items()}, count)


def stages(size: int, count: int, rounds: int) -> list[int]:
    """How many of `size` weights have fallen after each round; every round leaves the same share of what is left."""
    left = (1 - count / size) ** (1 / rounds)
    return [round(size * (1 - left**t)) for t in range(1, rounds)] + [count]


def fall(scores: Arrays, alive: Arrays, count: int) -> Arrays:
    """`keep_highest`, where what has fallen falls again before anything else does."""
    return keep_highest({name: np.where(alive[name], scores[name], -1.0) for name in scores}, count)


def everything(weights: Arrays) -> Arrays:
    return {name: np.ones(w.shape, bool) for name, w in weights.items()}


def itersnip(weights: Arrays, gradient: Gradient, batches: int, count: int, rounds: int = 10) -> Arrays:
    """|mean gradient * w| of the sparse model, again in every round."""
    alive = everything(weights)
    for fallen in stages(sum(w.size for w in weights.values()), count, rounds):
        sparse = {name: w * alive[name] for name, w in weights.items()}
        found = [gradient(sparse, batch) for batch in range(batches)]
        mean = {name: sum(g[name] for g in found) / batches for name in weights}
        alive = fall({name: np.abs(mean[name] * sparse[name]) for name in weights}, alive, fallen)
    return alive


def chita(
    weights: Arrays,
    gradient: Gradient,
    batches: int,
    count: int,
    rounds: int = 1,
    ridge: float = 1e-4,
    iterations: int = 20,
    samples: int = 4,
) -> tuple[Arrays, Arrays]:
    """(masks, weights): in d = w - w0 it is d'Hd/2 + g'd/samples and a constant, g the sum of gradients.

    H = sum of gg' + n lambda I. A step goes down the gradient by t/(n lambda) from the best weights of a support.
    """
    ends = np.cumsum([w.size for w in weights.values()])

    def shaped(flat: np.ndarray) -> Arrays:
        return {n: part.reshape(weights[n].shape) for n, part in zip(weights, np.split(flat, ends[:-1]), strict=True)}

    w0 = np.concatenate([w.ravel() for w in weights.values()]).astype(np.float64)
    for fallen in stages(len(w0), count, rounds):
        rows = [np.concatenate([g.ravel() for g in gradient(shaped(w0), i).values()]) for i in range(batches)]
        hessian = sum(np.outer(g, g) for g in rows) + batches * ridge * np.eye(len(w0))
        slope, alive = sum(rows) / samples, shaped(w0 != 0)

        def largest(w: np.ndarray, alive: Arrays = alive, fallen: int = fallen) -> np.ndarray:
            return np.concatenate([mask.ravel() for mask in fall(shaped(np.abs(w)), alive, fallen).values()])

        def best(kept: np.ndarray, h: np.ndarray = hessian, slope: np.ndarray = slope, w0: np.ndarray = w0):
            d = np.where(kept, 0, -w0)
            d[kept] = np.linalg.solve(h[np.ix_(kept, kept)], -(slope + h @ d)[kept])
            return d, d @ h @ d / 2 + slope @ d + batches / samples**2 / 2

        kept = largest(w0)
        d, objective = best(kept)
        for _ in range(iterations):
            down, near, t, far, moved = hessian @ d + slope, 0.0, 1.0, 1.0, False
            for _ in range(10):
                other = largest(w0 + d - t / (batches * ridge) * down)
                if (other == kept).all():
                    near = t
                elif best(other)[1] < objective * (1 - 1e-6):
                    kept, (d, objective), moved = other, best(other), True
                    break
                else:
                    far = t
                t = (near + far) / 2
            if not moved:
                break
        w0 = np.where(kept, w0 + d, 0)
    return shaped(kept), shaped(w0)


def tamt(weights: Arrays, gradient: Gradient, batches: int, count: int, lr: float = 0.05) -> Arrays:
    """Scores start at |w| over its deviation; Adam, written out, moves them along the gradient at w * mask."""
    deviation = np.std(np.concatenate([np.abs(w).ravel() for w in weights.values()]), ddof=1)
    scores = {name: np.abs(w) / deviation for name, w in weights.items()}
    first, second = ({name: np.zeros(w.shape) for name, w in weights.items()} for _ in range(2))
    for t in range(1, batches + 1):
        masks = keep_highest(scores, count)
        found = gradient({name: w * masks[name] for name, w in weights.items()}, t - 1)
        for name, w in weights.items():
            g = found[name] * w
            first[name] = 0.9 * first[name] + 0.1 * g
            second[name] = 0.999 * second[name] + 0.001 * g**2
            step = first[name] / (1 - 0.9**t) / (np.sqrt(second[name] / (1 - 0.999**t)) + 1e-8)
            scores[name] = scores[name] - lr * step
    return keep_highest(scores, count)


def lottery(weights: Arrays, judge: Callable[[Arrays, int], Arrays], count: int, rounds: int) -> Arrays:
    """judge: (masks, round) -> scores of the weights, once the dense ones have been trained under these masks."""
    alive = everything(weights)
    for r, fallen in enumerate(stages(sum(w.size for w in weights.values()), count, rounds)):
        alive = fall(judge(alive, r), alive, fallen)
    return alive
