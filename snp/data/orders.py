"""In which order the entries of a data set are seen: seeded epochs of batches, and groups by picture."""

from collections.abc import Callable, Iterator

import numpy as np

from snp.errors import InputError


def epoch(
    length_N: np.ndarray, image_N: np.ndarray, batch: int, seed: int, window: int = 64, per_image: int = 1
) -> np.ndarray:
    """A seeded order of all entries as indices [steps, batch], the incomplete last batch left out.

    Within `window` batches entries of like length are put together, so that little is spent on padding. [ours]
    With `per_image` over 1, so many captions of one image stand together in a batch, and those of an image that
    are left over sit this epoch out. [ours]

    Args:
        length_N: tokens of every entry. image_N: a number for its picture.
    """
    if batch % per_image:
        raise InputError("batch", f"{batch} is no multiple of {per_image} captions per image")
    rng = np.random.default_rng(seed)
    bunches = _bunches(image_N, rng.permutation(len(length_N)), per_image)
    if per_image > 1:
        bunches = bunches[rng.permutation(len(bunches))]
    size = batch // per_image  # images in a batch
    steps = len(bunches) // size
    if steps == 0:
        together = f" that stand {per_image} to a picture" if per_image > 1 else ""
        raise InputError("batch", f"{batch} is more than the {bunches.size} entries of the data set{together}")
    groups = []
    for start in range(0, steps * size, window * size):
        part = bunches[start : min(start + window * size, steps * size)]
        part = part[np.argsort(length_N[part].max(1), kind="stable")].reshape(-1, batch)
        groups.append(part[rng.permutation(len(part))])
    return np.concatenate(groups)


def _bunches(image_N: np.ndarray, order: np.ndarray, per_image: int) -> np.ndarray:
    """`order` cut into bunches [n, per_image] of one image each; n depends on the data alone."""
    if per_image == 1:
        return order[:, None]
    order = order[np.argsort(image_N[order], kind="stable")]
    _, first, count = np.unique(image_N[order], return_index=True, return_counts=True)
    rank = np.arange(len(order)) - np.repeat(first, count)  # of a caption among those of its image
    return order[rank < np.repeat(count // per_image * per_image, count)].reshape(-1, per_image)


def endless(epoch: Callable[[int], np.ndarray], seed: int, start: int = 0) -> Iterator[np.ndarray]:
    """Indices of the entries of every batch without end, from batch `start` on.

    Args:
        epoch: seed -> indices [steps, batch]; every epoch has as many steps.
    """
    number = 0
    while True:
        indices = epoch(seed * 100_003 + number)
        if start >= len(indices):
            skipped, start = divmod(start, len(indices))
            number += skipped
            continue
        yield from indices[start:]
        number, start = number + 1, 0


def by_image(image_N: np.ndarray, captions: int) -> Iterator[np.ndarray]:
    """Indices of all entries in groups of about `captions`, the captions of one image never torn apart."""
    order = np.argsort(image_N, kind="stable")
    edges = np.flatnonzero(np.diff(image_N[order], prepend=-1, append=-1))
    begin = 0
    for edge in edges[1:]:
        if edge - begin >= captions or edge == edges[-1]:
            yield order[begin:edge]
            begin = edge
