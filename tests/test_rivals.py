"""The unstructured rivals: each against numbers worked by hand, against a slow reference, and at the edges."""

import numpy as np
import pytest
import reference
import torch
from torch import Tensor, nn

import snp
from baselines.masking import lowest, split
from snp.compression.statistics import input_energy
from snp.errors import InputError

FAMILY = (
    "random", "omp", "localmp", "modalitymp", "l2", "lamp", "snip", "itersnip", "chita", "chita++", "tamt", "multiflow",
)  # fmt: skip


class Toy(nn.Module):
    """Three maps without bias: vision.a = [[1, -2]], vision.b = [[3, -4]], text.c = [[0.5, 6], [-7, 8]]."""

    def __init__(self) -> None:
        super().__init__()
        self.vision = nn.ModuleDict({"a": nn.Linear(2, 1, False), "b": nn.Linear(2, 1, False)})
        self.text = nn.ModuleDict({"c": nn.Linear(2, 2, False)})
        self.vision["a"].weight.data = torch.tensor([[1.0, -2.0]])
        self.vision["b"].weight.data = torch.tensor([[3.0, -4.0]])
        self.text["c"].weight.data = torch.tensor([[0.5, 6.0], [-7.0, 8.0]])

    def forward(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        image, words = batch
        return self.vision["a"](image).sum() + self.vision["b"](image).sum() + self.text["c"](words).sum()


A, B, C = "vision.a.weight", "vision.b.weight", "text.c.weight"
TOY = {"vision": [A, B], "text": [C]}
BATCH = (torch.tensor([[1.0, 10.0]]), torch.tensor([[1.0, 1.0]]))


def pruned(method: str, sparsity: float = 0.5, **more) -> dict[str, list]:
    more = {"calibration": [BATCH], "loss": lambda model, batch: model(batch), **more}
    _, plan = snp.compress(Toy(), method, sparsity=sparsity, groups=TOY, **more)
    return {name: plan.masks[name].int().tolist() if name in plan.masks else "all" for name in (A, B, C)}


def test_omp_by_hand():
    """|w| = 1 2 | 3 4 | 0.5 6 7 8: the lowest three are 0.5, 1 and, as 2 is the last of its matrix, 3."""
    assert pruned("omp", 0.375) == {A: [[0, 1]], B: [[0, 1]], C: [[0, 1], [1, 1]]}


def test_modalitymp_by_hand():
    """Vision loses half of 1 2 3 4: 1 and, as 2 is the last of its matrix, 3; text loses 0.5 and 6."""
    assert pruned("modalitymp") == {A: [[0, 1]], B: [[0, 1]], C: [[0, 0], [1, 1]]}


def test_localmp_by_hand():
    """Every matrix loses its smaller half: 1, 3, and 0.5 and 6."""
    assert pruned("localmp") == {A: [[0, 1]], B: [[0, 1]], C: [[0, 0], [1, 1]]}


def test_l2_by_hand():
    """|w|/||W|| = 0.447 0.894 | 0.6 0.8 | 0.041 0.491 0.573 0.655: the lowest four are 0.041, 0.447, 0.491, 0.573."""
    assert pruned("l2") == {A: [[0, 1]], B: "all", C: [[0, 0], [0, 1]]}


def test_lamp_by_hand():
    """1/5 4/4 | 9/25 16/16 | 0.25/149.25 36/149 49/113 64/64: the lowest four are 0.0017, 0.2, 0.2416, 0.36."""
    assert pruned("lamp") == {A: [[0, 1]], B: [[0, 1]], C: [[0, 0], [1, 1]]}


@pytest.mark.parametrize("method", ["snip", "itersnip"])
def test_snip_by_hand(method):
    """The loss is linear, its gradients are the inputs (1, 10) and (1, 1): |g w| = 1 20 | 3 40 | 0.5 6 7 8."""
    assert pruned(method) == {A: [[0, 1]], B: [[0, 1]], C: [[0, 0], [1, 1]]}
    assert pruned(method, 0.625) == {A: [[0, 1]], B: [[0, 1]], C: [[0, 0], [0, 1]]}


def test_multiflow_by_hand():
    """One sample: energies (1, 100) and (1, 1), so a = (1, 10) and (1, 1).

    c: |W| a = [[0.5, 6], [7, 8]]; out = 3.25, 7.5; in = 3.75, 7; scores 6.1, 136.5 / 196.9, 420. In vision magnitudes
    ask for one zero of each matrix (1 and 3: the larger of each stays), where the first has the lower score.
    """
    assert pruned("multiflow") == {A: [[0, 1]], B: [[0, 1]], C: [[0, 0], [1, 1]]}
    _, _, scores = snp.compress(Toy(), "multiflow", sparsity=0.5, groups=TOY, calibration=[BATCH], scores=True)
    expected = torch.tensor([[3.25 * 3.75 * 0.5, 3.25 * 7 * 6], [7.5 * 3.75 * 7, 7.5 * 7 * 8]])
    torch.testing.assert_close(scores[C], expected)


def test_chita_sets_the_survivors_anew_by_hand():
    """w0 = (2, 3), one gradient (1, 1): b = 5 - 1 = 4. With 3 alone and lambda = 1: min (w-4)^2 + (w-3)^2 at 3.5."""
    model = nn.Linear(2, 1, False)
    model.weight.data = torch.tensor([[2.0, 3.0]])
    small, plan = snp.compress(
        model, "chita", sparsity=0.5, groups={"all": ["weight"]}, calibration=[torch.ones(1, 2)],
        loss=lambda model, x: model(x).sum(), ridge=1.0, iterations=0,
    )  # fmt: skip
    assert plan.masks["weight"].tolist() == [[False, True]]
    torch.testing.assert_close(small.weight.detach(), torch.tensor([[0.0, 3.5]]))


def test_tamt_without_steps_is_magnitude_and_learns_from_the_loss():
    """d loss / d score = g w: where it is positive the score falls, else it rises, by lr in Adam's first step."""
    assert pruned("tamt", 0.375, rounds=0) == pruned("omp", 0.375)
    _, _, before = snp.compress(Toy(), "tamt", sparsity=0.5, groups=TOY, scores=True, rounds=0)
    more = {"calibration": [BATCH], "loss": lambda model, batch: model(batch)}
    _, _, after = snp.compress(Toy(), "tamt", sparsity=0.5, groups=TOY, scores=True, rounds=1, lr=0.1, **more)
    for name in (A, B, C):
        sign = Toy().get_parameter(name).sign()
        torch.testing.assert_close(after[name] - before[name], -0.1 * sign, atol=1e-4, rtol=0)


def test_random_follows_the_seed():
    assert pruned("random", seed=1) == pruned("random", seed=1)
    assert len({str(pruned("random", seed=seed)) for seed in range(8)}) > 1


# -- against a slow reference ------------------------------------------------------------------------------------


class Net(nn.Module):
    """Random maps of several sizes in two modalities and a fusion."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.v1, self.v2 = nn.Linear(7, 9), nn.Linear(9, 6)
        self.t1, self.t2 = nn.Linear(5, 8), nn.Linear(8, 6)
        self.f = nn.Linear(6, 4)

    def forward(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        image_BNI, words_BLI = batch
        v = self.v2(self.v1(image_BNI).relu()).mean(1)
        t = self.t2(self.t1(words_BLI).relu()).mean(1)
        return self.f(v * t)


GROUPS = {"vision": ["v1.weight", "v2.weight"], "text": ["t1.weight", "t2.weight"], "fusion": ["f.weight"]}
NAMES = [name for names in GROUPS.values() for name in names]
SETS = {"all": [NAMES], "group": list(GROUPS.values()), "layer": [[name] for name in NAMES]}


def batches(seed: int, count: int = 3, size: int = 4) -> list[tuple[Tensor, Tensor]]:
    source = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(size, 3, 7, generator=source), torch.randn(size, 5, 5, generator=source)) for _ in range(count)
    ]


def loss_of(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return model(batch).square().mean()


def slow(method: str, net: Net, seed: int, sparsity: float) -> dict[str, np.ndarray]:
    """The masks by `reference`."""
    w = {name: net.get_parameter(name).detach().numpy() for name in NAMES}
    count = int(sparsity * sum(v.size for v in w.values()))
    size = {name: np.abs(v) for name, v in w.items()}
    if method in ("omp", "modalitymp", "localmp"):
        return reference.by_sets(size, SETS[{"omp": "all", "modalitymp": "group", "localmp": "layer"}[method]], count)
    if method == "l2":
        scores = {name: size[name] / np.float32(torch.from_numpy(v).norm()) for name, v in w.items()}
    elif method == "lamp":
        scores = {name: reference.lamp(v) for name, v in w.items()}
    elif method == "snip":
        total = sum(loss_of(net, batch) for batch in batches(seed)) / 3
        grads = torch.autograd.grad(total, [net.get_parameter(name) for name in NAMES])
        scores = {name: np.abs(w[name] * g.numpy()) for name, g in zip(NAMES, grads, strict=True)}
    else:
        inputs = {name: [] for name in NAMES}
        for image, words in batches(seed):
            v = net.v1(image).relu()
            t = net.t1(words).relu()
            joint = net.v2(v).mean(1) * net.t2(t).mean(1)
            for name, x in zip(NAMES, (image, v, words, t, joint), strict=True):
                inputs[name].append(x.detach())
        wide = {name: torch.cat(xs).double().flatten(0, -2) for name, xs in inputs.items()}
        energy = {name: x.square().sum(0).numpy() / 12 for name, x in wide.items()}
        flows = {name: reference.flow(w[name].astype(np.float64), energy[name]) for name in NAMES}
        return reference.multiflow(w, flows, SETS["group"], count)
    return reference.keep_highest(scores, count)


@pytest.mark.parametrize("sparsity", [0.5, 0.63, 0.75, 0.9])
@pytest.mark.parametrize("method", ["omp", "modalitymp", "localmp", "l2", "lamp", "snip", "multiflow"])
def test_masks_equal_those_of_a_slow_reference_bit_by_bit(method, sparsity):
    for seed in range(10):
        net = Net(seed)
        _, plan = snp.compress(
            net, method, sparsity=sparsity, groups=GROUPS, calibration=batches(seed), loss=loss_of
        )
        expected = slow(method, net, seed, sparsity)
        for name in NAMES:
            found = plan.masks[name].numpy() if name in plan.masks else np.ones_like(expected[name])
            assert np.array_equal(found, expected[name]), (seed, name)


# -- calibration -------------------------------------------------------------------------------------------------


def energy(model, batches, groups=GROUPS, **more):
    return input_energy(model, groups, batches, lambda batch: model(batch), **more)


def test_streamed_energy_is_that_of_all_samples_at_once_whatever_the_batches():
    """As batches of 1, 3 and 8 samples, as one of 12."""
    net, (image, words) = Net(0), batches(5, 1, 12)[0]
    parts = [(image[a:b], words[a:b]) for a, b in ((0, 1), (1, 4), (4, 12))]
    whole = energy(net, [(image, words)])
    for name, value in energy(net, parts).items():
        torch.testing.assert_close(value, whole[name])
    torch.testing.assert_close(whole["v1.weight"], image.flatten(0, 1).square().sum(0) / 12)


def test_padding_does_not_count():
    net, (image, words) = Net(0), batches(5, 1)[0]
    text = torch.tensor([[True] * 5, [True] * 3 + [False] * 2, [True] * 4 + [False], [True] + [False] * 4])
    masked = energy(net, [(image, words)], token_masks={"text": lambda batch: text})
    torch.testing.assert_close(masked["t1.weight"], words[text].square().sum(0) / 4)
    assert torch.equal(masked["v1.weight"], energy(net, [(image, words)])["v1.weight"])


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.map(self.map(x))


def test_a_map_that_is_called_twice_sums_its_calls_and_counts_its_samples_once():
    net, x = Twice(), torch.randn(4, 3)
    found = energy(net, [x, x], {"all": ["map.weight"]})["map.weight"]
    expected = (x.square().sum(0) + net.map(x).square().sum(0)) / 4
    torch.testing.assert_close(found, expected.detach())
    official = energy(net, [x, x], {"all": ["map.weight"]}, official=True)["map.weight"]
    torch.testing.assert_close(official, expected.detach() / 2)


def test_the_maps_inside_torchs_attention_are_seen_and_the_module_is_left_as_it_was():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    x, attention = torch.randn(2, 5, 8), layer.self_attn
    names = ["self_attn.in_proj_weight", "self_attn.out_proj.weight"]
    found = energy(layer, [x], {"all": names})
    assert layer.self_attn is attention
    torch.testing.assert_close(found[names[0]], x.flatten(0, 1).square().sum(0) / 2)
    q, k, v = (part.view(2, 5, 2, 4).transpose(1, 2) for part in nn.functional.linear(
        x, attention.in_proj_weight, attention.in_proj_bias).chunk(3, -1))  # fmt: skip
    inner = ((q @ k.transpose(-2, -1) / 2).softmax(-1) @ v).transpose(1, 2).reshape(10, 8)
    torch.testing.assert_close(found[names[1]], inner.square().sum(0).detach() / 2)


# -- edges -------------------------------------------------------------------------------------------------------


def compress_net(method: str, net: Net | None = None, sparsity: float = 0.5, **more):
    more = {"groups": GROUPS, "calibration": batches(0), "loss": loss_of, **more}
    return snp.compress(net or Net(0), method, sparsity=sparsity, **more)


@pytest.mark.parametrize("method", FAMILY)
def test_weights_of_one_magnitude_are_pruned_to_the_target(method):
    net = Net(0)
    with torch.no_grad():
        for name in NAMES:
            net.get_parameter(name).fill_(0.1)
    _, plan = compress_net(method, net)
    assert plan.cost()["removed"] == int(0.5 * sum(net.get_parameter(n).numel() for n in NAMES))


def test_official_multiflow_loses_a_matrix_of_one_magnitude_and_says_so():
    net = Net(0)
    with torch.no_grad():
        net.f.weight.fill_(0.1)
    with pytest.raises(InputError, match=r"f\.weight: all its weights are equal"):
        compress_net("multiflow", net, mode="official", calibration=[(torch.ones(2, 3, 7), torch.ones(2, 5, 5))] * 2,
                     groups={"fusion": ["f.weight"], "vision": ["v1.weight"]} | {})  # fmt: skip


@pytest.mark.parametrize("method", FAMILY)
def test_a_modality_without_prunable_weight_takes_no_part(method):
    _, plan = compress_net(method, groups={"vision": GROUPS["vision"], "text": []})
    assert set(plan.masks) <= set(GROUPS["vision"]) and plan.masks


@pytest.mark.parametrize("method", FAMILY)
def test_sparsity_zero_keeps_everything_and_one_is_refused(method):
    _, plan = compress_net(method, sparsity=0)
    assert not plan.masks
    with pytest.raises(InputError, match="sparsity: 1 leaves a weight matrix empty"):
        compress_net(method, sparsity=1)


@pytest.mark.parametrize("method", ["snip", "itersnip", "chita", "multiflow"])
def test_nan_in_calibration_is_named(method):
    bad = batches(0)
    bad[1][0][0, 0, 0] = float("nan")
    with pytest.raises(InputError, match="not finite"):
        compress_net(method, calibration=bad)


@pytest.mark.parametrize("method", ["snip", "itersnip", "chita", "tamt", "multiflow"])
def test_a_map_that_calibration_never_reaches_is_named(method):
    net = Net(0)
    net.idle = nn.Linear(3, 3)
    with pytest.raises(InputError, match=r"idle\.weight: no (calibration batch|gradient) reaches"):
        compress_net(method, net, groups=GROUPS | {"idle": ["idle.weight"]})


@pytest.mark.parametrize("method", FAMILY)
def test_tied_maps_are_pruned_once_and_stay_tied(method):
    net = Net(0)
    net.twin = nn.Linear(9, 6)
    net.twin.weight = net.v2.weight
    small, plan = compress_net(method, net, groups=GROUPS | {"vision": [*GROUPS["vision"], "twin.weight"]})
    assert small.twin.weight is small.v2.weight and "twin.weight" not in plan.masks
    assert plan.cost()["removed"] == int(0.5 * sum(net.get_parameter(n).numel() for n in NAMES))


@pytest.mark.parametrize("wrong, problem", [
    ({"sparsity": None}, "give exactly one"), ({"keep": 0.5}, "give exactly one"),
    ({"sparsity": 1.5}, "not a share of the weights"), ({"groups": {"a": ["nothing"]}}, "no such parameter"),
    ({"groups": {}}, "knows no weights"), ({"groups": {"a": ["f.weight"], "b": ["f.weight"]}}, "of group a too"),
    ({"method": "snp"}, "give towers"), ({"method": "multiflow", "calibration": []}, "no calibration batch"),
    ({"method": "snip", "loss": None}, "needs gradients"), ({"method": "snip", "calibration": []}, "holds no batch"),
    ({"method": "lottery"}, "while the model trains"),
])  # fmt: skip
def test_wrong_arguments_are_one_clear_line(wrong, problem):
    with pytest.raises(InputError, match=problem) as error:
        compress_net(**{"method": "omp", **wrong})
    assert "\n" not in str(error.value)


def test_lowest_breaks_ties_by_place_and_spares_the_largest_of_each():
    masks = lowest([torch.ones(3), torch.tensor([5.0, 1.0])], 3)
    assert [mask.int().tolist() for mask in masks] == [[1, 0, 0], [1, 0]]


def test_split_adds_up():
    assert split(10, [1, 1, 1]) == [4, 3, 3] and split(5, [10, 0, 30]) == [1, 0, 4] and split(0, []) == []
