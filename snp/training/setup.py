"""What a user's machine brings to a run, and what a trial changes: no part of what a run is, and so not of its hash."""

import os
import re
from pathlib import Path
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    ValidationInfo,
    field_validator,
)

from snp.compression import plugins
from snp.errors import InputError
from snp.experiment.places import Trial
from snp.experiment.recipes import Phase, phase_of
from snp.experiment.spec import DRAWN, Data, Run, Scale
from snp.flags import Named
from snp.models.config import TowerConfig
from snp.models.named import TEXT, VISION, Weights, identity


class Towers(BaseModel):
    """What the towers of dense models start from, for one command."""

    model_config = ConfigDict(frozen=True, extra="forbid", revalidate_instances="always")

    vision_weights: str | None = Field(
        None, description="of the dense vision tower: a file, or timm's name of a model", min_length=1
    )
    text_weights: str | None = Field(
        None, description="of the dense text tower: a file, or open_clip's MODEL/WEIGHTS", min_length=1
    )
    random_towers: bool = Field(
        False, description="towers without weights start from random ones; at paper scale this is to be said"
    )

    @property
    def weights(self) -> Weights:
        """What runs are told apart by; files are read for it.

        Raises:
            InputError: a file is not there.
        """
        vision, text = self.vision_weights, self.text_weights
        return Weights(
            vision=None if vision is None else identity(vision, "--vision-weights"),
            text=None if text is None else identity(text, "--text-weights"),
        )

    @property
    def named(self) -> Weights | None:
        """The same; None where nothing is said of weights."""
        said = self.random_towers or self.vision_weights or self.text_weights
        return self.weights if said else None

    def look_for_weights(self, scale: Scale) -> None:
        """Before any work is done.

        Raises:
            InputError: at paper scale a tower has no weights, and it is not said that it shall be random; or it is, and
                none would be.
        """
        given = {"--vision-weights": self.vision_weights, "--text-weights": self.text_weights}
        missing = [option for option, value in given.items() if value is None]
        if self.random_towers and (scale != "paper" or not missing):
            problem = "both towers have weights" if scale == "paper" else f"says nothing at scale {scale}"
            raise InputError("--random-towers", problem, "leave it out")
        if scale == "paper" and missing and not self.random_towers:
            problem = "missing, and towers of paper scale are not random unless that is said"
            hint = f"name weights ({VISION} and {TEXT}, or files), or say --random-towers"
            raise InputError(" and ".join(missing), problem, hint)


MOST_LOADERS = 8
"""More would hold too many batches: each has two of them ahead."""


class Setup(Towers):
    """Where things are, for one command."""

    data_root: Named | None = Field(
        None, description="folder of the published benchmarks (paper scale), or as --data of your own"
    )
    plugin: tuple[Named, ...] = Field((), description="Python files with methods of your own")
    steps: PositiveInt | None = Field(None, description="at most so many a phase: a trial, whose figures mean nothing")
    batch: PositiveInt | None = Field(
        None, description="captions in a step of a trial, with --steps; default: those of the recipe"
    )
    shortest: PositiveInt | None = Field(
        None, description="shorter side of a trial's pictures in pixels, with --steps; default: that of the recipe"
    )
    loaders: NonNegativeInt | None = Field(
        None,
        description="processes that decode real pictures ahead, beside each that trains; default: its processors less "
        "one, at most 8",
    )
    device: str = Field("", description="cpu or cuda; default: a GPU where there is one, at paper scale")

    def absolute(self) -> "Setup":
        """The same from any working folder; a name that is no file here is a model's."""
        given = {name: getattr(self, name) for name in ("data_root", "vision_weights", "text_weights")}
        found = {name: Path(value).resolve() for name, value in given.items() if value and Path(value).exists()}
        paths = {n: path if n == "data_root" else str(path) for n, path in found.items()}
        return self.model_copy(update=paths | {"plugin": tuple(path.resolve() for path in self.plugin)})

    def bring(self) -> None:
        """Make the methods of plugins known, to this process and to those that it starts.

        Raises:
            InputError: as `plugins.load`, before any work is done.
        """
        plugins.use(self.plugin)
        if self.plugin:
            plugins.load()

    def phase(self, run: Run) -> Phase:
        """The phase that a run trains for."""
        phase = phase_of(run)
        if self.on(run) == "cpu":  # where bfloat16 saves nothing
            phase = phase.model_copy(update={"precision": "float32"})
        if self.steps is None:
            return phase
        batch = self.batch or phase.batch
        parts = phase.accumulate if batch % phase.accumulate == 0 else batch
        short: dict[str, Any] = {
            "steps": min(self.steps, phase.steps),
            "batch": batch,
            "accumulate": parts,
            "log_every": 1,
        }
        if self.shortest is not None and phase.sides is not None:
            short["sides"] = (self.shortest,)
        return phase.model_copy(update=short)

    def sized(self, config: TowerConfig) -> TowerConfig:
        """A model's configuration, for the pictures of a trial."""
        if self.shortest is None or config.shortest is None or config.longest is None:
            return config
        longest = round(self.shortest * config.longest / config.shortest)
        return config.model_copy(update={"shortest": self.shortest, "longest": longest})

    @field_validator("batch", "shortest")
    @classmethod
    def _of_a_trial(cls, value: int | None, others: ValidationInfo) -> int | None:
        if value is not None and others.data.get("steps") is None:
            raise ValueError(f"goes with --steps: the {others.field_name} of a recipe is part of it")
        return value

    @field_validator("device")
    @classmethod
    def _of_torch(cls, device: str) -> str:
        if not re.fullmatch(r"(cpu|cuda(:\d+)?)?", device):
            raise ValueError("must be cpu or cuda")
        return device

    @property
    def trial(self) -> Trial | None:
        """Which trial it is; None for real runs."""
        return None if self.steps is None else Trial(steps=self.steps, batch=self.batch, shortest=self.shortest)

    def look_for_device(self) -> None:
        """Before any work is done.

        Raises:
            InputError: this machine has not the device that was asked for.
        """
        if not self.device.startswith("cuda"):
            return
        import torch

        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(self.device.partition(":")[2] or 0) >= count:
            raise InputError("--device", f"{self.device} is not here: torch finds {count} GPUs", "--device cpu")

    def ahead(self, data: Data) -> int:
        """Processes that decode pictures ahead of one that trains; drawn ones are decoded once for all."""
        if self.loaders is not None:
            return self.loaders
        if data in DRAWN:
            return 0
        beside = int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # torchrun's: all of them see all processors
        return min(max(0, len(os.sched_getaffinity(0)) // beside - 1), MOST_LOADERS)

    def on(self, run: Run) -> str:
        """The device of a run: desk results are those of a CPU, whatever the machine has."""
        if self.device:
            return self.device
        if run.scale != "paper":
            return "cpu"
        import torch  # slow to import, and not needed to list rows

        return "cuda" if torch.cuda.is_available() else "cpu"
