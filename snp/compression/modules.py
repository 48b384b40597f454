"""Attention cut to size: the modules that take the places of those of timm, transformers and torch."""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snp.errors import InputError


class Attention(nn.Module):
    """Multi-head self-attention whose heads have d_qk dimensions in queries and keys and d_vo in values.

    The logits keep the scale of the dense model, so cutting dimensions equals masking them. `forward` of a subclass
    takes what that of the dense module takes, and refuses what it does not understand.

    Attributes:
        parts: names that its dense module has for what it drops out with.

    Args:
        qkv: d_model -> h*d_qk + h*d_qk + h*d_vo (queries, keys, values; head-major).
        proj: h*d_vo -> d_model.
        stored_qk, stored_vo: how many units of each are stored here (all unless tied).
        scale: 1/sqrt(d_head of the dense model).
    """

    parts: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        qkv: nn.Module,
        proj: nn.Module,
        num_heads: int,
        d_qk: int,
        d_vo: int,
        stored_qk: int,
        stored_vo: int,
        scale: float,
        dropout: float = 0.0,
        proj_dropout: float = 0.0,
        batch_first: bool = True,
    ) -> None:
        super().__init__()
        self.qkv, self.proj, self.proj_drop = qkv, proj, nn.Dropout(proj_dropout)
        self.num_heads, self.d_qk, self.d_vo = num_heads, d_qk, d_vo
        self.stored_qk, self.stored_vo = stored_qk, stored_vo
        self.scale, self.dropout, self.batch_first = scale, dropout, batch_first

    def attend(
        self, x_BLD: Tensor, mask: Tensor | None = None, is_causal: bool = False, weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """[B, L, d_model] -> the same, and with `weights` those of the attention [B, h, L, L].

        Args:
            mask: as in scaled_dot_product_attention: True = attend, or added to the logits; whatever broadcasts to
                [B, h, L, L]. A row that may attend to nothing gives zeros before `proj`, as it does there.
            is_causal: no word sees a later one; with a mask, both hold.
        """
        h = self.num_heads
        parts = self.qkv(x_BLD).split((h * self.d_qk, h * self.d_qk, h * self.d_vo), dim=-1)
        q, k, v = (part.unflatten(-1, (h, -1)).transpose(1, 2) for part in parts)
        if mask is not None:
            mask, is_causal = _mask(mask, q, is_causal), False
        dropout = self.dropout if self.training else 0.0
        found = None
        if not weights and (self.d_qk == self.d_vo or x_BLD.is_cuda):
            x_BHLE = F.scaled_dot_product_attention(q, k, v, mask, dropout, is_causal, scale=self.scale)
        else:  # torch has no fused CPU kernel for unequal sizes; plain products beat its fallback, and zeros to fill up
            x_BHLE, found = _attend_plainly(q * self.scale, k, v, mask, dropout, is_causal)
        x_BLD = self.proj_drop(self.proj(x_BHLE.transpose(1, 2).flatten(2)))
        return x_BLD, found if weights else None

    @staticmethod
    def habits(dense: Any) -> dict[str, Any]:
        """How the dense module drops out, and where its batches are: arguments for its successor."""
        raise NotImplementedError

    @staticmethod
    def ask(module: Any, x_BLD: Tensor, allowed_LL: Tensor | None) -> Tensor:
        """[B, L, d_model] from the dense module or its successor, called as their layer calls it; True = attend."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        return f"heads={self.num_heads}, d_qk={self.d_qk}, d_vo={self.d_vo}, scale={self.scale:.4g}"


def _mask(mask: Tensor, q_BHLE: Tensor, is_causal: bool) -> Tensor:
    """A mask of bools, or of the queries' type, that is causal too where that is asked for."""
    if mask.dtype != torch.bool:
        if not mask.is_floating_point():
            raise InputError("attention mask", f"is of {mask.dtype}", "give bools (True = attend) or floats to add")
        mask = mask.to(q_BHLE.dtype)
    if not is_causal:
        return mask
    L = q_BHLE.shape[-2]
    later = torch.ones(L, L, dtype=torch.bool, device=mask.device).triu(1)
    return mask.masked_fill(later, False if mask.dtype == torch.bool else -torch.inf)


def _attend_plainly(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: float, is_causal: bool
) -> tuple[Tensor, Tensor]:
    """What scaled_dot_product_attention gives, and its weights; softmax in float32 at least, as there."""
    logits = q @ k.transpose(-2, -1)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    nothing: Tensor | None = None
    if is_causal:
        later = torch.ones(logits.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
        logits = logits.masked_fill(later, -torch.inf)
    elif mask is not None:
        hidden = ~mask if mask.dtype == torch.bool else mask.isneginf()
        nothing = hidden.all(-1, keepdim=True)  # softmax would make it NaN, in gradients too
        if mask.dtype == torch.bool:
            logits = logits.masked_fill(hidden & ~nothing, -torch.inf)
        else:
            logits = logits + mask.masked_fill(nothing, 0.0)
    weights = logits.softmax(-1)
    if nothing is not None:
        weights = weights.masked_fill(nothing, 0.0)
    weights = F.dropout(weights.to(v.dtype), dropout)
    return weights @ v, weights


IDLE = {"output_hidden_states", "num_items_in_batch"}
"""What models of transformers hand down to their attention modules, which have nothing to do with it."""


def _refuse(unknown: dict[str, Any]) -> None:
    for name, value in unknown.items():
        if value is not None and value is not False and name not in IDLE:
            raise InputError(name, "is nothing that a compressed attention module knows", "leave it out")


class TimmAttention(Attention):
    """Takes the place of timm's Attention."""

    parts = ("attn_drop", "proj_drop")

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False, **unknown: Any) -> Tensor:
        _refuse(unknown)
        return self.attend(x, attn_mask, is_causal)[0]

    @staticmethod
    def habits(dense: Any) -> dict[str, Any]:
        return {"dropout": dense.attn_drop.p, "proj_dropout": dense.proj_drop.p}

    @staticmethod
    def ask(module: Any, x_BLD: Tensor, allowed_LL: Tensor | None) -> Tensor:
        return module(x_BLD, attn_mask=allowed_LL)  # type: ignore[no-any-return]


class TransformersAttention(Attention):
    """Takes the place of the attention of a transformers encoder (SiglipAttention, CLIPAttention).

    An encoder that is causal says so beside a mask that has it already: `is_causal` counts where there is no mask.
    """

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        is_causal: bool | None = None,
        **unknown: Any,
    ) -> tuple[Tensor, None]:
        _refuse(unknown)
        return self.attend(hidden_states, attention_mask, bool(is_causal) and attention_mask is None)[0], None

    @staticmethod
    def habits(dense: Any) -> dict[str, Any]:
        if getattr(getattr(dense, "config", None), "output_attentions", False):
            raise InputError("config.output_attentions", "is on, and compressed layers give none", "turn it off")
        return {"dropout": float(dense.dropout)}

    @staticmethod
    def ask(module: Any, x_BLD: Tensor, allowed_LL: Tensor | None) -> Tensor:
        if allowed_LL is None:
            return module(hidden_states=x_BLD, attention_mask=None)[0]  # type: ignore[no-any-return]
        hidden = torch.finfo(x_BLD.dtype).min
        mask = torch.zeros_like(allowed_LL, dtype=x_BLD.dtype).masked_fill(~allowed_LL, hidden)[None, None]
        return module(hidden_states=x_BLD, attention_mask=mask)[0]  # type: ignore[no-any-return]


class TorchAttention(Attention):
    """Takes the place of torch's MultiheadAttention used as self-attention (open_clip)."""

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        if key is not query or value is not query:
            problem = "are not one tensor, and a compressed attention module is self-attention"
            raise InputError("query, key, value", problem, "compress no tower whose layers attend to others")
        alone = query.dim() == 2  # no batch
        x = query[None] if alone else query if self.batch_first else query.transpose(0, 1)
        mask = self._mask(attn_mask, key_padding_mask, x)
        out, weights = self.attend(x, mask, is_causal and attn_mask is None, need_weights)
        if weights is not None:
            weights = weights.mean(1) if average_attn_weights else weights
            weights = weights[0] if alone else weights
        return (out[0] if alone else out if self.batch_first else out.transpose(0, 1)), weights

    def _mask(self, mask: Tensor | None, padding_BL: Tensor | None, x: Tensor) -> Tensor | None:
        """MultiheadAttention's masks (True = do not attend; [L, L] or [B*h, L, L]) as one additive mask."""
        total: Tensor | None = None
        for part in (mask, None if padding_BL is None else padding_BL.reshape(len(x), 1, 1, x.shape[1])):
            if part is None:
                continue
            if part.dtype == torch.bool:
                part = torch.zeros_like(part, dtype=x.dtype).masked_fill_(part, -torch.inf)
            if part.dim() == 3:
                part = part.reshape(len(x), self.num_heads, *part.shape[1:])
            total = part if total is None else total + part
        return total

    @staticmethod
    def habits(dense: Any) -> dict[str, Any]:
        return {"dropout": dense.dropout, "batch_first": dense.batch_first}

    @staticmethod
    def ask(module: Any, x_BLD: Tensor, allowed_LL: Tensor | None) -> Tensor:
        x = x_BLD if module.batch_first else x_BLD.transpose(0, 1)
        hidden = None if allowed_LL is None else ~allowed_LL
        out: Tensor = module(x, x, x, need_weights=False, attn_mask=hidden)[0]
        return out if module.batch_first else out.transpose(0, 1)
