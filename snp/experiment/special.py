"""Which rows Table 5 has: inputs that are trimmed, and dual encoders."""

from snp.compression.size import Size
from snp.experiment.benchmarks import Benchmark
from snp.experiment.rows import DENSE, Row, make, seeds_of
from snp.experiment.spec import Scale, home_of
from snp.models.distill import Distill
from snp.models.special import unfit
from snp.trimming.trim import POLICIES, Trim

TRIMMED = (Trim(tokens=0.7), Trim(tokens=0.5), Trim(tokens=0.35))
"""Targets of trimming, the paper's 2 to 3 times fewer operations among them."""
HALF = TRIMMED[1]
# who decides what is kept of an input, at the same share of it; gates that see no word can be cached with the picture
TRIMMERS = (
    HALF.model_copy(update={"guide": "image"}),
    *(HALF.model_copy(update={"policy": policy}) for policy in POLICIES if policy != "learned"),
)
# of trimming: without a part each, and with heads
PARTS: tuple[Trim, ...] = (
    HALF.model_copy(update={"guide": "none"}),
    HALF.model_copy(update={"distill": False}),
    HALF.model_copy(update={"curriculum": False}),
    HALF.model_copy(update={"heads": 0.7}),
    Trim(tokens=1, heads=0.5),
)


LABELS = Distill(soft=False, attention="none", labels=True)
SOFT, ATTENTION = Distill(attention="none"), Distill(soft=False)
DISTILLED = (LABELS, SOFT, ATTENTION, Distill(), Distill(labels=True), Distill(teacher="random"))
"""What a dual encoder learns from; the paper's is `Distill()`, the last one is a control."""


def table5(scale: Scale) -> list[Row]:
    """Table 5, cheaper inputs: tokens and heads that an input does not need (SmartTrim), and dual encoders (DiDE).

    Expressions and questions of scenes, three seeds; one for what each part of trimming gives. Rows that trim are
    fine-tuned as long as their dense one; dual encoders learn from the dense model that Table 1 or 2 has.
    """
    trimmed = [row for row in _trimmed(scale) if unfit(scale, row.special) is None]
    return trimmed if unfit(scale, Distill()) else [*trimmed, *_dual(scale)]


def _dual(scale: Scale) -> list[Row]:
    data, seeds = home_of(scale), seeds_of(scale)
    found: list[Row] = []
    asked: tuple[Benchmark, ...] = ("refcoco", "gqa")
    for benchmark in asked:
        plans = [(DENSE, how) for how in DISTILLED] + [("snp", Distill())]
        rows = [
            make(scale, data, name, size=Size(0.6), benchmarks=(benchmark,), seeds=seeds, special=how,
                 main=how == Distill())
            for name, how in plans
        ]  # fmt: skip
        found += [rows[0].model_copy(update={"special": None, "main": True}), *rows]
    return found


def _trimmed(scale: Scale) -> list[Row]:
    data, seeds, whole = home_of(scale), seeds_of(scale), Trim(tokens=1)
    first: Benchmark = "refcoco"
    plans: list[tuple[str, Trim, Benchmark, tuple[int, ...], bool]] = [(DENSE, whole, first, seeds, True)]
    plans += [(DENSE, trim, first, seeds, trim == HALF) for trim in TRIMMED]
    plans += [(DENSE, trim, first, seeds, trim.policy in ("fixed", "random")) for trim in TRIMMERS]
    for parent in ("snp", "magnitude-structured-uniform-basis"):
        plans += [(parent, trim, first, seeds, parent == "snp") for trim in (whole, HALF)]
    plans += [(DENSE, trim, first, seeds[:1], False) for trim in PARTS]
    for trim in (whole, HALF, *TRIMMERS[:3]):
        plans.append((DENSE, trim, "gqa", seeds, False))
    plans += [("snp", trim, "gqa", seeds, False) for trim in (whole, HALF)]
    return [
        make(scale, data, name, size=Size(0.6), benchmarks=(benchmark,), seeds=own, main=main, special=trim)
        for name, trim, benchmark, own, main in plans
    ]
