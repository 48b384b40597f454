"""What was asked for in the shell, checked before any work."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from snp.compression.method import Method
from snp.compression.registry import get
from snp.errors import InputError


@dataclass(frozen=True)
class Asked:
    """What was asked for; fields as the flags of `snp compress`."""

    model: str
    weights: Path | None
    method: str
    options: dict[str, Any]
    keep: float | None
    sparsity: float | None
    towers: dict[str, str]
    exclude: tuple[str, ...]
    data: Path | None
    batch: int
    steps: int | None
    rate: float | None
    recover: int | None
    round_to: int
    seed: int
    device: str

    def about(self, files: Iterable[Path]) -> dict[str, Any]:
        """What makes two of them the same, as JSON has it; files by their sizes and times."""
        found = {str(path): [path.stat().st_size, path.stat().st_mtime_ns] for path in files}
        whole: dict[str, Any] = json.loads(json.dumps(asdict(self) | {"files": found}, default=str))
        return whole

    @cached_property
    def chosen(self) -> Method:
        """The method."""
        return get(self.method, **self.options)

    def check(self) -> None:
        """InputError where flags do not go with one another, or with this machine."""
        if self.device != "cpu" and not torch.cuda.is_available():
            raise InputError("--device", f"{self.device} is not here: torch finds no GPU", "--device cpu")
        trains, looks = self.chosen.stage == "training", self.chosen.stage != "one-shot"
        if self.data is None and (looks or self.recover):
            what = f"{self.method} looks at data" if looks else "recovery learns from data"
            hint = "name a folder of pictures" + (
                ", or a method that needs none: magnitude-structured, magnitude"
                if looks
                else ", or leave --recover out"
            )
            raise InputError("--data none", what, hint)
        if self.data is not None and not (looks or self.recover):
            hint = "leave it out, or add --recover STEPS"
            raise InputError("--data", f"is not looked at by {self.method}", hint)
        if self.steps is not None and not trains:
            raise InputError("--steps", f"{self.method} takes none", "leave it out; --recover STEPS trains afterwards")
        if self.rate is not None and not (trains or self.recover):
            raise InputError("--rate", f"{self.method} trains nothing", "leave it out, or add --recover STEPS")
