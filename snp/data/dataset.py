"""A data set of entries as flat arrays and of decoded pictures, and the batches that are made of both."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from snp.data import orders
from snp.data.ahead import ahead
from snp.data.annotations import Entry
from snp.data.batch import Batch
from snp.data.columns import Where, place
from snp.data.decoded import Resolve, origin
from snp.data.flat import Flat
from snp.data.tokens import PAD, Vocabulary, cover
from snp.data.views import Draws, View, padded, views_of
from snp.errors import InputError

OUTSIDE = -1
"""Id of an answer, or of a type of questions, that the vocabulary of answers does not have."""


class Entries(Sequence[Entry]):
    """The entries of flat arrays, each made when it is looked at."""

    def __init__(self, flats: list[Flat], place_N2: np.ndarray) -> None:
        self._flats, self._place_N2 = flats, place_N2

    def __len__(self) -> int:
        return len(self._place_N2)

    def __getitem__(self, i: int) -> Entry:  # type: ignore[override]
        flat, row = self._place_N2[i]
        return self._flats[flat].entry(row)


class GroundingSet:
    """Entries as arrays, ready to be cut into batches.

    Args:
        entries: captions with or without boxes.
        images: finds their pixels.
        vocabulary: maps captions to ids.
        context: most tokens a caption may have.
        where: what the entries are called in errors, or what each of them is called.
        answers: type of questions -> {answer: id}, ids 0, 1, 2, ... within each type; a type's id is its place.
            With it, batches tell the type and answer of each question.
        strict: an answer outside the vocabulary is an error, as it must be for training; else it is `OUTSIDE`, and
            whatever a model says is wrong.

    Attributes:
        loaders: processes that make the batches of `stream` and `made` ahead of time, the same bits whatever their
            number; 0: they are made when they are asked for.

    Raises:
        InputError: naming the entry whose picture, length or answer does not fit.
    """

    loaders = 0
    _arrays = ("types", "datasets", "lengths", "_place", "_cache", "_row", "_type", "_answer")

    def __init__(
        self,
        entries: Sequence[Entry] | Flat,
        images: Resolve,
        vocabulary: Vocabulary,
        context: int,
        where: Where = "entries",
        answers: Mapping[str, Mapping[str, int]] | None = None,
        strict: bool = True,
    ) -> None:
        for kind, known in (answers or {}).items():
            if sorted(known.values()) != list(range(len(known))):
                raise InputError(f"answers of type {kind!r}", "their ids are not 0, 1, 2, ... each once")
        flat = entries if isinstance(entries, Flat) else Flat.from_entries(entries, vocabulary, context, where)
        self._flats, self.vocabulary, self.answers = [flat], vocabulary, answers
        self._place = np.stack([np.zeros(len(flat), np.int64), np.arange(len(flat))], 1)  # of an entry: flat, row
        names = flat.names
        self.types, self.datasets, self.lengths = names[flat.type_N], names[flat.dataset_N], flat.lengths
        self.lowest, self.categories = int(flat.category_M.min(initial=0)), int(flat.category_M.max(initial=-1)) + 1
        self._find(flat, names, images, where)
        self._type, self._answer = np.full((2, len(flat)), OUTSIDE)
        if answers is not None:
            self._number(flat, names, answers, where, strict)

    def _find(self, flat: Flat, names: np.ndarray, images: Resolve, where: Where) -> None:
        """Where the pixels of every entry are; each picture is looked for once."""
        files, first, file_N = np.unique(flat.file_N, return_index=True, return_inverse=True)
        self._pixels: list[np.ndarray] = []
        places: dict[int, int] = {}
        found = np.empty((len(files), 2), np.int32)
        for k, (name, i) in enumerate(zip(names[files].tolist(), first, strict=True)):
            try:
                pixels, found[k, 1] = images(name)
            except KeyError as error:
                raise InputError(f"{place(where, i)}.file_name", f"image {error.args[0]} not found") from None
            found[k, 0] = places.setdefault(id(pixels), len(places))
            if len(places) > len(self._pixels):
                self._pixels.append(pixels)
        self._cache, self._row = found[file_N].T

    def _number(
        self, flat: Flat, names: np.ndarray, answers: Mapping[str, Mapping[str, int]], where: Where, strict: bool
    ) -> None:
        """Ids of the type and the answer of every question."""
        pairs = np.stack([flat.question_type_N, flat.answer_N], 1)
        pairs, first, pair_N = np.unique(pairs, axis=0, return_index=True, return_inverse=True)
        kinds = list(answers)
        ids = np.full((len(pairs), 2), OUTSIDE)
        for k in np.argsort(first):
            kind, answer = names[pairs[k]].tolist()
            known = answers.get(kind, {})
            if strict and answer not in known:
                problem = f"{answer!r} of {flat.text(first[k])!r} is no known answer of type {kind!r}"
                hint = "add it to the answers, or leave the question out"
                raise InputError(f"{place(where, first[k])}.answer", problem, hint)
            ids[k] = kinds.index(kind) if kind in answers else OUTSIDE, known.get(answer, OUTSIDE)
        self._type, self._answer = ids[pair_N.reshape(-1)].T

    @classmethod
    def read(
        cls,
        root: Path,
        name: str,
        images: Resolve,
        vocabulary: Vocabulary,
        context: int,
        boxless: bool = False,
        answers: Mapping[str, Mapping[str, int]] | None = None,
        strict: bool = True,
    ) -> "GroundingSet":
        """The entries of an annotation file; read once, and kept as arrays in root/cache.

        Args:
            root: folder of the data set, with annotations/.
            name: annotation file without its ending, for example ``finetune_refcoco_val``.
            boxless: captions may have no box, as questions have.
        """
        flat = Flat.cached(root, name, vocabulary, context, boxless)
        where = f"{root / 'annotations' / name}.json: images"
        return cls(flat, images, vocabulary, context, where, answers, strict)

    def __len__(self) -> int:
        return len(self._place)

    @property
    def entries(self) -> Entries:
        """The entries themselves."""
        return Entries(self._flats, self._place)

    @property
    def captions(self) -> list[str]:
        return [self._flats[flat].text(row) for flat, row in self._place]

    def asked(self, i: int) -> np.ndarray:
        """The tokens of every evaluated phrase of entry `i`: bool [phrases, its tokens]."""
        entry = self.entries[i]
        return cover(self.vocabulary.encode(entry.caption)[1], entry.evaluated)

    def subset(self, index: np.ndarray) -> "GroundingSet":
        """The entries at `index` as a data set of their own; pixels and arrays are shared."""
        part = copy(self)
        for name in self._arrays:
            setattr(part, name, getattr(self, name)[index])
        return part

    def joined(self, *others: "GroundingSet") -> "GroundingSet":
        """These entries and those of `others`, in this order.

        Raises:
            InputError: their vocabularies of answers differ.
        """
        whole, parts = copy(self), (self, *others)
        if any(part.answers != self.answers for part in parts):
            raise InputError("answers", "data sets with different vocabularies of answers cannot be joined")
        for name in self._arrays:
            setattr(whole, name, np.concatenate([getattr(part, name) for part in parts]))
        whole._flats = [flat for part in parts for flat in part._flats]
        before = np.cumsum([0, *(len(part._flats) for part in parts)])[:-1]
        whole._place[:, 0] += np.repeat(before, [len(part) for part in parts])
        # a pixel cache that several files use is one, so that captions of one picture find each other
        caches = {origin(pixels): pixels for part in parts for pixels in part._pixels}
        number = {key: i for i, key in enumerate(caches)}
        whole._pixels = list(caches.values())
        whole._cache = np.concatenate(
            [np.array([number[origin(p)] for p in part._pixels], np.int32)[part._cache] for part in parts]
        )
        whole.lowest, whole.categories = min(p.lowest for p in parts), max(p.categories for p in parts)
        return whole

    def batch(
        self,
        index: np.ndarray,
        share_images: bool = False,
        share: tuple[int, int] = (0, 1),
        draws: Draws | None = None,
        step: int = 0,
    ) -> Batch:
        """The entries at `index`. With `share_images` each distinct image is held once (for evaluation).

        Args:
            share: (place, count): that of so many parts alone; no pixels are made of the others.
            draws: sizes and crops of pictures that keep their sides' ratio, for this step; else they are shown whole.
        """
        B, L = len(index), int(self.lengths[index].max())
        rows = [(self._flats[flat], row) for flat, row in self._place[index]]
        found = [flat.boxes(row) for flat, row in rows]
        M = max(1, *map(len, found))  # an empty place where nobody has a box
        tokens = np.full((B, L), PAD, np.int64)
        boxes = np.zeros((B, M, 4), np.float32)
        valid = np.zeros((B, M), bool)
        positive = np.zeros((B, M, L), bool)
        category = np.zeros((B, M), np.int64)
        for b, ((flat, row), own) in enumerate(zip(rows, found, strict=True)):
            ids, m = flat.tokens(row), len(own)
            tokens[b, : len(ids)] = ids
            boxes[b, :m] = own
            valid[b, :m] = True
            positive[b, :m, : len(ids)] = flat.positive(row)
            category[b, :m] = flat.categories(row)
        where = np.stack([self._cache[index], self._row[index]], 1)
        image_index = np.arange(B)
        if share_images:
            where, image_index = np.unique(where, axis=0, return_inverse=True)
        image_index = image_index.reshape(-1)
        views: list[View] | None = None
        if (fit := getattr(self._pixels[0], "fit", None)) is not None:
            sizes = self._sizes(where, index[np.unique(image_index, return_index=True)[1]])
            views = views_of(fit, draws, step, sizes, image_index, boxes, valid)
        fields = (np.arange(len(where)), image_index, tokens, tokens != PAD, boxes, valid, positive, category)
        asked = () if self.answers is None else (self._type[index], self._answer[index])
        tensors: list[Any] = [torch.from_numpy(field) for field in (*fields, *asked)]
        batch = Batch(*tensors)
        if views is not None:
            batch = replace(batch, sizes_I2=torch.tensor([view.size for view in views]))
        if share[1] > 1:
            batch = batch.part(*share)
        # until here the numbers of images stood for their pixels
        own = batch.images_ICHW.tolist()
        places = where[own].tolist()
        if views is None:
            pixels = np.stack([self._pixels[c][row] for c, row in places])
        else:
            pixels = padded([self._pixels[c].view(row, views[i]) for i, (c, row) in zip(own, places, strict=True)])
        return replace(batch, images_ICHW=torch.from_numpy(pixels))

    def _sizes(self, where_I2: np.ndarray, first_I: np.ndarray) -> np.ndarray:
        """Heights and widths of images, as the entry of the first caption of each has them."""
        size_I2 = np.array([self._flats[flat].size_N2[row] for flat, row in self._place[first_I]])
        for i in np.flatnonzero(size_I2.min(1) == 0):  # a question alone may not know it
            size_I2[i] = self._pixels[where_I2[i, 0]].size(where_I2[i, 1])
        return size_I2

    def made(self, groups: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, Batch]]:
        """Groups of entries, each with its batch, which holds every image once: for evaluation."""
        return ahead(self._group, groups, self.loaders)

    def _group(self, index: np.ndarray) -> tuple[np.ndarray, Batch]:
        return index, self.batch(index, share_images=True)

    def epoch(self, batch: int, seed: int, window: int = 64, per_image: int = 1) -> np.ndarray:
        """A seeded order of all entries as indices [steps, batch]: see `orders.epoch`."""
        return orders.epoch(self.lengths, self._image, batch, seed, window, per_image)

    @property
    def _image(self) -> np.ndarray:
        """One number for every image, [entries]."""
        return self._cache.astype(np.int64) << 32 | self._row

    def stream(
        self,
        batch: int,
        seed: int,
        start: int = 0,
        per_image: int = 1,
        share: tuple[int, int] = (0, 1),
        draws: Draws | None = None,
    ) -> Iterator[Batch]:
        """Batches without end, epoch after epoch; `start` batches are passed over without being made.

        With `per_image` over 1 (as in `epoch`) an image passes the vision tower once for all its captions. With `share`
        and `draws` as in `batch`: one part of every batch, and what is shown of its pictures.
        """

        def make(at: tuple[int, np.ndarray]) -> Batch:
            step, index = at
            return self.batch(index, per_image > 1, share, draws, step)

        def epoch(seed: int) -> np.ndarray:
            return self.epoch(batch, seed, per_image=per_image)

        return ahead(make, enumerate(orders.endless(epoch, seed, start), start), self.loaders)

    def by_image(self, captions: int) -> Iterator[np.ndarray]:
        """Indices of all entries in groups of about `captions`, the captions of one image never torn apart."""
        return orders.by_image(self._image, captions)
