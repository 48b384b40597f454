"""Pairs of an expression and a caption without a target that was made of it, as they are kept in files."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from snp.data.annotations import Entry
from snp.data.fields import checked, need, words
from snp.errors import InputError
from snp.files import read_json


@dataclass(frozen=True)
class Pair:
    """An expression, and a caption of its picture in which nothing is meant.

    Args:
        source: the expression; its box is the plausible target of the caption [paper: the pivot].
        caption: is another one, but where it is wrong on purpose.
    """

    source: Entry
    caption: str

    def entry(self, number: int, dataset: str) -> Entry:
        """The caption as one without a box, in a data set of this name."""
        return replace(
            self.source,
            id=number,
            caption=self.caption,
            dataset_name=dataset,
            boxes=(),
            spans=(),
            categories=(),
            type="",
        )

    def to_json(self) -> dict[str, Any]:
        """As `read` takes it; the box is in pixels, [x, y, width, height]."""
        source = self.source
        return {
            "file_name": source.file_name,
            "box": source.boxes[0],
            "source": source.caption,
            "caption": self.caption,
        }


def read(path: Path, entries: Iterable[Entry]) -> list[Pair]:
    """The pairs of a file, in its order.

    Args:
        entries: the expressions that they may be made of.

    Raises:
        InputError: names the pair that has no such expression, or the field that is no text.
    """
    return parse(read_json(path), entries, path)


def parse(values: Any, entries: Iterable[Entry], where: object) -> list[Pair]:
    """As `read`, of their JSON value within `where`."""
    known = {(entry.file_name, entry.caption): entry for entry in entries}
    return [_pair(one, known, f"{where}: [{k}]") for k, one in enumerate(checked(values, list, where))]


def _pair(value: Any, known: dict[tuple[str, str], Entry], where: str) -> Pair:
    file_name, source = (need(value, key, str, where) for key in ("file_name", "source"))
    if (entry := known.get((file_name, source))) is None:
        raise InputError(f"{where}.source", f"{source!r} is no expression of {file_name}", "make the file again")
    return Pair(entry, words(value, "caption", where))


def split(pairs: Sequence[Pair], most: int) -> tuple[Sequence[Pair], Sequence[Pair]]:
    """The first pairs, to learn from, `most` of them or half of all, and the others."""
    count = min(most, len(pairs) // 2)
    return pairs[:count], pairs[count:]
