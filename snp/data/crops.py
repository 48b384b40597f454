"""Random crops of square pictures that keep every box: scales and places vary, words stay true of what they name.

Pictures that keep their sides' ratio are cropped when they are decoded (`snp.data.views`).

No mirror images: captions speak of left and right [MDETR's code].
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torchvision.ops import box_convert
from torchvision.transforms.v2.functional import resized_crop

from snp.data.batch import Batch
from snp.data.views import window

SMALLEST = 0.5
"""Least share of each side that a crop keeps. [ours; MDETR: 384 pixels of 400 to 600]"""


def cropped(
    batches: Iterator[Batch], share: float, seed: int, start: int = 0, part: tuple[int, int] = (0, 1)
) -> Iterator[Batch]:
    """The same batches, of whose images about `share` are cropped; what is drawn depends on seed and step alone.

    Args:
        start, part: steps that were passed over, and which part of every batch this is (`share` there), as in
            `GroundingSet.stream`. A part is cropped as it is in the whole batch.
    """
    if not share:
        yield from batches
        return
    for step, batch in enumerate(batches, start):
        if batch.sizes_I2 is not None:  # they were shown in part, if at all, when they were decoded
            yield batch
            continue
        yield crop(batch, share, torch.Generator().manual_seed(seed * 1_000_003 + step), part)


def crop(batch: Batch, share: float, generator: torch.Generator, part: tuple[int, int] = (0, 1)) -> Batch:
    """The batch with some images cropped, brought back to their size, and the boxes where they are then.

    A crop holds every box of all captions of its image whole; an image that a box fills stays as it is. Of a `part` of
    a batch the boxes of the whole are moved too, since losses are divided by what they cover.
    """
    whole = batch.divisor
    rows = torch.arange(len(whole)).tensor_split(part[1])[part[0]]
    place = {i: k for k, i in enumerate(whole.image_index_B[rows].unique().tolist())}  # of an image among the part's
    sides = torch.tensor(batch.images_ICHW.shape[-2:]).flip(0)  # x, y
    images, boxes = batch.images_ICHW.clone(), box_convert(whole.boxes_BM4, "cxcywh", "xyxy")
    chosen = torch.rand(len(whole.images_ICHW), generator=generator) < share
    for i in chosen.nonzero().flatten().tolist():
        captions = whole.image_index_B == i
        own = boxes[captions][whole.valid_BM[captions]]
        first, last = window(own, sides, (SMALLEST * sides).ceil(), sides, generator)
        (left, top), (width, height) = first.tolist(), (last - first).tolist()
        if (k := place.get(i)) is not None:
            images[k] = resized_crop(images[k], top, left, height, width, list(images.shape[-2:]), antialias=True)
        origin, size = (first / sides).repeat(2), ((last - first) / sides).repeat(2)
        boxes[captions] = (boxes[captions] - origin) / size
    moved = box_convert(boxes, "xyxy", "cxcywh").clamp(0, 1)
    theirs = whole.valid_BM & chosen[whole.image_index_B, None]
    moved = torch.where(theirs[..., None], moved, whole.boxes_BM4)
    around = None if batch.whole is None else replace(whole, boxes_BM4=moved)
    return replace(batch, images_ICHW=images, boxes_BM4=moved[rows], whole=around)
