"""Files that are whole or absent: write beside, fsync, rename; JSON with clear errors; and work that one does alone."""

import errno
import fcntl
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from snp.errors import InputError

PART = ".part"
"""How the names of files end that are being written."""
_NO_ROOM = 1 << 16
"""Bytes left on a disk that is full: its last blocks are too few for what was to be written."""


@contextmanager
def replacing(path: str | Path, previous: Path | None = None) -> Iterator[Path]:
    """A temporary file beside `path`, to be written; then it is on the disk and takes its place, or it is gone.

    With `previous` the file that was there before is kept under that name.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PART)
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

    Raises:
        InputError: the file cannot be locked, as on a file system without locks; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        try:
            # what a link leads to may be anybody's
            number = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise InputError(path, "is a link, where a lock shall be", "move it away") from None
            raise
        file = os.fdopen(number, "a+b")  # held open: it is the lock
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            with file:
                if error.errno in (errno.EAGAIN, errno.EACCES):
                    yield _about(file)
                    return
                if not file.tell():  # nobody wrote in it: it is new
                    path.unlink(missing_ok=True)
                hint = "use a folder on a file system with locks: Lustre mounted with -o flock, NFS without nolock"
                raise InputError(path, f"cannot be locked: {error.strerror}", hint) from error
        if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
            break
        file.close()  # the one before has removed it in the meantime
    with file:
        file.truncate(0)
        file.write(json.dumps(about).encode())
        file.flush()
        try:
            yield None
        finally:
            with suppress(OSError):  # the folder may be read-only by now, or gone
                path.unlink()


def _about(file: Any) -> dict[str, Any]:
    file.seek(0)
    return json_object(file.read())


def json_object(data: bytes) -> dict[str, Any]:
    """What a JSON object holds; nothing where it is another value, half written, or no JSON at all."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def write_atomic(path: str | Path, data: bytes | str) -> Path:
    """Write `data` so that `path` holds either its old content or all of the new one, also after a power cut."""
    with replacing(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)
    return Path(path)


def write_json(path: str | Path, value: Any, indent: int | None = 2) -> Path:
    """Write `value` as JSON with sorted keys, atomically: equal values give equal bytes.

    Raises:
        InputError: a number in it is not finite, which JSON cannot say; the file stays as it was.
    """
    if (field := not_finite(value)) is not None:
        raise InputError(f"{path}: {field}", "is not finite (nan or infinite)", "nothing was written")
    return write_atomic(path, json.dumps(value, indent=indent, sort_keys=True, allow_nan=False) + "\n")


def not_finite(value: Any) -> str | None:
    """Where in a JSON value the first number stands that is not finite, as ``metrics.splits.val``; else None."""
    if isinstance(value, float):
        return None if math.isfinite(value) else ""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    for name, item in items:
        if (below := not_finite(item)) is not None:
            return f"{name}.{below}".rstrip(".")
    return None


def read_text(path: str | Path, hint: str = "") -> str:
    """The text of a file in UTF-8, with or without a byte order mark.

    Raises:
        InputError: it is missing, cannot be read, or is in another encoding.
    """
    try:
        return Path(path).read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise InputError(path, "file not found", hint) from None
    except OSError as error:
        raise InputError(path, f"cannot be read: {error.strerror}", hint) from None
    except UnicodeDecodeError as error:
        raise InputError(path, f"is not UTF-8: {error}", hint or "write it in UTF-8") from None


def read_json(path: str | Path) -> Any:
    """Read a JSON file, UTF-8 with or without a byte order mark; an InputError names one that cannot be read."""
    try:
        return json.loads(Path(path).read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        raise InputError(path, "file not found") from None
    except OSError as error:
        raise InputError(path, f"cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # no JSON, no text, a number or brackets without end
        raise InputError(path, f"not valid JSON: {error}", "delete it or write it again") from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
