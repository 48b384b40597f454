"""Things that can be spoken of, and what can be said of them: values, and how phrases are chosen."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from snp.data.annotations import Span

ANYTHING = "thing"
NOUN = "noun"
"""The class of what an item is called, beside those of its attributes."""


@dataclass(frozen=True)
class Item:
    """An object that can be spoken of.

    Args:
        noun: its name.
        attributes: adjective by class, in the order of speech (size, texture, color).
        rank: size class, 0 = small; classes differ clearly to an eye.
        box: (x, y, width, height) in pixels.
        category: category id.
        target: whether expressions may refer to it (others serve as landmarks and rivals).
    """

    noun: str
    attributes: Mapping[str, str]
    rank: int
    box: tuple[int, int, int, int]
    category: int = 0
    target: bool = True


@dataclass(frozen=True)
class Description:
    """A noun (or "thing") and adjectives (class, word), in the order of speech."""

    noun: str
    adjectives: tuple[tuple[str, str], ...]

    def text(self, front: str = "") -> str:
        return " ".join([*front.split(), *(word for _, word in self.adjectives), self.noun])

    @property
    def bare(self) -> bool:
        """Whether it is "thing" alone, which says nothing."""
        return self.noun == ANYTHING and not self.adjectives

    @property
    def parts(self) -> tuple[tuple[str, str], ...]:
        """Everything it says, as (class, word)."""
        return self.adjectives if self.noun == ANYTHING else (*self.adjectives, (NOUN, self.noun))

    def uses(self, classes: Sequence[str]) -> bool:
        """Whether it says anything of one of these classes."""
        return bool(classes) and any(name in classes for name, _ in self.parts)


@dataclass(frozen=True)
class Phrase(Description):
    """A description of an item of a picture, and the items it fits as bits."""

    fits: int


@dataclass(frozen=True)
class Expression:
    """A sentence with the items it names: `named` holds (item index, span), the referent first."""

    caption: str
    kind: str
    named: tuple[tuple[int, Span], ...]

    @property
    def target(self) -> int:
        return self.named[0][0]


@dataclass(frozen=True)
class Relation:
    """A relation to a landmark: per landmark the bits of items where it `holds`, or `may` hold to an eye."""

    short: str
    long: str
    location: bool
    silent: tuple[str, ...]  # attribute classes that would give the answer away or contradict it
    holds: tuple[int, ...]
    may: tuple[int, ...]


@dataclass(frozen=True)
class Order:
    """An order of items: per item the bits of those clearly `after` it (first = all rivals are after it)."""

    first: tuple[str, ...]  # templates around "{}", the adjectives and noun
    second: str
    location: bool
    silent: tuple[str, ...]
    after: tuple[int, ...]

    def clear(self, fits: int, target: int, second: bool) -> bool:
        """Whether of the items `fits`, `target` among them, it is clearly the first, or the second."""
        before = fits & ~(1 << target) & ~self.after[target]
        if not second:
            return not before
        # exactly one rival comes before, itself clearly before all the rest
        return before.bit_count() == 1 and not fits & ~before & ~self.after[before.bit_length() - 1]

    def possible(self, fits: int, target: int, second: bool) -> bool:
        """Whether of the items `fits`, `target` among them, an eye may take it for the first, or the second."""
        rivals = [item for item in bits_of(fits) if item != target]
        ahead = sum(self.after[item] >> target & 1 for item in rivals)  # clearly
        if not second:
            return not ahead
        return ahead <= 1 and any(not self.after[target] >> item & 1 for item in rivals)


def pick(phrases: Sequence[Phrase], rng: random.Random, length: str = "any") -> Phrase:
    """One of `phrases`, rarely a "thing"; short: as few adjectives as possible, long: rather many."""
    named = [phrase for phrase in phrases if phrase.noun != ANYTHING]
    usable = named if named and (len(named) == len(phrases) or rng.random() < 0.85) else phrases
    if length == "short":
        least = min(len(phrase.adjectives) for phrase in usable)
        return rng.choice([phrase for phrase in usable if len(phrase.adjectives) == least])
    weights = [4 ** len(phrase.adjectives) if length == "long" else 1 for phrase in usable]
    return rng.choices(usable, weights)[0]


def chained(phrase: Phrase, rng: random.Random) -> tuple[str, int]:
    """A long sentence of one description, and where its root noun phrase ends."""
    words = [word for _, word in phrase.adjectives]
    behind = rng.randint(0, len(words))
    cut = len(words) - behind
    root = " ".join(["the", *words[:cut], phrase.noun])
    place = " in the picture" if not behind or rng.random() < 0.5 else ""
    return root + place + (" that is " + " and ".join(words[cut:]) if behind else ""), len(root)


def ending(template: str) -> str:
    """How a long sentence with this template of an order ends."""
    if template.endswith(("left", "right")):
        return " side of the picture"
    return " of the picture" if template.endswith(("top", "bottom")) else " in the picture"


def indefinite(text: str) -> str:
    """A description with its article."""
    return f"{'an' if text[0] in 'aeiou' else 'a'} {text}"


def bits_of(bits: int) -> list[int]:
    """The items that bits stand for."""
    return [index for index in range(bits.bit_length()) if bits >> index & 1]
