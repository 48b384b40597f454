"""What every registered method must hold to, whatever it does: budget, ties, seeds, types, copies, clear errors."""

import copy
import functools
import pickle
import re

import pytest
import torch
from towers import PATHS, example, loss_of, two_towers, views

from snp.compression import checkpoint
from snp.compression.budget import Budget
from snp.compression.count import count
from snp.compression.method import finalize, weight_step
from snp.compression.plan import Plan
from snp.compression.problem import Problem
from snp.compression.recover import Recover
from snp.compression.recovery import Recovery
from snp.compression.registry import get, methods
from snp.compression.surgery import apply, substitute, verify
from snp.compression.tower import COMPONENTS
from snp.errors import InputError

HALF = {torch.bfloat16: 0.1, torch.float16: 0.02}
"""Types of half precision, and how far two ways to compute the same are apart in them."""
METHODS = sorted(methods())
STEPS = 30


def batch_of(model: torch.nn.Module, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch in the type of the model."""
    images, words = example(seed=seed)
    return images.to(next(model.parameters()).dtype), words


def problem_of(keep: float, seed: int = 0, dtype: torch.dtype = torch.float32) -> Problem:
    model = two_towers().to(dtype)
    towers = views(model)
    batches = iter(range(10_000))
    return Problem(
        model=model,
        towers=towers,
        budget=Budget.from_model(model, towers, keep),
        steps=STEPS,
        seed=seed,
        loss=lambda batch, overrides: loss_of(model, batch, overrides),
        heldout=lambda: batch_of(model, next(batches)),
    )


def decide(name: str, keep: float = 0.6, seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[Problem, Plan]:
    """The plan of a method after its whole compression phase, with real weight steps."""
    problem = problem_of(keep, seed, dtype)
    session = get(name).start(problem)
    optimizer = optimizer_of(problem.model, lr=1e-3)
    for step in range(session.apply_at):
        with weight_step(session, step) as now:
            loss = loss_of(problem.model, batch_of(problem.model, 1000 + step), now.overrides)
            penalty = now.penalty()
            optimizer.zero_grad()
            (loss if penalty is None else loss + penalty).backward()
            optimizer.step()
        if now.again:
            optimizer = optimizer_of(problem.model, lr=1e-3)
    return problem, finalize(session, problem.model)


decided = functools.cache(decide)
"""The same for tests that change neither problem nor plan."""


def optimizer_of(model: torch.nn.Module, lr: float) -> torch.optim.Optimizer:
    eps = 1e-4 if next(model.parameters()).dtype == torch.float16 else 1e-8  # its own would be zero there
    return torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.1, eps=eps)


def trained(model: torch.nn.Module, steps: int = 3) -> torch.nn.Module:
    optimizer = optimizer_of(model, lr=1e-2)
    for step in range(steps):
        optimizer.zero_grad()
        loss_of(model, batch_of(model, step)).backward()
        optimizer.step()
    return model


def assert_within_budget(problem: Problem, plan: Plan, name: str) -> None:
    compressed = apply(problem.model, plan, PATHS)
    counts = count(compressed, views(compressed))
    remaining = counts.nonzero if methods()[name].kind == "unstructured" else counts.stored
    if name == "dense":
        assert remaining == problem.budget.total
    elif plan.note:  # out of this method's reach: it must have done all it can
        assert remaining > problem.budget.target
        assert plan.cost()["towers"]["text"]["own"] == 0
    else:
        assert abs(problem.budget.error(remaining)) < 0.01
        assert remaining <= problem.budget.target


@pytest.mark.slow
@pytest.mark.parametrize("keep", [0.7, 0.45])
@pytest.mark.parametrize("name", METHODS)
def test_the_compressed_model_meets_the_budget_within_one_percent(name, keep):
    problem, plan = decide(name, keep)
    assert_within_budget(problem, plan, name)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [*HALF, torch.float64])
@pytest.mark.parametrize("name", METHODS)
def test_models_of_every_floating_type_are_compressed_or_refused_in_one_line(name, dtype):
    """Float16 may be too small for a method's gradients, never for its arithmetic; the others are never too small."""
    try:
        problem, plan = decide(name, dtype=dtype)
    except InputError as error:
        assert dtype == torch.float16 and "finite" in str(error) and "\n" not in str(error)
        return
    assert_within_budget(problem, plan, name)
    compressed = apply(problem.model, plan, PATHS)
    assert {parameter.dtype for parameter in compressed.parameters()} == {dtype}
    batch, weights = batch_of(compressed, 77), substitute(problem.model, problem.towers, plan)
    expected = torch.func.functional_call(problem.model, weights, batch)
    close = HALF.get(dtype, 1e-9)
    torch.testing.assert_close(compressed(*batch), expected, atol=close, rtol=close)
    before = count(compressed, views(compressed))
    after = count(trained(compressed), views(compressed))
    assert after.stored == before.stored and after.nonzero <= before.nonzero


def by_state(model, fresh, **how):
    fresh.load_state_dict(copy.deepcopy(model.state_dict()), **how)
    return fresh


@pytest.mark.slow
@pytest.mark.parametrize(
    "way",
    [
        lambda model, fresh: copy.deepcopy(model),
        lambda model, fresh: pickle.loads(pickle.dumps(model)),
        lambda model, fresh: by_state(model, fresh),
        lambda model, fresh: by_state(model, fresh, assign=True),
    ],
    ids=["deepcopy", "pickle", "state_dict", "state_dict, assigned"],
)
@pytest.mark.parametrize("name", METHODS)
def test_a_copy_computes_and_is_trained_as_the_model_that_it_is_of(name, way):
    problem, plan = decided(name)
    model = apply(problem.model, plan, PATHS)
    copied = way(model, apply(two_towers(seed=9), plan, PATHS))
    batch = example(seed=79)
    for _ in range(2):
        assert torch.equal(copied(*batch), model(*batch))
        assert count(copied, views(copied)) == count(model, views(model))
        trained(model), trained(copied)


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_no_unit_is_both_shared_and_pruned_and_every_component_survives(name):
    _, plan = decided(name)
    shared = {}
    for share in plan.shares:
        assert not (share.units & ~plan.survives(*share.receiver)).any()
        assert not (share.units & ~plan.survives(*share.donor, share.receiver[2])).any()
        assert not (share.units & shared.get(share.receiver, torch.zeros_like(share.units))).any()
        shared[share.receiver] = share.units | shared.get(share.receiver, torch.zeros_like(share.units))
    for tower, layer in plan.layers:
        assert all(plan.kept(tower, layer, component).any() for component in COMPONENTS)


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_the_compressed_model_computes_what_the_plan_says(name):
    problem, plan = decided(name)
    batch = example(seed=77)
    compressed = apply(problem.model, plan, PATHS)
    expected = torch.func.functional_call(problem.model, substitute(problem.model, problem.towers, plan), batch)
    torch.testing.assert_close(compressed(*batch), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_ties_and_zeros_are_intact_after_training_steps_and_after_save_and_load(name, tmp_path):
    problem, plan = decided(name)
    compressed = apply(problem.model, plan, PATHS)
    before = count(compressed, views(compressed))
    trained(compressed)
    after = count(compressed, views(compressed))
    assert after.stored == before.stored and after.nonzero <= before.nonzero
    checkpoint.save(tmp_path / "model", compressed, plan)
    loaded, same = checkpoint.load(tmp_path / "model", lambda: two_towers(seed=5))
    assert same == plan
    batch = example(seed=78)
    assert torch.equal(loaded(*batch), compressed(*batch))
    again = count(trained(loaded), views(loaded))
    assert again.stored == before.stored and again.nonzero <= before.nonzero


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_ties_and_zeros_are_intact_after_recovery_and_the_dense_model_is_as_it_was(name):
    problem, plan = decided(name)
    dense, compressed = problem.model, apply(problem.model, plan, PATHS)
    before, weights = count(compressed, views(compressed)), copy.deepcopy(dense.state_dict())
    how, data = Recover(steps=2, rate=1e-2, progress=False), [example(seed=k) for k in (80, 81)]
    Recovery(how, compressed, plan, dense, data, lambda model, batch: model(*batch), loss_of, 0, {}).run()
    after = count(compressed, views(compressed))
    assert after.stored == before.stored and after.nonzero <= before.nonzero
    verify(compressed, plan, PATHS)
    assert all(torch.equal(value, weights[key]) for key, value in dense.state_dict().items())


@pytest.mark.parametrize("name", [name for name in METHODS if methods()[name].stage == "training"])
def test_a_phase_is_as_long_as_the_steps_before_the_decision_ask_for(name):
    problem = problem_of(0.6)
    problem.steps = get(name).phase(12)
    assert get(name).start(problem).apply_at == 12


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_the_same_seed_gives_the_same_plan(name):
    (_, first), (_, second) = decided(name, seed=3), decide(name, seed=3)
    assert first == second
    assert Plan.from_json(first.to_json()) == first


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in METHODS if n == "snp" or "random" in n])
def test_another_seed_gives_another_plan(name):
    assert decided(name, seed=3)[1] != decide(name, seed=4)[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_making_a_plan_changes_no_weight_of_the_model(name):
    problem = problem_of(0.6)
    before = {key: value.clone() for key, value in problem.model.state_dict().items()}
    session = get(name).start(problem)
    session.plan()
    assert all(torch.equal(value, before[key]) for key, value in problem.model.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("keep", [1.5, 0.0, -1, 0.01])
@pytest.mark.parametrize("name", METHODS)
def test_an_impossible_budget_is_one_clear_line(name, keep):
    with pytest.raises(InputError, match="keep") as error:
        get(name).start(problem_of(keep))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", METHODS)
def test_a_mistyped_option_names_the_options_there_are(name):
    with pytest.raises(InputError, match=re.escape(f"{name}.kep")):
        get(name, kep=0.5)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_describes_itself_for_tables(name):
    cls = methods()[name]
    assert cls.name == name and cls.source and "\n" not in cls.summary
    assert cls.kind in {"dense", "structured", "unstructured", "shared", "joint"}
    assert cls.stage in {"one-shot", "calibration", "training"}
