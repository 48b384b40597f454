"""The benchmarks, a record each: what they ask for, on which splits, and the figures that their tables show."""

from typing import Literal, NamedTuple, get_args

from snp.experiment import scores
from snp.experiment.scores import Model, Task

Expressions = Literal["refcoco", "refcoco+", "refcocog"]
Benchmark = Literal["refcoco", "refcoco+", "refcocog", "gqa", "flickr30k", "coco", "no-target", "own"]
"""By the names that the command line has for them."""


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
    "refcoco": About("RefCOCO", scores.LOCATING, ("val", "testA", "testB"), ("precision@1",)),
    "refcoco+": About("RefCOCO+", scores.LOCATING, ("val", "testA", "testB"), ("precision@1",)),
    "refcocog": About("RefCOCOg", scores.LOCATING, ("val", "test"), ("precision@1",)),
    "gqa": About("GQA", scores.ANSWERING, ("val", "testdev"), ("accuracy",)),
    "flickr30k": About("Flickr30k", scores.GROUNDING, ("val", "test"), ("recall@1", "merged_recall@1")),
    "coco": About("COCO", scores.DETECTING, ("val2017",), ("AP", "AP50")),
    "no-target": About("gRefCOCO", scores.REJECTING, ("val", "testA"), ("auroc", "precision@f1", "precision@1")),
    "own": About("own", scores.LOCATING, ("val", "test"), ("precision@1",)),
}
EXPRESSIONS: tuple[Benchmark, ...] = get_args(Expressions)
"""RefCOCO and its kin."""
OWN: tuple[Benchmark, ...] = ("own",)
"""What data of a user's own are judged on: their expressions."""
FIRST: dict[Model, Benchmark] = {"mdetr": "refcoco", "glip": "coco"}
"""What a dense or compressed model is judged by before it is fine-tuned."""


def of_expressions(benchmark: Benchmark) -> bool:
    """Whether it asks for one box for one sentence."""
    return ABOUT[benchmark].task is scores.LOCATING
