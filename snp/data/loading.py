"""Pictures of a user's folder, decoded when a batch needs them: real benchmarks have too many to be kept decoded."""

from pathlib import Path

import numpy as np

from snp.data.pixels import read_image
from snp.data.sources.images import Images


class Pictures:
    """The pictures below a folder in any usual layout, as rows of an array [N, 3, size, size] that is never made.

    Args:
        roots, flickr: of `Images`.
        size: side in pixels that every picture is brought to.
    """

    def __init__(self, roots: tuple[Path, ...], flickr: bool, size: int) -> None:
        self.filename, self.size = f"{roots} {flickr}", size  # arrays of one folder are one, as those of one file
        self._images, self._rows, self._paths = Images(roots, flickr), dict[str, int](), list[Path]()

    def __call__(self, file_name: str) -> tuple["Pictures", int]:
        """These pictures, and the row of one of them; KeyError where there is none of this name."""
        if file_name not in self._rows:
            path = self._images.find(file_name)
            if path is None:
                raise KeyError(file_name)
            self._rows[file_name] = len(self._paths)
            self._paths.append(path)
        return self, self._rows[file_name]

    def __getitem__(self, row: int) -> np.ndarray:
        """One picture, uint8 [3, size, size]."""
        return read_image(self._paths[row], self.size)
