"""SmartTrim's and DiDE's claims, of rows whose inputs are trimmed and of dual encoders.

Definitions [ours]. 2 to 3 times faster is meant in operations, of a caption whose picture is new; little loss is at
most `LITTLE` points below the dense model that is trained as long; time is that of `AT_ONCE` captions, padded to the
longest. A dual encoder is faster where all that depends on the picture is kept, beside the dense model that looks at
it anew [the paper's sense]; its columns in Table 5 have it beside the dense model that keeps its tower's states too.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from snp.checkout import home
from snp.experiment.rows import DENSE, Row
from snp.experiment.special import HALF, LABELS, SOFT, TRIMMED, TRIMMERS
from snp.files import read_json
from snp.models.distill import Distill
from snp.report.evidence import Claim, Evidence, Verdict, line, points, verdict
from snp.report.frame import over_benchmarks
from snp.report.statistics import Estimate, estimate
from snp.trimming.trim import POLICIES, Trim

FEWER, LITTLE, FASTER, AT_ONCE = 2.0, 2.0, 1.5, 32
NEAR, KEPT = 1.0, 4.0
TIMES = Path("results", "bench", "trimming.json")
DUAL_TIMES = Path("results", "bench", "dual.json")
"""What `snp bench trimming` and `snp bench dual` have measured."""


def trimming_claims(seen: Evidence) -> Iterator[Claim]:
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
    return line("S", text, where, value, verdict(value, -LITTLE) if speed >= FEWER or value.n < 2 else "fails", -LITTLE)


def _soon(seen: Evidence, row: Row) -> Iterator[Claim]:
    """By what was timed of the row's first seed, one thread."""
    wanted = {"row": row.label, "batch": AT_ONCE, "threads": 1, "sorted": False}
    yield from _timed("S", FASTER, f"{row.label}, {AT_ONCE} captions at once", TIMES, wanted)


def _timed(number: str, bound: float, where: str, path: Path, wanted: dict[str, Any]) -> Iterator[Claim]:
    """Whether what a bench has measured is so many times faster; nothing where it has not been run."""
    for one in read_json(home() / path)["measured"] if (home() / path).is_file() else ():
        if wanted.items() <= one.items():
            value = Estimate(one["ratio"], float("nan"), one["low"], one["high"], one["rounds"])
            text = f"at least {bound:g} times faster by the clock"
            yield line(number, text, where, value, verdict(value, bound), unit="x", decimals=2)


def dual_claims(seen: Evidence) -> Iterator[Claim]:
    """What the paper claims of distilled dual encoders, for every group of such rows."""
    own, teacher = _taught(Distill()), f"{DENSE}, teacher"
    for group in seen.groups:
        if not seen.has(group, own, teacher):
            continue
        for how, text in ((SOFT, "soft labels alone"), (LABELS, "labels alone")):
            yield points(seen, "D", f"attention and soft labels beat {text}", own, _taught(how), group, 0)
        yield points(seen, "D", f"at most {NEAR:g} point below the teacher", own, teacher, group, -NEAR)
        found = seen.measured.dual(seen.row(own, group))
        if not found.empty:
            value = estimate(1 / found.flops_kept)
            result: Verdict = "holds" if value.mean >= KEPT else "fails"  # counts have no spread
            text = f"at least {KEPT:g} times fewer operations where the picture is kept"
            yield line("D", text, f"{seen.where}: {own}", value, result, unit="x")
            where = f"{seen.where}: {own}, a kept picture beside a dense model that looks at it anew"
            yield from _timed("D", KEPT, where, DUAL_TIMES, {"what": "kept", "threads": 1})


def _taught(how: Distill) -> str:
    return f"{DENSE}, {how}"
