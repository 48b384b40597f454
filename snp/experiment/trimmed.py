"""Which rows have inputs trimmed: those of Table 5."""

from snp.compression.size import Size
from snp.experiment.benchmarks import Benchmark
from snp.experiment.rows import DENSE, Row, make, seeds_of
from snp.experiment.spec import Scale, home_of
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


def table5(scale: Scale) -> list[Row]:
    """Table 5, trimming (SmartTrim): tokens and heads that an input does not need, from any parent; with its rivals.

    Expressions and questions of scenes, three seeds; one for what each part gives. All rows are fine-tuned as long.
    """
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
        make(scale, data, name, size=Size(0.6), benchmarks=(benchmark,), seeds=own, main=main, trim=trim)
        for name, trim, benchmark, own, main in plans
    ]
