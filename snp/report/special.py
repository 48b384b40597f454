"""Rows of which more than weights is special: inputs that are trimmed, and dual encoders. Their kinds and columns."""

from snp.experiment.absent import ABSENT
from snp.experiment.rows import DENSE, Row
from snp.models.adapt import Adapt
from snp.models.special import word_of
from snp.report.frame import ZERO_SHOT, Measured
from snp.report.statistics import share
from snp.trimming.trim import Trim

FEW = (f"{ZERO_SHOT}precision@1", f"{ZERO_SHOT}source", "source")
"""Of a model that is adapted: precision on other looks before, and on its own scenes before and after."""


def dense_beside(members: list[Row], rows: list[Row]) -> Row | None:
    """The dense row that a group is compared with: of special rows that of their own group.

    That is, of trimmed inputs, the one that is trained as long and keeps all; of dual encoders, the teacher; of a few
    expressions, the one of which all learns.
    """
    first = members[0]
    dense = [row for row in rows if row.method == DENSE and row.data == first.data]
    if isinstance(first.special, Trim):
        return next((row for row in members if row in dense and row.whole), None)
    if isinstance(first.special, Adapt):
        return next((row for row in members if row in dense and row.special == Adapt(shots=first.special.shots)), None)
    plain = [row for row in dense if row.special is None]
    own = [row for row in plain if row in members]
    return next(iter(own if not first.of and own else reversed(plain)), None)


def kind(row: Row, of_weights: str) -> str:
    """What of a model is smaller, and what is special about it: nothing else has these kinds."""
    special = {"dual": "distilled", "trim": "" if row.whole else "dynamic"}.get(word_of(row.special), "")
    if not special or not of_weights:
        return of_weights
    return special if of_weights == DENSE else f"{of_weights} + {special}"


def columns(row: Row, measured: Measured) -> dict[str, str]:
    """What is stored, and what is left of the work that a caption is."""
    cost = measured.cost(row)
    if isinstance(row.special, Adapt):
        return _adapted(row, measured)
    if row.benchmarks == (ABSENT,):
        return _made(row, measured)
    if isinstance(row.special, Trim):
        return {"stored": share(cost.stored_ratio.mean())} | _trimmed(row, measured)
    found = measured.dual(row)
    stored = "" if found.empty and row.special else share((cost.stored_ratio if found.empty else found.stored).mean())
    heads = {
        "flops_new": "FLOPs, new picture",
        "flops_kept": "kept",
        "flops_kept_beside_kept": "of dense, kept",
    }
    shares = {head: "" if found.empty else share(found[name].mean()) for name, head in heads.items()}
    return {"stored": stored, **shares, "bytes a picture": "" if found.empty else f"{found.bytes.mean():.0f}"}


def _trimmed(row: Row, measured: Measured) -> dict[str, str]:
    found = measured.trimmed(row)
    if found.empty:
        flops = share(measured.cost(row).flops_ratio.mean()) if row.whole else ""
        return {"tokens": "", "heads": "", "FLOPs": flops, "p10 to p90": "", "FLOPs, 4 captions": ""}
    mean = found.mean()
    return {
        "tokens": share(mean["tokens", "mean"] / 100),
        "heads": share(mean["heads", "mean"] / 100),
        "FLOPs": share(mean["flops", "mean"] / 100),
        "p10 to p90": f"{mean['flops', 'p10']:.0f} to {mean['flops', 'p90']:.0f}%",
        "FLOPs, 4 captions": share(mean["cached", "mean"] / 100),
    }


def _made(row: Row, measured: Measured) -> dict[str, str]:
    """How many captions were made, and the shares that something fits, that can be read, that name what is there."""
    found = measured.asked(row)
    shares = {name: "" if found.empty else share(found[name].mean()) for name in ("noise", "readable", "related")}
    return {"made": "" if found.empty else f"{found['count'].mean():.0f}", **shares}


def _adapted(row: Row, measured: Measured) -> dict[str, str]:
    """What of the model is there, and learns; its precision before, and on the scenes that it comes from, after."""
    found = measured.shown(row)
    known = {name: found[found.index.get_level_values("metric") == name].stack().mean() for name in FEW}
    before, home, after = (share(value / 100) for value in known.values())
    learns, there = measured.learns(row), measured.cost(row).nonzero_ratio.mean()
    return {
        "there": share(there),
        "learns": "" if learns.empty else share(float(learns.mean()) * there),
        "before": before,
        "at home, before": home,
        "after": after,
    }
