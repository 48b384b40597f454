"""Pictures through the vision tower: squares as one array, others each on a grid of its own, as sequences of tokens."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.checkpoint import checkpoint

Grid = tuple[int, int]
"""Rows and columns of the patches of a picture."""


@dataclass(frozen=True)
class Seen:
    """What the vision tower says of I pictures; N is the most patches of one.

    x_IND: a state for every patch, row by row, and padding behind those of smaller pictures. grids: of each picture.
    """

    x_IND: Tensor
    grids: Sequence[Grid]


def grid(size: Sequence[int], patch: int) -> Grid:
    """Of a picture of this height and width; its last row and column may reach beyond it."""
    rows, columns = (-(-side // patch) for side in size)
    return rows, columns


def patches(sizes_I2: Tensor | None, patch: int) -> Tensor | None:
    """Which places of the tower's output are patches, [I, N]; None where all are, as of squares."""
    if sizes_I2 is None:
        return None
    counts = [rows * columns for rows, columns in (grid(size, patch) for size in sizes_I2.tolist())]
    if len({*counts}) == 1:
        return None
    return torch.arange(max(counts), device=sizes_I2.device) < sizes_I2.new_tensor(counts)[:, None]


def attended(tower: VisionTransformer, sizes_I2: Tensor | None) -> Tensor | None:
    """Which tokens of the tower are no padding, those before the patches included: [I, T]; None where all are."""
    own_IN = patches(sizes_I2, tower.patch_embed.patch_size[0])
    return None if own_IN is None else F.pad(own_IN, (tower.num_prefix_tokens, 0), value=True)


def see(tower: VisionTransformer, pixels_ICHW: Tensor, sizes_I2: Tensor | None) -> Seen:
    """Pass pictures through the tower.

    What is said of a picture does not depend on those beside it: each is cut out of its padding, gets positions
    resampled to its own grid, and attends to itself alone.

    Args:
        pixels_ICHW: normalised. sizes_I2: as in `snp.data.dataset.Batch`.
    """
    first, grids = tower.num_prefix_tokens, grids_of(tower, pixels_ICHW, sizes_I2)
    if sizes_I2 is None:
        return Seen(tower.forward_features(pixels_ICHW)[:, first:], grids)
    x_IND, keys = embedded(tower, pixels_ICHW, sizes_I2), attended(tower, sizes_I2)
    mask = None if keys is None else keys[:, None, None]
    for block in tower.blocks:
        if tower.grad_checkpointing and torch.is_grad_enabled():
            x_IND = checkpoint(block, x_IND, attn_mask=mask, use_reentrant=False)
        else:
            x_IND = block(x_IND, attn_mask=mask)
    return Seen(tower.norm(x_IND)[:, first:], grids)


def grids_of(tower: VisionTransformer, pixels_ICHW: Tensor, sizes_I2: Tensor | None) -> list[Grid]:
    """The grid of patches of every picture; arguments as of `see`."""
    patch = tower.patch_embed.patch_size[0]
    if sizes_I2 is None:
        return [grid(pixels_ICHW.shape[-2:], patch)] * len(pixels_ICHW)
    return [grid(size, patch) for size in sizes_I2.tolist()]


def embedded(tower: VisionTransformer, pixels_ICHW: Tensor, sizes_I2: Tensor | None) -> Tensor:
    """Tokens as the first layer gets them [I, T, D], those before the patches included; arguments as of `see`."""
    if sizes_I2 is None:
        return tower.norm_pre(tower._pos_embed(tower.patch_embed(pixels_ICHW)))  # type: ignore[no-any-return]
    sizes = sizes_I2.tolist()
    cut = [pixels[None, :, :height, :width] for pixels, (height, width) in zip(pixels_ICHW, sizes, strict=True)]
    # a patch that reaches beyond its picture sees the mean colour there
    sequences = [tower._pos_embed(tower.patch_embed(picture)) for picture in cut]
    return tower.norm_pre(pad_sequence([one[0] for one in sequences], batch_first=True))  # type: ignore[no-any-return]


def centres(grids: Sequence[Grid], like: Tensor) -> Tensor:
    """Centres (x, y) of all patches as shares of their grid's sides: [N, 2] where grids are equal, else [I, N, 2].

    Padding is told the centre of the last patch.
    """
    if len({*grids}) == 1:
        rows, columns = grids[0]
        y, x = ((torch.arange(n, device=like.device, dtype=like.dtype) + 0.5) / n for n in (rows, columns))
        return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).flatten(0, 1)
    own = [centres([one], like) for one in grids]
    most = max(map(len, own))
    return torch.stack([torch.cat([c, c[-1:].expand(most - len(c), 2)]) for c in own])
