"""Expressions without a target: one part of an expression is changed, so that nothing in its picture may be meant."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from snp.data.drawn.expressions import Scene
from snp.data.drawn.items import ANYTHING, Description, Expression
from snp.data.drawn.truth import Language, Sentence, judge, named, order_of, relation_of

KINDS = ("attribute", "noun", "relation", "order", "landmark")
"""What is changed: an adjective or the noun of what is referred to; a relation; whether it is the first by an order or
the second; an adjective or the noun of a landmark."""


@dataclass(frozen=True)
class Edit:
    """An expression, and the caption without a target that was made of it.  [ours]

    Args:
        kind: one of `KINDS`.
        hard: all that the caption names occurs in the picture, though not together.
        target: the item of the source, which is still the most plausible one.
    """

    source: str
    caption: str
    kind: str
    hard: bool
    target: int


def edit(
    scene: Scene,
    sources: Sequence[Expression],
    kinds: Sequence[str],
    style: str,
    language: Language,
    rng: random.Random,
) -> Edit | None:
    """An expression changed by the first of these kinds that it can be changed by; None where none can.

    No item may fit it, even to an eye; hard and easy ones are as likely where there are both. The expression is drawn
    first, so that captions without a target have the forms of those with one.

    Args:
        style: benchmark whose relations and orders are used.
    """
    read = [(source, sentence) for source in sources if (sentence := language.parse(source.caption))]
    for source, sentence in rng.sample(read, len(read)):
        for kind in kinds:
            found: dict[bool, list[str]] = {}
            for changed in changes(sentence, kind, style, scene, language):
                if judge(changed, scene) == "none":
                    found.setdefault(named(changed, scene.items), []).append(changed.text())
            if found:
                hard = rng.choice(sorted(found))
                return Edit(source.caption, rng.choice(found[hard]), kind, hard, source.target)
    return None


def changes(sentence: Sentence, kind: str, style: str, scene: Scene, language: Language) -> Iterator[Sentence]:
    """All sentences that differ in one part of this kind, whatever they mean, which say nothing that scenes do not."""
    for changed in _CHANGES[kind](sentence, style, scene, language):
        silent = [relation_of(texts, scene).silent for texts, _ in changed.relations]
        silent += [order_of(changed, scene)[0].silent] if changed.order else []
        if not any(said.uses(classes) for classes in silent for said in changed.descriptions):
            yield changed


def _attribute(sentence: Sentence, style: str, scene: Scene, language: Language) -> Iterator[Sentence]:
    return (replace(sentence, root=root) for root in _adjectives(sentence.root, language))


def _noun(sentence: Sentence, style: str, scene: Scene, language: Language) -> Iterator[Sentence]:
    return (replace(sentence, root=root) for root in _nouns(sentence.root, language))


def _relation(sentence: Sentence, style: str, scene: Scene, language: Language) -> Iterator[Sentence]:
    for place, (texts, mark) in enumerate(sentence.relations):
        for other in scene.usable(style):
            if other.short != texts[0]:
                yield _related(sentence, place, (other.short, other.long), mark)


def _order(sentence: Sentence, style: str, scene: Scene, language: Language) -> Iterator[Sentence]:
    """Of what is the only one, none is the second; some item is always the first, by whatever order."""
    if not sentence.relations and not sentence.order and not sentence.behind:
        for order in scene.ordering(style):
            yield Sentence(sentence.root, order=order.second, long=style == "refcocog")


def _landmark(sentence: Sentence, style: str, scene: Scene, language: Language) -> Iterator[Sentence]:
    for place, (texts, mark) in enumerate(sentence.relations):
        for other in (*_adjectives(mark, language), *_nouns(mark, language)):
            yield _related(sentence, place, texts, other)


_CHANGES = dict(zip(KINDS, (_attribute, _noun, _relation, _order, _landmark), strict=True))


def _related(sentence: Sentence, place: int, texts: tuple[str, str], mark: Description) -> Sentence:
    """With another relation at this place."""
    told = sentence.relations
    return replace(sentence, relations=(*told[:place], (texts, mark), *told[place + 1 :]))


def _adjectives(said: Description, language: Language) -> Iterator[Description]:
    """With another word for one of the adjectives."""
    for place, (name, word) in enumerate(said.adjectives):
        for other in language.attributes[name]:
            adjectives = (*said.adjectives[:place], (name, other), *said.adjectives[place + 1 :])
            changed = Description(said.noun, adjectives)
            if other != word and language.heard(changed):
                yield changed


def _nouns(said: Description, language: Language) -> Iterator[Description]:
    """With another noun; a "thing" stays one."""
    for other in language.nouns if said.noun != ANYTHING else ():
        changed = Description(other, said.adjectives)
        if other != said.noun and language.heard(changed):
            yield changed
