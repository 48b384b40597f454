"""What one caption costs: floating-point operations, from the tokens and heads that a model that trims has kept."""

from dataclasses import dataclass

import torch
from torch import Tensor

from snp.compression import count
from snp.compression.tower import Tower, towers_of
from snp.models.mdetr import MDETR, TOWERS
from snp.trimming.gates import Gate
from snp.trimming.trimmer import Kept, Trimmer


@dataclass(frozen=True)
class Cost:
    """Operations of B captions, as `snp.compression.count.flops` counts them: matrix products alone.

    picture_B: of what depends on the picture alone, which can be kept for its next caption. caption_B: of all else.
    """

    picture_B: Tensor
    caption_B: Tensor

    def over(self, captions: int) -> Tensor:
        """Of one of so many captions of a picture, which passes once what depends on it alone."""
        return self.picture_B / captions + self.caption_B


def cost(model: MDETR, kept: Kept | None, words_B: Tensor, patches_B: Tensor | None = None) -> Cost:
    """What captions of so many tokens cost, where this is kept of their pictures; None: all of so many patches.

    A head is counted where an input keeps it, though in a batch it is computed for all that stand beside such a one.
    """
    config, towers, words_B = model.config, towers_of(model, TOWERS), words_B.double()
    every_B = torch.full_like(words_B, config.image_tokens) if patches_B is None else patches_B.double()
    every_B = every_B if kept is None else kept.all_R.double()
    tokens_BS = every_B[:, None].expand(-1, config.depth) if kept is None else kept.tokens_RS.double()
    heads_BS = torch.ones_like(tokens_BS) if kept is None else kept.heads_RS.double()
    trimmer = None if kept is None else model.trimmer
    first = model.vision.num_prefix_tokens
    layers_BS = _layers(towers["vision"], tokens_BS + first, heads_BS)
    shared = config.depth
    if trimmer is not None:
        before_BS = torch.cat([every_B[:, None], tokens_BS[:, :-1]], 1)
        layers_BS = layers_BS + _gates(trimmer, towers["vision"], before_BS, tokens_BS, first)
        shared = trimmer.by_text[0] if trimmer.by_text else shared
    small = trimmer is not None and trimmer.trim.policy == "small"
    stem_B = _stem(model) * (tokens_BS[:, 0] if small else every_B)
    picture_B = stem_B + layers_BS[:, :shared].sum(1)
    caption_B = layers_BS[:, shared:].sum(1)
    projected_B = _linear(tokens_BS[:, -1], config.width, config.fusion_width)
    if shared == config.depth:
        picture_B = picture_B + projected_B
    else:
        caption_B = caption_B + projected_B
    text_B = _layers(towers["text"], words_B[:, None].expand(-1, config.depth), torch.ones(1)).sum(1)
    return Cost(picture_B, caption_B + text_B + _fusion(model, tokens_BS[:, -1], words_B))


def _linear(tokens: Tensor, inside: float, out: float | Tensor) -> Tensor:
    return 2 * tokens * inside * out


def _layers(tower: Tower, tokens_BS: Tensor, heads_BS: Tensor) -> Tensor:
    """Of every layer, with this share of its heads: queries, keys, values, both products, outputs, feed-forward."""
    found = []
    for layer, block in enumerate(tower.blocks):
        T, d = tokens_BS[:, layer], block.d_model
        h = block.n_heads * heads_BS[..., min(layer, heads_BS.shape[-1] - 1)]
        attention = _linear(T, d, h * (2 * block.d_qk + block.d_vo)) + 2 * T**2 * h * (block.d_qk + block.d_vo)
        found.append(attention + _linear(T, d, h * block.d_vo) + 2 * _linear(T, d, block.d_ffn))
    return torch.stack(found, 1)


def _gates(trimmer: Trimmer, tower: Tower, before_BS: Tensor, tokens_BS: Tensor, first: int) -> Tensor:
    """Of deciding, in every layer: gates on tokens see those before them, gates on heads a mean of what is left."""
    found = torch.zeros_like(tokens_BS)
    for layer, block in enumerate(tower.blocks):
        for gates, states in ((trimmer.tokens, before_BS[:, layer]), (trimmer.heads, torch.ones(1))):
            gate = dict(gates.items()).get(str(layer))
            if isinstance(gate, Gate):
                for map in (gate.inner, gate.outer):
                    found[:, layer] += _linear(states, map.in_features, map.out_features)
        if layer + 1 == trimmer.once:  # asks once more how much tokens look at each other
            T, h = tokens_BS[:, layer] + first, block.n_heads
            found[:, layer] += _linear(T, block.d_model, h * (2 * block.d_qk + block.d_vo)) + 2 * T**2 * h * block.d_qk
    return found


def _stem(model: MDETR) -> float:
    """Of a patch."""
    side, patch = model.config.image_size, model.config.patch
    return count.flops(model.vision.patch_embed, torch.zeros(1, 3, side, side)) / (side // patch) ** 2


def _fusion(model: MDETR, n_B: Tensor, words_B: Tensor) -> Tensor:
    """Of everything behind the towers but the projection of image tokens."""
    c = model.config
    d, both = c.fusion_width, n_B + words_B
    asked = c.queries + (1 + len(c.answers) if c.answers else 0)
    heads = 2 * d**2 + 4 * d  # of a box: two layers of width d, and one to four numbers
    encoder = 4 * _linear(both, d, d) + 4 * both**2 * d + 2 * _linear(both, d, c.fusion_ffn)
    among = 8 * asked * d**2 + 4 * asked**2 * d
    across = 4 * asked * d**2 + 2 * _linear(both, d, d) + 4 * asked * both * d
    decoder = among + across + 4 * asked * d * c.fusion_ffn
    queries = 2 * c.decoder_layers * c.queries * (d * (c.context + 1) + heads + d * c.contrastive)
    total = c.encoder_layers * encoder + c.decoder_layers * decoder + queries
    total = total + _linear(words_B, c.width, d) + _linear(words_B, d, c.contrastive)
    if c.proposals:
        total = total + 2 * n_B * (heads + d + d * c.contrastive) + _linear(words_B, d, c.contrastive)
        total = total + 4 * c.queries * d**2
    answers = sum(n for _, n in c.answers) + len(c.answers)
    return total + 2 * d * answers
