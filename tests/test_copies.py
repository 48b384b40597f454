"""Copies of compressed models: however one is made, it computes the same, and is trained with its zeros and ties."""

import copy
import io
import pickle

import pytest
import torch
from safetensors.torch import load_model, save_model
from test_surgery import random_plan
from torch import nn
from towers import PATHS, TwoTowers, example, loss_of, two_towers, views

from snp.compression import checkpoint
from snp.compression.count import count
from snp.compression.masked import MaskedParameter
from snp.compression.plan import Plan, shapes
from snp.compression.surgery import apply

HEAD, FC1 = "head.weight", "vision.blocks.0.mlp.fc1.weight"
QKV = "text.transformer.resblocks.1.attn.in_proj_weight"  # a parameter of torch's own attention


class Tied(TwoTowers):
    """Two towers with a second head that shares the weight of the first."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self.again = nn.Linear(*reversed(self.head.weight.shape))
        self.again.weight = self.head.weight

    def forward(self, *batch):
        features = torch.cat([self.vision(batch[0]), self.text(batch[1])], -1)
        return self.head(features) + self.again(features.roll(1, -1))


def masks(*names: str) -> dict[str, torch.Tensor]:
    source, model = torch.Generator().manual_seed(4), two_towers()
    return {name: torch.rand(model.get_parameter(name).shape, generator=source) < 0.4 for name in names}


def plans() -> dict[str, Plan]:
    towers = views(two_towers())
    sizes, joint = shapes(towers), random_plan(towers)
    return {
        "cut": random_plan(towers, share=0.0),
        "tied": random_plan(towers, keep=2.0),
        "cut and tied": joint,
        "masked": Plan(sizes, masks=masks(HEAD, FC1, QKV)),
        "cut, tied and masked": Plan(sizes, joint.keep, joint.shares, masks(HEAD)),
    }


def compressed(kind: str, model: type[TwoTowers] = TwoTowers, seed: int = 0) -> tuple[nn.Module, Plan]:
    plan = plans()[kind]
    return apply(model(seed), plan, PATHS), plan


def saved_and_loaded(model: nn.Module, weights_only: bool) -> object:
    file = io.BytesIO()
    torch.save(model.state_dict() if weights_only else model, file)
    file.seek(0)
    return torch.load(file, weights_only=weights_only)


def filled(fresh: nn.Module, state: object, **how: bool) -> nn.Module:
    fresh.load_state_dict(state, **how)
    return fresh


def by_safetensors(model, fresh, folder):
    save_model(model, str(folder / "model.safetensors"))
    load_model(fresh, str(folder / "model.safetensors"))
    return fresh


WAYS = {
    "deepcopy": lambda model, fresh, folder: copy.deepcopy(model),
    "pickle": lambda model, fresh, folder: pickle.loads(pickle.dumps(model)),
    "torch.save": lambda model, fresh, folder: saved_and_loaded(model, weights_only=False),
    "state_dict": lambda model, fresh, folder: filled(fresh, model.state_dict()),
    "state_dict of a file": lambda model, fresh, folder: filled(fresh, saved_and_loaded(model, weights_only=True)),
    "state_dict, assigned": lambda model, fresh, folder: filled(fresh, copy.deepcopy(model.state_dict()), assign=True),
    "safetensors": by_safetensors,
    "twice": lambda model, fresh, folder: copy.deepcopy(pickle.loads(pickle.dumps(model))),
}


def train(model: nn.Module, steps: int = 3) -> nn.Module:
    """With momentum and weight decay, both of which would move a zero that has a gradient."""
    dtype = next(model.parameters()).dtype
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1, eps=1e-4)
    for step in range(steps):
        images, words = example(seed=step)
        optimizer.zero_grad()
        loss_of(model, (images.to(dtype), words)).backward()
        optimizer.step()
    return model


def assert_zero_where_masked(model: nn.Module, plan: Plan) -> None:
    for name, mask in plan.masks.items():
        weight = model.get_parameter(name)
        assert weight[~mask].count_nonzero() == 0 and weight[mask].count_nonzero() > 0, name


# ties of the dense model itself are torch's to keep, but where they are masked
@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "kind"), [*((TwoTowers, kind) for kind in plans()), (Tied, "masked"), (Tied, "cut, tied and masked")]
)
@pytest.mark.parametrize("way", WAYS)
def test_a_copy_computes_the_same_and_is_trained_the_same(way, kind, model, tmp_path):
    original, plan = compressed(kind, model)
    copied = WAYS[way](original, compressed(kind, model, seed=9)[0], tmp_path)
    batch = example(seed=50)
    assert torch.equal(copied(*batch), original(*batch))
    assert not {id(p) for p in copied.parameters()} & {id(p) for p in original.parameters()}
    before = count(original, views(original))
    train(original), train(copied)
    assert torch.equal(copied(*batch), original(*batch)), "ties and zeros have the same gradients"
    assert count(copied, views(copied)) == count(original, views(original))
    assert count(copied, views(copied)).stored == before.stored
    assert_zero_where_masked(copied, plan)
    if model is Tied:
        assert copied.again.weight is copied.head.weight


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("kind", plans())
def test_another_type_keeps_zeros_and_ties(kind, dtype):
    model, plan = compressed(kind, Tied)
    before = count(model, views(model))
    model = train(model.to(dtype))
    assert {p.dtype for p in model.parameters()} == {dtype}
    assert_zero_where_masked(model, plan)
    assert count(model, views(model)).stored == before.stored
    assert model.again.weight is model.head.weight
    copied = pickle.loads(pickle.dumps(model))
    images, words = example()
    assert torch.equal(copied(images.to(dtype), words), model(images.to(dtype), words))


@pytest.mark.slow
@pytest.mark.parametrize("kind", plans())
def test_a_model_without_values_takes_up_those_of_another(kind):
    original, plan = compressed(kind, Tied)
    with torch.device("meta"):
        built = Tied(seed=9)
    for empty in (apply(built, plan, PATHS), compressed(kind, Tied, seed=9)[0].to("meta")):
        copied = filled(empty, original.state_dict(), assign=True)
        copied.text.attn_mask = original.text.attn_mask  # open_clip keeps it out of the state
        assert torch.equal(copied(*example()), original(*example()))
        assert_zero_where_masked(train(copied), plan)
        original, _ = compressed(kind, Tied)  # assigned weights are shared
    spread = compressed(kind, Tied, seed=9)[0].to_empty(device="cpu")
    spread.load_state_dict(original.state_dict())
    spread.text.attn_mask = original.text.attn_mask
    assert torch.equal(spread(*example()), original(*example()))
    assert_zero_where_masked(train(spread), plan)


@pytest.mark.parametrize("assign", [False, True])
def test_weights_that_are_not_zero_become_so_where_they_are_loaded_into_a_masked_model(assign):
    model, plan = compressed("masked")
    dense = two_towers(seed=7)
    model.load_state_dict(dense.state_dict(), assign=assign)
    assert_zero_where_masked(model, plan)
    mask = plan.masks[FC1]
    assert torch.equal(model.get_parameter(FC1)[mask], two_towers(seed=7).get_parameter(FC1)[mask])
    assert_zero_where_masked(train(model), plan)
    model.vision.load_state_dict(two_towers(seed=8).vision.state_dict(), assign=assign)  # a part alone
    assert_zero_where_masked(train(model), plan)


def test_values_that_are_not_finite_do_not_spread_from_where_weights_are_masked():
    mask = torch.tensor([[True, False], [False, True]])
    masked = MaskedParameter(torch.tensor([[1.0, float("nan")], [float("inf"), 2.0]]), mask)
    assert masked.tolist() == [[1.0, 0.0], [0.0, 2.0]]
    (masked * torch.tensor([[1.0, float("nan")], [float("inf"), 2.0]])).sum().backward()
    assert masked.grad.tolist() == [[1.0, 0.0], [0.0, 2.0]]


def test_a_masked_weight_that_was_frozen_for_a_while_stays_masked():
    model, plan = compressed("masked")
    model.requires_grad_(False)
    twin = pickle.loads(pickle.dumps(model))
    assert not any(p.requires_grad for p in twin.parameters())
    assert_zero_where_masked(train(twin.requires_grad_(True)), plan)


def test_a_pickled_mask_shares_memory_where_its_tensor_does():
    """Processes that train one model together hand each other storages, which must not be copied on the way."""
    model, _ = compressed("masked")
    weight = model.get_parameter(FC1)
    rebuild, (data, mask, trained) = weight.__reduce_ex__(2)
    assert rebuild(data, mask, trained).data_ptr() == weight.data_ptr()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("kind", plans())
def test_a_checkpoint_has_the_type_of_its_model(kind, dtype, tmp_path):
    model, plan = compressed(kind)
    model = model.to(dtype)
    checkpoint.save(tmp_path, model, plan, paths=PATHS)
    again, _ = checkpoint.load(tmp_path, lambda: two_towers(seed=9).to(dtype))
    images, words = example()
    assert torch.equal(again(images.to(dtype), words), model(images.to(dtype), words))
    assert_zero_where_masked(train(again), plan)
