"""The command `snp`: runs, tables, claims, figures and data. Bad input is one line on stderr and exit code 2.

Heavy parts are imported by the command that needs them: rendering a table never loads torch.
"""

import os
import sys
from importlib import import_module
from typing import NoReturn

from snp import __version__
from snp.cli.options import app
from snp.errors import InputError
from snp.flags import CONFIG, registry
from snp.runs.store import hinted
from snp.terminal import lenient
from snp.training import stopping

GROUPS = ("running", "results", "clusters", "own", "models", "methods", "keeping", "data")
"""Modules of commands, in the order that `snp --help` lists them."""
for name in GROUPS:
    import_module(f"snp.cli.{name}")


def main(arguments: list[str] | None = None) -> None:
    """Run one command; the entry point of the console script."""
    lenient()
    if (sys.argv[1:] if arguments is None else arguments) == ["--version"]:
        print(f"snp {__version__}")
        return
    with stopping.ending():
        try:
            about = "Jointly share and prune the weights of vision-language models: runs, tables, figures, data."
            app.cli(prog="snp", description=about, args=arguments, registry=registry, config=CONFIG)
        except InputError as error:
            _refuse(error)
        except BrokenPipeError:  # the reader, as `head`, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except OSError as error:
            if (told := hinted(error)) is None and error.filename is None:
                raise
            _refuse(told or InputError(error.filename2 or error.filename, error.strerror or str(error)))


def _refuse(error: InputError) -> NoReturn:
    print("snp:", " ".join(str(error).split()), file=sys.stderr)
    sys.exit(2)
