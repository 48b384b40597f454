"""A batch of captions with the images that they are about, as tensors: moved, and taken apart."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from snp.errors import InputError


@dataclass(frozen=True)
class Batch:
    """B captions over I images; M is the largest number of boxes of a caption, at least 1, L the longest caption.

    images_ICHW: uint8; sizes_I2: height and width of each image, which stands at the upper left of its pixels, padding
    on its right and below; None where all are squares without any; image_index_B: the image of each caption; tokens_BL:
    vocabulary ids; text_BL: True where a token stands, False where padding; boxes_BM4: (centre x, centre y, width,
    height), each a share of the image's own side; valid_BM: True where a box stands; positive_BML: True where a token
    belongs to the phrase of a box; category_BM: the category id of a box, 0 where none stands. Of questions alone, else
    None: type_B: id of the type; answer_B: id of the answer among those of its type; both -1 where the vocabulary of
    answers does not have it. whole: the batch that this one is a part of: losses are divided by its boxes and tokens,
    so that those of its parts add up; its pixels may not have been made.
    """

    images_ICHW: Tensor
    image_index_B: Tensor
    tokens_BL: Tensor
    text_BL: Tensor
    boxes_BM4: Tensor
    valid_BM: Tensor
    positive_BML: Tensor
    category_BM: Tensor
    type_B: Tensor | None = None
    answer_B: Tensor | None = None
    whole: "Batch | None" = None
    sizes_I2: Tensor | None = None

    def __len__(self) -> int:
        return len(self.tokens_BL)

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """All that a model is given: pixels and words, and sizes where pictures have any of their own."""
        sizes = () if self.sizes_I2 is None else (self.sizes_I2,)
        return self.images_ICHW, self.image_index_B, self.tokens_BL, self.text_BL, *sizes

    @property
    def sizes_B2(self) -> Tensor | None:
        """Height and width of the image of each caption, where images have sizes of their own."""
        return None if self.sizes_I2 is None else self.sizes_I2[self.image_index_B]

    @property
    def divisor(self) -> "Batch":
        """The batch that losses are divided by: the whole one of which this is a part."""
        return self if self.whole is None else self.whole

    def to(self, device: torch.device | str) -> "Batch":
        """With all tensors on this device."""
        whole = None if self.whole is None else self.whole.to(device)
        moved = {name: tensor.to(device, non_blocking=True) for name, tensor in self._tensors().items()}
        return replace(self, whole=whole, **moved)

    def pin_memory(self) -> "Batch":
        """In memory from which a GPU copies while it computes: what torch's DataLoader asks for."""
        pinned: dict[str, Any] = {name: tensor.pin_memory() for name, tensor in self._tensors().items()}
        return replace(self, **pinned)

    def parts(self, count: int) -> Iterator["Batch"]:
        """The captions in `count` parts of about one size, each with the images that it needs."""
        return (self.part(place, count) for place in range(count))

    def in_parts_of(self, most: int) -> Iterator["Batch"]:
        """The captions in as few parts as hold at most so many each; the batch itself where it holds no more."""
        return iter([self]) if len(self) <= most else self.parts(-(-len(self) // most))

    def part(self, place: int, count: int) -> "Batch":
        """The one of `count` parts at this place, from 0.

        Raises:
            InputError: there are fewer captions than parts.
        """
        if count > len(self):
            raise InputError("batch", f"{len(self)} captions are too few for {count} parts", "use larger batches")
        rows = torch.arange(len(self), device=self.tokens_BL.device).tensor_split(count)[place]
        images, index = self.image_index_B[rows].unique(return_inverse=True)
        of_images = {name: t[images] for name, t in self._tensors().items() if name in _OF_IMAGES}
        own = {name: t[rows] for name, t in self._tensors().items() if name not in (*_OF_IMAGES, "image_index_B")}
        return replace(self, image_index_B=index, whole=self.divisor, **of_images, **own)

    def _tensors(self) -> dict[str, Tensor]:
        return {f.name: value for f in fields(self) if isinstance(value := getattr(self, f.name), Tensor)}


_OF_IMAGES = ("images_ICHW", "sizes_I2")
