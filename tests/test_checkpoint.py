"""Checkpoints: what was saved comes back with its ties, in hardly more bytes; damage is named."""

import json

import pytest
import torch
from conftest import PATHS, TwoTowers, example, loss_of, two_towers, views
from open_clip.transformer import TextTransformer
from safetensors.torch import load_file, save_file
from test_surgery import random_plan
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from snp.compression.checkpoint import load, read_extra, save
from snp.compression.count import count
from snp.compression.plan import Plan, shapes
from snp.compression.surgery import apply
from snp.compression.tower import towers_of
from snp.errors import InputError


def masked_plan(model: nn.Module, keep: float) -> Plan:
    towers = towers_of(model, PATHS)
    names = sorted(n for tower in towers.values() for n in tower.parameter_names if n.endswith("weight"))
    source = torch.Generator().manual_seed(0)
    shape = {n: model.get_parameter(n).shape for n in names}
    return Plan(shapes(towers), masks={n: torch.rand(shape[n], generator=source) < keep for n in names})


def plans() -> dict[str, Plan]:
    towers = views(two_towers())
    return {
        "dense": Plan.dense(towers),
        "joint": random_plan(towers),
        "all shared": random_plan(towers, share=2.0),
        "masked": masked_plan(two_towers(), 0.5),
    }


@pytest.mark.parametrize("kind", plans())
def test_a_loaded_model_is_the_saved_one_and_trains_on_alike(kind, tmp_path):
    plan = plans()[kind]
    model = apply(two_towers(seed=3), plan, PATHS)
    save(tmp_path, model, plan, extra={"step": 7})
    again, plan_again = load(tmp_path, two_towers)
    assert plan_again == plan and read_extra(tmp_path) == {"step": 7}
    for trained in (model, again):
        optimizer = torch.optim.AdamW(trained.parameters(), lr=1e-2)
        for step in range(2):
            loss_of(trained, example(seed=step)).backward()
            optimizer.step()
            optimizer.zero_grad()
    assert torch.equal(model(*example()), again(*example()))
    assert count(again, views(again)) == count(model, views(model))


def test_the_same_model_gives_the_same_bytes_every_time(tmp_path):
    plan = plans()["joint"]
    model = apply(two_towers(), plan, PATHS)
    files = [save(tmp_path / str(i), model, plan, paths=PATHS) / "weights.safetensors" for i in range(8)]
    assert len({file.read_bytes() for file in files}) == 1


class Million(nn.Module):
    """Two towers of about a million parameters, of desk size."""

    def __init__(self) -> None:
        super().__init__()
        self.vision = VisionTransformer(
            img_size=64, patch_size=8, embed_dim=96, depth=4, num_heads=4, num_classes=0
        )
        self.text = TextTransformer(32, 100, 96, 4, 4, output_dim=96)


@pytest.mark.parametrize("keep", [0.2, 0.4, 0.7, 0.97])
@pytest.mark.parametrize("kind", ["joint", "masked"])
def test_files_are_at_most_one_percent_larger_than_the_stored_parameters(kind, keep, tmp_path):
    model = Million()
    towers = towers_of(model, PATHS)
    plan = random_plan(towers, keep=keep) if kind == "joint" else masked_plan(model, keep)
    compressed = apply(model, plan, PATHS)
    save(tmp_path, compressed, plan)
    size = sum(file.stat().st_size for file in tmp_path.iterdir())
    counts = count(compressed, towers_of(compressed, PATHS))
    assert counts.nonzero * 4 < size <= counts.stored * 4 * 1.01
    if kind == "masked" and keep < 0.9:
        assert size < counts.nonzero * 4 + counts.stored / 5, "masked weights are not stored"


def test_tensors_that_the_dense_module_itself_ties_are_stored_once(tmp_path):
    def build() -> nn.Module:
        model = two_towers()
        model.again = model.head
        return model

    model = build()
    save(tmp_path, model, Plan.dense(views(model)))
    assert not [name for name in load_file(tmp_path / "weights.safetensors") if name.startswith("again")]
    again, _ = load(tmp_path, build)
    assert again.again.weight is again.head.weight


def rewrite(folder, change) -> None:
    """Change the tensors of a checkpoint, keeping its metadata."""
    file = folder / "weights.safetensors"
    data = file.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, header["__metadata__"])


NAME = "vision.blocks.0.mlp.fc1.weight"


def widen(tensors):
    tensors[NAME] = torch.zeros(128, 33)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda tensors: tensors.pop(NAME), f"{NAME}: tensor is missing"),
        (lambda tensors: tensors.pop("vectors"), "vectors: tensor is missing"),
        (lambda tensors: tensors.update(vectors=torch.zeros(9)), "vectors: does not match"),
        (lambda tensors: tensors.update(odd=torch.zeros(2, 2)), "odd: the model has no such tensor"),
        (widen, rf"{NAME}: .*\[128, 33\], the model needs .*\[128, 32\]"),
        (lambda tensors: tensors.update({NAME: tensors[NAME].half()}), f"{NAME}: is torch.float16"),
    ],
)
def test_a_damaged_checkpoint_names_file_and_tensor(change, problem, tmp_path):
    save(tmp_path, two_towers(), plans()["dense"])
    rewrite(tmp_path, change)
    with pytest.raises(InputError, match=f"weights.safetensors: {problem}"):
        load(tmp_path, two_towers)


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    class Wider(TwoTowers):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(64, 6)

    save(tmp_path, two_towers(), plans()["dense"])
    with pytest.raises(InputError, match=r"weights.safetensors: head\.(weight|bias): is"):
        load(tmp_path, Wider)


def test_a_cut_file_is_refused(tmp_path):
    save(tmp_path, two_towers(), plans()["dense"])
    file = tmp_path / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"weights.safetensors: not a whole"):
        load(tmp_path, two_towers)


def test_a_cut_plan_is_refused(tmp_path):
    save(tmp_path, apply(two_towers(), plans()["joint"], PATHS), plans()["joint"])
    file = tmp_path / "plan.json"
    file.write_text(file.read_text()[:100])
    with pytest.raises(InputError, match=r"plan.json: not a valid plan"):
        load(tmp_path, two_towers)


@pytest.mark.parametrize("name", ["plan.json", "weights.safetensors"])
def test_a_missing_file_is_named(name, tmp_path):
    save(tmp_path, two_towers(), plans()["dense"])
    (tmp_path / name).unlink()
    with pytest.raises(InputError, match=f"{name}: file not found"):
        load(tmp_path, two_towers)


def test_weights_beside_another_plan_are_refused(tmp_path):
    save(tmp_path, two_towers(), plans()["dense"])
    (tmp_path / "plan.json").write_text(plans()["joint"].to_json())
    with pytest.raises(InputError, match="not saved with the plan beside it"):
        load(tmp_path, two_towers)
