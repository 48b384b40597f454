"""A method's own batches pass the model in parts, as at paper scale: what it learns is what whole batches say."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_loop import GLIP_TINY, PHASE, PLAIN
from test_loop import batch as batch_of
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from snp.compression.budget import Budget
from snp.compression.overriding import gradients_of, overriding
from snp.compression.problem import Problem
from snp.compression.registry import get
from snp.compression.tower import towers_of
from snp.errors import InputError
from snp.experiment.recipes import RECIPES, Phase
from snp.experiment.spec import Compress, dense
from snp.models.glip import GLIP
from snp.models.mdetr import MDETR, TOWERS
from snp.runs.store import Store
from snp.sharing.objective import task_gradients
from snp.training import held_out, stages
from snp.training.cursor import Cursor
from snp.training.setup import Setup

IN_PARTS = PHASE.model_copy(update=dict(accumulate=2, checkpointing=True))
"""Eight captions in parts of two, layers computed again."""
MODELS: dict[str, Callable[[], nn.Module]] = {"mdetr": lambda: MDETR(PLAIN), "glip": lambda: GLIP(GLIP_TINY)}


def held(start: int) -> Any:
    """Batches of eight captions, each with an image of its own."""
    for seed in range(1000 + start, 2000):
        one = batch_of(seed, 16)
        yield replace(one.part(0, 2), whole=None)


def problem_of(kind: str, phase: Phase, **more: Any) -> Problem:
    torch.manual_seed(0)
    model = MODELS[kind]()
    towers, budget = towers_of(model, TOWERS), Budget.from_model(model, towers_of(model, TOWERS), 0.8)
    return Problem(model, towers, budget, 20, heldout=Cursor(held), **held_out.own_passes(model, phase), **more)


def sizes(model: nn.Module) -> list[int]:
    """Captions of every pass of the model from now on."""
    found: list[int] = []
    model.register_forward_pre_hook(lambda _, inputs: found.append(len(inputs[2])))
    return found


def test_at_desk_scale_a_batch_is_one_part_and_at_paper_scale_half_of_what_a_weight_step_takes_at_once() -> None:
    assert {RECIPES[s].mdetr.compress.own_part for s in ("smoke", "desk")} == {16, 32}
    mdetr, glip = RECIPES["paper"].mdetr.compress, RECIPES["paper"].glip.compress
    assert (mdetr.batch // mdetr.accumulate, mdetr.own_part) == (8, 4)
    assert (glip.batch // glip.accumulate, glip.own_part) == (2, 1)
    assert PHASE.model_copy(update=dict(batch=32, accumulate=2, per_image=2)).own_part == 4
    whole = batch_of(0)
    assert next(whole.in_parts_of(8)) is whole
    assert [len(part) for part in whole.in_parts_of(3)] == [3, 3, 2]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mdetr", "glip"])
def test_gradients_in_parts_are_those_of_the_batch(kind: str) -> None:
    found = []
    for phase in (PHASE, IN_PARTS):
        problem = problem_of(kind, phase)
        passed = sizes(problem.model.eval())
        names = [name for names in problem.groups.values() for name in names]
        leaves = {name: (0.9 * problem.model.get_parameter(name)).detach().requires_grad_() for name in names}
        found.append(problem.gradients(problem.heldout(), lambda leaves=leaves: dict(leaves), leaves.values()))
        assert passed == ([8] if phase is PHASE else [2, 2, 2, 2])
        assert all(p.grad is None for p in problem.model.parameters()), "those of the model itself are nobody's"
        assert all(len(leaf) for leaf in leaves.values())
    (value, expected), (in_parts, gradients) = found
    torch.testing.assert_close(in_parts, value, rtol=1e-5, atol=0)
    for gradient, other in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mdetr", "glip"])
def test_a_structure_learns_in_parts_what_it_learns_from_the_batch(kind: str) -> None:
    found = []
    for phase in (PHASE, IN_PARTS):
        session: Any = get("snp", every=1).start(problem := problem_of(kind, phase))
        structure = session._sample()
        found.append(task_gradients(problem, structure))
    (value, expected), (in_parts, slopes) = found
    torch.testing.assert_close(in_parts, value, rtol=1e-5, atol=0)
    assert len(slopes) == 9 and all(slope.count_nonzero() for slope in slopes)
    for slope, other in zip(slopes, expected, strict=True):
        torch.testing.assert_close(slope, other, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["snip", "itersnip", "tamt", "chita", "multiflow"])
def test_a_method_scores_weights_in_parts_as_from_whole_batches(method: str) -> None:
    options = {"itersnip": {"rounds": 2}, "tamt": {"rounds": 2}, "chita": {"gradients": 4}}.get(method, {})
    scores = []
    for phase in (PHASE, IN_PARTS):
        problem = problem_of("mdetr", phase)
        problem.groups["fusion"] = problem.model.fusion_weights()  # type: ignore[operator]
        problem.token_masks = problem.model.token_masks()  # type: ignore[operator]
        passed = sizes(problem.model)
        scores.append(get(method, **options).start(problem).scores())
        assert max(passed) == (8 if phase is PHASE else 2)
    for name, expected in scores[0].items():
        tolerance = 1e-6 if method == "multiflow" else 1e-4
        torch.testing.assert_close(
            scores[1][name], expected, rtol=tolerance, atol=tolerance * float(expected.abs().max())
        )


@pytest.mark.slow
@pytest.mark.parametrize("method", ["snp", "tamt", "multiflow"])
def test_a_held_out_batch_whose_loss_is_not_finite_is_named(method: str) -> None:
    problem = problem_of("mdetr", IN_PARTS)
    named = held_out.own_passes(problem.model, IN_PARTS, lambda: f"batch {problem.heldout.position}")
    problem = replace(problem, **named)
    with torch.no_grad():
        problem.model.get_parameter("box_head.4.bias").fill_(torch.nan)
    with pytest.raises(InputError, match="batch 1: the model's loss is nan"):
        get(method, **({"every": 1} if method == "snp" else {})).start(problem).after_step(0)


# -- tensors that stand in, in a backward pass ---------------------------------------------------------------------


class Twice(nn.Module):
    """w2 tanh(w1 x), each layer computed again in the backward pass; one weight has two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3, False), nn.Linear(3, 3, False)
        self.again = self.second

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.first, self.second, self.again):
            x = checkpoint(lambda x, layer=layer: layer(x).tanh(), x, use_reentrant=False)
        return x.square().sum()


def test_layers_that_are_computed_again_meet_the_tensors_that_stand_in_for_their_weights() -> None:
    torch.manual_seed(0)
    model, x = Twice(), torch.randn(4, 3)
    own = {name: torch.randn(3, 3, requires_grad=True) for name in ("first.weight", "second.weight")}
    a, b = own.values()
    hidden = x
    for weight in (a, b, b):
        hidden = (hidden @ weight.T).tanh()
    expected = torch.autograd.grad(hidden.square().sum(), (a, b))

    def loss(overrides: dict[str, Tensor] | None) -> Tensor:
        return overriding(model, overrides, lambda: model(x))

    wrong = torch.autograd.grad(loss(own), (a, b))
    assert not torch.allclose(wrong[0], expected[0]), "standing in for a forward pass alone would do"
    value = loss(own)
    right = overriding(model, own, lambda: torch.autograd.grad(value, (a, b)))
    _, also_right = gradients_of(model, loss, lambda: dict(own), (a, b))
    for found in (right, also_right):
        for gradient, other in zip(found, expected, strict=True):
            torch.testing.assert_close(gradient, other)
    assert isinstance(model.first.weight, nn.Parameter) and model.again.weight is model.second.weight


def test_a_tensor_that_no_loss_depends_on_has_no_gradient() -> None:
    model = nn.Linear(2, 1)
    used, unused = torch.ones(1, 2, requires_grad=True), torch.ones(1, requires_grad=True)

    def loss(overrides: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(model, {"weight": overrides["weight"]}, (torch.ones(1, 2),)).sum()

    def make() -> dict[str, Tensor]:
        return {"weight": 2 * used, "bias": unused * 1}

    value, (gradient, nothing) = gradients_of(model, loss, make, (used, unused))
    assert gradient is not None
    assert not value.requires_grad and gradient.tolist() == [[2, 2]] and nothing is None


# -- a run ---------------------------------------------------------------------------------------------------------


class Small(Setup):
    """Weight steps of the recipe in four parts."""

    def phase(self, run: Any) -> Phase:
        return super().phase(run).model_copy(update=dict(accumulate=4, checkpointing=True))


@pytest.mark.slow
def test_a_run_in_parts_learns_as_one_of_whole_batches(smoke_dense: Store, tmp_path: Path) -> None:
    run = Compress(
        scale="smoke", data="scenes", method="snp", keep=0.6, parent=dense("smoke", "scenes"), options={"every": 2}
    )
    whole, parts = (
        stages.run(run, Store(tmp_path / type(setup).__name__, base=smoke_dense), setup=setup)
        for setup in (Setup(), Small())
    )
    for one, other in zip(whole.curve, parts.curve, strict=True):
        assert other == pytest.approx(one, rel=0.02, abs=0.02)
    assert parts.metrics["projection_gap"] == pytest.approx(whole.metrics["projection_gap"], abs=0.02)
