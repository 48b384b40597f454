"""What a model is trained to lower on a batch, whichever model it is and whatever the batch asks for."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call

from snp.data.batch import Batch
from snp.models.glip import GLIP
from snp.tasks import detect, grounding, vqa

WEIGHTS = grounding.WEIGHTS | vqa.WEIGHT | detect.WEIGHTS


def losses(model: nn.Module, batch: Batch, overrides: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    """The weighted losses of a batch, with `overrides` in place of parameters of the same names.

    GLIP: of detection as grounding. MDETR: of grounding, and of answers where model and batch have them.
    """
    out = functional_call(model, overrides, batch.inputs) if overrides else model(*batch.inputs)
    return of_output(model, out, batch)


def of_output(model: nn.Module, out: Any, batch: Batch) -> dict[str, Tensor]:
    """The same of what the model has said."""
    if isinstance(model, GLIP):
        return weigh(detect.losses(out, batch, model.config.alignment == "official"))
    parts = grounding.losses(out, batch)
    if out.answers is not None and batch.answer_B is not None:
        parts |= vqa.losses(out, batch)
    return weigh(parts)


def weigh(parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Losses, each times its weight."""
    return {name: WEIGHTS[name] * value for name, value in parts.items()}
