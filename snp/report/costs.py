"""What running a table anew costs, from the times in the manifests of its committed results."""

import pandas as pd

from snp.experiment.rows import Row
from snp.experiment.spec import Pretrain, Run
from snp.experiment.tables import TABLES, reproduced, rows
from snp.report.frame import unmeasured
from snp.report.table import markdown
from snp.runs.store import Store

CORES = 2
"""On which the times are told: every run has one thread, and two are beside each other."""


def costs(store: Store) -> str:
    """A line for each table, as markdown: runs and minutes of one reproduction (main rows of the first group, one
    seed), and runs and hours of all its rows, without the dense models that they start from.

    Raises:
        InputError: no result of any table.
    """
    lines = []
    for name in TABLES:
        every = rows(name, "desk")
        one, whole = _runs(reproduced(every), 1), _runs(every, None)
        seconds, hours = _seconds(one, store), _seconds(whole, store)
        if hours is None:
            continue
        lines.append(
            {
                "table": f"`{name}`",
                "runs of one seed": str(len(one) or ""),
                "minutes": "" if seconds is None else f"{seconds / CORES / 60:.0f}",
                "runs in all": str(len(whole)),
                "hours": f"{hours / CORES / 3600:.1f}",
            }
        )
    if not lines:
        raise unmeasured("any table", "table1", store, "desk")
    return markdown(pd.DataFrame(lines))


def _runs(chosen: list[Row], seeds: int | None) -> list[Run]:
    found = dict.fromkeys(run for row in chosen for seed in row.seeds[:seeds] for run in row.runs(seed))
    return [run for run in found if not isinstance(run, Pretrain)]


def _seconds(runs: list[Run], store: Store) -> float | None:
    """Seconds of these runs one after the other; those not measured take as long as the others on average."""
    times = [result.manifest.get("wall_seconds") for run in runs if (result := store.find(run))]
    known = [time for time in times if time]
    return len(runs) * sum(known) / len(known) if known else None
