"""Random: unstructured pruning of random weights (the control)."""

import torch

from baselines.masking import Scored, Scores, weights
from snp.compression.problem import Problem
from snp.compression.registry import register


@register
class Random(Scored):
    """Scores drawn uniformly by the problem's seed, one threshold for everything."""

    name = "random"
    stage = "one-shot"
    source = "control"
    summary = "zero random weights"

    def score(self, problem: Problem) -> Scores:
        generator = torch.Generator().manual_seed(problem.seed)
        return {name: torch.rand(w.shape, generator=generator) for name, w in weights(problem).items()}
