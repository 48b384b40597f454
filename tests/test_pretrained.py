"""Published weights in the towers: small models of timm, open_clip and transformers, saved as their files are."""

from pathlib import Path
from typing import Any
from zipfile import ZipFile

import open_clip
import pytest
import timm
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP
from open_clip.transformer import QuickGELU, TextTransformer
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from snp.data.tokens import END, PAD, START, UNKNOWN
from snp.errors import InputError
from snp.models import torchscript
from snp.models.config import GLIP_PAPER, PAPER
from snp.models.pretrained import load_text, load_vision
from snp.models.towers import encode_text, text_tower, vision_tower

SMALL = PAPER.model_copy(
    update=dict(image_size=64, width=32, depth=2, heads=4, vocabulary=50, context=12, quick_gelu=False)
)


def scrambled(module: nn.Module) -> Any:
    """With weights that no module begins with, norms and biases too."""
    torch.manual_seed(7)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module.eval()


def deit(size: int = 64, **changes) -> VisionTransformer:
    shape = dict(img_size=size, patch_size=16, embed_dim=32, depth=2, num_heads=4, num_classes=10)
    return scrambled(VisionTransformer(**shape | changes))


def clip(kind: type = CLIP, **text) -> CLIP:
    shape = dict(context_length=12, vocab_size=50, width=32, heads=4, layers=2)
    return scrambled(
        kind(
            16,
            CLIPVisionCfg(layers=1, width=32, head_width=8, patch_size=16, image_size=32),
            CLIPTextCfg(**shape | text),
        )
    )


def text_config(**changes) -> CLIPTextConfig:
    shape = dict(vocab_size=50, hidden_size=32, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4)
    return CLIPTextConfig(**shape | dict(max_position_embeddings=12, hidden_act="gelu") | changes)


WORDS = torch.tensor([[48, 4, 9, 30, 7, 49], [48, 11, 12, 13, 2, 49]])


def says(tower: TextTransformer) -> torch.Tensor:
    return encode_text(tower.eval(), WORDS, WORDS > 0, 4)


def theirs(model: CLIP) -> torch.Tensor:
    """Token states of open_clip's own text model, [B, L, width]."""
    text = getattr(model, "text", model)
    x = text.token_embedding(WORDS) + text.positional_embedding[: WORDS.shape[1]]
    return text.ln_final(text.transformer(x, attn_mask=text.attn_mask[: WORDS.shape[1], : WORDS.shape[1]]))


def test_the_paper_towers_are_deit_b_and_the_text_transformer_of_clip_l_by_name_and_shape():
    with torch.device("meta"):
        vision, deit_b = vision_tower(PAPER), timm.create_model("deit_base_patch16_224")
        text, clip_l = text_tower(PAPER), CLIP(**open_clip.get_model_config("ViT-L-14"))

    def shapes(module: nn.Module) -> dict[str, torch.Size]:
        return {name: p.shape for name, p in module.named_parameters()}

    assert shapes(vision) == {n: s for n, s in shapes(deit_b).items() if not n.startswith("head.")}
    beside = ("visual.", "text_projection", "logit_scale")
    assert shapes(text) == {n: s for n, s in shapes(clip_l).items() if not n.startswith(beside)}


class TestVision:
    @pytest.mark.parametrize("ending", [".safetensors", ".pth", ".pt", ".bin"])
    @pytest.mark.parametrize("nesting", [None, "model", "state_dict"])
    def test_a_file_gives_the_tower_what_timms_own_model_computes(self, tmp_path, ending, nesting):
        model, tower, path = deit(), vision_tower(SMALL).eval(), tmp_path / f"deit{ending}"
        state = model.state_dict()
        if ending == ".safetensors":
            save_file(state, path)
        else:
            prefix = "module." if nesting == "state_dict" else ""  # as files of several processes have it
            named = {prefix + name: tensor for name, tensor in state.items()}
            torch.save({nesting: named, "epoch": 3} if nesting else named, path)
        load_vision(tower, str(path))
        image = torch.randn(2, 3, 64, 64)
        assert torch.equal(tower.forward_features(image), model.forward_features(image))

    def test_positions_are_resampled_to_another_image_size(self, tmp_path):
        model, tower = deit(64), vision_tower(SMALL.model_copy(update=dict(image_size=96)))
        torch.save(model.state_dict(), tmp_path / "deit.pth")
        load_vision(tower, str(tmp_path / "deit.pth"))
        assert torch.equal(tower.pos_embed, resample_abs_pos_embed(model.pos_embed, [6, 6], num_prefix_tokens=1))
        assert torch.equal(tower.pos_embed[:, 0], model.pos_embed[:, 0])  # of the class token

    @pytest.mark.parametrize(("theirs", "ours"), [(True, False), (False, True)])
    def test_a_class_token_that_one_side_does_not_have_changes_no_other_tensor(self, tmp_path, theirs, ours):
        model = deit(class_token=theirs, global_pool="token" if theirs else "avg", fc_norm=False)
        tower = vision_tower(SMALL.model_copy(update=dict(class_token=ours)))
        before = {name: p.detach().clone() for name, p in tower.named_parameters()}
        torch.save(model.state_dict(), tmp_path / "deit.pth")
        load_vision(tower, str(tmp_path / "deit.pth"))
        assert torch.equal(tower.pos_embed[:, int(ours) :], model.pos_embed[:, int(theirs) :])
        assert torch.equal(tower.patch_embed.proj.weight, model.patch_embed.proj.weight)
        if ours:
            assert torch.equal(tower.cls_token, before["cls_token"])
            assert torch.equal(tower.pos_embed[:, :1], before["pos_embed"][:, :1])

    @pytest.mark.parametrize(
        ("changes", "problem"),
        [
            (dict(embed_dim=48), r"cls_token: is of shape \[1, 1, 48\], the tower needs \[1, 1, 32\]"),
            (dict(patch_size=8), r"patch_embed\.proj\.weight: is of shape \[32, 3, 8, 8\], the tower needs"),
            (dict(depth=3), r"blocks\.2\.attn\.proj\.bias: the tower has no such tensor"),
            (dict(depth=1), r"blocks\.1\.attn\.proj\.bias: tensor is missing"),
            (dict(init_values=1e-4), r"blocks\.0\.ls1\.gamma: the tower has no such tensor"),
        ],
    )
    def test_a_model_that_does_not_fit_is_named_and_nothing_is_changed(self, tmp_path, changes, problem):
        tower = vision_tower(SMALL)
        before = {name: p.detach().clone() for name, p in tower.named_parameters()}
        torch.save(deit(**changes).state_dict(), tmp_path / "odd.pth")
        with pytest.raises(InputError, match=rf"odd\.pth: {problem}"):
            load_vision(tower, str(tmp_path / "odd.pth"))
        assert all(torch.equal(p, before[name]) for name, p in tower.named_parameters())

    def test_a_name_is_asked_of_timm(self, monkeypatch):
        model, tower, asked = deit(), vision_tower(SMALL), []
        monkeypatch.setattr(timm, "create_model", lambda name, pretrained: asked.append((name, pretrained)) or model)
        load_vision(tower, "deit_base_patch16_224.fb_in1k")
        assert asked == [("deit_base_patch16_224.fb_in1k", True)]
        assert torch.equal(tower.pos_embed, model.pos_embed)

    def test_without_file_and_network_the_error_says_what_was_tried_and_names_both_ways(self, monkeypatch):
        def offline(name, pretrained):
            raise OSError("no\nnetwork")

        monkeypatch.setattr(timm, "create_model", offline)
        with pytest.raises(InputError, match=r"deit_x: is no file, and .*: no network \(.*--vision-weights FILE"):
            load_vision(vision_tower(SMALL), "deit_x")

    @pytest.mark.parametrize(
        ("name", "content", "problem"),
        [
            ("none.pth", None, "file not found"),
            ("cut.pth", b"PK\x03\x04", "cannot be read"),
            ("cut.safetensors", b"x" * 40, "cannot be read"),
            ("list.pth", [1, 2], "holds no tensors by name"),
            ("nothing.pt", {"model": {"epoch": 3}}, "holds no tensors by name"),
        ],
    )
    def test_a_file_that_is_none_is_named(self, tmp_path, name, content, problem):
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content is not None:
            torch.save(content, path)
        with pytest.raises(InputError, match=rf"{name}: {problem}"):
            load_vision(vision_tower(SMALL), str(path))

    def test_a_file_that_would_run_code_is_refused_and_nobody_is_told_to_run_it(self, tmp_path):
        torch.save({"model": nn.Linear(2, 2)}, tmp_path / "pickled.pth")
        with pytest.raises(InputError, match=r"pickled\.pth: holds more than tensors \(torch\..*Linear\)") as error:
            load_vision(vision_tower(SMALL), str(tmp_path / "pickled.pth"))
        assert "weights_only" not in str(error.value) and "model.state_dict()" in error.value.hint
        (tmp_path / "text.pth").write_text("Not Found")
        with pytest.raises(InputError, match=r"text\.pth: cannot be read"):
            load_vision(vision_tower(SMALL), str(tmp_path / "text.pth"))

    @pytest.mark.parametrize("wrapped", ["_orig_mod.{}", "module._orig_mod.{}", "model.{}", "net.model._orig_mod.{}"])
    def test_what_wrappers_put_before_names_is_taken_off(self, tmp_path, wrapped):
        model, tower = deit(), vision_tower(SMALL)
        state = {wrapped.format(name): tensor for name, tensor in model.state_dict().items()}
        torch.save({"state_dict": state, "epoch": 1}, tmp_path / "wrapped.ckpt")
        load_vision(tower, str(tmp_path / "wrapped.ckpt"))
        assert torch.equal(tower.pos_embed, model.pos_embed)
        inside = {name.replace("blocks.0.", "blocks.0._orig_mod."): t for name, t in model.state_dict().items()}
        torch.save(inside, tmp_path / "inside.pth")  # a layer was compiled by itself
        load_vision(tower, str(tmp_path / "inside.pth"))

    @pytest.mark.parametrize(
        ("name", "change", "problem"),
        [
            ("blocks.0.mlp.fc1.weight", lambda t: t.index_fill(0, torch.tensor(0), torch.nan), "not finite"),
            ("blocks.1.norm2.bias", lambda t: t - torch.inf, "not finite"),
            ("blocks.1.norm2.bias", lambda t: t.double() + 1e300, "not finite"),  # in the tower's own precision
            ("pos_embed", lambda t: t.index_fill(1, torch.tensor(3), torch.nan), "not finite"),
            ("blocks.0.attn.qkv.weight", lambda t: t.to(torch.int8), "is of int8, and weights are floating-point"),
            ("pos_embed", lambda t: t.to(torch.uint8), "is of uint8"),
            ("pos_embed", lambda t: t[:, :8], r"its 8 positions are no square grid, with or without 1 ahead"),
            ("pos_embed", lambda t: t[:, :0], r"its 0 positions are no square grid"),
        ],
    )
    def test_weights_that_are_no_numbers_or_no_grid_are_named_and_nothing_is_changed(
        self, tmp_path, name, change, problem
    ):
        tower, state = vision_tower(SMALL), deit().state_dict()
        before = {name: p.detach().clone() for name, p in tower.named_parameters()}
        torch.save(state | {name: change(state[name])}, tmp_path / "odd.pth")
        with pytest.raises(InputError, match=rf"odd\.pth: {name}: .*{problem}"):
            load_vision(tower, str(tmp_path / "odd.pth"))
        assert all(torch.equal(p, before[name]) for name, p in tower.named_parameters())

    def test_a_classifier_that_is_no_number_is_left_out_as_all_are(self, tmp_path):
        state = deit().state_dict()
        torch.save(state | {"head.weight": state["head.weight"] * torch.nan}, tmp_path / "deit.pth")
        load_vision(vision_tower(SMALL), str(tmp_path / "deit.pth"))


class TestText:
    @pytest.mark.parametrize("kind", [CLIP, CustomTextCLIP])
    def test_of_a_file_with_a_whole_clip_the_text_part_is_taken(self, tmp_path, kind):
        model, tower = clip(kind), text_tower(SMALL)
        torch.save(model.state_dict(), tmp_path / "clip.pt")
        load_text(tower, str(tmp_path / "clip.pt"))
        torch.testing.assert_close(says(tower), theirs(model))

    @pytest.mark.parametrize("kind", ["text", "projection", "whole", "old"])
    def test_files_of_transformers_give_what_its_model_computes(self, tmp_path, kind):
        if kind == "whole":
            vision = dict(
                hidden_size=32,
                intermediate_size=32,
                num_hidden_layers=1,
                image_size=32,
                patch_size=16,
                num_attention_heads=4,
            )
            model = scrambled(CLIPModel(CLIPConfig(text_config=text_config().to_dict(), vision_config=vision)))
            text = model.text_model
        else:
            made = CLIPTextModelWithProjection if kind == "projection" else CLIPTextModel
            model = scrambled(made(text_config()))
            text = getattr(model, "text_model", model)
        state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        if kind == "old":  # before version 5
            state = {f"text_model.{name}": tensor for name, tensor in state.items()}
            state["text_model.embeddings.position_ids"] = torch.arange(12)[None]
        save_file(state, tmp_path / "model.safetensors")
        tower = text_tower(SMALL)
        load_text(tower, str(tmp_path / "model.safetensors"))
        torch.testing.assert_close(says(tower), text(input_ids=WORDS).last_hidden_state, rtol=1e-4, atol=1e-4)

    def test_openais_activation_is_a_matter_of_the_configuration(self, tmp_path):
        model = scrambled(CLIPTextModel(text_config(hidden_act="quick_gelu")))
        save_file(model.state_dict(), tmp_path / "model.safetensors")
        tower = text_tower(SMALL.model_copy(update=dict(quick_gelu=True)))
        load_text(tower, str(tmp_path / "model.safetensors"))
        torch.testing.assert_close(says(tower), model(input_ids=WORDS).last_hidden_state, rtol=1e-4, atol=1e-4)
        assert PAPER.quick_gelu and GLIP_PAPER.quick_gelu

    def test_positions_are_interpolated_to_a_longer_context_and_cut_to_a_shorter_one(self, tmp_path):
        model = clip()
        torch.save(model.state_dict(), tmp_path / "clip.pt")
        longer, shorter = (text_tower(SMALL.model_copy(update=dict(context=n))) for n in (23, 5))
        for tower in (longer, shorter):
            load_text(tower, str(tmp_path / "clip.pt"))
        own = model.positional_embedding
        torch.testing.assert_close(longer.positional_embedding[::2], own)  # 23 = 2 x 12 - 1: every other one is CLIP's
        torch.testing.assert_close(longer.positional_embedding[1::2], (own[1:] + own[:-1]) / 2)
        assert torch.equal(shorter.positional_embedding, own[:5])

    def test_a_reduced_vocabulary_gets_the_rows_of_its_words(self, tmp_path):
        model, tower = clip(), text_tower(SMALL.model_copy(update=dict(vocabulary=7)))
        torch.save(model.state_dict(), tmp_path / "clip.pt")
        before, rows = tower.token_embedding.weight.detach().clone(), model.token_embedding.weight
        load_text(tower, str(tmp_path / "clip.pt"), clip_ids=[20, 5, 33])
        expected = {START: rows[48], END: rows[49], PAD: before[PAD], UNKNOWN: before[UNKNOWN]}
        expected |= {4: rows[20], 5: rows[5], 6: rows[33]}
        for number, row in expected.items():
            assert torch.equal(tower.token_embedding.weight[number], row), number

    def test_half_precision_is_read_as_what_the_tower_has(self, tmp_path):
        model, tower = clip(), text_tower(SMALL)
        torch.save({name: tensor.half() for name, tensor in model.state_dict().items()}, tmp_path / "clip.pt")
        load_text(tower, str(tmp_path / "clip.pt"))
        assert tower.positional_embedding.dtype == torch.float32
        torch.testing.assert_close(tower.positional_embedding, model.positional_embedding, rtol=1e-3, atol=1e-3)

    @pytest.mark.parametrize("name", ["ln_final.bias", "positional_embedding", "token_embedding.weight"])
    def test_text_that_is_no_number_is_named(self, tmp_path, name):
        state = clip().state_dict()
        torch.save(state | {name: state[name] / 0}, tmp_path / "clip.pt")
        with pytest.raises(InputError, match=rf"clip\.pt: {name}: holds numbers that are not finite"):
            load_text(text_tower(SMALL), str(tmp_path / "clip.pt"), clip_ids=[20, 5, 33])

    def test_a_file_with_fewer_words_than_clip_is_named(self, tmp_path):
        torch.save(clip().state_dict(), tmp_path / "clip.pt")
        tower = text_tower(SMALL.model_copy(update=dict(vocabulary=7)))
        with pytest.raises(InputError, match=r"token_embedding\.weight: has 50 words, and CLIP's number 77 is needed"):
            load_text(tower, str(tmp_path / "clip.pt"), clip_ids=[20, 5, 77])

    @pytest.mark.parametrize(
        ("changes", "problem"),
        [
            (dict(vocab_size=49), r"token_embedding\.weight: is of shape \[49, 32\], the tower needs \[50, 32\]"),
            (dict(layers=3), r"transformer\.resblocks\.2\.attn\.in_proj_bias: the tower has no such tensor"),
        ],
    )
    def test_a_model_that_does_not_fit_is_named(self, tmp_path, changes, problem):
        torch.save(clip(**changes).state_dict(), tmp_path / "clip.pt")
        with pytest.raises(InputError, match=rf"clip\.pt: {problem}"):
            load_text(text_tower(SMALL), str(tmp_path / "clip.pt"))

    def test_a_name_is_asked_of_open_clip_and_openais_want_their_activation(self, monkeypatch):
        model, asked = clip(), []
        monkeypatch.setattr(open_clip, "create_model", lambda n, pretrained: asked.append((n, pretrained)) or model)
        tower = text_tower(SMALL.model_copy(update=dict(quick_gelu=True)))
        load_text(tower, "ViT-L-14/openai")
        assert asked == [("ViT-L-14", "openai")]
        assert isinstance(tower.transformer.resblocks[0].mlp.gelu, QuickGELU)
        assert torch.equal(tower.positional_embedding, model.positional_embedding)
        with pytest.raises(InputError, match=r"ViT-L-14/openai: was trained with QuickGELU, the tower has GELU"):
            load_text(text_tower(SMALL), "ViT-L-14/openai")
        load_text(text_tower(SMALL), "ViT-L-14/laion2b_s32b_b82k")

    @pytest.mark.parametrize("name", ["ViT-L-14/nobody", "ViT-L-14", "nothing"])
    def test_a_name_that_open_clip_does_not_know_is_refused_before_anything_is_fetched(self, monkeypatch, name):
        monkeypatch.setattr(open_clip, "create_model", lambda *a, **k: pytest.fail("asked"))
        with pytest.raises(InputError, match=rf"{name}: is no file, and .*knows no weights.*--text-weights FILE"):
            load_text(text_tower(SMALL), name)


class AsOpenAI(nn.Module):
    """The names of OpenAI's archive: a text transformer, and beside it a vision tower, sizes and the layers' masks."""

    def __init__(self) -> None:
        super().__init__()
        self.text = clip()
        for name in ("transformer", "token_embedding", "positional_embedding", "ln_final"):
            setattr(self, name, getattr(self.text, name))
        del self.text
        self.text_projection, self.logit_scale = nn.Parameter(torch.randn(32, 8)), nn.Parameter(torch.ones([]))
        self.visual = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))
        for name, value in (("input_resolution", 224), ("context_length", 12), ("vocab_size", 50)):
            self.register_buffer(name, torch.tensor(value))
        for block in self.transformer.resblocks:
            block.attn_mask = torch.full((12, 12), -torch.inf).triu(1)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        return self.visual(self.token_embedding(words)[..., :3]) + self.positional_embedding[0, 0]


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::torch.jit.TracerWarning")
class TestTorchScript:
    @pytest.fixture
    def archive(self, tmp_path) -> Path:
        return tmp_path / "ViT-L-14.pt"

    def save(self, path: Path, half: bool = False) -> dict[str, torch.Tensor]:
        model = AsOpenAI().half() if half else AsOpenAI()
        torch.jit.save(torch.jit.trace(model, WORDS, check_trace=False), str(path))
        return model.state_dict()

    @pytest.mark.parametrize("half", [False, True])
    def test_openais_archive_fills_the_text_tower(self, archive, half):
        state, tower = self.save(archive, half), text_tower(SMALL)
        load_text(tower, str(archive))
        for name, parameter in tower.named_parameters():
            assert parameter.dtype == torch.float32 and torch.equal(parameter, state[name].float()), name

    def test_any_traced_module_gives_the_tensors_of_its_state_by_name(self, archive):
        model = deit()
        torch.jit.save(torch.jit.trace(model, torch.zeros(1, 3, 64, 64), check_trace=False), str(archive))
        found = torchscript.read(archive)
        assert all(torch.equal(found[name], tensor) for name, tensor in model.state_dict().items())
        load_vision(vision_tower(SMALL), str(archive))

    def test_no_code_of_an_archive_is_run_or_looked_up(self, archive, tmp_path):
        self.save(archive)
        run = tmp_path / "run"
        with ZipFile(archive) as old, ZipFile(tmp_path / "bad.pt", "w") as new:
            for name in old.namelist():
                bad = b"cos\nsystem\n(S'touch " + str(run).encode() + b"'\ntR."
                new.writestr(name, bad if name.endswith("/data.pkl") else old.read(name))
        with pytest.raises(InputError, match=r"bad\.pt: is a TorchScript archive that holds (os|posix)\.system"):
            load_text(text_tower(SMALL), str(tmp_path / "bad.pt"))
        assert not run.exists()
        with ZipFile(archive) as old, ZipFile(tmp_path / "code.pt", "w") as new:
            for name in old.namelist():  # its code says nothing that could be compiled
                new.writestr(name, b"}{" if "/code/" in name else old.read(name))
        load_text(text_tower(SMALL), str(tmp_path / "code.pt"))

    def test_a_cut_one_is_named(self, archive):
        self.save(archive)
        with ZipFile(archive) as old:
            parts = {name: old.read(name) for name in old.namelist() if not name.endswith("data/0")}
        with ZipFile(archive, "w") as new:
            for name, content in parts.items():
                new.writestr(name, content)
        with pytest.raises(InputError, match=r"ViT-L-14\.pt: cannot be read"):
            load_text(text_tower(SMALL), str(archive))
