"""ALTER's claims, of models that are adapted to other looks of their scenes by a few expressions.

Definitions [ours]. Values are points of precision, paired over seeds and draws, in which all models learn from the same
expressions, mean over the draws of a seed: these have one parent, and count once. On a look a ticket wins where a t
test over seeds says so, at `CONFIDENCE` after Holm's correction for the number of looks. By chance: a ticket that is
drawn.
"""

from collections.abc import Iterator

import pandas as pd
from scipy.stats import t

from snp.experiment.rows import DENSE
from snp.experiment.shots import ATTRIBUTED, CHANCE, COUNTS, PLAIN, SPARSITY
from snp.models.adapt import Adapt
from snp.report.evidence import Claim, Evidence, Verdict, line, verdict
from snp.report.statistics import CONFIDENCE, Estimate, estimate

WON = 4
"""Looks of five on which the paper's ticket is ahead of full fine-tuning."""


def adapting_claims(seen: Evidence) -> Iterator[Claim]:
    """What the paper claims, for every number of expressions that the rows have."""
    rivals = {PLAIN: "attribution beats magnitude alone", CHANCE: "a ticket beats one by chance"}
    for shots in COUNTS:
        titles = {name: _title(name, shots) for name in (ATTRIBUTED, DENSE, *rivals)}
        group = next((group for group in seen.groups if seen.has(group, *titles.values())), None)
        if group is None:
            continue
        draws = {name: seen.measured.draws(seen.row(title, group)) for name, title in titles.items()}
        yield _ahead(seen, _gap(draws[ATTRIBUTED], draws[DENSE]), shots)
        for other, text in rivals.items():
            value = estimate(by_seed(_gap(draws[ATTRIBUTED], draws[other])).mean())
            where = f"{seen.where}: {ATTRIBUTED}@{SPARSITY} - {other}, {shots} expressions"
            yield line("A", text, where, value, verdict(value, 0, strictly=True), 0)


def by_seed(gap: pd.DataFrame) -> pd.DataFrame:
    """Points by which one model is ahead, a line a look, a column a seed: mean over the draws of each."""
    return gap if gap.empty else gap.T.groupby(level=0).mean().T


def wins(gap: pd.DataFrame) -> pd.Series:
    """Of every look, whether the first of two models is ahead on it: by a t test over seeds, corrected (Holm).

    Args:
        gap: points by which it is ahead: a line a look, a column (seed, draw).
    """
    seeds = by_seed(gap)
    n, mean, std = seeds.shape[1], seeds.mean(axis=1), seeds.std(axis=1)
    if n < 2:
        return pd.Series(False, gap.index)
    p = pd.Series(t.sf(mean * n**0.5 / std.clip(lower=1e-12), n - 1), gap.index).sort_values()
    corrected = (p * range(len(p), 0, -1)).cummax()
    return (corrected < 1 - CONFIDENCE).reindex(gap.index)


def _ahead(seen: Evidence, gap: pd.DataFrame, shots: int) -> Claim:
    ahead, sure = int((gap.mean(axis=1) > 0).sum()), int(wins(gap).sum())
    seeds = by_seed(gap).shape[1]
    result: Verdict = "holds" if sure >= WON else "fails" if ahead < WON else "undecided"
    value = Estimate(ahead, float("nan"), float("nan"), float("nan"), min(seeds, 1))
    text = f"better than full fine-tuning on {WON} looks of five"
    where = f"{seen.where}: {ATTRIBUTED}@{SPARSITY} - {DENSE}, {shots} expressions, {sure} of them surely"
    told = result if seeds > 1 else "not tested"
    return line("A", text, where, value, told, unit=" of 5", decimals=0)


def _gap(own: pd.DataFrame, theirs: pd.DataFrame) -> pd.DataFrame:
    """Points by which one is ahead, over the draws that both have: a line a look, a column (seed, draw)."""
    if own.empty or theirs.empty:
        return pd.DataFrame()
    both = own.columns.intersection(theirs.columns)
    return own[both] - theirs[both]


def _title(name: str, shots: int) -> str:
    size = "" if name == DENSE else f"@{SPARSITY}"
    return f"{name}{size}, {Adapt(shots=shots)}"
