"""Lottery tickets: rounds, rewinding, the random control, and going on from a state."""

from itertools import pairwise

import pytest
import torch
from torch import nn
from towers import example, loss_of, two_towers, views

from baselines.lottery import LotterySession
from snp.compression.budget import Budget
from snp.compression.method import weight_step
from snp.compression.problem import Problem
from snp.compression.registry import get


def session_of(model: nn.Module, keep: float = 0.6, steps: int = 40, seed: int = 0, **options) -> LotterySession:
    towers = views(model)
    problem = Problem(
        model, towers, Budget.from_model(model, towers, keep), steps, lambda b, o: loss_of(model, b, o), example, seed
    )
    return get("lottery", **options).start(problem)


def train(session: LotterySession, first: int, last: int) -> None:
    model = session.problem.model
    for step in range(first, last):
        with weight_step(session, step) as now:
            loss = session.problem.loss(example(seed=step), now.overrides)
            gradients = torch.autograd.grad(loss, list(model.parameters()))
            with torch.no_grad():
                for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                    parameter -= 0.1 * gradient


def test_a_round_by_hand(two_towers):
    """Weights are set by hand after "training": the two smallest of the phase's count fall, the others are rewound."""
    session = session_of(two_towers, rounds=1, steps=2)
    before = {name: p.detach().clone() for name, p in two_towers.named_parameters()}
    name = session.names[0]
    with torch.no_grad():
        for other in session.names:
            two_towers.get_parameter(other).fill_(1.0)
        two_towers.get_parameter(name).view(-1)[: session.problem.removals] = 0.5
    assert session.after_step(0) is True
    assert all(torch.equal(p, before[key]) for key, p in two_towers.named_parameters())
    size = two_towers.get_parameter(name).numel()
    fallen = min(session.problem.removals, size - 1)
    assert int((~session.alive[name]).sum()) == fallen
    assert sum(int((~mask).sum()) for mask in session.alive.values()) == session.problem.removals


def test_every_round_leaves_the_same_share_of_what_remains_and_nothing_returns(two_towers):
    session = session_of(two_towers, rounds=3)
    size = sum(mask.numel() for mask in session.alive.values())
    left, fallen = [size], None
    for end in session.rounds:
        train(session, end - 10, end)
        gone = torch.cat([~mask.flatten() for mask in session.alive.values()])
        assert fallen is None or bool(gone[fallen].all())
        left.append(size - int(gone.sum()))
        fallen = gone
    ratios = [b / a for a, b in pairwise(left)]
    assert max(ratios) - min(ratios) < 1e-3 and left[-1] == size - session.problem.removals


def test_what_has_fallen_is_zero_in_the_next_round(two_towers):
    session = session_of(two_towers, rounds=2)
    assert session.overrides() is None
    train(session, 0, min(session.rounds))
    for name, value in session.overrides().items():
        assert torch.equal(value != 0, session.alive[name] & (two_towers.get_parameter(name) != 0))


def test_only_the_last_weights_of_the_phase_train_the_ticket(two_towers):
    session = session_of(two_towers, rounds=3, steps=40)
    assert list(session.rounds) == [10, 20, 30] and session.apply_at == 30


def test_a_random_ticket_looks_at_no_weight():
    plans = []
    for model in (two_towers(seed=0), two_towers(seed=1)):
        session = session_of(model, rounds=1, steps=2, ticket="random")
        session.after_step(0)
        plans.append(session.plan())
    assert plans[0] == plans[1]


@pytest.mark.slow
@pytest.mark.parametrize("stop", [7, 10, 14])
def test_a_ticket_that_goes_on_from_its_state_ends_the_same(stop):
    whole, part = session_of(two_towers(), rounds=2, steps=30), session_of(two_towers(), rounds=2, steps=30)
    train(whole, 0, 20)
    train(part, 0, stop)
    again = session_of(two_towers(), rounds=2, steps=30)
    with torch.no_grad():
        for mine, theirs in zip(again.problem.model.parameters(), part.problem.model.parameters(), strict=True):
            mine.copy_(theirs)
    again.load_state_dict(part.state_dict())
    train(again, stop, 20)
    assert again.plan() == whole.plan()
