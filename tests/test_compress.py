"""`snp.compress` on models of others: what cannot be compressed rightly is one line before any work is done."""

import copy
import pickle
import re
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.utils.prune
from nets import GROUPS, Net, batches
from nets import loss_of as loss_of_net
from torch import nn
from towers import PATHS, example, loss_of, two_towers, views
from transformers import CLIPTextConfig, CLIPTextModel, SiglipTextConfig, SiglipTextModel

import snp
from snp.compression import checkpoint
from snp.compression.aliases import ALIASES
from snp.compression.registry import get, methods
from snp.errors import InputError
from snp.experiment.tables import EXTRA, FAMILY, MAIN, SWITCHES, TABLES, rows

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
TEXT = {"vocab_size": 60, "bos_token_id": 58, "eos_token_id": 59}
TRAINED = {"steps": 3, "loss": lambda model, batch: loss_of_net(model, batch), "calibration": batches(0)}


def compress(model: nn.Module | None = None, **changes):
    """OMP on a Net of plain maps, with some arguments changed."""
    arguments = {"method": "omp", "sparsity": 0.5, "groups": GROUPS} | changes
    return snp.compress(Net(0) if model is None else model, **arguments)


class Scripted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = torch.jit.trace(nn.Linear(4, 4), torch.ones(1, 4))


def spoilt(how: str) -> nn.Module:
    """A Net that something has been done to."""
    net = Net(0)
    with torch.no_grad():
        if how == "not finite":
            net.t1.bias[0] = torch.inf
        if how == "whole numbers":
            net.f.weight = nn.Parameter(torch.zeros(4, 6, dtype=torch.int8), requires_grad=False)
        if how == "sparse":
            net.f.weight = nn.Parameter(net.f.weight.to_sparse())
    if how == "lazy":
        net.v1 = nn.LazyLinear(9)
    if how == "on no device":
        net.to("meta")
    if how == "pruned by torch":
        torch.nn.utils.prune.l1_unstructured(net.v1, "weight", 0.3)
    if how == "with an old weight norm":
        torch.nn.utils.weight_norm(net.v1)
    if how == "with a lock":
        net.lock = threading.Lock()
    return net


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"sparsity": "0.5"}, "sparsity: '0.5' is not a number"),
        ({"sparsity": float("nan")}, "sparsity: nan is not a number"),
        ({"sparsity": True}, "sparsity: True is not a number"),
        ({"sparsity": torch.tensor(0.5)}, "sparsity: tensor"),
        ({"sparsity": None, "keep": [0.5]}, r"keep: \[0.5\] is not a number"),
        ({"sparsity": None, "keep": float("inf")}, "keep: inf is not a share"),
        ({"steps": -1}, "steps: -1 is not a whole number"),
        ({"steps": 1.0}, "steps: 1.0 is not a whole number"),
        ({"seed": None}, "seed: None is not a whole number"),
        ({"seed": -1}, "seed: -1 is not a whole number"),
        ({"towers": ["vision"]}, r"towers: \['vision'\] is not of the form"),
        ({"towers": {1: "vision"}}, "towers: .* is not of the form"),
        ({"towers": {"v": 1}}, "towers.v: 1 is no path"),
        ({"groups": ["f.weight"]}, "groups: .* is not of the form"),
        ({"groups": {"v": "f.weight"}}, "groups.v: 'f.weight' is no list of names"),
        ({"groups": {"v": [1]}}, "groups.v: 1: the model has no such"),
        ({"groups": {"v": []}}, "groups: name no weight"),
        ({"groups": {"v": ["f.bias"]}}, r"groups.v: f.bias: is of shape \[4\]"),
        ({"calibration": 3}, "calibration: of type int holds"),
        ({"calibration": None}, "calibration: of type NoneType"),
        ({"calibration": iter(batches(0))}, "calibration: a list_iterator gives its batches once"),
        ({"calibration": (batch for batch in batches(0))}, "calibration: a generator gives its batches once"),
        ({"loss": 3}, "loss: 3 cannot be called"),
        ({"forward": "model"}, "forward: 'model' cannot be called"),
        ({"optimizer": None}, "optimizer: None cannot be called"),
        ({"token_masks": {"visoin": len}}, "token_masks.visoin: there is no such group"),
        ({"token_masks": {"vision": 3}}, "token_masks.vision: 3 cannot be called"),
        ({"method": 3}, "method: there is no method 3"),
        ({"method": "magnitud"}, "did you mean magnitude"),
        ({"method": "random-ticket", "ticket": "universal"}, "random-ticket.ticket: is 'random' by this name"),
        ({"method": "magnitude-structured-global", "scope": "uniform"}, "scope: is 'global' by this name"),
        ({"method": "upop"}, "towers: upop cuts or shares units of towers"),
    ],
)
def test_an_argument_of_another_kind_is_named(changes, problem):
    with pytest.raises(InputError, match=problem) as error:
        compress(**changes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", [float, np.float32, np.float64])
def test_numbers_of_numpy_are_numbers(kind):
    _, plan = compress(sparsity=kind(0.5), steps=np.int64(0), seed=np.int32(3))
    assert plan == compress(sparsity=0.5)[1]


@pytest.mark.parametrize("model", [None, "model", nn.Linear, {}])
def test_a_model_must_be_a_module(model):
    with pytest.raises(InputError, match=r"model: \w+ is no torch.nn.Module"):
        snp.compress(model, "omp", sparsity=0.5, groups=GROUPS)


@pytest.mark.parametrize(
    ("how", "problem"),
    [
        ("not finite", "t1.bias: holds values that are not finite"),
        ("whole numbers", r"groups.fusion: f.weight: is of torch.int8"),
        ("sparse", r"groups.fusion: f.weight: is of torch.float32 and torch.sparse_coo"),
        ("lazy", "v1.weight: has no shape yet: its module is lazy"),
        ("on no device", "v1.weight: has no values: it is on the meta device"),
        ("pruned by torch", "v1.weight: is made of other parameters"),
        ("with an old weight norm", "v1.weight: is made of other parameters"),
        ("with a lock", "model: cannot be copied: .*lock"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*weight_norm")
def test_a_model_that_cannot_be_compressed_is_one_line(how, problem):
    groups = {name: [n for n in names if not n.startswith("v1")] for name, names in GROUPS.items()}
    with pytest.raises(InputError, match=problem) as error:
        compress(spoilt(how), groups=groups)
    assert "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore:.*TorchScript|.*torch.jit")
def test_torchscript_is_named():
    with pytest.raises(InputError, match=r"^fc: is TorchScript"):
        compress(Scripted(), groups={"v": ["fc.weight"]})


def test_norms_that_are_parametrizations_and_hooks_are_compressed_beside():
    net = Net(0)
    torch.nn.utils.parametrizations.weight_norm(net.v1)
    seen = []
    net.v2.register_forward_hook(lambda module, inputs, output: seen.append(output))
    small, plan = compress(net, groups={"v": ["v2.weight"], "f": ["f.weight"]})
    small(batches(0)[0])
    assert len(seen) == 1 and small.v2.weight[~plan.masks["v2.weight"]].count_nonzero() == 0


def test_an_embedding_holds_no_weights_of_a_map_but_when_a_map_shares_them():
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 5))
    with pytest.raises(InputError, match=r"groups.t: 0.weight: holds the vectors of an embedding"):
        compress(model, groups={"t": ["0.weight"]})
    model[1].weight = model[0].weight
    small, _ = compress(model, groups={"t": ["1.weight"]})
    assert small[1].weight is small[0].weight and small[1].weight.count_nonzero() == 10


def test_a_convolution_is_a_map():
    small, _ = compress(nn.Sequential(nn.Conv2d(3, 4, 3)), groups={"v": ["0.weight"]})
    assert small[0].weight.count_nonzero() == 54


@pytest.mark.parametrize(
    ("loss", "problem"),
    [
        (lambda model, batch: model(batch), r"loss: gave torch.float32 of shape \[4, 4\], not one number"),
        (lambda model, batch: None, "loss: gave None, not one number"),
        (lambda model, batch: 3.0, "loss: gave 3.0, not one number"),
        (lambda model, batch: torch.tensor(3), "loss: gave torch.int64"),
        (lambda model, batch: model(batch).mean().detach(), "loss: depends on no weight"),
    ],
)
@pytest.mark.parametrize("method", ["lottery", "snip", "tamt"])
def test_a_loss_that_is_no_scalar_of_the_weights_is_named(method, loss, problem):
    with pytest.raises(InputError, match=problem):
        compress(**TRAINED | {"method": method, "loss": loss})


def test_a_loss_of_one_element_is_a_scalar():
    one = compress(**TRAINED | {"method": "snip", "loss": lambda model, batch: loss_of_net(model, batch)[None]})
    assert one[1] == compress(**TRAINED | {"method": "snip"})[1]


def test_the_step_whose_loss_is_not_finite_is_named():
    losses = []

    def loss(model, batch):
        losses.append(loss_of_net(model, batch) * (float("nan") if len(losses) == 3 else 1))
        return losses[-1]

    with pytest.raises(InputError, match=r"^loss: is not finite at step 3: nan"):
        compress(**TRAINED | {"method": "lottery", "loss": loss, "steps": 9})


@pytest.mark.parametrize("method", ["lottery", "snp", "upop"])
def test_training_that_ends_in_weights_that_are_not_finite_makes_no_model(method):
    model = two_towers()
    arguments = {"steps": 20, "loss": lambda m, b: 1e5 * loss_of(m, b), "calibration": [example()]}
    with pytest.raises(InputError, match="not finite"):
        snp.compress(
            model, method, keep=0.7, towers=PATHS, optimizer=lambda p: torch.optim.SGD(p, lr=1e38), **arguments
        )


def test_the_model_given_is_left_as_it_was():
    model = two_towers().train()
    before = copy.deepcopy(model.state_dict())
    snp.compress(
        model, "snp", keep=0.6, towers=PATHS, steps=16, loss=lambda m, b: loss_of(m, b), calibration=[example()]
    )
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training and not any(p.grad is not None for p in model.parameters())


class Counted(torch.optim.SGD):
    """Counts its steps."""

    taken = 0

    def step(self, closure=None):
        Counted.taken += 1
        return super().step(closure)


@pytest.mark.parametrize("name", [name for name, cls in methods().items() if cls.stage == "training"])
@pytest.mark.parametrize("steps", [3, 12])
def test_a_method_that_decides_while_the_model_trains_takes_the_steps_that_it_is_given(name, steps, monkeypatch):
    monkeypatch.setattr(Counted, "taken", 0)
    data = {"loss": lambda model, batch: loss_of(model, batch), "calibration": [example()]}
    snp.compress(
        two_towers(), name, keep=0.7, towers=PATHS, steps=steps, optimizer=lambda p: Counted(p, lr=1e-3), **data
    )
    assert Counted.taken == steps


def test_rounds_of_equal_length_take_the_most_steps_that_fit_and_need_one_each(monkeypatch):
    monkeypatch.setattr(Counted, "taken", 0)
    more = {"method": "lottery", "optimizer": lambda parameters: Counted(parameters, lr=1e-3), "rounds": 3}
    compress(**TRAINED | more | {"steps": 8})
    assert Counted.taken == 6
    with pytest.raises(InputError, match=r"^steps: lottery takes 3 before it decides \(give at least 3\)$"):
        compress(**TRAINED | more | {"steps": 2})


# -- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted({*MAIN, *SWITCHES, *EXTRA, *FAMILY, *ALIASES}))
def test_a_row_of_the_tables_is_a_method_by_its_name(name):
    method, options = ALIASES.get(name, (name, {}))
    assert get(name).name == method
    assert all(getattr(get(name).options, option) == value for option, value in options.items())


@pytest.mark.slow
@pytest.mark.parametrize("table", TABLES)
def test_rows_have_the_methods_that_their_names_stand_for(table):
    for row in rows(table, "desk"):
        name, *own = row.name.split(",")  # with options behind it, of which the name tells
        method, options = ALIASES.get(name, (name, {}))
        assert row.method == method and options.items() <= row.options.items()
        assert len(row.options) == len(options) + len(own)
        assert row.method in methods()


def test_an_alias_decides_as_its_method_does():
    assert compress(method="magnitude")[1] == compress(method="omp")[1]
    towers = {"towers": PATHS, "keep": 0.6}
    by_name = snp.compress(two_towers(), "magnitude-structured-global", **towers)[1]
    assert by_name == snp.compress(two_towers(), "magnitude-structured", scope="global", **towers)[1]
    assert by_name != snp.compress(two_towers(), "magnitude-structured", **towers)[1]


# -- towers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3])
def test_tying_by_hand_wants_two_towers(count):
    model = nn.Module()
    model.towers = nn.ModuleList(two_towers(seed).vision for seed in range(3))
    towers = {str(i): f"towers.{i}" for i in range(count)}
    with pytest.raises(InputError, match=rf"towers: .* two towers, got {count}"):
        snp.compress(model, "cross-modal", keep=0.9, towers=towers)


@pytest.mark.parametrize("name", ["snp", "cross-modal"])
def test_towers_of_two_types_cannot_share(name):
    model = two_towers()
    model.text.bfloat16()
    with pytest.raises(InputError, match=r"resblocks.0: is of torch.bfloat16 .* they cannot share"):
        snp.compress(model, name, keep=0.7, towers=PATHS, steps=2, loss=lambda m, b: None)
    assert snp.compress(model, "magnitude-structured", keep=0.7, towers=PATHS)


@pytest.mark.slow
@pytest.mark.parametrize("first", ["magnitude-structured", "cross-modal", "omp"])
@pytest.mark.parametrize("second", sorted(methods()))
def test_no_method_compresses_what_is_compressed_already(second, first):
    small, _ = snp.compress(two_towers(), first, keep=0.7, towers=PATHS)
    arguments = {"keep": 0.6, "steps": 2, "loss": lambda m, b: loss_of(m, b), "calibration": [example()]}
    again = [{"towers": PATHS}]
    if methods()[second].kind == "unstructured":
        again.append({"groups": {"head": ["head.weight"]}})
    for weights in again:
        with pytest.raises(InputError, match=r"is compressed already \(start from the dense model\)$"):
            snp.compress(small, second, **arguments, **weights)


# -- transformers ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("model", "config"), [(CLIPTextModel, CLIPTextConfig), (SiglipTextModel, SiglipTextConfig)])
@pytest.mark.parametrize("copied", [lambda m: m, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_save_pretrained_of_a_compressed_model_says_what_to_use_instead(copied, model, config, tmp_path):
    """from_pretrained would build dense layers, find none of their weights, and leave them random with a warning."""

    def build():
        return model(config(**SIZES, **TEXT)).eval()

    dense = build()
    small, plan = snp.compress(dense, "magnitude-structured", keep=0.7, towers={"t": ""})
    small = copied(small)
    with pytest.raises(InputError, match=re.escape("snp.save(model, folder)")):
        small.save_pretrained(tmp_path / "theirs")
    assert not (tmp_path / "theirs").exists()
    checkpoint.save(tmp_path / "ours", small, plan, paths={"t": ""})
    again, _ = checkpoint.load(tmp_path / "ours", build)
    words = torch.tensor([[1, 2, 3, 59]])
    assert torch.equal(again.eval()(words).last_hidden_state, small(words).last_hidden_state)
    with pytest.raises(InputError, match="save_pretrained"):
        again.save_pretrained(tmp_path / "theirs")
    dense.save_pretrained(tmp_path / "dense")


def test_a_masked_model_keeps_the_layers_that_from_pretrained_builds(tmp_path):
    model = SiglipTextModel(SiglipTextConfig(**SIZES, **TEXT)).eval()
    small, plan = snp.compress(model, "omp", sparsity=0.5, towers={"t": ""})
    small.save_pretrained(tmp_path)
    again = SiglipTextModel.from_pretrained(tmp_path).eval()
    words = torch.tensor([[1, 2, 3, 59]])
    assert torch.equal(again(words).last_hidden_state, small(words).last_hidden_state)
    assert all(again.get_parameter(name)[~mask].count_nonzero() == 0 for name, mask in plan.masks.items())


def test_hidden_states_and_attentions_are_recorded_as_by_the_dense_model():
    model = CLIPTextModel(CLIPTextConfig(**SIZES, **TEXT, attn_implementation="eager")).eval()
    words = torch.tensor([[1, 2, 3, 59]])
    before = model(words, output_hidden_states=True, output_attentions=True)  # leaves hooks of transformers behind
    small, _ = snp.compress(model, "magnitude-structured", keep=0.8, towers={"t": ""})
    assert len(small(words, output_hidden_states=True).hidden_states) == len(before.hidden_states) == 3
    ours, theirs = small(words, output_attentions=True).attentions, before.attentions
    assert [seen.shape for seen in ours] == [seen.shape for seen in theirs]


def test_counts_of_a_model_that_has_a_tower_under_two_names():
    model = two_towers()
    model.alias = model.vision
    paths = {"vision": "alias", "text": "text"}
    small, plan = snp.compress(model, "cross-modal", keep=0.7, towers=paths)
    by_first, _ = snp.compress(two_towers(), "cross-modal", keep=0.7, towers=PATHS)
    assert torch.equal(small(*example()), by_first(*example()))
    assert plan.cost()["towers"]["vision"]["stored"] == views(two_towers())["vision"].shape.cost


@pytest.mark.parametrize("method", ["omp", "snip", "itersnip", "chita", "tamt", "lottery", "multiflow"])
def test_a_module_that_stands_in_several_places_is_one(method: str) -> None:
    """As layers that ALBERT runs again and again; torch itself sets its weights wrongly back."""
    net = Net(0)
    path, _, name = GROUPS["vision"][0].rpartition(".")[0].rpartition(".")
    net.get_submodule(path).again = net.get_submodule(path).get_submodule(name)
    small, plan = compress(net, method=method, **TRAINED | {"steps": 8})
    own = small.get_submodule(path)
    assert own.again is own.get_submodule(name)
    assert all(bool((small.get_parameter(weight)[~mask] == 0).all()) for weight, mask in plan.masks.items())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": 2**70}, "seed: .* is too large"),
        ({"calibration": "abc"}, "calibration: of type str"),
        ({"calibration": {1: batches(0)[0]}}, "calibration: of type dict"),
        (
            {"method": "lottery", **TRAINED, "steps": 8, "optimizer": lambda parameters: None},
            "optimizer: made a NoneType",
        ),
        ({"method": "lottery", **TRAINED, "steps": 8, "optimizer": torch.optim.LBFGS}, "optimizer: made a LBFGS"),
    ],
)
def test_what_no_method_can_use_is_named(changes: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        compress(**changes)


def test_a_model_in_place_of_what_makes_one_is_named(tmp_path: Path) -> None:
    small, plan = compress()
    checkpoint.save(tmp_path, small, plan)
    with pytest.raises(InputError, match="build: is a Net"):
        checkpoint.load(tmp_path, Net(0))
