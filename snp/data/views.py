"""How a picture of any size is looked at: published resizing that keeps its sides' ratio, sizes and crops at random.

What is decided here needs no pixels, only the size that annotations give a picture, so that all processes that share a
batch decide alike, and each decodes its own pictures alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

CROP_SIDES = (400, 500, 600)
"""Shorter sides that a picture may have when a part is cut out of it [MDETR's code]."""
CROP_LEAST, CROP_MOST = 384, 1333
"""Pixels that the part keeps of every side, where the side has as many [MDETR's code]."""
WHOLE = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True)
class View:
    """What a model is shown of a picture: a region, as shares of its sides, at a size in pixels.

    region: left, top, right, bottom. size: height, width.
    """

    size: tuple[int, int]
    region: tuple[float, float, float, float] = WHOLE


@dataclass(frozen=True)
class Fit:
    """The shorter side gets `shortest` pixels, or as many as let the longer one have `longest` [DETR, MDETR, GLIP]."""

    shortest: int
    longest: int

    def __call__(self, size: tuple[float, float], shortest: int | None = None) -> tuple[int, int]:
        """Height and width that a picture of this height and width is brought to; `shortest` in place of its own."""
        low, high = min(size), max(size)
        wanted = shortest or self.shortest
        if high / low * wanted > self.longest:
            wanted = round(self.longest * low / high)
        other = min(int(wanted * high / low), self.longest)
        height, width = (wanted, other) if size[0] <= size[1] else (other, wanted)
        return max(height, 1), max(width, 1)


@dataclass(frozen=True)
class Draws:
    """Sizes and crops drawn for every picture of every step, from seed and step alone [MDETR's augmentation].

    No mirror images: captions speak of left and right [MDETR's code].

    Args:
        sides: shorter sides of which one is drawn for every picture.
        crop: share of the pictures of which a part is shown. It holds every box whole [ours; MDETR draws until none is
            lost, a hundred times at most], so that a picture without a box is shown whole; and it is cut out of the
            picture as it is [ours; MDETR resizes twice].
    """

    sides: tuple[int, ...]
    crop: float
    seed: int

    def views(self, fit: Fit, size_I2: np.ndarray, boxes: Sequence[np.ndarray], step: int) -> list[View]:
        """A view of every picture.

        Args:
            size_I2: heights and widths. boxes: corners (x0, y0, x1, y1) [n, 4] of each picture, as shares of its sides.
        """
        chance = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        return [self._view(fit, (h, w), own, chance) for (h, w), own in zip(size_I2.tolist(), boxes, strict=True)]

    def _view(self, fit: Fit, size: tuple[int, int], boxes_N4: np.ndarray, chance: torch.Generator) -> View:
        side = self.sides[int(torch.randint(len(self.sides), (), generator=chance))]
        if float(torch.rand((), generator=chance)) >= self.crop:
            return View(fit(size, side))
        first = CROP_SIDES[int(torch.randint(len(CROP_SIDES), (), generator=chance))]
        sides = torch.tensor([size[1], size[0]]) * first // min(size)  # x, y
        least, most = sides.clamp(max=CROP_LEAST), sides.clamp(max=CROP_MOST)
        begin, end = window(torch.from_numpy(boxes_N4), sides, least, most, chance)
        left, top, right, bottom = torch.cat([begin / sides, end / sides]).tolist()
        height, width = ((end - begin) / sides).flip(0).tolist()
        return View(fit((height * size[0], width * size[1]), side), (left, top, right, bottom))


def views_of(
    fit: Fit,
    draws: Draws | None,
    step: int,
    size_I2: np.ndarray,
    image_index_B: np.ndarray,
    boxes_BM4: np.ndarray,
    valid_BM: np.ndarray,
) -> list[View]:
    """What is shown of I pictures of B captions; without `draws` all of each. Boxes are moved to where they are then.

    Args:
        boxes_BM4, valid_BM: as in `snp.data.dataset.Batch`; boxes are written to.
    """
    if draws is None:
        return [View(fit(size)) for size in size_I2.tolist()]
    half = boxes_BM4[..., 2:] / 2
    corners_BM4 = np.concatenate([boxes_BM4[..., :2] - half, boxes_BM4[..., :2] + half], -1)
    of_I = [(image_index_B == i)[:, None] & valid_BM for i in range(len(size_I2))]
    views = draws.views(fit, size_I2, [corners_BM4[own] for own in of_I], step)
    for view, own in zip(views, of_I, strict=True):
        if view.region != WHOLE:
            left, top, right, bottom = view.region
            corners = (corners_BM4[own] - (left, top, left, top)) / np.tile((right - left, bottom - top), 2)
            x0, y0, x1, y1 = corners.clip(0, 1).T
            boxes_BM4[own] = np.stack([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0], 1)
    return views


def padded(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures [3, height, width] as one array, each at the upper left, zeros on its right and below."""
    height, width = np.max([picture.shape[1:] for picture in pictures], axis=0)
    whole = np.zeros((len(pictures), 3, height, width), np.uint8)
    for room, picture in zip(whole, pictures, strict=True):
        room[:, : picture.shape[1], : picture.shape[2]] = picture
    return whole


def window(
    boxes_N4: Tensor, sides: Tensor, least: Tensor, most: Tensor, chance: torch.Generator
) -> tuple[Tensor, Tensor]:
    """First corner and the one behind the last pixel, (x, y) each, of a part of a picture around all boxes.

    Args:
        boxes_N4: corners (x0, y0, x1, y1) as shares of the sides.
        sides, least, most: pixels (x, y) of the picture, and how many of them the part has at least and at most; more
            where boxes need more.
    """
    low, high = torch.zeros(2), torch.ones(2)
    if len(boxes_N4):
        low, high = boxes_N4[:, :2].amin(0).clamp(0, 1), boxes_N4[:, 2:].amax(0).clamp(0, 1)
    inside_first, inside_last = (low * sides).floor(), (high * sides).ceil()
    least = torch.maximum(inside_last - inside_first, least)
    size = least + ((torch.maximum(least, most) - least + 1) * torch.rand(2, generator=chance)).floor()
    # it begins no later than the first box and no earlier than lets it reach the last one
    earliest, latest = (inside_last - size).clamp(min=0), torch.minimum(inside_first, sides - size)
    first = earliest + ((latest - earliest + 1) * torch.rand(2, generator=chance)).floor()
    return first.long(), (first + size).long()
