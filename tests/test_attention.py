"""Attention that is cut obeys masks of every form as the dense one does whose dimensions are zero."""

import copy

import pytest
import torch
from open_clip.transformer import Transformer
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from snp.compression.plan import Plan, shapes
from snp.compression.surgery import apply, substitute
from snp.compression.tower import towers_of
from snp.errors import InputError

B, H, L, D = 2, 4, 5, 32
NONE = torch.finfo(torch.float32).min
CAUSAL = torch.ones(L, L, dtype=torch.bool).tril()
SEEN = torch.tensor([[False, False, True, True, True], [True, True, True, True, False]])  # padded left, and right
ROWS = torch.rand(B, H, L, L, generator=torch.Generator().manual_seed(0)) < 0.6
ROWS |= torch.eye(L, dtype=torch.bool)
SIZES = [(3, 3), (3, 5)]
"""Dimensions of queries, of values: torch's fused attention, and plain products."""


def added(allowed, hidden=-torch.inf):
    return torch.zeros(allowed.shape).masked_fill(~allowed, hidden)


def pair(kind: str, d_qk: int, d_vo: int, dropout: float = 0.0, batch_first: bool = True):
    """A dense attention module of which some dimensions are zero, and the one that has them cut."""
    torch.manual_seed(0)
    sizes = {"hidden_size": D, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": H}
    model: nn.Module
    if kind == "timm":
        model = VisionTransformer(img_size=8, patch_size=4, embed_dim=D, depth=1, num_heads=H, attn_drop_rate=dropout)
        path = "blocks.0.attn"
    elif kind == "torch":
        model = Transformer(D, 1, H, batch_first=batch_first)
        model.resblocks[0].attn.dropout = dropout
        path = "resblocks.0.attn"
    else:
        config = CLIPTextConfig(**sizes, vocab_size=9, attention_dropout=dropout, attn_implementation=kind)
        model, path = CLIPTextModel(config), "encoder.layers.0.self_attn"
    model.eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    towers = towers_of(model, {"t": ""})
    apart = {("t", 0, "qk"): torch.arange(8) < d_qk, ("t", 0, "vo"): torch.arange(8) >= 8 - d_vo}
    together = {("t", 0, "attn"): torch.arange(8) >= 8 - d_vo}
    plan = Plan(shapes(towers), apart if kind in ("timm", "torch") else together)
    dense = copy.deepcopy(model)
    with torch.no_grad():
        for name, value in substitute(model, towers, plan).items():
            dense.get_parameter(name).copy_(value)
    return dense.get_submodule(path), apply(model, plan, {"t": ""}).get_submodule(path)


def states(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


MASKS = {
    "none": None,
    "who sees whom": CAUSAL,
    "padding": SEEN[:, None, None],
    "padding of every row": SEEN[:, None, None].expand(B, 1, L, L),
    "heads apart": ROWS,
    "heads alike in all samples": ROWS[0],
    "added": added(CAUSAL),
    "added padding": added(SEEN[:, None, None]),
    "added, finite": added(SEEN[:, None, None], NONE),
    "a bias": states(L, L),
    "a bias and padding": states(1, H, L, L) + added(SEEN[:, None, None]),
    "a row that sees nothing": CAUSAL & SEEN[:, None, None],
    "a row that sees nothing, added": added(CAUSAL & SEEN[:, None, None]),
    "a row that sees nothing, finite": added(CAUSAL & SEEN[:, None, None], NONE),
}


@pytest.mark.slow
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("mask", MASKS)
def test_masks_of_timm(mask, sizes):
    dense, cut = pair("timm", *sizes)
    x = states(B, L, D)
    torch.testing.assert_close(cut(x, attn_mask=MASKS[mask]), dense(x, attn_mask=MASKS[mask]), atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("mask", MASKS)
def test_gradients_are_finite_and_those_of_the_dense_module(mask, sizes):
    dense, cut = pair("timm", *sizes)
    found = []
    for module in (dense, cut):
        x = states(B, L, D).requires_grad_()
        (module(x, attn_mask=MASKS[mask]) * states(B, L, D)).sum().backward()
        found.append(x.grad)
    assert all(gradient.isfinite().all() for gradient in found)
    if mask != "a row that sees nothing, finite":  # torch's fused attention forgets there that such a row is a mean
        torch.testing.assert_close(found[1], found[0], atol=1e-5, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("mask", MASKS)
def test_causal_and_a_mask_are_both_obeyed(mask, sizes):
    _, cut = pair("timm", *sizes)
    x, given = states(B, L, D), MASKS[mask]
    both = CAUSAL if given is None else given & CAUSAL if given.dtype == torch.bool else given + added(CAUSAL)
    expected = cut(x, attn_mask=both)
    torch.testing.assert_close(cut(x, attn_mask=given, is_causal=True), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["eager", "sdpa"])
@pytest.mark.parametrize("mask", [name for name in MASKS if name not in ("a row that sees nothing, added", "none")])
@pytest.mark.parametrize("is_causal", [None, False, True])
def test_masks_of_transformers(is_causal, mask, kind):
    """Its text encoders say is_causal=True beside a mask that holds padding and causality; the mask counts."""
    dense, cut = pair(kind, 3, 3)
    given, x = MASKS[mask], states(B, L, D)
    if given.dtype == torch.bool and kind == "eager":  # eager attention adds its masks
        given = added(given, NONE)
    causal = {} if is_causal is None else {"is_causal": is_causal}
    expected = dense(hidden_states=x, attention_mask=given, **causal)[0]
    got = cut(hidden_states=x, attention_mask=given, **causal)
    assert (got[1] is None) == (kind == "sdpa")
    torch.testing.assert_close(got[0], expected, atol=1e-5, rtol=1e-5)


def test_causality_of_transformers_counts_where_there_is_no_mask():
    dense, cut = pair("sdpa", 3, 3)
    x = states(B, L, D)
    expected = dense(hidden_states=x, is_causal=True)[0]
    torch.testing.assert_close(cut(hidden_states=x, is_causal=True)[0], expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(cut(hidden_states=x)[0], expected, atol=1e-3)


@pytest.mark.parametrize("kind", ["eager", "sdpa"])
@pytest.mark.parametrize("pad", ["left", "right", "none"])
def test_a_text_model_of_transformers_is_the_same_at_every_real_word(pad, kind):
    torch.manual_seed(0)
    sizes = {"hidden_size": D, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": H}
    model = CLIPTextModel(CLIPTextConfig(**sizes, vocab_size=60, attn_implementation=kind)).eval()
    towers = towers_of(model, {"t": ""})
    keep = {("t", i, "attn"): torch.arange(8) < n for i, n in ((0, 5), (1, 3))}
    plan = Plan(shapes(towers), keep)
    words = torch.randint(0, 60, (2, 7), generator=torch.Generator().manual_seed(2))
    seen = torch.ones(2, 7, dtype=torch.long)
    if pad != "none":
        seen[0, slice(0, 3) if pad == "left" else slice(4, 7)] = 0
    arguments = {} if pad == "none" else {"attention_mask": seen}
    with torch.no_grad():
        weights = substitute(model, towers, plan)
        expected = torch.func.functional_call(model, weights, (words,), arguments).last_hidden_state
        got = apply(model, plan, {"t": ""})(words, **arguments).last_hidden_state
    torch.testing.assert_close(got[seen.bool()], expected[seen.bool()], atol=1e-5, rtol=1e-5)


PADDING = {"none": None, "bools": ~SEEN, "added": added(SEEN)}
TORCH = {
    "none": None,
    "who does not see whom": ~CAUSAL,
    "heads apart": ~ROWS.flatten(0, 1),
    "added": added(CAUSAL),
    "a bias of heads": states(B * H, L, L),
}


@pytest.mark.slow
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("padding", PADDING)
@pytest.mark.parametrize("mask", TORCH)
@pytest.mark.filterwarnings("ignore:Support for mismatched")
def test_masks_and_weights_of_torch(mask, padding, sizes, batch_first):
    dense, cut = pair("torch", *sizes, batch_first=batch_first)
    x = states(B, L, D) if batch_first else states(B, L, D).transpose(0, 1)
    masks = {"attn_mask": TORCH[mask], "key_padding_mask": PADDING[padding]}
    for how in ({"need_weights": False}, {}, {"average_attn_weights": False}):
        expected, got = dense(x, x, x, **masks, **how), cut(x, x, x, **masks, **how)
        assert (got[1] is None) == (expected[1] is None)
        for ours, theirs in zip(got, expected, strict=True):
            if theirs is not None:
                sound = theirs.isfinite()  # torch makes NaN of rows that see nothing, if asked for weights
                torch.testing.assert_close(ours[sound], theirs[sound], atol=1e-5, rtol=1e-5)
                assert ours.isfinite().all()


@pytest.mark.parametrize("sizes", SIZES)
def test_a_sample_without_batch_dimension(sizes):
    dense, cut = pair("torch", *sizes)
    x = states(L, D)
    for masks in ({}, {"key_padding_mask": ~SEEN[1]}, {"attn_mask": ~ROWS[0]}):
        expected, got = dense(x, x, x, **masks), cut(x, x, x, **masks)
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("sizes", SIZES)
def test_a_batch_may_be_empty(sizes):
    for kind in ("timm", "torch"):  # that of transformers takes none, cut or not
        _, cut = pair(kind, *sizes)
        x = states(0, L, D)
        got = cut(*((x, x, x) if kind == "torch" else (x,)))
        assert (got if kind == "timm" else got[0]).shape == x.shape


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("hidden", [False, -torch.inf])
def test_a_row_that_sees_nothing_gives_the_bias_of_the_projection(hidden, sizes):
    """As torch's fused attention does, whose rows without a key are zero."""
    _, cut = pair("timm", *sizes)
    mask = torch.ones(L, L, dtype=torch.bool) if hidden is False else torch.zeros(L, L)
    mask[2] = hidden
    assert torch.equal(cut(states(B, L, D), attn_mask=mask)[:, 2], cut.proj.bias.expand(B, D))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("mask", MASKS)
def test_masks_in_other_types(mask, sizes, dtype):
    _, cut = pair("timm", *sizes)
    x, given = states(B, L, D), MASKS[mask]
    expected = cut(x, attn_mask=given)
    got = copy.deepcopy(cut).to(dtype)(x.to(dtype), attn_mask=given)  # a float32 mask, too
    assert got.dtype == dtype and got.isfinite().all()
    if "sees nothing, finite" in mask and dtype != torch.float64:
        return  # the mask overflows to infinity there, and such a row sees nothing
    close = {torch.bfloat16: 0.1, torch.float16: 0.02, torch.float64: 1e-5}[dtype]
    torch.testing.assert_close(got.float(), expected, atol=close, rtol=close)


@pytest.mark.parametrize("sizes", SIZES)
def test_weights_of_attention_are_dropped_out_in_training_alone(sizes):
    dense, cut = pair("timm", *sizes, dropout=0.5)
    x = states(1, L, D).expand(4000, L, D)
    assert torch.equal(cut(x)[0], cut(x)[1])
    ours, theirs = cut.train()(x).detach(), dense.train()(x).detach()
    torch.testing.assert_close(ours.mean(0), cut.eval()(x[:1])[0], atol=0.1, rtol=0.1)
    torch.testing.assert_close(ours.std(0), theirs.std(0), atol=0.1, rtol=0.1)
    assert ours.std(0).min() > 0.05


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("name", ["rope", "position_embeddings", "past_key_values", "output_attentions", "use_cache"])
def test_an_argument_that_is_not_understood_is_named(name, sizes):
    _, cut = pair("timm", *sizes)
    x = states(B, L, D)
    with pytest.raises(InputError, match=f"^{name}: is nothing that a compressed attention module knows"):
        cut(x, **{name: True if name.startswith(("output", "use")) else x})
    assert torch.equal(cut(x, **{name: None})[0], cut(x)[0]) and torch.equal(cut(x, **{name: False})[0], cut(x)[0])


def test_a_mask_of_whole_numbers_is_refused():
    for sizes in SIZES:
        with pytest.raises(InputError, match=r"attention mask: is of torch\.int64"):
            pair("timm", *sizes)[1](states(B, L, D), attn_mask=CAUSAL.long())


def test_attention_to_others_is_refused():
    _, cut = pair("torch", 3, 5)
    x = states(B, L, D)
    with pytest.raises(InputError, match="query, key, value: are not one tensor"):
        cut(x, x.clone(), x)


def test_the_plain_products_are_those_of_torchs_attention():
    """Where both ways exist, they agree: weights are asked for, or not."""
    _, cut = pair("timm", 3, 3)
    x = states(B, L, D)
    for mask in MASKS.values():
        fused, none = cut.attend(x, mask)
        plain, weights = cut.attend(x, mask, weights=True)
        torch.testing.assert_close(plain, fused, atol=1e-5, rtol=1e-5)
        assert none is None and weights.shape == (B, H, L, L)
