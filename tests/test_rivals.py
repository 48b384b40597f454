"""The unstructured rivals: each against numbers worked by hand, its calibration, and the edges."""

import pytest
import torch
from nets import GROUPS, NAMES, Chain, Net, Pair, Toy, batches, loss_of
from torch import Tensor, nn

import snp
from baselines.masking import lowest, split
from snp.compression.statistics import input_energy
from snp.errors import InputError

FAMILY = (
    "random", "omp", "localmp", "modalitymp", "l2", "lamp", "snip", "itersnip", "chita", "chita++", "tamt", "multiflow",
    "lottery",
)  # fmt: skip


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


def test_official_multiflow_by_hand():
    """A sparsity of 0.375 is three weights of eight, and one and a half of each modality.

    Official: int(1.5) = 1 in each, the smallest of vision in a, of text in c. Corrected: two in vision, one in text.
    """
    assert pruned("multiflow", 0.375, mode="official") == {A: [[0, 1]], B: "all", C: [[0, 1], [1, 1]]}
    assert pruned("multiflow", 0.375) == {A: [[0, 1]], B: [[0, 1]], C: [[0, 1], [1, 1]]}


def test_random_by_hand():
    """Seed 0 draws .50 .77 | .09 .13 | .31 .63 .49 .90: of the lowest five .13 stays, the last of its matrix."""
    assert pruned("random") == {A: [[0, 1]], B: [[0, 1]], C: [[0, 1], [0, 1]]}


def test_itersnip_by_hand_keeps_a_path_that_snip_cuts():
    """y = b a x at x = (1, 1): hidden (3, 0.25), so |g w| = [[3, 6], [12, 11]] in a and [9, 1] in b.

    SNIP lets 1, 3 and 6 fall: b reads the first hidden unit, a feeds the second, and y = 0. In three rounds of one
    weight each, 1 falls first; without it the gradients of the second row of a are 0, and that row falls: y = 9.
    """
    outputs = {}
    for method, more in (("snip", {}), ("itersnip", {"rounds": 3})):
        small, plan = snp.compress(
            Chain(), method, sparsity=0.5, groups={"all": ["a.weight", "b.weight"]}, calibration=[torch.ones(1, 2)],
            loss=lambda model, x: model(x), **more,
        )  # fmt: skip
        rows = [[0, 0], [1, 1]] if method == "snip" else [[1, 1], [0, 0]]
        assert plan.masks["a.weight"].int().tolist() == rows and plan.masks["b.weight"].int().tolist() == [[1, 0]]
        outputs[method] = small(torch.ones(1, 2)).item()
    assert outputs == {"snip": 0.0, "itersnip": 9.0}


def chita(a: list[float], b: list[float], method: str = "chita", **more) -> list[float]:
    """The weights of a `Pair` at a sparsity of a half, with one batch (its gradient is 1 everywhere) and lambda = 1."""
    small, _ = snp.compress(
        Pair(a, b), method, sparsity=0.5, groups={"all": ["a.weight", "b.weight"]}, calibration=[torch.ones(1, 2)],
        loss=lambda model, x: model(x), ridge=1.0, **more,
    )  # fmt: skip
    return torch.cat([small.a.weight, small.b.weight]).flatten().tolist()


def test_chita_by_hand():
    """a = (1, 2), b = (3, -2.9), g = (1, 1 | 1, 1): a step of 1/(|g|^2 + lambda) = 0.2 down g gives .8 1.8 | 2.8 -3.1.

    So 1 and 3 fall. Survivors move by the d that minimises (2d - 4 + 1)^2 + 2d^2, with 4 for what fell: d = 1. One
    layer at a time: with -3.1 held, (d - 4.2 + 1)^2 + d^2: d = 1.6; then (d - 4 + 1.6 + 1)^2 + d^2: d = 0.7.
    """
    assert chita([1.0, 2.0], [3.0, -2.9], iterations=1) == pytest.approx([0, 3, 0, -1.9])
    assert chita([1.0, 2.0], [3.0, -2.9], iterations=1, block=2) == pytest.approx([0, 3.6, 0, -2.2])


def test_chita_without_a_step_prunes_by_magnitude():
    """1 and -2.9 fall, their sum is -1.9: (2d + 1.9 + 1)^2 + 2d^2 is least at d = -2.9/3."""
    assert chita([1.0, 2.0], [3.0, -2.9], iterations=0) == pytest.approx([0, 2 - 2.9 / 3, 3 - 2.9 / 3, 0])


def test_chita_plus_plus_by_hand():
    """Stages of one and two zeros. 1 falls: (3d - 1 + 1)^2 + 3d^2 is least at 0, so nothing moves.

    Then -2.9, as 2 is the last of its layer: (2d + 2.9 + 1)^2 + 2d^2 is least at d = -1.3, away from (2 | 3).
    """
    assert chita([1.0, 2.0], [3.0, -2.9], "chita++", rounds=2, iterations=0) == pytest.approx([0, 0.7, 1.7, 0])


def test_tamt_by_hand():
    """|w|/2.81 = .36 .71 | 1.07 1.42 | .18 2.14 2.49 2.85; d loss / d score = g w, so Adam's first step is -sign(w) lr.

    With lr = 1: -.64 1.71 | .07 2.42 | -.82 1.14 3.49 1.85: of text, -7 outlives 8; by magnitude it would be 8.
    """
    assert pruned("tamt", 0.625, lr=1.0) == {A: [[0, 1]], B: [[0, 1]], C: [[0, 0], [1, 0]]}
    assert pruned("tamt", 0.625, rounds=0) == pruned("omp", 0.625) == {A: [[0, 1]], B: [[0, 1]], C: [[0, 0], [0, 1]]}


def test_lottery_by_hand():
    """One step at 0.6 down g = (1, 10 | 1, 10 | 1, 1): w = .4 -8 | 2.4 -10 | -.1 5.4 -7.6 7.4.

    .4, 2.4, .1, 5.4 and 7.4 fall, 8 and 10 being the last of theirs; what survives has its first value again.
    """
    more = {"calibration": [BATCH], "loss": lambda model, batch: model(batch), "steps": 2, "rounds": 1}
    ticket, plan = snp.compress(
        Toy(), "lottery", sparsity=0.625, groups=TOY, optimizer=lambda ps: torch.optim.SGD(ps, lr=0.6), **more
    )
    assert plan.cost()["removed"] == 5
    found = [ticket.get_parameter(name).tolist() for name in (A, B, C)]
    assert found == [[[0, -2]], [[0, -4]], [[0, 0], [-7, 0]]]


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
    more = {"groups": GROUPS, "calibration": batches(0), "loss": loss_of, "steps": 4, **more}
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
    with pytest.raises(InputError, match=r"f\.weight: loses every weight"):
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


CALIBRATED = ("snip", "itersnip", "chita", "chita++", "tamt", "multiflow")


@pytest.mark.parametrize("method", [*CALIBRATED, "lottery"])
def test_nan_in_calibration_is_named(method):
    bad = batches(0)
    bad[0][0][0, 0, 0] = float("nan")
    with pytest.raises(InputError, match="not finite"):
        compress_net(method, calibration=bad)


@pytest.mark.parametrize("method", CALIBRATED)
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
    ({"method": "lottery", "steps": 0}, "while the model trains"),
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
