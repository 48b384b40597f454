"""The GLIP-style model: detection as grounding, on the same two towers as the MDETR-style one."""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from snp.compression.statistics import TokenMask
from snp.models.checkpointing import Checkpointing
from snp.models.config import GLIPConfig
from snp.models.pyramid import DynamicBlock, Pyramid
from snp.models.towers import encode_text, text_tower, vision_tower

PRIOR = 0.01
"""Probability that an untrained model gives to any pair of place and word."""
LAYER_SCALE = 1e-4


@dataclass(frozen=True)
class Detection:
    """What the model says of B prompts at N places of all levels, finest first.

    logits_BNL: of every text token, before the sigmoid; deltas_BN4: of the anchor (dx, dy, dw, dh), as Faster R-CNN
    codes them; centre_BN: logits of centerness; anchors_N4: corners as shares of the image side; level_N: the level of
    a place.
    """

    logits_BNL: Tensor
    deltas_BN4: Tensor
    centre_BN: Tensor
    anchors_N4: Tensor
    level_N: Tensor

    @property
    def judged(self) -> tuple[Tensor, ...]:
        """What evaluators go by, a row for every prompt."""
        return self.logits_BNL, self.deltas_BN4, self.centre_BN


class BiAttention(nn.Module):
    """Image and text look at each other through ONE score matrix, once from either side (GLIP's deep fusion).

    Both directions add to their input, scaled by channel (layer scale).
    """

    def __init__(self, image: int, text: int, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.norm_image, self.norm_text = nn.LayerNorm(image), nn.LayerNorm(text)
        self.query, self.key = nn.Linear(image, width), nn.Linear(text, width)
        self.value_image, self.value_text = nn.Linear(image, width), nn.Linear(text, width)
        self.to_image, self.to_text = nn.Linear(width, image), nn.Linear(width, text)
        self.gamma_image = nn.Parameter(torch.full((image,), LAYER_SCALE))
        self.gamma_text = nn.Parameter(torch.full((text,), LAYER_SCALE))

    def forward(self, image_BND: Tensor, text_BLD: Tensor, seen_BL: Tensor) -> tuple[Tensor, Tensor]:
        """`seen_BL` is False at padding: no place looks at it."""
        v, t = self.norm_image(image_BND), self.norm_text(text_BLD)
        q, k, of_image, of_text = (
            x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for x in (self.query(v) * self.scale, self.key(t), self.value_image(v), self.value_text(t))
        )
        score_BHNL = q @ k.transpose(-1, -2)
        words = score_BHNL.masked_fill(~seen_BL[:, None, None], float("-inf")).softmax(-1)
        places = score_BHNL.softmax(-2).transpose(-1, -2)
        image = self.to_image((words @ of_text).transpose(1, 2).flatten(2))
        text = self.to_text((places @ of_image).transpose(1, 2).flatten(2))
        return image_BND + self.gamma_image * image, text_BLD + self.gamma_text * text


class GLIP(Checkpointing):
    """GLIP (Li et al. 2022) on two transformer towers of one shape.

    Region-word logits are a dot product with the word, a learned scale, and a bias made of the word (`align`), so that
    no class is built in: the prompt says what is looked for.
    """

    def __init__(self, config: GLIPConfig) -> None:
        super().__init__()
        self.config = config
        d, e = config.head_width, config.width
        self.vision, self.text = vision_tower(config), text_tower(config)
        self.pyramid = Pyramid(config.width, d, config.scales)
        blocks = range(config.fusion_blocks)
        self.fuse = nn.ModuleList(BiAttention(d, e, config.fusion_width, config.fusion_heads) for _ in blocks)
        self.read = nn.ModuleList(
            nn.TransformerEncoderLayer(e, config.heads, 4 * d, 0.0, "gelu", batch_first=True, norm_first=True)
            for _ in blocks
        )
        self.head = nn.ModuleList(DynamicBlock(d, config.deformable) for _ in blocks)
        self.region = nn.Identity() if config.alignment == "official" else nn.Linear(d, d)
        self.word = nn.Linear(e, d)
        self.word_bias = nn.Linear(e, 1)
        self.log_scale = nn.Parameter(torch.zeros(()))
        self.box, self.centre = nn.Conv2d(d, 4, 1), nn.Conv2d(d, 1, 1)
        self.level_scale = nn.Parameter(torch.ones(len(config.scales)))
        for name, value in (("mean", IMAGENET_DEFAULT_MEAN), ("std", IMAGENET_DEFAULT_STD)):
            self.register_buffer(name, torch.tensor(value).view(1, 3, 1, 1) * 255, persistent=False)
        self._initialise()

    def _initialise(self) -> None:
        nn.init.zeros_(self.word_bias.weight)
        nn.init.constant_(self.word_bias.bias, math.log(PRIOR / (1 - PRIOR)))
        for layer in (self.box, self.centre, self.region):
            if not isinstance(layer, nn.Identity):
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.zeros_(layer.bias)
        # CLIP's 0.02 leaves words indistinguishable for the first thousands of steps of a small tower. [ours]
        if self.config.stem == "convolution":
            nn.init.normal_(self.text.token_embedding.weight, std=0.7)

    def fusion_weights(self) -> list[str]:
        """Names of the weights of the linear maps of fusion, without projections and heads."""
        return [
            f"{path}.weight"
            for path, module in self.named_modules()
            if isinstance(module, nn.Linear) and path.startswith(("fuse.", "read."))
        ]

    def token_masks(self) -> dict[str, TokenMask]:
        """Pattern of weights -> which of the tokens that these maps see are no padding; all others see places."""

        def words(batch: Any) -> Tensor:
            return batch.text_BL

        def prompts(batch: Any) -> Tensor:  # the tower reads a prompt that several images share once
            return batch.text_BL[_prompts(batch.tokens_BL)[0]]

        fused = ("fuse.*.key.*", "fuse.*.value_text.*", "fuse.*.to_text.*", "read.*")
        return {"text.*": prompts, **dict.fromkeys(fused, words)}

    def forward(self, images_ICHW: Tensor, image_index_B: Tensor, tokens_BL: Tensor, text_BL: Tensor) -> Detection:
        """Look for every word of B prompts in the images they belong to. Inputs as in `snp.data.dataset.Batch`."""
        x = self.vision.forward_features((images_ICHW - self.mean) / self.std)[:, self.vision.num_prefix_tokens :]
        side = self.config.image_size // self.config.patch
        maps = self.pyramid(x.transpose(1, 2).unflatten(-1, (side, side)))
        levels = [level[image_index_B] for level in maps]
        text = self._read_once(tokens_BL, text_BL)
        for fuse, read, head in zip(self.fuse, self.read, self.head, strict=True):
            sizes = [level.shape[-2:] for level in levels]
            image = torch.cat([level.flatten(2) for level in levels], -1).transpose(1, 2)
            image, text = self.through(fuse, image, text, text_BL)
            text = self.through(read, text, None, ~text_BL)
            parts = image.transpose(1, 2).split([h * w for h, w in sizes], -1)
            levels = self.through(head, [p.unflatten(-1, tuple(size)) for p, size in zip(parts, sizes, strict=True)])
        anchors, place = self._anchors([level.shape[-2:] for level in levels], text)
        # before boxes and centres: gradients add up in the order of use, and results are those of before to the bit
        logits = self.align(torch.cat([self._flat(level) for level in levels], 1), text)
        deltas = [self._flat(self.box(level)) * s for level, s in zip(levels, self.level_scale, strict=True)]
        return Detection(
            logits,
            torch.cat(deltas, 1),
            torch.cat([self._flat(self.centre(level)) for level in levels], 1).squeeze(-1),
            anchors,
            place,
        )

    def align(self, region_BND: Tensor, text_BLD: Tensor) -> Tensor:
        """Logits [B, N, L] of every place and word. W, c: of the map `word`; b, b0: of `word_bias`; s: `log_scale`.

        official: with t = text / |text|, v . (W t / 2 + c) / exp(s) + t . b + b0, within +-50,000.
        ours: with w = W text + c, R(v) . w / (|w| exp(s)) + text . b + b0, within +-50; R: the map `region`. [ours]
        """
        official = self.config.alignment == "official"
        if official:
            text_BLD = F.normalize(text_BLD, dim=-1)
        word_BLD = self.word(text_BLD / 2) if official else F.normalize(self.word(text_BLD), dim=-1)
        logits = self.region(region_BND) @ word_BLD.transpose(1, 2) / self.log_scale.exp()
        most = 50_000 if official else 50
        return (logits + self.word_bias(text_BLD).transpose(1, 2)).clamp(-most, most)

    def _read_once(self, tokens_BL: Tensor, text_BL: Tensor) -> Tensor:
        """States of the text tower [B, L, width]; a prompt that several images share passes it once."""
        first, index_B = _prompts(tokens_BL)
        return encode_text(self.text, tokens_BL[first], text_BL[first], self.config.heads)[index_B]

    @staticmethod
    def _flat(level_BDHW: Tensor) -> Tensor:
        return level_BDHW.flatten(2).transpose(1, 2)

    def _anchors(self, sizes: list[torch.Size], like: Tensor) -> tuple[Tensor, Tensor]:
        """One square a place: corners [N, 4] as shares of the image side, and levels [N]."""
        found, places = [], []
        for level, (height, width) in enumerate(sizes):
            y, x = ((torch.arange(n, device=like.device, dtype=like.dtype) + 0.5) / n for n in (height, width))
            centre = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).flatten(0, 1)
            half = self.config.anchor / width / 2
            found.append(torch.cat([centre - half, centre + half], 1))
            places.append(torch.full((height * width,), level, device=like.device))
        return torch.cat(found), torch.cat(places)


def _prompts(tokens_BL: Tensor) -> tuple[Tensor, Tensor]:
    """(a caption of every different prompt [P], the prompt of every caption [B])."""
    prompts, index_B = tokens_BL.unique(dim=0, return_inverse=True)
    first_P = torch.zeros(len(prompts), dtype=torch.long, device=index_B.device).scatter_(
        0, index_B, torch.arange(len(index_B), device=index_B.device)
    )
    return first_P, index_B
