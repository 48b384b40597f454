"""Commands about what is kept: runs, clean, export."""

import shlex
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional

from snp.cli.options import AtScale, DryRun, OneSeed, Workers, app, run_them, shortened
from snp.errors import InputError
from snp.experiment.labels import find
from snp.flags import Named
from snp.launch.cleaning import Kind
from snp.runs.inventory import EXPORTS
from snp.runs.store import Store


@app.command
def runs(out: Annotated[Named | None, tyro.conf.arg(help="one folder of runs, with each of them")] = None) -> None:
    """List the folders of runs with what they hold and how large they are; with --out every run of one of them."""
    from pandas import DataFrame
    from rich.filesize import decimal

    from snp.report.fitted import fitted, width
    from snp.runs import inventory
    from snp.runs.present import label_of

    if out is not None and not out.is_dir():
        raise InputError(f"--out {out}", "no such folder", "`snp runs` lists those that are there")
    found = {root: there for root in inventory.roots(out) if (there := [*inventory.held(root)])}
    if not found:
        raise InputError(out or Path().resolve(), "holds no runs", "`snp run` makes some")
    if out is None:
        lines = [
            {
                "folder": shortened(root),
                "runs": str(len(there)),
                "done": str(sum(one.state == "done" for one in there)),
                "last": f"{max(one.when for one in there):%Y-%m-%d %H:%M}",
                "size": decimal(sum(one.bytes for one in there)),
            }
            for root, there in found.items()
        ]
        every = decimal(sum(one.bytes for there in found.values() for one in there))
        title = f"Folders of runs: {sum(map(len, found.values()))} runs, {every}"
        print(fitted(DataFrame(lines), title, width(), folds=["folder"]), end="")
        print(f"\neach run of one: snp runs --out {shlex.quote(lines[-1]['folder'])}")
    for root, there in found.items() if out is not None else ():
        lines = [
            {"row": label_of(one.run), "seed": str(one.run.seed), "stage": getattr(one.run, "benchmark", one.run.kind),
             "state": one.state, "size": decimal(one.bytes), "when": f"{one.when:%m-%d %H:%M}"}
            for one in there
        ]  # fmt: skip
        states = Counter(one.state for one in there)
        total = decimal(sum(one.bytes for one in there))
        title = f"{shortened(root)}: {', '.join(f'{n} {state}' for state, n in states.items())}; {total}"
        print(fitted(DataFrame(lines), title, width(), folds=["row"]))


@app.command
def clean(
    kind: Annotated[
        tuple[Kind, ...],
        tyro.conf.arg(help="trials, states, data or environments; default: all, one after the other"),
        Positional,
    ] = (),
    yes: Annotated[bool, tyro.conf.arg(help="do not ask; the kinds are to be named")] = False,
    dry_run: Annotated[bool, tyro.conf.arg(help="only list what would be deleted")] = False,
    out: Annotated[Named | None, tyro.conf.arg(help="folder of runs; default: .runs and .reproduce")] = None,
) -> None:
    """List what takes room and can be made again, and delete it, one kind after the other, when you say yes.

    Results stay, and so do runs and data that a process is at.
    """
    from pandas import DataFrame
    from rich.filesize import decimal

    from snp.launch import cleaning
    from snp.report.fitted import fitted, width

    if out is not None and not out.is_dir():
        raise InputError(f"--out {out}", "no such folder", "`snp runs` lists those that are there")
    if yes and not kind:
        raise InputError("--yes", "names no kind", f"say which: {', '.join(cleaning.KINDS)}")
    found = [item for item in cleaning.items(out) if not kind or item.kind in kind]
    totals = []
    for name in kind or cleaning.KINDS:
        sizes = [item.bytes for item in found if item.kind == name]
        totals.append(f"{name}: " + (f"{len(sizes)}, {decimal(sum(sizes))}" if sizes else cleaning.NONE[name]))
    if not found:
        print("\n".join(["nothing to delete", *(totals if dry_run else [])]))
        return
    lines = [{"what": item.kind, "where": shortened(item.path), "size": decimal(item.bytes)} for item in found]
    print(fitted(DataFrame(lines), "What can be made again:", width(), folds=["where"]))
    if dry_run:
        print("\n".join(totals))
        return
    if not yes and not sys.stdin.isatty():
        raise InputError("snp clean", "asks before it deletes, and there is no terminal", "--yes with the kinds")
    for name, about in cleaning.KINDS.items():
        if not (chosen := [item for item in found if item.kind == name]):
            continue
        total = decimal(sum(item.bytes for item in chosen))
        if not yes and input(f"Delete {len(chosen)} {name}, {total} ({about})? [y/N] ").strip().lower() != "y":
            continue
        deleted = [item for item in chosen if item.delete()]
        print(f"deleted: {decimal(sum(item.bytes for item in deleted))} of {name}")
        for item in chosen:
            if item not in deleted:
                print(f"kept, as a process is at it: {shortened(item.path)}")


@app.command
def export(
    row: Annotated[
        tuple[str, ...],
        tyro.conf.arg(help="labels, as scenes/snp@60; default: the rows whose models are committed"),
        Positional,
    ] = (),
    seed: OneSeed = 0,
    scale: AtScale = "desk",
    out: Annotated[Named, tyro.conf.arg(help="folder of the runs; what is missing is run")] = EXPORTS,
    to: Annotated[Named | None, tyro.conf.arg(help="folder of the models; default: results/models")] = None,
    workers: Workers = 2,
    dry_run: DryRun = False,
) -> None:
    """Compress models, and write them small, in half precision where the score stays: to commit, or to pass on."""
    from snp.launch.runner import run_rows
    from snp.training.export import COMMITTED, models
    from snp.training.export import export as write

    store = Store(out, base=Store.at(scale))
    chosen = [find(label, scale).model_copy(update={"benchmarks": ()}) for label in row or COMMITTED]
    if dry_run:
        return run_them(chosen, (seed,), store, workers, dry_run)
    run_rows(chosen, (seed,), store, workers=workers)
    for one in chosen:
        print(write(one.compress(seed), store, Store(to) if to else models()))
