"""Models as runs leave them: weights and Plan by snp.compression.checkpoint, configuration and words beside them."""

from copy import deepcopy
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import nn

from snp.compression import checkpoint
from snp.compression.plan import Plan
from snp.data.tokens import Vocabulary
from snp.errors import InputError
from snp.experiment.explained import explain
from snp.files import read_json, write_json
from snp.models import family
from snp.models.family import GroundingModel
from snp.models.mdetr import TOWERS

ABOUT = "model.json"


Answers = dict[str, dict[str, int]]


def save(
    folder: Path,
    model: GroundingModel,
    plan: Plan,
    vocabulary: Vocabulary,
    answers: Answers | None = None,
    half: bool = False,
) -> None:
    """Write a model, dense or compressed, so that `load` and `answers` need nothing else.

    Args:
        half: in 16 bits; it is loaded in 32 again.

    Raises:
        InputError: names a weight that is not finite; nothing is written.
    """
    about: dict[str, Any] = {"config": model.config.model_dump(), "vocabulary": vocabulary.clip_ids}
    if answers:
        about["answers"] = answers
    if half:
        model, about["half"] = deepcopy(model).half(), True
    _check_finite(model, folder, "the model was not saved")
    write_json(folder / ABOUT, about, indent=None)
    checkpoint.save(folder, model, plan, paths=TOWERS)


def load(folder: Path) -> tuple[GroundingModel, Plan, Vocabulary]:
    """A model saved by a run.

    Raises:
        InputError: names the file that is missing or damaged, and the field at fault, or a weight that is not finite.
    """
    file = folder / ABOUT
    about = _about(folder)
    for name, kind, told in (("config", dict, "an object"), ("vocabulary", list, "an array")):
        if name not in about:
            raise InputError(f"{file}: {name}", "missing", "save the checkpoint again")
        if not isinstance(about[name], kind):
            raise InputError(f"{file}: {name}", f"is not {told}", "save the checkpoint again")
    try:
        config = family.parse(about["config"])
    except ValidationError as error:
        raise explain(error, f"{file}: config") from None
    half = about.get("half", False)
    model, plan = checkpoint.load(folder, lambda: family.build(config).half() if half else family.build(config))
    model.float()
    _check_finite(model, folder / checkpoint.WEIGHTS, "its run went wrong: start it anew")
    return model, plan, Vocabulary(about["vocabulary"])


def answers(folder: Path) -> Answers:
    """Type of questions -> answer -> number, of a model that was saved with them; else empty."""
    return _about(folder).get("answers", {})


def _about(folder: Path) -> dict[str, Any]:
    if not (folder / ABOUT).is_file():
        raise InputError(folder / ABOUT, "file not found", "name the folder of a run that is done and keeps its model")
    about = read_json(folder / ABOUT)
    if not isinstance(about, dict):
        raise InputError(folder / ABOUT, "is not a JSON object", "save the checkpoint again")
    return about


def _check_finite(model: nn.Module, where: Path, hint: str) -> None:
    for name, tensor in model.state_dict().items():
        if not tensor.isfinite().all():
            raise InputError(f"{where}: {name}", "is not finite (nan or infinite)", hint)
