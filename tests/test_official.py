"""The official modes against the rules of the public code, told again in loops over lists: no entry may differ."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
import torch
from nets import GROUPS, NAMES, Batch, Net, Pair, Toy, batches, loss_of
from torch import Tensor, nn
from towers import PATHS, example, two_towers, views
from towers import loss_of as towers_loss

import snp
from snp.compression import checkpoint
from snp.compression.budget import Budget
from snp.compression.count import count
from snp.compression.plan import Plan
from snp.compression.problem import Problem
from snp.compression.registry import get, methods
from snp.errors import InputError

CASES = 1000
Lists = dict[str, list[list[float]]]
"""Name -> a matrix as a list of rows."""


class Small(nn.Module):
    """Maps of three modalities, 54 weights in all, from an image's tokens and words, both [B, L, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.v1, self.v2 = nn.Linear(3, 4, False), nn.Linear(4, 3, False)
        self.t1, self.t2 = nn.Linear(3, 4, False), nn.Linear(4, 3, False)
        self.f = nn.Linear(3, 2, False)

    def forward(self, batch: Batch) -> Tensor:
        return self.f(self.v2(self.v1(batch[0]).relu()) + self.t2(self.t1(batch[1]).tanh()))


def cases() -> Iterator[tuple[Problem, np.random.Generator]]:
    """Random models, sparsities and batches of odd sizes.

    In every second model most weights have an equal; in some a matrix is far smaller than the others, so that it loses
    everything early.
    """
    random, model = np.random.default_rng(0), Small()
    for case in range(CASES):
        for name in NAMES:
            weight = random.standard_normal(tuple(model.get_parameter(name).shape))
            weight *= 0.1 if random.random() < 0.2 else 1.0
            model.get_parameter(name).data = torch.from_numpy(weight.round(1) if case % 2 else weight).float()
        sizes = [(int(random.integers(1, 4)), int(random.integers(1, 5)), 3) for _ in range(2)]
        inputs = [tuple(torch.from_numpy(random.standard_normal((2, *of))).float()) for of in sizes]
        yield problem_of(model, float(random.uniform(0, 0.98)), inputs), random


def problem_of(model: nn.Module, sparsity: float, inputs: list[Batch]) -> Problem:
    def loss(batch: Batch, overrides: dict[str, Tensor] | None) -> Tensor:
        return torch.func.functional_call(model, overrides or {}, (batch,)).square().mean()

    budget = Budget.from_weights(model, GROUPS, sparsity, may_empty=True)
    return Problem(
        model,
        {},
        budget,
        0,
        loss,
        lambda: inputs[0],
        sparsity=sparsity,
        groups=GROUPS,
        calibration=inputs,
        forward=lambda model, batch: model(batch),
    )


def kept(scores: Lists, sets: list[list[str]], counts: list[int]) -> Lists:
    """1 for what is larger than the nth smallest of its set, 0 for all else; where n is zero, 1 for all."""
    masks = {}
    for names, nth in zip(sets, counts, strict=True):
        ascending = sorted(value for name in names for row in scores[name] for value in row)
        for name in names:
            masks[name] = [[int(nth < 1 or value > ascending[nth - 1]) for value in row] for row in scores[name]]
    return masks


def size(scores: Lists, names: list[str]) -> int:
    return sum(len(row) for name in names for row in scores[name])


def same(plan: Plan, expected: Lists, case: int) -> bool:
    """Whether a matrix was emptied, once masks and note have been found to be as expected."""
    for name in NAMES:
        mask = plan.masks[name].int().tolist() if name in plan.masks else None
        assert all(map(all, expected[name])) if mask is None else mask == expected[name], (case, name)
    empty = [name for name in NAMES if not any(map(any, expected[name]))]
    more = f" and {len(empty) - 3} more" if len(empty) > 3 else ""
    assert plan.note == (f"as in the public code, nothing is left of {', '.join(empty[:3])}{more}" if empty else "")
    return bool(empty)


def saliency(problem: Problem, values: dict[str, Tensor]) -> Lists | None:
    """|g / n * w| with g the sum of the gradients of n batches, over the sum of all of them; every step in float32.

    None where that sum is zero, as in a model that has lost a whole layer.
    """
    total: dict[str, Tensor] = {}
    for batch in problem.calibration:
        leaves = {name: value.clone().requires_grad_() for name, value in values.items()}
        found = torch.autograd.grad(problem.loss(batch, leaves), list(leaves.values()))
        total = {name: total.get(name, 0) + gradient for name, gradient in zip(leaves, found, strict=True)}
    scores = {name: (total[name] / len(problem.calibration) * values[name]).abs() for name in values}
    norm = torch.tensor([value for score in scores.values() for value in score.flatten().tolist()]).sum()
    return {name: (score / norm).tolist() for name, score in scores.items()} if norm > 0 else None


def weights(problem: Problem) -> dict[str, Tensor]:
    return {name: problem.model.get_parameter(name).detach() for name in NAMES}


# -- magnitude and saliency --------------------------------------------------------------------------------------

SETS = {"omp": [NAMES], "modalitymp": list(GROUPS.values()), "localmp": [[name] for name in NAMES]}


@pytest.mark.slow
@pytest.mark.parametrize("method", SETS)
def test_magnitudes_fall_up_to_int_of_the_share_of_every_set_and_ties_with_them(method):
    emptied = 0
    for case, (problem, _) in enumerate(cases()):
        scores = {name: weight.abs().tolist() for name, weight in weights(problem).items()}
        counts = [int(problem.sparsity * size(scores, names)) for names in SETS[method]]
        plan = get(method, mode="official").start(problem).plan()
        emptied += same(plan, kept(scores, SETS[method], counts), case)
    assert emptied > 10


def assert_no_gradient(method: str, problem: Problem, **options) -> None:
    with pytest.raises(InputError, match="every gradient is zero"):
        get(method, mode="official", **options).start(problem)


@pytest.mark.slow
def test_saliencies_fall_up_to_int_of_the_share_and_ties_with_them():
    emptied = 0
    for case, (problem, _) in enumerate(cases()):
        scores = saliency(problem, weights(problem))
        if scores is None:
            assert_no_gradient("snip", problem)
            continue
        plan = get("snip", mode="official").start(problem).plan()
        emptied += same(plan, kept(scores, [NAMES], [int(problem.sparsity * size(scores, NAMES))]), case)
    assert emptied > 100


@pytest.mark.slow
def test_saliencies_in_steps_fall_by_int_of_an_exponential_schedule_and_early_ones_change_later_ones():
    emptied = lost = 0
    for case, (problem, random) in enumerate(cases()):
        rounds, sparse, masks = int(random.integers(1, 5)), weights(problem), {}
        for t in range(1, rounds + 1):
            share = 1 - (1 - problem.sparsity) ** (t / rounds)
            scores = saliency(problem, sparse)
            if scores is None:
                break
            masks = kept(scores, [NAMES], [int(share * size(scores, NAMES))])
            sparse = {name: weight * torch.tensor(masks[name]) for name, weight in sparse.items()}
        if scores is None:
            assert_no_gradient("itersnip", problem, rounds=rounds)
            lost += 1
            continue
        plan = get("itersnip", mode="official", rounds=rounds).start(problem).plan()
        emptied += same(plan, masks, case)
    assert emptied > 100 and lost < 100


# -- multiflow ---------------------------------------------------------------------------------------------------


def inputs_of(model: Small, batch: Batch) -> dict[str, Tensor]:
    """What every map sees in one pass."""
    with torch.no_grad():
        image, words = batch
        v, t = model.v1(image).relu(), model.t1(words).tanh()
        return dict(zip(NAMES, (image, v, words, t, model.v2(v) + model.t2(t)), strict=True))


def multiflow(problem: Problem, inputs: dict[str, list[tuple[int, Tensor]]]) -> Lists:
    """inputs: name -> for every batch its samples and all tokens [T, in] that count.

    Magnitudes of a modality say how many weights each of its matrices loses, the flow through them which.
    """
    dense, masks = weights(problem), {}
    for names in GROUPS.values():
        magnitudes = {name: dense[name].abs().tolist() for name in names}
        by_size = kept(magnitudes, [names], [int(problem.sparsity * size(magnitudes, names))])
        for name in names:
            energy, seen = torch.zeros(dense[name].shape[1]), 0
            for samples, tokens in inputs[name]:
                energy = energy * (seen / (seen + samples)) + torch.norm(tokens, p=2, dim=0) ** 2 / (seen + samples)
                seen += samples
            carried = dense[name].abs() * energy.sqrt()
            scores = torch.outer(carried.mean(dim=1), carried.mean(dim=0)) * dense[name].abs()
            sparsity = 1 - sum(map(sum, by_size[name])) / scores.numel()
            masks |= kept({name: scores.tolist()}, [[name]], [int(sparsity * scores.numel())])
    return masks


@pytest.mark.slow
def test_multiflow_prunes_a_matrix_whole_where_all_its_weights_are_small_and_says_so():
    emptied = 0
    for case, (problem, _) in enumerate(cases()):
        passes = [inputs_of(problem.model, batch) for batch in problem.calibration]
        inputs = {name: [(len(seen[name]), seen[name].flatten(0, 1)) for seen in passes] for name in NAMES}
        plan = get("multiflow", mode="official").start(problem).plan()
        emptied += same(plan, multiflow(problem, inputs), case)
    assert emptied > 100


@pytest.mark.slow
def test_multiflow_takes_the_norm_of_all_passes_of_a_batch_at_once_each_with_its_own_padding():
    """A batch is a pair of captions and regions, each of which passes the model, with words padded in its own way."""
    for case, (problem, random) in enumerate(cases()):
        pair = list(problem.calibration)
        real = [torch.from_numpy(random.random(batch[1].shape[:2]) < 0.7) for batch in pair]
        problem.calibration = [(0, 1), (1, 0)]
        problem.forward = lambda model, both, pair=pair: [model(pair[i]) for i in both]
        problem.token_masks = {"text": lambda both, real=real: [real[i] for i in both]}
        passes = [inputs_of(problem.model, batch) for batch in pair]
        for seen, text in zip(passes, real, strict=True):
            for name, x in seen.items():
                seen[name] = x[text] if name in GROUPS["text"] else x.flatten(0, 1)
        samples = sum(len(batch[1]) for batch in pair)
        inputs = {
            name: [(samples, torch.cat([passes[i][name] for i in both])) for both in problem.calibration]
            for name in NAMES
        }
        same(get("multiflow", mode="official").start(problem).plan(), multiflow(problem, inputs), case)


# -- chita -------------------------------------------------------------------------------------------------------


def chita(
    w0: np.ndarray, rows: np.ndarray, blocks: list[tuple[int, int]], kept: int, samples: int, ridge: float
) -> np.ndarray:
    """A step over all weights says which stay; then every block by itself makes a step and sets what stays anew."""
    w = step(w0, w0, rows, kept, samples, ridge)
    threshold = sorted(abs(w))[len(w) - kept - 1] if kept < len(w) else -1.0
    result = np.zeros(len(w))
    for start, stop in blocks:
        inside = sum(abs(w[start:stop]) > threshold)
        if not inside:
            continue
        own, dense, a = w[start:stop], w0[start:stop], rows[:, start:stop]
        own = step(own, dense, a, inside, samples, ridge)
        alive = np.argsort(-abs(own), kind="stable")[:inside]
        fallen = np.setdiff1d(np.arange(len(own)), alive)
        hessian = a.T @ a + ridge * np.eye(len(own))
        pull = a.sum(0)[alive] / samples - hessian[np.ix_(alive, fallen)] @ dense[fallen]
        result[start + alive] = dense[alive] - np.linalg.solve(hessian[np.ix_(alive, alive)], pull)
    return result


def step(w: np.ndarray, w0: np.ndarray, a: np.ndarray, kept: int, samples: int, ridge: float) -> np.ndarray:
    """Down the gradient by the length that is best for the `kept` largest weights, which are all that stays."""

    def objective(w: np.ndarray) -> float:
        return sum((a @ (w - w0) + 1 / samples) ** 2) / 2 + ridge * sum((w - w0) ** 2) / 2

    def largest(w: np.ndarray) -> np.ndarray:
        chosen = np.zeros(len(w))
        chosen[np.argsort(-abs(w), kind="stable")[:kept]] = 1
        return chosen

    gradient = a.T @ (a @ (w - w0) + 1 / samples) + ridge * (w - w0)
    inside, along = largest(w) == 1, gradient * largest(w)
    curve = sum((a @ along) ** 2) + ridge * sum(along**2)
    length = along @ gradient / curve if curve else 0.0

    def stays(length: float) -> bool:
        new = abs(w - length * gradient)
        return all(inside) or max(new[inside]) >= max(new[~inside]) - 1e-10

    if stays(length):
        return (w - length * gradient) * inside
    length /= 2
    while not stays(length):
        length /= 2
    best = w * inside
    for _ in range(10):
        new = (w - length * gradient) * largest(w - length * gradient)
        if objective(new) >= objective(best):
            break
        best, length = new, 2 * length
    return best


@pytest.mark.slow
@pytest.mark.parametrize("ridge, stretch", [(0.1, 1.0), (0.001, 1.0), (0.001, 30.0)])
def test_chita_solves_every_block_by_itself(ridge, stretch):
    """`stretch` makes gradients large, so that steps go so far that their length has to be searched for."""
    for seed in range(30):
        net, data, sparsity = Net(seed), batches(seed), 0.3 + 0.02 * seed
        dense = [net.get_parameter(name).detach().double().numpy() for name in NAMES]
        rows = []
        for batch in data:
            loss = stretch * loss_of(net, batch)
            found = torch.autograd.grad(loss, [net.get_parameter(name) for name in NAMES])
            rows.append(np.concatenate([g.double().numpy().ravel() for g in found]))
        ends = np.cumsum([0, *(w.size for w in dense)])
        blocks = []  # of 20 weights at least: 63 are 21 + 21 + 21, 54 are 27 + 27, ..
        for start, stop in pairwise(ends):
            count = max(1, (stop - start) // 20)
            cuts = [start + i * ((stop - start) // count) for i in range(count)] + [stop]
            blocks += pairwise(cuts)
        flat = np.concatenate([w.ravel() for w in dense])
        expected = chita(flat, np.stack(rows), blocks, int((1 - sparsity) * len(flat)), 4, ridge * len(rows))
        small, plan = snp.compress(
            net,
            "chita",
            sparsity=sparsity,
            groups=GROUPS,
            calibration=data,
            mode="official",
            block=20,
            ridge=ridge,
            loss=lambda model, batch: stretch * loss_of(model, batch),
        )
        weights = np.concatenate([small.get_parameter(name).detach().numpy().ravel() for name in NAMES])
        assert np.array_equal(weights != 0, expected != 0), seed
        np.testing.assert_allclose(weights, expected, atol=1e-4 * abs(expected).max())
        assert plan.cost()["removed"] == int((expected == 0).sum())


def test_official_chita_by_hand():
    """a = (1, 2), b = (3, -2.9), g = (1, 1 | 1, 1), lambda = 1, one sample: two of four stay, 3 and -2.9, so none of a.

    Down the gradient (1 | 1): (1 - 2t)^2/2 + 2t^2/2 is least at t = 1/3, and so it is for b by itself.
    """
    small, plan = snp.compress(
        Pair([1.0, 2.0], [3.0, -2.9]),
        "chita",
        sparsity=0.5,
        groups={"all": ["a.weight", "b.weight"]},
        ridge=1.0,
        calibration=[torch.ones(1, 2)],
        loss=lambda model, x: model(x),
        mode="official",
    )
    assert small.a.weight.tolist() == [[0, 0]]
    assert small.b.weight[0].tolist() == pytest.approx([3 - 1 / 3, -2.9 - 1 / 3])
    assert plan.note == "as in the public code, nothing is left of a.weight"


# -- plans that empty a matrix -----------------------------------------------------------------------------------


def emptied() -> tuple[nn.Module, Plan]:
    """A Toy that official magnitude pruning robs of its first matrix."""
    groups = {"vision": ["vision.a.weight", "vision.b.weight"], "text": ["text.c.weight"]}
    return snp.compress(Toy(), "omp", sparsity=0.45, groups=groups, mode="official")


def test_a_matrix_without_any_weight_is_saved_counted_and_stays_empty(tmp_path):
    """|w| = 1 2 | 3 4 | 0.5 6 7 8: int(3.6) fall, 0.5, 1 and 2."""
    small, plan = emptied()
    assert [name for name, mask in plan.masks.items() if not mask.any()] == ["vision.a.weight"]
    assert plan.cost()["masked"] == plan.cost()["removed"] == 3 and plan.note.endswith("vision.a.weight")
    assert Plan.from_json(plan.to_json()) == plan and plan.note in plan.report()
    checkpoint.save(tmp_path / "model", small, plan)
    loaded, same = checkpoint.load(tmp_path / "model", Toy)
    assert same == plan
    batch = (torch.tensor([[1.0, 10.0]]), torch.tensor([[1.0, 1.0]]))
    assert torch.equal(loaded(batch), small(batch))
    optimizer = torch.optim.AdamW(loaded.parameters(), lr=0.1)
    loaded(batch).backward()
    optimizer.step()
    assert loaded.get_parameter("vision.a.weight").count_nonzero() == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, cls in methods().items() if cls.modes()])
def test_what_an_official_mode_makes_of_two_towers_is_what_its_plan_says_also_when_trained_and_saved(name, tmp_path):
    dense = two_towers()
    small, plan = snp.compress(
        dense,
        name,
        towers=PATHS,
        keep=0.45,
        mode="official",
        calibration=[example(seed=i) for i in range(3)],
        forward=lambda model, batch: model(*batch),
        loss=towers_loss,
        steps=10,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.01),
    )
    before = count(small, views(small))
    whole = sum(p.numel() for p in dense.parameters())
    assert (before.nonzero if plan.masks else before.stored) == whole - plan.cost()["removed"]
    optimizer = torch.optim.AdamW(small.parameters(), lr=1e-2, weight_decay=0.1)
    towers_loss(small, example()).backward()
    optimizer.step()
    checkpoint.save(tmp_path / "model", small, plan, paths=PATHS)
    loaded, same = checkpoint.load(tmp_path / "model", two_towers)
    assert same == plan and torch.equal(loaded(*example()), small(*example()))
    assert count(loaded, views(loaded)).nonzero <= before.nonzero


def test_a_plan_may_empty_a_matrix_only_where_it_says_so():
    _, plan = emptied()
    with pytest.raises(InputError, match=r"mask vision\.a\.weight: leaves no weight"):
        Plan(plan.towers, masks=plan.masks)
    whole = Plan(plan.towers, masks={"vision.b.weight": torch.tensor([[True, False]])})
    assert whole == Plan(plan.towers, masks=whole.masks, may_empty=True)  # which says nothing where none is emptied


def test_a_sparsity_of_one_is_refused_but_in_official_modes():
    for method in ("omp", "snip", "localmp", "multiflow", "chita"):
        data = {"calibration": batches(0), "loss": loss_of}
        _, plan = snp.compress(Net(0), method, sparsity=1.0, groups=GROUPS, mode="official", **data)
        assert all(not mask.any() for mask in plan.masks.values()) and len(plan.masks) == len(NAMES)
        with pytest.raises(InputError, match="leaves a weight matrix empty"):
            snp.compress(Net(0), method, sparsity=1.0, groups=GROUPS, **data)


def test_by_shares_of_all_parameters_official_modes_round_down_too():
    """keep = 0.6 of 262 parameters asks for 105 fewer; a share of 105/229 of every set, rounded down."""
    net = Net(0)
    total, budget = sum(p.numel() for p in net.parameters()), 105
    data = {"calibration": batches(0), "loss": loss_of, "groups": GROUPS, "mode": "official"}
    for method, sets in {"omp": 1, "modalitymp": 3, "localmp": 5, "snip": 1, "multiflow": 3}.items():
        _, plan = snp.compress(net, method, keep=1 - budget / total, **data)
        assert budget - 2 * sets <= plan.cost()["removed"] <= budget, method
