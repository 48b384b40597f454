"""A vision tower whose tokens and heads are left out, input by input: masked while it learns, gathered to be fast."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from snp.trimming.attention import cut, masked, projected
from snp.trimming.gates import FixedGate, Gate, best, hard
from snp.trimming.trim import Trim


@dataclass(frozen=True)
class Kept:
    """What is left of R rows: of pictures, or of captions where the text guides; S layers.

    x_RND: states of image tokens after the tower. keep_RN: 1 where one is kept, else 0; in training with gradients, in
    inference 0 at padding alone. places_RN: where each token was in the row's own grid; None where all are in place.
    tokens_RS, heads_RS: tokens and heads that each layer works on; in training with gradients. all_R: tokens there
    were.
    """

    x_RND: Tensor
    keep_RN: Tensor
    places_RN: Tensor | None
    tokens_RS: Tensor
    heads_RS: Tensor
    all_R: Tensor

    @property
    def shares(self) -> Tensor:
        """Shares of tokens and of heads that were kept, mean over rows and layers: [2]."""
        return torch.stack([(self.tokens_RS / self.all_R[:, None]).mean(), self.heads_RS.mean()])

    def of(self, rows_B: Tensor) -> "Kept":
        """The same for captions, where rows are pictures."""
        places = None if self.places_RN is None else self.places_RN[rows_B]
        return Kept(
            self.x_RND[rows_B], self.keep_RN[rows_B], places, self.tokens_RS[rows_B], self.heads_RS[rows_B],
            self.all_R[rows_B],
        )  # fmt: skip


class Trimmer(nn.Module):
    """Gates beside the layers of a vision tower, and the pass of tokens through both.

    Args:
        tokens: of the grid of learned positions. least: tokens that stay in any case, as decoder queries start there.

    Attributes:
        active: False: all tokens and heads are kept (see `untrimmed`).
        by_text: layers whose gates the text guides: from the first on, each caption of a picture passes by itself.
        once: the layer before which a rule, in place of gates, chooses for all that follow.
    """

    def __init__(self, trim: Trim, width: int, depth: int, heads: int, tokens: int, least: int) -> None:
        super().__init__()
        self.trim, self.least = trim, least
        self.active = True
        sites = [layer for layer in trim.sites or range(depth) if layer < depth]
        learned, guided = trim.policy == "learned", trim.guide != "none"
        self.by_text = sites if learned and trim.guide == "text" else []

        def gates(share: float, choices: int, fixed: int) -> nn.ModuleDict:
            if share == 1 or trim.policy not in ("learned", "fixed"):
                return nn.ModuleDict()
            make: Callable[[], nn.Module] = lambda: Gate(width, guided, choices) if learned else FixedGate(fixed)  # noqa: E731
            return nn.ModuleDict({str(layer): make() for layer in sites})

        self.tokens, self.heads = gates(trim.tokens, 1, tokens), gates(trim.heads, heads, heads)
        # once for all layers; by attention after the first layer, whose tokens all stay
        self.once = {"random": 0, "centre": 0, "attention": 1}.get(trim.policy)
        self.share = trim.tokens if trim.policy != "attention" else max(depth * trim.tokens - 1, 0) / max(depth - 1, 1)

    def forward(
        self,
        tower: VisionTransformer,
        x_ITD: Tensor,
        there_IN: Tensor | None,
        all_I: Tensor,
        guide_BD: Tensor | None,
        index_B: Tensor,
        seed_I: Tensor,
    ) -> Kept:
        """Embedded pictures through the tower.

        Args:
            x_ITD: tokens as the first layer gets them, those before the patches first.
            there_IN: which patches are no padding; None where all are. all_I: patches that the model would see whole.
            guide_BD: a summary of each caption; None where the text does not guide.
            index_B: the picture of each caption. seed_I: of what is drawn for a picture in inference.
        """
        first = tower.num_prefix_tokens
        x, keep = x_ITD, x_ITD.new_ones(x_ITD.shape[:2])[:, first:]
        if there_IN is not None:
            keep = keep * there_IN
        every, places = all_I, None
        own_rows = guide_BD is None  # whether rows are what they end as: else pictures, until a gate is guided
        tokens: list[Tensor] = []
        heads: list[Tensor] = []
        looked = None
        for layer, block in enumerate(tower.blocks):
            name = str(layer)
            gated = name in self.tokens or name in self.heads
            if gated and not own_rows:
                own_rows = True
                x, keep, every = x[index_B], keep[index_B], every[index_B]
                tokens, heads = [[of[index_B] for of in all] for all in (tokens, heads)]
            before = keep
            if name in self.tokens:
                keep = keep * self._kept(self.tokens[name], x[:, first:], keep, places, guide_BD)
            if layer == self.once:
                keep = keep * self._chosen(x[:, first:], keep, every, looked, seed_I)
            if not self.training and keep is not before:
                x, keep, places = gathered(x, keep, places, first)
            heads_RH = None
            if name in self.heads:
                heads_RH = self._heads(self.heads[name], x[:, first:], keep, guide_BD)
            if layer + 1 == self.once:
                looked = attention_received(block, x)[:, first:]
            x = self._layer(tower, block, x, F.pad(keep, (first, 0), value=1.0), heads_RH)
            tokens.append(keep.sum(1))
            heads.append(x.new_ones(len(x)) if heads_RH is None else heads_RH.mean(1))
        if not own_rows:
            x, keep, every = x[index_B], keep[index_B], every[index_B]
            tokens, heads = [[of[index_B] for of in all] for all in (tokens, heads)]
        return Kept(tower.norm(x)[:, first:], keep, places, torch.stack(tokens, 1), torch.stack(heads, 1), every)

    def _layer(
        self, tower: VisionTransformer, block: Any, x: Tensor, keep_RT: Tensor, heads_RH: Tensor | None
    ) -> Tensor:
        there = None if self.training or bool(keep_RT.all()) else keep_RT.bool()

        def through(x: Tensor, keep_RT: Tensor, heads_RH: Tensor | None) -> Tensor:
            y = block.norm1(x)
            seen = masked(block.attn, y, keep_RT, heads_RH) if self.training else cut(block.attn, y, there, heads_RH)
            x = x + block.drop_path1(block.ls1(seen))
            return x + block.drop_path2(block.ls2(block.mlp(block.norm2(x))))  # type: ignore[no-any-return]

        if tower.grad_checkpointing and torch.is_grad_enabled():
            return checkpoint(through, x, keep_RT, heads_RH, use_reentrant=False)  # type: ignore[no-any-return]
        return through(x, keep_RT, heads_RH)

    def _guide(self, x_RND: Tensor, keep_RN: Tensor, guide_RD: Tensor | None) -> Tensor | None:
        if self.trim.guide == "none" or guide_RD is not None:
            return guide_RD
        return mean_kept(x_RND, keep_RN)

    def _kept(
        self, gate: nn.Module, x_RND: Tensor, keep_RN: Tensor, places_RN: Tensor | None, guide_RD: Tensor | None
    ) -> Tensor:
        if isinstance(gate, FixedGate):
            logits = gate(len(x_RND))
            if places_RN is not None:
                logits = logits.gather(1, places_RN[..., None].expand(-1, -1, 2))
        else:
            guide = self._guide(x_RND, keep_RN, guide_RD)
            logits = gate(x_RND, None if guide is None else guide[:, None])
        stay = hard(logits, self.training)
        if bool(((stay * keep_RN).sum(1) < self.least).any()):
            saved = best((logits[..., 0] - logits[..., 1]).detach(), self.least, keep_RN)
            stay = stay + saved * (1 - stay)
        return stay

    def _heads(self, gate: nn.Module, x_RND: Tensor, keep_RN: Tensor, guide_RD: Tensor | None) -> Tensor:
        if isinstance(gate, FixedGate):
            return hard(gate(len(x_RND)), self.training)
        return hard(gate(mean_kept(x_RND, keep_RN), self._guide(x_RND, keep_RN, guide_RD)), self.training)

    def _chosen(
        self, x_RND: Tensor, keep_RN: Tensor, all_R: Tensor, looked_RN: Tensor | None, seed_I: Tensor
    ) -> Tensor:
        """The tokens that stay by a rule, so many of every row's own."""
        score = keep_RN.detach()
        if self.trim.policy == "centre":
            score = -from_centre(score.shape[1], score).expand_as(score)
        elif looked_RN is not None:
            score = looked_RN
        elif self.training:
            score = torch.rand_like(score)
        else:
            draws = [torch.rand(score.shape[1], generator=torch.Generator().manual_seed(s)) for s in seed_I.tolist()]
            score = torch.stack(draws).to(score)
        counts = (all_R * self.share).round().clamp(min=self.least).long().tolist()
        return torch.cat([best(score[r : r + 1], k, keep_RN[r : r + 1]) for r, k in enumerate(counts)])


@contextmanager
def untrimmed(model: Any) -> Iterator[None]:
    """Within, a model that trims keeps all tokens and heads."""
    model.trimmer.active = False
    try:
        yield
    finally:
        model.trimmer.active = True


def mean_kept(x_RND: Tensor, keep_RN: Tensor) -> Tensor:
    """Mean of the tokens that are kept, [R, D]."""
    return (x_RND * keep_RN[..., None]).sum(1) / keep_RN.sum(1, keepdim=True)


def gathered(
    x_RTD: Tensor, keep_RN: Tensor, places_RN: Tensor | None, first: int
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Tokens that are kept, in the order they had, and padding behind those of rows that keep fewer.

    Returns:
        Tokens [R, first + M, D], 1 where one is there [R, M], and its place in the row's grid [R, M].
    """
    most = int(keep_RN.sum(1).max())
    if most == keep_RN.shape[1]:
        return x_RTD, keep_RN, places_RN
    order = keep_RN.argsort(dim=1, descending=True, stable=True)[:, :most]
    places = order if places_RN is None else places_RN.gather(1, order)
    patches = x_RTD[:, first:].gather(1, order[..., None].expand(-1, -1, x_RTD.shape[-1]))
    return torch.cat([x_RTD[:, :first], patches], 1), keep_RN.gather(1, order), places


def attention_received(block: Any, x_RTD: Tensor) -> Tensor:
    """How much the tokens of a row look at each, mean over heads and lookers: [R, T].  [ours: what it is ranked by]"""
    q, k, _ = projected(block.attn, block.norm1(x_RTD), None)
    return (q * block.attn.scale @ k.transpose(-2, -1)).softmax(-1).mean((1, 2)).detach()


def from_centre(tokens: int, like: Tensor) -> Tensor:
    """Distance of every place of a square grid from its centre; ties in reading order: [N]."""
    side = math.isqrt(tokens)
    at = torch.arange(side, device=like.device, dtype=like.dtype) - (side - 1) / 2
    distance = (at[:, None].square() + at.square()).flatten()
    return distance + torch.arange(len(distance), device=like.device, dtype=like.dtype) * 1e-6


def smaller(tower: Any, pixels_ICHW: Tensor, share: float) -> Tensor:
    """Tokens [I, T, D] of the pictures brought to the size whose patches are about this share of what they were."""
    patch = tower.patch_embed.patch_size[0]
    side = max(1, round(pixels_ICHW.shape[-1] // patch * math.sqrt(share)))
    size = (side * patch, side * patch)
    pixels = F.interpolate(pixels_ICHW, size, mode="bilinear", antialias=True, align_corners=False)
    x = tower.patch_embed.norm(tower.patch_embed.proj(pixels).flatten(2).transpose(1, 2))
    positions = resample_abs_pos_embed(tower.pos_embed, [side, side], num_prefix_tokens=tower.num_prefix_tokens)
    if tower.cls_token is not None:
        x = torch.cat([tower.cls_token.expand(len(x), -1, -1), x], 1)
    return tower.norm_pre(tower.pos_drop(x + positions))  # type: ignore[no-any-return]
