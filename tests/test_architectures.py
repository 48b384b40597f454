"""Public architectures, small: compressed with the function of the dense model whose units are zero, or one line."""

import open_clip
import pytest
import timm
import torch
import transformers as T
from torch import nn
from torch.func import functional_call

import snp
from snp.compression.basis import turn
from snp.compression.plan import Plan, shapes
from snp.compression.surgery import apply, substitute
from snp.compression.tower import towers_of, view
from snp.errors import InputError

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
WORDS = {"vocab_size": 60, "bos_token_id": 58, "eos_token_id": 59, "pad_token_id": 0, "max_position_embeddings": 16}
PIXELS = {"image_size": 16, "patch_size": 4}
TIMM = {"img_size": 16, "patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 4}


def of_transformers(name: str, attention: str = "sdpa", **sizes) -> nn.Module:
    config = getattr(T, f"{name}Config")
    return getattr(T, f"{name}Model")(config(**SIZES | sizes, attn_implementation=attention)).eval()


def of_timm(name: str = "vit_tiny_patch16_224", **changes) -> nn.Module:
    return timm.create_model(name, num_classes=0, **TIMM | changes).eval()


def of_open_clip(**text) -> nn.Module:
    vision = {"image_size": 16, "patch_size": 4, "width": 32, "head_width": 8, "layers": 2, "mlp_ratio": 2.0}
    words = {"context_length": 7, "vocab_size": 60, "width": 32, "heads": 4, "layers": 2}
    return open_clip.model.CLIP(16, vision, words | text).eval()


IMAGES = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
TOKENS = torch.randint(1, 58, (2, 7), generator=torch.Generator().manual_seed(0))
LEFT = torch.tensor([[0, 0, 0, 1, 1, 1, 1], [1] * 7])
TEXT = ("CLIPText", "SiglipText", "Siglip2Text", "MetaClip2Text", "CLIPSegText", "XCLIPText", "OwlViTText", "Owlv2Text")
VISION = ("CLIPVision", "SiglipVision", "MetaClip2Vision", "CLIPSegVision", "AltCLIPVision", "ChineseCLIPVision")

PLAIN = {
    **{f"{name} {how}": (lambda name=name, how=how: of_transformers(name, how, **WORDS),
                         lambda m: m(TOKENS, attention_mask=LEFT).last_hidden_state[LEFT.bool()],
                         "text_model" if name.startswith("Owl") else "")
       for name in TEXT for how in ("eager", "sdpa")},
    **{f"{name} {how}": (lambda name=name, how=how: of_transformers(name, how, **PIXELS),
                         lambda m: m(pixel_values=IMAGES).last_hidden_state, "")
       for name in VISION for how in ("eager", "sdpa")},
    **{f"timm {name}": (lambda name=name, more=more: of_timm(name, **more), lambda m: m(IMAGES), "") for name, more in {
        "vit_tiny_patch16_224": {"reg_tokens": 2}, "deit3_small_patch16_224": {"init_values": 0.5},
        "deit_tiny_distilled_patch16_224": {}, "vit_base_patch16_siglip_224": {}, "flexivit_small": {},
        "vit_small_patch14_dinov2": {"init_values": 0.5}, "vit_base_patch16_clip_quickgelu_224": {},
    }.items()},
    "open_clip text": (of_open_clip, lambda m: m.encode_text(TOKENS), "transformer"),
    "open_clip vision": (of_open_clip, lambda m: m.encode_image(IMAGES), "visual"),
}  # fmt: skip


class Call(nn.Module):
    """A model whose forward is `how`."""

    def __init__(self, model: nn.Module, how) -> None:
        super().__init__()
        self.model, self.how = model, how

    def forward(self):
        return self.how(self.model)


def plain(name: str) -> tuple[nn.Module, dict[str, str]]:
    """One of `PLAIN`, with weights not so small that attention is a mean, and the path of its tower."""
    make, how, path = PLAIN[name]
    torch.manual_seed(0)
    model = Call(make(), how)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.3)
    return model, {"t": ".".join(filter(None, ("model", path)))}


@pytest.mark.slow
@pytest.mark.parametrize("name", PLAIN)
@torch.no_grad()
def test_what_is_plain_is_compressed_with_its_function(name):
    model, paths = plain(name)
    small, plan = snp.compress(model, "random-structured", keep=0.8, towers=paths)
    expected = functional_call(model, substitute(model, towers_of(model, paths), plan), ())
    torch.testing.assert_close(small(), expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(model(), expected, atol=1e-3)


@pytest.mark.parametrize("name", PLAIN)
@torch.no_grad()
def test_what_is_plain_keeps_its_function_in_the_spectral_basis(name):
    model, paths = plain(name)
    before = model()
    turn(towers_of(model, paths), "spectral")
    torch.testing.assert_close(model(), before, atol=1e-5, rtol=1e-5)


ODD = {
    "T5": lambda: T.T5Model(T.T5Config(d_model=32, d_ff=48, num_layers=1, num_heads=4)).encoder,
    "parallel parts": lambda: timm.create_model("vit_base_patch16_xp_224", **TIMM),
    "open_clip's own attention": lambda: of_open_clip(qk_norm=True).transformer,
    "torch's encoder": lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, batch_first=True), 1),
    "no layers": lambda: nn.Linear(2, 2),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ODD)
def test_what_is_not_plain_is_one_line_before_any_work(name):
    model = nn.ModuleDict({"inner": ODD[name]()})
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    with pytest.raises(InputError, match=r"inner|tower t") as error:
        snp.compress(model, "upop", keep=0.9, towers={"t": "inner"}, steps=20, loss=lambda m, b: calls.append(1))
    assert "\n" not in str(error.value) and not calls


class Attention(timm.layers.Attention):
    """timm's, whose forward a subclass changes: how does not show in its parameters."""


class Normed(Attention):
    def forward(self, x, attn_mask=None, is_causal=False):
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        q, k = (nn.functional.normalize(t, dim=-1) * 3 for t in (q, k))
        x = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask, is_causal=is_causal)
        return self.proj(x.transpose(1, 2).flatten(2))


class Capped(Attention):
    def forward(self, x, attn_mask=None, is_causal=False):
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        logits = (q * self.scale @ k.transpose(-2, -1)).tanh()
        logits = logits if attn_mask is None else logits.masked_fill(~attn_mask, -torch.inf)
        return self.proj((logits.softmax(-1) @ v).transpose(1, 2).flatten(2))


class Gated(Attention):
    def forward(self, x, attn_mask=None, is_causal=False):
        return super().forward(x, attn_mask, is_causal) * x.sigmoid()


class Sloped(Attention):
    def forward(self, x, attn_mask=None, is_causal=False):
        places = torch.arange(x.shape[1])
        bias = -(places[:, None] - places).abs() / 2
        return super().forward(x, bias if attn_mask is None else bias.masked_fill(~attn_mask, -torch.inf), is_causal)


class Blind(Attention):
    def forward(self, x, attn_mask=None, is_causal=False):
        return super().forward(x, None, is_causal)


class Late(Attention):
    def forward(self, x, attn_mask=None, is_causal=False):
        return super().forward(x, attn_mask, attn_mask is None)


class Rotary(Attention):
    def forward(self, x, attn_mask=None, is_causal=False, rope=None):
        return super().forward(x, attn_mask, is_causal)


class Failing(Attention):
    def forward(self, x, attn_mask=None, is_causal=False):
        raise KeyError("cache")


class Dropping(Attention):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.path_drop = nn.Dropout(0.1)


class MaxOut(nn.GELU):
    def forward(self, x):
        return x - x.mean(-1, keepdim=True)


@pytest.mark.parametrize("kind", [Normed, Capped, Gated, Sloped, Blind, Late, Rotary, Dropping])
@torch.no_grad()
def test_attention_that_is_not_what_its_parameters_look_like_is_cut_as_it_is(kind):
    model = timm.models.vision_transformer.VisionTransformer(**TIMM, num_classes=0).eval()
    for block in model.blocks:
        odd = kind(32, 4, qkv_bias=True).eval()
        odd.load_state_dict(block.attn.state_dict())
        block.attn = odd
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.3)
    small, plan = snp.compress(model, "random-structured", keep=0.8, towers={"t": ""})
    expected = functional_call(model, substitute(model, towers_of(model, {"t": ""}), plan), (IMAGES,))
    torch.testing.assert_close(small(IMAGES), expected, atol=1e-5, rtol=1e-5)
    assert type(small.blocks[0].attn) is kind and "qk" not in plan.towers["t"].components
    before = model(IMAGES)
    turn(towers_of(model, {"t": ""}), "spectral")
    torch.testing.assert_close(model(IMAGES), before, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_attention_that_cannot_be_tried_is_refused(device):
    model = of_timm()
    model.blocks[1].attn = Failing(32, 4, qkv_bias=True)
    with pytest.raises(InputError, match=r"^blocks\.1\.attn: Failing is no plain attention: .* it fails .KeyError"):
        view(model.to(device), "", "t")


def test_a_scale_that_the_dense_module_does_not_use_changes_nothing():
    model = of_timm()
    model.blocks[1].attn.scale = 1.0  # timm's fused attention has its own
    with pytest.raises(InputError, match="its layers differ in size"):
        assert view(model, "", "t").shape
    assert tuple(view(model, "", "t").blocks[1].components) == ("heads", "ffn")


@torch.no_grad()
def test_a_feed_forward_module_whose_units_depend_on_each_other_keeps_zeros_where_units_were():
    model = of_timm()
    for block in model.blocks:
        block.mlp.act = MaxOut()
    assert view(model, "", "t").blocks[1].components["ffn"].form == "padded"
    small, plan = snp.compress(model, "random-structured", keep=0.8, towers={"t": ""})
    expected = functional_call(model, substitute(model, towers_of(model, {"t": ""}), plan), (IMAGES,))
    torch.testing.assert_close(small(IMAGES), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["blocks.1.attn", "blocks.1.attn.qkv", "blocks.0.attn.proj"])
@pytest.mark.parametrize("kind", ["register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook"])
def test_a_hook_that_would_be_lost_is_named(kind, name):
    model = of_timm()
    getattr(model.get_submodule(name), kind)(lambda *_: None)
    with pytest.raises(InputError, match=rf"^{name}: has a hook"):
        snp.compress(model, "upop", keep=0.9, towers={"t": ""}, steps=20, loss=lambda m, b: None)
    towers = towers_of(model, {"t": ""})
    touched = int(name.split(".")[1])
    plans = [Plan(shapes(towers), {("t", layer, "qk"): torch.arange(8) < 5}) for layer in (0, 1)]
    with pytest.raises(InputError, match=rf"^{name}: has a hook"):
        apply(model, plans[touched], {"t": ""})
    assert apply(model, plans[1 - touched], {"t": ""}), "the layer stays as it is, and so does its hook"
    assert snp.compress(model, "omp", sparsity=0.5, towers={"t": ""})


def test_hooks_of_what_stays_are_kept_and_see_no_trial():
    model, seen = of_timm(), []
    for name in ("blocks.0", "blocks.0.mlp", "blocks.0.mlp.fc1", "blocks.0.norm1"):
        model.get_submodule(name).register_forward_hook(lambda *_: seen.append(1))
    towers = towers_of(model, {"t": ""})
    assert not seen
    small = apply(model, snp.compress(model, "random-structured", keep=0.8, towers={"t": ""})[1], {"t": ""})
    small(IMAGES)
    assert len(seen) == 4 and towers


def test_a_trial_changes_neither_mode_nor_random_numbers_nor_weights():
    model = of_timm(attn_drop_rate=0.5, proj_drop_rate=0.5).train()
    model.blocks[0].attn.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    view(model, "", "t")
    assert torch.equal(torch.rand(1), expected)
    assert model.training and model.blocks[1].attn.training and not model.blocks[0].attn.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("spoil", [lambda w: w.zero_(), lambda w: w.fill_(torch.nan), lambda w: w.fill_(1e30)])
def test_a_view_does_not_depend_on_the_weights(spoil):
    model = of_timm()
    for parameter in model.parameters():
        spoil(parameter.data)
    assert view(model, "", "t").shape == view(of_timm(), "", "t").shape


def test_weights_of_a_layer_are_of_one_type_and_frozen_alike():
    model = of_timm()
    model.blocks[1].mlp.fc2.bfloat16()
    with pytest.raises(InputError, match=r"blocks\.1\.mlp\.fc2\.\w+: is of torch\.bfloat16 on cpu, beside"):
        view(model, "", "t")
    model = of_transformers("CLIPText", **WORDS)
    model.encoder.layers[1].self_attn.v_proj.weight.requires_grad_(False)
    small, _ = snp.compress(model, "random-structured", keep=0.9, towers={"t": ""})
    frozen = [name for name, parameter in small.named_parameters() if not parameter.requires_grad]
    assert frozen == ["encoder.layers.1.self_attn.v_proj.weight"]
    assert snp.compress(model, "omp", sparsity=0.5, towers={"t": ""})


def test_biases_may_be_trained_alone():
    model = of_timm()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.endswith("bias"))
    small, _ = snp.compress(model, "random-structured", keep=0.8, towers={"t": ""})
    assert all(p.requires_grad == name.endswith("bias") for name, p in small.named_parameters())


def test_layers_of_one_weight_are_refused_and_a_layer_that_is_called_twice_is_one():
    model = of_timm()
    model.blocks[1].mlp.fc1.weight = model.blocks[0].mlp.fc1.weight
    with pytest.raises(InputError, match=r"tower t: blocks\.1: has the weights of tower t: blocks\.0 too"):
        towers_of(model, {"t": ""})
    with pytest.raises(InputError, match=r"tower u: blocks\.0: has the weights of tower t: blocks\.0 too"):
        towers_of(of_timm(), {"t": "", "u": ""})
    model = of_timm()
    model.blocks = nn.Sequential(model.blocks[0], model.blocks[0])
    small, plan = snp.compress(model, "random-structured", keep=0.8, towers={"t": ""})
    expected = functional_call(model, substitute(model, towers_of(model, {"t": ""}), plan), (IMAGES,))
    assert plan.towers["t"].layers == 1
    torch.testing.assert_close(small(IMAGES), expected, atol=1e-5, rtol=1e-5)


def test_layers_go_by_their_names_and_mlp_may_be_in_the_path():
    model = nn.Module()
    model.mlp = of_timm()
    model.mlp.blocks = nn.Sequential()
    for name, block in zip(("first", "last"), of_timm().blocks, strict=True):
        model.mlp.blocks.add_module(name, block)
    model.forward = lambda x: model.mlp(x)
    small, plan = snp.compress(model.mlp, "random-structured", keep=0.8, towers={"t": ""})
    inside = apply(nn.ModuleDict({"mlp": model.mlp}), plan, {"t": "mlp"})
    torch.testing.assert_close(inside["mlp"](IMAGES), small(IMAGES))
