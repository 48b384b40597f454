"""The code, frozen: a copy of the packages that jobs run from, so that the checkout may move on while they wait."""

import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from snp.checkout import CODE
from snp.files import write_json
from snp.runs.manifest import STATE_FILE, code_state

PACKAGES = ("snp", "baselines")
"""All that a run imports of a checkout, changes and new files included."""


def freeze(folder: Path, copy: bool = True) -> Path:
    """The snapshot of this code below `folder`, named by its content: equal code is copied once.

    Args:
        copy: False: only say where it would be.
    """
    digest = hashlib.sha256(str(code_state()).encode())
    for path in _files():
        digest.update(f"{path.relative_to(CODE)}\0".encode() + path.read_bytes() + b"\0")
    snapshot = folder / digest.hexdigest()[:12]
    if not copy or snapshot.exists():
        return snapshot
    folder.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=folder, prefix=f".{snapshot.name}."))
    try:
        part.chmod(0o755)
        for path in _files():
            target = part / path.relative_to(CODE)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        write_json(part / STATE_FILE, code_state())
        os.rename(part, snapshot)
    except BaseException as error:
        shutil.rmtree(part)
        if not (isinstance(error, OSError) and snapshot.exists()):  # another launch was first
            raise
    return snapshot


def _files() -> Iterator[Path]:
    for package in PACKAGES:
        for path in sorted((CODE / package).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                yield path


if __name__ == "__main__":  # of slurm/start.sh
    print(freeze(Path(sys.argv[1])).resolve())
