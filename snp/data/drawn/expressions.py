"""Referring expressions and captions for any list of named objects, unambiguous by construction."""

import random
from collections.abc import Iterable, Iterator, Sequence, Set
from copy import copy
from dataclasses import replace
from itertools import combinations

import numpy as np

from snp.data.annotations import Span
from snp.data.drawn.items import (
    ANYTHING,
    Description,
    Expression,
    Item,
    Order,
    Phrase,
    Relation,
    bits_of,
    chained,
    ending,
    indefinite,
    pick,
)

KINDS = ("attribute", "relation", "order")
STYLES = ("refcoco", "refcoco+", "refcocog")
# Margins in pixels: what is said of the target holds by at least the first, what could be said of any rival
# fails by at least the second. Between the two lies what an eye might doubt, and no expression relies on it.
SIDE, SIDE_SLACK = 6, 2
NEAR, FAR = 7, 15
STEP, EDGE_STEP = 5, 2


class Scene:
    """The items of one picture with all that can be said of them, as bit sets.  [ours]"""

    def __init__(self, items: Sequence[Item]) -> None:
        self.items = tuple(items)
        self.all = (1 << len(items)) - 1
        self.phrases = [self.describe(item) for item in items]
        self.relations = self._relations()
        self.orders = self._orders()

    def refer(self, style: str, kind: str, rng: random.Random, taken: Set[str] = frozenset()) -> Expression | None:
        """An expression of `kind` in the style of a benchmark that fits exactly one item, or None.

        Args:
            style: refcoco (short, location words), refcoco+ (short, none), refcocog (long).
            taken: captions not to give again.
        """
        make = {"attribute": self._attribute, "relation": self._relation, "order": self._order}[kind]
        return next((found for found in make(style, rng) if found.caption not in taken), None)

    def caption(self, rng: random.Random, most: int = 6) -> Expression:
        """A caption of 1 to `most` phrases; a phrase that fits several items names them all."""
        wanted = rng.randint(1, most)
        parts: list[tuple[str, list[tuple[int, Span]]]] = []
        texts: set[str] = set()
        left = list(range(len(self.items)))
        rng.shuffle(left)
        phrases = 0
        while phrases < wanted and left:
            chance, part = rng.random(), None
            if chance < 0.15 and wanted - phrases >= 2:
                part = self.refer(rng.choice(("refcoco", "refcoco+")), "relation", rng)
            elif chance < 0.3:
                part = self.refer("refcoco", "order", rng)
            if part is None:
                index = left.pop()
                phrase = pick([p for p in self.phrases[index] if not p.bare], rng)
                text = indefinite(phrase.text())
                part = Expression(text, "", tuple((i, (0, len(text))) for i in bits_of(phrase.fits)))
            if part.caption in texts:
                continue
            texts.add(part.caption)
            parts.append((part.caption, list(part.named)))
            phrases += 2 if part.kind == "relation" else 1
        caption, named = "", []
        for number, (text, found) in enumerate(parts):
            if number:
                caption += " and " if number == len(parts) - 1 else ", "
            named += [(index, (begin + len(caption), end + len(caption))) for index, (begin, end) in found]
            caption += text
        return Expression(caption, "", tuple(named))

    def about(self, index: int, silent: Sequence[str]) -> "Scene":
        """This scene to one who asks about classes of one item: he refers to no other, and says nothing of them."""
        view = copy(self)
        view.items = tuple(replace(item, target=place == index) for place, item in enumerate(self.items))
        view.phrases = [
            [p for p in phrases if place != index or not p.uses(silent)] for place, phrases in enumerate(self.phrases)
        ]
        view.relations = [r for r in self.relations if not set(silent) & set(r.silent)]
        view.orders = [o for o in self.orders if not set(silent) & set(o.silent)]
        return view

    def describe(self, item: Item) -> list[Phrase]:
        """All descriptions of an item, be it of this picture or not, with the items of this picture each fits."""
        having = {
            name: self._where(other.attributes.get(name) == word for other in self.items)
            for name, word in item.attributes.items()
        }
        nouns = {item.noun: self._where(other.noun == item.noun for other in self.items), ANYTHING: self.all}
        found = []
        for noun, fits in nouns.items():
            for count in range(len(having) + 1):
                for names in combinations(having, count):
                    bits = fits
                    for name in names:
                        bits &= having[name]
                    found.append(Phrase(noun, tuple((name, item.attributes[name]) for name in names), bits))
        return found

    def fitting(self, said: Description) -> int:
        """The items of this picture that a description fits, as bits."""
        return self._where(
            said.noun in (ANYTHING, item.noun) and set(said.adjectives) <= item.attributes.items()
            for item in self.items
        )

    def usable(self, style: str) -> list[Relation]:
        """The relations that are told in the style of a benchmark."""
        found = [r for r in self.relations if style == "refcocog" or r.location == (style == "refcoco")]
        return found + [r for r in self.relations if style == "refcoco" and r.short == "next to"]

    def ordering(self, style: str) -> list[Order]:
        """The orders that are told in the style of a benchmark."""
        return [o for o in self.orders if style == "refcocog" or o.location == (style == "refcoco")]

    def unique(self, index: int, silent: Sequence[str]) -> list[Phrase]:
        """Descriptions that fit this item alone and say nothing of these classes."""
        return [p for p in self.phrases[index] if p.fits == 1 << index and not p.uses(silent) and not p.bare]

    def _where(self, truths: Iterable[bool]) -> int:
        return sum(1 << index for index, true in enumerate(truths) if true)

    def _table(self, truth_AT: np.ndarray) -> tuple[int, ...]:
        """For every item a the bits of the other items t with truth_AT[a, t]."""
        others_AT = truth_AT & ~np.eye(len(self.items), dtype=bool)
        return tuple((others_AT @ (1 << np.arange(len(self.items)))).tolist())

    def _relations(self) -> list[Relation]:
        boxes = np.array([item.box for item in self.items], float)
        centre, side = boxes[:, :2] + boxes[:, 2:] / 2, boxes[:, 2:].max(1)
        step_ATX = centre[None] - centre[:, None]
        found = []
        for word, tail, axis, sign in (
            ("left of", "to the left of", 0, -1),
            ("right of", "to the right of", 0, 1),
            ("above", "above", 1, -1),
            ("below", "below", 1, 1),
        ):
            along, across = sign * step_ATX[..., axis], np.abs(step_ATX[..., 1 - axis])
            holds, may = along >= np.maximum(SIDE, across), along > -SIDE_SLACK
            found.append(Relation(word, tail, True, (), self._table(holds), self._table(may)))
        # Distance of two boxes, edge to edge.
        gap_ATX = np.maximum(0, np.abs(step_ATX) - (boxes[None, :, 2:] + boxes[:, None, 2:]) / 2)
        gap_AT = np.hypot(gap_ATX[..., 0], gap_ATX[..., 1])
        found.append(Relation("next to", "next to", False, (), self._table(gap_AT <= NEAR), self._table(gap_AT <= FAR)))
        rank = np.array([item.rank for item in self.items])
        for word, sign in (("bigger than", 1), ("smaller than", -1)):
            holds = sign * (rank[None] - rank[:, None]) > 0
            may = sign * (side[None] - side[:, None]) > 1
            found.append(Relation(word, word, False, ("size",), self._table(holds), self._table(may | holds)))
        for name in dict.fromkeys(name for item in self.items for name in item.attributes):
            words = np.array([item.attributes.get(name, "") for item in self.items])
            same = self._table((words[None] == words[:, None]) & (words != "")[None])
            text = f"of the same {name} as"
            found.append(Relation(text, text, False, (name,), same, same))
        return found

    def _orders(self) -> list[Order]:
        boxes = np.array([item.box for item in self.items], float)
        found = []
        for word, side, place, axis, sign in (
            ("leftmost", "left", "on the left", 0, 1),
            ("rightmost", "right", "on the right", 0, -1),
            ("top", "top", "at the top", 1, 1),
            ("bottom", "bottom", "at the bottom", 1, -1),
        ):
            centre = boxes[:, axis] + boxes[:, axis + 2] / 2
            edge = boxes[:, axis] + (boxes[:, axis + 2] if sign < 0 else 0)
            after = (sign * (centre[None] - centre[:, None]) >= STEP) & (
                sign * (edge[None] - edge[:, None]) >= EDGE_STEP
            )
            first = (f"the {word} {{}}", f"the {{}} {place}")
            found.append(Order(first, f"the second {{}} from the {side}", True, (), self._table(after)))
        rank = np.array([item.rank for item in self.items])
        for word, sign in (("biggest", -1), ("smallest", 1)):
            after = self._table(sign * (rank[None] - rank[:, None]) > 0)
            found.append(Order((f"the {word} {{}}",), f"the second {word} {{}}", False, ("size",), after))
        return found

    def _targets(self, rng: random.Random) -> list[int]:
        found = [index for index, item in enumerate(self.items) if item.target]
        rng.shuffle(found)
        return found

    def _attribute(self, style: str, rng: random.Random) -> Iterator[Expression]:
        for target in self._targets(rng):
            fitting = self.unique(target, ())
            if style == "refcocog":
                fitting = [p for p in fitting if len(p.adjectives) >= min(2, len(self.items[target].attributes))]
            while fitting:
                phrase = pick(fitting, rng, "long" if style == "refcocog" else rng.choice(("short", "any")))
                fitting.remove(phrase)
                text, root = f"the {phrase.text()}", 0
                if style == "refcocog":
                    text, root = chained(phrase, rng)
                yield Expression(text, "attribute", ((target, (0, root or len(text))),))

    def _relation(self, style: str, rng: random.Random) -> Iterator[Expression]:
        usable = self.usable(style)
        length = "long" if style == "refcocog" else "short"
        for target in self._targets(rng):
            options = [(r, a) for r in usable for a in range(len(self.items)) if r.holds[a] >> target & 1]
            rng.shuffle(options)
            if style == "refcocog" and rng.random() < 0.25:
                yield from self._two_relations(target, options, rng)
            for relation, landmark in options:
                rivals = [
                    p
                    for p in self.phrases[target]
                    if not p.uses(relation.silent)
                    and (p.fits & ~(1 << landmark)).bit_count() >= 2
                    and p.fits & relation.may[landmark] == 1 << target
                ]
                unique = self.unique(landmark, relation.silent)
                if rivals and unique:
                    root = f"the {pick(rivals, rng, length).text()}"
                    tail = f"that is {relation.long}" if style == "refcocog" else relation.short
                    anchor = f"the {pick(unique, rng, length).text()}"
                    text = f"{root} {tail} {anchor}"
                    spans = (0, len(root)), (len(text) - len(anchor), len(text))
                    if style == "refcocog" and len(self.items[target].attributes) < 2:
                        text += " in the picture"  # few adjectives to make it long
                    yield Expression(text, "relation", ((target, spans[0]), (landmark, spans[1])))

    def _two_relations(
        self, target: int, options: list[tuple[Relation, int]], rng: random.Random
    ) -> Iterator[Expression]:
        """Both relations are needed: neither alone leaves only the target."""
        for (one, first), (two, second) in combinations([o for o in options if o[0].location], 2):
            if first == second or one is two:
                continue
            both = one.may[first] & two.may[second]
            rivals = [
                p
                for p in self.phrases[target]
                if p.fits & both == 1 << target and p.fits & one.may[first] != 1 << target != p.fits & two.may[second]
            ]
            landmarks = self.unique(first, one.silent), self.unique(second, two.silent)
            if rivals and all(landmarks):
                root = f"the {pick(rivals, rng, 'long').text()}"
                anchors = [f"the {pick(unique, rng, 'short').text()}" for unique in landmarks]
                head = f"{root} that is {one.long} {anchors[0]}"
                text = f"{head} and {two.long} {anchors[1]}"
                spans = (
                    (0, len(root)),
                    (len(head) - len(anchors[0]), len(head)),
                    (len(text) - len(anchors[1]), len(text)),
                )
                yield Expression(text, "relation", tuple(zip((target, first, second), spans, strict=True)))

    def _order(self, style: str, rng: random.Random) -> Iterator[Expression]:
        for target in self._targets(rng):
            options = [(o, second) for o in self.ordering(style) for second in (False, True)]
            rng.shuffle(options)
            for order, second in options:
                rivals = [
                    p
                    for p in self.phrases[target]
                    if not p.uses(order.silent)
                    and p.fits.bit_count() >= 2 + second
                    and order.clear(p.fits, target, second)
                ]
                if rivals:
                    phrase = pick(rivals, rng, "long" if style == "refcocog" else "any")
                    template = order.second if second else rng.choice(order.first)
                    text = template.format(phrase.text())
                    root = text.index(f" {phrase.text()}") + 1 + len(phrase.text())
                    if style == "refcocog":
                        text += ending(template)
                    yield Expression(text, "order", ((target, (0, root)),))
