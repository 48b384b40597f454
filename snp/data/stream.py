"""JSON files too large for memory: the members of one object, and of its lists one element after the other."""

import json
import re
from collections.abc import Collection, Iterator
from json import JSONDecodeError
from pathlib import Path
from typing import Any

from snp.errors import InputError
from snp.files import read_json

CHUNK = 1 << 20
"""Characters read at a time."""
ENCODING = "utf-8-sig"
"""With or without a byte order mark, as `files.read_json` reads."""
_WHITE = re.compile(r"[ \t\n\r]*")
_AFTER = frozenset(",]}: \t\n\r")
_decode = json.JSONDecoder().raw_decode


def members(path: str | Path, lists: Collection[str]) -> Iterator[tuple[str, Any]]:
    """(name, value) of every member of the object in a file, in its order; nothing where it holds no object.

    A member that is named in `lists`, and is a list, comes as an iterator over its elements, to be used before the next
    member is asked for; what is left of it then is passed over.

    Raises:
        InputError: the file is missing or no JSON; the same line as that of `files.read_json`, but only once the
            fault is reached.
    """
    try:
        with open(path, encoding=ENCODING) as file:
            yield from _Reader(path, file).members(lists)
    except (OSError, UnicodeDecodeError):
        read_json(path)
        raise


class _Reader:
    """A window on the text of a file: `text` from character `passed` on, of which `at` are used."""

    def __init__(self, path: str | Path, file: Any) -> None:
        self.path, self.file = path, file
        self.text, self.at, self.passed, self.ended = "", 0, 0, False
        self.tried = -1  # the window, by its beginning, that was tried to be read in one go

    def members(self, lists: Collection[str]) -> Iterator[tuple[str, Any]]:
        if self._next() != "{":
            read_json(self.path)  # no JSON at all, or no object
            return
        self.at += 1
        mark, opened = self._next(), "{"
        while mark != "}":
            name = self._name(opened)
            self._pass(":", '{"a"')
            if name in lists and self._next() == "[":
                elements = self._elements()
                yield name, elements
                for _ in elements:
                    pass
            else:
                yield name, self._value('{"a":')
            mark, opened = self._next(), '{"a":0,'
            if mark != "}":
                self._pass(",", '{"a":0')
        self.at += 1
        if self._next():
            self._fail("{}")

    def _name(self, opened: str) -> str:
        if self._next() != '"':
            self._fail(opened)
        return self._value(opened)  # type: ignore[no-any-return]

    def _elements(self) -> Iterator[Any]:
        self.at += 1
        mark, opened = self._next(), "["
        while mark != "]":
            yield from self._many() or [self._value(opened)]
            mark, opened = self._next(), "[0,"
            if mark != "]":
                self._pass(",", "[0")
        self.at += 1

    def _many(self) -> list[Any]:
        """The elements from here to the last "}," of a new window, in one go, which is much faster; or none.

        Where that mark is in a string, in an element, or behind the list, brackets do not match, and it is not taken.
        """
        if self.tried == self.passed:
            return []
        self.tried = self.passed
        end = self.text.rfind("},", self.at) + 1
        try:
            values: list[Any] = json.loads(f"[{self.text[self.at : end]}]") if end else []
        except (ValueError, RecursionError):
            return []
        self.at = max(self.at, end)
        return values

    def _next(self) -> str:
        """The next character that is not white, "" at the end."""
        while True:
            self.at = _WHITE.match(self.text, self.at).end()  # type: ignore[union-attr]
            if self.at < len(self.text):
                return self.text[self.at]
            if self.ended:
                return ""
            self._more()

    def _pass(self, mark: str, opened: str) -> None:
        if self._next() != mark:
            self._fail(opened)
        self.at += 1

    def _value(self, opened: str) -> Any:
        """The value that begins at the next character that is not white."""
        self._next()
        while True:
            try:
                value, end = _decode(self.text, self.at)
            except JSONDecodeError:
                if self.ended:
                    self._fail(opened)
            except (ValueError, RecursionError):  # a number, or brackets, without end
                read_json(self.path)
                raise
            else:
                if self.text[end : end + 1] in _AFTER or self.ended:  # a number at the edge may go on
                    self.at = end
                    return value
            self._more()

    def _more(self) -> None:
        rest = self.text[self.at :]
        piece = self.file.read(max(CHUNK, len(rest)))  # doubled, so that a long value is not tried too often
        self.passed += self.at
        self.text, self.at, self.ended = rest + piece, 0, not piece

    def _fail(self, opened: str) -> Any:
        """Raise what the json module says of text that goes on like this after `opened`, at its place in the file."""
        try:
            json.loads(opened + self.text[self.at :])
        except JSONDecodeError as error:
            place = self.passed + self.at + error.pos - len(opened)
            found = JSONDecodeError(error.msg, Path(self.path).read_text(encoding=ENCODING), place)
            raise InputError(self.path, f"not valid JSON: {found}", "delete it or write it again") from None
        raise AssertionError(f"{self.path}: {opened!r} goes on well")
