"""MDETR's fusion: a transformer encoder over image and text tokens together, and a decoder of object queries.

Post-norm layers, positions added to queries and keys only, as in DETR (Carion et al. 2020) and MDETR (2021).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snp.trimming.attention import weighed


class Attention(nn.Module):
    """Multi-head attention with positions added to q and k but not to v.

    `seen_BS` marks keys that are to be seen; as floats, 0 or 1, it takes gradients.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))

    def forward(self, q_BTD: Tensor, k_BSD: Tensor, v_BSD: Tensor, seen_BS: Tensor | None = None) -> Tensor:
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, x in ((self.q, q_BTD), (self.k, k_BSD), (self.v, v_BSD))
        )
        dropout = self.dropout if self.training else 0.0
        if seen_BS is not None and seen_BS.is_floating_point():
            logits = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
            x = F.dropout(weighed(logits, seen_BS[:, None]), dropout) @ v
        else:
            mask = None if seen_BS is None else seen_BS[:, None, None]
            x = F.scaled_dot_product_attention(q, k, v, mask, dropout)
        return self.o(x.transpose(1, 2).flatten(2))


class _Layer(nn.Module):
    def __init__(self, width: int, ffn: int, dropout: float) -> None:
        super().__init__()
        self.drop = nn.Dropout(dropout)
        self.ffn = nn.Sequential(nn.Linear(width, ffn), nn.ReLU(), nn.Dropout(dropout), nn.Linear(ffn, width))
        self.norm_ffn = nn.LayerNorm(width)

    def _feed(self, x: Tensor) -> Tensor:
        return self.norm_ffn(x + self.drop(self.ffn(x)))


class EncoderLayer(_Layer):
    """Self-attention over the joint sequence of image and text tokens, then a feed-forward network."""

    def __init__(self, width: int, heads: int, ffn: int, dropout: float) -> None:
        super().__init__(width, ffn, dropout)
        self.attention = Attention(width, heads, dropout)
        self.norm = nn.LayerNorm(width)

    def forward(self, x_BSD: Tensor, position_BSD: Tensor, seen_BS: Tensor) -> Tensor:
        qk = x_BSD + position_BSD
        return self._feed(self.norm(x_BSD + self.drop(self.attention(qk, qk, x_BSD, seen_BS))))


class DecoderLayer(_Layer):
    """Self-attention among queries, ONE cross-attention over the joint memory, a feed-forward network."""

    def __init__(self, width: int, heads: int, ffn: int, dropout: float) -> None:
        super().__init__(width, ffn, dropout)
        self.among = Attention(width, heads, dropout)
        self.across = Attention(width, heads, dropout)
        self.norm_among, self.norm_across = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x_BQD: Tensor, query_BQD: Tensor, key_BSD: Tensor, memory_BSD: Tensor, seen_BS: Tensor) -> Tensor:
        qk = x_BQD + query_BQD
        x_BQD = self.norm_among(x_BQD + self.drop(self.among(qk, qk, x_BQD)))
        found = self.across(x_BQD + query_BQD, key_BSD, memory_BSD, seen_BS)
        return self._feed(self.norm_across(x_BQD + self.drop(found)))


def sine_positions(xy: Tensor, width: int, temperature: float) -> Tensor:
    """Sine positions [..., width] of points [..., 2] in the unit square: half the channels tell y, half x (DETR)."""
    quarter = width // 4
    rates = temperature ** (-torch.arange(quarter, device=xy.device, dtype=xy.dtype) / quarter)
    angles = xy[..., None] * (2 * torch.pi) * rates  # [..., 2, quarter]
    return torch.cat([angles.sin(), angles.cos()], -1).flip(-2).flatten(-2)


def mlp(width: int, out: int, layers: int = 3) -> nn.Sequential:
    """The small box head of DETR: linear layers with ReLU between them."""
    modules: list[nn.Module] = []
    for _ in range(layers - 1):
        modules += [nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*modules, nn.Linear(width, out))
