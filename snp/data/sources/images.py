"""How a benchmark's pictures are called and where they lie: any of the usual layouts; whether a file is whole."""

import filecmp
import os
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from snp.data import pixels
from snp.data.drawn import folder, pictures
from snp.data.sources.layout import home
from snp.errors import InputError

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
    return folder.ours(root.resolve().parent)


def naming(root: Path) -> Callable[[str], str]:
    """What tells the picture of a number, for a benchmark's folder: published, or drawn here."""
    return pictures.file_name if drawn(root) else jpg


_YEARS = re.compile(r"COCO_(?:train|val|test)201\d_(\d{12}\.jpg)", re.ASCII)
"""COCO's pictures as 2014 named them, with the name that 2017 gave them."""
FLICKR = "flickr30k-images"
LENT = {
    "mixed": ("gqa", "coco"),
    "refcoco": ("coco",),
    "refcoco+": ("coco",),
    "refcocog": ("coco",),
    "grefcoco": ("coco",),
}
"""Whose pictures those of a benchmark are, if they are another's: GQA's are Visual Genome's."""


class Images:
    """The pictures below some roots, found by file name; every folder is listed once.

    A name that has folders of its own is looked for with them. COCO's pictures of 2014 are found under the names of
    2017: ``COCO_train2014_000000000009.jpg`` is ``000000000009.jpg``.

    Args:
        roots: a name in several is that of the first; `twins` tells the others.
        flickr: Flickr30k's pictures come first, whose names Visual Genome has too; else they come last.

    Raises:
        InputError: a folder that cannot be listed.
    """

    def __init__(self, roots: Iterable[Path], flickr: bool = False) -> None:
        self._folders = [
            root / name
            for root in dict.fromkeys(roots)
            for name in sorted(FOLDERS, key=lambda name: (name == FLICKR) != flickr)
        ]
        self._paths: dict[str, Path] = {}
        self._others: dict[str, list[Path]] = {}
        for place in self._folders:
            try:
                for file in os.scandir(place):
                    path = Path(file.path)
                    if self._paths.setdefault(file.name, path) != path:
                        self._others.setdefault(file.name, []).append(path)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise InputError(place, f"cannot be listed: {error.strerror}") from None

    def find(self, file_name: str) -> Path | None:
        """The path of a picture, or None."""
        if "/" in file_name:
            return next((path for place in self._folders if os.path.isfile(path := place / file_name)), None)
        if file_name in self._paths:
            return self._paths[file_name]
        known = _YEARS.fullmatch(file_name)
        return self._paths.get(known[1]) if known else None

    def twins(self, path: Path) -> list[Path]:
        """Pictures of other folders that have the name of one that was found, and hold something else.

        Flickr30k's and Visual Genome's share names by chance, and are told apart.
        """
        apart = path.parent.name == FLICKR
        others = (other for other in self._others.get(path.name, []) if (other.parent.name == FLICKR) == apart)
        return [other for other in others if other != path and _differ(path, other)]


def _differ(one: Path, other: Path) -> bool:
    """Whether two files that can be read hold something else."""
    try:
        return not filecmp.cmp(one, other, shallow=False)
    except OSError:
        return False


def places(root: Path, benchmark: str) -> tuple[tuple[Path, ...], bool]:
    """Where a benchmark's pictures are: its own folder, the root that holds all, beside it where it was drawn, or in
    the folder of the benchmark whose pictures they are.

    Returns:
        The arguments of `Images`.
    """
    own = home(root, benchmark)
    beside = [own.resolve().parent] if drawn(own) else []
    of = [root / other for other in LENT.get(benchmark, ())]
    return (own, root, *beside, *of), benchmark == "flickr30k"


def looked_at(paths: Iterable[Path], workers: int | None = None) -> Iterator[tuple[int, int] | InputError]:
    """Of each picture width and height, seen upright, or what is wrong with it: all bytes of it are decoded."""

    def look(path: Path) -> tuple[int, int] | InputError:
        try:
            return pixels.look(path)
        except InputError as error:
            return error

    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:  # Pillow decodes outside the interpreter lock
        yield from pool.map(look, paths)
