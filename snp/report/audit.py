"""What an audit found: results beside the same runs done afresh."""

from collections import Counter
from collections.abc import Sequence

import pandas as pd

from snp.report.fitted import fitted, width
from snp.runs.audit import NEAR, Audited


def audited(found: Sequence[Audited]) -> str:
    """A line for every run, the worst last, and how many came out how; fitted to the terminal."""
    lines = [
        {
            "run": one.kept[0].run.name,
            "came out": one.verdict,
            "points": f"{one.worst:+.2f}",
            "by": str(one.kept[0].manifest.get("commit") or "?")[:10],
        }
        for one in sorted(found, key=lambda one: abs(one.worst))
    ]
    counts = Counter(one.verdict for one in found)
    said = ", ".join(f"{counts[verdict]} {verdict}" for verdict in ("to the bit", "near", "off"))
    note = f"points: largest difference of a split, afresh less kept; near: at most {NEAR:g}."
    return f"{fitted(pd.DataFrame(lines), 'results run afresh', width())}\n{said} of {len(found)}; {note}\n"
