"""SNP learns a structure in a few dozen hypernetwork steps, keeps the budget, and goes on bit-equal when killed."""

import copy
import io
from itertools import pairwise

import pytest
import torch
from towers import example, loss_of, two_towers, views

from snp.compression.budget import Budget
from snp.compression.method import weight_step
from snp.compression.problem import Problem
from snp.compression.registry import get
from snp.compression.surgery import substitute
from snp.compression.tower import COMPONENTS
from snp.errors import InputError

LATE = {"freeze": 0.4, "apply_at": 0.5}
"""So that the hypernetwork takes several steps of a short phase."""


def problem_of(model=None, keep=0.6, steps=60, seed=0):
    model = two_towers() if model is None else model
    towers = views(model)
    counter = iter(range(100_000))
    return Problem(
        model,
        towers,
        Budget.from_model(model, towers, keep),
        steps,
        lambda b, o: loss_of(model, b, o),
        lambda: example(batch=8, seed=next(counter)),
        seed,
    )


def run(problem, session, first=0, last=None, lr=1e-3):
    """Real weight steps; yields nothing, changes model and session."""
    optimizer = torch.optim.SGD(problem.model.parameters(), lr=lr)  # stateless, so that it can be cut anywhere
    for step in range(first, session.apply_at if last is None else last):
        with weight_step(session, step) as now:
            loss, penalty = loss_of(problem.model, example(seed=step)), now.penalty()
            optimizer.zero_grad()
            (loss if penalty is None else loss + penalty).backward()
            optimizer.step()
    return session


def test_training_starts_from_the_full_unshared_model():
    log = get("snp").start(problem_of()).log()
    assert log["pruned"] == log["cross"] == log["blockwise"] == 0
    assert log["budget_ratio"] > 1


@pytest.mark.slow
@pytest.mark.parametrize("keep", [0.6, 0.4])
@pytest.mark.parametrize("hypernetwork", [True, False])
def test_the_budget_regulariser_alone_reaches_its_target_within_sixty_hypernetwork_steps(hypernetwork, keep):
    problem = problem_of(keep=keep, steps=240)
    session = get("snp", every=2, freeze=0.5, track=False, hypernetwork=hypernetwork).start(problem)
    for step in range(session.freeze_at - 1):  # one before the projection
        session.after_step(step)
    assert not session.frozen
    assert session.log()["budget_ratio"] < 1.05


def learned_plan(model, steps=56, **options):
    """The plan after `steps` hypernetwork steps whose only task is to keep the outputs of `model`; no prior."""
    teacher, problem = copy.deepcopy(model), problem_of(model, keep=0.75, steps=steps)

    def imitation(batch, overrides):
        with torch.no_grad():
            wanted = teacher(*batch)
        return (torch.func.functional_call(model, overrides or {}, batch) - wanted).square().mean() / wanted.var()

    problem.loss = imitation
    session = get("snp", every=1, freeze=1, prior=0, pull=0, **options).start(problem)
    for step in range(steps):
        session.after_step(step)
    return session.plan()


def lively_towers():
    """Two towers in which every layer matters to the output: norms of ordinary size."""
    model = two_towers()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("weight") and ("norm" in name or "ln_" in name):
                parameter.fill_(1)
    return model


@pytest.mark.slow
def test_units_that_no_tower_needs_are_pruned_first():
    model = lively_towers()
    useless = torch.arange(128) % 2 == 0
    with torch.no_grad():
        for tower in views(model).values():
            for block in tower.blocks:
                block.weight("fc2")[:, useless] = 0
    plan = learned_plan(model)
    pruned = torch.stack([~plan.kept("vision", layer, "ffn") for layer in range(2)])
    assert pruned[:, useless].float().mean() > 0.4
    assert pruned[:, ~useless].float().mean() < 0.15


@pytest.mark.slow
def test_text_units_that_equal_their_donors_are_shared_rather_than_pruned():
    model = lively_towers()
    towers = views(model)
    with torch.no_grad():
        for vision, text in zip(towers["vision"].blocks, towers["text"].blocks, strict=True):
            for role in ("fc1", "fc2"):
                text.weight(role).copy_(vision.weight(role))
            text.bias("fc1").copy_(vision.bias("fc1"))
    plan = learned_plan(model)
    shared = dict.fromkeys(COMPONENTS, 0)
    for share in plan.shares:
        shared[share.receiver[2]] += int(share.units.sum())
    assert shared["ffn"] > 100 > 10 * (shared["qk"] + shared["vo"])


@pytest.mark.slow
@pytest.mark.parametrize("on", [("prune",), ("cross",), ("blockwise",), ("cross", "blockwise")])
def test_each_operation_can_be_switched_off(on):
    switches = {kind: kind in on for kind in ("prune", "cross", "blockwise")}
    plan = run(p := problem_of(keep=0.8), get("snp", every=2, **LATE, **switches).start(p)).plan()
    assert bool(plan.keep) == ("prune" in on)
    assert any(s.donor[0] == "vision" for s in plan.shares) == ("cross" in on)
    assert any(s.donor[0] == "text" for s in plan.shares) == ("blockwise" in on)


def test_sharing_alone_notes_its_ceiling_and_pruning_alone_refuses_the_impossible():
    assert "ceiling" in get("snp", prune=False).start(problem_of(keep=0.3)).plan().note
    with pytest.raises(InputError, match="switched off"):
        get("snp", prune=False, cross=False, blockwise=False).start(problem_of())


def test_the_hypernetwork_step_changes_neither_weights_nor_gradients_nor_modes():
    problem = problem_of()
    problem.model.text.eval()
    before = copy.deepcopy(problem.model.state_dict())
    session = get("snp", every=1, **LATE).start(problem)
    session.after_step(0)
    assert all(torch.equal(v, before[k]) for k, v in problem.model.state_dict().items())
    assert all(p.grad is None for p in problem.model.parameters())
    assert problem.model.vision.training and not problem.model.text.training


@pytest.mark.slow
def test_the_structure_is_frozen_and_stays_until_the_plan_is_applied():
    problem = problem_of(steps=100)
    session = get("snp", every=5, freeze=0.4, apply_at=0.7).start(problem)
    plans = []
    for step in range(session.apply_at):
        session.after_step(step)
        plans.append(session.plan() if step >= 39 else None)
    assert session.apply_at == 70
    assert len(set(plans[39:])) == 1


@pytest.mark.slow
def test_under_track_the_size_follows_a_target_that_falls_to_the_budget():
    session = get("snp", every=2, freeze=0.5, ramp=0.5).start(problem_of(keep=0.5, steps=80))
    ratios = []
    for step in range(session.freeze_at - 1):
        session.after_step(step)
        ratios.append(session.log()["budget_ratio"])
    assert ratios[0] > 1.5
    assert all(later <= earlier + 0.02 for earlier, later in pairwise(ratios))
    assert ratios[-1] == pytest.approx(1, abs=0.02)


def distance_to_plan(problem, session) -> float:
    """How far the weights are from what the plan will make of them, relative to their norm."""
    with torch.no_grad():
        hard = substitute(problem.model, problem.towers, session.plan())
        live = {name: problem.model.get_parameter(name) for name in hard}
        gap = sum((hard[name] - live[name]).square().sum() for name in hard)
        return float((gap / sum(weight.square().sum() for weight in live.values())).sqrt())


@pytest.mark.slow
def test_decoupled_alignment_closes_the_projection_gap_before_the_plan_is_applied():
    problem = problem_of()
    session = run(problem, get("snp", every=3, **LATE).start(problem))
    assert distance_to_plan(problem, session) < 1e-6


@pytest.mark.slow
def test_alignment_in_the_loss_grows_after_the_freeze_and_narrows_the_gap():
    def end(gamma):
        problem = problem_of(steps=120)
        options = {"align": "loss", "gamma": gamma, "gamma_end": 100 * gamma, "freeze": 0.5, "apply_at": 0.9}
        session = run(problem, get("snp", every=4, **options).start(problem), lr=1e-2)
        assert session.gamma() == pytest.approx(100 * gamma)
        return distance_to_plan(problem, session)

    assert end(0.05) < 0.9 * end(0.0)


@pytest.mark.slow
@pytest.mark.parametrize("cut", [7, 25, 28])
@pytest.mark.parametrize("hypernetwork", [True, False])
def test_a_killed_run_goes_on_bit_equal(cut, hypernetwork):
    def fresh():
        problem = problem_of()
        return problem, get("snp", every=3, hypernetwork=hypernetwork, **LATE).start(problem)

    whole, session = fresh()
    run(whole, session)

    first, early = fresh()
    run(first, early, last=cut)
    file = io.BytesIO()
    torch.save({"model": first.model.state_dict(), "session": early.state_dict()}, file)
    file.seek(0)
    state = torch.load(file, weights_only=True)

    second, late = fresh()
    second.model.load_state_dict(state["model"])
    late.load_state_dict(state["session"])
    for _ in range(min(cut, late.freeze_at) // 3):  # the held-out stream is the loop's to restore
        second.heldout()
    run(second, late, first=cut)
    assert late.plan() == session.plan()
    assert late.log() == session.log()
    assert all(torch.equal(v, whole.model.state_dict()[k]) for k, v in second.model.state_dict().items())


def test_units_that_are_zero_in_both_towers_are_pruned_first():
    """Their logarithm is infinite: it must not make the ranking of all others NaN."""
    model = two_towers()
    for tower in views(model).values():
        for block in tower.blocks:
            for role, rows in (("fc1", slice(0, 40)), ("q", slice(None)), ("k", slice(None))):
                block.weight(role).data[rows] = 0
                block.bias(role).data[rows] = 0
            block.weight("fc2").data[:, :40] = 0
    session = get("snp").start(problem_of(model))
    assert all(v.isfinite().all() for vectors in session.prior.values() for v in vectors.values())
    plan = session.plan()
    for tower, layer in plan.layers:
        assert not plan.kept(tower, layer, "ffn")[:40].any() and plan.kept(tower, layer, "ffn")[40:].any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_the_prior_and_the_alignment_of_another_type_are_those_of_its_values(dtype):
    """Squares of weights such as 1e-4 are no number of float16."""
    half = two_towers()
    for parameter in half.parameters():
        parameter.data.mul_(1e-3 if dtype == torch.float16 else 1)
    half = half.to(dtype)
    full = copy.deepcopy(half).float()
    one, other = (get("snp", score="magnitude").start(problem_of(model)) for model in (half, full))
    for c in COMPONENTS:
        for kind, values in one.prior[c].items():
            torch.testing.assert_close(values.float(), other.prior[c][kind], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(one.alignment().float(), other.alignment(), atol=1e-3, rtol=1e-3)
    assert one.plan() == other.plan()


def test_a_gradient_of_the_hypernetwork_that_is_not_finite_names_the_step():
    model = two_towers()
    problem = problem_of(model)
    problem.loss = lambda batch, overrides: loss_of(model, batch, overrides) * float("inf")
    session = get("snp", every=2, score="magnitude").start(problem)
    session.after_step(0)
    with pytest.raises(InputError, match="snp: its gradient at step 2 is not finite; the held-out loss is inf"):
        session.after_step(1)
