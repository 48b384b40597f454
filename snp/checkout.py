"""Where results and data are unless a folder is given: in the checkout that this code is of, else where one works."""

from pathlib import Path

CODE = Path(__file__).resolve().parents[1]
"""The folder of the packages."""


def checkout() -> Path | None:
    """The repository that this code is part of; None where it was installed by itself, as from a wheel."""
    return CODE if (CODE / "pyproject.toml").is_file() else None


def home() -> Path:
    """The folder of `results` and `.data`: the checkout, or the working folder."""
    return checkout() or Path()
