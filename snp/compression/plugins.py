"""Methods of others: installed packages that name them as entry points of `snp.methods`, and files of a user's."""

import hashlib
import os
import sys
from collections.abc import Iterable
from functools import cache
from importlib.metadata import entry_points, version
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from snp.errors import InputError

GROUP = "snp.methods"
ENVIRONMENT = "SNP_PLUGINS"
"""Files with methods, as PATH lists folders: whatever process a run is in finds them."""


def use(files: Iterable[Path]) -> None:
    """Take methods from these files too, in this process and in those that it starts."""
    known = _named()
    new = [path.resolve() for path in files]
    os.environ[ENVIRONMENT] = os.pathsep.join(map(str, dict.fromkeys([*known, *new])))


def load() -> dict[str, str]:
    """Import everything that names methods, each once; a module registers its methods when it is imported.

    Returns:
        What was imported, and which version of it: of a package its version, of a file the SHA-256 of its text.

    Raises:
        InputError: a file that is not there or does not run, or a package that cannot be imported.
    """
    found = {}
    for entry in entry_points(group=GROUP):
        try:
            entry.load()
        except Exception as error:
            raise InputError(f"{GROUP}: {entry.value}", _why(error), "mend the package, or remove it") from error
        found[entry.value] = version(entry.dist.name) if entry.dist else ""
    for path in _named():
        found[path.name] = _import(path)
    return found


def _named() -> list[Path]:
    return [Path(text) for text in os.environ.get(ENVIRONMENT, "").split(os.pathsep) if text]


@cache
def _import(path: Path) -> str:
    """Run a file as a module of its own; the hash of its text."""
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(path, error.strerror or str(error), "--plugin names a Python file with a method") from None
    source = spec_from_file_location(f"snp_plugin_{path.stem}_{digest[:8]}", path)
    if source is None or source.loader is None:
        raise InputError(path, "is no Python file", "its name ends with .py")
    module = sys.modules[source.name] = module_from_spec(source)
    try:
        source.loader.exec_module(module)
    except Exception as error:
        del sys.modules[source.name]
        raise InputError(path, f"does not run: {_why(error)}", "mend it") from error
    return digest


def _why(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
