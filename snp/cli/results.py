"""Commands that show results: table, compare, claims, figure, report, curve, readme."""

from importlib import import_module
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional

from snp.cli.options import (
    SETS,
    Format,
    OfResults,
    OneData,
    OneSeed,
    Results,
    app,
    known_data,
    new_file,
    rows_of_labels,
)
from snp.errors import InputError
from snp.experiment.tables import TABLES, select
from snp.files import read_text
from snp.flags import Named
from snp.runs.present import present
from snp.runs.progress import own_runs
from snp.runs.result import run_of
from snp.runs.store import Store

OF_TABLES = ("frontier", "shots", "heads", "noise")
"""Figures of tables whose rows have no sizes, by the module that draws each."""


@app.command
def table(
    table: Annotated[
        tuple[str, ...],
        tyro.conf.arg(help="one table, as table1, or labels of rows; none: all runs that are in --out"),
        Positional,
    ] = (),
    data: OneData = None,
    format: Annotated[Format, tyro.conf.arg(help="text is fitted to the terminal, the others hold all of it")] = "text",
    asked: OfResults = Results(),
) -> None:
    """Print a table from results alone: fitted to the terminal, or in a format that holds all of it."""
    from snp.report.frame import Measured, unmeasured
    from snp.report.table import render
    from snp.report.table import table as of_table

    scale, store = asked.found
    if len(table) == 1 and table[0] in TABLES:
        print(of_table(table[0], store, scale, known_data(data, store), format), end="")
        return
    if not table and asked.out is None:
        raise InputError("snp table", "names no table", f"one of {', '.join(TABLES)}; or --out: all runs in a folder")
    wanted = rows_of_labels(table, scale, store) if table else present(store)
    name = known_data(data, store)
    chosen = [row for row in wanted if name in (None, row.data)]
    if (measured := Measured(chosen, store)).empty:
        raise unmeasured(", ".join(table) or "any row", table[0] if table else "table1", store, scale)
    print(render(measured, format), end="")


@app.command
def compare(
    row: Annotated[str, tyro.conf.arg(help="label of a row, as scenes/snp@60"), Positional],
    other: Annotated[str, tyro.conf.arg(help="of the row that it is compared with"), Positional],
    asked: OfResults = Results(),
) -> None:
    """Print how two rows differ on every split: in points, paired over the seeds that both have."""
    from snp.report.compare import compare as compared

    scale, store = asked.found
    mine, theirs = rows_of_labels((row, other), scale, store)
    print(compared(mine, theirs, store, scale), end="")


@app.command
def claims(
    table: Annotated[str | None, tyro.conf.arg(help="which table's rows; default: all"), Positional] = None,
    asked: OfResults = Results(),
) -> None:
    """Print each claim of the paper that the rows can test: measured value, interval, verdict."""
    from snp.report.claims import claims_table

    scale, store = asked.found
    print(claims_table(table, store, scale, terminal=True), end="")


@app.command
def figure(
    name: Annotated[
        str,
        tyro.conf.arg(help=f"method, figure1, {', '.join(OF_TABLES)}, tickets, scaling, or a table that is drawn"),
        Positional,
    ],
    png: Annotated[Named | None, tyro.conf.arg(help="file to write; default: <name>.png")] = None,
    data: Annotated[str | None, tyro.conf.arg(help=f"{SETS}; default: the first of the rows")] = None,
    asked: OfResults = Results(),
) -> None:
    """Draw a figure from results alone, and print how far each of its curves reaches without loss."""
    from snp.report.figures import figure as draw
    from snp.report.figures import limits
    from snp.report.table import markdown

    if name == "method":
        print(import_module("snp.report.method").picture(png or new_file("method.png")))
        return
    if name == "scaling":
        if asked != Results() or data:
            raise InputError("--scale, --data, --out", "are not of this figure", "it is of results/bench/scaling.json")
        scaling = import_module("snp.report.scaling")
        print(scaling.figure(scaling.MEASURED, png or new_file("scaling.png")))
        return
    scale, store = asked.found
    if name in OF_TABLES:
        if data:
            raise InputError("--data", "is not of this figure, which has one set of data", "leave it out")
        own = import_module(f"snp.report.{name}")
        print(own.figure(store, scale, png or new_file(f"{name}.png")))
        print(f"\n{markdown(own.told(own.points(store, scale)))}", end="")
        return
    data = known_data(data, store) or select(name, scale)[0].data
    print(draw(name, store, scale, data, png or new_file(f"{name}.png")))
    print(f"\n{markdown(limits(name, store, scale, data))}", end="")


@app.command
def report(
    html: Annotated[Named | None, tyro.conf.arg(help="page to write; default: report.html")] = None,
    asked: OfResults = Results(),
) -> None:
    """Write all results as one page for a browser, which needs no network; beside it, the same as JSON and CSV."""
    from snp.report.page import report as write

    scale, store = asked.found
    page = html or new_file("report.html", "--html")
    for path in write(store, scale, page):
        print(path)
    print(f"\nopen {page} in a browser")


@app.command
def curve(
    run: Annotated[str, tyro.conf.arg(help="label of a row, as scenes/snp@60, or the folder of a run"), Positional],
    seed: OneSeed = 0,
    png: Annotated[Named | None, tyro.conf.arg(help="draw the curves too, in this file")] = None,
    asked: OfResults = Results(),
) -> None:
    """Print the learning curves of a run, or of a row's compression and fine-tunings: every series over the steps."""
    from snp.report.curve import picture, told

    scale, store = asked.found
    folder = next((path for path in (Path(run), store.root / run) if path.is_dir()), None)
    if folder is None:
        (row,) = rows_of_labels([run], scale, store)
        chosen = own_runs(row, seed)
    elif (one := run_of(folder)) is None:
        raise InputError(folder, "is no folder of a run", "name one, as `snp runs --out FOLDER` lists them, or a label")
    else:
        chosen, store = [one], Store(folder.parent)
    curves, text = told(chosen, store)
    print(text, end="")
    if png:
        print(f"\n{picture(curves, png)}")


@app.command
def readme(
    page: Annotated[
        tuple[Named, ...], tyro.conf.arg(help="default: README.md, slurm/README.md and docs/*.md"), Positional
    ] = (),
    check: Annotated[bool, tyro.conf.arg(help="only say which are stale")] = False,
) -> None:
    """Write the tables of README and docs anew from the committed results."""
    from snp.report.readme import pages, rendered, update

    store = Store.at("desk")
    chosen = page or pages(Path())
    if not chosen:
        raise InputError(Path().resolve(), "holds no page with a part to render", "name one, as README.md")
    stale = [path for path in chosen if rendered(text := read_text(path), store, path) != text] if check else []
    if stale:
        raise InputError(", ".join(map(str, stale)), "not what the results say", "run `snp readme`")
    for path in () if check else chosen:
        print(f"{path}: {'rewritten' if update(path, store) else 'up to date'}")
