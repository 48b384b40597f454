"""What every benchmark asks for and how it is judged: its task, its splits, and the figures that its tables show."""

from typing import Literal, NamedTuple, get_args

from snp.experiment.spec import Benchmark, Expressions

Task = Literal["expressions", "questions", "phrases", "detection"]


class About(NamedTuple):
    """One benchmark.

    Attributes:
        title: its name in tables.
        task: what a model does.
        splits: that are evaluated, in reading order; the first is that of `before tuning` figures.
        shown: columns of its tables; the first one is its main figure, which differences and claims are about.
    """

    title: str
    task: Task
    splits: tuple[str, ...]
    shown: tuple[str, ...]


ABOUT: dict[Benchmark, About] = {
    "refcoco": About("RefCOCO", "expressions", ("val", "testA", "testB"), ("precision@1",)),
    "refcoco+": About("RefCOCO+", "expressions", ("val", "testA", "testB"), ("precision@1",)),
    "refcocog": About("RefCOCOg", "expressions", ("val", "test"), ("precision@1",)),
    "gqa": About("GQA", "questions", ("val", "testdev"), ("accuracy",)),
    "flickr30k": About("Flickr30k", "phrases", ("val", "test"), ("recall@1", "merged_recall@1")),
    "coco": About("COCO", "detection", ("val2017",), ("AP", "AP50")),
    "own": About("own", "expressions", ("val", "test"), ("precision@1",)),
}
EXPRESSIONS: tuple[Benchmark, ...] = get_args(Expressions)
"""RefCOCO and its kin."""
OWN: tuple[Benchmark, ...] = ("own",)
"""What data of a user's own are judged on: their expressions."""
MEASURED: dict[Task, tuple[str, ...]] = {
    "expressions": ("precision@1", "precision@5", "mean_iou"),
    "questions": ("accuracy", "type_accuracy"),
    "phrases": (
        "recall@1",
        "recall@5",
        "recall@10",
        "upper_bound",
        "merged_recall@1",
        "merged_recall@5",
        "merged_recall@10",
        "merged_upper_bound",
    ),
    "detection": ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR@100"),
}
"""The figures of a task in the CSV, in reading order."""
TYPES: dict[Task, tuple[str, ...]] = {
    "expressions": ("attribute", "relation", "order"),
    "questions": ("exist", "count", "query", "compare", "logical"),
    "phrases": (),
    "detection": (),
}
"""The types of samples that are told first; others follow in the order of their names."""
EXPLAINED: dict[Task, str] = {
    "expressions": "Precision@1 (IoU >= 0.5)",
    "questions": "Accuracy (type and answer right)",
    "phrases": "Recall@1 of phrases (IoU >= 0.5; any box of a phrase counts, or the one box around them: merged)",
    "detection": "Average precision as COCO counts it (AP: mean over IoU 0.5 to 0.95; AP50: at 0.5)",
}
