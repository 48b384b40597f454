"""Counting: parameters that a model stores, those that are not zero, and the operations of a forward pass."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from snp.compression.tower import Tower


@dataclass(frozen=True)
class Counts:
    """Parameter counts; tied parameters count once, where they are stored.

    Attributes:
        stored: all parameters of the model.
        nonzero: those that are not exactly zero (on the meta device, which holds no values, all).
        towers: stored q, k, v, o, fc1, fc2 weights and biases, per tower (comparable to Plan.cost()).
        embeddings: stored in nn.Embedding modules.
        other: the rest: norms, patch and position embeddings, fusion, heads.
    """

    stored: int
    nonzero: int
    towers: dict[str, int]
    embeddings: int

    @property
    def total(self) -> int:
        """Stored parameters of all towers."""
        return sum(self.towers.values())

    @property
    def other(self) -> int:
        return self.stored - self.total - self.embeddings


def count(model: nn.Module, towers: dict[str, Tower]) -> Counts:
    """Count a model, dense or compressed; `towers` are views of this very model."""
    parameters = dict(model.named_parameters())  # without duplicates
    embeddings = {id(m.weight): m.weight for m in model.modules() if isinstance(m, nn.Embedding)}
    return Counts(
        stored=sum(p.numel() for p in parameters.values()),
        nonzero=sum(p.numel() if p.is_meta else int(p.count_nonzero()) for p in parameters.values()),
        towers={
            name: sum(model.get_parameter(n).numel() for n in tower.parameter_names) for name, tower in towers.items()
        },
        embeddings=sum(weight.numel() for weight in embeddings.values()),
    )


def flops(model: nn.Module, *example: Any, **named: Any) -> int:
    """Floating-point operations of the matrix products of one forward pass; a multiply-add counts as two.

    The counter sees nothing of fused attention on a CPU, nor of torch's inference fast path for attention,
    which is taken in eval mode whenever no gradient is asked for. So: plain attention, and the fast path off.
    """
    fast, training = torch.backends.mha.get_fastpath_enabled(), model.training
    torch.backends.mha.set_fastpath_enabled(False)
    model.eval()
    try:
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            model(*example, **named)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        model.train(training)
    return int(counter.get_total_flops())
