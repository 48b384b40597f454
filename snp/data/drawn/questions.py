"""Questions about a picture: answers right by construction, that words alone do not give away.  [ours]

A description of something that is not there is one of another picture's items, so that what is asked about is alike
whatever the answer. Most words are those of the captions: "how often is there a red circle" needs no plural.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from snp.data.annotations import Span
from snp.data.drawn.expressions import KINDS, Scene
from snp.data.drawn.items import NOUN, Item, Phrase, bits_of, indefinite

TYPES = ("exist", "count", "query", "compare", "logical")
_TRIES = 10
_Form = tuple[str, ...]
"""The classes of a description, in the order of speech."""
_YES_NO = ("no", "yes")
# Logical words, and what may be there of (first, second) for either answer; the likelier ones stand twice.
_LOGIC = {
    "and": {True: [(1, 1)], False: [(1, 0), (0, 1), (1, 0), (0, 1), (0, 0)]},
    "or": {True: [(1, 0), (0, 1), (1, 0), (0, 1), (1, 1)], False: [(0, 0)]},
    "but no": {True: [(1, 0)], False: [(1, 1), (0, 0), (1, 1), (0, 0), (0, 1)]},
}


@dataclass(frozen=True)
class Question:
    """A question without a mark, and its answer.

    Args:
        type: one of `TYPES`.
        template: what it is about, as ``query color`` or ``logical and``.
        answer: yes, no, a number in digits, or one word of the asked class.
        named: (item index, span) of every description that fits one item alone.
    """

    text: str
    type: str
    template: str
    answer: str
    named: tuple[tuple[int, Span], ...] = ()


def ask(scene: Scene, others: Sequence[Item], types: Iterable[str], rng: random.Random) -> list[Question]:
    """One question of each of these types, no two alike; of another type where the scene has none to ask.

    Args:
        others: items of another picture: what might have been here.
    """
    asker = _Asker(scene, others, rng)
    questions: dict[str, Question] = {}
    for kind in types:
        tries = (asker.ask(one) for one in (kind, *TYPES) for _ in range(_TRIES))
        found = next((question for question in tries if question and question.text not in questions), None)
        if found is not None:
            questions[found.text] = found
    return list(questions.values())


class _Asker:
    def __init__(self, scene: Scene, others: Sequence[Item], rng: random.Random) -> None:
        self.scene, self.rng = scene, rng
        self.there = _by_form(phrase for phrases in scene.phrases for phrase in phrases)
        foreign = (phrase for item in others for phrase in scene.describe(item))
        self.missing = _by_form(phrase for phrase in foreign if not phrase.fits)
        self.words = {part for item in scene.items for part in (*item.attributes.items(), (NOUN, item.noun))}

    def ask(self, kind: str) -> Question | None:
        """A question of this type, or None if chance met nothing that can be asked."""
        asks: dict[str, Callable[[], Question | None]] = {
            "exist": self._exist,
            "count": self._count,
            "query": self._query,
            "compare": self._compare,
            "logical": self._logical,
        }
        return asks[kind]()

    def _exist(self) -> Question | None:
        phrase = self._phrase(yes := self.rng.random() < 0.5)
        return None if phrase is None else _question("exist", "exist", _YES_NO[yes], "is there", _a(phrase))

    def _count(self) -> Question | None:
        """The form of what is counted is drawn first, then the number: how it is said tells little of the answer."""
        form = self.rng.choice([form for form in self.there if len(form) <= 2])
        by_number = defaultdict[int, list[Phrase]](list)
        for phrase in (*self.there[form], *self.missing.get(form, ())):
            by_number[phrase.fits.bit_count()].append(phrase)
        number = self.rng.choice(sorted(by_number))
        return _question("count", "count", str(number), "how often is there", _a(self.rng.choice(by_number[number])))

    def _query(self) -> Question | None:
        index = self.rng.randrange(len(self.scene.items))
        item = self.scene.items[index]
        asked = self.rng.choice((*item.attributes, NOUN))
        view = self.scene.about(index, (asked,))
        found = view.refer(self.rng.choice(("refcoco", "refcoco+")), self.rng.choice(KINDS), self.rng)
        if found is None:
            return None
        head = "what is " if asked == NOUN else f"what {asked} is "
        named = tuple((i, (begin + len(head), end + len(head))) for i, (begin, end) in found.named)
        answer = item.noun if asked == NOUN else item.attributes[asked]
        return Question(head + found.caption, "query", f"query {asked}", answer, named)

    def _compare(self) -> Question | None:
        """A relation between two items, of those that some pairs here have and others clearly have not."""
        if self.rng.random() < 0.2:
            return self._more()
        relation = self.rng.choice(self.scene.relations)
        items = range(len(self.scene.items))
        unique = [self.scene.unique(index, relation.silent) for index in items]
        pairs = [(a, b) for a in items for b in items if a != b and unique[a] and unique[b]]
        sure = {
            True: [(a, b) for a, b in pairs if relation.holds[b] >> a & 1],
            False: [(a, b) for a, b in pairs if not relation.may[b] >> a & 1],
        }
        if not all(sure.values()):
            return None
        pair = self.rng.choice(sure[yes := self.rng.random() < 0.5])
        one, two = (self.rng.choice(unique[index]) for index in pair)
        words = "is", (f"the {one.text()}", one), relation.short, (f"the {two.text()}", two)
        return _question("compare", f"compare {relation.short}", _YES_NO[yes], *words)

    def _more(self) -> Question | None:
        form = self.rng.choice([form for form in self.there if len(form) <= 2])
        phrases = self.there[form]
        pairs = [(p, q) for p in phrases for q in phrases if p.fits.bit_count() > q.fits.bit_count()]
        if not pairs:
            return None
        more, fewer = map(_a, self.rng.choice(pairs))
        yes = self.rng.random() < 0.5
        words = "is there", more if yes else fewer, "more often than", fewer if yes else more
        return _question("compare", "compare number", _YES_NO[yes], *words)

    def _logical(self) -> Question | None:
        word, yes = self.rng.choice(list(_LOGIC)), self.rng.random() < 0.5
        for _ in range(_TRIES):  # with the same answer, or the one that fails more often would be rarer
            one, two = (self._phrase(bool(there)) for there in self.rng.choice(_LOGIC[word][yes]))
            # "a star and a red star" are no two things
            if one and two and not set(one.parts) <= set(two.parts) and not set(two.parts) <= set(one.parts):
                second = (two.text(), two) if word == "but no" else _a(two)
                return _question("logical", f"logical {word}", _YES_NO[yes], "is there", _a(one), word, second)
        return None

    def _phrase(self, there: bool) -> Phrase | None:
        """A description of something that is, or is not there, of a form that both may have.

        Half of those that are not there, where chance has some, are made of words that each fit something.
        """
        forms = [form for form in self.there if form in self.missing]
        if not forms:
            return None
        phrases = (self.there if there else self.missing)[self.rng.choice(forms)]
        if not there and self.rng.random() < 0.5:
            phrases = [phrase for phrase in phrases if self.words.issuperset(phrase.parts)] or phrases
        return self.rng.choice(phrases)


def _by_form(phrases: Iterable[Phrase]) -> dict[_Form, list[Phrase]]:
    found = defaultdict[_Form, list[Phrase]](list)
    for phrase in dict.fromkeys(phrases):
        found[tuple(name for name, _ in phrase.parts)].append(phrase)
    return dict(found)


def _a(phrase: Phrase) -> tuple[str, Phrase]:
    return indefinite(phrase.text()), phrase


def _question(kind: str, template: str, answer: str, *words: str | tuple[str, Phrase]) -> Question:
    """Words in a row; those that stand for a description bring it along."""
    text, named = "", list[tuple[int, Span]]()
    for word in words:
        text += " " if text else ""
        if not isinstance(word, str):
            word, phrase = word
            if phrase.fits.bit_count() == 1:
                named += [(index, (len(text), len(text) + len(word))) for index in bits_of(phrase.fits)]
        text += word
    return Question(text, kind, template, answer, tuple(named))
