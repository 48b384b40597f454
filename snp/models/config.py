"""What a grounding model is made of, as typed values; the desk and paper models differ only here."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, model_validator


class ModelConfig(BaseModel):
    """Two towers of one shape and a fusion on top.

    Widths are in channels, image_size and patch in pixels, context in tokens. `causal`: text tokens see only earlier
    ones, as in CLIP. `proposals`: decoder queries start from the best image tokens instead of learned ones. [ours]
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

    @property
    def image_tokens(self) -> int:
        """Patches of an image: what the vision tower hands to fusion."""
        return (self.image_size // self.patch) ** 2

    @model_validator(mode="after")
    def _divides(self) -> "ModelConfig":
        for whole, part in (("width", "heads"), ("fusion_width", "fusion_heads"), ("image_size", "patch")):
            if getattr(self, whole) % getattr(self, part):
                raise ValueError(
                    f"{whole}={getattr(self, whole)} is no multiple of {part}={getattr(self, part)}"
                )
        return self


DESK = ModelConfig(
    name="mdetr-desk", image_size=64, patch=8, stem="convolution", width=80, depth=6, heads=5, class_token=False,
    vocabulary=128, context=56, causal=False, fusion_width=64, fusion_heads=4, fusion_ffn=64, encoder_layers=2,
    decoder_layers=2, queries=16, proposals=True, contrastive=32,
    position_temperature=20.0,
)  # fmt: skip
"""Small enough for two cores; towers carry four fifths of all parameters. [ours]"""

SMOKE = DESK.model_copy(
    update=dict(name="mdetr-smoke", width=32, depth=2, heads=4, fusion_width=32, fusion_ffn=32, queries=8)
)
"""Proves the flow, learns little. [ours]"""

PAPER = ModelConfig(
    name="mdetr-paper", image_size=224, patch=16, stem="patch", width=768, depth=12, heads=12, class_token=True,
    vocabulary=49408, context=77, causal=True, fusion_width=256, fusion_heads=8, fusion_ffn=2048, encoder_layers=6,
    decoder_layers=6, queries=100, proposals=False, dropout=0.1,
)  # fmt: skip
"""DeiT-B/16 and the text transformer of CLIP ViT-L/14 [paper: the pair; ours: the sizes] under MDETR's fusion."""
