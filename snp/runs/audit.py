"""Whether committed results come out again: a sample of them is run afresh by the code of now, and compared."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from snp.errors import InputError
from snp.experiment.benchmarks import ABOUT
from snp.experiment.spec import Finetune, Scale
from snp.runs.inventory import AUDITS
from snp.runs.manifest import code_state
from snp.runs.result import Result
from snp.runs.store import Store

NEAR = 0.5
"""Points that a figure may be off: sums in another order move one by as much."""
Verdict = Literal["to the bit", "near", "off"]


COSTS = ("stored_params", "stored_ratio", "tower_ratio", "nonzero_ratio", "flops_ratio", "plan")
"""What a compression measures that the same code makes the same; times are not."""


@dataclass(frozen=True)
class Audited:
    """A result beside the same run done afresh, each with the compression that it is of: (scores, costs).

    Attributes:
        worst: the largest difference of a split's figure, in points, afresh less kept; infinite where other splits were
            measured, or other data.
    """

    kept: tuple[Result, Result]
    afresh: tuple[Result, Result]

    @property
    def worst(self) -> float:
        differences = self._differences()
        return max(differences, key=abs) if differences else math.inf

    @property
    def verdict(self) -> Verdict:
        kept, afresh = ({name: getattr(one.costs, name) for name in COSTS} for _, one in (self.kept, self.afresh))
        if self.kept[0].metrics == self.afresh[0].metrics and kept == afresh and self.worst == 0:
            return "to the bit"
        same = all(round(kept[name] - afresh[name], 2) == 0 for name in COSTS if name.endswith("ratio"))
        return "near" if same and abs(self.worst) <= NEAR else "off"

    def _differences(self) -> list[float]:
        run = self.kept[0].run
        assert isinstance(run, Finetune)
        here, there = (self._figures(pair[0], run) for pair in (self.kept, self.afresh))
        hashes = {pair[0].manifest.get("data_hash") for pair in (self.kept, self.afresh)}
        if here.keys() != there.keys() or len(hashes) > 1:
            return []
        return [100 * (there[place] - here[place]) for place in here]

    @staticmethod
    def _figures(result: Result, run: Finetune) -> dict[tuple[str, str], float]:
        names = ABOUT[run.benchmark].task.figures
        return {(split, name): score[name] for split, score in result.scores.splits.items() for name in names
                if name in score}  # fmt: skip


def sample(store: Store, count: int, seed: int) -> list[Finetune]:
    """So many of a store's scored runs by chance; those of one compression stand together, as it is made once.

    Raises:
        InputError: it has none.
    """
    known = [result.run for result in store.results("finetune") if isinstance(result.run, Finetune)]
    if not known:
        raise InputError(store.root, "holds no scored run", "name the folder of runs with --out")
    drawn = random.Random(seed).sample(known, min(count, len(known)))
    return sorted(drawn, key=lambda run: run.parent.slug)


def afresh(store: Store, scale: Scale) -> Store:
    """Where they are run afresh: apart for every state of the code, from the dense models that are committed."""
    state = code_state()
    if state["commit"] is None or state["dirty"]:
        raise InputError("snp audit", "the code is not that of a commit", "commit your changes first")
    return Store(AUDITS / f"{store.root.name}-{state['commit'][:10]}", base=Store.at(scale))


def compared(runs: Sequence[Finetune], kept: Store, afresh: Store) -> list[Audited]:
    """These runs in both stores."""
    stores = (kept, afresh)
    return [Audited(*((store.result(run), store.result(run.parent)) for store in stores)) for run in runs]
