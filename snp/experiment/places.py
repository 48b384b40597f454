"""Where data are, what a user's own are called, and what a trial is: what results and their folders are named by."""

import os
import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError

from snp.checkout import home
from snp.data.drawn import folder
from snp.errors import InputError
from snp.experiment.explained import explain
from snp.experiment.spec import DRAWN, OWN_NAME, Data, Scale, is_own
from snp.models.named import TEXT, VISION


def data_home() -> Path:
    """The folder of all data that are made: `$SNP_DATA`, or `.data` of this repository, or of the working folder."""
    return Path(os.environ.get("SNP_DATA") or home() / ".data")


def data_folder(scale: Scale, data: Data) -> Path:
    """Where the data of a scale are, or will be."""
    return data_home() / f"{data}-{scale}"


def own_name(root: Path) -> Data:
    """The name of a user's own data set: that of its dataset.json, `{"name": ...}`, or else of its folder.

    Raises:
        InputError: no folder, one that was made here, or a name that cannot stand in results.
    """
    if not root.is_dir():
        raise InputError(f"--data {root}", "is no data set and no folder", f"name {', '.join(DRAWN)}, or a folder")
    if folder.ours(root):
        raise InputError(f"--data {root}", "was made by snp, and is no data set of your own", "leave --data out")
    name = (folder.about(root) or {}).get("name", root.resolve().name)
    if not isinstance(name, str) or not re.fullmatch(OWN_NAME, name) or not is_own(name):
        problem = f"its name {name!r} cannot stand in results: letters, numbers, _ and -, and none of a known data set"
        raise InputError(f"--data {root}", problem, f'write {{"name": "mine"}} into {root / folder.ABOUT}')
    return name


class Trial(BaseModel):
    """That phases are cut short, to see that they run: what comes of it says nothing, and counts nowhere."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: PositiveInt
    batch: PositiveInt | None = None
    shortest: PositiveInt | None = None

    @property
    def name(self) -> str:
        """Of the folder that holds its runs, as `trial-steps2-batch1`: equal trials go on, others do not meet."""
        others = (f"-{name}{value}" for name in ("batch", "shortest") if (value := getattr(self, name)))
        return f"trial-steps{self.steps}" + "".join(others)

    @classmethod
    def from_json(cls, value: Any, where: object) -> "Trial | None":
        """From its JSON value; None where there is none."""
        try:
            return None if value is None else cls.model_validate(value)
        except ValidationError as error:
            raise explain(error, where) from None


NEEDED = f"--data-root DIR --vision-weights {VISION} --text-weights {TEXT}"
"""What a command of paper scale names beside its rows."""
