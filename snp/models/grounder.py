"""What both grounding models have in common: what they are given, and how pictures reach their vision tower."""

from typing import NamedTuple

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from snp.models import pictures
from snp.models.checkpointing import Checkpointing
from snp.models.pictures import Seen


class Inputs(NamedTuple):
    """B captions over I images; shapes and units as in `snp.data.batch.Batch`."""

    images_ICHW: Tensor
    image_index_B: Tensor
    tokens_BL: Tensor
    text_BL: Tensor
    sizes_I2: Tensor | None = None


class Grounder(Checkpointing):
    """A model that looks in pictures for what texts speak of."""

    vision: VisionTransformer
    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name, value in (("mean", IMAGENET_DEFAULT_MEAN), ("std", IMAGENET_DEFAULT_STD)):
            self.register_buffer(name, torch.tensor(value).view(1, 3, 1, 1) * 255, persistent=False)

    def see(self, inputs: Inputs) -> Seen:
        """The pictures through the vision tower: each passes it once, however many captions it has."""
        return pictures.see(self.vision, self.normalised(inputs), inputs.sizes_I2)

    def normalised(self, inputs: Inputs) -> Tensor:
        """Pixels as the tower wants them."""
        return (inputs.images_ICHW - self.mean) / self.std
