"""What users call the weights of a tower, a file or a library's name of a model; and what tells them apart."""

import hashlib
from functools import cache
from pathlib import Path

from snp.errors import InputError

ENDINGS = (".safetensors", ".pth", ".pt", ".bin")
VISION, TEXT = "deit_base_patch16_224", "ViT-L-14/openai"
"""The names that timm and open_clip have for the towers of the paper."""


def file_of(source: str, option: str) -> Path | None:
    """The file that is meant; None where it is a library's name of a model.

    Raises:
        InputError: a file is meant, and there is none.
    """
    path = Path(source)
    if path.suffix not in ENDINGS and not path.exists():
        return None
    if not path.is_file():
        raise InputError(path, "file not found", f"give a file ({option} FILE) that is there")
    return path


def identity(source: str, option: str) -> str:
    """`sha256:` and the hash of a file, whatever it is called and wherever it lies; a library's name as it is.

    Raises:
        InputError: a file is meant, and there is none, or it cannot be read.
    """
    path = file_of(source, option)
    if path is None:
        return source
    try:
        stat = path.stat()
        return f"sha256:{_hash(path.resolve(), stat.st_size, stat.st_mtime_ns)}"
    except OSError as error:
        raise InputError(path, f"cannot be read: {error.strerror}") from None


@cache
def _hash(path: Path, size: int, changed: int) -> str:
    """Of a file of this size and time of change; worked out once in a process."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
