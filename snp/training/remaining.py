"""What is left of a dense model: parameters, zeros and FLOPs, as shares of what it had."""

from collections.abc import Mapping, Sequence

import numpy as np
from torch import nn

from snp.compression import count
from snp.compression.plan import Plan
from snp.compression.tower import towers_of
from snp.data.dataset import GroundingSet
from snp.models.config import TowerConfig
from snp.models.family import build
from snp.models.mdetr import TOWERS


def ratios(model: nn.Module, plan: Plan, config: TowerConfig, data: GroundingSet) -> dict[str, float | int]:
    """What is left of the dense model: parameters stored, in the towers, not zero, and FLOPs of one caption."""
    dense = build(config)
    whole, left = (count.count(m, towers_of(m, TOWERS)) for m in (dense, model))
    batch = data.batch(np.array([int(np.argsort(data.lengths)[len(data) // 2])]))
    return {
        "stored_params": left.stored,
        "stored_ratio": left.stored / whole.stored,
        "tower_ratio": left.total / whole.total,
        "nonzero_ratio": left.nonzero / whole.stored,
        "flops_ratio": count.flops(model, *batch.inputs) / count.flops(dense, *batch.inputs),
    }


def sparsity(model: nn.Module, groups: Mapping[str, Sequence[str]]) -> float:
    """The share of these weights that is zero."""
    weights = [model.get_parameter(name) for names in groups.values() for name in names]
    return 1 - sum(int(w.count_nonzero()) for w in weights) / sum(w.numel() for w in weights)
