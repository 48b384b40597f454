"""Two rows beside each other: differences on every split, paired over seeds."""

import pandas as pd

from snp.errors import InputError
from snp.experiment.benchmarks import ABOUT
from snp.experiment.rows import Row
from snp.experiment.spec import Scale
from snp.report.fitted import fitted, width
from snp.report.frame import Measured, over_benchmarks, unmeasured
from snp.report.statistics import estimate, points, share
from snp.runs.store import Store


def compare(row: Row, other: Row, store: Store, scale: Scale) -> str:
    """How two rows differ, as text fitted to the terminal.

    Every split of the benchmarks that both have: the main figure of each, mean over the seeds that both have, and the
    difference in points with its 95% interval; then the mean over splits and benchmarks, and what both store.

    Raises:
        InputError: a row with itself; a row without a result, or no benchmark and seed that both have.
    """
    if row.label == other.label:
        raise InputError(row.label, "is compared with itself", "name another row")
    measured = Measured([row, other], store)
    for one in (row, other):
        if measured.main(one).empty:
            raise unmeasured(one.label, one.label, store, scale)
    gap = measured.difference(row, other)
    if gap.empty:
        common = f"a benchmark and a seed that {row.label} and {other.label} have in common"
        raise unmeasured(common, row.label, store, scale)
    here, there = (measured.main(one).loc[gap.index, gap.columns] for one in (row, other))
    names = (row.label, other.label) if row.name == other.name or not (row.of and other.of) else (row.name, other.name)
    lines = [
        {
            "split": f"{ABOUT[benchmark].title} {split}",
            names[0]: f"{here.loc[(benchmark, split)].mean():.1f}",
            names[1]: f"{there.loc[(benchmark, split)].mean():.1f}",
            "difference": points(estimate(gap.loc[(benchmark, split)])),
        }
        for benchmark, split in gap.index
    ]
    means = [over_benchmarks(values) for values in (here, there, gap)]
    lines.append(
        {
            "split": "mean over benchmarks",
            names[0]: f"{means[0].mean():.1f}",
            names[1]: f"{means[1].mean():.1f}",
            "difference": points(estimate(means[2])),
        }
    )
    for what, column in (("stored", "stored_ratio"), ("not zero", "nonzero_ratio"), ("FLOPs", "flops_ratio")):
        shares = [share(measured.cost(one)[column].mean()) for one in (row, other)]
        lines.append({"split": what} | dict(zip(names, shares, strict=True)))
    seeds = ", ".join(map(str, gap.columns))
    title = f"{row.label} beside {other.label}, seeds {seeds}"
    return fitted(pd.DataFrame(lines).fillna(""), title, width())
