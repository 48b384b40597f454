"""The two towers: timm's VisionTransformer in DeiT layout, and open_clip's text transformer."""

from functools import partial

import torch
from open_clip.transformer import QuickGELU, TextTransformer
from timm.layers import PatchEmbed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from snp.models.config import TowerConfig


class ConvolutionStem(PatchEmbed):
    """A patch embedding of strided convolutions: small images start learning much earlier with it. [ours]"""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        patch, width = self.patch_size[0], self.proj.out_channels
        layers: list[nn.Module] = []
        channels, stride = 3, 1
        for out in (16, 32):
            layers += [nn.Conv2d(channels, out, 3, stride=2, padding=1), nn.GroupNorm(4, out), nn.GELU()]
            channels, stride = out, stride * 2
        layers.append(nn.Conv2d(channels, width, patch // stride, stride=patch // stride))
        self.proj = nn.Sequential(*layers)  # type: ignore[assignment]  # timm has one convolution here


def vision_tower(config: TowerConfig) -> VisionTransformer:
    """DeiT layout [paper]: pre-norm blocks, learned positions, packed qkv with bias."""
    return VisionTransformer(
        img_size=config.image_size,
        patch_size=config.patch,
        embed_dim=config.width,
        depth=config.depth,
        num_heads=config.heads,
        mlp_ratio=config.ffn_ratio,
        class_token=config.class_token,
        num_classes=0,
        global_pool="",
        embed_layer=ConvolutionStem if config.stem == "convolution" else PatchEmbed,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        dynamic_img_size=config.shortest is not None,
        dynamic_img_pad=config.shortest is not None,
    )


def text_tower(config: TowerConfig) -> TextTransformer:
    """CLIP's text transformer [paper] without its projection: every token's state is used, not only the last one's."""
    return TextTransformer(
        context_length=config.context,
        vocab_size=config.vocabulary,
        width=config.width,
        heads=config.heads,
        layers=config.depth,
        mlp_ratio=config.ffn_ratio,
        output_dim=None,
        no_causal_mask=not config.causal,
        act_layer=QuickGELU if config.quick_gelu else nn.GELU,
    )


def encode_text(tower: TextTransformer, tokens_BL: Tensor, text_BL: Tensor, heads: int) -> Tensor:
    """Token states [B, L, width]. Without a causal mask, padding is hidden from all; with it, padding comes last."""
    B, L = tokens_BL.shape
    x_BLD = tower.token_embedding(tokens_BL) + tower.positional_embedding[:L]
    if tower.attn_mask is not None:
        mask = tower.attn_mask[:L, :L]
    elif bool(text_BL.all()):
        mask = None
    else:
        mask_BL = torch.zeros_like(text_BL, dtype=x_BLD.dtype).masked_fill(~text_BL, float("-inf"))
        mask = mask_BL[:, None, None].expand(B, heads, L, L).reshape(B * heads, L, L)
    return tower.ln_final(tower.transformer(x_BLD, attn_mask=mask))


def weights_below(model: nn.Module, *within: str) -> list[str]:
    """Names of the weights of all linear maps whose paths begin so."""
    return [
        f"{path}.weight"
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear) and path.startswith(within)
    ]
