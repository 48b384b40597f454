"""Each rival does what its source says: which weights go, in which order, and where its ceiling is."""

import pytest
import torch
from towers import PATHS, example, loss_of, two_towers, views

import snp
from baselines.ranking import norms, quantiles
from snp.compression.budget import Budget
from snp.compression.problem import Problem
from snp.compression.registry import get
from snp.compression.tower import COMPONENTS, ROLES
from snp.errors import InputError


def plan_of(model, name, keep=0.6, seed=0, **options):
    towers = views(model)
    problem = Problem(
        model, towers, Budget.from_model(model, towers, keep), 0, lambda b, o: loss_of(model, b, o), example, seed
    )
    return get(name, **options).start(problem).plan(), problem


def tower_weights(problem):
    return {
        b.ref(r).weight: problem.model.get_parameter(b.ref(r).weight)
        for t in problem.towers.values()
        for b in t.blocks
        for r in ROLES
    }


def test_dense_removes_nothing_whatever_the_budget(two_towers):
    assert plan_of(two_towers, "dense", 0.4)[0].cost()["removed"] == 0


def test_omp_masks_exactly_the_smallest_tower_weights(two_towers):
    plan, problem = plan_of(two_towers, "omp", 0.55)
    weights = tower_weights(problem)
    removed = torch.cat([weights[n][~m].abs() for n, m in plan.masks.items()])
    kept = torch.cat([w[plan.masks.get(n, torch.ones_like(w, dtype=torch.bool))].abs() for n, w in weights.items()])
    assert len(removed) == problem.budget.total - problem.budget.target
    assert removed.max() <= kept.min()
    assert all(mask.any() for mask in plan.masks.values())


def test_omp_leaves_biases_norms_and_the_head_alone(two_towers):
    plan, problem = plan_of(two_towers, "omp", 0.5)
    assert set(plan.masks) <= set(tower_weights(problem))


def test_omp_breaks_ties_of_constant_weights_without_missing_the_budget(two_towers):
    with torch.no_grad():
        for parameter in two_towers.parameters():
            parameter.fill_(0.1)
    plan, problem = plan_of(two_towers, "omp", 0.5)
    assert plan.cost()["removed"] == problem.budget.total - problem.budget.target


@pytest.mark.parametrize("name", ["magnitude-structured", "random-structured"])
def test_uniform_scope_keeps_the_same_share_in_every_layer_and_component(two_towers, name):
    plan, problem = plan_of(two_towers, name)
    shares = [float(plan.kept(t, layer, c).float().mean()) for t, layer in plan.layers for c in COMPONENTS]
    coarsest = 1 / min(problem.towers["text"].shape.units(c) for c in COMPONENTS)
    assert max(shares) - min(shares) <= coarsest + 1e-6


@pytest.mark.parametrize("scope", ["uniform", "global"])
def test_magnitude_structured_keeps_the_largest_units_of_a_layer(two_towers, scope):
    plan, problem = plan_of(two_towers, "magnitude-structured", scope=scope)
    for (tower, layer, c), norm in norms(problem).items():
        kept = plan.kept(tower, layer, c)
        assert kept.sum() > 0 and (kept.all() or norm[kept].min() >= norm[~kept].max())


def test_global_scope_prunes_a_weak_layer_more(two_towers):
    with torch.no_grad():
        for role in ("fc1", "fc2"):
            views(two_towers)["text"].blocks[0].weight(role).mul_(0.5)
    plan, _ = plan_of(two_towers, "magnitude-structured", 0.7, scope="global")
    assert plan.kept("text", 0, "ffn").sum() < plan.kept("text", 1, "ffn").sum() / 2


def test_norms_of_attention_units_cover_all_heads_rows_columns_and_biases(two_towers):
    _, problem = plan_of(two_towers, "dense")
    block = problem.towers["vision"].blocks[0]
    dims = torch.arange(block.n_heads) * block.d_qk + 3  # dimension 3 of every head
    square = (
        block.weight("v")[dims].square().sum()
        + block.bias("v")[dims].square().sum()
        + block.weight("o")[:, dims].square().sum()
    )
    torch.testing.assert_close(norms(problem)["vision", 0, "vo"][3], square.sqrt())


def test_quantiles_rank_inside_each_group():
    scores = {
        ("t", 0, "ffn"): torch.tensor([3.0, 1.0, 2.0, 9.0]),
        ("t", 0, "qk"): torch.tensor([100.0, 200.0]),
    }
    ranked = quantiles(scores)
    assert ranked["t", 0, "ffn"].tolist() == [0.625, 0.125, 0.375, 0.875]
    assert ranked["t", 0, "qk"].tolist() == [0.25, 0.75]


def test_cross_modal_ties_layers_in_order_and_the_last_only_as_far_as_needed(two_towers):
    plan, _ = plan_of(two_towers, "cross-modal", 0.75)
    assert not plan.note and not plan.keep
    tied = {share.receiver[1:]: float(share.units.float().mean()) for share in plan.shares}
    order = [(layer, c) for layer in range(2) for c in COMPONENTS]
    assert list(tied) == sorted(tied) or set(tied) == set(order[: len(tied)])
    assert sum(part < 1 for part in tied.values()) <= 1
    assert all(share.donor == ("vision", share.receiver[1]) for share in plan.shares)


@pytest.mark.parametrize("part, components", [("msa", {"qk", "vo"}), ("ffn", {"ffn"}), ("both", {"qk", "vo", "ffn"})])
def test_cross_modal_ties_only_the_part_and_range_that_were_chosen(two_towers, part, components):
    plan, _ = plan_of(two_towers, "cross-modal", 0.5, part=part, first=1)
    assert {share.receiver[1:] for share in plan.shares} == {(1, c) for c in components}


def test_cross_modal_says_when_all_is_tied_and_the_target_not_reached(two_towers):
    plan, problem = plan_of(two_towers, "cross-modal", 0.4)
    assert plan.note.startswith("whole layers 0-1 are tied") and "the target is not reached" in plan.note
    assert problem.budget.error(problem.budget.total - plan.cost()["removed"]) > 0.01
    assert plan.cost()["towers"]["text"]["own"] == 0


def test_cross_modal_needs_layers_that_exist(two_towers):
    with pytest.raises(InputError, match="no range"):
        plan_of(two_towers, "cross-modal", first=1, last=7)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize(
    "name, mode",
    [
        ("magnitude-structured", {}),
        ("random-structured", {}),
        ("cross-modal", {}),
        ("upop", {}),
        ("upop", {"mode": "official"}),
    ],
)
def test_models_of_every_precision_are_cut_to_the_budget_and_keep_their_precision(name, mode, kind):
    small, plan = snp.compress(
        two_towers().to(kind),
        name,
        towers=PATHS,
        keep=0.6,
        calibration=[(x.to(kind), ids) for x, ids in [example()]],
        loss=lambda model, batch: loss_of(model, batch).float(),
        steps=6,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.01),
        **mode,
    )
    whole = sum(p.numel() for p in two_towers().parameters())
    assert {p.dtype for p in small.parameters()} == {kind}
    assert sum(p.numel() for p in small.parameters()) == whole - plan.cost()["removed"]
    if not plan.note:
        assert plan.cost()["removed"] / whole == pytest.approx(0.4, abs=0.1 if mode else 0.01)


def test_norms_of_half_precision_are_those_of_float32():
    """A unit of 65 weights of 200 has a norm of 1,612 but a square of 2.6 million, which float16 cannot hold."""
    model = two_towers().half()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(200.0)
    _, problem = plan_of(model, "dense")
    assert norms(problem)["vision", 0, "ffn"].tolist() == pytest.approx([200 * 65**0.5] * 128)
