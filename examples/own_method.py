"""A method of your own in a file of your own, trained and shown as a row of a table.

snp run scenes/keep-middle@70 --plugin examples/own_method.py --scale smoke --out FOLDER
snp table --out FOLDER --scale smoke
"""

import torch

from baselines.ranking import best_within, groups, quantiles
from snp.compression.method import OneShot
from snp.compression.plan import Plan
from snp.compression.problem import Problem
from snp.compression.registry import register


@register
class KeepMiddle(OneShot):
    """Keeps the units in the middle of every layer: a control that looks at no weight."""

    name, kind, stage = "keep-middle", "structured", "one-shot"
    source, summary = "this example", "keep the units in the middle"

    def plan(self, problem: Problem) -> Plan:
        """Scores of all units, of which the best are kept within the budget."""
        scores = {group: -(torch.arange(n) - n / 2).abs() for group, n in groups(problem).items()}
        return best_within(problem, quantiles(scores))


if __name__ == "__main__":
    print(__doc__)
