"""Results as one page: a file of HTML that works from a disk, asks nobody for anything, and carries all that it shows.

Its tables are drawn by DataTables (as itables brings it), its charts by Vega-Lite (as vl-convert brings it), each
written into the page once. The same values stand beside it as JSON and CSV.
"""

import base64
import gzip
import json
import re
from dataclasses import asdict
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd

from snp.checkout import home
from snp.errors import InputError
from snp.experiment.rows import DENSE, WHOLE
from snp.experiment.spec import Scale
from snp.experiment.tables import TABLES, rows
from snp.files import json_object, write_atomic
from snp.report.board import Line, board
from snp.report.charts import KINDS, PARTS, charts
from snp.report.claims import CLAIMED, claims
from snp.report.frame import Measured, unmeasured
from snp.report.runs import told
from snp.report.statistics import CONFIDENCE, Estimate, points, share
from snp.report.summary import COLUMNS, csv, summary
from snp.runs.store import Store

MADE_BY = "snp report"
SAID = {
    "smoke": "At smoke scale figures mean nothing: the run shows that every step works.",
    "desk": "A desk number is never a paper number: small models, made pictures, two CPU cores.",
    "paper": "Measured at paper scale.",
}


def report(store: Store, scale: Scale, path: str | Path) -> list[Path]:
    """Write the page to `path`, and what it shows beside it as .json and .csv; the three files.

    Raises:
        InputError: `path` is no name of a page; what stands beside it under the same name is not of a report; no result
            at all, or an unreadable one.
    """
    path = Path(path)
    if path.suffix not in (".html", ".htm"):
        raise InputError(path, "is no name of a page", "end it in .html; its .json and .csv are written beside it")
    values, figures = path.with_suffix(".json"), path.with_suffix(".csv")
    for beside in (values, figures):
        if beside.exists() and not _ours(beside):
            raise InputError(
                beside, f"is there already, and not of `{MADE_BY}`", "give the page another name with --html"
            )
    tables = {name: Measured(rows(name, scale), store) for name in TABLES}
    shown = content(tables, store, scale)
    text = _text(shown)
    parts = {
        path: page(shown, text, predictions(store, scale), path.stem),
        values: text + "\n",
        figures: dump(tables),
    }
    return [write_atomic(name, part) for name, part in parts.items()]


def content(tables: dict[str, Measured], store: Store, scale: Scale) -> dict[str, Any]:
    """All that a page shows, as one JSON value: about, lines of the leaderboard, claims, rows, runs.

    Raises:
        InputError: the store holds no result of any table.
    """
    if all(measured.empty for measured in tables.values()):
        raise unmeasured("any table", "table1", store, scale)
    found = {row.label: row for measured in reversed(tables.values()) for row in measured.rows}
    where: dict[str, list[str]] = {}
    for name, measured in tables.items():
        for row in measured.rows:
            where.setdefault(row.label, []).append(name)
    lines = board(tables)
    values = told(where, found, store)
    states = {run["slug"]: run["state"] for row in values["rows"].values() for run in row["runs"]}
    sizes = [line["stored_params"] for line in lines if line["method"] == DENSE and line["stored_params"]]
    return {
        "made_by": MADE_BY,
        "about": {
            "scale": scale,
            "said": SAID[scale],
            "options": store.options(scale),
            "confidence": CONFIDENCE,
            "parameters": int(max(sizes, default=0)),
            "done": sum(state == "done" for state in states.values()),
            "runs": len(states),
        },
        "lines": lines,
        "claims": [
            asdict(claim) for name in CLAIMED if not tables[name].scores.empty for claim in claims(tables[name])
        ],
        **values,
    }


def page(shown: dict[str, Any], text: str, pictures: bytes | None = None, name: str = "report") -> str:
    """The page as HTML.

    Args:
        shown: what `content` gives. text: `shown` as JSON. pictures: predictions side by side, as PNG.
        name: of its file, and of those beside it.
    """
    from jinja2 import Environment, PackageLoader

    environment = Environment(
        loader=PackageLoader("snp.report", "template"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"share": share_of, "points": loss, "millions": lambda n: f"{n / 1e6:.2f}"}
    return environment.get_template("page.html").render(
        **shown,
        kinds={
            kind: {"colour": colour, "mark": mark}
            for kind, (colour, mark) in KINDS.items()
            if any(line["kind"] == kind for line in shown["lines"])
        },
        parts=PARTS,
        all_parameters=WHOLE.of,
        pictures=None if pictures is None else base64.b64encode(pictures).decode(),
        beside={"json": f"{name}.json", "csv": f"{name}.csv"},
        choices=_choices(shown["lines"]),
        packed=base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode(),
        charts=_inert(_text(charts())),
        style=_part("page.css"),
        script=_part("page.js"),
        **libraries(),
    )


def dump(tables: dict[str, Measured]) -> str:
    """Every metric of all tables as CSV: the name of a table, then the columns of `snp table --format csv`."""
    frames = [summary(measured).assign(table=name) for name, measured in tables.items()]
    return csv(pd.concat(frames, ignore_index=True)[["table", *COLUMNS]])


def predictions(store: Store, scale: Scale) -> bytes | None:
    """The committed picture of predictions, where the results are the committed ones."""
    path = home() / "results" / "figures" / "predictions.png"
    committed = scale == "desk" and store.root == Store.at("desk").root
    return path.read_bytes() if committed and path.is_file() else None


@cache
def libraries() -> dict[str, str]:
    """The code of the libraries that draw the page, whole: nothing is loaded when it is read."""
    import altair
    import vl_convert

    version = ".".join(altair.VEGALITE_VERSION.split(".")[:2])
    tables = resources.files("itables") / "html"
    return {
        "datatables": _inert((tables / "dt_bundle.js").read_text(encoding="utf-8")),
        "datatables_style": (tables / "dt_bundle.css").read_text(encoding="utf-8"),
        "vega": _inert(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed", vl_version=version)),
    }


def loss(line: Line) -> str:
    """`-2.2 [-3.5, -0.8]`, as the tables have it; empty where there is nothing to compare."""
    if line["delta"] is None:
        return ""
    several = line["delta_low"] is not None
    low, high = (line["delta_low"], line["delta_high"]) if several else (0.0, 0.0)
    return points(Estimate(line["delta"], 0.0, low, high, 2 if several else 1))


def share_of(value: float | None) -> str:
    """A share as per cent, as the tables have it."""
    return share(float("nan") if value is None else value)


def _choices(lines: list[Line]) -> dict[str, list[str]]:
    """What each filter offers, in the order of the tables; sizes by number."""
    offered = {
        name: list(dict.fromkeys(line[name] for line in lines if line[name]))
        for name in ("data", "title", "phase", "kind", "group")
    }
    sizes = [group for group in offered["group"] if group.endswith("%")]
    offered["group"] = sorted(sizes, key=lambda group: float(group.rstrip("%"))) + [
        group for group in offered["group"] if group not in sizes
    ]
    return offered


def _ours(path: Path) -> bool:
    """Whether a file is what an earlier report left."""
    content = path.read_bytes()
    if path.suffix == ".json":
        return json_object(content).get("made_by") == MADE_BY
    return content.startswith(f"table,{COLUMNS[0]},{COLUMNS[1]},".encode())


def _text(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _inert(text: str) -> str:
    """Code or JSON that cannot end the element that it stands in."""
    return re.sub(r"<(?=/script|!--)", r"\\u003c", text, flags=re.IGNORECASE)


def _part(name: str) -> str:
    return (resources.files("snp.report") / "template" / name).read_text(encoding="utf-8")
