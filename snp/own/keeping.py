"""The folder that a compressed model is written in: whose it is, what is written, and the Python that loads it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from snp.compression import checkpoint, state
from snp.compression.plan import Plan
from snp.errors import InputError
from snp.files import read_json, write_json
from snp.own.origin import Origin

MARK = "compress.json"
"""What was asked for; written before anything else, so that the folder is known as one that was made here."""


def begin(folder: Path, asked: Mapping[str, Any]) -> dict[str, Any] | None:
    """Make the folder one's own. Where the same was asked for before and is done, what was found.

    Raises:
        InputError: it holds what was not made here, or what was asked for otherwise; names the first that differs.
    """
    before = look(folder)
    if before is None or [path.name for path in folder.iterdir()] == [MARK]:  # nothing came of it
        write_json(folder / MARK, asked)
        return None
    for name in [*asked, *(before.keys() - asked.keys())]:
        if before.get(name) != asked.get(name):
            problem = f"holds another compression: {name} was {before.get(name)}, now {asked.get(name)}"
            raise InputError(folder, problem, "name another folder, or delete it")
    return checkpoint.read_extra(folder) if (folder / checkpoint.WEIGHTS).exists() else None  # type: ignore[no-any-return]


def look(folder: Path) -> dict[str, Any] | None:
    """What was asked for in a folder that was made here; None where it is empty, or not there.

    Raises:
        InputError: it holds what was not made here.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--out {folder}", "is no folder", "name a new one")
    if (folder / MARK).is_file():
        found = read_json(folder / MARK)
        return found if isinstance(found, dict) else {}
    if folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"--out {folder}", "is not empty, and was not made by this command", "name a new folder")
    return None


def keep(folder: Path, model: nn.Module, plan: Plan, towers: dict[str, str], facts: Mapping[str, Any]) -> None:
    """Write the compressed model, and what was found of it; the state of its recovery is needed no more."""
    checkpoint.save(folder, model, plan, extra=facts, paths=towers)
    (folder / state.FILE).unlink(missing_ok=True)


def lines(folder: Path, origin: Origin) -> list[str]:
    """The Python that loads it."""
    imports, build = origin.code()
    load = "from snp.compression.checkpoint import load"
    return [imports, load, f"model, plan = load({str(folder)!r}, lambda: {build})".replace("'", '"')]
