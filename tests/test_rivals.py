"""The unstructured rivals: each against numbers worked by hand, its calibration, and the edges."""

import pytest
import torch
from nets import GROUPS, NAMES, Chain, Net, Pair, Toy, batches, loss_of
from torch import nn

import snp
from baselines.masking import lowest, split
from snp.compression.registry import methods
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
            Chain(),
            method,
            sparsity=0.5,
            groups={"all": ["a.weight", "b.weight"]},
            calibration=[torch.ones(1, 2)],
            loss=lambda model, x: model(x),
            **more,
        )
        rows = [[0, 0], [1, 1]] if method == "snip" else [[1, 1], [0, 0]]
        assert plan.masks["a.weight"].int().tolist() == rows and plan.masks["b.weight"].int().tolist() == [[1, 0]]
        outputs[method] = small(torch.ones(1, 2)).item()
    assert outputs == {"snip": 0.0, "itersnip": 9.0}


def chita(a: list[float], b: list[float], method: str = "chita", **more) -> list[float]:
    """The weights of a `Pair` at a sparsity of a half, with one batch (its gradient is 1 everywhere) and lambda = 1."""
    more = {"calibration": [torch.ones(1, 2)], "loss": lambda model, x: model(x), "ridge": 1.0, **more}
    small, _ = snp.compress(Pair(a, b), method, sparsity=0.5, groups={"all": ["a.weight", "b.weight"]}, **more)
    return torch.cat([small.a.weight, small.b.weight]).flatten().tolist()


def test_chita_by_hand():
    """a = (2, -2.1), b = (5, 5.5), g = (1, 1 | 1, 1): by magnitude 2 and 5 fall (2.1 and 5.5 are the last of theirs).

    Then the loss changes by 1 - 7 = -6, so survivors take back u = -6/3 = -2: -.1 and 7.5, at a cost of (12 + 29)/2.
    By themselves the others would be 4 and 7: -2.1 falls for 2. Now 1 - 2.9 = -1.9, u = -.63: 2.63 and 6.13, which cost
    (1.2 + 29.4)/2; the others would be -1.5 and 5.6, so nothing changes any more.
    """
    assert chita([2.0, -2.1], [5.0, 5.5], iterations=0) == pytest.approx([0, -0.1, 0, 7.5])
    for more in ({}, {"iterations": 1}, {"block": 1}):
        assert chita([2.0, -2.1], [5.0, 5.5], **more) == pytest.approx([2 + 1.9 / 3, 0, 0, 5.5 + 1.9 / 3])


def test_chita_without_a_step_prunes_by_magnitude():
    """1 and -2.9 fall, their sum is -1.9: (2d + 1.9 + 1)^2 + 2d^2 is least at d = -2.9/3."""
    assert chita([1.0, 2.0], [3.0, -2.9], iterations=0) == pytest.approx([0, 2 - 2.9 / 3, 3 - 2.9 / 3, 0])


def test_chita_weighs_the_linear_term_by_the_samples_of_a_batch():
    """With four samples that give the same gradient, (2d + 1.9 + 1/4)^2 + 2d^2 is least at d = -2.15/3."""
    for more in ({"calibration": [torch.full((4, 2), 0.25)]}, {"samples": 4}):
        assert chita([1.0, 2.0], [3.0, -2.9], iterations=0, **more) == pytest.approx([0, 2 - 2.15 / 3, 3 - 2.15 / 3, 0])


def test_chita_needs_a_batch_whose_samples_it_can_count():
    more = {"groups": TOY, "calibration": ["a"], "loss": lambda model, batch: model(BATCH)}
    with pytest.raises(InputError, match="no tensor to count its samples by"):
        snp.compress(Toy(), "chita", sparsity=0.5, **more)
    snp.compress(Toy(), "chita", sparsity=0.5, samples=2, **more)


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
    more = {"calibration": [BATCH], "loss": lambda model, batch: model(batch), "steps": 1, "rounds": 1}
    ticket, plan = snp.compress(
        Toy(), "lottery", sparsity=0.625, groups=TOY, optimizer=lambda ps: torch.optim.SGD(ps, lr=0.6), **more
    )
    assert plan.cost()["removed"] == 5
    found = [ticket.get_parameter(name).tolist() for name in (A, B, C)]
    assert found == [[[0, -2]], [[0, -4]], [[0, 0], [-7, 0]]]


# -- edges -------------------------------------------------------------------------------------------------------


def compress_net(method: str, net: Net | None = None, sparsity: float = 0.5, **more):
    more = {"groups": GROUPS, "calibration": batches(0), "loss": loss_of, "steps": 4, **more}
    return snp.compress(net or Net(0), method, sparsity=sparsity, **more)


@pytest.mark.slow
@pytest.mark.parametrize("method", FAMILY)
def test_weights_of_one_magnitude_are_pruned_to_the_target(method):
    net = Net(0)
    with torch.no_grad():
        for name in NAMES:
            net.get_parameter(name).fill_(0.1)
    _, plan = compress_net(method, net)
    assert plan.cost()["removed"] == int(0.5 * sum(net.get_parameter(n).numel() for n in NAMES))


KINDS = (torch.bfloat16, torch.float16, torch.float64)
MODES = [*((method, {}) for method in FAMILY), *((m, {"mode": "official"}) for m in FAMILY if methods()[m].modes())]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("method, mode", MODES)
def test_models_of_every_precision_lose_as_many_weights_and_keep_their_precision(method, mode, kind):
    """Exactly the budget; in official modes what rounding makes equal falls too."""
    net = Net(0).to(kind)
    data = [tuple(part.to(kind) for part in batch) for batch in batches(0)]
    loss = lambda model, batch: loss_of(model, batch).float()  # noqa: E731
    sgd = lambda parameters: torch.optim.SGD(parameters, lr=0.1)  # noqa: E731 - Adam's epsilon is nothing in float16
    small, plan = compress_net(method, net, calibration=data, loss=loss, optimizer=sgd, **mode)
    budget = int(0.5 * sum(net.get_parameter(n).numel() for n in NAMES))
    zeros = sum(int((small.get_parameter(n) == 0).sum()) for n in NAMES)
    assert {p.dtype for p in small.parameters()} == {kind} and zeros == plan.cost()["masked"]
    assert abs(zeros - budget) <= 9 if mode else zeros == budget


@pytest.mark.parametrize("scale", [1e-6, 60.0])
@pytest.mark.parametrize("method", ["omp", "localmp", "modalitymp", "l2", "lamp", "tamt"])
def test_weights_whose_squares_leave_half_precision_are_ranked_as_in_float32(method, scale):
    """The square of 1e-6 is nothing in float16, and 60^2 times the 63 weights of a matrix is more than it holds."""
    half, net = Net(0).half(), Net(0)
    with torch.no_grad():
        for name in NAMES:
            half.get_parameter(name).mul_(scale / half.get_parameter(name).abs().max())
    net.load_state_dict({name: value.float() for name, value in half.state_dict().items()})
    more = {"rounds": 0} if method == "tamt" else {}
    (_, found), (_, expected) = (compress_net(method, model, **more) for model in (half, net))
    assert found == expected


@pytest.mark.parametrize("method", FAMILY)
def test_a_modality_without_prunable_weight_takes_no_part(method):
    _, plan = compress_net(method, groups={"vision": GROUPS["vision"], "text": []})
    assert set(plan.masks) <= set(GROUPS["vision"]) and plan.masks


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("method", FAMILY)
def test_tied_maps_are_pruned_once_and_stay_tied(method):
    net = Net(0)
    net.twin = nn.Linear(9, 6)
    net.twin.weight = net.v2.weight
    small, plan = compress_net(method, net, groups=GROUPS | {"vision": [*GROUPS["vision"], "twin.weight"]})
    assert small.twin.weight is small.v2.weight and "twin.weight" not in plan.masks
    assert plan.cost()["removed"] == int(0.5 * sum(net.get_parameter(n).numel() for n in NAMES))


@pytest.mark.parametrize(
    "wrong, problem",
    [
        ({"sparsity": None}, "give exactly one"),
        ({"keep": 0.5}, "give exactly one"),
        ({"sparsity": 1.5}, "not a share of the weights"),
        ({"groups": {"a": ["nothing"]}}, "no such parameter"),
        ({"groups": {}}, "knows no weights"),
        ({"groups": {"a": ["f.weight"], "b": ["f.weight"]}}, "of group a too"),
        ({"method": "snp"}, "give towers"),
        ({"method": "multiflow", "calibration": []}, "no calibration batch"),
        ({"method": "snip", "loss": None}, "needs gradients"),
        ({"method": "snip", "calibration": []}, "holds no batch"),
        ({"method": "lottery", "steps": 0}, "while the model trains"),
    ],
)
def test_wrong_arguments_are_one_clear_line(wrong, problem):
    with pytest.raises(InputError, match=problem) as error:
        compress_net(**{"method": "omp", **wrong})
    assert "\n" not in str(error.value)


def test_lowest_breaks_ties_by_place_and_spares_the_largest_of_each():
    masks = lowest([torch.ones(3), torch.tensor([5.0, 1.0])], 3)
    assert [mask.int().tolist() for mask in masks] == [[1, 0, 0], [1, 0]]


def test_split_adds_up():
    assert split(10, [1, 1, 1]) == [4, 3, 3] and split(5, [10, 0, 30]) == [1, 0, 4] and split(0, []) == []
