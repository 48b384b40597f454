"""Captions without a target as each kind makes them: from expressions and true pairs alone, in an order of chance."""

import random
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np

from snp.asking.generator import Look, Words, ask, learn
from snp.asking.pairs import Pair, split
from snp.data.annotations import Entry
from snp.data.drawn.truth import Language
from snp.errors import InputError
from snp.models.augment import Augment

_SLAB = 256


def generate(
    how: Augment, entries: Sequence[Entry], pairs: Sequence[Pair], language: Language, look: Look, seed: int
) -> list[Pair]:
    """`how.count` captions, or as many as there can be: none equals its expression, but for noise that is asked for.

    They are of pictures that the pairs which are learned from are not of. Equal seeds give equal captions.

    Args:
        entries: expressions with a target. pairs: true ones, in the order of their file.

    Raises:
        InputError: the expressions are of fewer than two pictures, or the pairs fewer than two.
    """
    if len({entry.file_name for entry in entries}) < 2 or len(pairs) < 2:
        raise InputError("captions without a target", "cannot be made of one expression", "use more data")
    learned, others = split(pairs, how.pairs)
    rng = random.Random(f"asking/{seed}")
    if how.kind == "rule":
        return _true(rng.sample(others, len(others)), how)
    known = {pair.source.file_name for pair in learned}
    sources = [entry for entry in rng.sample(entries, len(entries)) if entry.file_name not in known]
    said: Iterable[str]
    match how.kind:
        case "swap":
            said = (swapped(entry.caption, language, rng) for entry in sources)
        case "random":
            said = anothers(sources, entries, rng)
        case "nearest":
            said = nearest(sources, entries)
        case "pair" | "seq":
            said = asked(sources, entries, learned, look if how.kind == "pair" else None, seed)
    made = (Pair(one, caption) for one, caption in zip(sources, said, strict=True) if caption not in ("", one.caption))
    if not (found := list(islice(made, how.count))):
        raise InputError(str(how), f"nothing was made of {len(sources)} expressions", "use more data")
    return found


def _true(pairs: Sequence[Pair], how: Augment) -> list[Pair]:
    """True edits, and for the last of them the expressions themselves: `how.noise` of all."""
    count = min(how.count, len(pairs))
    right = count - round(how.noise * count)
    return [*pairs[:right], *(Pair(pair.source, pair.source.caption) for pair in pairs[right:count])]


def swapped(caption: str, language: Language, rng: random.Random) -> str:
    """With another word of its class for one noun or adjective; as it is where it has none.  [ours]

    After the swaps of Gautam et al. (2023), which take entities and antonyms.
    """
    words = caption.split()
    classes = [group for group in (language.nouns, *language.attributes.values()) if len(group) > 1]
    places = [(place, group) for place, word in enumerate(words) for group in classes if word in group]
    if not places:
        return caption
    place, group = rng.choice(places)
    other = rng.choice([word for word in group if word != words[place]])
    return " ".join([*words[:place], other, *words[place + 1 :]])


def anothers(sources: Iterable[Entry], entries: Sequence[Entry], rng: random.Random) -> Iterator[str]:
    """For each expression that of another picture, whichever."""
    drawn = iter(lambda: rng.choice(entries), None)
    for source in sources:
        yield next(other.caption for other in drawn if other.file_name != source.file_name)


def nearest(sources: Sequence[Entry], entries: Sequence[Entry]) -> Iterator[str]:
    """For each expression the most similar one, by TF-IDF, of those that are not said of its picture.

    Of equally similar ones the first in alphabetic order. Where all are said of it, its own.
    """
    texts = sorted({entry.caption for entry in entries})
    number = {text: place for place, text in enumerate(texts)}
    own: dict[str, set[int]] = {}
    for entry in entries:
        own.setdefault(entry.file_name, set()).add(number[entry.caption])
    weight_TV = weights(texts)
    for start in range(0, len(sources), _SLAB):
        part = sources[start : start + _SLAB]
        similar_ST = weight_TV[[number[entry.caption] for entry in part]] @ weight_TV.T
        for entry, similar_T in zip(part, similar_ST, strict=True):
            similar_T[list(own[entry.file_name])] = -1
            yield texts[similar_T.argmax()] if similar_T.max() >= 0 else entry.caption


def weights(texts: Sequence[str]) -> np.ndarray:
    """TF-IDF of T texts over their V words, [T, V]: how often a word occurs, times log(T / texts with it); of length 1.

    A text of which every word is in all others is 0.
    """
    place = {word: k for k, word in enumerate(sorted({word for text in texts for word in text.split()}))}
    count_TV = np.zeros((len(texts), len(place)), np.float32)
    for row, text in zip(count_TV, texts, strict=True):
        np.add.at(row, [place[word] for word in text.split()], 1)
    weight_TV = count_TV * np.log(len(texts) / (count_TV > 0).sum(0)).astype(np.float32)
    return weight_TV / np.maximum(np.linalg.norm(weight_TV, axis=1, keepdims=True), 1e-12)


def asked(
    sources: Sequence[Entry], entries: Sequence[Entry], pairs: Sequence[Pair], look: Look | None, seed: int
) -> Iterator[str]:
    """For each expression what a model makes of it that has learned from pairs, of which none is longer."""
    words = Words.of([*(entry.caption for entry in entries), *(pair.caption for pair in pairs)])
    most = max(len(pair.caption.split()) for pair in pairs)
    return ask(learn(pairs, words, look, seed), words, look, sources, most)
