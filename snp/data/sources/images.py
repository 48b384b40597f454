"""Where a benchmark's pictures lie: any of the usual layouts, and whether a file is a whole picture."""

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

FOLDERS = (
    "", "images", "train2014", "val2014", "train2017", "val2017", "train", "val", "test", "flickr30k-images",
    "VG_100K", "VG_100K_2", "images/mscoco/images/train2014",
)  # fmt: skip
"""Folders below a root in which pictures are looked for, in this order."""


class Images:
    """The pictures below some roots, found by file name; every folder is listed once.

    COCO's pictures are found under the names of both years: ``COCO_train2014_000000000009.jpg`` is
    ``000000000009.jpg`` of 2017.
    """

    def __init__(self, roots: Sequence[Path]) -> None:
        self._paths: dict[str, Path] = {}
        for root in roots:
            for folder in FOLDERS:
                if (root / folder).is_dir():
                    for file in os.scandir(root / folder):
                        self._paths.setdefault(file.name, Path(file.path))

    def find(self, file_name: str) -> Path | None:
        """The path of a picture, or None."""
        name = Path(file_name).name
        return self._paths.get(name) or self._paths.get(name.rpartition("_")[2])


def unreadable(paths: Iterable[Path], workers: int | None = None) -> Iterator[tuple[Path, str]]:
    """(path, "" or what is wrong with it) of each picture, all bytes of it decoded; JPEG at an eighth of its size."""

    def fault(path: Path) -> tuple[Path, str]:
        try:
            with Image.open(path) as image:
                image.draft("RGB", (32, 32))
                image.load()
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            return path, str(error)
        return path, ""

    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:  # Pillow decodes outside the interpreter lock
        yield from pool.map(fault, paths)
