"""Pictures of a user's folder, decoded when a batch needs them: real benchmarks have too many to be kept decoded."""

from pathlib import Path

import numpy as np
from PIL import Image

from snp.data.pixels import load, read_image
from snp.data.sources.images import Images
from snp.data.views import WHOLE, Fit, View


class Pictures:
    """The pictures below a folder in any usual layout, as rows of an array [N, 3, size, size] that is never made.

    Args:
        roots, flickr: of `Images`.
        size: side in pixels that every picture is brought to.
        fit: what it is brought to in place of a square, its sides' ratio kept.
    """

    def __init__(self, roots: tuple[Path, ...], flickr: bool, size: int, fit: Fit | None = None) -> None:
        self.filename = f"{roots} {flickr}"  # arrays of one folder are one, as those of one file
        self._side, self.fit = size, fit
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
        """One picture as a square, uint8 [3, size, size]."""
        return read_image(self._paths[row], self._side)

    def view(self, row: int, view: View) -> np.ndarray:
        """What is shown of one picture, uint8 [3, height, width]."""
        return shown(load(self._paths[row]), view)

    def size(self, row: int) -> tuple[int, int]:
        """Height and width of one picture as it is."""
        image = load(self._paths[row])
        return image.height, image.width


def shown(image: Image.Image, view: View) -> np.ndarray:
    """What a view shows of a picture, uint8 [3, height, width]."""
    if (image.height, image.width) != view.size or view.region != WHOLE:
        sides = (image.width, image.height) * 2
        left, top, right, bottom = (min(share * side, side) for share, side in zip(view.region, sides, strict=True))
        image = image.resize(view.size[::-1], Image.Resampling.BILINEAR, (left, top, right, bottom))
    return np.asarray(image).transpose(2, 0, 1)
