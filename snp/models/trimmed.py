"""Pictures through a vision tower that trims: what is kept of them for every caption, and where it is."""

import math

import torch
from torch import Tensor

from snp.errors import InputError
from snp.models import pictures
from snp.models.grounder import Grounder, Inputs
from snp.trimming.trimmer import Kept, Trimmer, smaller


def see(model: Grounder, trimmer: Trimmer, inputs: Inputs, words_BLD: Tensor) -> tuple[Kept, Tensor]:
    """What is kept for each caption, and the centres of those patches: [N, 2] where all are in place, else [B, N, 2].

    Args:
        words_BLD: states of the text tower, which guide where they shall; then each caption passes the layers from the
            first gate on for itself, else each picture does, once.

    Raises:
        InputError: pictures that keep their sides' ratio shall be smaller ones.
    """
    tower, trim, rows_B = model.vision, trimmer.trim, inputs.image_index_B
    pixels, guide_BD = model.normalised(inputs), None
    grids = pictures.grids_of(tower, pixels, inputs.sizes_I2)
    every_I = pixels.new_tensor([math.prod(one) for one in grids])
    if trim.policy == "small":
        if inputs.sizes_I2 is not None:
            raise InputError("policy", "small is of pictures that are brought to squares", "set `sides` of the recipe")
        x_ITD = smaller(tower, pixels, trim.tokens)
        side = math.isqrt(x_ITD.shape[1] - tower.num_prefix_tokens)
        grids = [(side, side)] * len(grids)
    else:
        x_ITD = pictures.embedded(tower, pixels, inputs.sizes_I2)
    if trimmer.by_text:
        there_BL = inputs.text_BL[..., None]
        guide_BD = (words_BLD * there_BL).sum(1) / there_BL.sum(1)
    there_IN = pictures.patches(inputs.sizes_I2, tower.patch_embed.patch_size[0])
    seed_I = inputs.images_ICHW.long().sum((1, 2, 3))
    kept = trimmer(tower, x_ITD, there_IN, every_I, guide_BD, rows_B, seed_I)
    centres = pictures.centres(grids, kept.x_RND)
    if guide_BD is None:
        kept = kept.of(rows_B)
    if kept.places_RN is not None:
        own_IN2 = centres if centres.dim() == 3 else centres.expand(len(grids), -1, -1)
        return kept, own_IN2[rows_B].gather(1, kept.places_RN[..., None].expand(-1, -1, 2))
    return kept, centres if centres.dim() == 2 else centres[rows_B]


def seen(kept: Kept, text_BL: Tensor) -> Tensor:
    """Which tokens of fusion's input are looked at [B, N + L]: 1 or 0, with the gates' gradients in training."""
    seen_BS = torch.cat([kept.keep_RN, text_BL.to(kept.keep_RN)], 1)
    return seen_BS if kept.keep_RN.requires_grad else seen_BS.bool()
