"""Random-structured: prune random units, the same share in every layer and component (the control)."""

import torch

from baselines.ranking import best_within, groups, quantiles
from snp.compression.method import OneShot, StructuredOptions
from snp.compression.plan import Plan
from snp.compression.problem import Problem
from snp.compression.registry import register


@register
class RandomStructured(OneShot):
    """Prunes units drawn by the problem's seed, uniformly over layers and components."""

    name = "random-structured"
    kind = "structured"
    stage = "one-shot"
    source = "control"
    summary = "prune random units, the same share everywhere"
    Options = StructuredOptions

    def plan(self, problem: Problem) -> Plan:
        generator = torch.Generator().manual_seed(problem.seed)
        scores = {group: torch.rand(n, generator=generator) for group, n in groups(problem).items()}
        return best_within(problem, quantiles(scores))
