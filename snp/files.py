"""Files that are whole or absent: write beside, fsync, rename; JSON with clear errors; and work that one does alone."""

import errno
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from snp.errors import InputError

_NO_ROOM = 1 << 16
"""Bytes left on a disk that is full: its last blocks are too few for what was to be written."""


@contextmanager
def replacing(path: str | Path, previous: Path | None = None) -> Iterator[Path]:
    """A temporary file beside `path`, to be written; then it is on the disk and takes its place, or it is gone.

    With `previous` the file that was there before is kept under that name.
    """
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
        if previous is not None and path.exists():
            os.replace(path, previous)
        os.replace(temporary, path)
    except BaseException as error:
        # libraries that write often hide what the system said
        full = isinstance(error, Exception) and shutil.disk_usage(path.parent).free < _NO_ROOM
        temporary.unlink(missing_ok=True)
        if full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise


@contextmanager
def alone(path: Path, about: dict[str, Any]) -> Iterator[dict[str, Any] | None]:
    """Yields None to the one process that holds the lock of `path` until the end of the block, to others its `about`.

    The file is there while it is held. The system gives the lock back when its process ends, however it ends.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        file = open(path, "a+")  # noqa: SIM115 - held open: it is the lock
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            with file:
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    raise
                yield _about(file)
                return
        if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
            break
        file.close()  # the one before has removed it in the meantime
    with file:
        file.truncate(0)
        file.write(json.dumps(about))
        file.flush()
        try:
            yield None
        finally:
            with suppress(OSError):  # the folder may be read-only by now, or gone
                path.unlink()


def _about(file: Any) -> dict[str, Any]:
    file.seek(0)
    try:
        return dict(json.load(file))
    except ValueError:  # it is being written
        return {}


def write_atomic(path: str | Path, data: bytes | str) -> Path:
    """Write `data` so that `path` holds either its old content or all of the new one, also after a power cut."""
    with replacing(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)
    return Path(path)


def write_json(path: str | Path, value: Any, indent: int | None = 2) -> Path:
    """Write `value` as JSON with sorted keys, atomically: equal values give equal bytes."""
    return write_atomic(path, json.dumps(value, indent=indent, sort_keys=True) + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file, UTF-8 with or without a byte order mark; an InputError names it when it is missing or cut."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise InputError(path, "file not found") from None
    except (IsADirectoryError, NotADirectoryError, PermissionError) as error:
        raise InputError(path, f"cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # no JSON, no text, a number or brackets without end
        raise InputError(path, f"not valid JSON: {error}", "delete it or write it again") from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
