"""What each kind of run measures: checked when a result is written and again when it is read."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from snp.errors import InputError
from snp.experiment.benchmarks import ABOUT, Task
from snp.experiment.spec import Compress, Finetune, Pretrain, explain
from snp.files import not_finite

Share = Annotated[float, Field(ge=0)]
Kind = Literal["structured", "unstructured", "shared", "joint", "dense"]


class Metrics(BaseModel):
    """Base: further measurements are kept, missing or malformed ones are refused."""

    model_config = ConfigDict(extra="allow", populate_by_name=True, frozen=True)


class Score(Metrics):
    """Any evaluator over `n` samples; figures are shares, -1 where pycocotools has nothing of a size."""

    n: Annotated[int, Field(gt=0)]


class Expressions(Score):
    """Referring expression comprehension; a box is right at IoU >= 0.5."""

    precision_at_1: Annotated[float, Field(alias="precision@1", ge=0, le=1)]
    precision_at_5: Annotated[float | None, Field(alias="precision@5", ge=0, le=1)] = None
    mean_iou: Annotated[float, Field(ge=0, le=1)]


class Questions(Score):
    """Visual question answering: type and answer right."""

    accuracy: Annotated[float, Field(ge=0, le=1)]


class Phrases(Score):
    """Phrase grounding, any-box and merged-box protocol."""

    recall_at_1: Annotated[float, Field(alias="recall@1", ge=0, le=1)]
    merged_recall_at_1: Annotated[float, Field(alias="merged_recall@1", ge=0, le=1)]


class Detection(Score):
    """Object detection over `n` pictures, as pycocotools counts it."""

    AP: Annotated[float, Field(ge=-1, le=1)]
    AP50: Annotated[float, Field(ge=-1, le=1)]


SCORES: dict[Task, type[Score]] = {
    "expressions": Expressions,
    "questions": Questions,
    "phrases": Phrases,
    "detection": Detection,
}


class PretrainMetrics(Metrics):
    """The dense model on its own benchmarks, and its parameter counts."""

    params: dict[str, int] = {}


class CompressMetrics(Metrics):
    """What a plan costs. Ratios are shares of the whole dense model, `tower_ratio` of its towers alone.

    `sparsity` is the share of the prunable weights that is zero, where the size was given so.
    `session_seconds` of the phase's training `seconds` went into the method's own steps.
    """

    kind: Kind
    stored_params: Annotated[int, Field(gt=0)]
    stored_ratio: Share
    tower_ratio: Share
    nonzero_ratio: Share
    flops_ratio: Share
    sparsity: Share | None = None
    projection_gap: float | None = None
    seconds: Share | None = None
    session_seconds: Share | None = None
    note: str = ""
    plan: dict[str, Any] = {}


class FinetuneMetrics(Metrics):
    """Every split after fine-tuning, and before it (`zero_shot`) where that was measured; each with parts by type."""

    splits: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]
    zero_shot: dict[str, dict[str, Any]] = {}


SCHEMAS: dict[str, type[Metrics]] = {
    "pretrain": PretrainMetrics,
    "compress": CompressMetrics,
    "finetune": FinetuneMetrics,
}


def check(run: Pretrain | Compress | Finetune, metrics: dict[str, Any], where: object) -> None:
    """Whether these are the measurements that a run owes, all finite; an InputError names the first field at fault."""
    if (field := not_finite(metrics)) is not None:
        raise InputError(where, f"{field}: is not finite (nan or infinite), and so no measurement", "run it again")
    try:
        SCHEMAS[run.kind].model_validate(metrics)
    except ValidationError as error:
        raise explain(error, where) from None
    if not isinstance(run, Finetune):
        return
    schema = SCORES[ABOUT[run.benchmark].task]
    for group in ("splits", "zero_shot"):
        for split, score in metrics.get(group, {}).items():
            if split not in (known := ABOUT[run.benchmark].splits):
                mend = f"its splits are {', '.join(known)}"
                raise InputError(f"{where}.{group}.{split}", f"{run.benchmark} has no such split", mend)
            parts = {(): score} | {("by_type", kind): part for kind, part in score.get("by_type", {}).items()}
            for place, part in parts.items():
                try:
                    schema.model_validate(part)
                except ValidationError as error:
                    raise explain(error, where, group, split, *place) from None
