"""A compressed model as a folder: it loads by itself, is the same, and says what it is."""

import copy
import json

import pytest
import timm
import torch
import transformers as T
from torch import nn

import snp
from snp.compression import folder as folders
from snp.errors import InputError

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
WORDS = {"vocab_size": 60, "bos_token_id": 58, "eos_token_id": 59, "pad_token_id": 0, "max_position_embeddings": 16}
PIXELS = {"image_size": 16, "patch_size": 4}
TIMM = {"img_size": 16, "patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 4}
IMAGES = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
TOKENS = torch.randint(1, 58, (2, 7), generator=torch.Generator().manual_seed(0))


def both(name: str) -> nn.Module:
    config = getattr(T, f"{name}Config")
    text = SIZES | WORDS | ({"encoder_hidden_size": 32} if name == "Blip" else {})
    return getattr(T, f"{name}Model")(config(text_config=text, vision_config=SIZES | PIXELS)).eval()


def pair(model: nn.Module) -> torch.Tensor:
    return model(input_ids=TOKENS, pixel_values=IMAGES).logits_per_image


MODELS = {
    "CLIP": (lambda: both("CLIP"), pair),
    "SigLIP": (lambda: both("Siglip"), pair),
    "BLIP": (lambda: both("Blip"), pair),
    "BERT": (lambda: T.BertModel(T.BertConfig(**SIZES, vocab_size=60)).eval(), lambda m: m(TOKENS).last_hidden_state),
    "DINOv3": (lambda: T.DINOv3ViTModel(T.DINOv3ViTConfig(**SIZES, **PIXELS)).eval(),
               lambda m: m(IMAGES).last_hidden_state),
    "Llama": (lambda: T.LlamaModel(T.LlamaConfig(**SIZES, num_key_value_heads=2, vocab_size=60)).eval(),
              lambda m: m(TOKENS).last_hidden_state),
    "timm": (lambda: timm.create_model("vit_tiny_patch16_224", num_classes=3, **TIMM).eval(), lambda m: m(IMAGES)),
    "timm, padded": (lambda: timm.create_model("eva02_tiny_patch14_224", **TIMM).eval(), lambda m: m(IMAGES)),
}  # fmt: skip
METHODS = {
    "structured": ("magnitude-structured", {"keep": 0.8}),
    "unstructured": ("magnitude", {"sparsity": 0.5}),
    "shared": ("cross-modal", {"keep": 0.85}),
}


def compressed(name: str, kind: str = "structured") -> nn.Module:
    torch.manual_seed(0)
    method, size = METHODS[kind]
    return snp.compress(MODELS[name][0](), method, towers="auto", **size)[0].eval()


def said(name: str) -> dict[str, object]:
    return {"arguments": TIMM} if name.startswith("timm") else {}


@pytest.mark.slow
@pytest.mark.parametrize("kind", METHODS)
@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_what_is_loaded_is_what_was_saved(name, kind, tmp_path):
    if kind == "shared" and name not in ("CLIP", "SigLIP"):
        pytest.skip("has not two towers of one kind")
    model, run = compressed(name, kind), MODELS[name][1]
    snp.save(model, tmp_path / "it", **said(name))
    for loaded in (snp.load(tmp_path / "it"), snp.Model.from_pretrained(str(tmp_path / "it"))):
        torch.testing.assert_close(run(loaded), run(model), atol=1e-6, rtol=1e-6)
        assert not loaded.training and type(loaded) is type(model)
        assert sum(p.numel() for p in loaded.parameters()) == sum(p.numel() for p in model.parameters())
    again = snp.save(loaded, tmp_path / "again", **said(name))
    for file in ("weights.safetensors", "plan.json", "snp.json"):
        assert (again / file).read_bytes() == (tmp_path / "it" / file).read_bytes()


@torch.no_grad()
def test_the_type_of_the_weights_is_kept(tmp_path):
    model = compressed("CLIP").to(torch.bfloat16)
    loaded = snp.load(snp.save(model, tmp_path))
    assert {p.dtype for p in loaded.parameters()} == {torch.bfloat16}
    assert all(torch.equal(*pair) for pair in zip(loaded.parameters(), model.parameters(), strict=True))


def test_a_copy_and_a_trained_model_are_saved_too(tmp_path):
    model = copy.deepcopy(compressed("timm"))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    loaded = snp.load(snp.save(model, tmp_path, arguments=TIMM))
    assert all(torch.equal(*pair) for pair in zip(loaded.parameters(), model.parameters(), strict=True))


def test_the_card_says_method_sizes_and_how_to_load(tmp_path):
    model = compressed("CLIP")
    text = (snp.save(model, tmp_path) / "README.md").read_text()
    stored = sum(p.numel() for p in model.parameters())
    dense = both("CLIP").num_parameters()
    assert f"compressed to {stored / dense:.1%}" in text and f"{dense:,} before, {stored:,} stored." in text
    assert "Method: magnitude-structured" in text and "snp.load(" in text


def test_a_model_that_no_library_builds_is_loaded_with_what_makes_it(tmp_path):
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tower = timm.create_model("vit_tiny_patch16_224", **TIMM)

    model = snp.compress(Own(), "magnitude-structured", keep=0.8, towers="auto")[0]
    snp.save(model, tmp_path)
    with pytest.raises(InputError, match=r"does not say how the dense model is made .give build="):
        snp.load(tmp_path)
    assert len(list(snp.load(tmp_path, build=Own).parameters())) == len(list(model.parameters()))
    with pytest.raises(InputError, match="Own is of no library that builds models by name"):
        snp.save(model, tmp_path, name="vit")


def test_arguments_that_would_build_another_model_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(InputError, match=r"vit_tiny_patch16_224 has \S+ of \[.*\], the model of .*say what the dense"):
        snp.save(compressed("timm"), tmp_path / "it")
    assert not (tmp_path / "it").exists()


def test_only_what_was_compressed_here_is_saved_and_only_into_a_folder_of_its_own(tmp_path):
    with pytest.raises(InputError, match="model: was not compressed here"):
        snp.save(both("CLIP"), tmp_path)
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match="holds something else"):
        snp.save(compressed("CLIP"), tmp_path)
    with pytest.raises(InputError, match=r"save_pretrained: .*snp.save"):
        compressed("CLIP").save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("file", ["snp.json", "plan.json", "weights.safetensors", "config.json"])
@pytest.mark.parametrize("how", ["missing", "damaged"])
def test_a_file_that_is_missing_or_damaged_is_named(file, how, tmp_path):
    snp.save(compressed("CLIP"), tmp_path)
    if how == "missing":
        (tmp_path / file).unlink()
    else:
        (tmp_path / file).write_bytes((tmp_path / file).read_bytes()[:40])
    with pytest.raises(InputError) as error:
        snp.load(tmp_path)
    assert "\n" not in str(error.value) and (file in str(error.value) or file == "config.json")


def test_a_library_that_does_not_know_the_model_is_told(tmp_path):
    snp.save(compressed("CLIP"), tmp_path)
    about = json.loads((tmp_path / folders.ABOUT).read_text())
    (tmp_path / folders.ABOUT).write_text(json.dumps(about | {"name": "ClopModel"}))
    with pytest.raises(InputError, match=r"snp\.json: transformers cannot build ClopModel: .*give build="):
        snp.load(tmp_path)
