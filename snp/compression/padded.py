"""A linear map that stores less than it computes with: zeros stand where units were."""

import torch.nn.functional as F
from torch import Tensor, nn


class PaddedLinear(nn.Module):
    """A linear map that keeps some of its rows (dim 0) or columns (dim 1), and gives or takes zeros for the others.

    For modules that insist on their sizes: what is stored is smaller, and what they compute between the maps is not.
    Of modules that take its `weight` and call it not, zeros stand in the weight. [ours]

    Args:
        stored: the rows [n, in] or columns [out, n] that are kept.
        bias: of the rows that are kept, or of all outputs for dim 1.
        kept: long [n], their places.
        whole: how many there were.
    """

    def __init__(self, stored: Tensor, bias: Tensor | None, kept: Tensor, whole: int, dim: int) -> None:
        super().__init__()
        self.stored, self.bias = nn.Parameter(stored), None if bias is None else nn.Parameter(bias)
        self.kept, self.whole, self.dim = kept, whole, dim
        sizes = (whole, stored.shape[1]) if dim == 0 else (stored.shape[0], whole)
        self.out_features, self.in_features = sizes

    def _places(self) -> Tensor:
        if self.kept.device != self.stored.device and not self.stored.is_meta:
            self.kept = self.kept.to(self.stored.device)
        return self.kept

    @property
    def weight(self) -> Tensor:
        """The whole weight [out, in], zeros included."""
        whole = self.stored.new_zeros(self.out_features, self.in_features)
        return whole.index_copy(self.dim, self._places(), self.stored)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]"""
        if self.dim == 1:
            return F.linear(x.index_select(-1, self._places()), self.stored, self.bias)
        made = F.linear(x, self.stored, self.bias)
        return made.new_zeros(*made.shape[:-1], self.whole).index_copy(-1, self._places(), made)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, kept={len(self.kept)}"
