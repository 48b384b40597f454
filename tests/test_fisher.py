"""What operations cost the loss: <g, dw>^2 of what they do to weights, in SNP's prior and in Taylor pruning."""

import pytest
import torch
from towers import example, loss_of, two_towers, views

from baselines.taylor import taylor
from snp.compression.block import PLAIN
from snp.compression.budget import Budget
from snp.compression.problem import Problem
from snp.compression.registry import get
from snp.compression.tower import COMPONENTS
from snp.errors import InputError
from snp.sharing.geometry import KINDS, Geometry
from snp.sharing.objective import fisher, prior

BATCHES = 3


def problem_of(keep=0.6):
    model = two_towers().double()
    towers = views(model)
    batches = iter(range(10_000))

    def heldout():
        images, words = example(seed=next(batches))
        return images.double(), words

    return Problem(
        model, towers, Budget.from_model(model, towers, keep), 60, lambda b, o: loss_of(model, b, o), heldout
    )


def gradient_units(problem, block, component):
    """The gradient in all parameters of each sharing unit, laid out as `Block.units`."""
    grads = {name: parameter.grad for name, parameter in problem.model.named_parameters()}

    def rows(kind, role):
        ref = block.ref(role)
        return grads[getattr(ref, kind)][ref.rows]

    parts = [(part.role, part.dim) for part in PLAIN[component]]
    weights = [rows("weight", role) if dim == 0 else rows("weight", role).T for role, dim in parts]
    return torch.cat([*weights, *(rows("bias", role)[:, None] for role, dim in parts if dim == 0)], 1)


def slopes(problem, change):
    """Mean over batches of <g, dw>^2 of sharing units, (L, N): the plain way, one gradient in all weights a batch."""
    problem.model.eval()
    total = {component: 0.0 for component in COMPONENTS}
    for _ in range(BATCHES):
        problem.model.zero_grad()
        loss_of(problem.model, problem.heldout()).backward()
        for component in COMPONENTS:
            total[component] = total[component] + change(component) / BATCHES
    return total


def geometry_of(problem, block=2):
    return Geometry.from_towers(list(problem.towers.values()), problem.budget.fixed, block)


def test_pruning_costs_what_both_towers_lose_in_all_heads_together():
    problem = problem_of()
    geometry = geometry_of(problem)
    found = fisher(problem, geometry, BATCHES)
    plain = problem_of()

    def lost(component):
        each = [
            torch.stack(
                [(gradient_units(plain, b, component) * b.units(component)).sum(1).detach() for b in tower.blocks]
            )
            for tower in plain.towers.values()
        ]
        both_LN = each[0] + each[1]
        return both_LN.unflatten(1, (-1, geometry.stacks[component].prune_units)).sum(1).square()

    for component, expected in slopes(plain, lost).items():
        saved = 2 * problem.towers["text"].shape.unit_cost(component)
        torch.testing.assert_close(found[component]["prune"], expected / saved)


def test_sharing_costs_the_way_to_the_donor():
    problem = problem_of()
    geometry = geometry_of(problem)
    found = fisher(problem, geometry, BATCHES)
    for kind in ("cross", "blockwise"):
        plain = problem_of()
        vision, text = plain.towers.values()

        def moved(component, kind=kind, plain=plain, vision=vision, text=text):
            lenders = vision.blocks if kind == "cross" else [text.blocks[0]] * 2
            return torch.stack(
                [
                    (gradient_units(plain, own, component) * (lender.units(component) - own.units(component)))
                    .sum(1)
                    .detach()
                    .square()
                    for own, lender in zip(text.blocks, lenders, strict=True)
                ]
            )

        for component, expected in slopes(plain, moved).items():
            saved = geometry.stacks[component].cost
            torch.testing.assert_close(found[component][kind], expected / saved)


def test_taylor_scores_each_tower_for_itself():
    found = taylor(problem_of(), BATCHES)
    plain = problem_of()
    shape = plain.towers["vision"].shape
    for name, tower in plain.towers.items():
        plain = problem_of()

        def lost(component, name=name, plain=plain):
            blocks = plain.towers[name].blocks
            each = [(gradient_units(plain, b, component) * b.units(component)).sum(1).detach() for b in blocks]
            return torch.stack(each).unflatten(1, (-1, shape.units(component))).sum(1).square()

        for component, expected in slopes(plain, lost).items():
            for layer in range(len(tower)):
                torch.testing.assert_close(found[name, layer, component], expected[layer])


def test_taylor_prunes_first_what_no_output_depends_on():
    problem = problem_of(keep=0.75)
    with torch.no_grad():
        for tower in problem.towers.values():
            for block in tower.blocks:
                block.weight("fc2")[:, ::2] = 0
    plan = get("taylor").start(problem).plan()
    for tower in problem.towers:
        for layer in range(2):
            assert plan.kept(tower, layer, "ffn")[1::2].all()
            assert not plan.kept(tower, layer, "ffn")[::2].all()


@pytest.mark.parametrize("scope", ["uniform", "global"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_prior_is_the_log_of_the_cost_less_the_mean_of_those_that_compete(kind, scope):
    problem = problem_of()
    geometry = geometry_of(problem)
    scores = fisher(problem, geometry, BATCHES)
    made = prior(geometry, scores, scope)
    layers = [1] if kind == "blockwise" else [0, 1]  # the first layer of a block only lends
    logs = {c: scores[c][kind][layers].log().float() for c in COMPONENTS}
    mean = torch.cat([log.flatten() for log in logs.values()]).mean()
    for c in COMPONENTS:
        off = logs[c].mean(1, keepdim=True) if scope == "uniform" else mean
        torch.testing.assert_close(made[c][kind][layers], logs[c] - off)
        assert kind != "blockwise" or not made[c][kind][0].any()


def test_a_structure_can_be_decided_at_once():
    problem = problem_of()
    session = get("snp", score="fisher", batches=BATCHES, freeze=0, apply_at=0).begin(problem)
    assert session.apply_at == 0 and session.frozen
    assert float(session.structure.stored()) <= problem.budget.target
    assert session.plan().to_json() == session.plan().to_json()


def unsound(problem):
    """The same problem, whose loss is not a number."""
    loss = problem.loss
    problem.loss = lambda batch, overrides: loss(batch, overrides) * float("nan")
    return problem


@pytest.mark.parametrize(
    ("method", "options"), [("taylor", {}), ("snp", {"score": "fisher", "freeze": 0, "apply_at": 0})]
)
def test_a_loss_that_is_not_a_number_is_one_line_and_no_plan(method, options):
    with pytest.raises(InputError, match="not finite"):
        get(method, **options).start(unsound(problem_of())).plan()


def test_no_batch_is_one_line_and_no_plan():
    problem = problem_of()
    problem.calibration = []
    with pytest.raises(InputError, match="calibration: holds no batch"):
        get("taylor").start(problem).plan()
