"""Reads referring expressions back by a strict grammar, and tells whether anything in a scene is meant by them."""

import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from snp.data.drawn.expressions import Scene
from snp.data.drawn.items import ANYTHING, Description, Item, Order, Relation, bits_of, ending
from snp.data.drawn.scenes import Scenes
from snp.data.drawn.sketch import Generator

Verdict = Literal["fits", "doubt", "none", "unreadable"]
_PLACE = " in the picture"


@dataclass(frozen=True)
class Sentence:
    """A referring expression, taken apart.

    Args:
        root: what is referred to.
        relations: for each the texts of it, short and long, and the landmark; two of them are joined by "and".
        order: template around the root, "" without one; a sentence has an order, or relations, or neither.
        behind: adjectives of the root that follow it, as in "the star that is small and red".
        long: relations are told at length, an order with its ending.
        place: it ends in "in the picture", or the root does that has adjectives behind it.
    """

    root: Description
    relations: tuple[tuple[tuple[str, str], Description], ...] = ()
    order: str = ""
    behind: int = 0
    long: bool = False
    place: bool = False

    def text(self) -> str:
        """The sentence in words, as scenes make it."""
        place = _PLACE if self.place else ""
        if self.order:
            return self.order.format(self.root.text()) + (ending(self.order) if self.long else "")
        if self.relations:
            told = " and ".join(f"{relation[self.long]} the {mark.text()}" for relation, mark in self.relations)
            return f"the {self.root.text()} {'that is ' if self.long else ''}{told}{place}"
        cut = len(self.root.adjectives) - self.behind
        front = Description(self.root.noun, self.root.adjectives[:cut])
        behind = " and ".join(word for _, word in self.root.adjectives[cut:])
        return f"the {front.text()}{place}" + (f" that is {behind}" if behind else "")

    @property
    def descriptions(self) -> tuple[Description, ...]:
        """The root and the landmarks."""
        return self.root, *(mark for _, mark in self.relations)


@dataclass(frozen=True)
class Language:
    """The words of a data set, and the sentences that they make.  [ours]

    Args:
        nouns: what things are called.
        attributes: class of adjectives -> its words, in the order of speech.
        rare: pairs (adjective, noun) that pictures are kept from having: to name one would tell that nothing is meant.
    """

    nouns: tuple[str, ...]
    attributes: Mapping[str, tuple[str, ...]]
    rare: Set[tuple[str, str]] = frozenset()

    @classmethod
    def of(cls, generator: Generator) -> "Language":
        """That of a data set's own sentences."""
        return cls(tuple(generator.nouns), generator.attributes, generator.held_out)

    def heard(self, said: Description) -> bool:
        """Whether pictures may have what is described: no two of its words are `rare`."""
        return not any((word, said.noun) in self.rare for _, word in said.adjectives)

    def parse(self, caption: str) -> Sentence | None:
        """A sentence as scenes make them, to the letter: `text` gives the caption again; None for any other."""
        found = self._ordered(caption) or self._related(caption) or self._alone(caption)
        return found if found and found.text() == caption else None

    def description(self, text: str) -> Description | None:
        """A description by its words; None where one is unknown, or they stand in another order."""
        found = self._description.fullmatch(text)
        if found is None:
            return None
        *words, noun = found.groups()
        return Description(noun, tuple((name, word) for name, word in zip(self.attributes, words, strict=True) if word))

    def _ordered(self, caption: str) -> Sentence | None:
        for template, pattern in self._templates.items():
            if (found := pattern.fullmatch(caption)) and (root := self.description(found[1])):
                return Sentence(root, order=template, long=found[2] is not None)
        return None

    def _related(self, caption: str) -> Sentence | None:
        found = self._relation.fullmatch(caption)
        if found is None:
            return None
        said, long, one, first, two, second, place = found.groups()
        root, *marks = (self.description(text) for text in (said, first, second) if text is not None)
        known = [(self._relations[word], mark) for word, mark in zip((one, two), marks, strict=False) if mark]
        if root is None or len(known) != len(marks) or (second and (not long or place)) or (place and not long):
            return None
        return Sentence(root, tuple(known), long=long is not None, place=place is not None)

    def _alone(self, caption: str) -> Sentence | None:
        found = re.fullmatch(rf"the (.+?)({_PLACE})?(?: that is (.+))?", caption)
        front = self.description(found[1]) if found else None
        if found is None or front is None:
            return None
        behind = found[3].split(" and ") if found[3] else []
        root = self.description(Description(front.noun, (*front.adjectives, *(("", word) for word in behind))).text())
        return Sentence(root, behind=len(behind), place=found[2] is not None) if root else None

    @cached_property
    def _scene(self) -> Scene:
        """A scene that has all relations and orders."""
        return Scene([Item(ANYTHING, {name: words[0] for name, words in self.attributes.items()}, 0, (0, 0, 1, 1))])

    @cached_property
    def _relations(self) -> dict[str, tuple[str, str]]:
        both = [(relation.short, relation.long) for relation in self._scene.relations]
        return {text: texts for texts in both for text in texts}

    @cached_property
    def _templates(self) -> dict[str, re.Pattern[str]]:
        templates = [template for order in self._scene.orders for template in (*order.first, order.second)]
        return {text: re.compile(f"{text.format('(.+?)')}({ending(text)})?") for text in templates}

    @cached_property
    def _relation(self) -> re.Pattern[str]:
        one = f"({'|'.join(sorted(self._relations, key=len, reverse=True))}) the (.+?)"
        return re.compile(f"the (.+?)( that is)? {one}(?: and {one})?({_PLACE})?")

    @cached_property
    def _description(self) -> re.Pattern[str]:
        adjectives = "".join(f"(?:({'|'.join(words)}) )?" for words in self.attributes.values())
        return re.compile(f"{adjectives}({'|'.join((*self.nouns, ANYTHING))})")


SCENES = Language.of(Scenes())


def truth(caption: str, items: Sequence[Item], language: Language = SCENES) -> Verdict:
    """Whether a caption means anything among the items of a picture.

    ``fits``: an item clearly fits; ``none``: no item may fit, even to an eye; ``doubt``: between the two;
    ``unreadable``: no sentence of this language. A landmark is any item that fits its description.
    """
    sentence = language.parse(caption)
    if sentence is None:
        return "unreadable"
    return judge(sentence, Scene(items))


def judge(sentence: Sentence, scene: Scene) -> Literal["fits", "doubt", "none"]:
    """As `truth`, of a sentence that is read."""
    if meant(sentence, scene, clearly=True):
        return "fits"
    return "doubt" if meant(sentence, scene, clearly=False) else "none"


def meant(sentence: Sentence, scene: Scene, clearly: bool) -> int:
    """The items, as bits, that a sentence clearly means, or may mean to an eye."""
    fits = scene.fitting(sentence.root)
    if sentence.order:
        order, second = order_of(sentence, scene)
        fitting = order.clear if clearly else order.possible
        return sum(1 << item for item in bits_of(fits) if fitting(fits, item, second))
    for texts, mark in sentence.relations:
        relation = relation_of(texts, scene)
        related = 0
        for landmark in bits_of(scene.fitting(mark)):
            related |= (relation.holds if clearly else relation.may)[landmark]
        fits &= related
    return fits


def order_of(sentence: Sentence, scene: Scene) -> tuple[Order, bool]:
    """The order of a sentence that has one, and whether it is about the second."""
    order = next(o for o in scene.orders if sentence.order in (*o.first, o.second))
    return order, sentence.order == order.second


def relation_of(texts: tuple[str, str], scene: Scene) -> Relation:
    """The relation with these texts."""
    return next(r for r in scene.relations if r.short == texts[0])


def related(caption: str, items: Sequence[Item], language: Language = SCENES) -> bool:
    """Whether all that a caption names, nouns and adjectives, occurs in a picture, though not together perhaps.

    False for what is no sentence.
    """
    sentence = language.parse(caption)
    return sentence is not None and named(sentence, items)


def named(sentence: Sentence, items: Sequence[Item]) -> bool:
    """As `related`, of a sentence that is read."""
    there = {Description(item.noun, tuple(item.attributes.items())) for item in items}
    known = {part for item in there for part in item.parts}
    return all(part in known for said in sentence.descriptions for part in said.parts)
