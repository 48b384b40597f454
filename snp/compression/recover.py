"""What `snp.compress(..., recover=...)` is told: how accuracy is brought back after compression."""

import math
from collections.abc import Callable, Iterable, Sized
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from snp.compression import arguments
from snp.errors import InputError


class Recover(BaseModel):
    """Fine-tuning of a compressed model with the dense one as its teacher; `recover=500` is `Recover(steps=500)`.

    AdamW; the rate rises in a line and falls along a cosine to zero. The small model learns in train mode, dropout and
    all, and its modules have their own modes again at the end. Weights of half precision are stepped in float32. With
    `held_out` the weights that do best there are kept, those from before the first step among them, else the last ones.
    All that is drawn at random follows from the seed of `snp.compress`, whose caller's generators stay as they are.

    Attributes:
        steps: weight steps.
        rate: the highest learning rate.
        warm_up: share of the steps in which the rate rises.
        weight_decay: of matrices; vectors, as norms and biases, do not decay.
        clip: largest norm of the gradient; None: any.
        accumulate: batches that make one weight step.
        precision: of the passes; "bfloat16" by autocast. Weights keep their type, and distances are float32.
        checkpointing: layers are computed again in the backward pass, for less memory, where the model can do so.
        task: weight of the `loss` of `snp.compress`, where one is given: a pass of its own.
        distil: weight of the mean distance of outputs from those of the dense model.
        temperature: of outputs that are logits: T^2 KL(dense / T || small / T), mean over rows. Others have their
            squared error over the mean square of the dense model's.
        outputs: (model, batch) -> what is learned of the dense model: a tensor, or tensors by name, which are logits
            where their name has "logits" in it; it may leave out padding. By default what `forward` gives: a tensor,
            those in a tuple, or of named ones the logits, final states, pooled and projected embeddings, else all.
        batches: trained on, pass after pass; by default `calibration`.
        held_out: batches that are not trained on, and that judge.
        judge_every: steps between two looks at them; by default a twentieth of all.
        patience: looks without a better one after which it ends; None: never.
        folder: where its state is kept: killed and called again with the same arguments, `snp.compress` goes on from
            there, decides nothing anew and ends the same, to the bit on a device that computes the same twice. For that
            the order of batches must depend on nothing but the generators of torch, numpy and Python.
        save_every: seconds between two states.
        progress: show a bar, with the time that is left.
        log: told at every look what was measured: step, rate, mean losses since the last one, held out.

    Raises:
        InputError: names the field that is unknown, missing, or out of its range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    steps: int = Field(gt=0)
    rate: float = Field(1e-4, gt=0)
    warm_up: float = Field(0.05, ge=0, lt=1)
    weight_decay: float = Field(0.01, ge=0)
    clip: float | None = Field(1.0, gt=0)
    accumulate: int = Field(1, gt=0)
    precision: Literal["float32", "bfloat16"] = "float32"
    checkpointing: bool = False
    task: float = Field(1.0, ge=0)
    distil: float = Field(1.0, ge=0)
    temperature: float = Field(2.0, gt=0)
    outputs: Callable[[Any, Any], Any] | None = None
    batches: Any = Field(None, repr=False)
    held_out: Any = Field(None, repr=False)
    judge_every: int | None = Field(None, gt=0)
    patience: int | None = Field(5, gt=0)
    folder: Path | None = None
    save_every: float = Field(60.0, ge=0)
    progress: bool = True
    log: Callable[[dict[str, float]], Any] | None = None

    def __init__(self, **given: Any) -> None:
        try:
            super().__init__(**given)
        except ValidationError as error:
            first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
            name = str(first["loc"][0])
            hint = f"fields of Recover: {', '.join(type(self).model_fields)}"
            if first["type"] == "extra_forbidden":
                raise InputError(f"recover.{name}", "is no field of it", hint) from None
            if first["type"] == "missing":
                raise InputError(f"recover.{name}", "is missing", "for example Recover(steps=500)") from None
            raise InputError(
                f"recover.{name}", f"{first['input']!r}: {first['msg']}", "see help(snp.Recover)"
            ) from None

    @property
    def looks(self) -> int:
        """Steps between two looks."""
        return self.judge_every or max(1, self.steps // 20)

    def rate_at(self, step: int) -> float:
        """The learning rate of a weight step, from 0."""
        rise = round(self.warm_up * self.steps)
        if step < rise:
            return self.rate * (step + 1) / rise
        return self.rate * (1 + math.cos(math.pi * (step - rise) / (self.steps - rise))) / 2

    def about(self) -> dict[str, Any]:
        """What makes two recoveries the same, as JSON has it; functions and batches are only told to be there."""
        incidental = {"folder", "save_every", "progress", "log"}
        named = {"outputs", "batches", "held_out"}
        found = {name: getattr(self, name) for name in type(self).model_fields if name not in incidental}
        return {f"recover.{name}": value is not None if name in named else value for name, value in found.items()}


def asked(value: Any) -> Recover | None:
    """What was given as `recover`: a Recover, its steps, or None."""
    if value is None or isinstance(value, Recover):
        return value
    if isinstance(value, bool | float | str) or not hasattr(value, "__index__"):
        raise InputError("recover", f"{value!r} is no Recover", "for example recover=500, or snp.Recover(steps=500)")
    return Recover(steps=value)


def source(recover: Recover, calibration: Iterable[Any], loss: Any, scores: bool) -> Iterable[Any]:
    """The batches that are trained on.

    Raises:
        InputError: there are none, or there is nothing to learn from; names the field.
    """
    if not recover.distil and not (recover.task and loss is not None):
        problem = "with neither distil nor a loss there is nothing to learn from"
        raise InputError("recover", problem, "give a loss, or distil above 0")
    if scores and recover.folder is not None:
        raise InputError("scores", "are of a decision that is not made again where recovery goes on", "give no folder")
    name = "calibration" if recover.batches is None else "recover.batches"
    batches = arguments.batches(calibration if recover.batches is None else recover.batches, name)
    held_out = [] if recover.held_out is None else [("recover.held_out", recover.held_out)]
    for where, given in [(name, batches), *held_out]:
        if isinstance(arguments.batches(given, where), Sized) and not len(given):
            raise InputError(where, "holds no batch", "recovery trains on batches: give a list, or a DataLoader")
    return batches
