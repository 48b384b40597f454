"""Dense: the model as it is, trained on like every other row (the reference of all tables)."""

from snp.compression.method import OneShot
from snp.compression.plan import Plan
from snp.compression.problem import Problem
from snp.compression.registry import register


@register
class Dense(OneShot):
    """Removes nothing, whatever the budget says."""

    name = "dense"
    kind = "dense"
    stage = "one-shot"
    source = "the uncompressed model"
    summary = "the control: nothing is removed, whatever the budget"

    def plan(self, problem: Problem) -> Plan:
        return Plan.dense(problem.towers)
