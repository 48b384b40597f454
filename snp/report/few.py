"""ALTER's claims, of models that are adapted to other looks of their scenes by a few expressions.

Definitions [ours]. Values are points of precision, paired over seeds and draws, in which all models learn from the same
expressions. On a look a ticket wins where a sign test over these pairs says so, at `CONFIDENCE` after Holm's
correction for the number of looks. By chance: a ticket that is drawn.
"""

from collections.abc import Iterator

import pandas as pd
from scipy.stats import binomtest

from snp.experiment.rows import DENSE
from snp.experiment.shots import ATTRIBUTED, CHANCE, COUNTS, PLAIN, SPARSITY
from snp.models.adapt import Adapt
from snp.report.evidence import Claim, Evidence, Verdict, line, verdict
from snp.report.statistics import CONFIDENCE, Estimate, estimate

WON = 4
"""Looks of five on which the paper's ticket is ahead of full fine-tuning."""


def adapting_claims(seen: Evidence) -> Iterator[Claim]:
    """What the paper claims, for every number of expressions that the rows have."""
    for shots in COUNTS:
        group = next((group for group in seen.groups if seen.has(group, _title(DENSE, shots))), None)
        if group is None or not seen.has(group, _title(ATTRIBUTED, shots)):
            continue
        if (gap := _gap(seen, group, shots, ATTRIBUTED, DENSE)) is not None:
            yield _ahead(seen, gap, shots)
        for other, text in ((PLAIN, "attribution beats magnitude alone"), (CHANCE, "a ticket beats one by chance")):
            if (gap := _gap(seen, group, shots, ATTRIBUTED, other)) is not None:
                value = estimate(gap.mean())
                where = f"{seen.where}: {ATTRIBUTED}@{SPARSITY} - {other}, {shots} expressions"
                yield line("A", text, where, value, verdict(value, 0, strictly=True), 0)


def wins(gap: pd.DataFrame) -> pd.Series:
    """Of every look, whether the first of two models is ahead on it: by a sign test over draws, corrected (Holm).

    Args:
        gap: points by which it is ahead: a line a look, a column a draw.
    """
    chances = (gap > 0).sum(axis=1), (gap != 0).sum(axis=1)
    p = pd.Series({look: binomtest(k, n, alternative="greater").pvalue if n else 1.0
                   for look, k, n in zip(gap.index, *chances, strict=True)}).sort_values()  # fmt: skip
    corrected = (p * range(len(p), 0, -1)).cummax()
    return (corrected < 1 - CONFIDENCE).reindex(gap.index)


def _ahead(seen: Evidence, gap: pd.DataFrame, shots: int) -> Claim:
    ahead, sure = int((gap.mean(axis=1) > 0).sum()), int(wins(gap).sum())
    result: Verdict = "holds" if sure >= WON else "fails" if ahead < WON else "undecided"
    value = Estimate(ahead, float("nan"), float("nan"), float("nan"), 1)
    text = f"better than full fine-tuning on {WON} of {len(gap)} looks"
    where = f"{seen.where}: {ATTRIBUTED}@{SPARSITY} - {DENSE}, {shots} expressions, {sure} of them surely"
    return line("A", text, where, value, result, unit=f" of {len(gap)}", decimals=0)


def _gap(seen: Evidence, group: str, shots: int, name: str, other: str) -> pd.DataFrame | None:
    """Points by which one is ahead, over the draws that both have; None where there are none."""
    if not seen.has(group, _title(other, shots)):
        return None
    own, theirs = (seen.measured.draws(seen.row(_title(one, shots), group)) for one in (name, other))
    both = own.columns.intersection(theirs.columns)
    return own[both] - theirs[both] if len(both) else None


def _title(name: str, shots: int) -> str:
    size = "" if name == DENSE else f"@{SPARSITY}"
    return f"{name}{size}, {Adapt(shots=shots)}"
