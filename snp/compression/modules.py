"""Modules of compressed layers: a linear map with units stored elsewhere, and attention cut to size."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class TiedLinear(nn.Module):
    """A linear map that stores its own rows (dim 0) or columns (dim 1) and reads the others from donors.

    A donor is a plain linear map or another TiedLinear, of which the stored part counts. Donors are not
    registered as submodules, so each parameter exists once in parameters() and state_dict(), and its gradient
    is the sum of all uses. [ours]

    Args:
        weight: own part, [n_own, d] for dim 0 and [d, n_own] for dim 1.
        bias: own biases [n_own] for dim 0; the whole bias [d], which is never shared, for dim 1.
        index: [n], place of each effective unit in the concatenation of own and donors' stored units.
        donors: modules with `weight` and `bias`.
    """

    index: Tensor

    def __init__(
        self, weight: Tensor, bias: Tensor, index: Tensor, donors: tuple[nn.Module, ...], dim: int
    ) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)
        self.register_buffer("index", index.to(weight.device), persistent=False)
        self.donors = donors  # a tuple, so that nn.Module does not register its members
        self.dim = dim
        sizes = (len(index), weight.shape[1]) if dim == 0 else (weight.shape[0], len(index))
        self.out_features, self.in_features = sizes

    def effective(self) -> tuple[Tensor, Tensor]:
        """The whole weight [out, in] and bias [out], differentiable with respect to every stored part."""
        parts: tuple[Any, ...] = (self, *self.donors)
        # embedding is the row gather with the fastest gradient on a CPU
        stored = torch.cat([part.weight.transpose(0, self.dim) for part in parts])
        weight = F.embedding(self.index, stored).transpose(0, self.dim)
        if self.dim == 1:
            return weight, self.bias
        return weight, torch.cat([part.bias for part in parts])[self.index]

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]"""
        return F.linear(x, *self.effective())

    def extra_repr(self) -> str:
        stored = f"stored={self.weight.shape[self.dim]}/{len(self.index)}"
        return f"in_features={self.in_features}, out_features={self.out_features}, {stored}"


class Attention(nn.Module):
    """Multi-head self-attention whose heads have d_qk dimensions in queries and keys and d_vo in values.

    The logits keep the scale of the dense model, so cutting dimensions equals masking them.

    Args:
        qkv: d_model -> h*d_qk + h*d_qk + h*d_vo (queries, keys, values; head-major).
        proj: h*d_vo -> d_model.
        stored_qk, stored_vo: how many units of each are stored here (all unless tied).
        scale: 1/sqrt(d_head of the dense model).
    """

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

    def attend(self, x_BLD: Tensor, mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """[B, L, d_model] -> the same; `mask` as in scaled_dot_product_attention (True = attend)."""
        B, L, _ = x_BLD.shape
        h = self.num_heads
        parts = self.qkv(x_BLD).split((h * self.d_qk, h * self.d_qk, h * self.d_vo), dim=-1)
        q, k, v = (part.view(B, L, h, -1).transpose(1, 2) for part in parts)
        dropout = self.dropout if self.training else 0.0
        if self.d_qk == self.d_vo or x_BLD.is_cuda:
            x_BHLE = F.scaled_dot_product_attention(q, k, v, mask, dropout, is_causal, scale=self.scale)
        else:  # torch has no fused CPU kernel for unequal sizes; plain products beat its fallback
            x_BHLE = _attend_plainly(q * self.scale, k, v, mask, dropout, is_causal)
        return self.proj_drop(self.proj(x_BHLE.transpose(1, 2).reshape(B, L, h * self.d_vo)))

    def extra_repr(self) -> str:
        return f"heads={self.num_heads}, d_qk={self.d_qk}, d_vo={self.d_vo}, scale={self.scale:.4g}"


def _attend_plainly(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: float, is_causal: bool
) -> Tensor:
    logits = q @ k.transpose(-2, -1)
    if is_causal:
        mask = torch.ones(logits.shape[-2:], dtype=torch.bool, device=q.device).tril()
    if mask is not None:
        logits = logits.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else logits + mask
    return F.dropout(logits.softmax(-1), dropout) @ v


class TimmAttention(Attention):
    """Takes the place of timm's Attention."""

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        return self.attend(x, attn_mask, is_causal)


class TransformersAttention(Attention):
    """Takes the place of the attention of a transformers encoder (SiglipAttention, CLIPAttention)."""

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, is_causal: bool = False, **_: Any
    ) -> tuple[Tensor, None]:
        return self.attend(hidden_states, attention_mask, is_causal), None


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
    ) -> tuple[Tensor, None]:
        if key is not query or value is not query:
            raise NotImplementedError(
                "a compressed attention module is self-attention: query, key and value are one tensor"
            )
        x = query if self.batch_first else query.transpose(0, 1)
        out = self.attend(x, self._mask(attn_mask, key_padding_mask, x), is_causal and attn_mask is None)
        return (out if self.batch_first else out.transpose(0, 1)), None

    def _mask(self, mask: Tensor | None, padding_BL: Tensor | None, x: Tensor) -> Tensor | None:
        """MultiheadAttention's masks (True = do not attend; [L, L] or [B*h, L, L]) as one additive mask."""
        total: Tensor | None = None
        for part in (mask, None if padding_BL is None else padding_BL[:, None, None, :]):
            if part is None:
                continue
            if part.dtype == torch.bool:
                part = torch.zeros_like(part, dtype=x.dtype).masked_fill_(part, -torch.inf)
            if part.dim() == 3:
                part = part.view(len(x), self.num_heads, *part.shape[1:])
            total = part if total is None else total + part
        return total


class MaskedParameter(nn.Parameter):
    """A parameter whose masked weights are and stay zero, since their gradients are zero (also in copies).

    With a zero gradient from the start, momentum, Adam's moments, decoupled weight decay, and averages of
    weights all keep a zero weight at zero. [ours]
    """

    mask: Tensor

    def __new__(cls, data: Tensor, mask: Tensor, requires_grad: bool = True) -> "MaskedParameter":
        parameter: Any = torch.Tensor._make_subclass(cls, data * mask, True)
        parameter.mask = mask
        # the hook knows the mask and not the parameter: no reference cycle
        parameter.register_hook(lambda gradient: gradient * mask.to(gradient.device))
        return parameter.requires_grad_(requires_grad)  # type: ignore[no-any-return]

    def __deepcopy__(self, memo: dict[int, Any]) -> "MaskedParameter":
        if id(self) not in memo:
            memo[id(self)] = MaskedParameter(self.data.clone(), self.mask, self.requires_grad)
        return memo[id(self)]  # type: ignore[no-any-return]
