"""A quadratic model of the loss from the gradients of a few batches, which lie on disk and are read block by block."""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from baselines.masking import Scores, gradients, stand_ins
from snp.compression.problem import Problem
from snp.compression.statistics import evaluating
from snp.errors import InputError


@dataclass(frozen=True)
class Support:
    """The weights that stay, all others being zero, and the best values of theirs: w0 - A' u.

    With B the columns of A that stay and e = c + A d for the d of the weights that fell: u = (B B' + r)^-1 e, and the
    objective is r (u e + the square of what fell)/2.

    Attributes:
        kept_P: which they are.
        gram_NN: B B' + r.
        rest_N: e.
        lost: the sum of the squares of the weights that fell.
    """

    kept_P: Tensor
    gram_NN: Tensor
    rest_N: Tensor
    lost: float
    ridge: float

    @cached_property
    def u_N(self) -> Tensor:
        return torch.linalg.solve(self.gram_NN, self.rest_N)

    @property
    def value(self) -> float:
        """The objective."""
        return self.ridge * (float(self.u_N @ self.rest_N) + self.lost) / 2


@dataclass(frozen=True)
class Quadratic:
    """||A d + c||^2/2 + r ||d||^2/2 in d = w - w0, for N gradients of P weights; all sums are made in float64.

    Attributes:
        dense_P: w0.
        linear_N: c.
        ridge: r.
        spans: the blocks of weights.
        read: places of weights -> their columns of A, [N, places].
    """

    dense_P: Tensor
    linear_N: Tensor
    ridge: float
    spans: Sequence[slice]
    read: Callable[[slice | Tensor], Tensor]

    def part(self, span: slice) -> "Quadratic":
        """The same of one block alone, all other weights held at w0."""
        columns = self.read(span)
        return Quadratic(
            self.dense_P[span], self.linear_N, self.ridge, [slice(0, columns.shape[1])], lambda at: columns[:, at]
        )

    def times(self, d_P: Tensor) -> Tensor:
        """A d, [N]."""
        return sum((self.read(s).double() @ d_P[s].double() for s in self.spans), torch.zeros_like(self.linear_N))

    def pull(self, u_N: Tensor) -> Tensor:
        """A' u, [P]."""
        return torch.cat([(u_N @ self.read(span).double()).to(self.dense_P.dtype) for span in self.spans])

    def value(self, w_P: Tensor) -> float:
        """The objective at w."""
        d_P = w_P - self.dense_P
        square = float(d_P.double().square().sum())
        return (float((self.times(d_P) + self.linear_N).square().sum()) + self.ridge * square) / 2

    def support(self, kept_P: Tensor, like: Support | None = None) -> Support:
        """These weights as a support; of `like`, another one, only the columns in which they differ are read."""
        if like is None:  # the one of none
            eye, square = torch.eye(len(self.linear_N), dtype=torch.float64), self.dense_P.double().square().sum()
            rest_N = self.linear_N - self.times(self.dense_P)
            like = Support(torch.zeros_like(kept_P), self.ridge * eye, rest_N, float(square), self.ridge)
        gram_NN, rest_N, lost = like.gram_NN.clone(), like.rest_N.clone(), like.lost
        changed = (kept_P != like.kept_P).nonzero()[:, 0]
        for places in changed.split(max(span.stop - span.start for span in self.spans)):
            a, sign = self.read(places).double(), torch.where(kept_P[places], 1.0, -1.0).double()
            w0 = self.dense_P[places].double()
            gram_NN += (a * sign) @ a.T
            rest_N += a @ (sign * w0)
            lost -= float(sign @ w0.square())
        return Support(kept_P, gram_NN, rest_N, lost, self.ridge)


@contextmanager
def quadratic(
    problem: Problem, values: Scores, batches: int, samples: int | None, alike: bool, ridge: float, block: int
) -> Iterator[Quadratic]:
    """The loss around `values` to second order, times n/m: c = 1/m for a batch of m samples, r = n lambda.

    Args:
        values: name -> weights.
        batches: how many gradients at most.
        samples: m; None: the length of a batch's first tensor.
        alike: every batch is as large as the first.
        ridge: lambda.
        block: about how many weights pass through memory at once: parts of one matrix, of equal size.

    Raises:
        InputError: no batch, one whose samples cannot be counted, or a gradient that is missing or not finite.
    """
    sizes = [value.numel() for value in values.values()]
    leaves, counts = stand_ins(problem, values), []
    with tempfile.TemporaryFile() as file:
        with evaluating(problem.model):
            for batch in problem.batches(batches):
                counts.append(samples or _length(batch))
                if not counts[-1]:
                    raise InputError("calibration", "a batch holds no tensor to count its samples by", "give `samples`")
                for gradient in gradients(problem, batch, leaves).values():
                    file.write(gradient.float().cpu().contiguous().numpy().tobytes())
        if not counts:
            raise InputError("calibration", "holds no batch", "give at least one")
        file.flush()
        matrix = np.memmap(file, np.float32, "r", shape=(len(counts), sum(sizes)))
        yield Quadratic(
            torch.cat([value.flatten().cpu() for value in values.values()]),
            1 / torch.tensor(counts[:1] * len(counts) if alike else counts, dtype=torch.float64),
            ridge * len(counts),
            list(_pieces(sizes, block)),
            lambda at: torch.from_numpy(np.array(matrix[:, at if isinstance(at, slice) else at.numpy()])),
        )


def _pieces(sizes: Sequence[int], block: int) -> Iterator[slice]:
    """Every matrix cut into size // block equal parts, the last of which has what is left over; at least one."""
    start = 0
    for size in sizes:
        count = max(1, size // block)
        cuts = [start + i * (size // count) for i in range(count)]
        start += size
        yield from (slice(a, b) for a, b in zip(cuts, [*cuts[1:], start], strict=True))


def _length(batch: Any) -> int:
    """The length of the first tensor in a batch; 0 where there is none."""
    if isinstance(batch, Tensor):
        return len(batch) if batch.dim() else 1
    parts: Any = ()
    if isinstance(batch, Mapping):
        parts = batch.values()
    elif is_dataclass(batch):
        parts = (getattr(batch, field.name) for field in fields(batch))
    elif isinstance(batch, list | tuple):
        parts = batch
    return next(filter(None, map(_length, parts)), 0)
