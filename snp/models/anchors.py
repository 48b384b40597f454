"""GLIP's anchors: one square at every place of every level of a picture's pyramid."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from snp.models.pictures import Grid, grid

NOWHERE = -1
"""The level of padding, behind the places of smaller pictures."""


@dataclass(frozen=True)
class Anchors:
    """Where anchors stand.

    Args:
        common: height and width of pictures that have no sizes of their own. patch: pixels of a patch.
        scales: resolution of every level, relative to the grid of patches. size: side of an anchor, in strides.
    """

    common: tuple[int, int]
    patch: int
    scales: tuple[float, ...]
    size: float

    def levels(self, of: Grid) -> list[Grid]:
        """Rows and columns of every level over a grid of patches; a half that is left over has a row of its own."""
        found = []
        for scale in self.scales:
            rows, columns = (int(n * max(scale, 1)) for n in of)
            while scale < 1:
                rows, columns, scale = -(-rows // 2), -(-columns // 2), scale * 2
            found.append((rows, columns))
        return found

    def places(self, count: int, sizes_B2: Tensor | None, like: Tensor) -> tuple[Tensor, Tensor]:
        """Anchors of `count` pictures, corners [B, N, 4] as shares of each one's sides, and their levels [B, N].

        Args:
            sizes_B2: height and width of each; None: the common ones.
        """
        sizes = [self.common] if sizes_B2 is None else list(map(tuple, sizes_B2.tolist()))
        made = {size: self._places(size, like) for size in {*sizes}}
        if len(made) == 1:
            ((corners_N4, level_N),) = made.values()
            return corners_N4.expand(count, -1, -1), level_N.expand(count, -1)
        own = [made[size] for size in sizes]
        corners, levels = zip(*own, strict=True)
        return (
            pad_sequence(list(corners), batch_first=True),
            pad_sequence(list(levels), batch_first=True, padding_value=NOWHERE),
        )

    def _places(self, size: Sequence[int], like: Tensor) -> tuple[Tensor, Tensor]:
        height, width = size
        found, places = [], []
        for level, (grid_of, scale) in enumerate(zip(self.levels(grid(size, self.patch)), self.scales, strict=True)):
            stride = self.patch / scale
            y, x = (
                (torch.arange(n, device=like.device, dtype=like.dtype) + 0.5) * stride / side
                for n, side in zip(grid_of, size, strict=True)
            )
            centre = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).flatten(0, 1)
            half = self.size * stride / 2 / like.new_tensor([width, height])
            found.append(torch.cat([centre - half, centre + half], 1))
            places.append(torch.full((len(centre),), level, device=like.device))
        return torch.cat(found), torch.cat(places)
