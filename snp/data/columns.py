"""Captions and boxes as they come, on the way to flat arrays. [ours]"""

import json
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from snp.data import annotations
from snp.data.annotations import Entry
from snp.data.checks import Checks
from snp.data.tokens import Vocabulary
from snp.errors import InputError

Where = str | Callable[[int], object]
"""What entries are called in errors, or what each of them is called, by its place."""
_FAR = 1 << 32
"""More than any caption has characters."""
NAMED = {
    "file_name": "file_N",
    "dataset_name": "dataset_N",
    "type": "type_N",
    "question_type": "question_type_N",
    "answer": "answer_N",
}
"""Field of an Entry -> the column that holds its row in the table of names."""
NUMBERS = {"original_id": "original_N", "sentence_id": "sentence_N"}
RARE = ("evaluated", "phrase_types", "question_id", "difficulty")


class Columns:
    """Captions as they come, and boxes in any order."""

    def __init__(self) -> None:
        self.captions: list[str] = []
        self.rest: list[bytes] = []
        self.names: dict[str, int] = {}
        self.ids, self.numbers, self.sizes, self.named = (array("q") for _ in range(4))
        self.owner, self.category, self.span_count, self.spans = (array("q") for _ in range(4))
        self.boxes = array("d")

    def take(self, path: str | Path, name: str, values: Any, checks: Checks) -> None:
        """All images, or all annotations, of a file."""
        if not isinstance(values, Iterator):
            annotations.listed(path, {name: values}, name)
        elif name == "images":
            for index, image in enumerate(values):
                checks.image(index, image)
                self.caption(annotations.entry_of(image, []))
        else:
            for index, value in enumerate(values):
                row = checks.annotation(index, value)
                self.box(row, value["bbox"], value.get("category_id") or 0, value["tokens_positive"])

    def caption(self, entry: Entry) -> None:
        """The next entry, without its boxes."""
        self.captions.append(entry.caption)
        self.ids.append(entry.id)
        self.sizes.extend((entry.height, entry.width))
        self.named.extend([self.names.setdefault(getattr(entry, field), len(self.names)) for field in NAMED])
        rest = {field: value for field in RARE if (value := getattr(entry, field))}
        for field in NUMBERS:
            value = getattr(entry, field)
            if type(value) is not int:
                rest[field], value = value, 0
            self.numbers.append(value)
        self.rest.append(json.dumps(rest).encode() if rest else b"")

    def box(self, row: int, box: Sequence[float], category: int, spans: Sequence[Sequence[int]]) -> None:
        """A box of entry `row`."""
        self.owner.append(row)
        self.boxes.extend(box)
        self.category.append(category)
        self.span_count.append(len(spans))
        self.spans.extend(chain.from_iterable(spans))

    def arrays(self, vocabulary: Vocabulary, context: int, where: Where) -> dict[str, np.ndarray]:
        """All of it as the arrays of a `Flat`; InputError for a caption of more than `context` tokens, or of none."""
        token_T, character_T2, length_N = vocabulary.encode_all(self.captions)
        for error in unfit(length_N, context, where):
            raise error
        named, numbers = _int64(self.named).reshape(-1, len(NAMED)), _int64(self.numbers).reshape(-1, len(NUMBERS))
        caption_at, caption = _blob([text.encode() for text in self.captions])
        rest_at, rest = _blob(self.rest)
        name_at, name = _blob([text.encode() for text in self.names])

        owner_M, count_M = _int64(self.owner), _int64(self.span_count)
        order_M = np.argsort(owner_M, kind="stable")
        row_S = ragged(np.cumsum(count_M) - count_M, count_M, order_M)
        span_S2 = _int64(self.spans).reshape(-1, 2)[row_S].astype(np.int32)
        owner_M, count_M = owner_M[order_M], count_M[order_M]
        return dict(
            id_N=_int64(self.ids),
            **{column: np.ascontiguousarray(numbers[:, k]) for k, column in enumerate(NUMBERS.values())},
            size_N2=_int64(self.sizes).reshape(-1, 2).astype(np.int32),
            **{column: named[:, k].astype(np.int32) for k, column in enumerate(NAMED.values())},
            caption_at=caption_at,
            caption=caption,
            token_at=_at(length_N),
            token_T=token_T.astype(np.uint16),
            box_at=_at(np.bincount(owner_M, minlength=len(length_N))),
            box_M4=np.array(self.boxes).reshape(-1, 4)[order_M],
            category_M=_int64(self.category)[order_M],
            span_at=_at(count_M),
            span_S2=span_S2,
            word_S2=_words(span_S2, np.repeat(owner_M, count_M), character_T2, length_N),
            rest_at=rest_at,
            rest=rest,
            name_at=name_at,
            name=name,
        )


def unfit(length_N: np.ndarray, context: int, where: Where) -> Iterator[InputError]:
    """An error for every caption that a model of this context cannot take: too long, or without a word.

    Args:
        length_N: tokens of every caption, start and end among them.
    """
    for i in np.flatnonzero((length_N > context) | (length_N < 3)).tolist():
        problem = f"{length_N[i]} tokens, the model takes {context}" if length_N[i] > 2 else "has no word"
        yield InputError(f"{place(where, i)}.caption", problem)


def place(where: Where, i: int) -> object:
    """What entry i is called in errors."""
    return where(int(i)) if callable(where) else f"{where}[{i}]"


def _words(span_S2: np.ndarray, owner_S: np.ndarray, character_T2: np.ndarray, length_N: np.ndarray) -> np.ndarray:
    """The [first, last) tokens that share a character with each span of caption `owner_S`, uint16 [S, 2].

    Tokens stand in the order of their characters, so that they are found by bisection, all captions in one line.
    """
    inner_N = length_N - 2  # without start and end token, which have no characters
    within = np.ones(len(character_T2), bool)
    end_N = np.cumsum(length_N)
    within[end_N - 1] = within[end_N - length_N] = False
    line_T = np.repeat(np.arange(len(length_N)) * _FAR, inner_N)
    line_S = owner_S * _FAR
    first_S = np.searchsorted(line_T + character_T2[within, 1], line_S + span_S2[:, 0], "right")
    last_S = np.searchsorted(line_T + character_T2[within, 0], line_S + span_S2[:, 1], "left")
    before_S = (np.cumsum(inner_N) - inner_N)[owner_S] - 1
    return np.stack([first_S - before_S, np.maximum(first_S, last_S) - before_S], 1).astype(np.uint16)


def ragged(at: np.ndarray, count: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Rows of the values that belong to `order`, in this order: owner i has rows at[i] to at[i] + count[i]."""
    count = count[order]
    after = np.cumsum(count)
    return np.repeat(at[order] - after + count, count) + np.arange(after[-1] if len(after) else 0)


def _int64(values: array) -> np.ndarray:
    """The numbers of an array of 64-bit ones, not copied."""
    return np.frombuffer(values, np.int64) if values else np.zeros(0, np.int64)


def _at(count: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(count)]).astype(np.int64)


def _blob(texts: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Offsets and bytes of texts laid end to end."""
    return _at(np.array(list(map(len, texts)), np.int64)), np.frombuffer(bytearray().join(texts), np.uint8)


def text_at(blob: np.ndarray, at: np.ndarray, i: int) -> str:
    """The text at place `i` of some that are laid end to end."""
    return blob[at[i] : at[i + 1]].tobytes().decode()


def pairs(values: Iterable[Sequence[Any]]) -> tuple[tuple[Any, ...], ...]:
    """Lists of lists as tuples of tuples."""
    return tuple(map(tuple, values))
