"""Rows whose inputs are trimmed, in tables: what they are compared with, what their kind is, what is left of inputs."""

from snp.experiment.rows import DENSE, Row
from snp.report.frame import Measured
from snp.report.statistics import share


def dense_beside(members: list[Row], rows: list[Row]) -> Row | None:
    """The dense row that a group is compared with: of trimmed inputs the one that is trained as long and keeps all."""
    first = members[0]
    beside = rows if first.trim is None else members
    found = [row for row in beside if row.method == DENSE and row.data == first.data]
    return next((row for row in reversed(found) if (row.trim is None) == (first.trim is None) and
                 (row.trim is None or row.trim.whole)), None)  # fmt: skip


def dynamic(row: Row, kind: str) -> str:
    """What of a model is smaller, and what of its inputs: nothing else has this kind."""
    assert row.trim is not None
    if row.trim.whole or not kind:
        return kind
    return "dynamic" if kind == DENSE else f"{kind} + dynamic"


def left(row: Row, measured: Measured) -> dict[str, str]:
    """What is left of each input, and of the work that it is: columns of rows that trim."""
    found = measured.trimmed(row)
    if found.empty:
        flops = share(measured.cost(row).flops_ratio.mean())
        return {"tokens": "", "heads": "", "FLOPs": flops, "p10 to p90": "", "FLOPs, 4 captions": ""}
    mean = found.mean()
    return {
        "tokens": share(mean["tokens", "mean"] / 100),
        "heads": share(mean["heads", "mean"] / 100),
        "FLOPs": share(mean["flops", "mean"] / 100),
        "p10 to p90": f"{mean['flops', 'p10']:.0f} to {mean['flops', 'p90']:.0f}%",
        "FLOPs, 4 captions": share(mean["cached", "mean"] / 100),
    }
