"""Towers: timm, open_clip and transformers layers look alike, and views are the live parameters."""

import pytest
import torch
from open_clip.transformer import TextTransformer
from torch import nn
from towers import two_towers, views
from transformers import CLIPTextConfig, SiglipVisionConfig
from transformers.models.clip.modeling_clip import CLIPEncoder
from transformers.models.siglip.modeling_siglip import SiglipVisionModel

from snp.compression.block import PLAIN
from snp.compression.tower import COMPONENTS, ROLES, Shape, view
from snp.errors import InputError

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}


def holding(module: nn.Module) -> nn.Module:
    model = nn.Module()
    model.tower = module
    return model


def test_timm_and_open_clip_towers_have_the_same_shape():
    towers = views(two_towers())
    assert towers["vision"].shape == towers["text"].shape == Shape(2, 32, 4, 8, 128)


def test_transformers_encoders_are_found_inside_their_models():
    siglip = SiglipVisionModel(SiglipVisionConfig(**SIZES, image_size=16, patch_size=4))
    shape = view(holding(siglip), "tower", "vision").shape
    assert (shape.layers, shape.d_model, shape.n_heads, shape.d_head, shape.d_ffn) == (3, 32, 4, 8, 48)
    assert shape.components == ("attn", "ffn")
    for path in ("tower.encoder", "tower.encoder.layers"):
        assert view(holding(siglip), path, "vision").shape == shape
    assert view(holding(CLIPEncoder(CLIPTextConfig(**SIZES))), "tower", "text").shape == shape


def test_a_unit_of_heads_that_are_cut_as_they_are_has_a_row_of_q_k_v_and_a_column_of_o():
    siglip = SiglipVisionModel(SiglipVisionConfig(**SIZES, image_size=16, patch_size=4))
    block = view(siglip, "", "vision").blocks[0]
    i = 13
    rows = [block.weight("q")[i], block.weight("k")[i], block.weight("v")[i], block.weight("o")[:, i]]
    biases = [block.bias(role)[i : i + 1] for role in "qkv"]
    assert torch.equal(block.units("attn")[i], torch.cat([*rows, *biases]))
    for name, start, tensor in block.split("attn", block.units("attn")):
        assert torch.equal(siglip.get_parameter(name)[start : start + len(tensor)], tensor)
    assert view(siglip, "", "vision").shape.cost == sum(
        siglip.get_parameter(name).numel() for name in view(siglip, "", "vision").parameter_names
    )


def test_packed_rows_are_the_queries_keys_and_values():
    model = two_towers()
    vision, text = (tower.blocks[1] for tower in views(model).values())
    packed = model.vision.blocks[1].attn.qkv.weight, model.text.transformer.resblocks[1].attn.in_proj_weight
    for block, weight in zip((vision, text), packed, strict=True):
        for i, role in enumerate("qkv"):
            assert torch.equal(block.weight(role), weight[32 * i : 32 * i + 32])
            assert block.ref(role).rows == slice(32 * i, 32 * i + 32)
    assert text.ref("k").weight == "text.transformer.resblocks.1.attn.in_proj_weight"
    assert text.ref("fc2").bias == "text.transformer.resblocks.1.mlp.c_proj.bias"


def test_weights_are_views_of_the_live_parameters():
    model = two_towers()
    for tower in views(model).values():
        for role in ROLES:
            tower.blocks[0].weight(role).data.fill_(7.0)
            tower.blocks[0].bias(role).data.fill_(7.0)
    for layer in (model.vision.blocks[0], model.text.transformer.resblocks[0]):
        for part in (layer.attn, layer.mlp):
            assert all(torch.all(p == 7.0) for p in part.parameters())


def test_gradients_flow_through_views():
    model = two_towers()
    views(model)["text"].blocks[0].weight("k").sum().backward()
    gradient = model.text.transformer.resblocks[0].attn.in_proj_weight.grad
    assert torch.equal(gradient.sum(1), torch.tensor([0.0, 32.0, 0.0]).repeat_interleave(32))


def test_unit_costs_are_those_of_the_unit_table():
    d, h, d_head, d_ffn = 32, 4, 8, 128
    shape = Shape(2, d, h, d_head, d_ffn)
    assert shape.unit_cost("ffn") == shape.unit_cost("ffn", "share") == 2 * d + 1
    assert (shape.unit_cost("qk"), shape.unit_cost("qk", "share")) == (2 * h * (d + 1), 2 * (d + 1))
    assert (shape.unit_cost("vo"), shape.unit_cost("vo", "share")) == (h * (2 * d + 1), 2 * d + 1)
    assert [shape.units(c) for c in COMPONENTS] == [d_head, d_head, d_ffn]
    assert [shape.units(c, "share") for c in COMPONENTS] == [d, d, d_ffn]


def test_units_and_two_biases_make_up_the_whole_tower():
    model = two_towers()
    for name, tower in views(model).items():
        assert tower.shape.cost == sum(model.get_parameter(p).numel() for p in tower.parameter_names)
        stored = sum(tower.blocks[0].units(c).numel() for c in COMPONENTS) + 2 * 32
        assert stored * len(tower) == tower.shape.cost, name


def test_unit_rows_hold_rows_columns_and_biases():
    block = views(two_towers())["vision"].blocks[0]
    for c in COMPONENTS:
        assert block.units(c).shape == (Shape(2, 32, 4, 8, 128).units(c, "share"), 66 if c == "qk" else 65)
    i = 13
    expected = torch.cat([block.weight("v")[i], block.weight("o")[:, i], block.bias("v")[i : i + 1]])
    assert torch.equal(block.units("vo")[i], expected)
    assert PLAIN["vo"] == (("v", 0, 1), ("o", 1, 1))


def test_a_pruned_head_dimension_stands_for_that_dimension_of_every_head():
    kept = torch.tensor([True, False, True, True, True, True, True, True])
    expanded = Shape(2, 32, 4, 8, 128).expand("qk", kept)
    assert [i for i in range(32) if not expanded[i]] == [1, 9, 17, 25]


@pytest.mark.parametrize(
    ("module", "problem"),
    [
        (nn.Linear(2, 2), "no transformer layers"),
        (nn.Sequential(), "no transformer layers"),
        (TextTransformer(7, 9, 8, 2, 1, scale_heads=True), "no transformer layers"),
    ],
)
def test_unknown_layers_are_refused(module, problem):
    with pytest.raises(InputError, match=problem):
        view(holding(module), "tower", "vision")


def test_a_missing_submodule_is_named():
    with pytest.raises(InputError, match=r"no submodule 'vison' \(it has vision, text, head\)"):
        view(two_towers(), "vison", "vision")
