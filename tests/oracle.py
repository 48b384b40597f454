"""An independent reader of referring expressions: it parses the sentence and finds who is meant.

It shares no code with the generator and uses plain meanings (left of = further left), so that what it
solves with one answer is unambiguous to a person who reads the words in the same plain way.
"""

import re
from collections.abc import Sequence

from snp.data.drawn.items import Item

_SIDES = {"left": (0, 1), "right": (0, -1), "top": (1, 1), "bottom": (1, -1)}
_SUPERLATIVES = {"leftmost": "left", "rightmost": "right", "top": "top", "bottom": "bottom"}
_RELATIONS = re.compile(
    r" (?:that is )?(?:to the )?"
    r"(left of|right of|above|below|next to|bigger than|smaller than|of the same \w+ as) the "
)


def solve(sentence: str, items: Sequence[Item]) -> list[int]:
    """Indices of all items the sentence may mean; exactly one for an unambiguous expression."""
    text = re.sub(r" (in the picture|side of the picture|of the picture)\b", "", sentence).removeprefix("the ")
    parts = _RELATIONS.split(text)
    if len(parts) == 1:
        return _alone(text, items)
    found = _named(parts[0], items)
    for relation, landmark in zip(parts[1::2], parts[2::2], strict=True):
        (anchor,) = _named(landmark.removesuffix(" and"), items)
        found = [index for index in found if index != anchor]
        found = _related(relation, found, items[anchor], items)
    return found


def _alone(text: str, items: Sequence[Item]) -> list[int]:
    if match := re.fullmatch(r"(second )?(biggest|smallest) (.*)", text):
        sign = -1 if match[2] == "biggest" else 1
        return _nth(_named(match[3], items), lambda i: sign * max(items[i].box[2:]), bool(match[1]), 2)
    for pattern in (r"(second) (.*) from the (\w+)", r"()(.*) (?:on|at) the (\w+)"):
        if match := re.fullmatch(pattern, text):
            return _along(match[3], _named(match[2], items), items, bool(match[1]))
    first, _, rest = text.partition(" ")
    if first in _SUPERLATIVES:
        return _along(_SUPERLATIVES[first], _named(rest, items), items, False)
    return _named(text, items)


def _along(side: str, found: list[int], items: Sequence[Item], second: bool) -> list[int]:
    axis, sign = _SIDES[side]
    return _nth(found, lambda i: sign * (items[i].box[axis] + items[i].box[axis + 2] / 2), second, 4)


def _nth(found: list[int], key, second: bool, margin: float) -> list[int]:
    """The first or second by `key` with everyone who is too near to it to tell; needs a rival."""
    ordered = sorted(found, key=key)
    assert len(ordered) > 1 + second, "an order over too few"
    chosen = ordered[1] if second else ordered[0]
    return [index for index in ordered if abs(key(index) - key(chosen)) < margin]


def _related(relation: str, found: list[int], anchor: Item, items: Sequence[Item]) -> list[int]:
    def centre(item: Item, axis: int) -> float:
        return item.box[axis] + item.box[axis + 2] / 2

    def gap(item: Item) -> float:
        x, y = (
            max(
                item.box[a] - anchor.box[a] - anchor.box[a + 2],
                anchor.box[a] - item.box[a] - item.box[a + 2],
                0,
            )
            for a in (0, 1)
        )
        return (x * x + y * y) ** 0.5

    if relation.startswith("of the same"):
        name = relation.split()[3]
        return [i for i in found if items[i].attributes[name] == anchor.attributes[name]]
    if relation == "next to":
        nearest = min(gap(items[i]) for i in found)
        return [i for i in found if gap(items[i]) < nearest + 6]
    if relation in ("bigger than", "smaller than"):
        sign = 1 if relation == "bigger than" else -1
        return [i for i in found if sign * (max(items[i].box[2:]) - max(anchor.box[2:])) > 1]
    axis, sign = {"left of": (0, -1), "right of": (0, 1), "above": (1, -1), "below": (1, 1)}[relation]
    return [i for i in found if sign * (centre(items[i], axis) - centre(anchor, axis)) > 0]


def _named(text: str, items: Sequence[Item]) -> list[int]:
    """Items that fit a description such as "small red circle" or "circle that is small and red"."""
    head, _, tail = text.partition(" that is ")
    nouns = {item.noun for item in items} | {"thing"}
    noun = max((noun for noun in nouns if f" {head}".endswith(f" {noun}")), key=len)
    adjectives = head.removesuffix(noun).split() + tail.replace(" and ", " ").split()
    known = {word for item in items for word in item.attributes.values()}
    assert set(adjectives) <= known, f"{text!r} says something the oracle cannot read"
    return [
        index
        for index, item in enumerate(items)
        if noun in ("thing", item.noun) and set(adjectives) <= set(item.attributes.values())
    ]
