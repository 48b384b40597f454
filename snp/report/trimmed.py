"""Rows whose inputs are trimmed: what tables compare them with, what is left of inputs, and SmartTrim's claims.

Definitions [ours]. 2 to 3 times faster is meant in operations, of a caption whose picture is new; little loss is at
most `LITTLE` points below the dense model that is trained as long; time is that of `AT_ONCE` captions, padded to the
longest.
"""

from collections.abc import Iterator
from pathlib import Path

from snp.checkout import home
from snp.experiment.rows import DENSE, Row
from snp.experiment.trimmed import HALF, TRIMMED, TRIMMERS
from snp.files import read_json
from snp.report.evidence import Claim, Evidence, line, points, verdict
from snp.report.frame import Measured, over_benchmarks
from snp.report.statistics import Estimate, estimate, share
from snp.trimming.trim import POLICIES, Trim

FEWER, LITTLE, FASTER, AT_ONCE = 2.0, 2.0, 1.5, 32
TIMES = Path("results", "bench", "trimming.json")
"""What `snp bench trimming` has measured."""


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


def claims(seen: Evidence) -> Iterator[Claim]:
    """What the paper claims of trimming, for every group of rows that trim."""
    whole = _title(Trim(tokens=1))
    for group in seen.groups:
        if not seen.has(group, whole, _title(HALF)):
            continue
        if (row := _fast(seen, group)) is not None:
            yield _few(seen, row, group, whole)
            yield from _soon(seen, row)
        for trim in TRIMMERS:
            if trim.policy != HALF.policy and seen.has(group, _title(trim)):
                text = f"what each input needs beats: {POLICIES[trim.policy]}"
                yield points(seen, "S", text, _title(HALF), _title(trim), group, 0)


def _title(trim: Trim) -> str:
    """Of the dense model's row."""
    return f"{DENSE}, {'whole' if trim.whole else trim}"


def _speed(seen: Evidence, row: Row) -> float:
    """How many times fewer operations, mean over seeds; 0 where nothing is measured."""
    found = seen.measured.trimmed(row)
    return 0.0 if found.empty else 100 / float(found["flops", "mean"].mean())


def _fast(seen: Evidence, group: str) -> Row | None:
    """The row that keeps most of those that are fast enough, else the fastest; None where none is measured."""
    known = [seen.row(_title(trim), group) for trim in TRIMMED if seen.has(group, _title(trim))]
    speeds = {row.label: _speed(seen, row) for row in known}
    enough = [row for row in known if speeds[row.label] >= FEWER]
    best = enough[0] if enough else max(known, key=lambda row: speeds[row.label])
    return best if speeds[best.label] else None


def _few(seen: Evidence, row: Row, group: str, whole: str) -> Claim:
    value, speed = estimate(over_benchmarks(seen.gap(row.title, whole, group))), _speed(seen, row)
    text = f"at least {FEWER:g} times fewer operations at little loss (at most {LITTLE:g} points)"
    where = f"{seen.where}: {row.title} - {whole} ({speed:.2f} times fewer)"
    return line("S", text, where, value, verdict(value, -LITTLE) if speed >= FEWER else "fails", -LITTLE)


def _soon(seen: Evidence, row: Row) -> Iterator[Claim]:
    """By what was timed of the row's first seed, one thread."""
    path = home() / TIMES
    for one in read_json(path)["measured"] if path.is_file() else ():
        wanted = {"row": row.label, "batch": AT_ONCE, "threads": 1, "sorted": False}
        if wanted.items() <= one.items():
            value = Estimate(one["ratio"], float("nan"), one["low"], one["high"], one["rounds"])
            text = f"at least {FASTER:g} times faster by the clock"
            where = f"{row.label}, {AT_ONCE} captions at once"
            yield line("S", text, where, value, verdict(value, FASTER), unit="x", decimals=2)
