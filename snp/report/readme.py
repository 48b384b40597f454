"""Keeps the tables of README.md equal to the results: each stands between two comments and is written anew."""

import re
from pathlib import Path

from snp.errors import InputError
from snp.experiment.store import Store
from snp.experiment.tables import rows
from snp.files import write_atomic
from snp.report import deviations, scaling
from snp.report.claims import claims_markdown
from snp.report.figures import limits
from snp.report.frame import Measured
from snp.report.table import brief, markdown, table

CLAIMED = ("table1", "table2", "table3", "table4")
_PART = re.compile(r"(<!-- begin ([\w ]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def rendered(text: str, store: Store) -> str:
    """`text` with every part between its comments replaced by what the results in `store` say now.

    Parts: `table1 scenes` (all there is of a table), `brief table1b scenes` (its main tables alone), `limits figure1
    scenes` (how far curves reach), `claims`, `scaling` (of the model of costs, from results/bench),
    `deviations` (of paper scale from its sources).
    """

    def part(match: re.Match[str]) -> str:
        match match[2].split():
            case ["claims"]:
                tables = [Measured(rows(name, "desk"), store) for name in CLAIMED]
                content = claims_markdown(*(measured for measured in tables if not measured.scores.empty))
            case ["deviations"]:
                content = deviations.markdown()
            case ["scaling"]:
                content = scaling.markdown(scaling.MEASURED)
            case ["brief", name, data]:
                content = brief(name, store, "desk", data)
            case ["limits", name, data]:
                content = markdown(limits(name, store, "desk", data))
            case [name, data]:
                content = table(name, store, "desk", data, "markdown")
            case _:
                raise InputError(f"README.md: begin {match[2]}", "is no part", "write `begin table1 scenes`")
        return f"{match[1]}{content}{match[3]}"

    return _PART.sub(part, text)


def update(path: Path, store: Store) -> bool:
    """Write the tables of `path` anew; whether anything changed."""
    before = path.read_text()
    after = rendered(before, store)
    if after != before:
        write_atomic(path, after)
    return after != before
