"""Folders of data sets that are made here: what tells them, what is made in them, and by one process at a time."""

import fcntl
import hashlib
import json
import os
import re
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from snp.data.drawn.pictures import SPLITS
from snp.errors import InputError
from snp.files import alone, json_object, read_json

ABOUT = "dataset.json"
"""Says what a data set is; written last, so that a folder without it was interrupted and is made again."""
MARK = "made-by-snp"
"""Written before anything else: the folder is this program's own."""
LOCK = ".making"
NAMES = {
    **{f"images/{split}": r"\d{6,}\.png" for split in SPLITS},
    "annotations": r"(regions_train|final_mixed_(train|val)|finetune_refcoco[+g]?_(train|val|test[AB]?))\.json",
    "gqa": r"((train|val|testdev)_(balanced_questions|sceneGraphs)|gqa_answer2id(_by_type)?)\.json",
    "flickr30k": r"(train|val|test)\.txt",
    "flickr30k/Sentences": r"\d+\.txt",
    "flickr30k/Annotations": r"\d+\.xml",
    "coco/annotations": r"instances_(train|val)2017\.json",
    "no-target": r"(train|val|testA|pairs_train|about)\.json",
    "cache": r"vocabulary-[0-9a-f]{12}(-\d+)?\.json|[\w+-]+-[0-9a-f]{12}\.(npy|safetensors)",
}
"""Folder -> the names of all files that are made in it; nothing else is ever replaced or removed."""
_WHOLE = {"name", "version", "seed", "pictures", "annotations_sha256", "pixels_sha256"}
_POLL = 0.5  # seconds


def about(root: Path) -> dict[str, Any] | None:
    """What a folder says of the data set in it; None where it says nothing.

    Raises:
        InputError: it cannot be read.
    """
    path = root / ABOUT
    if not path.is_file():
        return None
    found = read_json(path)
    if not isinstance(found, dict):
        raise InputError(path, "does not describe a data set", "choose another folder")
    return found


def said(root: Path, key: str) -> Any:
    """One thing that a whole data set says of itself.

    Raises:
        InputError: no whole data set is there, or one of the time before this was said.
    """
    found = about(root)
    if found is None:
        raise InputError(root, "holds no complete data set", "make it with `snp data make`")
    if key not in found:
        raise InputError(f"{root / ABOUT}: {key}", "missing", "make it again with `snp data make`")
    return found[key]


def ours(root: Path) -> bool:
    """Whether a folder was made here; one of the time before the mark is told by a whole description."""
    try:
        return (root / MARK).exists() or (about(root) or {}).keys() >= _WHOLE
    except (InputError, OSError):
        return False


@contextmanager
def making(root: Path) -> Iterator[bool]:
    """Until its end this process alone makes the data set; others wait. Yields whether it had to wait for another.

    Raises:
        InputError: the folder holds something else, or cannot be written.
    """
    _own(root)
    _no_users_file(root / LOCK)
    waited = False
    while True:
        with alone(root / LOCK, {"host": socket.gethostname(), "process": os.getpid()}) as other:
            if other is None:
                yield waited
                return
        if not waited:
            who = ", ".join(f"{name} {value}" for name, value in other.items())
            print(f"snp: {root} is being made ({who or 'just begun'}); waiting", file=sys.stderr)
        waited = True
        time.sleep(_POLL)


def _no_users_file(lock: Path) -> None:
    """Whether what stands where the lock shall be is a lock, or nothing."""
    if lock.is_symlink() or (lock.is_file() and (text := lock.read_bytes()) and not json_object(text)):
        raise InputError(lock, "was not made by snp", "move it away")


def clear(root: Path) -> None:
    """Remove what was made in a folder of ours, and nothing else.

    Raises:
        InputError: one of its folders is a link, or none.
    """
    for name in NAMES:
        for folder in (root / name, (root / name).parent):
            if folder != root and (folder.is_symlink() or (folder.exists() and not folder.is_dir())):
                raise InputError(folder, "is a link, or no folder: it was not made by snp", "move it away")
    (root / ABOUT).unlink(missing_ok=True)
    for name, files in NAMES.items():
        for path in (root / name).glob("*"):
            if re.fullmatch(files, path.name) and not path.is_dir():
                path.unlink()


@contextmanager
def reading(root: Path) -> Iterator[None]:
    """Until its end nobody removes the data set, from whatever working folder."""
    with _held(root, fcntl.LOCK_SH):
        yield


@contextmanager
def _held(root: Path, how: int) -> Iterator[bool]:
    """Whether this process may have the mark until its end, alone or with others; also where nothing can be locked."""
    with ExitStack() as stack:
        free = True
        try:
            fcntl.flock(stack.enter_context(open(root / MARK, "rb")), how | fcntl.LOCK_NB)
        except BlockingIOError:
            free = False
        except OSError:
            pass
        yield free


def remove(root: Path) -> bool:
    """Remove a data set of ours, and the folders that are empty then; False where a process makes or reads it now.

    Raises:
        InputError: one of its folders is a link, or none.
    """
    _no_users_file(root / LOCK)
    with alone(root / LOCK, {"host": socket.gethostname(), "process": os.getpid()}) as other:
        if other is not None:
            return False
        with _held(root, fcntl.LOCK_EX) as unread:
            if not unread:
                return False
            clear(root)
            (root / MARK).unlink(missing_ok=True)
    inner = {root / name for name in NAMES} | {(root / name).parent for name in NAMES}
    for folder in sorted(inner, key=lambda folder: len(folder.parts), reverse=True):
        with suppress(OSError):  # it holds something else, or was never made
            folder.rmdir()
    return True


def _own(root: Path) -> None:
    """Mark a folder as this program's own, before anything else is written there."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        there = {path.name for path in root.iterdir()}
        if there and MARK not in there and not ours(root):
            problem = f"holds {min(there)}, and holds no data set that was made by snp"
            raise InputError(root, problem, "choose a new folder")
        (root / MARK).touch()
    except OSError as error:
        problem = "is no folder" if root.exists() and not root.is_dir() else f"cannot be written: {error.strerror}"
        raise InputError(root, problem, "choose another folder") from None


def data_hash(root: str | Path) -> str:
    """sha256 of the pixels, captions and boxes in `root`: of all that grounding is trained on and tested with.

    Raises:
        InputError: no complete data set is there.
    """
    return _hash(root, "annotations_sha256", "pixels_sha256")


def tasks_hash(root: str | Path) -> str:
    """sha256 of the pixels in `root` and of the files of the other tasks: questions, phrases, detection.

    Raises:
        InputError: no complete data set is there, or one of the time before these tasks.
    """
    return _hash(root, "pixels_sha256", "tasks_sha256")


def _hash(root: str | Path, *parts: str) -> str:
    hashes = [said(Path(root), name) for name in parts]
    return hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()
