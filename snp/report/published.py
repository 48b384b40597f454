"""Published figures, quoted from results/published with their source; never mixed with measured ones."""

from collections.abc import Collection, Iterator
from pathlib import Path

import pandas as pd

FOLDER = Path(__file__).with_name("quoted")
"""results/published, by a link that takes it along into a wheel."""


def quoted(benchmarks: Collection[str], methods: Collection[str]) -> str:
    """What others published of the same things, as markdown: originals on `benchmarks`, and what `methods` reached."""
    return "\n".join(_parts(benchmarks, methods))


def _parts(benchmarks: Collection[str], methods: Collection[str]) -> Iterator[str]:
    yield "For orientation only: full-size models on real images.\n"
    if len(table := _of("originals", "benchmark", benchmarks)):
        table["column"] = table.benchmark + " " + table.split
        wide = table.pivot(index=["model", "source"], columns="column", values="value")
        wide = wide[list(dict.fromkeys(table.column))].reset_index()
        wide = wide[[column for column in wide if column != "source"] + ["source"]]
        yield f"Uncompressed originals, precision@1 in per cent:\n\n{_markdown(wide)}"
    if len(table := _of("rivals", "method", methods)):
        yield f"Rivals on other tasks, as their authors give them:\n\n{_markdown(table)}"
    if len(table := _of("claims", "method", methods)):
        yield "What papers state (the tables of the paper on snp are not at hand):\n"
        for c in table.itertuples():
            span = c.low if c.low == c.high else f"{c.low}-{c.high}"
            yield f"- {c.method}: {span}{c.unit} {c.quantity} ({c.source})"
        yield ""


def _of(file: str, column: str, wanted: Collection[str]) -> pd.DataFrame:
    """The lines of a file of published figures that speak of what is wanted, as texts."""
    table = pd.read_csv(FOLDER / f"{file}.csv", dtype=str, keep_default_na=False)
    return table[table[column].isin(wanted)].copy()


def _markdown(table: pd.DataFrame) -> str:
    return table.to_markdown(index=False, disable_numparse=True) + "\n"
