"""Captions as CLIP reads them: the ids of its own tokenizer, and the characters of the caption that was given."""

import random

import pytest
from open_clip.tokenizer import SimpleTokenizer

from snp.data import tokens
from snp.data.annotations import Entry
from snp.data.flat import Flat
from snp.data.tokens import Vocabulary, encode
from snp.errors import InputError

CLIP = SimpleTokenizer()
PIECES = [
    "a", "red", "Star", "man’s", "don't", "&amp;", "&lt;b&gt;", "&#39;", "&nbsp;", "&amp;amp;lt;", "&;", "&#x110000;",
    "“q”", "e\u0301", "é", "İstanbul", "I\u0307", "ΣΟΦΟΣ", "ﬁsh", "Ｆｕｌｌ", "中文", "Ã©", "â€™s", "ŉ", "ß", "½", "…",
    "...", "😀", "👨\u200d👩", "\u200b", "\ufeff", "\xad", "\x00", "\x0b", "\x1c", "\x1b[31m", "\x85", "\u2028",
    "\u3000", "\xa0", "\r\n", "\t", " ", "  ", "<start_of_text>", "1/2", "2nd", "!?",
]  # fmt: skip


def captions(count: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    found = []
    for _ in range(count):
        found.append("".join(draw.choice(PIECES) + draw.choice(["", " ", " "]) for _ in range(draw.randint(1, 8))))
    return found


def said(caption: str) -> list[str]:
    """What the tokens of a caption stand for in it."""
    return [caption[begin:end] for begin, end in encode(caption)[1]]


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("the man’s hat", ["the", "man", "’s", "hat"]),
        ("salt &amp; pepper", ["salt", "&amp;", "pepper"]),
        ("“red” star", ["“", "red", "”", "star"]),
        ("İ dog", ["İ", "İ", "dog"]),
        ("an İ and a dog", ["an", "İ", "İ", "and", "a", "dog"]),
        ("ﬁsh &lt;3 dogs", ["ﬁsh", "&lt;", "3", "dogs"]),
        ("  a \t b  ", ["a", "b"]),
        ("e\u0301clair", ["e\u0301clair", "e\u0301clair"]),
        ("&amp;amp; x", ["&amp;amp;", "x"]),
    ],
)
def test_tokens_stand_for_the_characters_of_the_caption_as_it_was_given(caption: str, words: list[str]) -> None:
    assert said(caption) == words


def test_ids_are_those_that_clip_was_trained_with_whatever_is_in_a_caption() -> None:
    for caption in captions(1500, 0):
        assert encode(caption)[0] == CLIP.encode(caption), caption


def test_printable_ascii_is_cut_as_it_is() -> None:
    draw = random.Random(1)
    for _ in range(500):
        letters = [chr(c) for c in (9, 10, *range(32, 127)) if chr(c) != "&"]
        caption = "".join(draw.choices(letters, k=draw.randint(0, 40)))
        ids, spans = encode(caption)
        assert ids == CLIP.encode(caption)
        assert all(caption[b:e] == caption[b:e].strip() != "" for b, e in spans)


def test_spans_lie_in_the_caption_in_the_order_of_the_tokens() -> None:
    for caption in captions(1000, 2):
        spans = encode(caption)[1]
        assert spans == sorted(spans) and [end for _, end in spans] == sorted(end for _, end in spans)
        assert all(0 <= begin <= end <= len(caption) for begin, end in spans)


def test_what_did_not_change_beside_a_change_keeps_its_characters() -> None:
    draw, words = random.Random(3), ["red", "star", "hat", "cat's", "blue", "2nd"]
    for _ in range(300):
        found = [draw.choice(words) for _ in range(draw.randint(1, 9))]
        place = draw.randint(0, len(found))
        changed = draw.choice(["man’s", "&quot;", "İ", "e\u0301", "ﬂ", "Ã©t\xe9"])
        caption = " ".join([*found[:place], changed, *found[place:]])
        told = "".join(said(caption))
        for word in found:
            assert word in told


def test_many_at_once_are_cut_as_one_by_one() -> None:
    vocabulary, many = Vocabulary.full(), captions(800, 4)
    ids, characters, lengths = vocabulary.encode_all(many)
    at = 0
    for caption, length in zip(many, lengths, strict=True):
        one, spans = vocabulary.encode(caption)
        assert ids[at : at + length].tolist() == one.tolist(), caption
        assert list(map(tuple, characters[at : at + length].tolist())) == spans, caption
        at += length


def test_a_phrase_behind_a_change_still_touches_its_own_tokens() -> None:
    caption = "İİİ salt &amp; pepper, the red dog"
    begin = caption.index("red")
    entry = Entry(0, "a.jpg", 9, 9, caption, "toy", ((1, 1, 2, 2),), (((begin, begin + 7),),))
    flat = Flat.from_entries([entry], Vocabulary.full(), 77)
    told = [CLIP.decoder[Vocabulary.full().clip_ids[i - 4]] for i in flat.tokens(0)[flat.positive(0)[0]]]
    assert told == ["red</w>", "dog</w>"]


def test_a_caption_that_is_mended_away_has_no_word() -> None:
    for caption in ("\x00", "\x1b[31m", " \x1c "):
        entry = Entry(0, "a.jpg", 9, 9, caption, "toy", (), ())
        with pytest.raises(InputError, match=r"entries\[0\]\.caption: has no word"):
            Flat.from_entries([entry], Vocabulary.full(), 77)


@pytest.mark.parametrize("piece", ["é word ", "&amp;wo’rd ", "中文’"])
def test_a_caption_without_end_does_not_take_for_ever(piece: str) -> None:
    assert len(encode(piece * 5000)[0]) == len(encode(piece * 5000)[1]) > 5000


def test_the_spans_of_drawn_captions_are_what_they_were() -> None:
    assert tokens.encode("the small blue heart left of a red star")[1] == [
        (0, 3),
        (4, 9),
        (10, 14),
        (15, 20),
        (21, 25),
        (26, 28),
        (29, 30),
        (31, 34),
        (35, 39),
    ]
