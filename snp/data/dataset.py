"""Annotations and pixels as arrays: a memory-mapped pixel cache, entries as flat arrays, and batches made from both."""

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from snp.data import annotations
from snp.data.tokens import PAD, Vocabulary
from snp.errors import InputError

MEND = "make the data set again with `snp data make`"


@dataclass(frozen=True)
class Batch:
    """B captions over I images; M is the largest number of boxes of a caption, L the longest caption.

    images_ICHW: uint8; image_index_B: the image of each caption; tokens_BL: vocabulary ids; text_BL: True where a
    token stands, False where padding; boxes_BM4: (centre x, centre y, width, height), each a share of the image side;
    valid_BM: True where a box stands; positive_BML: True where a token belongs to the phrase of a box; category_BM: the
    category id of a box, 0 where none stands. whole: the batch that this one is a part of, by whose boxes and tokens
    losses are divided, so that those of its parts add up to its own.
    """

    images_ICHW: Tensor
    image_index_B: Tensor
    tokens_BL: Tensor
    text_BL: Tensor
    boxes_BM4: Tensor
    valid_BM: Tensor
    positive_BML: Tensor
    category_BM: Tensor
    whole: "Batch | None" = None

    def __len__(self) -> int:
        return len(self.tokens_BL)

    @property
    def inputs(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """All that a model is given: pixels and words."""
        return self.images_ICHW, self.image_index_B, self.tokens_BL, self.text_BL

    @property
    def divisor(self) -> "Batch":
        """The batch that losses are divided by: the whole one of which this is a part."""
        return self if self.whole is None else self.whole

    def to(self, device: torch.device | str) -> "Batch":
        """With all tensors on this device."""
        return replace(self, **{name: tensor.to(device) for name, tensor in self._tensors().items()})

    def parts(self, count: int) -> Iterator["Batch"]:
        """The captions in `count` parts of about one size, each with the images that it needs."""
        of_captions = {name: t for name, t in self._tensors().items() if name not in ("images_ICHW", "image_index_B")}
        for rows in torch.arange(len(self), device=self.tokens_BL.device).tensor_split(count):
            images, index = self.image_index_B[rows].unique(return_inverse=True)
            own = {name: tensor[rows] for name, tensor in of_captions.items()}
            yield replace(self, images_ICHW=self.images_ICHW[images], image_index_B=index, whole=self.divisor, **own)

    def _tensors(self) -> dict[str, Tensor]:
        return {f.name: value for f in fields(self) if isinstance(value := getattr(self, f.name), Tensor)}


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
        key = hashlib.sha256(str(size).encode())
        for file in files:
            stat = file.stat()
            key.update(f"{file.name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
        self.rows = {file.name: row for row, file in enumerate(files)}
        path = store / f"{folder.name}-{size}-{key.hexdigest()[:12]}.npy"
        if not path.exists():
            self._decode([Path(f.path) for f in files], size, path)
        self.pixels_NCHW = np.load(path, mmap_mode="r")

    @staticmethod
    def _decode(files: list[Path], size: int, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            pixels = np.lib.format.open_memmap(part, "w+", np.uint8, (len(files), 3, size, size))
            with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes outside the interpreter lock
                for row, image in enumerate(pool.map(lambda f: read_image(f, size), files)):
                    pixels[row] = image
            pixels.flush()
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)


def read_image(path: Path, size: int) -> np.ndarray:
    """One image as uint8 CHW, brought to size x size pixels."""
    try:
        with Image.open(path) as image:
            image = image.convert("RGB")
            if image.size != (size, size):
                image = image.resize((size, size), Image.Resampling.BILINEAR)
            return np.asarray(image).transpose(2, 0, 1)
    except FileNotFoundError:
        raise InputError(path, "image not found", "fetch or make it again") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(path, f"image cannot be read: {error}", "fetch or make it again") from None


class GroundingSet:
    """All entries of an annotation file as flat arrays, ready to be cut into batches.

    Args:
        root: folder of the data set, with images/ and annotations/.
        name: annotation file without its ending, for example ``finetune_refcoco_val``.
        vocabulary: maps captions to ids.
        size: side of the images in pixels.
        context: most tokens a caption may have.
    """

    def __init__(self, root: Path, name: str, vocabulary: Vocabulary, size: int, context: int) -> None:
        path = root / "annotations" / f"{name}.json"
        entries = annotations.read(path)
        caches: dict[str, PixelCache] = {}
        self.types = np.array([entry.type for entry in entries])
        self.datasets = np.array([entry.dataset_name for entry in entries])
        self.captions = [entry.caption for entry in entries]
        self._cache = np.empty(len(entries), np.int32)
        self._row = np.empty(len(entries), np.int32)
        tokens, boxes, positive, category = [], [], [], []
        for i, entry in enumerate(entries):
            folder, _, file = entry.file_name.rpartition("/")
            if folder not in caches:
                caches[folder] = PixelCache(root / "images" / folder, size, root / "cache")
            if file not in caches[folder].rows:
                picture = root / "images" / entry.file_name
                raise InputError(f"{path}: images[{i}].file_name", f"image {picture} not found")
            self._cache[i] = list(caches).index(folder)
            self._row[i] = caches[folder].rows[file]
            ids, spans = vocabulary.encode(entry.caption)
            if len(ids) > context:
                raise InputError(
                    f"{path}: images[{i}].caption", f"{len(ids)} tokens, the model takes {context}"
                )
            tokens.append(ids)
            scale = np.array([entry.width, entry.height] * 2, np.float32)
            corner = np.array(entry.boxes, np.float32).reshape(-1, 4) / scale
            boxes.append(np.concatenate([corner[:, :2] + corner[:, 2:] / 2, corner[:, 2:]], 1))
            category.append(np.array(entry.categories, np.int64))
            begin, end = np.array(spans).T
            positive.append(
                [
                    np.any([(begin < e) & (end > b) for b, e in phrase], axis=0)
                    if phrase
                    else np.zeros(len(ids), bool)
                    for phrase in entry.spans
                ]
            )
        self._pixels = [cache.pixels_NCHW for cache in caches.values()]
        self._tokens, self._boxes, self._positive, self._category = tokens, boxes, positive, category
        self.categories = max(int(ids.max()) for ids in category) + 1
        self.lengths = np.array([len(t) for t in tokens], np.int32)

    def __len__(self) -> int:
        return len(self.captions)

    def subset(self, index: np.ndarray) -> "GroundingSet":
        """The entries at `index` as a data set of their own; pixels are shared."""
        part = copy(self)
        for name in ("types", "datasets", "lengths", "_cache", "_row"):
            setattr(part, name, getattr(self, name)[index])
        for name in ("captions", "_tokens", "_boxes", "_positive", "_category"):
            setattr(part, name, [getattr(self, name)[i] for i in index])
        return part

    def joined(self, *others: "GroundingSet") -> "GroundingSet":
        """These entries and those of `others`, in this order."""
        whole, parts = copy(self), (self, *others)
        for name in ("captions", "_tokens", "_boxes", "_positive", "_category"):
            setattr(whole, name, [value for part in parts for value in getattr(part, name)])
        for name in ("types", "datasets", "lengths", "_row"):
            setattr(whole, name, np.concatenate([getattr(part, name) for part in parts]))
        # a pixel cache that several files use is one, so that captions of one picture find each other
        caches = {pixels.filename: pixels for part in parts for pixels in part._pixels}
        place = {filename: i for i, filename in enumerate(caches)}
        whole._pixels = list(caches.values())
        whole._cache = np.concatenate(
            [np.array([place[p.filename] for p in part._pixels], np.int32)[part._cache] for part in parts]
        )
        whole.categories = max(part.categories for part in parts)
        return whole

    def batch(self, index: np.ndarray, share_images: bool = False) -> Batch:
        """The entries at `index`. With `share_images` each distinct image is held once (for evaluation)."""
        B, L = len(index), int(self.lengths[index].max())
        M = max(len(self._boxes[i]) for i in index)
        tokens = np.full((B, L), PAD, np.int64)
        boxes = np.zeros((B, M, 4), np.float32)
        valid = np.zeros((B, M), bool)
        positive = np.zeros((B, M, L), bool)
        category = np.zeros((B, M), np.int64)
        for b, i in enumerate(index):
            n, m = self.lengths[i], len(self._boxes[i])
            tokens[b, :n] = self._tokens[i]
            boxes[b, :m] = self._boxes[i]
            valid[b, :m] = True
            positive[b, :m, :n] = self._positive[i]
            category[b, :m] = self._category[i]
        where = np.stack([self._cache[index], self._row[index]], 1)
        image_index = np.arange(B)
        if share_images:
            where, image_index = np.unique(where, axis=0, return_inverse=True)
        images = np.stack([self._pixels[c][r] for c, r in where])
        fields = (images, image_index.reshape(-1), tokens, tokens != PAD, boxes, valid, positive, category)
        return Batch(*map(torch.from_numpy, fields))

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

    def stream(self, batch: int, seed: int, start: int = 0, per_image: int = 1) -> Iterator[Batch]:
        """Batches without end, epoch after epoch; `start` batches are passed over without being made.

        With `per_image` over 1 (as in `epoch`) an image passes the vision tower once for all its captions.
        """
        epoch = 0
        while True:
            indices = self.epoch(batch, seed * 100_003 + epoch, per_image=per_image)
            if start >= len(indices):  # every epoch has as many steps
                skipped, start = divmod(start, len(indices))
                epoch += skipped
                continue
            for index in indices[start:]:
                yield self.batch(index, share_images=per_image > 1)
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
