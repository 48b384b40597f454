"""The grounding models: sizes counted by hand, and what reaches them at test time."""

import pytest
import torch
from pydantic import ValidationError

from snp.compression import count
from snp.compression.problem import linear_weights
from snp.compression.tower import towers_of
from snp.models.config import DESK, GLIP_SMOKE, PAPER, SMOKE, ModelConfig, TowerConfig
from snp.models.family import build
from snp.models.fusion import sine_positions
from snp.models.mdetr import MDETR, TOWERS


def linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def attention(d: int) -> int:
    return 4 * linear(d, d)


def block(d: int) -> int:
    """A pre-norm layer: attention, FFN of 4d, two norms of 2d."""
    return attention(d) + linear(d, 4 * d) + linear(4 * d, d) + 2 * 2 * d


def fusion(c: ModelConfig) -> int:
    d, f = c.fusion_width, c.fusion_ffn
    ffn = linear(d, f) + linear(f, d) + 2 * d
    return c.encoder_layers * (attention(d) + 2 * d + ffn) + c.decoder_layers * (2 * attention(d) + 4 * d + ffn)


def heads(c: ModelConfig) -> int:
    d = c.fusion_width
    projections = 2 * linear(c.width, d) + 2 * d
    box = 2 * linear(d, d) + linear(d, 4)
    return projections + linear(d, c.context + 1) + box + 2 * linear(d, c.contrastive)


def test_the_paper_model_is_deit_b_and_clip_l_text_under_mdetrs_fusion():
    with torch.device("meta"):
        model = MDETR(PAPER)
    vision = linear(3 * 16 * 16, 768) + 768 + (14 * 14 + 1) * 768 + 12 * block(768) + 2 * 768
    text = 49_408 * 768 + 77 * 768 + 12 * block(768) + 2 * 768
    assert vision == 85_798_656  # timm's deit_base_patch16_224 without its classifier
    assert text == 123_060_480
    expected = vision + text + fusion(PAPER) + heads(PAPER) + 100 * 256
    assert sum(p.numel() for p in model.parameters()) == expected
    towers = count.count(MDETR(SMOKE), towers_of(MDETR(SMOKE), TOWERS)).towers
    assert set(towers) == {"vision", "text"}
    # with their embeddings, as the paper counts, the towers are nine tenths of all
    assert 0.88 < (vision + text) / expected < 0.93


@pytest.mark.parametrize("config", [SMOKE, GLIP_SMOKE], ids=lambda config: config.name)
def test_more_than_half_of_a_smoke_model_can_be_pruned(config: TowerConfig) -> None:
    model = build(config)
    weights = linear_weights(towers_of(model, TOWERS))
    prunable = sum(model.get_parameter(name).numel() for names in weights.values() for name in names)
    assert prunable > 0.5 * sum(p.numel() for p in model.parameters())


def test_the_desk_model_has_the_parameters_that_its_sizes_say():
    model = MDETR(DESK)
    d, w = DESK.fusion_width, DESK.width
    stem = linear(3 * 9, 16) + 2 * 16 + linear(16 * 9, 32) + 2 * 32 + linear(32 * 4, w)
    vision = stem + 64 * w + 6 * block(w) + 2 * w
    text = DESK.vocabulary * w + DESK.context * w + 6 * block(w) + 2 * w
    proposals = (2 * linear(d, d) + linear(d, 4)) + linear(d, 1) + linear(2 * d, d) + 2 * linear(d, 32)
    counted = count.count(model, towers_of(model, TOWERS))
    assert counted.stored == vision + text + fusion(DESK) + heads(DESK) + proposals
    assert counted.towers == dict.fromkeys(TOWERS, 6 * (block(w) - 4 * w))
    assert 0.8 <= counted.total / counted.stored <= 0.9


def inputs(images: int, captions: list[int], length: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (images, 3, 64, 64), dtype=torch.uint8, generator=generator)
    tokens = torch.randint(4, SMOKE.vocabulary, (len(captions), length), generator=generator)
    return pixels, torch.tensor(captions), tokens, torch.ones(len(captions), length, dtype=torch.bool)


@pytest.mark.parametrize("proposals", [True, False])
def test_outputs_have_the_shapes_and_ranges_that_are_promised(proposals):
    model = MDETR(SMOKE.model_copy(update={"proposals": proposals})).eval()
    out = model(*inputs(2, [0, 1, 1], 7))
    K, Q = SMOKE.decoder_layers, SMOKE.queries
    assert out.logits_KBQS.shape == (K, 3, Q, SMOKE.context + 1)
    assert out.boxes_KBQ4.shape == (K, 3, Q, 4) and out.boxes_KBQ4.min() >= 0 and out.boxes_KBQ4.max() <= 1
    assert torch.allclose(out.query_KBQC.norm(dim=-1), torch.ones(K, 3, Q))
    assert (out.patches is not None) == proposals


def test_an_image_shared_by_captions_gives_what_a_copy_for_each_gives():
    model = MDETR(SMOKE).eval()
    pixels, index, tokens, text = inputs(2, [0, 1, 1], 7)
    shared, copied = model(pixels, index, tokens, text), model(pixels[index], torch.arange(3), tokens, text)
    assert torch.allclose(shared.boxes_KBQ4, copied.boxes_KBQ4, atol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
def test_padding_changes_nothing(causal):
    model = MDETR(SMOKE.model_copy(update={"causal": causal})).eval()
    pixels, index, tokens, text = inputs(1, [0], 7)
    padded = torch.nn.functional.pad(tokens, (0, 5)), torch.nn.functional.pad(text, (0, 5))
    plain, longer = model(pixels, index, tokens, text), model(pixels, index, *padded)
    assert torch.allclose(plain.boxes_KBQ4, longer.boxes_KBQ4, atol=1e-5)
    assert torch.allclose(plain.logits_KBQS, longer.logits_KBQS, atol=1e-4)


def test_sine_positions_tell_all_grid_points_apart():
    ticks = (torch.arange(8) + 0.5) / 8
    grid = torch.stack(torch.meshgrid(ticks, ticks, indexing="xy"), -1).flatten(0, 1)
    found = sine_positions(grid, 64, 20.0)
    distance = torch.cdist(found, found) + 10 * torch.eye(64)
    assert found.shape == (64, 64) and distance.min() > 0.1


def test_a_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(ValidationError, match="no multiple of heads"):
        ModelConfig.model_validate(DESK.model_dump() | {"heads": 7})
