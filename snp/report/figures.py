"""Figures from results alone: precision over stored parameters."""

import io
from pathlib import Path

import pandas as pd

from snp.experiment.spec import Data, Scale
from snp.experiment.store import Store
from snp.files import write_atomic
from snp.report.frame import Measured, over_benchmarks
from snp.report.statistics import estimate
from snp.report.table import NAMES, select


def figure(name: str, store: Store, scale: Scale, data: Data, path: str | Path) -> Path:
    """Draw precision@1 (RefCOCO-like, mean over splits, 95% interval) over stored parameters, as PNG."""
    from matplotlib.figure import Figure  # slow to import, and only needed here

    rows = select(name, scale, data)
    measured = Measured(rows, store)
    canvas = Figure(figsize=(7, 4.5), layout="constrained")
    axes = canvas.subplots()
    for method in dict.fromkeys(row.name for row in rows):
        points, kinds = [], set()
        for row in (row for row in rows if row.name == method):
            values = measured.precision(row)
            values = values[values.index.get_level_values("benchmark") == "refcoco"]
            value = estimate(over_benchmarks(values))
            kinds |= set(measured.cost(row).kind)
            stored = measured.cost(row).stored_params.astype(float).mean() / 1e6
            if value.n and not pd.isna(stored):
                points.append((stored, value.mean, value.high - value.mean if value.n > 1 else 0.0))
        if points:
            x, y, error = zip(*sorted(points), strict=True)
            axes.errorbar(
                x, y, yerr=error, marker="o", capsize=3, label=f"{method} ({', '.join(sorted(kinds))})"
            )
    axes.set(
        xlabel="stored parameters, millions", ylabel=f"{NAMES['refcoco']}-like precision@1, %", title=data
    )
    axes.grid(alpha=0.3)
    if axes.has_data():
        axes.legend(fontsize=8, loc="lower right")
    buffer = io.BytesIO()
    canvas.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return write_atomic(path, buffer.getvalue())
