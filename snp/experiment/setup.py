"""What a user's machine brings to a run, and what a trial changes: no part of what a run is, and so not of its hash."""

import os
import re
from pathlib import Path
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from snp.checkout import home
from snp.errors import InputError
from snp.experiment.recipes import Phase, phase_of
from snp.experiment.spec import Compress, Data, Finetune, Pretrain, Scale, explain


def data_home() -> Path:
    """The folder of all data that are made: `$SNP_DATA`, or `.data` of this repository, or of the working folder."""
    return Path(os.environ.get("SNP_DATA") or home() / ".data")


def data_folder(scale: Scale, data: Data) -> Path:
    """Where the data of a scale are, or will be."""
    return data_home() / f"{data}-{scale}"


class Trial(BaseModel):
    """That phases are cut short, to see that they run: what comes of it says nothing, and counts nowhere."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: PositiveInt
    batch: PositiveInt | None = None

    @property
    def name(self) -> str:
        """Of the folder that holds its runs, as `trial-steps2-batch1`: equal trials go on, others do not meet."""
        return f"trial-steps{self.steps}" + (f"-batch{self.batch}" if self.batch else "")

    @classmethod
    def of(cls, value: Any, where: object) -> "Trial | None":
        """From its JSON value; None where there is none."""
        try:
            return None if value is None else cls.model_validate(value)
        except ValidationError as error:
            raise explain(error, where) from None


class Setup(BaseModel):
    """Where things are, for one command."""

    model_config = ConfigDict(frozen=True, extra="forbid", revalidate_instances="always")

    data_root: Path | None = Field(None, description="folder of the published benchmarks (paper scale)")
    vision_weights: str | None = Field(None, description="of the dense vision tower: a file, or timm's name of a model")
    text_weights: str | None = Field(None, description="of the dense text tower: a file, or open_clip's MODEL/WEIGHTS")
    steps: PositiveInt | None = Field(None, description="at most so many a phase: a trial, whose figures mean nothing")
    batch: PositiveInt | None = Field(
        None, description="captions in a step of a trial, with --steps; default: those of the recipe"
    )
    device: str = Field("", description="cpu or cuda; default: a GPU where there is one, at paper scale")

    def absolute(self) -> "Setup":
        """The same from any working folder; a name that is no file here is a model's."""
        given = {name: getattr(self, name) for name in ("data_root", "vision_weights", "text_weights")}
        found = {name: Path(value).resolve() for name, value in given.items() if value and Path(value).exists()}
        return self.model_copy(update={n: path if n == "data_root" else str(path) for n, path in found.items()})

    def phase(self, run: Pretrain | Compress | Finetune) -> Phase:
        """The phase that a run trains for."""
        phase = phase_of(run)
        if self.on(run) == "cpu":  # where bfloat16 saves nothing
            phase = phase.model_copy(update={"precision": "float32"})
        if self.steps is None:
            return phase
        batch = self.batch or phase.batch
        parts = phase.accumulate if batch % phase.accumulate == 0 else batch
        short = {"steps": min(self.steps, phase.steps), "batch": batch, "accumulate": parts, "log_every": 1}
        return phase.model_copy(update=short)

    @field_validator("batch")
    @classmethod
    def _of_a_trial(cls, batch: int | None, others: ValidationInfo) -> int | None:
        if batch is not None and others.data.get("steps") is None:
            raise ValueError("goes with --steps: the batch of a recipe is part of it")
        return batch

    @field_validator("device")
    @classmethod
    def _of_torch(cls, device: str) -> str:
        if not re.fullmatch(r"(cpu|cuda(:\d+)?)?", device):
            raise ValueError("must be cpu or cuda")
        return device

    @property
    def trial(self) -> Trial | None:
        """Which trial it is; None for real runs."""
        return None if self.steps is None else Trial(steps=self.steps, batch=self.batch)

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

    def on(self, run: Pretrain | Compress | Finetune) -> str:
        """The device of a run: desk results are those of a CPU, whatever the machine has."""
        if self.device:
            return self.device
        if run.scale != "paper":
            return "cpu"
        import torch  # slow to import, and not needed to list rows

        return "cuda" if torch.cuda.is_available() else "cpu"
