"""Magnitude-structured: prune the units with the smallest L2 norm, per layer or ranked globally."""

from typing import Literal

from pydantic import Field

from baselines.ranking import best_within, norms, quantiles, unit_costs
from snp.compression.method import OneShot, StructuredOptions
from snp.compression.plan import Plan
from snp.compression.problem import Problem
from snp.compression.registry import register


@register
class MagnitudeStructured(OneShot):
    """Prunes units (feed-forward neurons; query-key and value dimensions of all heads) of smallest L2 norm.

    Global ranking divides the squared norm by the unit's parameters, as units of attention are larger [ours].
    """

    name = "magnitude-structured"
    kind = "structured"
    stage = "one-shot"
    source = "L2-norm filter pruning (Li et al., ICLR 2017), on the units of the transformer"
    summary = "prune the units with the smallest L2 norm"

    class Options(StructuredOptions):
        """Where units compete."""

        scope: Literal["uniform", "global"] = Field(
            "uniform",
            description="uniform: the same share in every layer and component; global: one ranking by L2 per parameter",
        )

    options: Options

    def plan(self, problem: Problem) -> Plan:
        scores = norms(problem)
        if self.options.scope == "uniform":
            return best_within(problem, quantiles(scores))
        cost = unit_costs(problem)
        return best_within(problem, {site: norm.square() / cost[site] for site, norm in scores.items()})
