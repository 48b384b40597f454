"""Expressions read back, and whether anything in a scene is meant by them, against plain loops over lists of items."""

import random
import re
from itertools import permutations
from math import hypot

import pytest
from oracle import solve

from snp.data.drawn import expressions
from snp.data.drawn.edits import KINDS, changes, edit
from snp.data.drawn.expressions import STYLES, Scene
from snp.data.drawn.items import Description, Item
from snp.data.drawn.scenes import HELD_OUT, Scenes
from snp.data.drawn.sketch import Sketch, sketch
from snp.data.drawn.truth import SCENES, related, truth

# -- a second reader: captions of RefCOCO's style, by their words and the numbers of boxes --------------------------

WORDS = {name: "|".join(words) for name, words in Scenes.attributes.items()}
PHRASE = f"((?:(?:{'|'.join(WORDS.values())}) )*)({'|'.join(Scenes.nouns)}|thing)"
SIDES = {"left": (0, 1), "right": (0, -1), "top": (1, 1), "bottom": (1, -1)}
SAID = {"leftmost": "left", "rightmost": "right", "top": "top", "bottom": "bottom"}


def called(words: str, noun: str, items: list[Item]) -> list[int]:
    return [
        i for i, item in enumerate(items)
        if noun in ("thing", item.noun) and set(words.split()) <= set(item.attributes.values())
    ]  # fmt: skip


def near(item: Item, mark: Item) -> float:
    (x, y, w, h), (u, v, s, t) = item.box, mark.box
    return hypot(max(u - x - w, x - u - s, 0), max(v - y - h, y - v - t, 0))


def stands(word: str, item: Item, mark: Item) -> tuple[bool, bool]:
    """Whether a relation holds clearly, and whether an eye might say so."""
    if word == "next to":
        return near(item, mark) <= 7, near(item, mark) <= 15
    x, y = (item.box[k] + item.box[k + 2] / 2 - mark.box[k] - mark.box[k + 2] / 2 for k in (0, 1))
    along, across = {"left of": (-x, y), "right of": (x, y), "above": (-y, x), "below": (y, x)}[word]
    return along >= max(6, abs(across)), along > -2


def before(side: str, one: Item, other: Item) -> bool:
    """Whether one clearly comes before the other, counted from a side: by its centre, and by its near edge."""
    axis, sign = SIDES[side]
    near = [box[axis] if sign > 0 else -box[axis] - box[axis + 2] for box in (one.box, other.box)]
    centre = [sign * (box[axis] + box[axis + 2] / 2) for box in (one.box, other.box)]
    return centre[1] - centre[0] >= 5 and near[1] - near[0] >= 2


def at_place(side: str, place: int, found: list[int], items: list[Item]) -> tuple[set[int], set[int]]:
    """Who stands at a place in all orders that an eye might see, and who in any."""
    if len(found) <= place:
        return set(), set()
    seen = {
        way[place] for way in permutations(found)
        if not any(before(side, items[b], items[a]) for k, a in enumerate(way) for b in way[k + 1 :])
    }  # fmt: skip
    return seen if len(seen) == 1 else set(), seen


def slowly(caption: str, items: list[Item]) -> str:
    """What `truth` should say of a caption in RefCOCO's style."""
    if found := re.fullmatch(f"the {PHRASE}", caption):
        return "fits" if called(*found.groups(), items) else "none"
    if found := re.fullmatch(f"the {PHRASE} (left of|right of|above|below|next to) the {PHRASE}", caption):
        words, noun, relation, *mark = found.groups()
        told = [
            stands(relation, items[i], items[k])
            for i in called(words, noun, items) for k in called(*mark, items) if i != k
        ]  # fmt: skip
        return "fits" if any(sure for sure, _ in told) else "doubt" if any(may for _, may in told) else "none"
    if found := re.fullmatch(f"the second {PHRASE} from the (\\w+)", caption):
        sure, may = at_place(found[3], 1, called(found[1], found[2], items), items)
    elif found := re.fullmatch(f"the {PHRASE} (?:on|at) the (\\w+)", caption):
        sure, may = at_place(found[3], 0, called(found[1], found[2], items), items)
    else:
        found = re.fullmatch(f"the ({'|'.join(SAID)}) {PHRASE}", caption)
        assert found, caption
        sure, may = at_place(SAID[found[1]], 0, called(found[2], found[3], items), items)
    return "fits" if sure else "doubt" if may else "none"


# -- what scenes say ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pictures() -> list[Sketch]:
    return [sketch(Scenes(), 5, split, number) for split in ("train", "val", "testA") for number in range(30)]


def test_every_form_of_sentence_that_scenes_make_is_read_and_said_again(pictures: list[Sketch]) -> None:
    rng, forms = random.Random(0), set()
    for picture in pictures:
        for style in STYLES:
            for kind in expressions.KINDS:
                for _ in range(3):
                    made = picture.scene.refer(style, kind, rng)
                    if made is None:
                        continue
                    read = SCENES.parse(made.caption)
                    assert read is not None and read.text() == made.caption
                    forms |= {(read.order, read.long, bool(read.behind), len(read.relations) == 2, read.place)}
                    forms |= {(texts, read.long) for texts, _ in read.relations}
    scene = pictures[0].scene
    assert {form for form in forms if len(form) == 2} == {
        ((r.short, r.long), long) for r in scene.relations for long in (False, True)
    }
    for order in scene.orders:
        for template in (*order.first, order.second):
            assert {(template, long, False, False, False) for long in (False, True)} <= forms
    alone = {form[1:] for form in forms if len(form) > 2 and not form[0]}
    # long, adjectives behind, two relations, "in the picture"
    assert alone == {
        (False, False, False, False), (False, False, False, True),
        (False, True, False, False), (False, True, False, True),
        (True, False, False, False), (True, False, True, False),
    }  # fmt: skip


def test_what_scenes_say_of_an_item_fits_it_alone(pictures: list[Sketch]) -> None:
    for picture in pictures:
        for said in (one for found in picture.expressions.values() for one in found):
            assert truth(said.caption, picture.scene.items) == "fits"
            assert solve(said.caption, picture.scene.items) == [said.target]


@pytest.mark.parametrize(
    "caption",
    [
        "", "circle", "a circle", "the unicorn", "the pink circle", "the red small circle", "the red red circle",
        "the circle that is left of the star", "the circle to the left of the star",
        "the circle of the same noun as the star",
        "the circle left of the star in the picture", "the circle left of the star and below the ring",
        "the leftmost circle of the picture", "the third circle from the left", "the second leftmost circle",
        "the circle on the top", "the circle that is star", "the circle that is red and small", "the circle ",
        "the  circle",
        "the circle in the picture in the picture", "The circle", "the circle left of the circle left of the circle",
    ],
)  # fmt: skip
def test_what_scenes_would_not_say_is_unreadable(caption: str, pictures: list[Sketch]) -> None:
    assert truth(caption, pictures[0].scene.items) == "unreadable" and not related(caption, pictures[0].scene.items)


def test_captions_at_random_are_judged_as_by_loops(pictures: list[Sketch]) -> None:
    rng, seen = random.Random(1), dict.fromkeys(("fits", "doubt", "none"), 0)

    def phrase(items: list[Item]) -> str:
        """Of words that two of the items have, so that it may fit some."""
        one, other = rng.choice(items), rng.choice(items)
        words = [one.attributes[name] for name in Scenes.attributes if rng.random() < 0.25]
        return " ".join([*words, rng.choice((one.noun, other.noun, "thing"))])

    for items in (list(picture.scene.items) for picture in pictures if len(picture.scene.items) <= 6):
        side, word = rng.choice(list(SIDES)), rng.choice(list(SAID))
        place = f"{'on' if side in ('left', 'right') else 'at'} the {side}"
        captions = [f"the {phrase(items)}", f"the {word} {phrase(items)}", f"the {phrase(items)} {place}"]
        captions += [f"the second {phrase(items)} from the {side}" for _ in range(2)]
        for relation in ("left of", "right of", "above", "below", "next to"):
            captions.append(f"the {phrase(items)} {relation} the {phrase(items)}")
        for caption in captions:
            expected = slowly(caption, items)
            assert truth(caption, items) == expected, caption
            seen[expected] += 1
    assert min(seen.values()) > 30


def item(noun: str, color: str, rank: int, x: int, y: int) -> Item:
    side = (9, 14, 20)[rank]
    attributes = {"size": ("small", "medium", "big")[rank], "texture": "plain", "color": color}
    return Item(noun, attributes, rank, (x, y, side, side))


CROWD = [item("star", "red", 0, 2, 2), item("star", "red", 2, 40, 4), item("heart", "blue", 1, 20, 40)]


@pytest.mark.parametrize(
    ("caption", "verdict"),
    [
        ("the star bigger than the heart", "fits"),
        ("the heart that is bigger than the big star", "none"),
        ("the star of the same color as the star", "fits"),
        ("the star of the same color as the heart", "none"),
        ("the second biggest star", "fits"),
        ("the second smallest heart in the picture", "none"),
        ("the star that is above the heart and to the left of the big star", "fits"),
        ("the star that is above the heart and to the right of the big star", "none"),
        ("the star in the picture that is small and red", "fits"),
        ("the star in the picture that is small and blue", "none"),
        ("the star left of the ring", "none"),
        ("the top star", "fits"),
        ("the big star right of the heart", "doubt"),
    ],
)
def test_longer_sentences_are_judged_as_by_hand(caption: str, verdict: str) -> None:
    assert truth(caption, CROWD) == verdict


def test_related_means_that_all_words_occur_together_or_not() -> None:
    assert related("the blue star left of the red thing", CROWD)
    assert not related("the green star", CROWD) and not related("the star left of the ring", CROWD)
    assert related("the second star from the left", CROWD)


# -- edits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_an_edit_leaves_nothing_that_may_be_meant_and_changes_one_part(kind: str, pictures: list[Sketch]) -> None:
    rng, made = random.Random(2), []
    for picture in pictures:
        items = list(picture.scene.items)
        found = edit(picture.scene, picture.expressions.get("refcoco", []), [kind], "refcoco", SCENES, rng)
        if found is None:
            continue
        made.append(found)
        assert slowly(found.caption, items) == "none" and solve(found.source, items) == [found.target]
        words = {word for item in items for word in (item.noun, "thing", *item.attributes.values())}
        told = re.findall(f"{'|'.join((*WORDS.values(), *Scenes.nouns))}", found.caption)
        assert found.hard == (set(told) <= words)
        old, new = SCENES.parse(found.source), SCENES.parse(found.caption)
        assert old and new
        parts = {
            "attribute": old.root.noun == new.root.noun and old.relations == new.relations and old.order == new.order,
            "noun": old.root.adjectives == new.root.adjectives and old.relations == new.relations,
            "relation": old.descriptions == new.descriptions,
            "order": (old.root, old.order) == (new.root, ""),
            "landmark": old.root == new.root and old.relations[0][0] == new.relations[0][0] if old.relations else False,
        }
        assert old.text() != new.text() and parts[kind]
    assert len(made) > 8 and {one.kind for one in made} == {kind}
    assert {one.hard for one in made} == ({True} if kind in ("relation", "order") else {False, True})


def test_no_edit_names_a_pair_of_words_that_pictures_are_kept_from_having(pictures: list[Sketch]) -> None:
    seen = set()
    for picture in pictures:
        for said in picture.expressions.get("refcoco", []):
            sentence = SCENES.parse(said.caption)
            assert sentence
            for kind in ("attribute", "noun", "landmark"):
                for changed in changes(sentence, kind, "refcoco", picture.scene, SCENES):
                    old = [(w, said.noun) for said in sentence.descriptions for _, w in said.adjectives]
                    new = [(w, said.noun) for said in changed.descriptions for _, w in said.adjectives]
                    seen |= set(new) - set(old)
    assert len(seen) > 100 and not seen & HELD_OUT


def test_equal_chance_gives_equal_edits_and_kinds_are_taken_in_their_order() -> None:
    scene = Scene(CROWD)
    source = [scene.refer("refcoco", "relation", random.Random(0))]
    assert source[0] is not None
    found = [edit(scene, source, ["order", "landmark", "noun"], "refcoco", SCENES, random.Random(4)) for _ in range(2)]  # type: ignore[arg-type]
    assert found[0] == found[1] is not None and found[0].kind == "landmark", "no order can be changed there"


def test_a_description_is_known_by_its_words_alone() -> None:
    assert SCENES.description("small red star") == Description("star", (("size", "small"), ("color", "red")))
