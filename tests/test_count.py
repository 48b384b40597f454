"""Counting: parameters and operations agree with arithmetic by hand."""

import open_clip
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from towers import PATHS, example, two_towers, views

from snp.compression.count import count, flops
from snp.compression.plan import Plan, Share, shapes
from snp.compression.surgery import apply
from snp.compression.tower import COMPONENTS, towers_of

D, H, FFN, LAYERS = 32, 4, 128, 2


def tower_flops(tokens: int, d_qk: int = 8, d_vo: int = 8, ffn: int = FFN) -> int:
    """Multiply-adds of one sample through one tower's layers, times two."""
    projections = tokens * D * H * (2 * d_qk + 2 * d_vo)
    attention = tokens * tokens * H * (d_qk + d_vo)
    return 2 * LAYERS * (projections + attention + 2 * tokens * D * ffn)


def outside_flops() -> int:
    """Patch embedding, text projection and head of one sample."""
    return 2 * (16 * 3 * 4 * 4 * D + D * D + 2 * D * 5)


def test_parameters_of_a_dense_model_are_counted_by_hand():
    model = two_towers()
    counts = count(model, views(model))
    each = LAYERS * (4 * (D * D + D) + 2 * D * FFN + D + FFN)
    assert counts.towers == {"vision": each, "text": each} and counts.total == 2 * each
    assert counts.embeddings == 19 * D
    assert counts.stored == counts.nonzero == sum(p.numel() for p in model.parameters())
    assert counts.other == counts.stored - 2 * each - 19 * D


def test_zeros_are_stored_but_not_counted_as_nonzero():
    model = two_towers()
    before = count(model, views(model))
    with torch.no_grad():
        model.vision.blocks[0].mlp.fc1.weight[:10].zero_()
    after = count(model, views(model))
    assert after.stored == before.stored and after.nonzero == before.nonzero - 10 * D


@pytest.mark.parametrize("batch", [1, 3])
def test_operations_of_a_dense_model_are_counted_by_hand(batch):
    expected = batch * (tower_flops(17) + tower_flops(7) + outside_flops())
    assert flops(two_towers(), *example(batch)) == expected


def test_operations_of_a_cut_model_are_counted_by_hand():
    model = two_towers()
    kept = {"qk": 5, "vo": 3, "ffn": 70}
    keep = {
        (name, layer, c): torch.arange(tower.shape.units(c)) < kept[c]
        for name, tower in views(model).items()
        for layer in range(LAYERS)
        for c in COMPONENTS
    }
    cut = apply(model, Plan(shapes(views(model)), keep), PATHS)
    expected = tower_flops(17, 5, 3, 70) + tower_flops(7, 5, 3, 70) + outside_flops()
    assert flops(cut, *example(1)) == expected


def test_sharing_saves_no_operations():
    model = two_towers()
    share = Share(("text", 0, "ffn"), ("vision", 0), torch.ones(FFN, dtype=torch.bool))
    tied = apply(model, Plan(shapes(views(model)), {}, (share,)), PATHS)
    assert flops(tied, *example(2)) == flops(model, *example(2))


def test_operations_do_not_depend_on_mode_gradients_or_frozen_weights():
    """torch's inference fast path and fused CPU attention would read as no operations at all."""
    model = two_towers()
    expected = flops(model, *example())
    assert model.training
    model.eval().requires_grad_(False)
    with torch.no_grad():
        assert flops(model, *example()) == expected
    assert not model.training and torch.backends.mha.get_fastpath_enabled()


def test_operations_of_torchs_own_encoder_layer_are_counted():
    layer = nn.TransformerEncoderLayer(D, H, FFN, batch_first=True).eval().requires_grad_(False)
    assert flops(layer, torch.randn(2, 7, D)) == 2 * tower_flops(7) // LAYERS


@pytest.mark.slow
def test_the_paper_scale_pair_has_the_parameters_of_deit_base_and_clip_large_text():
    with torch.device("meta"):
        model = nn.Module()
        model.vision = VisionTransformer(num_classes=0)
        model.text = open_clip.transformer.TextTransformer(77, 49408, 768, 12, 12, output_dim=768)
    towers = towers_of(model, PATHS)
    each = 12 * (4 * (768 * 768 + 768) + 2 * 768 * 3072 + 768 + 3072)
    counts = count(model, towers)
    assert counts.towers == {"vision": each, "text": each} and counts.embeddings == 49408 * 768
    every_other = torch.arange(3072) % 2 == 0
    plan = Plan(shapes(towers), {(name, layer, "ffn"): every_other for name in towers for layer in range(12)})
    cut = apply(model, plan, PATHS)
    assert counts.stored - count(cut, towers_of(cut, PATHS)).stored == 2 * 12 * 1536 * (2 * 768 + 1)
