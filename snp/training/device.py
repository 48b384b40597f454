"""A device: where batches pass a model, in which precision, and what is drawn at random there."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from snp import ranks
from snp.data.batch import Batch
from snp.errors import InputError

KINDS = ("cpu", "cuda")
"""Those whose generators can be kept, so that a run goes on to the bit."""


@dataclass(frozen=True)
class Device:
    """A device by torch's name for it, as "cuda:1".

    Raises:
        InputError: one of another kind: a run on it could not go on as if it had not been stopped.
    """

    name: str = "cpu"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError("--device", f"{self.name} is none that a run can be continued on", "cpu, or cuda")

    @property
    def kind(self) -> str:
        return self.name.partition(":")[0]

    def batches(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The same batches, on this device."""
        return batches if self.name == "cpu" else (batch.to(self.name) for batch in batches)

    def autocast(self, precision: str) -> AbstractContextManager[Any]:
        """Within it matrices are multiplied in this precision, where it is bfloat16."""
        return torch.autocast(self.kind, torch.bfloat16, precision == "bfloat16")

    def random(self) -> dict[str, Tensor | None]:
        """The state of the generators that draw on it, of all processes."""
        own = ranks.stacked(torch.cuda.get_rng_state(self.name)) if self.kind == "cuda" else None
        return {"random": ranks.stacked(torch.get_rng_state()), "random_cuda": own}

    def draw_on(self, state: Mapping[str, Tensor], path: Path) -> None:
        """Go on drawing from a state of `random`.

        Raises:
            InputError: it is of another number of processes.
        """
        random = state["random"].view(-1, len(torch.get_rng_state()))  # a row for each process
        if len(random) != ranks.size():
            problem = f"was left by {len(random)} processes, and here are {ranks.size()}"
            raise InputError(path, problem, "start as many, or delete its folder to start again")
        torch.set_rng_state(random[ranks.rank()].clone())  # of a view torch would take the beginning of its storage
        if self.kind == "cuda":
            random = state["random_cuda"].view(ranks.size(), -1)
            torch.cuda.set_rng_state(random[ranks.rank()].clone(), self.name)
