"""The command `snp data`."""

import sys
from pathlib import Path
from typing import Annotated, Literal, get_args

import tyro
from tyro.conf import Positional

from snp.cli.options import AtScale, Published, Workers, app, new_file
from snp.errors import InputError
from snp.experiment.places import data_folder, own_name
from snp.experiment.spec import MADE, Scale
from snp.flags import Named


@app.command
def data(
    action: Annotated[Literal["make", "show", "check"], tyro.conf.arg(help="what to do"), Positional],
    name: Annotated[
        str, tyro.conf.arg(help="check: a published benchmark, or the folder of your own; else drawn data"), Positional
    ],
    scale: AtScale = "desk",
    root: Annotated[Named | None, tyro.conf.arg(help="folder of the data; default: .data/<name>-<scale>")] = None,
    source: Annotated[Named | None, tyro.conf.arg(help="stamps, photographs: folder of the cut-outs")] = None,
    png: Annotated[Named | None, tyro.conf.arg(help="show: the page to write; default: <name>.png")] = None,
    data_root: Annotated[Named | None, tyro.conf.arg(help="check: folder of annotations and pictures")] = None,
    decode: Annotated[bool, tyro.conf.arg(help="check: only see that pictures are there, do not read them")] = True,
    workers: Workers = 2,
) -> None:
    """Make a data set from its seed, show its samples, or check the folder of a published benchmark or of your own."""
    if action == "check" and Path(name).is_dir():
        name, data_root = "own", data_root or Path(name)
    known = (*get_args(Published), "own") if action == "check" else MADE
    if name not in known:
        hint = f"choose one of {', '.join(known)}" + (", or name a folder of your own" if action == "check" else "")
        raise InputError(f"snp data {action} {name}", "no such data", hint)
    unheeded = {
        "--root": action == "check" and root,
        "--data-root": action != "check" and data_root,
        "--png": action != "show" and png,
        "--source": name not in ("stamps", "photographs") and source,
    }
    if ignored := [option for option, given in unheeded.items() if given]:
        raise InputError(ignored[0], f"is not an option of `snp data {action} {name}`", "leave it out")
    if action == "check":
        _check(name, data_root, decode, scale)
        return
    page = (png or new_file(f"{name}.png")) if action == "show" else None
    from snp.training import made

    options = {} if source is None else {"source": source}
    root = made.ready(root or data_folder(scale, name), scale, name, workers, **options)
    if page is None:
        print(root)
        return
    from snp.data.show import sample_page

    print(sample_page(root, page))


def _check(name: str, root: Path | None, decode: bool, scale: Scale) -> None:
    """Print the report on a folder; exit code 2 where it has an error."""
    from snp.data.sources.check import NEEDS, check
    from snp.data.sources.findings import report
    from snp.training.prepare import limits

    if root is None:
        raise InputError("--data-root", "missing", f"the folder that holds {NEEDS[name]}")
    about = f"{own_name(root)}, as runs at scale {scale} read it:\n" if name == "own" and root.is_dir() else ""
    findings = check(name, root, decode, **(limits(scale) if name == "own" else {}))
    print(about, end="")
    print(report(findings))
    if any(finding.level == "error" for finding in findings):
        sys.exit(2)
