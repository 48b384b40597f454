"""Printing where the output's encoding lacks a character: in plain letters instead of an error."""

import codecs
import io
import sys
import unicodedata

SIGNS = {
    "Δ": "delta", "±": "+-", "≥": ">=", "≤": "<=", "×": "x", "µ": "u", "→": "->", "·": "|",
    "–": "-", "—": "-", "‘": "'", "’": "'", "“": '"', "”": '"',
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
