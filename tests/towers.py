"""Two tiny real towers that many tests share: timm's ViT and open_clip's text transformer, equally wide and deep."""

import torch
import torch.nn.functional as F
from open_clip.transformer import TextTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from snp.compression.tower import Tower, towers_of

PATHS = {"vision": "vision", "text": "text"}
WIDTH, DEPTH, HEADS, VOCABULARY, WORDS = 32, 2, 4, 19, 7


class TwoTowers(nn.Module):
    """timm's ViT (DeiT layout) and open_clip's text transformer of the same shape under one small head."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.vision = VisionTransformer(
            img_size=16, patch_size=4, embed_dim=WIDTH, depth=DEPTH, num_heads=HEADS, num_classes=0
        )
        self.text = TextTransformer(
            context_length=WORDS,
            vocab_size=VOCABULARY,
            width=WIDTH,
            heads=HEADS,
            layers=DEPTH,
            output_dim=WIDTH,
        )
        self.head = nn.Linear(2 * WIDTH, 5)
        for parameter in self.parameters():  # no zero biases, so that forgetting one changes the output
            nn.init.normal_(parameter, std=0.2)

    def forward(self, image_BCHW: Tensor, words_BL: Tensor) -> Tensor:
        """[B, 3, 16, 16], [B, 7] -> logits [B, 5]."""
        return self.head(torch.cat([self.vision(image_BCHW), self.text(words_BL)], dim=-1))


def example(batch: int = 3, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Images [B, 3, 16, 16] and word ids [B, 7]."""
    source = torch.Generator().manual_seed(seed)
    return (
        torch.randn(batch, 3, 16, 16, generator=source),
        torch.randint(0, VOCABULARY, (batch, WORDS), generator=source),
    )


def loss_of(model: nn.Module, batch: tuple[Tensor, Tensor], overrides: dict[str, Tensor] | None = None) -> Tensor:
    """A scalar loss, with `overrides` standing in for parameters."""
    logits_BK = torch.func.functional_call(model, overrides or {}, batch)
    return F.cross_entropy(logits_BK, batch[1][:, 0] % logits_BK.shape[1])


def two_towers(seed: int = 0) -> TwoTowers:
    """A fresh two-tower model of 32 wide, 2 deep towers with 4 heads."""
    return TwoTowers(seed)


def views(model: nn.Module) -> dict[str, Tower]:
    """The towers of `two_towers`, vision first."""
    return towers_of(model, PATHS)
