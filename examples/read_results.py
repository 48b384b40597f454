"""Read results with pandas and plot them: what every method loses where 40% of the parameters are removed.

python examples/read_results.py [PICTURE.png]    # default: loss.png

In other languages read what `snp table table1 --format csv` prints.
"""

import io
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from snp.report.table import table
from snp.runs.store import Store

RESULTS = Path(__file__).parents[1] / "results" / "desk"


def main(path: str = "loss.png") -> None:
    """Means over splits, then over benchmarks, beside each other: the figures of the README."""
    long = pd.read_csv(io.StringIO(table("table1", Store(RESULTS), "desk", "scenes", "csv")))
    wanted = (long.group == "40%") & (long.type == "all") & (long.metric == "precision@1") & (long.kind != "dense")
    of_benchmarks = long[wanted].groupby(["label", "kind", "benchmark"]).delta_vs_dense.mean()
    loss = of_benchmarks.groupby(["label", "kind"]).mean().sort_values().reset_index()
    print(loss.to_string(index=False, float_format="{:+.1f}".format))
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for kind, lines in loss.groupby("kind"):
        axes.barh(lines.label, lines.delta_vs_dense, label=kind)
    axes.set_xlabel("precision@1, points of change to dense, mean over splits, then benchmarks")
    axes.legend(title="kind")
    figure.savefig(path)


if __name__ == "__main__":
    main(*sys.argv[1:2])
