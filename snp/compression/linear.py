"""Linear maps that store less than they compute with: units stored elsewhere, and zeros where units were."""

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
        bias: own biases [n_own] for dim 0; the whole bias [d], which is never shared, for dim 1; None: it has none.
        index: [n], place of each effective unit in the concatenation of own and donors' stored units.
        donors: modules with `weight` and `bias`.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None, index: Tensor, donors: tuple[nn.Module, ...], dim: int
    ) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), None if bias is None else nn.Parameter(bias)
        self.index = index  # no buffer: weights that are loaded into a model on the meta device would not bring it
        self.donors = donors  # a tuple, so that nn.Module does not register its members
        self.dim = dim
        sizes = (len(index), weight.shape[1]) if dim == 0 else (weight.shape[0], len(index))
        self.out_features, self.in_features = sizes

    def effective(self) -> tuple[Tensor, Tensor | None]:
        """The whole weight [out, in] and bias [out] if it has one, differentiable with respect to every stored part."""
        if self.index.device != self.weight.device and not self.weight.is_meta:
            self.index = self.index.to(self.weight.device)
        parts: tuple[Any, ...] = (self, *self.donors)
        # embedding is the row gather with the fastest gradient on a CPU
        stored = torch.cat([part.weight.transpose(0, self.dim) for part in parts])
        weight = F.embedding(self.index, stored).transpose(0, self.dim)
        if self.dim == 1 or self.bias is None:
            return weight, self.bias
        return weight, torch.cat([part.bias for part in parts])[self.index]

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]"""
        return F.linear(x, *self.effective())

    def extra_repr(self) -> str:
        stored = f"stored={self.weight.shape[self.dim]}/{len(self.index)}"
        return f"in_features={self.in_features}, out_features={self.out_features}, {stored}"


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
