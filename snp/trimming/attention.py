"""Attention of timm's layers, dense or compressed, without some tokens and heads: masked to learn, cut to be fast."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from snp.compression.modules import Attention
from snp.compression.tied import TiedLinear


def weighed(logits_BHTS: Tensor, keep_BTS: Tensor) -> Tensor:
    """Softmax over keys of which each counts as much as `keep` says, 0 or 1; differentiable in `keep`.

    As in DynamicViT (Rao et al. 2021): adding log(keep) to logits would have an infinite gradient where keep is 0.
    Every query needs a key that is kept.
    """
    weight = (logits_BHTS - logits_BHTS.amax(-1, keepdim=True).detach()).exp() * keep_BTS[:, None]
    return weight / weight.sum(-1, keepdim=True)


def masked(attention: Any, x_RTD: Tensor, keep_RT: Tensor, heads_RH: Tensor | None) -> Tensor:
    """What `attention` says where tokens see only those that are kept, and themselves.

    Args:
        keep_RT, heads_RH: 1 where a token or a head is kept, 0 where not; gradients flow to them.
    """
    q, k, v = projected(attention, x_RTD, None)
    own = torch.eye(x_RTD.shape[1], device=x_RTD.device, dtype=x_RTD.dtype)
    keep_RTT = keep_RT[:, None] + (1 - keep_RT[:, None]) * own
    x = weighed(q * attention.scale @ k.transpose(-2, -1), keep_RTT) @ v
    if heads_RH is not None:
        x = x * heads_RH[..., None, None]
    return attention.proj_drop(attention.proj(x.transpose(1, 2).flatten(2)))  # type: ignore[no-any-return]


def cut(attention: Any, x_RTD: Tensor, there_RT: Tensor | None, heads_RH: Tensor | None) -> Tensor:
    """The same of tokens that are left, for inference: heads that no row keeps are not computed.

    Args:
        there_RT: False at padding; None where there is none.
        heads_RH: 1 where a head is kept; None for all.
    """
    used = None
    if heads_RH is not None:
        on_H = heads_RH.bool().any(0)
        used = None if bool(on_H.all()) else on_H.nonzero()[:, 0]
        heads_RH = None if bool((heads_RH.bool() == on_H).all()) else heads_RH[:, on_H]
    if used is not None and not len(used):
        return attention.proj.bias.expand_as(x_RTD)  # type: ignore[no-any-return]
    q, k, v = projected(attention, x_RTD, used)
    mask = None if there_RT is None else there_RT[:, None, None]
    x = F.scaled_dot_product_attention(q, k, v, mask, scale=attention.scale)
    if heads_RH is not None:
        x = x * heads_RH[..., None, None]
    x = x.transpose(1, 2).flatten(2)
    if used is None:
        return attention.proj(x)  # type: ignore[no-any-return]
    weight, bias = effective(attention.proj)
    return F.linear(x, weight[:, columns(used, v.shape[-1])], bias)


def projected(attention: Any, x_RTD: Tensor, used: Tensor | None) -> tuple[Tensor, ...]:
    """Queries, keys and values [R, H, T, dims of a head] of all heads, or of those that are `used`."""
    h = attention.num_heads
    d_qk, d_vo = dims(attention)
    sizes = (d_qk, d_qk, d_vo)
    if used is None:
        packed = attention.qkv(x_RTD)
    else:
        starts = (0, h * d_qk, 2 * h * d_qk)
        rows = torch.cat([start + columns(used, size) for start, size in zip(starts, sizes, strict=True)])
        weight, bias = effective(attention.qkv)
        assert bias is not None
        packed, h = F.linear(x_RTD, weight[rows], bias[rows]), len(used)
    parts = packed.split([h * size for size in sizes], -1)
    return tuple(part.unflatten(-1, (h, -1)).transpose(1, 2) for part in parts)


def columns(used_H: Tensor, size: int) -> Tensor:
    """Places of the dimensions of these heads, where each has `size` of them."""
    return (used_H[:, None] * size + torch.arange(size, device=used_H.device)).flatten()


def dims(attention: Any) -> tuple[int, int]:
    """Dimensions of a head in queries and keys, and in values."""
    if isinstance(attention, Attention):
        return attention.d_qk, attention.d_vo
    return attention.head_dim, attention.head_dim


def effective(linear: Any) -> tuple[Tensor, Tensor | None]:
    """The whole weight and bias of a linear map, wherever its units are stored."""
    return linear.effective() if isinstance(linear, TiedLinear) else (linear.weight, linear.bias)
