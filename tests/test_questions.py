"""Questions: a reader that knows only the items and plain English finds every answer, and words alone find few."""

import math
import random
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import pairwise

import pytest
from oracle import solve

from snp.data.drawn.expressions import Scene
from snp.data.drawn.items import Item
from snp.data.drawn.questions import TYPES, Question, ask
from snp.data.drawn.scenes import COLORS, HELD_OUT, PAIRS, SHAPES, SIZES, TEXTURES, Scenes
from snp.data.tokens import encode

YES_NO = ("exist", "compare", "logical")
RELATION = re.compile(
    r"is (the .+?) (left of|right of|above|below|next to|bigger than|smaller than|of the same \w+ as) (the .+)"
)
Asked = list[tuple[Question, list[Item]]]


def thing(noun: str, rank: int, x: int, y: int, side: int = 0, **attributes: str) -> Item:
    side = side or (9, 14, 20)[rank]
    return Item(noun, {"size": ("small", "medium", "big")[rank], **attributes}, rank, (x, y, side, side))


def names_only(rng: random.Random) -> list[Item]:
    """Items as those of the pasted photographs: a name and a size, one in each quarter of the picture."""
    corners = rng.sample([(0, 0), (0, 33), (33, 0), (33, 33)], rng.randint(2, 4))
    nouns = rng.choices(["owl", "sea lion", "lion", "garbage can", "apple"], k=3)
    shift = [rng.randint(0, 9) for _ in range(8)]
    return [thing(rng.choice(nouns), rng.randrange(3), x + shift.pop(), y + shift.pop()) for x, y in corners]


def asked(crowds: Sequence[list[Item]]) -> Asked:
    """Four questions of each crowd, the types dealt out in turn."""
    rng = random.Random(1)
    found: Asked = []
    for number, items in enumerate(crowds):
        kinds = [TYPES[(4 * number + place) % len(TYPES)] for place in range(4)]
        questions = ask(Scene(items), crowds[number - 1], kinds, rng)
        assert len({question.text for question in questions}) == 4
        found += [(question, items) for question in questions]
    return found


@pytest.fixture(scope="module")
def of_scenes() -> Asked:
    rng = random.Random(0)
    return asked([Scenes().draw(rng, "train")[1] for _ in range(1500)])


@pytest.fixture(scope="module")
def of_names() -> Asked:
    rng = random.Random(0)
    return asked([names_only(rng) for _ in range(1000)])


# -- the reader ---------------------------------------------------------------------------------------------------


def fitting(text: str, items: Sequence[Item]) -> list[int]:
    """Items that "a small red circle" describes, present or not."""
    if match := re.fullmatch(r"(an?) (.+)", text):
        assert (match[1] == "an") == (match[2][0] in "aeiou"), text
        text = match[2]
    found = []
    for index, item in enumerate(items):
        for noun in (item.noun, "thing"):
            if f" {text}".endswith(f" {noun}") and set(text[: -len(noun)].split()) <= {*item.attributes.values()}:
                found.append(index)
    return found


def holds(relation: str, one: Item, two: Item) -> bool | None:
    """Whether an eye sees it; None where it might doubt."""
    (x, y, w, h), (u, v, s, t) = one.box, two.box
    if relation.startswith("of the same"):
        name = relation.split()[3]
        return one.attributes[name] == two.attributes[name]
    if relation in ("bigger than", "smaller than"):
        more = (max(w, h) - max(s, t)) * (1 if relation == "bigger than" else -1)
        return True if more > 2 else False if more <= 1 else None
    if relation == "next to":
        gap = math.hypot(max(u - x - w, x - u - s, 0), max(v - y - h, y - v - t, 0))
        return True if gap <= 7 else False if gap > 15 else None
    axis, sign = {"left of": (0, -1), "right of": (0, 1), "above": (1, -1), "below": (1, 1)}[relation]
    step = sign * (one.box[axis] + one.box[axis + 2] / 2 - two.box[axis] - two.box[axis + 2] / 2)
    return True if step >= 6 else False if step <= -2 else None


def answer(text: str, items: Sequence[Item]) -> str:
    """What a person who looks at the items would say."""

    def there(phrase: str) -> bool:
        return bool(fitting(phrase, items))

    if match := re.fullmatch(r"how often is there (.+)", text):
        return str(len(fitting(match[1], items)))
    if match := re.fullmatch(r"what (?:(\w+) )?is (the .+)", text):
        (index,) = solve(match[2], items)
        return items[index].attributes[match[1]] if match[1] else items[index].noun
    if match := RELATION.fullmatch(text):
        (one,), (two,) = solve(match[1], items), solve(match[3], items)
        truth = holds(match[2], items[one], items[two])
        assert truth is not None, f"{text!r} is doubtful"
    elif match := re.fullmatch(r"is there (.+) more often than (.+)", text):
        one, two = (len(fitting(phrase, items)) for phrase in match.groups())
        assert one != two, f"{text!r} asks about equal numbers"
        truth = one > two
    elif match := re.fullmatch(r"is there (an? .+) (and|or|but no) (.+)", text):
        one, two = there(match[1]), there(match[3])
        truth = {"and": one and two, "or": one or two, "but no": one and not two}[match[2]]
    else:
        truth = there(re.fullmatch(r"is there (.+)", text)[1])
    return "yes" if truth else "no"


@pytest.mark.slow
def test_the_reader_answers_every_question_of_scenes(of_scenes: Asked) -> None:
    for question, items in of_scenes:
        assert answer(question.text, items) == question.answer, question


@pytest.mark.slow
def test_the_reader_answers_every_question_about_items_with_nothing_but_a_name_and_a_size(of_names: Asked) -> None:
    for question, items in of_names:
        assert answer(question.text, items) == question.answer, question


# -- what is asked ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_types_are_those_that_were_asked_for(of_scenes: Asked, of_names: Asked) -> None:
    for found in (of_scenes, of_names):
        counts = Counter(question.type for question, _ in found)
        assert sorted(counts) == sorted(TYPES)
        # a type is replaced where the scene has none to ask, which is rare
        assert all(0.15 < count / len(found) < 0.25 for count in counts.values())


@pytest.mark.slow
def test_all_templates_occur_and_adapt_to_the_items(of_scenes: Asked, of_names: Asked) -> None:
    sides = {f"compare {word}" for word in ("left of", "right of", "above", "below", "next to")}
    common = sides | {"exist", "count", "compare number", "compare bigger than", "compare smaller than"}
    common |= {"logical and", "logical or", "logical but no", "query noun", "query size", "compare of the same size as"}
    assert {question.template for question, _ in of_names} == common
    looks = {
        f"{kind}{name}{end}"
        for name in ("color", "texture")
        for kind, end in (("query ", ""), ("compare of the same ", " as"))
    }
    assert {question.template for question, _ in of_scenes} == common | looks


@pytest.mark.slow
def test_queries_refer_by_attributes_relations_and_order(of_scenes: Asked) -> None:
    said = " | ".join(question.text for question, _ in of_scenes if question.type == "query")
    for words in ("left of the", "next to the", "the leftmost", "the second", "of the same texture as", "biggest"):
        assert words in said, words


@pytest.mark.slow
def test_a_query_does_not_say_what_it_asks_about_its_item(of_scenes: Asked) -> None:
    for question, items in of_scenes:
        if question.type == "query":
            index, (begin, end) = question.named[0]
            said = question.text[begin:end].split()
            assert question.answer in (*items[index].attributes.values(), items[index].noun)
            assert question.answer not in said, question
            assert "size" not in question.template or not re.search("bigg|smalle|same size", question.text)


@pytest.mark.slow
def test_spans_name_the_one_item_their_words_describe(of_scenes: Asked, of_names: Asked) -> None:
    for question, items in (*of_scenes, *of_names):
        for index, (begin, end) in question.named:
            words = question.text[begin:end]
            assert words.split()[-1] in (items[index].noun.split()[-1], "thing")
            if question.type != "query":
                assert fitting(words.removeprefix("the "), items) == [index], question
        assert len(question.named) == 2 or question.type != "compare" or "number" in question.template


@pytest.mark.slow
def test_questions_are_short_and_use_few_words_that_captions_have_not(of_scenes: Asked) -> None:
    words = {word for question, _ in of_scenes for word in question.text.split()}
    caption = "the a an is of same as to than left right above below next second from on at top bottom leftmost"
    caption += " rightmost bigger smaller biggest smallest size color texture thing and"
    known = {*caption.split(), *COLORS, *SHAPES, *SIZES, *TEXTURES}
    assert words - known == {"there", "how", "often", "what", "more", "or", "but", "no"}
    assert max(len(encode(question.text)[0]) for question, _ in of_scenes) <= 30


# -- what words alone tell ----------------------------------------------------------------------------------------


def share(answers: Sequence[str]) -> float:
    return Counter(answers).most_common(1)[0][1] / len(answers)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["of_scenes", "of_names"])
def test_yes_and_no_are_alike_in_every_type_and_template(name: str, request: pytest.FixtureRequest) -> None:
    groups = defaultdict[str, list[str]](list)
    for question, _ in request.getfixturevalue(name):
        if question.type in YES_NO:
            groups[question.type].append(question.answer)
            groups[question.template].append(question.answer)
    for group, answers in groups.items():
        assert set(answers) == {"yes", "no"} or len(answers) < 20, group
        assert abs(answers.count("yes") / len(answers) - 0.5) < 4 * math.sqrt(0.25 / len(answers)), group


@pytest.mark.slow
def test_counts_are_spread(of_scenes: Asked) -> None:
    answers = [question.answer for question, _ in of_scenes if question.type == "count"]
    assert share(answers) < 0.36 and set(answers) >= set("012345678")


@pytest.mark.slow
def test_what_is_queried_is_any_of_its_values_alike(of_scenes: Asked) -> None:
    for name, values in (("color", COLORS), ("noun", SHAPES), ("texture", TEXTURES), ("size", SIZES)):
        answers = [question.answer for question, _ in of_scenes if question.template == f"query {name}"]
        assert set(answers) == set(values) and share(answers) < 1.5 / len(values)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["of_scenes", "of_names"])
@pytest.mark.parametrize(("kind", "most"), [("exist", 0.58), ("compare", 0.58), ("logical", 0.6), ("count", 0.5)])
def test_a_reader_of_the_words_alone_is_right_no_more_often_than_by_chance(
    name: str, kind: str, most: float, request: pytest.FixtureRequest
) -> None:
    said = [question for question, _ in request.getfixturevalue(name) if question.type == kind]
    half = len(said) // 2
    prior = Counter(question.answer for question in said[:half])
    words = defaultdict[str, Counter[str]](Counter)
    for question in said[:half]:
        words[question.answer].update(set(question.text.split()))

    def guess(text: str) -> str:  # naive Bayes
        def likely(a: str) -> float:
            return math.log(prior[a]) + sum(math.log((words[a][w] + 1) / (prior[a] + 2)) for w in set(text.split()))

        return max(prior, key=likely)

    right = sum(guess(question.text) == question.answer for question in said[half:])
    assert right / (len(said) - half) < most


@pytest.mark.slow
def test_no_question_of_training_names_a_pair_that_only_tests_show(of_scenes: Asked) -> None:
    texts = [question.text.split() for question, _ in of_scenes]
    said = {pair for words in texts for pair in pairwise(words)}
    assert len(said & {*PAIRS}) == len(PAIRS) - len(HELD_OUT) and not said & HELD_OUT


# -- chance and doubt ---------------------------------------------------------------------------------------------

CROWD = [
    thing("star", 0, 2, 2, color="red"),
    thing("star", 2, 40, 4, color="red"),
    thing("heart", 1, 20, 40, color="blue"),
]
OTHERS = [thing("ring", 0, 0, 0, color="red"), thing("heart", 2, 30, 30, color="red")]


def test_equal_chance_gives_equal_questions_and_other_chance_others() -> None:
    first, again, other = (ask(Scene(CROWD), OTHERS, TYPES, random.Random(seed)) for seed in (3, 3, 4))
    assert first == again != other


def said_of(items: list[Item]) -> set[str]:
    return {q.text for seed in range(300) for q in ask(Scene(items), OTHERS, ["compare"], random.Random(seed))}


def test_nothing_within_the_margin_of_doubt_is_compared() -> None:
    level = [thing("star", 1, 20, 4, color="red"), thing("heart", 1, 23, 40, side=16, color="red")]
    texts = said_of(level)
    assert any(" above " in text for text in texts)
    assert not any(word in text for text in texts for word in (" left of ", " right of ", "bigger", "smaller"))


def test_a_relation_is_asked_only_where_some_pairs_have_it_and_others_have_not() -> None:
    alike = [thing("star", 0, 2, 2, color="red"), thing("heart", 2, 40, 4, color="red")]
    assert not any("of the same color" in text for text in said_of(alike))
    assert any("of the same color" in text for text in said_of(CROWD))


def test_a_question_is_never_about_one_thing_within_another() -> None:
    for seed in range(300):
        for question in ask(Scene(CROWD), OTHERS, ["logical"], random.Random(seed)):
            if question.type == "logical":
                one, two = re.fullmatch(r"is there an? (.+) (?:and|or|but no) (?:an? )?(.+)", question.text).groups()
                one, two = (set(text.split()) - {"thing"} for text in (one, two))
                assert not one <= two and not two <= one, question


def test_where_a_type_has_nothing_to_ask_another_is_asked() -> None:
    (question,) = ask(Scene(CROWD[:1]), OTHERS, ["compare"], random.Random(0))
    assert question.type != "compare" and answer(question.text, CROWD[:1]) == question.answer
