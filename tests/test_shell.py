"""A model of the user's own from the shell: what can be seen of it, what compresses it, and what stays untouched."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from test_cli import fails
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipModel,
    ViTConfig,
    ViTForImageClassification,
)

from snp.cli import main
from snp.compression.registry import methods
from snp.own.learning import sigmoid, softmax
from snp.own.looking import facts, towers_in
from snp.own.origin import origin, weightless
from snp.own.reading import captioned, parted

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
COLOURS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200), "white": (230, 230, 230)}
VOCABULARY = {word: i for i, word in enumerate(["<pad>", "<end>", "a", *COLOURS, "left", "right", "picture"])}
TRAINED = [name for name, cls in methods().items() if cls.stage != "one-shot"]


def clip_config() -> CLIPConfig:
    vision = {**SIZES, "image_size": 16, "patch_size": 8}
    text = {**SIZES, "vocab_size": len(VOCABULARY), "max_position_embeddings": 8, "eos_token_id": 1, "pad_token_id": 0}
    return CLIPConfig(vision_config=vision, text_config=text, projection_dim=16, architectures=["CLIPModel"])


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small CLIP with its tokenizer and the sizes of its pictures."""
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    CLIPModel(clip_config()).save_pretrained(folder)
    words = Tokenizer(WordLevel(VOCABULARY, unk_token="<pad>"))
    words.pre_tokenizer = Whitespace()
    words.post_processor = TemplateProcessing(single="$A <end>", special_tokens=[("<end>", 1)])
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<end>").save_pretrained(folder)
    square = {"height": 16, "width": 16}
    CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=square).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small classifier of pictures."""
    folder = tmp_path_factory.mktemp("vit")
    torch.manual_seed(0)
    ViTForImageClassification(ViTConfig(**SIZES, image_size=16, patch_size=8, num_labels=3)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of two colours, and captions that say which."""
    folder = tmp_path_factory.mktemp("photos")
    lines = []
    for i, left in enumerate(COLOURS):
        for j, right in enumerate(COLOURS):
            pixels = np.zeros((20, 24, 3), np.uint8)
            pixels[:, :12], pixels[:, 12:] = COLOURS[left], COLOURS[right]
            Image.fromarray(pixels).save(folder / f"{i}{j}.png")
            lines.append({"file": f"{i}{j}.png", "text": f"a {left} left a {right} right"})
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    main(list(arguments))
    return capsys.readouterr().out


def loaded(text: str) -> tuple[torch.nn.Module, object]:
    """What the last three lines of a report load."""
    names: dict[str, object] = {}
    exec("\n".join(text.rstrip().splitlines()[-3:]), names)
    return names["model"].eval(), names["plan"]


def pixels(count: int = 2) -> Tensor:
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(1))


# ---------------------------------------------------------------------- inspect


@pytest.mark.slow
def test_inspect_tells_towers_units_parameters_and_methods_in_eighty_columns(
    clip: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = printed(capsys, "inspect", str(clip))
    assert max(map(len, text.splitlines()[1:])) <= 80
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "vision_model 2 attn 8 524 dimensions of all 4 heads" in lines
    assert "ffn 64 65 hidden units" in lines
    total = sum(p.numel() for p in CLIPModel(clip_config()).parameters())
    assert f"Parameters: {total:,}" in lines
    assert any(line.startswith("structured nothing ") and "magnitude-structured" in line for line in lines)
    assert "Nothing in the towers is left whole." in text


def test_inspect_as_json_adds_up_and_knows_every_method(clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(printed(capsys, "inspect", str(clip), "--json"))
    assert found["parameters"] == found["outside"] + sum(t["parameters"] for t in found["towers"].values())
    assert [line["name"] for line in found["methods"]] == [*methods()]
    assert all((line["least"] is None) == bool(line["why"]) for line in found["methods"])
    assert found["class"] == "CLIPModel" and found["library"] == "transformers"


@pytest.mark.slow
def test_the_smallest_share_is_reached_and_no_less(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = json.loads(printed(capsys, "inspect", str(clip), "--json"))
    least = {line["name"]: line["least"] for line in found["methods"]}
    share = least["magnitude-structured"]
    common = ["compress", str(clip), "--method", "magnitude-structured"]
    text = printed(capsys, *common, "--out", str(tmp_path / "least"), "--keep", f"{share + 1e-4:.4f}")
    small, _ = loaded(text)
    assert sum(p.numel() for p in small.parameters()) / found["parameters"] == pytest.approx(share, abs=2e-4)
    assert "must survive" in fails(capsys, *common, "--out", str(tmp_path / "less"), "--keep", f"{share - 1e-3:.4f}")


def test_what_is_seen_without_weights_is_what_is_there(clip: Path) -> None:
    source = origin(str(clip))
    bare, whole = source.bare(), source.whole()
    assert all(p.is_meta for p in bare.parameters()) and not any(b.is_meta for b in bare.buffers())
    assert facts(bare, towers_in(bare, "", ()), True) == facts(whole, towers_in(whole, "", ()), True)


def test_weights_that_are_tied_stay_so_without_values() -> None:
    with weightless():
        one, other = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)
        other.weight = one.weight
    assert other.weight is one.weight and one.weight.is_meta
    assert not torch.nn.Linear(3, 3).weight.is_meta


def test_parts_that_are_excluded_are_whole(clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(printed(capsys, "inspect", str(clip), "--json", "--exclude", "vision_model.*.self_attn"))
    assert [*found["towers"]["vision_model"]["components"]] == ["ffn"]
    assert [*found["towers"]["text_model"]["components"]] == ["attn", "ffn"]


@pytest.mark.parametrize("name", ["timm:vit_tiny_patch16_224", "open_clip:ViT-B-32"])
def test_models_of_other_libraries_go_by_their_names(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(printed(capsys, "inspect", name, "--json"))
    assert found["library"] == name.partition(":")[0]
    assert all([*tower["components"]] == ["qk", "vo", "ffn"] for tower in found["towers"].values())


# ---------------------------------------------------------------------- names that mean nothing here


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("openai/clip-vit-base-patch32", "is no folder here (give a folder with config.json"),
        ("timm:vit_tiny_patch16", "timm has no such model (did you mean vit_"),
        ("timm:hf-hub:someone/model", "timm has no such model"),
        ("open_clip:ViT-B-33", "open_clip has no such model (did you mean ViT-B-3"),
        ("open_clip:roberta-ViT-B-32", "its text tower is roberta-base, of a hub"),
        ("timm:resnet18", "no tower is found: it has no list of transformer layers (--towers"),
    ],
)
def test_a_name_that_is_not_here_is_one_line(name: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in fails(capsys, "inspect", name)


def test_a_folder_is_to_hold_a_config_that_needs_no_code_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "config.json: file not found" in fails(capsys, "inspect", str(tmp_path))
    code = {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config", "AutoModel": "mine.Model"}}
    (tmp_path / "config.json").write_text(json.dumps(code))
    (tmp_path / "mine.py").write_text("raise SystemExit('was run')")
    assert "config.json: cannot be read" in fails(capsys, "inspect", str(tmp_path))


def test_pickled_weights_are_not_read(clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_bytes((clip / "config.json").read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"anything")
    assert "is pickled, and nothing is unpickled" in fails(capsys, "inspect", str(tmp_path))
    weights = tmp_path / "weights.pt"
    weights.touch()
    given = ["timm:test_vit", "--weights", str(weights), "--out", str(tmp_path / "out")]
    assert "is no safetensors file" in fails(capsys, "compress", *given)


def test_weights_of_another_model_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    given = ["timm:test_vit", "--weights", str(tmp_path / "a.safetensors"), "--out", str(tmp_path / "out")]
    assert "holds weights of another model" in fails(capsys, "compress", *given)


# ---------------------------------------------------------------------- compress


@pytest.mark.slow
def test_one_command_writes_a_smaller_model_and_the_python_that_loads_it(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = printed(capsys, "compress", str(clip), "--out", str(tmp_path / "small"), "--keep", "0.8")
    assert max(map(len, text.partition("Written to")[0].splitlines()[1:])) <= 80
    assert "on this machine" in text and re.search(r"operations +0\.\d M +0\.\d M", text)
    dense, (small, plan) = CLIPModel.from_pretrained(clip), loaded(text)
    share = sum(p.numel() for p in small.parameters()) / sum(p.numel() for p in dense.parameters())
    assert share == pytest.approx(0.8, abs=0.005) and plan.keep
    made = small(pixel_values=pixels(), input_ids=torch.tensor([[2, 3, 7, 1], [2, 4, 8, 1]]))
    assert made.logits_per_image.shape == (2, 2) and made.logits_per_image.isfinite().all()
    about = json.loads((tmp_path / "small" / "extra.json").read_text())
    assert about["small"]["parameters"] == sum(p.numel() for p in small.parameters())
    assert about["latency"]["rounds"] >= 5


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_every_method_that_looks_at_data_works_from_a_folder_of_pictures(
    name: str, clip: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = ["--steps", "10"] if methods()[name].stage == "training" else []
    given = ["--method", name, "--keep", "0.85", "--data", str(photos), "--batch", "4", *steps]
    text = printed(capsys, "compress", str(clip), "--out", str(tmp_path / "small"), *given)
    assert "Loss: contrastive" in text
    small, _ = loaded(text)
    assert sum(int(p.count_nonzero()) for p in small.parameters()) < 0.87 * CLIPModel(clip_config()).num_parameters()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["taylor", "snip", "upop"])
def test_pictures_without_labels_are_enough_for_a_model_of_pictures(
    name: str, vit: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = ["--steps", "10"] if name == "upop" else []
    given = ["--method", name, "--keep", "0.8", "--data", str(photos), "--batch", "4", *steps]
    text = printed(capsys, "compress", str(vit), "--out", str(tmp_path / "small"), *given)
    assert "distance of its outputs from those of the dense model" in " ".join(text.split())
    small, plan = loaded(text)
    assert type(small).__name__ == "ViTForImageClassification"
    assert len({tuple(kept.tolist()) for kept in plan.keep.values()}) > 1 or plan.masks


@pytest.mark.slow
def test_recovery_brings_the_outputs_back(
    vit: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dense, x = ViTForImageClassification.from_pretrained(vit).eval(), pixels(8)
    common = ["--keep", "0.5", "--method", "magnitude-structured"]
    trained = ["--data", str(photos), "--batch", "4", "--recover", "60", "--rate", "1e-3"]
    cut, _ = loaded(printed(capsys, "compress", str(vit), "--out", str(tmp_path / "a"), *common))
    taught, _ = loaded(printed(capsys, "compress", str(vit), "--out", str(tmp_path / "b"), *common, *trained))
    gaps = [float((model(x).logits - dense(x).logits).square().mean()) for model in (cut, taught)]
    assert gaps[1] < 0.5 * gaps[0]
    assert not (tmp_path / "b" / "recover.safetensors").exists()


def test_a_dry_run_tells_what_would_be_done_and_writes_nothing(
    clip: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--method", "snp", "--data", str(photos), "--batch", "4", "--steps", "20", "--recover", "30"]
    said = printed(capsys, "compress", str(clip), "--out", str(tmp_path / "small"), *given, "--dry-run")
    text = " ".join(said.split())
    total = CLIPModel(clip_config()).num_parameters()
    assert f"By snp from {total:,} parameters to {round(0.6 * total):,} (60.0%)." in text
    assert "16 pictures in 4 batches" in text and "after 20 weight steps" in text
    assert re.search(r"Roughly, by one batch that was tried here: steps \d+ s, recovery \d+ s\.", text)
    assert not (tmp_path / "small").exists()


@pytest.mark.slow
def test_units_are_rounded_towers_named_and_parts_excluded_as_flags_say(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--towers", "pictures=vision_model", "--exclude", "*.self_attn", "--round-to", "8", "--keep", "0.9"]
    text = printed(capsys, "compress", str(clip), "--out", str(tmp_path / "small"), *given)
    small, plan = loaded(text)
    assert [*plan.towers] == ["pictures"] and plan.towers["pictures"].components == ("ffn",)
    assert all(layer.mlp.fc1.out_features % 8 == 0 for layer in small.vision_model.encoder.layers)
    assert all(layer.mlp.fc1.out_features == 64 for layer in small.text_model.encoder.layers)


@pytest.mark.slow
def test_a_model_of_timm_is_compressed_with_weights_of_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import timm

    dense = timm.create_model("test_vit").eval()
    save_file(dense.state_dict(), tmp_path / "model.safetensors")
    given = ["--weights", str(tmp_path / "model.safetensors"), "--method", "magnitude", "--sparsity", "0.01"]
    text = printed(capsys, "compress", "timm:test_vit", "--out", str(tmp_path / "small"), *given)
    small, plan = loaded(text)
    assert plan.masks and "not zero" in text
    x = torch.randn(1, 3, 160, 160)
    assert torch.allclose(small(x), dense(x), atol=0.05)


# ---------------------------------------------------------------------- folders


@pytest.mark.slow
def test_a_folder_of_others_is_left_alone_and_what_is_done_is_shown_again(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    command = ["compress", str(clip), "--keep", "0.9"]
    for more in ([], ["--dry-run"]):
        assert "was not made by this command" in fails(capsys, *command, "--out", str(tmp_path / "mine"), *more)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]
    assert "is no folder" in fails(capsys, *command, "--out", str(tmp_path / "mine" / "notes.txt"))
    out = tmp_path / "small"
    first = printed(capsys, *command, "--out", str(out))
    before = (out / "weights.safetensors").stat().st_mtime_ns
    assert printed(capsys, *command, "--out", str(out)) == first
    assert (out / "weights.safetensors").stat().st_mtime_ns == before
    told = fails(capsys, "compress", str(clip), "--keep", "0.8", "--out", str(out))
    assert "holds another compression: keep was 0.9, now 0.8" in told


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--method", "taylor"], "--data none: taylor looks at data (name a folder of pictures, or a method"),
        (["--recover", "5"], "--data none: recovery learns from data"),
        (["--data", "PHOTOS"], "--data: is not looked at by magnitude-structured-uniform-basis"),
        (["--steps", "5"], "--steps: magnitude-structured-uniform-basis takes none"),
        (["--rate", "0.1"], "--rate: magnitude-structured-uniform-basis trains nothing"),
        (["--keep", "1.5"], "keep: 1.5 is not a share of the parameters"),
        (["--keep", "0.5", "--sparsity", "0.5"], "keep, sparsity: are two ways to say one thing"),
        (["--towers", "vision"], "--towers vision: is no name and path"),
        (["--towers", "vision=nowhere"], "the model has no submodule 'nowhere'"),
        (["--method", "snpp"], "there is no method 'snpp' (did you mean snp"),
        (["--option", "scope=global"], "scope: is 'uniform' by this name"),
        (["--method", "magnitude", "--round-to", "8"], "round_to: omp cuts no units"),
        (["--device", "tpu"], "--device: is not written as it should be, got tpu"),
        (["--method", "taylor", "--data", "nowhere"], "--data nowhere: no such folder"),
    ],
)
def test_flags_that_do_not_go_together_are_one_line(
    given: list[str], said: str, clip: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [str(photos) if text == "PHOTOS" else text for text in given]
    assert said in fails(capsys, "compress", str(clip), "--out", str(tmp_path / "out"), *flags)
    assert not (tmp_path / "out").exists() or not (tmp_path / "out" / "weights.safetensors").exists()


def test_a_model_without_its_words_says_what_is_missing(
    clip: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_bytes((clip / "config.json").read_bytes())
    given = ["--method", "taylor", "--data", str(photos), "--out", str(tmp_path / "out")]
    assert "tokenizer.json: file not found" in fails(capsys, "compress", str(tmp_path), *given)


# ---------------------------------------------------------------------- data


@pytest.mark.parametrize("kind", ["jsonl", "csv", "tabs", "flickr"])
def test_captions_are_read_in_their_usual_forms(kind: str, tmp_path: Path) -> None:
    texts = {"0.png": 'a dog, and a "cat"', "1.png": "two birds"}
    for name in texts:
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    if kind == "jsonl":
        lines = [json.dumps({"file": name, "text": text}) for name, text in texts.items()]
        (tmp_path / "captions.jsonl").write_text("\n".join(lines))
    elif kind == "tabs":
        (tmp_path / "captions.txt").write_text("".join(f"{name}\t{text}\n" for name, text in texts.items()))
    else:
        names = ["file_name", "text"] if kind == "csv" else ["image", "caption"]
        with open(tmp_path / f"captions.{'csv' if kind == 'csv' else 'txt'}", "w", newline="") as file:
            csv.writer(file).writerows([names, *texts.items()])
    assert captioned(tmp_path) == [(tmp_path / name, text) for name, text in texts.items()]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"file": "1.png", "text": "a dog"}', "line 2: there is no picture 1.png"),
        ('{"file": "0.png"}', "line 2: has no text"),
        ("[]", "line 2: has no file"),
        ("{", "line 2: not valid JSON"),
    ],
)
def test_a_line_of_captions_that_says_nothing_is_named(
    line: str, said: str, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "0.png")
    (tmp_path / "captions.jsonl").write_text('{"file": "0.png", "text": "a dog"}\n' + line)
    given = ["--method", "taylor", "--data", str(tmp_path), "--out", str(tmp_path / "out")]
    assert said in fails(capsys, "compress", str(clip), *given)


def test_no_batch_has_a_picture_twice() -> None:
    items = [(Path(f"{i}.png"), f"caption {j}") for i in range(6) for j in range(3)]
    batches = parted(items, 3, seed=0)
    assert len(batches) == 6 and all(len({path for path, _ in batch}) == 3 for batch in batches)
    assert sorted(item for batch in batches for item in batch) == sorted(items)
    assert parted(items, 3, seed=0) == batches != parted(items, 3, seed=1)
    assert [len(batch) for batch in parted(items, 4, seed=0)] == [4, 4, 4]  # what does not fill a batch is left out
    assert [len(batch) for batch in parted(items[::3], 8, seed=0)] == [6]  # unless there is no other


# ---------------------------------------------------------------------- losses


def test_the_loss_of_clip_is_its_own() -> None:
    model = CLIPModel(clip_config()).eval()
    words = torch.tensor([[2, 3, 7, 1], [2, 4, 8, 1]])
    made = model(pixel_values=pixels(), input_ids=words, return_loss=True)
    assert float(softmax(made.logits_per_image)) == pytest.approx(float(made.loss), rel=1e-5)


def test_the_loss_of_siglip_is_its_own() -> None:
    vision, text = (
        {**SIZES, "image_size": 16, "patch_size": 8},
        {**SIZES, "vocab_size": 20, "max_position_embeddings": 8},
    )
    model = SiglipModel(SiglipConfig(vision_config=vision, text_config=text)).eval()
    made = model(pixel_values=pixels(), input_ids=torch.randint(20, (2, 8)), return_loss=True)
    assert float(sigmoid(made.logits_per_image)) == pytest.approx(float(made.loss), rel=1e-5)
