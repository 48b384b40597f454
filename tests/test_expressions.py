"""Expressions: every one means exactly one item, to a reader that knows nothing of how it was made."""

import random
import re

import pytest
from oracle import solve

from snp.data.drawn.build import picture
from snp.data.drawn.expressions import KINDS, STYLES, Scene
from snp.data.drawn.items import Item
from snp.data.drawn.scenes import Scenes

LOCATION = {"left", "right", "top", "bottom", "above", "below", "leftmost", "rightmost"}


def item(noun: str, color: str, rank: int, x: int, y: int, **more: object) -> Item:
    side = (9, 14, 20)[rank]
    attributes = {"size": ("small", "medium", "big")[rank], "color": color}
    return Item(noun, attributes, rank, (x, y, side, side), **more)


CROWD = [item("star", "red", 0, 2, 2), item("star", "red", 2, 40, 4), item("heart", "blue", 1, 20, 40)]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes")
    for split in ("val", "testB", "test", "train"):
        (root / "images" / split).mkdir(parents=True)
    return [picture(Scenes(), root, 7, split, n) for split in ("val", "testB", "test", "train") for n in range(100)]


@pytest.mark.slow
def test_the_oracle_solves_every_expression_of_400_scenes(pictures):
    said = [(e, p) for p in pictures for found in p.expressions.values() for e in found]
    said += [(p.single, p) for p in pictures if p.single]
    assert len(said) > 2500
    for expression, made in said:
        assert solve(expression.caption, made.items) == [expression.target], expression.caption


@pytest.mark.slow
def test_all_kinds_and_all_shapes_of_sentences_occur(pictures):
    said = " | ".join(e.caption for p in pictures for found in p.expressions.values() for e in found)
    for words in (
        "left of", "right of", "above", "below", "next to", "bigger than", "smaller than",
        "of the same color as", "of the same size as", "of the same texture as", "leftmost", "rightmost",
        "the top", "the bottom", "on the left", "at the top", "the second", "from the right", "biggest",
        "second smallest", "that is", "in the picture",
    ):  # fmt: skip
        assert words in said, words


@pytest.mark.slow
def test_refcoco_plus_has_no_location_words(pictures):
    for made in pictures:
        for expression in made.expressions.get("refcoco+", []):
            assert not LOCATION & set(expression.caption.split()), expression.caption


@pytest.mark.slow
def test_refcocog_is_long_and_the_others_are_short(pictures):
    def mean(style):
        lengths = [len(e.caption.split()) for p in pictures for e in p.expressions.get(style, [])]
        return sum(lengths) / len(lengths)

    assert mean("refcocog") >= 9 > 6.5 > max(mean("refcoco"), mean("refcoco+"))


@pytest.mark.slow
def test_the_vocabulary_is_small(pictures):
    said = [e.caption for p in pictures for found in p.expressions.values() for e in found]
    said += [p.caption.caption for p in pictures if p.caption]
    assert len(set(re.findall(r"\w+", " ".join(said)))) <= 110


@pytest.mark.slow
def test_captions_name_every_item_a_phrase_fits(pictures):
    for made in pictures:
        if made.caption is None:
            continue
        phrases = {}
        for index, (begin, end) in made.caption.named:
            text = made.caption.caption[begin:end]
            assert text[0] in "at" and text[-1] not in " ,"
            phrases.setdefault(text, set()).add(index)
        for text, named in phrases.items():
            if text.startswith(("a ", "an ")):
                assert named == set(solve(re.sub("^an? ", "the ", text), made.items)), text


@pytest.mark.slow
def test_captions_have_between_one_and_six_phrases(pictures):
    counts = [len({span for _, span in p.caption.named}) for p in pictures if p.caption]
    assert min(counts) == 1 and max(counts) == 6


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("kind", KINDS)
def test_equal_chance_gives_equal_words(style, kind):
    said = [Scene(CROWD).refer(style, kind, random.Random(3)) for _ in range(2)]
    assert said[0] == said[1] is not None


def test_only_targets_are_referred_to():
    crowd = [
        item("star", "red", 0, 2, 2, target=False),
        *CROWD[1:2],
        item("heart", "blue", 1, 20, 40, target=False),
    ]
    for seed in range(30):
        for kind in KINDS:
            found = Scene(crowd).refer("refcoco", kind, random.Random(seed))
            assert found is None or found.target == 1


def test_a_relation_is_said_only_where_it_is_needed():
    lonely = [item("star", "red", 0, 2, 2), item("heart", "blue", 1, 20, 40)]
    assert Scene(lonely).refer("refcoco", "relation", random.Random(0)) is None


def test_no_order_is_said_within_the_margin_of_doubt():
    level = [item("star", "red", 1, 10, 4), item("star", "red", 1, 11, 40)]
    said = {Scene(level).refer("refcoco", "order", random.Random(seed)).caption for seed in range(50)}
    assert said and not LOCATION & {"left", "right"} & set(" ".join(said).split())


def test_taken_captions_are_not_given_again():
    scene, taken = Scene(CROWD), set()
    while found := scene.refer("refcoco", "attribute", random.Random(0), taken):
        assert found.caption not in taken
        taken.add(found.caption)
    assert {"the heart", "the small star", "the big star"} <= taken


def test_the_root_noun_phrase_is_what_the_span_covers():
    for seed in range(20):
        found = Scene(CROWD).refer("refcoco", "relation", random.Random(seed))
        begin, end = found.named[0][1]
        assert found.caption[begin:end].split()[-1] in ("star", "thing") and begin == 0
        assert found.caption[end:].startswith((" left of", " right of", " above", " below", " next to"))
