"""Published figures, quoted from results/published with their source; never mixed with measured ones."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

FOLDER = Path(__file__).resolve().parents[2] / "results" / "published"


def quoted(benchmarks: Sequence[str]) -> str:
    """Published precision of uncompressed models on `benchmarks` and the paper's own claim, as markdown."""
    table = pd.read_csv(FOLDER / "originals.csv", dtype=str)
    table = table[table.benchmark.isin(benchmarks)]
    table["column"] = table.benchmark + " " + table.split
    wide = table.pivot(index=["model", "source"], columns="column", values="value")
    wide = wide[list(dict.fromkeys(table.column))].reset_index()
    wide = wide[[column for column in wide if column != "source"] + ["source"]]
    claims = pd.read_csv(FOLDER / "snp.csv", dtype=str)
    lines = [f"- {c.low}-{c.high}{c.unit} of {c.quantity} ({c.source})" for c in claims.itertuples()]
    return (
        "For orientation only: uncompressed originals on real images, full size; precision@1 in per cent.\n\n"
        + wide.to_markdown(index=False, disable_numparse=True)
        + "\n\nThe paper's own claim (its tables are not at hand):\n\n"
        + "\n".join(lines)
        + "\n"
    )
