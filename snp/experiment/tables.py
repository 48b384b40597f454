"""Which rows a table has: pure functions from a scale to rows."""

from collections.abc import Callable

from snp.compression.aliases import named
from snp.compression.size import Size, percent
from snp.errors import InputError
from snp.experiment.absent import table7
from snp.experiment.benchmarks import EXPRESSIONS, Benchmark
from snp.experiment.rows import DENSE, Row, make, seeds_of
from snp.experiment.shots import rates, table6
from snp.experiment.spec import Data, Scale, home_of, is_own
from snp.experiment.special import table5

# what the headline shows and a reproduction runs; rivals with "basis" have the basis that SNP has
HEADLINE = (
    DENSE, "snp", "taylor-basis", "magnitude-structured-uniform-basis", "upop", "magnitude-structured-uniform",
    "cross-modal", "multiflow", "lottery",
)  # fmt: skip
MAIN = (
    DENSE, "snp", "upop", "multiflow", "lottery", "cross-modal", "magnitude", "magnitude-structured-uniform",
    "magnitude-structured-global", "random-structured", "taylor",
)  # fmt: skip
HELPED = ("taylor-basis", "magnitude-structured-uniform-basis", "upop-basis")
# what SNP, UPop and the two strongest rivals come to decides claims, and is known from more seeds
DECIDING = (DENSE, "snp", "upop", "taylor-basis", "magnitude-structured-uniform-basis")
# SNP without one of its parts each, as the paper's claims speak of them
SWITCHES = ("snp-prune-only", "snp-cross-only", "snp-free-logits")
# from units of least norm to SNP, a part at a time: basis, score over all layers, sharing, learning
STEPS = (
    "magnitude-structured-uniform", "magnitude-structured-uniform-basis", "snp-prune-at-once", "snp-at-once", "snp",
)  # fmt: skip
# SNP without a part that the paper does not have; plain: without all of them
OURS = ("snp-no-basis", "snp-magnitude-score", "snp-uniform", "snp-late", "snp-plain")
ALTERNATIVES: dict[str, tuple[bool | int | float | str, ...]] = {
    "block": (1, 3), "every": (2, 4), "align": ("loss",), "pull": (0,), "track": (False,), "prior": (0,),
}  # fmt: skip
"""Options of SNP at other values, as ablations have them."""
# on request only: sharing inside the text tower cannot remove 40% of all parameters
EXTRA = ("snp-blockwise-only",)
SIZES = (0.6, 0.4, 0.25)
"""Shares of all parameters that remain in the groups of Table 1."""
SMALLEST_SMOKE = 0.5
"""Share that remains of a smoke model at least: its towers are less than 60% of all parameters."""
LONGER = 4
"""Times the steps of the recipe."""
# as MULTIFLOW's paper, which calls magnitude OMP, compares them: those that it speaks of most, and the others
FAMILY_FIRST = ("multiflow", "magnitude", "lamp", "snip", "chita")
FAMILY = (*FAMILY_FIRST, "random", "localmp", "modalitymp", "l2", "itersnip", "chita++", "tamt")
STAMPS = (
    DENSE, "snp", "upop", "multiflow", "lottery", "cross-modal", "magnitude-structured-uniform", "random-structured",
)  # fmt: skip

TASK_ROWS = (DENSE, "snp", "upop", "multiflow", "lottery", "cross-modal", "magnitude-structured-uniform")


def table1(scale: Scale) -> list[Row]:
    """Table 1, referring expression comprehension: 40%, 60% and 75% of all parameters removed.

    Scenes: three seeds, and five where claims are decided; at 40% on three benchmarks, at other sizes and for SNP's
    switches on the RefCOCO-like one. Stamps (at desk scale only): one seed, the most telling methods at 40%. Smoke
    scale: 40% alone, as its towers are less than 60% of all parameters.
    """
    data = home_of(scale)
    rows = [
        make(
            scale,
            data,
            name,
            size=Size(keep),
            seeds=_seeds(scale, name),
            main=name in HEADLINE,
            benchmarks=EXPRESSIONS if keep == SIZES[0] and name not in SWITCHES else ("refcoco",),
        )
        for keep in _sizes(scale)
        for name in (*MAIN, *HELPED, *SWITCHES)
        # dense stands above; learned sharing alone cannot reach 60%
        if keep == SIZES[0] or name not in (DENSE, "snp-cross-only")
    ]
    if scale == "desk":
        rows += [make(scale, "stamps", name, size=Size(0.6), benchmarks=EXPRESSIONS, main=True) for name in STAMPS]
    return rows


def table1b(scale: Scale) -> list[Row]:
    """Table 1b, task-agnostic pruning as in MULTIFLOW's paper: its family at 63%, 75% and 90% of the prunable weights.

    Pruned once and fine-tuned on the task, with no pre-training in between. RefCOCO-like benchmark of scenes; three
    seeds for the methods it speaks of most.
    """
    seeds = _seeds(scale)
    sizes = (0.63, 0.75, 0.9)
    data = home_of(scale)
    whole = make(scale, data, DENSE, size=Size(sparsity=0.0), seeds=seeds, main=True, recovery=False)
    return [
        whole.model_copy(update={"group": f"{percent(sizes[0])}%"}),
        *(
            make(
                scale,
                data,
                name,
                size=Size(sparsity=sparsity),
                main=True,
                recovery=False,
                seeds=seeds if name in FAMILY_FIRST else seeds[:1],
            )
            for sparsity in sizes
            for name in FAMILY
        ),
    ]


def table2(scale: Scale) -> list[Row]:
    """Table 2, visual question answering (GQA): the models that Table 1 compressed by 40%, fine-tuned on questions."""
    return _of_task(scale, "gqa")


def table3(scale: Scale) -> list[Row]:
    """Table 3, phrase grounding (Flickr30k Entities): the models of Table 1 again, fine-tuned on sentences."""
    return _of_task(scale, "flickr30k")


def table4(scale: Scale) -> list[Row]:
    """Table 4, object detection (COCO): the GLIP-style model, 40% of all parameters removed."""
    return _of_task(scale, "coco")


def _of_task(scale: Scale, benchmark: Benchmark) -> list[Row]:
    """Dense, snp and its most telling rivals on one benchmark: on scenes five seeds of what claims compare, three of
    the others; one on stamps.
    """
    home, compared = home_of(scale), (DENSE, "snp")
    return [
        make(
            scale,
            data,
            name,
            size=Size(0.6),
            seeds=_seeds(scale, name if name in compared else "") if data == home else (0,),
            benchmarks=(benchmark,),
            main=True,
        )
        for data in (home, *(["stamps"] if scale == "desk" else []))
        for name in TASK_ROWS
    ]


def figure1(scale: Scale) -> list[Row]:
    """Figure 1, precision over parameters: every method with 20 to 70% of all parameters removed, Table 1's to 75%.

    RefCOCO-like benchmark of scenes; three seeds of methods that make the model smaller, one of those that zero
    weights. Smoke scale: to 50%, as its towers are less than 60% of all parameters.
    """
    cutting = [name for name in (*MAIN, *HELPED) if name not in FAMILY]
    return [
        make(scale, home_of(scale), name, size=Size(keep), main=True, seeds=_seeds(scale) if name in cutting else (0,))
        for keep in _sizes(scale, (0.8, 0.6, 0.5, 0.4, 0.3, 0.25))
        for name in dict.fromkeys([*MAIN, *HELPED, *FAMILY])
        if (name != DENSE or keep == 0.8) and (keep > SIZES[-1] or name in (*MAIN, *HELPED))
    ]


def ablations(scale: Scale) -> list[Row]:
    """What each part of SNP gives: without it, from magnitude to SNP a part at a time, and options at other values.

    Three seeds, RefCOCO-like benchmark of scenes; 40%, 60% and 75% of all parameters removed, options with the most.
    """
    data, seeds = home_of(scale), _seeds(scale)
    sizes = _sizes(scale)
    rows = [
        make(scale, data, name, size=Size(keep), seeds=seeds, main=True)
        for keep in sizes
        for name in dict.fromkeys((DENSE, *STEPS, *SWITCHES, *OURS))
        if keep == sizes[0] or name not in (DENSE, "snp-cross-only")
    ]
    snp = make(scale, data, "snp", size=Size(sizes[-1]), seeds=seeds)
    return rows + [
        snp.model_copy(update={"name": named("snp", option), "options": option})
        for key, values in ALTERNATIVES.items()
        for option in ({key: value} for value in values)
    ]


def longer(scale: Scale) -> list[Row]:
    """A phase of four times the steps, as the paper compresses during pre-training: what is left of differences.

    One seed, RefCOCO-like benchmark of scenes; dense, SNP, UPop and the two strongest rivals.
    """
    return [
        make(scale, home_of(scale), name, size=Size(keep), times=LONGER, main=True)
        for keep in _sizes(scale)
        for name in DECIDING
        if name != DENSE or keep == SIZES[0]
    ]


def tickets(scale: Scale) -> list[Row]:
    """Relaxed tickets: lottery tickets of the task, of pre-training and of chance, over the prunable weights' sparsity.

    One seed; tickets of pre-training and of chance on two benchmarks of scenes, those of a task on their own one.
    """
    data = home_of(scale)
    rows = [make(scale, data, DENSE, size=Size(sparsity=0.5), benchmarks=EXPRESSIONS[:2])]
    for sparsity in (0.5, 0.6, 0.7, 0.8, 0.9):
        rows.append(make(scale, data, "task-ticket", size=Size(sparsity=sparsity), task="refcoco"))
        rows += [
            make(scale, data, name, size=Size(sparsity=sparsity), benchmarks=EXPRESSIONS[:2])
            for name in ("universal-ticket", "random-ticket")
        ]
    return rows


TABLES: dict[str, Callable[[Scale], list[Row]]] = {
    "table1": table1,
    "table1b": table1b,
    "table2": table2,
    "table3": table3,
    "table4": table4,
    "figure1": figure1,
    "ablations": ablations,
    "longer": longer,
    "table5": table5,
    "tickets": tickets,
    "table6": table6,
    "rates": rates,
    "table7": table7,
}


def rows(name: str, scale: Scale) -> list[Row]:
    """The rows of a table.

    Raises:
        InputError: no such table.
    """
    if name not in TABLES:
        raise InputError(name, "no such table", f"tables: {', '.join(TABLES)}")
    return TABLES[name](scale)


def reproduced(known: list[Row]) -> list[Row]:
    """What a reproduction runs of a table's rows: the main ones of the first group."""
    first = known[0]
    return [row for row in known if row.main and (row.group, row.data) == (first.group, first.data)]


def select(name: str, scale: Scale, data: Data | None = None) -> list[Row]:
    """The rows of a table on one data set, or on all; on a user's own those of the first data set are.

    Raises:
        InputError: no such table, none of its rows is on this data set, or they cannot be on a user's own.
    """
    known = rows(name, scale)
    if known and data is not None and is_own(data):
        known = [row.on(data) for row in known if row.data == known[0].data]
    if not (chosen := [row for row in known if data in (None, row.data)]):
        if not known:
            raise InputError(name, f"has no rows at scale {scale}", "it is of data that are drawn: --scale desk")
        others = " and ".join(dict.fromkeys(row.data for row in known))
        raise InputError(f"{name} --data {data}", f"has no rows at scale {scale}", f"they are of {others}")
    return chosen


def _sizes(scale: Scale, wanted: tuple[float, ...] = SIZES) -> tuple[float, ...]:
    """Those of the wanted sizes that models of a scale can be cut to."""
    return tuple(keep for keep in wanted if scale != "smoke" or keep >= SMALLEST_SMOKE)


def _seeds(scale: Scale, name: str = "") -> tuple[int, ...]:
    return seeds_of(scale, 5 if name in DECIDING else 3)
