"""What a model can be asked to do, a record a task: how it is judged, what tables show, what its figures must be."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Model = Literal["mdetr", "glip"]
"""The two grounding models."""


class Measures(BaseModel):
    """Base: further measurements are kept, missing or malformed ones are refused."""

    model_config = ConfigDict(extra="allow", populate_by_name=True, frozen=True)


class Score(Measures):
    """Any evaluator over `n` samples; figures are shares, -1 where pycocotools has nothing of a size."""

    n: Annotated[int, Field(gt=0)]


class Located(Score):
    """Referring expression comprehension; a box is right at IoU >= 0.5."""

    precision_at_1: Annotated[float, Field(alias="precision@1", ge=0, le=1)]
    precision_at_5: Annotated[float | None, Field(alias="precision@5", ge=0, le=1)] = None
    mean_iou: Annotated[float, Field(ge=0, le=1)]


class Adapted(Score):
    """Expressions of another look, after a few of them were learned from; mean over draws of these few.

    Attributes:
        source: precision on expressions of the look that the model comes from, afterwards.
        draws: precision of every draw.
    """

    precision_at_1: Annotated[float, Field(alias="precision@1", ge=0, le=1)]
    source: Annotated[float, Field(ge=0, le=1)]
    draws: tuple[Annotated[float, Field(ge=0, le=1)], ...]


class Rejected(Score):
    """Expressions with and without a target; a part that has none of either kind has not its figures."""

    auroc: Annotated[float, Field(ge=0, le=1)]
    precision_at_f1: Annotated[float, Field(alias="precision@f1", ge=0, le=1)]
    precision_at_1: Annotated[float | None, Field(alias="precision@1", ge=0, le=1)] = None
    n_acc: Annotated[float | None, Field(ge=0, le=1)] = None
    t_acc: Annotated[float | None, Field(ge=0, le=1)] = None
    threshold: float | None = None


class Answered(Score):
    """Visual question answering: type and answer right."""

    accuracy: Annotated[float, Field(ge=0, le=1)]


class Grounded(Score):
    """Phrase grounding, any-box and merged-box protocol."""

    recall_at_1: Annotated[float, Field(alias="recall@1", ge=0, le=1)]
    merged_recall_at_1: Annotated[float, Field(alias="merged_recall@1", ge=0, le=1)]


class Detected(Score):
    """Object detection over `n` pictures, as pycocotools counts it."""

    AP: Annotated[float, Field(ge=-1, le=1)]
    AP50: Annotated[float, Field(ge=-1, le=1)]


@dataclass(frozen=True)
class Task:
    """One task; `snp/training/tuning.py` has what a model learns of it, `snp/tasks` how it is scored.

    Attributes:
        name: in plain English.
        sample: one of what it consists of.
        score: what the figures of a split must be.
        figures: those of the CSV, in reading order.
        explained: the shown ones in words, for legends.
        types: of samples, those that are told first; others follow in the order of their names.
        model: which of the two grounding models does it.
    """

    name: str
    sample: str
    score: type[Score]
    figures: tuple[str, ...]
    explained: str
    types: tuple[str, ...] = ()
    model: Model = "mdetr"


LOCATING = Task(
    "expressions",
    "expression",
    Located,
    ("precision@1", "precision@5", "mean_iou"),
    "Precision@1 (IoU >= 0.5)",
    types=("attribute", "relation", "order"),
)
ADAPTING = Task(
    "looks",
    "expression",
    Adapted,
    ("precision@1", "source"),
    "Precision@1 (IoU >= 0.5), mean over draws of the expressions that are learned from (there, learns: shares of the "
    "dense model's parameters; before: on these looks before any; at home: on the scenes that the model comes from)",
    types=LOCATING.types,
)
REJECTING = Task(
    "expressions with or without a target",
    "expression",
    Rejected,
    ("auroc", "precision@f1", "precision@1", "n_acc", "t_acc"),
    "AUROC of the surest box (with a target against without), Pr@(F1=1) (as many boxes as targets, all with "
    "IoU >= 0.5), Precision@1 where there is a target",
    types=LOCATING.types,
)
ANSWERING = Task(
    "questions",
    "question",
    Answered,
    ("accuracy", "type_accuracy"),
    "Accuracy (type and answer right)",
    types=("exist", "count", "query", "compare", "logical"),
)
RECALLS = ("recall@1", "recall@5", "recall@10", "upper_bound")
GROUNDING = Task(
    "phrases",
    "phrase",
    Grounded,
    (*RECALLS, *(f"merged_{name}" for name in RECALLS)),
    "Recall@1 of phrases (IoU >= 0.5; any box of a phrase counts, or the one box around them: merged)",
)
DETECTING = Task(
    "detection",
    "class",
    Detected,
    ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR@100"),
    "Average precision as COCO counts it (AP: mean over IoU 0.5 to 0.95; AP50: at 0.5)",
    model="glip",
)
