"""A linear map that reads units from other maps; for inference it keeps what it has read, while that is still so."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEW = 4
"""Runs of units, up to which slices are put together; of more, units are gathered one by one."""
SAMPLE = 128
"""Values of each tensor that are compared before what was read from it is used again."""


class TiedLinear(nn.Module):
    """A linear map that stores its own rows (dim 0) or columns (dim 1) and reads the others from donors.

    A donor is a plain linear map or another TiedLinear, of which the stored part counts. Donors are not
    registered as submodules, so each parameter exists once in parameters() and state_dict(), and its gradient
    is the sum of all uses. A map that is tied whole uses its donor's weight as it is. On a CPU, in eval mode and where
    no gradient is asked for, what was gathered is kept for the next pass, while it is still so (`Kept`). [ours]

    Args:
        weight: own part, [n_own, d] for dim 0 and [d, n_own] for dim 1.
        bias: own biases [n_own] for dim 0; the whole bias [d], which is never shared, for dim 1; None: it has none.
        index: [n], place of each effective unit in the concatenation of own and donors' stored units.
        donors: modules with `weight` and `bias`; may be given later, by `link`.

    Attributes:
        runs: (part, start, stop) of units that follow one another in one part (0: own), in the order of `index`; none
            where there are more than a few.
        whole: all units are those of one donor, in its order.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None, index: Tensor, donors: tuple[nn.Module, ...], dim: int
    ) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), None if bias is None else nn.Parameter(bias)
        self.index = index  # no buffer: weights that are loaded into a model on the meta device would not bring it
        self.dim = dim
        sizes = (len(index), weight.shape[1]) if dim == 0 else (weight.shape[0], len(index))
        self.out_features, self.in_features = sizes
        self.link(donors)

    def link(self, donors: tuple[nn.Module, ...]) -> None:
        """Read from these maps."""
        self.donors = donors  # a tuple, so that nn.Module does not register its members
        sizes = [part.weight.shape[self.dim] for part in self._parts]
        self.runs = _runs(self.index, sizes)
        self.whole = bool(donors) and self.runs == ((1, 0, sizes[1]),)
        self.kept: Kept | None = None

    @property
    def _parts(self) -> tuple[Any, ...]:
        return self, *self.donors

    def effective(self) -> tuple[Tensor, Tensor | None]:
        """The whole weight [out, in] and bias [out] if it has one, differentiable with respect to every stored part."""
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            return self._gathered()
        if self.training or torch.is_grad_enabled():
            self.kept = None  # an optimizer's step may follow, and fused ones write without being counted
            return self._gathered()
        if self.whole:
            return self._gathered()
        biased = self.dim == 0 and self.bias is not None
        read = [part.weight for part in self._parts] + [part.bias for part in self._parts if biased]
        kept = self.kept
        if kept is None or not kept.holds(read):
            kept = self.kept = Kept.of(read, self._gathered)
        if kept is None:
            return self._gathered()
        return kept.weight, kept.bias if self.dim == 0 else self.bias

    def _gathered(self) -> tuple[Tensor, Tensor | None]:
        parts, dim = self._parts, self.dim
        bias: Tensor | None = self.bias
        shared = dim == 0 and bias is not None  # biases go with rows
        biases: list[Tensor] = [part.bias for part in parts] if shared else []
        weight: Tensor
        if self.whole:
            weight, bias = parts[1].weight, parts[1].bias if shared else bias
        elif self.runs:
            weight = _sliced([part.weight for part in parts], self.runs, dim)
            bias = _sliced(biases, self.runs, 0) if shared else bias
        else:
            if self.index.device != self.weight.device and not self.weight.is_meta:
                self.index = self.index.to(self.weight.device)
            stored = _joined([part.weight for part in parts if part.weight.shape[dim]], dim)
            # embedding is the gather of rows with the fastest gradient on a CPU, index_select that of columns
            weight = F.embedding(self.index, stored) if dim == 0 else stored.index_select(1, self.index)
            bias = _joined(biases, 0)[self.index] if shared else bias
        if torch.is_grad_enabled() and not self.weight.numel():
            # an own part of no units has a gradient too, as every parameter that is used
            if bias is None:
                weight = torch.cat([weight.flatten(), self.weight.flatten()]).view_as(weight)
            else:
                bias = torch.cat([bias, self.weight.flatten(), *([self.bias] if shared else [])])  # type: ignore[list-item]
        return weight, bias

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]"""
        return F.linear(x, *self.effective())

    def train(self, mode: bool = True) -> Self:
        """As of every module; what was kept is dropped, in either mode."""
        self.kept = None
        return super().train(mode)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        self.kept = None  # it would hold the memory of what the module leaves
        return super()._apply(fn, recurse)  # type: ignore[no-any-return, no-untyped-call]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "kept": None}  # copies gather anew

    def extra_repr(self) -> str:
        stored = f"stored={self.weight.shape[self.dim]}/{len(self.index)}"
        return f"in_features={self.in_features}, out_features={self.out_features}, {stored}"


class Kept:
    """A gathered weight [out, in] and bias, and what the tensors were that they are made of.

    A tensor is what it was if it is the same parameter in the same memory, torch has counted no write to it, and a
    sample of its values is as it was: fused optimizers, and all that goes through `.data` or numpy, write without
    being counted. What changes less than the sample shows needs eval(), which drops what is kept.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, read: list[Tensor]) -> None:
        self.weight, self.bias = weight, bias
        # the alias keeps the memory from being given to another tensor, which would then look the same
        aliases = [tensor.detach() for tensor in read]
        # an odd step meets more columns
        samples = [alias.view(-1)[:: alias.numel() // SAMPLE | 1] for alias in aliases]
        self._seen = [
            (tensor, tensor._version, alias, sample, sample.clone())
            for tensor, alias, sample in zip(read, aliases, samples, strict=True)
        ]

    @classmethod
    def of(cls, read: list[Tensor], gathered: Callable[[], tuple[Tensor, Tensor | None]]) -> "Kept | None":
        """What `gathered` makes of the tensors that it reads; None where a write to them might go unnoticed.

        That is of stand-ins for parameters (functional_call), of tensors without a count of writes, and elsewhere than
        on a CPU, where a sample would have to be waited for.
        """
        for tensor in read:
            if type(tensor) is not nn.Parameter or not tensor.is_cpu or tensor.is_inference():
                return None
            if not tensor.is_contiguous():  # its sample would be a copy
                return None
        with torch.inference_mode(False), torch.no_grad():
            weight, bias = gathered()
            return cls(weight.contiguous(), bias, read) if type(weight) is Tensor else None

    def holds(self, read: list[Tensor]) -> bool:
        """Whether these tensors are those that were read, and what they were."""
        if len(read) != len(self._seen):
            return False
        for tensor, (known, version, alias, sample, before) in zip(read, self._seen, strict=True):
            if tensor is not known or tensor._version != version or not tensor.is_set_to(alias):
                return False
            if not torch.equal(sample, before):
                return False
        return True

    @property
    def nbytes(self) -> int:
        """Bytes of what is kept."""
        return self.weight.nbytes + (0 if self.bias is None else self.bias.nbytes)


def _runs(index: Tensor, sizes: list[int]) -> tuple[tuple[int, int, int], ...]:
    """See `TiedLinear.runs`; `sizes`: stored units of every part."""
    index, ends = index.cpu(), torch.tensor(sizes, device="cpu").cumsum(0)
    part = torch.bucketize(index, ends, right=True)
    breaks = (index.diff() != 1) | (part.diff() != 0)
    first = [0, *(breaks.nonzero()[:, 0] + 1).tolist()]
    if len(first) > FEW:
        return ()
    found = []
    for begin, end in pairwise([*first, len(index)]):
        which = int(part[begin])
        start = int(index[begin]) - sum(sizes[:which])
        found.append((which, start, start + end - begin))
    return tuple(found)


def _sliced(parts: list[Tensor], runs: tuple[tuple[int, int, int], ...], dim: int) -> Tensor:
    """The runs of all parts, one after the other; a part that is taken whole has no slice to be undone."""
    sizes = [part.shape[dim] for part in parts]
    return _joined(
        [
            parts[p] if stop - start == sizes[p] else parts[p].narrow(dim, start, stop - start)
            for p, start, stop in runs
        ],
        dim,
    )


def _joined(parts: list[Tensor], dim: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)
