"""Keeps the tables of README and docs equal to the results: each stands between two comments and is written anew."""

import re
from pathlib import Path

from snp.errors import InputError
from snp.experiment.tables import rows
from snp.files import read_text, write_atomic
from snp.report import deviations, scaling
from snp.report.claims import CLAIMED, claims_markdown
from snp.report.costs import costs
from snp.report.figures import limits
from snp.report.frame import Measured, unmeasured
from snp.report.headline import headline
from snp.report.table import brief, markdown, table
from snp.runs.store import Store

_EXAMPLE = "`<!-- begin table1 scenes -->` and, below it, `<!-- end -->`"
_PART = re.compile(r"(<!-- begin ([\w ]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def rendered(text: str, store: Store, where: object = "README.md") -> str:
    """`text` with every part between its comments replaced by what the results in `store` say now.

    Parts: `table1 scenes` (all there is of a table), `brief table1b scenes` (its main tables alone), `headline table1
    scenes` (a line for each of a few methods), `limits figure1 scenes` (how far curves reach), `claims`, `costs` (of
    running tables anew), `scaling` (of the model of costs, from results/bench), `deviations` (of paper scale from its
    sources).

    Raises:
        InputError: no part at all, one that does not end or is unknown, or no results for it.
    """
    begun, whole = text.count("<!-- begin "), len(_PART.findall(text))
    if begun == 0 or begun > whole:
        problem = "has a part that does not end, or without a plain name" if begun else "has no part to render"
        raise InputError(where, problem, f"write {_EXAMPLE}")

    def part(match: re.Match[str]) -> str:
        match match[2].split():
            case ["claims"]:
                tables = [Measured(rows(name, "desk"), store) for name in CLAIMED]
                if not (seen := [measured for measured in tables if not measured.scores.empty]):
                    raise unmeasured(", ".join(CLAIMED), CLAIMED[0], store, "desk")
                content = claims_markdown(*seen)
            case ["costs"]:
                content = costs(store)
            case ["deviations"]:
                content = deviations.markdown()
            case ["scaling"]:
                content = scaling.markdown(scaling.MEASURED)
            case ["brief", name, data]:
                content = brief(name, store, "desk", data)
            case ["headline", name, data]:
                content = headline(name, store, "desk", data)
            case ["limits", name, data]:
                content = markdown(limits(name, store, "desk", data))
            case [name, data]:
                content = table(name, store, "desk", data, "markdown")
            case _:
                raise InputError(f"{where}: begin {match[2]}", "is no part", "write `begin table1 scenes`")
        return f"{match[1]}{content}{match[3]}"

    return _PART.sub(part, text)


def pages(folder: Path) -> list[Path]:
    """The pages of a checkout that have parts to render: README files and docs."""
    found = [folder / "README.md", folder / "slurm" / "README.md", *sorted((folder / "docs").glob("*.md"))]
    return [path for path in found if path.is_file() and "<!-- begin " in read_text(path)]


def update(path: Path, store: Store) -> bool:
    """Write the tables of `path` anew; whether anything changed."""
    before = read_text(path)
    after = rendered(before, store, path)
    if after != before:
        write_atomic(path, after)
    return after != before
