"""Decoded pictures: a folder's pixels as one memory-mapped array, kept beside the data."""

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap

from snp.data.pixels import VERSION, read_image
from snp.errors import InputError
from snp.files import replacing

HINT = "make the data set again with `snp data make`"
Resolve = Callable[[str], tuple[Any, int]]
"""File name of a picture -> (pixels NCHW of it and others, its row); KeyError where there is none.

Pixels of pictures that keep their sides' ratio (`snp.data.loading.Pictures`) have a `fit`, and give a `view` of a row.
"""


class PixelCache:
    """The images below a folder, decoded once and kept as one memory-mapped uint8 array NCHW. [ours]

    Args:
        folder: a folder of images; its subfolders are not read.
        size: side in pixels that every image is brought to.
        store: where the decoded array is kept; its name changes with the names, sizes and times of the images.
    """

    def __init__(self, folder: Path, size: int, store: Path) -> None:
        if not folder.is_dir():
            raise InputError(folder, "image folder not found", HINT)
        files = sorted((f for f in os.scandir(folder) if f.is_file()), key=lambda f: f.name)
        if not files:
            raise InputError(folder, "holds no images", HINT)
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


def origin(pixels: np.ndarray) -> object:
    """What tells equal pixel arrays: the file that they are mapped from, or themselves."""
    return getattr(pixels, "filename", None) or id(pixels)
