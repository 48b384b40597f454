"""CLIP's byte-pair tokens with their character spans, and vocabularies reduced to the tokens that occur."""

import re
from collections.abc import Iterable, Iterator, Sequence
from difflib import SequenceMatcher
from functools import cache

import numpy as np
import regex
from open_clip.tokenizer import SimpleTokenizer, basic_clean, whitespace_clean

from snp.data.fields import shown
from snp.errors import InputError

PAD, START, END, UNKNOWN = range(4)
"""Ids of a reduced vocabulary that are not byte pairs."""
VERSION = 2
"""Of the way in which text is cut; caches of what was cut are named by it."""
_PLAIN = re.compile(r"[\t\n -%'-~]*")
"""Text of which the tokenizer mends nothing: printable ASCII without an ampersand."""
_SLAB = 50_000
_SPACES = np.array([c for c in range(0x3001) if chr(c).isspace() and regex.match(r"\s", chr(c))], np.uint32)
"""What the tokenizer takes for white; two control characters and their like are white to Python alone."""


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

    All pieces of a word carry the span of the whole word: grounding needs no finer one. [ours] The spans are those of
    the caption as it was given, whatever the tokenizer mends in it.
    """
    text, origin = _cleaned(caption)
    ids, spans = _pieces(text)
    return ids, spans if origin is None else [(origin[begin][0], origin[end - 1][1]) for begin, end in spans]


def _pieces(text: str) -> tuple[list[int], list[tuple[int, int]]]:
    """`encode` of text that is clean."""
    ids: list[int] = []
    spans: list[tuple[int, int]] = []
    for match in regex.finditer(_clip().pat, text):
        pieces = _word(match.group())
        ids += pieces
        spans += [match.span()] * len(pieces)
    return ids, spans


def _cleaned(caption: str) -> tuple[str, list[tuple[int, int]] | None]:
    """A caption as CLIP's tokenizer cuts it: mended by ftfy, without marks of HTML, in small letters.

    Beside it the [begin, end) characters of the caption that each of its characters stands for; None where they are
    the same ones.
    """
    if _PLAIN.fullmatch(caption):
        return caption.lower(), None
    text = whitespace_clean(basic_clean(caption))
    lowered = text.lower()
    if text == caption and len(lowered) == len(text):
        return lowered, None
    return lowered, [span for letter, span in zip(text, _origins(caption, text), strict=True) for _ in letter.lower()]


def _origins(old: str, new: str) -> Iterator[tuple[int, int]]:
    """The [begin, end) characters of `old` that each character of `new` stands for, found by what did not change.

    Words are compared first: what is mended in one then never moves the letters of another.
    """
    left, right = (re.findall(r"\S+|\s+", text) for text in (old, new))
    at = np.cumsum([0, *map(len, left)]).tolist()
    for kind, a, b, c, d in SequenceMatcher(None, left, right).get_opcodes():
        if kind == "equal":
            yield from ((i, i + 1) for i in range(at[a], at[b]))
        else:
            yield from _letters(old[at[a] : at[b]], "".join(right[c:d]), at[a])


def _letters(old: str, new: str, begin: int) -> list[tuple[int, int]]:
    """`_origins` of words that were changed, letter by letter; `old` begins at character `begin` of the caption."""
    found = list[tuple[int, int]]()
    for kind, a, b, c, d in SequenceMatcher(None, old, new).get_opcodes():
        if kind == "equal":
            found += [(begin + i, begin + i + 1) for i in range(a, b)]
        elif kind == "delete" and found:  # the rest of what became one letter, as "amp;"
            found[-1] = found[-1][0], begin + b
        else:
            found += [(begin + a, begin + b)] * (d - c)
    return found


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

    Raises:
        InputError: one of them is no number of a token.
    """

    def __init__(self, clip_ids: Iterable[int]) -> None:
        self.clip_ids = list(clip_ids)
        for i in self.clip_ids:
            if type(i) is not int or i < 0:
                raise InputError("vocabulary", f"{shown(i)} is not the number of a token", "make it again")
        self.clip_ids = list(dict.fromkeys(self.clip_ids))
        self._index = {clip: index for index, clip in enumerate(self.clip_ids, start=4)}

    def __len__(self) -> int:
        return len(self.clip_ids) + 4

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.clip_ids == other.clip_ids

    def __hash__(self) -> int:
        return hash(tuple(self.clip_ids))

    @classmethod
    def from_captions(cls, captions: Iterable[str]) -> "Vocabulary":
        """The tokens of captions, whatever their order."""
        return cls(_occurring(captions))

    @classmethod
    @cache
    def full(cls) -> "Vocabulary":
        """All of CLIP's byte pairs, which its own start and end token, the last two, are not."""
        return cls(range(len(_clip().encoder) - 2))

    def extended(self, captions: Iterable[str]) -> "Vocabulary":
        """With the tokens of more captions behind those of this vocabulary, which keep their numbers. [ours]

        A model that was trained with the old one keeps its embeddings and needs more rows at the end.
        """
        return Vocabulary([*self.clip_ids, *_occurring(captions)])

    def encode(self, caption: str) -> tuple[np.ndarray, list[tuple[int, int]]]:
        """Ids with start and end token (int32, length L), and their character spans (empty for those two)."""
        return self._numbered(*encode(caption))

    def _numbered(self, ids: list[int], spans: list[tuple[int, int]]) -> tuple[np.ndarray, list[tuple[int, int]]]:
        inner = [self._index.get(i, UNKNOWN) for i in ids]
        return np.array([START, *inner, END], np.int32), [(0, 0), *spans, (0, 0)]

    def encode_all(self, captions: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`encode` of many captions at once, an order faster: no token spans white space, so a word is encoded once.

        Returns:
            ids [T] of all captions, int32; characters [T, 2], the span of each, int32; lengths [N] in tokens.
        """
        known: dict[str, int] = {}
        words: list[tuple[np.ndarray, list[tuple[int, int]]]] = []
        made = [(np.zeros(0, np.int32), np.zeros((0, 2), np.int32), np.zeros(0, np.int64))]
        for begin in range(0, len(captions), _SLAB):
            lowered, origins = zip(*map(_cleaned, captions[begin : begin + _SLAB]), strict=True)
            text = "\n".join(lowered)
            white = np.isin(np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32), _SPACES)
            edges = np.flatnonzero(np.diff(white, prepend=True, append=True))
            first_W, last_W = edges[::2], edges[1::2]
            found = [text[first:last] for first, last in zip(first_W.tolist(), last_W.tolist(), strict=True)]
            for new in {*found} - known.keys():
                known[new] = len(words)
                words.append(self._numbered(*_pieces(new)))
            word_W = np.fromiter(map(known.__getitem__, found), np.int64, len(found))
            starts = np.cumsum([0] + [len(caption) + 1 for caption in lowered])
            owner_W = np.searchsorted(starts, first_W, "right") - 1
            count_N = np.bincount(owner_W, minlength=len(lowered))
            laid = self._laid_out(words, word_W, first_W - starts[owner_W], count_N)
            made.append((laid[0], _moved(*laid[1:], origins), laid[2]))
        ids, characters, lengths = zip(*made, strict=True)
        return np.concatenate(ids), np.concatenate(characters), np.concatenate(lengths)

    def _laid_out(
        self,
        words: list[tuple[np.ndarray, list[tuple[int, int]]]],
        word_W: np.ndarray,
        place_W: np.ndarray,
        count_N: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`encode_all` of captions from their words: which they are, where in their caption, how many in each."""
        start, end = self.encode("")[0]
        inner = [ids[1:-1] for ids, _ in words]
        pieces_V = np.array([len(ids) for ids in inner], np.int64)
        ids_P = np.concatenate([np.zeros(0, np.int32), *inner])
        span_P2 = np.array([span for _, spans in words for span in spans[1:-1]], np.int32).reshape(-1, 2)
        pieces_W = pieces_V[word_W]
        after_W = np.cumsum(pieces_W)
        row_T = np.repeat((np.cumsum(pieces_V) - pieces_V)[word_W] - after_W + pieces_W, pieces_W)
        row_T += np.arange(len(row_T))

        ends_N = np.concatenate([[0], after_W])[np.cumsum(count_N)]
        lengths_N = np.diff(ends_N, prepend=0) + 2
        last_N = np.cumsum(lengths_N) - 1
        ids = np.empty(len(row_T) + 2 * len(lengths_N), np.int32)
        characters = np.zeros((len(ids), 2), np.int32)
        ids[last_N - lengths_N + 1], ids[last_N] = start, end
        within = np.ones(len(ids), bool)
        within[last_N - lengths_N + 1] = within[last_N] = False
        ids[within] = ids_P[row_T]
        characters[within] = span_P2[row_T] + np.repeat(place_W, pieces_W)[:, None]
        return ids, characters, lengths_N


def _moved(
    character_T2: np.ndarray, length_N: np.ndarray, origins: Sequence[list[tuple[int, int]] | None]
) -> np.ndarray:
    """The characters of clean captions as those of the captions that they were made of."""
    end_N = np.cumsum(length_N)
    for i, origin in enumerate(origins):
        inner = slice(end_N[i] - length_N[i] + 1, end_N[i] - 1)
        if origin and inner.start < inner.stop:
            begin, end = np.array(origin, np.int32).T
            first, last = character_T2[inner].T
            character_T2[inner] = np.stack([begin[first], end[last - 1]], 1)
    return character_T2
