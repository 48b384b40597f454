"""Checkpoints: what was saved comes back with its ties, in hardly more bytes; damage is named."""

import json

import pytest
import torch
from open_clip.transformer import TextTransformer
from safetensors.torch import load_file, save_file
from test_surgery import random_plan
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from towers import PATHS, TwoTowers, example, loss_of, two_towers, views

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


@pytest.mark.slow
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
        self.vision = VisionTransformer(img_size=64, patch_size=8, embed_dim=96, depth=4, num_heads=4, num_classes=0)
        self.text = TextTransformer(32, 100, 96, 4, 4, output_dim=96)


@pytest.mark.slow
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


@pytest.mark.slow
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


class Named(nn.Module):
    """A linear map beside parameters of given names and shape."""

    def __init__(self, names: tuple[str, ...], shape: tuple[int, ...]) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)
        for name in names:
            self.register_parameter(name, nn.Parameter(torch.randn(shape)))


@pytest.mark.parametrize("shape", [(3, 3), (3,), (0, 3), ()])
@pytest.mark.parametrize("names", [("vectors",), ("vectors", "vectors_", "joined"), ("a b", "ünï", 'q"', "\n", "\\")])
def test_a_tensor_may_have_any_name(names, shape, tmp_path):
    model = Named(names, shape)
    plan = Plan({}, masks={"fc.weight": torch.rand(8, 8) < 0.5})
    small = apply(model, plan, {})
    save(tmp_path, small, plan)
    again, _ = load(tmp_path, lambda: Named(names, shape))
    assert all(torch.equal(a, b) for a, b in zip(small.parameters(), again.parameters(), strict=True))


def test_a_name_that_the_format_keeps_for_itself_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(InputError, match=r"^__metadata__: is a name that safetensors keeps"):
        save(tmp_path / "new", Named(("__metadata__",), (3, 3)), Plan({}))
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
@pytest.mark.parametrize("tower", ["vision/left", "a b", "0/0/qk", ""])
def test_a_tower_may_have_any_name(tower, tmp_path):
    towers = towers_of(two_towers(), {tower: "vision", "text": "text"})
    plan = random_plan(towers)
    small = apply(two_towers(), plan, {tower: "vision", "text": "text"})
    save(tmp_path, small, plan, paths={tower: "vision", "text": "text"})
    again, same = load(tmp_path, two_towers)
    assert same == plan and torch.equal(again(*example()), small(*example()))


def test_what_is_saved_does_not_depend_on_torchs_default_type(tmp_path):
    plan = plans()["joint"]
    model = apply(two_towers(), plan, PATHS)
    torch.set_default_dtype(torch.float64)
    try:
        save(tmp_path / "double", model, plan)
    finally:
        torch.set_default_dtype(torch.float32)
    save(tmp_path / "single", model, plan)
    files = [tmp_path / name / "weights.safetensors" for name in ("double", "single")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_buffers_may_be_infinite_share_memory_and_have_any_type(tmp_path):
    def build() -> nn.Module:
        model = Named((), ())
        model.register_buffer("mask", torch.full((2, 2), -torch.inf))
        model.register_buffer("whole", torch.arange(6).view(2, 3))
        model.register_buffer("part", model.whole[:1])
        model.register_buffer("turned", torch.randn(2, 3, generator=torch.Generator().manual_seed(0)).T)
        model.register_buffer("small", torch.ones(2, dtype=torch.float8_e4m3fn))
        return model

    model = build()
    save(tmp_path, model, Plan({}))
    again, _ = load(tmp_path, build)
    for name, buffer in model.named_buffers():
        assert torch.equal(again.get_buffer(name).float(), buffer.float()), name


@pytest.mark.parametrize(
    ("paths", "problem"),
    [
        (None, r"paths: tower t: the model has no submodule 't' .*give them as in towers="),
        ({}, "paths: lack 't'"),
        ({"t": "vision", "u": "text"}, "paths: have 'u'"),
        ({"t": "head"}, "paths: tower t: no transformer layers found in Linear at 'head'"),
        ({"t": "text"}, "tower t: is not of the sizes that the plan makes"),
    ],
)
def test_paths_that_could_not_be_loaded_are_refused_when_saving(paths, problem, tmp_path):
    model = two_towers()
    towers = towers_of(model, {"t": "vision"})
    plan = Plan(shapes(towers), {("t", 1, "ffn"): torch.arange(128) < 60})
    small = apply(model, plan, {"t": "vision"})
    with pytest.raises(InputError, match=problem):
        save(tmp_path / "new", small, plan, paths=paths)
    assert not (tmp_path / "new").exists()
    save(tmp_path / "new", small, plan, paths={"t": "vision"})
    again, _ = load(tmp_path / "new", two_towers)
    assert torch.equal(again(*example()), small(*example()))


def broken(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        model.get_parameter("vision.blocks.0.norm1.bias")[1] = torch.nan
    return model


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "change", "problem"),
    [
        ("joint", lambda model: two_towers(), "tower vision: is not of the sizes"),
        ("dense", lambda model: apply(two_towers(), plans()["joint"], PATHS), "tower vision: is not of the sizes"),
        ("masked", lambda model: two_towers(), "is not zero where the plan masks it"),
        ("joint", broken, r"vision\.blocks\.0\.norm1\.bias: holds values that are not finite"),
        ("joint", lambda model: model.to("meta"), "has no values: it is on the meta device"),
    ],
)
def test_a_model_that_is_not_the_plans_or_is_broken_is_not_saved_over_a_sound_one(kind, change, problem, tmp_path):
    plan = plans()[kind]
    model = apply(two_towers(), plan, PATHS)
    save(tmp_path, model, plan)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(InputError, match=problem):
        save(tmp_path, change(model), plan)
    with pytest.raises(InputError, match="cannot be stored: Object of type set"):
        save(tmp_path, apply(two_towers(), plan, PATHS), plan, extra={1, 2})
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.slow
@pytest.mark.parametrize("name", [NAME, "vectors"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_values_that_are_not_finite_are_named_when_loading(name, value, tmp_path):
    save(tmp_path, two_towers(), plans()["dense"])
    rewrite(tmp_path, lambda tensors: tensors[name].view(-1)[0].fill_(value))
    found = NAME if name == NAME else r"vision\.norm\.\w+|[\w.]+(bias|weight)"
    with pytest.raises(InputError, match=f"weights.safetensors: ({found}): holds values that are not finite"):
        load(tmp_path, two_towers)


@pytest.mark.slow
@pytest.mark.parametrize("paths", [None, "{", "[1]", "3"])
def test_paths_that_cannot_be_read_are_one_line(paths, tmp_path):
    save(tmp_path, two_towers(), plans()["dense"])
    file = tmp_path / "weights.safetensors"
    data = file.read_bytes()
    metadata = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    metadata.pop("paths") if paths is None else metadata.update(paths=paths)
    save_file(load_file(file), file, metadata)
    with pytest.raises(InputError, match=r"weights\.safetensors: paths: cannot be read"):
        load(tmp_path, two_towers)


def test_a_compressed_model_is_not_what_a_checkpoint_is_loaded_into(tmp_path):
    plan = plans()["masked"]
    save(tmp_path, apply(two_towers(), plan, PATHS), plan)
    with pytest.raises(InputError, match="is compressed already"):
        load(tmp_path, lambda: apply(two_towers(), plan, PATHS))


def test_a_tied_weight_that_was_assigned_is_stored_once(tmp_path):
    def build() -> nn.Module:
        model = two_towers()
        model.again = nn.Linear(64, 5)
        model.again.weight = model.head.weight
        return model

    model = build()
    model.load_state_dict(build().state_dict(), assign=True)
    assert model.again.weight is not model.head.weight
    save(tmp_path, model, Plan.dense(views(model)))
    again, _ = load(tmp_path, build)
    assert again.again.weight is again.head.weight and torch.equal(again.head.weight, model.head.weight)
