"""Whether committed results come out again: a sample of them is run afresh by the code of now, and compared."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from snp.errors import InputError
from snp.experiment.benchmarks import ABOUT
from snp.experiment.manifest import code_state
from snp.experiment.spec import Finetune, Scale
from snp.experiment.store import Result, Store

NEAR = 0.5
"""Points that a figure may be off: sums in another order move one by as much."""
Verdict = Literal["to the bit", "near", "off"]


@dataclass(frozen=True)
class Audited:
    """A result beside the same run done afresh.

    Attributes:
        worst: the largest difference of a split's main figure, in points, afresh less kept.
    """

    kept: Result
    afresh: Result

    @property
    def worst(self) -> float:
        return max(self._differences().values(), key=abs)

    @property
    def verdict(self) -> Verdict:
        if self.kept.metrics == self.afresh.metrics:
            return "to the bit"
        return "near" if abs(self.worst) <= NEAR else "off"

    def _differences(self) -> dict[str, float]:
        assert isinstance(self.kept.run, Finetune)
        main = ABOUT[self.kept.run.benchmark].shown[0]
        here, there = self.kept.metrics["splits"], self.afresh.metrics["splits"]
        return {split: 100 * (there[split][main] - here[split][main]) for split in here}


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
    return Store(Path(".runs") / "audit" / f"{store.root.name}-{state['commit'][:10]}", base=Store.at(scale))


def compared(runs: Sequence[Finetune], kept: Store, afresh: Store) -> list[Audited]:
    """These runs in both stores."""
    return [Audited(kept.result(run), afresh.result(run)) for run in runs]
