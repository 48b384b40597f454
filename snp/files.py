"""Files that are whole or absent: write beside, fsync, rename; and JSON reading with clear errors."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from snp.errors import InputError


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary file beside `path`, to be written; then it is on the disk and takes its place, or it is gone."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_atomic(path: str | Path, data: bytes | str) -> Path:
    """Write `data` so that `path` holds either its old content or all of the new one, also after a power cut."""
    with replacing(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)
    return Path(path)


def write_json(path: str | Path, value: Any, indent: int | None = 2) -> Path:
    """Write `value` as JSON with sorted keys, atomically: equal values give equal bytes."""
    return write_atomic(path, json.dumps(value, indent=indent, sort_keys=True) + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file; an InputError names the file when it is missing or cut."""
    try:
        return json.loads(Path(path).read_text())
    except FileNotFoundError:
        raise InputError(path, "file not found") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(path, f"not valid JSON: {error}", "delete it or write it again") from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
