"""How a benchmark's pictures are called and where they lie: any of the usual layouts; whether a file is whole."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from snp.data import pictures

FOLDERS = (
    "", "images", "train2014", "val2014", "train2017", "val2017", "train", "val", "test", "flickr30k-images",
    "VG_100K", "VG_100K_2", "images/mscoco/images/train2014",
)  # fmt: skip
"""Folders below a root in which pictures are looked for, in this order."""


def jpg(identity: str) -> str:
    """The picture of this number as GQA and Flickr30k publish it."""
    return f"{identity}.jpg"


def drawn(root: Path) -> bool:
    """Whether a benchmark's folder is part of a data set that was drawn here."""
    return (root.resolve().parent / "dataset.json").is_file()


def naming(root: Path) -> Callable[[str], str]:
    """What tells the picture of a number, for a benchmark's folder: published, or drawn here."""
    return pictures.file_name if drawn(root) else jpg


class Images:
    """The pictures below some roots, found by file name; every folder is listed once.

    A name that has folders of its own is looked for with them first.
    COCO's pictures are found under the names of both years: ``COCO_train2014_000000000009.jpg`` is
    ``000000000009.jpg`` of 2017.
    """

    def __init__(self, roots: Sequence[Path]) -> None:
        self._roots = roots
        self._paths: dict[str, Path] = {}
        for root in roots:
            for folder in FOLDERS:
                if (root / folder).is_dir():
                    for file in os.scandir(root / folder):
                        self._paths.setdefault(file.name, Path(file.path))

    def find(self, file_name: str) -> Path | None:
        """The path of a picture, or None."""
        name = Path(file_name).name
        if name != file_name:
            nested = (root / folder / file_name for root in self._roots for folder in FOLDERS)
            if (path := next((path for path in nested if path.is_file()), None)) is not None:
                return path
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
