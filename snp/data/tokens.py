"""CLIP's byte-pair tokens with their character spans, and vocabularies reduced to the tokens that occur."""

from collections.abc import Iterable, Sequence
from functools import cache

import numpy as np
import regex
from open_clip.tokenizer import SimpleTokenizer

PAD, START, END, UNKNOWN = range(4)
"""Ids of a reduced vocabulary that are not byte pairs."""


@cache
def _clip() -> SimpleTokenizer:
    return SimpleTokenizer()


@cache
def _word(word: str) -> tuple[int, ...]:
    clip = _clip()
    symbols = "".join(clip.byte_encoder[byte] for byte in word.encode())
    return tuple(clip.encoder[piece] for piece in clip.bpe(symbols).split(" "))


def encode(caption: str) -> tuple[list[int], list[tuple[int, int]]]:
    """CLIP ids of a caption (no start or end token), and the [begin, end) characters of each one's word.

    All pieces of a word carry the span of the whole word: grounding needs no finer one. [ours]
    """
    ids: list[int] = []
    spans: list[tuple[int, int]] = []
    for match in regex.finditer(_clip().pat, caption.lower()):
        pieces = _word(match.group())
        ids += pieces
        spans += [match.span()] * len(pieces)
    return ids, spans


def _occurring(captions: Iterable[str]) -> list[int]:
    return sorted({i for caption in captions for i in encode(caption)[0]})


def cover(spans: Sequence[tuple[int, int]], phrases: Sequence[Sequence[tuple[int, int]]]) -> np.ndarray:
    """Which tokens belong to which phrase: bool [phrases, tokens].

    Args:
        spans: the [begin, end) characters of every token, as `encode` gives them.
        phrases: the [begin, end) spans of every phrase; a token belongs to it when it shares a character with one.
    """
    begin, end = np.array(spans).T
    found = np.zeros((len(phrases), len(spans)), bool)
    for row, phrase in zip(found, phrases, strict=True):
        for b, e in phrase:
            row |= (begin < e) & (end > b)
    return found


class Vocabulary:
    """CLIP ids that occur in a data set, renumbered from 4 on, so that embeddings do not dwarf small towers. [ours]

    Args:
        clip_ids: in the order of their numbers.
    """

    def __init__(self, clip_ids: Iterable[int]) -> None:
        self.clip_ids = list(dict.fromkeys(clip_ids))
        self._index = {clip: index for index, clip in enumerate(self.clip_ids, start=4)}

    def __len__(self) -> int:
        return len(self.clip_ids) + 4

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.clip_ids == other.clip_ids

    def __hash__(self) -> int:
        return hash(tuple(self.clip_ids))

    @classmethod
    def of(cls, captions: Iterable[str]) -> "Vocabulary":
        """The tokens of captions, whatever their order."""
        return cls(_occurring(captions))

    def extended(self, captions: Iterable[str]) -> "Vocabulary":
        """With the tokens of more captions behind those of this vocabulary, which keep their numbers. [ours]

        A model that was trained with the old one keeps its embeddings and needs more rows at the end.
        """
        return Vocabulary([*self.clip_ids, *_occurring(captions)])

    def encode(self, caption: str) -> tuple[np.ndarray, list[tuple[int, int]]]:
        """Ids with start and end token (int16, length L), and their character spans (empty for those two)."""
        ids, spans = encode(caption)
        inner = [self._index.get(i, UNKNOWN) for i in ids]
        return np.array([START, *inner, END], np.int16), [(0, 0), *spans, (0, 0)]
