"""CHITA: the sparse weights that change a quadratic model of the loss least, with the survivors set anew."""

import tempfile
from collections.abc import Iterator

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from baselines.masking import Scores, gradients, lowest, plan_of, schedule, weights
from snp.compression.method import Decided, Method, Problem, Session
from snp.compression.method import Options as MethodOptions
from snp.compression.registry import register
from snp.compression.statistics import evaluating
from snp.errors import InputError


class Options(MethodOptions):
    """Sizes of the quadratic problem."""

    gradients: int = Field(32, ge=1, description="batches whose gradients make the model of the loss")
    ridge: float = Field(1e-4, gt=0, description="lambda: how much staying near the dense weights counts")
    iterations: int = Field(20, ge=0, description="steps of hard thresholding")
    block: int = Field(10_000, ge=1, description="weights that are solved for together, and held in memory at once")


@register
class CHITA(Method):
    """min over w with k non-zeros of ||A w - b||^2/2 + n lambda ||w - w0||^2/2, b = A w0 - 1, a row of A a gradient.

    That is the loss to second order around w0, with the empirical Fisher matrix A'A/n as its curvature. Steps of
    iterative hard thresholding from w0 find the support; on it every block of weights is then set to its minimum, the
    others held (a ridge problem of n unknowns). A lies on disk and passes through memory block by block: the memory
    needed does not grow with batches times weights.
    """

    name = "chita"
    kind = "unstructured"
    stage = "calibration"
    source = "Fast as CHITA: Neural Network Pruning with Combinatorial Optimization (Benbaki et al., ICML 2023)"
    summary = "the sparse weights nearest to the dense model in a quadratic model of its loss"
    Options = Options

    def start(self, problem: Problem) -> Session:
        return _stages(problem, self.options, 1)


class StagedOptions(Options):
    """Sizes of the quadratic problems, and their number."""

    rounds: int = Field(4, ge=1, description="stages from dense to the target")


@register
class CHITAPlusPlus(Method):
    """CHITA in stages: after stage t of T the share 1 - (1 - s)^(t/T) is zero; each starts where the last ended."""

    name = "chita++"
    kind = "unstructured"
    stage = "calibration"
    source = "CHITA++, the multi-stage form of CHITA (Benbaki et al., ICML 2023)"
    summary = "CHITA in several stages, with gradients taken anew in each"
    Options = StagedOptions

    def start(self, problem: Problem) -> Session:
        return _stages(problem, self.options, self.options.rounds)


def _stages(problem: Problem, options: Options, rounds: int) -> Session:
    values = weights(problem)
    for count in schedule(problem, values, rounds):
        values, masks, scores = _solve(problem, options, values, count)
    return Decided(plan_of(problem, masks), lambda: scores, values)


def _solve(problem: Problem, options: Options, start: Scores, count: int) -> tuple[Scores, Scores, Scores]:
    """One quadratic problem around `start`: (weights, masks, scores)."""
    w0 = torch.cat([value.flatten() for value in start.values()])
    fallen = w0 == 0

    def shaped(flat: Tensor) -> Scores:
        pieces = flat.split([value.numel() for value in start.values()])
        return {name: piece.view(start[name].shape) for name, piece in zip(start, pieces, strict=True)}

    with _Gradients(problem, start, options) as matrix:
        n, ridge = matrix.rows, options.ridge * matrix.rows
        gram = sum((a @ a.T for _, a in matrix.blocks()), torch.zeros(n, n))
        step = 1 / (float(torch.linalg.eigvalsh(gram.double())[-1]) + ridge)
        b = sum((a @ w0[span] for span, a in matrix.blocks()), torch.zeros(n)) - 1
        w = w0.clone()
        for _ in range(max(options.iterations, 1)):
            if options.iterations:
                residual = sum((a @ w[span] for span, a in matrix.blocks()), torch.zeros(n)) - b
                for span, a in matrix.blocks():
                    w[span] -= step * (residual @ a + ridge * (w[span] - w0[span]))
            scores = w.abs()
            ranked = shaped(scores.masked_fill(fallen, -1.0))  # what is zero already falls first
            kept = torch.cat([mask.flatten() for mask in lowest(list(ranked.values()), count)])
            w *= kept
        residual = b - sum((a @ w[span] for span, a in matrix.blocks()), torch.zeros(n))
        for span, a in matrix.blocks():
            a = a * kept[span]
            # the block's own minimum: d = A'(AA' + n lambda)^-1 (r + A (w - w0)), from w0 on
            wanted = residual + a @ (w[span] - w0[span])
            solved = torch.linalg.solve((a @ a.T).double() + ridge * torch.eye(n, dtype=torch.float64), wanted.double())
            new = (w0[span] + solved.float() @ a) * kept[span]
            residual -= a @ (new - w[span])
            w[span] = new
    return shaped(w), shaped(kept), shaped(scores)


class _Gradients:
    """The gradients of some batches as rows of a matrix on disk, read in blocks of columns."""

    def __init__(self, problem: Problem, values: Scores, options: Options) -> None:
        self.problem, self.values, self.options = problem, values, options

    def __enter__(self) -> "_Gradients":
        self._file = tempfile.TemporaryFile()
        leaves = {name: value.clone().requires_grad_() for name, value in self.values.items()}
        self.rows = 0
        with evaluating(self.problem.model):
            for batch in self.problem.batches(self.options.gradients):
                for gradient in gradients(self.problem, batch, leaves).values():
                    self._file.write(gradient.contiguous().numpy().tobytes())
                self.rows += 1
        if not self.rows:
            raise InputError("calibration", "holds no batch", "give at least one")
        self._file.flush()
        self._width = sum(value.numel() for value in self.values.values())
        self._matrix = np.memmap(self._file, np.float32, "r", shape=(self.rows, self._width))
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """(columns, matrix [rows, at most `block`]), one after the other."""
        for start in range(0, self._width, self.options.block):
            span = slice(start, min(start + self.options.block, self._width))
            yield span, torch.from_numpy(np.array(self._matrix[:, span]))
