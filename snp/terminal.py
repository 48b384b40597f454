"""What is printed suits where it goes: signs that an encoding lacks in plain letters, progress in lines in a log."""

import codecs
import io
import sys
import time
import unicodedata
from typing import Any

from tqdm import tqdm

SECONDS = 60
"""Between two lines of progress where no terminal shows a bar."""
SIGNS = {
    "Δ": "delta", "±": "+-", "≥": ">=", "≤": "<=", "×": "x", "µ": "u", "→": "->", "·": "|",
    "–": "-", "—": "-", "‘": "'", "’": "'", "“": '"', "”": '"',
    "†": "+", "‡": "*",
    "▁": "_", "▂": ".", "▃": "-", "▄": "=", "▅": "+", "▆": "*", "▇": "%", "█": "#",
}  # fmt: skip
_PLAIN = "snp.plain"


def plain(error: UnicodeError) -> tuple[str | bytes, int]:
    """An error handler of codecs: a sign as `SIGNS` has it, a letter without its accent, anything else as `?`.

    What stands for a byte of a file's name that is not of the file system's encoding becomes that byte again.
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start]
    if "\udc80" <= lacking <= "\udcff":
        return bytes([ord(lacking) - 0xDC00]), error.start + 1
    letters = unicodedata.normalize("NFKD", lacking).encode("ascii", "ignore").decode("ascii")
    return SIGNS.get(lacking) or letters or "?", error.start + 1


def lenient() -> None:
    """Let stdout of this process print anything, unless its user chose how it does; stderr always can."""
    codecs.register_error(_PLAIN, plain)
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors in ("strict", "surrogateescape"):
        sys.stdout.reconfigure(errors=_PLAIN)


class _Lines(tqdm):
    """Progress in lines of their own, one a minute: for logs, where a bar would leave all its states."""

    said = float("-inf")

    def __init__(self, *values: Any, **named: Any) -> None:
        calm = {"mininterval": SECONDS, "maxinterval": SECONDS, "leave": True, "ncols": 100}
        super().__init__(*values, **named | calm)

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """One line, unless the last one is less than a minute old; nothing before there is any progress."""
        now = time.monotonic()
        if self.n and (now - self.said >= SECONDS or self.n == self.total):
            self.said = now
            self.fp.write(f"{msg or self}\n")
            self.fp.flush()
        return True

    def clear(self, *values: Any, **named: Any) -> None:
        """Lines stay."""

    def set_description(self, desc: str | None = None, refresh: bool | None = True) -> None:
        """Shown with the next line."""
        super().set_description(desc, refresh=False)


def progress(*values: Any, **named: Any) -> tqdm:
    """tqdm's bar in a terminal, with the time that is left; else a line a minute, and one at the end."""
    shown = named.pop("file", None) or sys.stderr
    return (tqdm if shown.isatty() else _Lines)(*values, file=shown, **named)
