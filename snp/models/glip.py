"""The GLIP-style model: detection as grounding, on the same two towers as the MDETR-style one."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from snp.compression.statistics import TokenMask
from snp.models import pictures
from snp.models.anchors import NOWHERE, Anchors
from snp.models.config import GLIPConfig
from snp.models.grounder import Grounder, Inputs
from snp.models.pictures import Seen
from snp.models.pyramid import DynamicBlock, Pyramid
from snp.models.towers import encode_text, text_tower, vision_tower, weights_below

PRIOR = 0.01
"""Probability that an untrained model gives to any pair of place and word."""
LAYER_SCALE = 1e-4


@dataclass(frozen=True)
class Detection:
    """What the model says of B prompts at N places of all levels, finest first.

    logits_BNL: of every text token, before the sigmoid; deltas_BN4: of the anchor (dx, dy, dw, dh), as Faster R-CNN
    codes them; centre_BN: logits of centerness; corners_BN4: of anchors, as shares of the image's own sides; level_BN:
    the level of a place, `NOWHERE` behind the places of a smaller image; anchors: which places other images have,
    for losses of a part of a batch.
    """

    logits_BNL: Tensor
    deltas_BN4: Tensor
    centre_BN: Tensor
    corners_BN4: Tensor
    level_BN: Tensor
    anchors: Anchors | None = None

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

    def forward(
        self, image_BND: Tensor, text_BLD: Tensor, seen_BL: Tensor, there_BN: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """`seen_BL` is False at padding: no place looks at it; nor does a word at places where `there_BN` is False."""
        v, t = self.norm_image(image_BND), self.norm_text(text_BLD)
        q, k, of_image, of_text = (
            x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for x in (self.query(v) * self.scale, self.key(t), self.value_image(v), self.value_text(t))
        )
        score_BHNL = q @ k.transpose(-1, -2)
        words = score_BHNL.masked_fill(~seen_BL[:, None, None], float("-inf")).softmax(-1)
        if there_BN is not None:
            score_BHNL = score_BHNL.masked_fill(~there_BN[:, None, :, None], float("-inf"))
        places = score_BHNL.softmax(-2).transpose(-1, -2)
        image = self.to_image((words @ of_text).transpose(1, 2).flatten(2))
        text = self.to_text((places @ of_image).transpose(1, 2).flatten(2))
        return image_BND + self.gamma_image * image, text_BLD + self.gamma_text * text


class GLIP(Grounder):
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
        self._initialise()

    def _initialise(self) -> None:
        nn.init.zeros_(self.word_bias.weight)
        nn.init.constant_(self.word_bias.bias, math.log(PRIOR / (1 - PRIOR)))
        for layer in (self.box, self.centre, self.region):
            if not isinstance(layer, nn.Identity):
                nn.init.normal_(layer.weight, std=0.01)
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)
        # CLIP's 0.02 leaves words indistinguishable for the first thousands of steps of a small tower. [ours]
        if self.config.stem == "convolution":
            nn.init.normal_(self.text.token_embedding.weight, std=0.7)

    def fusion_weights(self) -> list[str]:
        """Names of the weights of the linear maps of fusion, without projections and heads."""
        return weights_below(self, "fuse.", "read.")

    def token_masks(self) -> dict[str, TokenMask]:
        """Pattern of weights -> which of the tokens that these maps see are no padding; all others see no padding."""

        def words(batch: Any) -> Tensor:
            return batch.text_BL

        def prompts(batch: Any) -> Tensor:  # the tower reads a prompt that several images share once
            return batch.text_BL[_prompts(batch.tokens_BL)[0]]

        def places(batch: Any) -> Tensor | None:
            if batch.sizes_I2 is None:
                return None
            return self._anchors(batch.images_ICHW).places(len(batch), batch.sizes_B2, self.level_scale)[1] != NOWHERE

        fused = ("fuse.*.key.*", "fuse.*.value_text.*", "fuse.*.to_text.*", "read.*")
        seen = ("fuse.*.query.*", "fuse.*.value_image.*", "fuse.*.to_image.*")
        return {
            "vision.blocks.*": lambda batch: pictures.attended(self.vision, batch.sizes_I2),
            "text.*": prompts,
            **dict.fromkeys(fused, words),
            **dict.fromkeys(seen, places),
        }

    def forward(self, *given: Any) -> Detection:
        """Look for every word of B prompts in the images they belong to; `given` as `Inputs`."""
        images_ICHW, image_index_B, tokens_BL, text_BL, sizes_I2 = inputs = Inputs(*given)
        parts = self._levels(self.see(inputs), image_index_B)
        text = self._read_once(tokens_BL, text_BL)
        sizes_B2 = None if sizes_I2 is None else sizes_I2[image_index_B]
        anchors = self._anchors(images_ICHW)
        corners, level = anchors.places(len(text), sizes_B2, text)
        there = None if len(parts) == 1 else level != NOWHERE
        for fuse, read, head in zip(self.fuse, self.read, self.head, strict=True):
            image = _together([torch.cat([m.flatten(2) for m in maps], -1).transpose(1, 2) for maps in parts])
            image, text = self.through(fuse, image, text, text_BL, there)
            text = self.through(read, text, None, ~text_BL)
            parts = [self.through(head, maps) for maps in _apart(image, parts)]
        # before boxes and centres: gradients add up in the order of use, and results are those of before to the bit
        logits = self.align(_together([torch.cat([self._flat(m) for m in maps], 1) for maps in parts]), text)
        deltas = [
            torch.cat([self._flat(self.box(m)) * s for m, s in zip(maps, self.level_scale, strict=True)], 1)
            for maps in parts
        ]
        centre = [torch.cat([self._flat(self.centre(m)) for m in maps], 1) for maps in parts]
        return Detection(
            logits,
            _together(deltas),
            _together(centre).squeeze(-1),
            corners,
            level,
            anchors,
        )

    def _levels(self, seen: Seen, image_index_B: Tensor) -> list[list[Tensor]]:
        """Maps of all levels: those of all captions together where grids are equal, else of each caption by itself."""
        if len({*seen.grids}) == 1:
            maps = self.pyramid(seen.x_IND.transpose(1, 2).unflatten(-1, seen.grids[0]))
            return [[level[image_index_B] for level in maps]]
        # maps of unequal sizes in one array would see, and be normalised over, the padding
        own = [
            self.pyramid(x_ND[: rows * columns].T[None].unflatten(-1, (rows, columns)))
            for x_ND, (rows, columns) in zip(seen.x_IND, seen.grids, strict=True)
        ]
        return [own[i] for i in image_index_B.tolist()]

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

    def _anchors(self, images_ICHW: Tensor) -> Anchors:
        height, width = images_ICHW.shape[-2:]
        return Anchors((height, width), self.config.patch, self.config.scales, self.config.anchor)

    @staticmethod
    def _flat(level_BDHW: Tensor) -> Tensor:
        return level_BDHW.flatten(2).transpose(1, 2)


def _prompts(tokens_BL: Tensor) -> tuple[Tensor, Tensor]:
    """(a caption of every different prompt [P], the prompt of every caption [B])."""
    prompts, index_B = tokens_BL.unique(dim=0, return_inverse=True)
    first_P = torch.zeros(len(prompts), dtype=torch.long, device=index_B.device).scatter_(
        0, index_B, torch.arange(len(index_B), device=index_B.device)
    )
    return first_P, index_B


def _together(parts: list[Tensor]) -> Tensor:
    """What is said of the places of all captions, [B, N, ...]; behind those of smaller images stand zeros."""
    return parts[0] if len(parts) == 1 else pad_sequence([part[0] for part in parts], batch_first=True)


def _apart(image_BND: Tensor, like: list[list[Tensor]]) -> Iterator[list[Tensor]]:
    """Places as the maps of all levels again, in the shapes that they had."""
    for b, maps in enumerate(like):
        sizes = [m.shape[-2:] for m in maps]
        counts = [height * width for height, width in sizes]
        own = image_BND if len(like) == 1 else image_BND[b : b + 1, : sum(counts)]
        pieces = own.transpose(1, 2).split(counts, -1)
        yield [piece.unflatten(-1, tuple(size)) for piece, size in zip(pieces, sizes, strict=True)]
