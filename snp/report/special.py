"""Rows of which more than weights is special: inputs that are trimmed, and dual encoders. Their kinds and columns."""

from snp.experiment.rows import DENSE, Row
from snp.report.frame import Measured
from snp.report.statistics import share


def dense_beside(members: list[Row], rows: list[Row]) -> Row | None:
    """The dense row that a group is compared with: of special rows that of their own group.

    That is, of trimmed inputs, the one that is trained as long and keeps all; of dual encoders, the teacher.
    """
    first = members[0]
    same = [row for row in rows if row.data == first.data and row.dual is None and row.augment is None]
    dense = [row for row in same if row.method == DENSE]
    if first.trim is not None:
        return next((row for row in members if row in dense and row.trim is not None and row.trim.whole), None)
    plain = [row for row in dense if row.trim is None]
    own = [row for row in plain if row in members]
    return next(iter(own if not first.of and own else reversed(plain)), None)


def kind(row: Row, of_weights: str) -> str:
    """What of a model is smaller, and what is special about it: nothing else has these kinds."""
    special = "distilled" if row.dual else "dynamic" if row.trim and not row.trim.whole else ""
    if not special or not of_weights:
        return of_weights
    return special if of_weights == DENSE else f"{of_weights} + {special}"


def columns(row: Row, measured: Measured) -> dict[str, str]:
    """What is stored, and what is left of the work that a caption is."""
    cost = measured.cost(row)
    if row.trim is not None:
        return {"stored": share(cost.stored_ratio.mean())} | _trimmed(row, measured)
    found = measured.dual(row)
    stored = share(found.stored.mean()) if not found.empty else share(cost.stored_ratio.mean()) if not row.dual else ""
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
        whole = row.trim is not None and row.trim.whole
        flops = share(measured.cost(row).flops_ratio.mean()) if whole else ""
        return {"tokens": "", "heads": "", "FLOPs": flops, "p10 to p90": "", "FLOPs, 4 captions": ""}
    mean = found.mean()
    return {
        "tokens": share(mean["tokens", "mean"] / 100),
        "heads": share(mean["heads", "mean"] / 100),
        "FLOPs": share(mean["flops", "mean"] / 100),
        "p10 to p90": f"{mean['flops', 'p10']:.0f} to {mean['flops', 'p90']:.0f}%",
        "FLOPs, 4 captions": share(mean["cached", "mean"] / 100),
    }
