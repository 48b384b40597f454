"""What each kind of run measures: checked when a result is written and again when it is read."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0)]
Kind = Literal["structured", "unstructured", "shared", "joint", "dense"]


class Metrics(BaseModel):
    """Base: further measurements are kept, missing or malformed ones are refused."""

    model_config = ConfigDict(extra="allow", populate_by_name=True, frozen=True)


class Score(Metrics):
    """Referring expression comprehension over `n` expressions; a box is right at IoU >= 0.5."""

    n: Annotated[int, Field(gt=0)]
    precision_at_1: Annotated[float, Field(alias="precision@1", ge=0, le=1)]
    mean_iou: Annotated[float, Field(ge=0, le=1)]


class Split(Score):
    """A score with its parts by expression type (attribute, relation, order)."""

    precision_at_5: Annotated[float | None, Field(alias="precision@5", ge=0, le=1)] = None
    by_type: dict[str, Score] = {}


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
    """Every split after fine-tuning, and before it (`zero_shot`) where that was measured."""

    splits: Annotated[dict[str, Split], Field(min_length=1)]
    zero_shot: dict[str, Split] = {}


SCHEMAS: dict[str, type[Metrics]] = {
    "pretrain": PretrainMetrics,
    "compress": CompressMetrics,
    "finetune": FinetuneMetrics,
}
