"""Captions without a target that are made of expressions: by a model that reads and sees, its baselines, and rules."""

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from snp.asking import generator, judged, pairs
from snp.asking.beam import State, beam
from snp.asking.captions import generate, nearest, swapped
from snp.asking.generator import BEGIN, END, Asker, Scene, Words, ask, learn
from snp.asking.pairs import Pair
from snp.data.annotations import Entry
from snp.data.drawn.edits import KINDS as EDITS
from snp.data.drawn.edits import edit
from snp.data.drawn.expressions import Scene as Drawn
from snp.data.drawn.scenes import Scenes
from snp.data.drawn.sketch import Sketch, sketch
from snp.data.drawn.truth import SCENES
from snp.errors import InputError
from snp.files import write_json
from snp.models.augment import KINDS, Augment

WORDS = Words.of(["the red star", "the blue moon"])
PICTURES = 60


def said(caption: str, picture: str = "train/0.png") -> Entry:
    spans = (((0, len(caption)),),)
    return Entry(0, picture, 64, 64, caption, "refcoco", ((8, 8, 16, 16),), spans)


@pytest.fixture(scope="module")
def sketches() -> dict[str, Sketch]:
    """Drawn training pictures, by their file names."""
    return {f"train/{number:06d}.png": sketch(Scenes(), 3, "train", number) for number in range(PICTURES)}


@pytest.fixture(scope="module")
def entries(sketches: dict[str, Sketch]) -> list[Entry]:
    """An expression of each picture."""
    found = []
    for name, made in sketches.items():
        one = made.expressions["refcoco"][0]
        found.append(replace(said(one.caption, name), boxes=(made.scene.items[one.target].box,)))
    return found


@pytest.fixture(scope="module")
def true(sketches: dict[str, Sketch], entries: list[Entry]) -> list[Pair]:
    """A true edit of each expression that has one."""
    rng, found = random.Random(0), []
    for entry in entries:
        made = sketches[entry.file_name]
        one = edit(made.scene, made.expressions["refcoco"], EDITS, "refcoco", SCENES, rng)
        found += [] if one is None else [Pair(entry, one.caption)]
    return found


@pytest.fixture(scope="module")
def scenes(sketches: dict[str, Sketch]) -> Callable[[str], Drawn]:
    return lambda file_name: sketches[file_name].scene


def look(entries: Sequence[Entry]) -> Scene:
    """Four places of every picture, which tell it from others."""
    seen = [torch.randn(4, 8, generator=torch.Generator().manual_seed(len(entry.file_name))) for entry in entries]
    return Scene(torch.stack(seen), torch.tensor([[True, False, False, False]] * len(entries)))


def nothing(entries: Sequence[Entry]) -> Scene:
    """Pictures that are black to the last bit."""
    return Scene(torch.zeros(len(entries), 4, 8), torch.zeros(len(entries), 4, dtype=torch.bool))


# -- the model ---------------------------------------------------------------------------------------------------


def test_what_the_vocabulary_and_the_expression_give_to_the_next_word_is_one() -> None:
    torch.manual_seed(0)
    model = Asker(len(WORDS), 8).eval()
    ids = WORDS.encode(["the red star", "moon"])  # the second one is padded
    read = model.read(ids, look([said("a"), said("b")]))
    chance = model.say(torch.randn(2, 5, generator.WIDTH), read)
    assert torch.allclose(chance.sum(2), torch.ones(2, 5), atol=1e-6) and bool((chance[..., :END] == 0).all())
    torch.nn.init.constant_(model.gate.bias, -100)  # copies alone
    copied = model.say(torch.randn(2, 5, generator.WIDTH), read)
    assert set(copied[1, 0].nonzero().flatten().tolist()) == set(ids[1, :2].tolist())
    assert torch.allclose(copied.sum(2), torch.ones(2, 5), atol=1e-6)


@pytest.mark.parametrize("channels", [None, 8])
def test_padding_changes_nothing_that_is_said(channels: int | None) -> None:
    torch.manual_seed(0)
    model = Asker(len(WORDS), channels).eval()
    alone, beside = WORDS.encode(["blue moon"]), WORDS.encode(["blue moon", "the red star"])
    scene = None if channels is None else look([said("a")])
    two = None if scene is None else Scene(*(part.expand(2, *part.shape[1:]) for part in scene))
    state = torch.randn(1, 3, generator.WIDTH)
    expected = model.say(state, model.read(alone, scene))
    assert torch.allclose(model.say(state.expand(2, -1, -1), model.read(beside, two))[:1], expected, atol=1e-6)


@pytest.fixture
def eagerly(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that needs few steps for what is easy."""
    monkeypatch.setattr(generator, "RATE", 1e-2)
    monkeypatch.setattr(generator, "EPOCHS", 30)


def test_one_pair_is_learned_by_heart(eagerly: None) -> None:
    pair = Pair(said("the red star"), "the blue star")
    words = Words.of(["the red star", "the blue star moon"])
    for sees in (look, None):
        model = learn([pair], words, sees, 0)
        assert list(ask(model, words, sees, [pair.source], 5)) == ["the blue star"]


def test_what_is_asked_depends_on_the_picture_and_on_nothing_where_it_is_black(eagerly: None) -> None:
    here, there = said("the red star", "a"), said("the red star", "other")
    taught = [Pair(here, "the blue star"), Pair(there, "the red moon")] * 4
    for sees, differ in ((look, True), (nothing, False), (None, False)):
        model = learn(taught, WORDS, sees, 0)
        one, other = ask(model, WORDS, sees, [here, there], 5)
        assert (one != other) is differ
        if differ:
            assert (one, other) == ("the blue star", "the red moon")


def test_words_are_written_and_read_back() -> None:
    ids = WORDS.encode(["the red moon", "star"])
    assert ids.shape == (2, 4) and [WORDS.decode(row) for row in ids.tolist()] == ["the red moon", "star"]
    assert WORDS.decode([*ids[0].tolist()[:3]]) == "the red moon", "one that never ends is taken as it is"


# -- beam search -------------------------------------------------------------------------------------------------

# words: BEGIN = 1, END = 2, and a = 3, b = 4: a is likelier, but what follows b is sure
CHAIN = torch.zeros(5, 5)
CHAIN[BEGIN, 3], CHAIN[BEGIN, 4] = 0.6, 0.4
CHAIN[3, 3], CHAIN[3, 4], CHAIN[3, END] = 0.4, 0.2, 0.4 - 1e-3
CHAIN[4, END] = 1.0


def chain(last_R: Tensor, state: State) -> tuple[Tensor, State]:
    return CHAIN[last_R].log(), state


def test_a_beam_finds_a_likelier_sentence_than_the_likeliest_words_make() -> None:
    state = (torch.zeros(3, 1),)
    assert beam(chain, state, BEGIN, END, 1, 4).tolist() == [[3, 3, 3, 3]] * 3
    assert beam(chain, state, BEGIN, END, 2, 4).tolist() == [[4, END]] * 3  # 0.4 against 0.6 * 0.399


def test_a_beam_of_one_takes_the_likeliest_word_each_time_and_wider_ones_end_no_less_likely() -> None:
    torch.manual_seed(1)
    model = Asker(len(WORDS), 8).eval()
    sources = WORDS.encode(["the red star", "the blue moon", "star"])
    scene = look([said("a", "1"), said("b", "22"), said("c", "333")])

    def likelihood(row: int, ids: list[int]) -> float:
        wanted = torch.tensor([ids[: ids.index(END) + 1] if END in ids else ids])
        part = Scene(*(one[row : row + 1] for one in scene))
        return -float(model(sources[row : row + 1], part, wanted)) * wanted.shape[1]

    with torch.no_grad():
        one, five = (model.write(sources, scene, 6, width) for width in (1, 5))
        for row in range(3):
            part, ids = Scene(*(each[row : row + 1] for each in scene)), list[int]()
            while len(ids) < 6 and END not in ids:  # by hand: everything read anew for every word
                read = model.read(sources[row : row + 1], part)
                states, _ = model.writer(model.embedding(torch.tensor([[BEGIN, *ids]])), model.begin(read))
                ids.append(int(model.say(states, read)[0, -1].argmax()))
            assert one[row][: len(ids)] == ids
            assert likelihood(row, five[row]) >= likelihood(row, ids) - 1e-5


# -- the kinds ---------------------------------------------------------------------------------------------------


def test_a_swap_changes_one_word_for_another_of_its_class() -> None:
    rng, seen = random.Random(0), Counter[str]()
    groups = [set(SCENES.nouns), *map(set, SCENES.attributes.values())]
    for _ in range(200):
        before = "the small red star left of the plain moon"
        after = swapped(before, SCENES, rng)
        (one,) = [pair for pair in zip(before.split(), after.split(), strict=True) if pair[0] != pair[1]]
        assert any(set(one) <= group for group in groups)
        seen[one[0]] += 1
    assert set(seen) == {"small", "red", "star", "plain", "moon"}
    assert swapped("the leftmost thing", SCENES, rng) == "the leftmost thing"


def test_the_nearest_expression_is_the_one_with_the_largest_product_of_rare_words(entries: list[Entry]) -> None:
    texts = sorted({entry.caption for entry in entries})
    having = Counter(word for text in texts for word in set(text.split()))

    def similarity(one: str, two: str) -> float:
        vectors = [
            {word: n * math.log(len(texts) / having[word]) for word, n in Counter(text.split()).items()}
            for text in (one, two)
        ]
        norms = [math.sqrt(sum(value**2 for value in vector.values())) for vector in vectors]
        return sum(value * vectors[1].get(word, 0) for word, value in vectors[0].items()) / math.prod(norms)

    for entry, found in zip(entries, nearest(entries, entries), strict=True):
        best = max(similarity(entry.caption, other) for other in texts if other != entry.caption)
        assert found != entry.caption and similarity(entry.caption, found) == pytest.approx(best, abs=1e-5)


def test_what_is_said_of_a_picture_is_none_of_its_nearest() -> None:
    entries = [said("the red star", "a"), said("the big red star", "a"), said("the moon", "b")]
    assert list(nearest(entries, entries))[:2] == ["the moon", "the moon"]


@pytest.mark.parametrize("kind", KINDS)
def test_equal_seeds_give_equal_captions_of_pictures_that_nothing_was_learned_of(
    kind: str, entries: list[Entry], true: list[Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generator, "EPOCHS", 2)
    how = Augment.from_text(f"ask,kind={kind},pairs=20,count=12")
    made, again, other = (generate(how, entries, true, SCENES, look, seed) for seed in (0, 0, 1))
    assert made == again != other
    assert len(made) <= 12 and (len(made) == 12 or kind in ("pair", "seq"))  # the model may say what it was told
    known = {pair.source.file_name for pair in true[:20]}
    for pair in made:
        assert pair.caption not in ("", pair.source.caption)
        assert pair.source in entries and pair.source.file_name not in known
    if kind in ("random", "nearest"):
        by_caption = {entry.caption: entry for entry in entries}
        assert all(by_caption[pair.caption].file_name != pair.source.file_name for pair in made)


def test_of_few_pairs_half_are_learned_from() -> None:
    several = [Pair(said("the red star"), f"the {k}") for k in range(10)]
    assert tuple(map(len, pairs.split(several, 1000))) == (5, 5)
    assert [*pairs.split(several, 3)[0]] == several[:3]


def test_too_little_to_make_captions_of_is_one_line() -> None:
    lone = [Pair(said("the red star"), "the blue star")] * 2
    with pytest.raises(InputError, match="use more data"):
        generate(Augment(), [lone[0].source], lone, SCENES, look, 0)


# -- what they are -----------------------------------------------------------------------------------------------


def test_true_edits_have_no_noise_until_they_are_of_other_pictures(
    entries: list[Entry], true: list[Pair], scenes: Callable[[str], Drawn]
) -> None:
    made = generate(Augment(kind="rule", pairs=5), entries, true, SCENES, look, 0)
    assert len(made) == len(true) - 5
    told = judged.report(made, scenes, SCENES)
    assert (told["noise"], told["doubt"], told["readable"]) == (0, 0, 1) and 0 < told["related"] < 1
    moved = [Pair(other.source, pair.caption) for pair, other in zip(made, [*made[1:], made[0]], strict=True)]
    assert judged.report(moved, scenes, SCENES)["noise"] > 0


@pytest.mark.parametrize("noise", [0.25, 0.5])
def test_noise_that_is_asked_for_is_what_is_found(
    noise: float, entries: list[Entry], true: list[Pair], scenes: Callable[[str], Drawn]
) -> None:
    made = generate(Augment(kind="rule", pairs=5, count=40, noise=noise), entries, true, SCENES, look, 0)
    told = judged.report(made, scenes, SCENES)
    assert len(made) == 40 and told["noise"] == noise
    assert sum(pair.caption == pair.source.caption for pair in made) == 40 * noise


def test_captions_are_counted_by_what_they_are(entries: list[Entry], scenes: Callable[[str], Drawn]) -> None:
    source = entries[0]
    word = source.caption.split()
    made = [
        Pair(source, source.caption),  # fits, and is all copied
        Pair(source, "star the the"),  # is no sentence
        Pair(source, f"{word[0]} qua quo {word[-1]}"),  # nor is that, of which half is copied
    ]
    told = judged.report(made, scenes, SCENES)
    copied = (1 + np.mean([one in word for one in ["star", "the", "the"]]) + 0.5) / 3
    assert told == pytest.approx(
        {"noise": 1 / 3, "doubt": 0, "readable": 1 / 3, "related": 1 / 3, "copied": copied}, abs=1e-9
    )


def test_scenes_are_drawn_again_by_their_names(smoke_data: Path, sketches: dict[str, Sketch]) -> None:
    scene, language = judged.drawn(smoke_data / "scenes-smoke")
    assert scene("train/000003.png").items == sketch(Scenes(), 0, "train", 3).scene.items
    assert language == SCENES


# -- files and values --------------------------------------------------------------------------------------------


def test_pairs_are_written_and_read_back(tmp_path: Path, entries: list[Entry], true: list[Pair]) -> None:
    path = write_json(tmp_path / "pairs.json", [pair.to_json() for pair in true])
    assert pairs.read(path, entries) == true
    caption = true[0].entry(7, "no-target")
    assert (caption.id, caption.caption, caption.boxes, caption.spans) == (7, true[0].caption, (), ())
    assert caption.file_name == true[0].source.file_name


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"source": "the moon"}, r"pairs.json: \[1\].source: 'the moon' is no expression of train/0.png"),
        ({"caption": " "}, r"pairs.json: \[1\].caption: is empty"),
        ({"caption": None}, r"pairs.json: \[1\].caption: missing"),
    ],
)
def test_a_pair_that_is_none_is_named(change: dict, where: str, tmp_path: Path) -> None:
    pair = Pair(said("the red star"), "the blue star")
    path = write_json(tmp_path / "pairs.json", [pair.to_json(), pair.to_json() | change])
    with pytest.raises(InputError, match=where):
        pairs.read(path, [pair.source])


@pytest.mark.parametrize("text", ["ask", "ask,kind=swap", "ask,count=20000,kind=rule,noise=0.1,pairs=250,phases=1"])
def test_what_is_made_is_written_as_it_is_read(text: str) -> None:
    assert str(Augment.from_text(text)) == text


@pytest.mark.parametrize(
    "text", ["ask,noise=0.1", "ask,kind=rule,noise=1", "ask,phases=3", "ask,pairs=0", "ask,kind=x"]
)
def test_what_cannot_be_made_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        Augment.from_text(text)
