"""Annotations and pixels as arrays: a memory-mapped pixel cache, entries as flat arrays, and batches made from both."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch import Tensor

from snp.data.ahead import ahead
from snp.data.annotations import Entry
from snp.data.flat import Flat, Where, place
from snp.data.pixels import VERSION, read_image
from snp.data.tokens import PAD, Vocabulary, cover
from snp.data.views import Draws, View, padded, views_of
from snp.errors import InputError
from snp.files import replacing

MEND = "make the data set again with `snp data make`"
OUTSIDE = -1
"""Id of an answer, or of a type of questions, that the vocabulary of answers does not have."""
Resolve = Callable[[str], tuple[Any, int]]
"""File name of a picture -> (pixels NCHW of it and others, its row); KeyError where there is none.

Pixels of pictures that keep their sides' ratio (`snp.data.loading.Pictures`) have a `fit`, and give a `view` of a row.
"""


@dataclass(frozen=True)
class Batch:
    """B captions over I images; M is the largest number of boxes of a caption, at least 1, L the longest caption.

    images_ICHW: uint8; sizes_I2: height and width of each image, which stands at the upper left of its pixels, padding
    on its right and below; None where all are squares without any; image_index_B: the image of each caption; tokens_BL:
    vocabulary ids; text_BL: True where a token stands, False where padding; boxes_BM4: (centre x, centre y, width,
    height), each a share of the image's own side; valid_BM: True where a box stands; positive_BML: True where a token
    belongs to the phrase of a box; category_BM: the category id of a box, 0 where none stands. Of questions alone, else
    None: type_B: id of the type; answer_B: id of the answer among those of its type; both -1 where the vocabulary of
    answers does not have it. whole: the batch that this one is a part of: losses are divided by its boxes and tokens,
    so that those of its parts add up; its pixels may not have been made.
    """

    images_ICHW: Tensor
    image_index_B: Tensor
    tokens_BL: Tensor
    text_BL: Tensor
    boxes_BM4: Tensor
    valid_BM: Tensor
    positive_BML: Tensor
    category_BM: Tensor
    type_B: Tensor | None = None
    answer_B: Tensor | None = None
    whole: "Batch | None" = None
    sizes_I2: Tensor | None = None

    def __len__(self) -> int:
        return len(self.tokens_BL)

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """All that a model is given: pixels and words, and sizes where pictures have any of their own."""
        sizes = () if self.sizes_I2 is None else (self.sizes_I2,)
        return self.images_ICHW, self.image_index_B, self.tokens_BL, self.text_BL, *sizes

    @property
    def sizes_B2(self) -> Tensor | None:
        """Height and width of the image of each caption, where images have sizes of their own."""
        return None if self.sizes_I2 is None else self.sizes_I2[self.image_index_B]

    @property
    def divisor(self) -> "Batch":
        """The batch that losses are divided by: the whole one of which this is a part."""
        return self if self.whole is None else self.whole

    def to(self, device: torch.device | str) -> "Batch":
        """With all tensors on this device."""
        whole = None if self.whole is None else self.whole.to(device)
        moved = {name: tensor.to(device, non_blocking=True) for name, tensor in self._tensors().items()}
        return replace(self, whole=whole, **moved)

    def pin_memory(self) -> "Batch":
        """In memory from which a GPU copies while it computes: what torch's DataLoader asks for."""
        return replace(self, **{name: tensor.pin_memory() for name, tensor in self._tensors().items()})

    def parts(self, count: int) -> Iterator["Batch"]:
        """The captions in `count` parts of about one size, each with the images that it needs."""
        return (self.part(place, count) for place in range(count))

    def in_parts_of(self, most: int) -> Iterator["Batch"]:
        """The captions in as few parts as hold at most so many each; the batch itself where it holds no more."""
        return iter([self]) if len(self) <= most else self.parts(-(-len(self) // most))

    def part(self, place: int, count: int) -> "Batch":
        """The one of `count` parts at this place, from 0.

        Raises:
            InputError: there are fewer captions than parts.
        """
        if count > len(self):
            raise InputError("batch", f"{len(self)} captions are too few for {count} parts", "use larger batches")
        rows = torch.arange(len(self), device=self.tokens_BL.device).tensor_split(count)[place]
        images, index = self.image_index_B[rows].unique(return_inverse=True)
        of_images = {name: t[images] for name, t in self._tensors().items() if name in _OF_IMAGES}
        own = {name: t[rows] for name, t in self._tensors().items() if name not in (*_OF_IMAGES, "image_index_B")}
        return replace(self, image_index_B=index, whole=self.divisor, **of_images, **own)

    def _tensors(self) -> dict[str, Tensor]:
        return {f.name: value for f in fields(self) if isinstance(value := getattr(self, f.name), Tensor)}


_OF_IMAGES = ("images_ICHW", "sizes_I2")


class PixelCache:
    """The images below a folder, decoded once and kept as one memory-mapped uint8 array NCHW. [ours]

    Args:
        folder: a folder of images; its subfolders are not read.
        size: side in pixels that every image is brought to.
        store: where the decoded array is kept; its name changes with the names, sizes and times of the images.
    """

    def __init__(self, folder: Path, size: int, store: Path) -> None:
        if not folder.is_dir():
            raise InputError(folder, "image folder not found", MEND)
        files = sorted((f for f in os.scandir(folder) if f.is_file()), key=lambda f: f.name)
        if not files:
            raise InputError(folder, "holds no images", MEND)
        key = hashlib.sha256(f"{size} {VERSION}".encode())
        for file in files:
            stat = file.stat()
            key.update(f"{file.name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
        self.rows = {file.name: row for row, file in enumerate(files)}
        path = store / f"{folder.name}-{size}-{key.hexdigest()[:12]}.npy"
        shape = len(files), 3, size, size
        pixels = self._mapped(path, shape)
        if pixels is None:
            self._decode([Path(f.path) for f in files], shape, path)
            pixels = open_memmap(path, "r")
        self.pixels_NCHW: np.ndarray = pixels

    @staticmethod
    def _mapped(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
        """The decoded array, if it is there and whole."""
        try:
            found = open_memmap(path, "r")
        except (OSError, ValueError):
            return None
        return found if (found.shape, found.dtype) == (shape, np.uint8) else None

    @staticmethod
    def _decode(files: list[Path], shape: tuple[int, ...], path: Path) -> None:
        with replacing(path) as part:
            pixels = open_memmap(part, "w+", np.uint8, shape)
            with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes outside the interpreter lock
                for row, image in enumerate(pool.map(lambda f: read_image(f, shape[-1]), files)):
                    pixels[row] = image
            pixels.flush()


def pixels_below(root: Path, size: int, store: Path) -> Resolve:
    """The pictures below `root`; every folder is decoded, or its cache in `store` opened, when first asked for."""
    cached = cache(lambda folder: PixelCache(root / folder, size, store))

    def find(file_name: str) -> tuple[np.ndarray, int]:
        folder, _, file = file_name.rpartition("/")
        found = cached(folder)
        if file not in found.rows:
            raise KeyError(root / file_name)
        return found.pixels_NCHW, found.rows[file]

    return find


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
        flat = entries if isinstance(entries, Flat) else Flat.of(entries, vocabulary, context, where)
        self._flats, self.vocabulary, self.answers = [flat], vocabulary, answers
        self._place = np.stack([np.zeros(len(flat), np.int64), np.arange(len(flat))], 1)  # of an entry: flat, row
        names = flat.names
        self.types, self.datasets, self.lengths = names[flat.type_N], names[flat.dataset_N], flat.lengths
        self.categories = int(flat.category_M.max(initial=-1)) + 1
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
                mend = "add it to the answers, or leave the question out"
                raise InputError(f"{place(where, first[k])}.answer", problem, mend)
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
        caches = {_origin(pixels): pixels for part in parts for pixels in part._pixels}
        place = {origin: i for i, origin in enumerate(caches)}
        whole._pixels = list(caches.values())
        whole._cache = np.concatenate(
            [np.array([place[_origin(p)] for p in part._pixels], np.int32)[part._cache] for part in parts]
        )
        whole.categories = max(part.categories for part in parts)
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
        batch = Batch(*map(torch.from_numpy, (*fields, *asked)))
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
        """A seeded order of all entries as indices [steps, batch], the incomplete last batch left out.

        Within `window` batches entries of like length are put together, so that little is spent on padding. [ours]
        With `per_image` over 1, so many captions of one image stand together in a batch, and those of an image that
        are left over sit this epoch out. [ours]
        """
        if batch % per_image:
            raise InputError("batch", f"{batch} is no multiple of {per_image} captions per image")
        rng = np.random.default_rng(seed)
        bunches = self._bunches(rng.permutation(len(self)), per_image)
        if per_image > 1:
            bunches = bunches[rng.permutation(len(bunches))]
        size = batch // per_image  # images in a batch
        steps = len(bunches) // size
        if steps == 0:
            raise InputError("batch", f"{batch} is more than the {bunches.size} entries of the data set")
        groups = []
        for start in range(0, steps * size, window * size):
            part = bunches[start : min(start + window * size, steps * size)]
            part = part[np.argsort(self.lengths[part].max(1), kind="stable")].reshape(-1, batch)
            groups.append(part[rng.permutation(len(part))])
        return np.concatenate(groups)

    def _bunches(self, order: np.ndarray, per_image: int) -> np.ndarray:
        """`order` cut into bunches [n, per_image] of one image each; n depends on the data alone."""
        if per_image == 1:
            return order[:, None]
        order = order[np.argsort(self._image[order], kind="stable")]
        _, first, count = np.unique(self._image[order], return_index=True, return_counts=True)
        rank = np.arange(len(order)) - np.repeat(first, count)  # of a caption among those of its image
        return order[rank < np.repeat(count // per_image * per_image, count)].reshape(-1, per_image)

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

        return ahead(make, enumerate(self._orders(batch, seed, start, per_image), start), self.loaders)

    def _orders(self, batch: int, seed: int, start: int, per_image: int) -> Iterator[np.ndarray]:
        """Indices of the entries of every batch, from batch `start` on."""
        epoch = 0
        while True:
            indices = self.epoch(batch, seed * 100_003 + epoch, per_image=per_image)
            if start >= len(indices):  # every epoch has as many steps
                skipped, start = divmod(start, len(indices))
                epoch += skipped
                continue
            yield from indices[start:]
            epoch, start = epoch + 1, 0

    def by_image(self, captions: int) -> Iterator[np.ndarray]:
        """Indices of all entries in groups of about `captions`, the captions of one image never torn apart."""
        order = np.argsort(self._image, kind="stable")
        edges = np.flatnonzero(np.diff(self._image[order], prepend=-1, append=-1))
        begin = 0
        for edge in edges[1:]:
            if edge - begin >= captions or edge == edges[-1]:
                yield order[begin:edge]
                begin = edge


def _origin(pixels: np.ndarray) -> object:
    """What tells equal pixel arrays: the file that they are mapped from, or themselves."""
    return getattr(pixels, "filename", None) or id(pixels)
