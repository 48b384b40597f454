"""Surgery: the cut and tied model is the masked and substituted one, and stays so in training."""

import copy
from dataclasses import replace

import pytest
import timm
import torch
from torch import nn
from torch.func import functional_call
from towers import PATHS, example, loss_of, two_towers, views
from transformers import SiglipTextConfig, SiglipVisionConfig
from transformers.models.siglip.modeling_siglip import SiglipEncoder

from snp.compression.count import count
from snp.compression.plan import Plan, Share, shapes
from snp.compression.surgery import apply, substitute
from snp.compression.tied import TiedLinear
from snp.compression.tower import COMPONENTS, towers_of
from snp.errors import InputError


def random_plan(towers, seed=0, keep=0.6, share=0.5) -> Plan:
    """Prune units of every component in both towers, share survivors across towers and layers."""
    source = torch.Generator().manual_seed(seed)
    sizes = shapes(towers)
    donor, receiver = sizes
    kept, shares = {}, []
    for layer in range(sizes[donor].layers):
        for c in sizes[donor].components:
            units = torch.rand(sizes[donor].units(c), generator=source) < keep
            units[0] = True
            kept[donor, layer, c] = kept[receiver, layer, c] = units
    for layer in range(sizes[donor].layers):
        for c in sizes[donor].components:
            alive = sizes[donor].expand(c, kept[receiver, layer, c])
            chance = torch.rand(len(alive), generator=source)
            cross = alive & (chance < share / 2)
            shares.append(Share((receiver, layer, c), (donor, layer), cross))
            if layer:
                block = alive & ~cross & (chance < share) & sizes[donor].expand(c, kept[receiver, 0, c])
                shares.append(Share((receiver, layer, c), (receiver, 0), block))
    return Plan(sizes, kept, tuple(shares))


def same(model, towers, plan, paths, *batch) -> nn.Module:
    """Assert that the compressed model equals the substituted one in its outputs; return it."""
    compressed = apply(model, plan, paths)
    expected = functional_call(model, substitute(model, towers, plan), batch)
    torch.testing.assert_close(compressed(*batch), expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(model(*batch), expected, atol=1e-3), "the plan must change something"
    return compressed


@pytest.mark.parametrize("seed", range(4))
def test_compressed_equals_substituted_for_timm_and_open_clip(seed):
    model = two_towers().eval()
    towers = views(model)
    same(model, towers, random_plan(towers, seed), PATHS, *example())


@pytest.mark.parametrize("component", COMPONENTS)
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_each_component_alone_is_cut_and_tied_rightly(component, share):
    model = two_towers().eval()
    plan = random_plan(views(model), share=share)
    plan = replace(
        plan,
        keep={k: v for k, v in plan.keep.items() if k[2] == component},
        shares=tuple(s for s in plan.shares if s.receiver[2] == component),
    )
    same(model, views(model), plan, PATHS, *example())


class Siglip(nn.Module):
    """Two SigLIP encoders of transformers over given embeddings."""

    def __init__(self, attention: str):
        super().__init__()
        sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
        torch.manual_seed(0)
        for name, config in (("vision", SiglipVisionConfig(**sizes)), ("text", SiglipTextConfig(**sizes))):
            config._attn_implementation = attention
            setattr(self, name, SiglipEncoder(config))

    def forward(self, x_BLD, mask=None):
        return self.vision(x_BLD).last_hidden_state, self.text(x_BLD, mask).last_hidden_state


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_compressed_equals_substituted_for_siglip(attention):
    model = Siglip(attention).eval()
    paths = {"vision": "vision", "text": "text"}
    towers = towers_of(model, paths)
    plan = random_plan(towers)
    padding = torch.zeros(3, 1, 6, 6)
    padding[1, ..., 4:] = -torch.inf
    for mask in (None, padding):
        compressed = apply(model, plan, paths)
        x = torch.randn(3, 6, 32)
        expected = functional_call(model, substitute(model, towers, plan), (x, mask))
        torch.testing.assert_close(compressed(x, mask), expected, atol=1e-5, rtol=1e-5)


def test_open_clip_pad_masks_per_head_are_respected():
    from open_clip.transformer import TextTransformer

    model = nn.Module()
    torch.manual_seed(0)
    sizes = {"context_length": 7, "vocab_size": 19, "width": 32, "heads": 4, "layers": 2}
    model.text = TextTransformer(**sizes, no_causal_mask=True, use_pad_mask=True, pad_id=0).eval()
    model.forward = model.text.forward
    towers = towers_of(model, {"text": "text"})
    words = torch.tensor([[3, 4, 5, 6, 0, 0, 0], [1, 2, 3, 4, 5, 6, 7]])
    plan = Plan(shapes(towers), {("text", 0, "qk"): torch.arange(8) < 3, ("text", 1, "vo"): torch.arange(8) > 4})
    compressed = apply(model, plan, {"text": "text"}).text
    expected = functional_call(
        model.text, {k.removeprefix("text."): v for k, v in substitute(model, towers, plan).items()}, (words,)
    )
    torch.testing.assert_close(compressed(words), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("keep", "share"), [(0.6, 0.0), (2.0, 0.5)])
def test_attention_masks_mean_what_they_meant_before(keep, share):
    """Bool masks keep their sense: True = attend in timm, do not attend in torch; so does is_causal."""
    model = two_towers().eval()
    towers = views(model)
    plan = random_plan(towers, keep=keep, share=share)
    compressed = apply(model, plan, PATHS)
    cut = compressed.vision.blocks[0].attn
    assert (cut.d_qk == cut.d_vo) == (keep > 1), "both ways to attend are tested"
    weights = substitute(model, towers, plan)
    x = torch.randn(2, 7, 32)
    allowed = torch.ones(7, 7, dtype=torch.bool).tril()

    def dense(prefix, module, *args, **kwargs):
        inner = {k.removeprefix(prefix + "."): v for k, v in weights.items() if k.startswith(prefix + ".")}
        return functional_call(module, inner, args, kwargs)

    timm_dense, timm_cut = model.vision.blocks[0].attn, compressed.vision.blocks[0].attn
    for kwargs in ({"attn_mask": allowed}, {"is_causal": True}, {}):
        expected = dense("vision.blocks.0.attn", timm_dense, x, **kwargs)
        torch.testing.assert_close(timm_cut(x, **kwargs), expected, atol=1e-5, rtol=1e-5)
    name = "text.transformer.resblocks.0.attn"
    torch_dense, torch_cut = model.get_submodule(name), compressed.get_submodule(name)
    padding = torch.zeros(2, 7, dtype=torch.bool)
    padding[0, 5:] = True
    for kwargs in (
        {"attn_mask": ~allowed},
        {"key_padding_mask": padding},
        {"attn_mask": ~allowed, "key_padding_mask": padding},
    ):
        expected = dense(name, torch_dense, x, x, x, need_weights=False, **kwargs)[0]
        torch.testing.assert_close(torch_cut(x, x, x, need_weights=False, **kwargs)[0], expected, atol=1e-5, rtol=1e-5)


def test_dropout_activation_layer_scale_and_mode_are_kept():
    torch.manual_seed(0)
    model = nn.Module()
    model.vision = timm.models.vision_transformer.VisionTransformer(
        img_size=16,
        patch_size=4,
        embed_dim=32,
        depth=2,
        num_heads=4,
        num_classes=0,
        init_values=0.5,
        proj_drop_rate=0.3,
        attn_drop_rate=0.2,
        drop_path_rate=0.1,
        act_layer=nn.Tanh,
    )
    model.forward = model.vision.forward
    towers = towers_of(model, {"vision": "vision"})
    keep = {
        ("vision", layer, c): torch.arange(towers["vision"].shape.units(c)) % 2 == 0
        for layer in (0, 1)
        for c in COMPONENTS
    }
    compressed = apply(model.train(), Plan(shapes(towers), keep), {"vision": "vision"})
    block = compressed.vision.blocks[0]
    assert block.attn.dropout == 0.2 and block.attn.proj_drop.p == 0.3 and block.mlp.drop1.p == 0.3
    assert isinstance(block.mlp.act, nn.Tanh) and block.attn.training and block.mlp.fc1.training
    x = torch.randn(2, 3, 16, 16)
    assert not torch.allclose(compressed.vision(x), compressed.vision(x))
    expected = functional_call(
        model.eval().vision,
        {k.removeprefix("vision."): v for k, v in substitute(model, towers, Plan(shapes(towers), keep)).items()},
        (x,),
    )
    torch.testing.assert_close(compressed.eval().vision(x), expected, atol=1e-5, rtol=1e-5)


def test_shared_units_are_stored_once_and_the_count_is_the_plans():
    model = two_towers()
    plan = random_plan(views(model))
    compressed = apply(model, plan, PATHS)
    before, after = count(model, views(model)), count(compressed, views(compressed))
    cost = plan.cost()
    assert after.stored == before.stored - cost["removed"]
    assert after.towers == {name: tower["stored"] for name, tower in cost["towers"].items()}
    assert cost["shared"] > 0 and cost["pruned"] > 0
    assert set(compressed.state_dict()) - {"text.attn_mask"} == {name for name, _ in compressed.named_parameters()}


def test_a_shared_unit_gathers_gradients_from_both_towers():
    model = two_towers().eval()
    towers = views(model)
    plan = Plan(shapes(towers), {}, (Share(("text", 0, "ffn"), ("vision", 0), torch.ones(128, dtype=torch.bool)),))
    compressed = apply(model, plan, PATHS)
    loss_of(compressed, example()).backward()
    leaves = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
    loss_of(model, example(), leaves | substitute(model, towers, plan, leaves)).backward()
    tied = compressed.get_parameter("vision.blocks.0.mlp.fc1.weight")
    torch.testing.assert_close(tied.grad, leaves["vision.blocks.0.mlp.fc1.weight"].grad, atol=1e-6, rtol=1e-4)
    assert compressed.get_parameter("text.transformer.resblocks.0.mlp.c_fc.weight").numel() == 0


@pytest.mark.parametrize("seed", range(2))
def test_training_the_tied_model_is_training_the_substituted_one(seed):
    """Every gradient of the compressed model is that of the dense parameter that stores the unit."""
    model = two_towers().eval()
    towers = views(model)
    plan = random_plan(towers, seed)
    compressed = apply(model, plan, PATHS)
    loss_of(compressed, example()).backward()
    leaves = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
    loss_of(model, example(), leaves | substitute(model, towers, plan, leaves)).backward()
    for name, tower in views(compressed).items():
        for layer, block in enumerate(tower.blocks):
            dense = towers[name].blocks[layer]
            for role, component in (("q", "qk"), ("v", "vo"), ("fc1", "ffn")):
                own = plan.own(name, layer, component)
                ref, there = block.ref(role), dense.ref(role)
                got = compressed.get_parameter(ref.weight).grad[ref.rows]
                torch.testing.assert_close(got, leaves[there.weight].grad[there.rows][own], atol=1e-6, rtol=1e-4)
            for role, component in (("o", "vo"), ("fc2", "ffn")):
                own = plan.own(name, layer, component)
                got = compressed.get_parameter(block.ref(role).weight).grad
                torch.testing.assert_close(got, leaves[dense.ref(role).weight].grad[:, own], atol=1e-6, rtol=1e-4)


def test_ties_stay_intact_in_training_and_in_deep_copies():
    compressed = apply(two_towers(), random_plan(views(two_towers()), share=1.0), PATHS)
    twin = copy.deepcopy(compressed)
    assert not {id(p) for p in twin.parameters()} & {id(p) for p in compressed.parameters()}
    for copied in (compressed, twin):
        optimizer = torch.optim.AdamW(copied.parameters(), lr=1e-2)
        for step in range(3):
            loss_of(copied, example(seed=step)).backward()
            optimizer.step()
            optimizer.zero_grad()
    torch.testing.assert_close(twin(*example()), compressed(*example()))
    # a change in the donor reaches the receiver
    before = compressed.text(example()[1])
    with torch.no_grad():
        compressed.vision.blocks[0].mlp.fc1.weight.mul_(3)
    assert not torch.allclose(compressed.text(example()[1]), before)
    torch.testing.assert_close(twin.text(example()[1]), before)


@pytest.mark.parametrize("fused", [False, True])
def test_masked_weights_stay_zero_under_adamw_and_averaging(fused):
    model = two_towers()
    towers = views(model)
    names = {name for tower in towers.values() for name in tower.parameter_names if name.endswith("weight")}
    source = torch.Generator().manual_seed(0)
    masks = {n: torch.rand(model.get_parameter(n).shape, generator=source) < 0.4 for n in sorted(names)}
    plan = Plan(shapes(towers), masks=masks)
    masked = same(model.eval(), towers, plan, PATHS, *example())
    masked = copy.deepcopy(masked)  # what a training loop may do
    average = torch.optim.swa_utils.AveragedModel(masked, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9))
    optimizer = torch.optim.AdamW(masked.parameters(), lr=1e-2, weight_decay=0.1, fused=fused)
    before = {n: p.detach().clone() for n, p in masked.named_parameters()}
    for step in range(5):
        loss_of(masked, example(seed=step)).backward()
        optimizer.step()
        optimizer.zero_grad()
        average.update_parameters(masked)
    for name, mask in masks.items():
        for trained in (masked, average.module):
            assert trained.get_parameter(name)[~mask].count_nonzero() == 0
        moments = optimizer.state[masked.get_parameter(name)]
        for moment in (moments["exp_avg"], moments["exp_avg_sq"]):
            assert moment[~mask].count_nonzero() == 0 and moment[mask].count_nonzero() > 0
        assert not torch.equal(masked.get_parameter(name)[mask], before[name][mask])
    counts = count(masked, views(masked))
    assert counts.stored == counts.nonzero + plan.cost()["masked"]


def test_an_optimizer_without_the_mask_would_lose_the_zeros():
    """The control of the test above: plain parameters do not stay zero."""
    model = two_towers()
    with torch.no_grad():
        model.vision.blocks[0].mlp.fc1.weight.zero_()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    loss_of(model, example()).backward()
    optimizer.step()
    assert model.vision.blocks[0].mlp.fc1.weight.count_nonzero() > 0


def test_a_dense_plan_changes_nothing_and_the_model_given_is_never_edited():
    model = two_towers().eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    assert substitute(model, views(model), Plan.dense(views(model))) == {}
    dense = apply(model, Plan.dense(views(model)), PATHS)
    assert torch.equal(dense(*example()), model(*example()))
    apply(model, random_plan(views(model)), PATHS)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_frozen_parameters_stay_frozen():
    model = two_towers()
    model.vision.requires_grad_(False)
    compressed = apply(model, random_plan(views(model)), PATHS)
    assert not any(p.requires_grad for p in compressed.vision.parameters())
    assert all(p.requires_grad for p in compressed.text.parameters())


@pytest.mark.parametrize("keep", ["unevenly", "evenly", "all, shared", "all, masked"])
def test_a_compressed_model_is_not_compressed_again(keep):
    model = two_towers()
    towers = views(model)
    plan = random_plan(towers, keep=0.6 if keep == "unevenly" else 2.0, share=float(keep == "all, shared"))
    if keep == "evenly":
        plan = Plan(shapes(towers), {k: torch.arange(8) < 4 for k in random_plan(towers).keep if k[2] != "ffn"})
    if keep == "all, masked":
        name = "head.weight"
        plan = Plan(shapes(towers), masks={name: torch.rand(model.get_parameter(name).shape) < 0.5})
    compressed = apply(model, plan, PATHS)
    dense = Plan.dense(towers)
    with pytest.raises(InputError, match=r"is compressed already \(start from the dense model\)"):
        apply(compressed, dense, PATHS)
    if keep != "all, masked":
        with pytest.raises(InputError, match=r"is compressed already \(start from the dense model\)"):
            Plan.dense(views(compressed))


def test_layers_without_sharing_have_plain_linear_maps():
    """No gather where nothing is shared: that keeps cut models as fast as dense ones of their size."""
    compressed = apply(two_towers(), random_plan(views(two_towers()), share=0.0), PATHS)
    assert not [name for name, m in compressed.named_modules() if type(m).__name__ == "TiedLinear"]
    assert [m for m in compressed.vision.modules() if isinstance(m, nn.Linear)]


def test_units_of_another_are_read_where_they_are_whatever_becomes_of_the_weights():
    model = two_towers().eval()
    towers = views(model)
    small = apply(model, random_plan(towers), PATHS)
    names = {id(module) for module in small.modules()}
    tied = [module for module in small.modules() if isinstance(module, TiedLinear)]
    assert tied and all(id(donor) in names for module in tied for donor in module.donors)
    state = {name: torch.randn_like(value) for name, value in small.state_dict().items()}
    other = copy.deepcopy(small)
    small.load_state_dict(state)
    other.load_state_dict(state, assign=True)
    torch.testing.assert_close(other(*example()), small(*example()))
