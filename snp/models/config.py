"""What a grounding model is made of, as typed values; the desk and paper models differ only here."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, PositiveInt, model_validator

from snp.trimming.trim import Trim


class TowerConfig(BaseModel):
    """Two towers of one shape.

    Widths are in channels, image_size and patch in pixels, context in tokens. `image_size`: side of the squares that
    pictures are brought to, and of the grid of learned positions. `shortest`, `longest`: pictures keep their sides'
    ratio instead, the shorter side as long as the first says, or less where the longer one would exceed the second;
    positions are resampled to the grid of each. `causal`: text tokens see only earlier ones, as in CLIP. `quick_gelu`:
    the text tower has the activation of OpenAI's CLIP, as its weights want.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    image_size: int
    patch: int
    stem: Literal["patch", "convolution"]
    width: int
    depth: int
    heads: int
    ffn_ratio: int = 4
    class_token: bool
    vocabulary: int
    context: int
    causal: bool
    quick_gelu: bool = False
    shortest: PositiveInt | None = None
    longest: PositiveInt | None = None

    @property
    def image_tokens(self) -> int:
        """Patches of an image, the most that one has: what the vision tower hands to fusion."""
        height, width = self.shortest or self.image_size, self.longest or self.image_size
        return -(-height // self.patch) * -(-width // self.patch)

    @model_validator(mode="after")
    def _divides(self) -> Self:
        for whole, part in (("width", "heads"), ("image_size", "patch"), *self._parts()):
            if getattr(self, whole) % getattr(self, part):
                raise ValueError(f"{whole}={getattr(self, whole)} is no multiple of {part}={getattr(self, part)}")
        if (self.shortest is None) != (self.longest is None):
            raise ValueError("shortest and longest go together")
        return self

    def _parts(self) -> tuple[tuple[str, str], ...]:
        """Further pairs of fields, the second of which divides the first."""
        return ()


class ModelConfig(TowerConfig):
    """MDETR: two towers and a fusion on top.

    `proposals`: decoder queries start from the best image tokens instead of learned ones. [ours]
    `answers`: types of questions with the number of their answers; none for a model that answers no questions.
    `trim`: tokens and heads of the vision tower that an input does not need are left out.
    `answer_layer`: the decoder layer that is asked for answers; MDETR's public code asks the first, we the last. [ours]
    """

    fusion_width: int
    fusion_heads: int
    fusion_ffn: int
    encoder_layers: int
    decoder_layers: int
    queries: int
    proposals: bool
    contrastive: int = 64
    dropout: float = 0.0
    position_temperature: float = 10_000.0
    answers: tuple[tuple[str, int], ...] = ()
    trim: Trim | None = None
    answer_layer: Literal["last", "first"] = "last"

    def _parts(self) -> tuple[tuple[str, str], ...]:
        return (("fusion_width", "fusion_heads"),)

    @model_validator(mode="after")
    def _square(self) -> Self:
        if self.proposals and self.shortest:
            raise ValueError("proposals want pictures that are brought to squares, without shortest")
        return self


class DualConfig(ModelConfig):
    """A dual encoder made of an MDETR-style model; its name begins with `dual`."""


class GLIPConfig(TowerConfig):
    """GLIP: two towers, a pyramid, deep fusion and a dynamic head.

    Args:
        head_width: channels of the pyramid and the head.
        fusion_blocks: rounds of cross-attention, a text layer and a dynamic block. fusion_heads: of both attentions.
        fusion_width: channels of the score matrix between image and text.
        scales: resolution of every level, relative to the map of the vision tower: powers of two, falling by halves.
        anchor: side of the one square anchor of a place, in strides of its level.
        deformable: the convolutions that mix levels are deformable.
        alignment: how words meet places, and what a word of a phrase is told. "official": as in GLIP's public code
            (`GLIP.align`). "ours": a linear map of the place too, and the word normalised after its own map; every word
            of a phrase is a whole positive, not one of n parts. The desk and smoke models keep it, since their trained
            checkpoints are in the repository, and with them all rows of Table 4. [ours]
    """

    head_width: int
    fusion_blocks: int
    fusion_heads: int
    fusion_width: int
    scales: tuple[float, ...]
    anchor: float = 8.0
    deformable: bool = False
    alignment: Literal["official", "ours"] = "ours"

    def _parts(self) -> tuple[tuple[str, str], ...]:
        return (("fusion_width", "fusion_heads"),)


# fmt: off
DESK = ModelConfig(
    name="mdetr-desk", image_size=64, patch=8, stem="convolution", width=80, depth=6, heads=5, class_token=False,
    vocabulary=128, context=56, causal=False, fusion_width=64, fusion_heads=4, fusion_ffn=64, encoder_layers=2,
    decoder_layers=2, queries=16, proposals=True, contrastive=32, position_temperature=20.0,
)
"""Small enough for two cores; towers carry four fifths of all parameters. [ours]"""

SMOKE = DESK.model_copy(
    update=dict(name="mdetr-smoke", width=48, depth=2, heads=4, fusion_width=32, fusion_ffn=32, queries=8)
)
"""Proves the flow, learns little; more than half of it can be pruned. [ours]"""

PAPER = ModelConfig(
    name="mdetr-paper", image_size=224, patch=16, stem="patch", width=768, depth=12, heads=12, class_token=True,
    vocabulary=49408, context=77, causal=True, quick_gelu=True, fusion_width=256, fusion_heads=8, fusion_ffn=2048,
    encoder_layers=6, decoder_layers=6, queries=100, proposals=False, dropout=0.1, shortest=800, longest=1333,
)
"""DeiT-B/16 and the text transformer of CLIP ViT-L/14 [paper: the pair; ours: the sizes] under MDETR's fusion, and
its sizes of pictures."""

GLIP_DESK = GLIPConfig(
    name="glip-desk", image_size=64, patch=8, stem="convolution", width=80, depth=6, heads=5, class_token=False,
    vocabulary=128, context=56, causal=False, head_width=40, fusion_blocks=2, fusion_heads=4, fusion_width=40,
    scales=(2, 1, 0.5), anchor=2.0,
)
"""The towers of the MDETR-style desk model, again most of all parameters; anchors for objects that fill a fifth of the
image. [ours]"""

GLIP_SMOKE = GLIP_DESK.model_copy(
    update=dict(name="glip-smoke", width=48, depth=2, heads=4, head_width=8, fusion_width=8)
)

GLIP_PAPER = GLIPConfig(
    name="glip-paper", image_size=800, patch=16, stem="patch", width=768, depth=12, heads=12, class_token=True,
    vocabulary=49408, context=256, causal=False, quick_gelu=True, head_width=256, fusion_blocks=6, fusion_heads=8,
    fusion_width=2048, scales=(2, 1, 0.5, 0.25, 0.125), anchor=8.0, alignment="official", shortest=800, longest=1333,
)
"""DeiT-B/16 and the text transformer of CLIP ViT-L/14 [paper: the pair] under GLIP's head; CLIP's 77 positions are
interpolated to 256, so that the names of all classes of COCO (176 tokens) stand in one prompt. [ours]"""
