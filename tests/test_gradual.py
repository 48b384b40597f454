"""Gradual magnitude pruning: its schedule to the weight, and what heads contribute beside slower ways to say it."""

from itertools import pairwise

import pytest
import torch
from test_lottery import train
from torch import Tensor, nn
from towers import HEADS, TwoTowers, example, loss_of, views

from baselines.gradual import LEAST, MOST, GradualSession, attribution, signed
from snp.compression.budget import Budget
from snp.compression.problem import Problem
from snp.compression.registry import get


def session_of(model: nn.Module, keep: float = 0.6, steps: int = 50, **options) -> GradualSession:
    towers = views(model)
    problem = Problem(
        model, towers, Budget.from_model(model, towers, keep), steps, lambda b, o: loss_of(model, b, o), example,
        calibration=[example(seed=seed) for seed in range(4)],
    )  # fmt: skip
    return get("gradual", **options).start(problem)


def fallen(session: GradualSession) -> Tensor:
    return torch.cat([~mask.flatten() for mask in session.alive.values()])


def test_as_many_weights_have_fallen_as_the_cubic_schedule_says_and_none_returns(two_towers: TwoTowers) -> None:
    session = session_of(two_towers, every=10, until=0.8)
    assert session.apply_at == 40 and list(session.looks) == [10, 20, 30, 40]
    before, wanted = fallen(session), session.problem.removals
    for first, last in pairwise([0, *session.looks]):
        train(session, first, last)
        now = fallen(session)
        assert int(now.sum()) == round(wanted * (1 - (1 - last / 40) ** 3)) and bool(now[before].all())
        before = now
    assert int(before.sum()) == wanted
    assert int(sum((~mask).sum() for mask in session.plan().masks.values())) == wanted


@pytest.mark.parametrize("steps", [1, 3])
def test_a_phase_shorter_than_a_look_still_ends_at_the_budget(steps: int, two_towers: TwoTowers) -> None:
    session = session_of(two_towers, steps=steps)
    train(session, 0, session.apply_at)
    assert int(fallen(session).sum()) == session.problem.removals


@pytest.mark.parametrize(("points", "within"), [(8, 0.02), pytest.param(200, 0.001, marks=pytest.mark.slow)])
@pytest.mark.parametrize("tower", ["vision", "text"])
def test_what_heads_contribute_adds_up_to_what_the_layer_does(
    tower: str, points: int, within: float, two_towers: TwoTowers
) -> None:
    session, batch = session_of(two_towers), example(seed=3)
    for block in session.problem.towers[tower].blocks:
        name = block.ref("o").weight
        weight = two_towers.get_parameter(name).detach()
        whole, without = (loss_of(two_towers, batch, {name: weight * on}).item() for on in (1.0, 0.0))
        found = signed(session.problem, name, weight, HEADS, batch, points, {})
        assert float(found.sum()) == pytest.approx(without - whole, rel=within, abs=1e-4)


def test_a_head_whose_output_is_nothing_contributes_nothing(two_towers: TwoTowers) -> None:
    session = session_of(two_towers)
    block = session.problem.towers["vision"].blocks[0]
    with torch.no_grad():
        two_towers.get_parameter(block.ref("o").weight)[:, 8:16] = 0
    found = attribution(session.problem, session.problem.towers["vision"], [example()], 4)
    assert found[0, 1] == 0 and (found[0, [0, 2, 3]] > 0).all()


class Scaled(nn.Module):
    """In the place of an attention's dropout: its maps times a factor, kept with their gradient."""

    factor, maps = 1.0, None

    def forward(self, maps_BHTT: Tensor) -> Tensor:
        self.maps = (maps_BHTT * self.factor).requires_grad_()
        self.maps.retain_grad()
        return self.maps


def test_a_scalar_for_each_head_says_what_integrating_over_its_attention_maps_says(two_towers: TwoTowers) -> None:
    session, batch, points = session_of(two_towers), example(seed=3), 5
    layer = two_towers.vision.blocks[1].attn
    name = session.problem.towers["vision"].blocks[1].ref("o").weight
    quick = signed(session.problem, name, layer.proj.weight.detach(), HEADS, batch, points, {})
    layer.fused_attn, layer.attn_drop = False, Scaled()
    loss_of(two_towers, batch)
    whole, slow = layer.attn_drop.maps.detach(), torch.zeros(HEADS)
    for point in range(points):
        layer.attn_drop.factor = (point + 0.5) / points
        (-loss_of(two_towers, batch)).backward()
        slow += (whole * layer.attn_drop.maps.grad).sum((0, 2, 3)) / points
    assert torch.allclose(quick, slow, atol=1e-5)


def test_weights_of_heads_that_contribute_less_fall_first(two_towers: TwoTowers) -> None:
    session = session_of(two_towers, keep=0.9)
    with torch.no_grad():
        for name in session.alive:
            two_towers.get_parameter(name).fill_(1.0)
    weak = torch.ones(2, HEADS)
    weak[0, 2] = 0.5
    session.heads = {"vision": weak}
    block = session.problem.towers["vision"].blocks[0]
    scores = session._scores()
    low = {name: (score < 1).nonzero() for name, score in scores.items() if (score < 1).any()}
    assert low.keys() == {block.ref("q").weight, block.ref("o").weight}
    assert sorted({*low[block.ref("o").weight][:, 1].tolist()}) == list(range(16, 24))
    rows = {*low[block.ref("q").weight][:, 0].tolist()}
    assert rows == {start + row for start in (0, 32, 64) for row in range(16, 24)}


def test_with_power_nought_heads_count_alike_to_the_bit() -> None:
    plain, weighed = (
        session_of(TwoTowers(), **options)
        for options in ({}, {"attribution": True, "beta": 0.0, "points": 1, "batches": 1})
    )
    for session in (plain, weighed):
        train(session, 0, session.apply_at)
    assert all(torch.equal(mask, weighed.alive[name]) for name, mask in plain.alive.items())
    assert weighed.heads.keys() == {"vision", "text"}


def test_attribution_moves_what_falls_within_bounds() -> None:
    plain, weighed = (session_of(TwoTowers(), attribution=on, points=2, batches=2) for on in (False, True))
    for session in (plain, weighed):
        train(session, 0, session.apply_at)
    assert not torch.equal(fallen(plain), fallen(weighed)) and int(fallen(weighed).sum()) == plain.problem.removals
    assert all(float(c.min()) >= LEAST and float(c.max()) <= MOST for c in weighed.heads.values())


def test_it_goes_on_from_a_state_as_if_nothing_had_happened() -> None:
    whole, begun = (session_of(TwoTowers(), attribution=True, points=2, batches=1) for _ in range(2))
    train(whole, 0, 40)
    train(begun, 0, 25)
    again = session_of(begun.problem.model, attribution=True, points=2, batches=1)
    again.load_state_dict(begun.state_dict())
    train(again, 25, 40)
    assert torch.equal(fallen(whole), fallen(again))
    assert all(torch.equal(c, again.heads[name]) for name, c in whole.heads.items())


@pytest.mark.parametrize("attribution", [False, True])
def test_what_is_left_of_every_head_is_told(attribution: bool, two_towers: TwoTowers) -> None:
    session = session_of(two_towers, attribution=attribution)
    train(session, 0, session.apply_at)
    facts, masks = session.facts(), session.alive
    for name, tower in session.problem.towers.items():
        assert ("weigh" in facts[name]) == attribution
        for layer, block in enumerate(tower.blocks):
            size = block.d_model // HEADS
            for head in range(HEADS):
                rows = slice(head * size, (head + 1) * size)
                left = sum(int(masks[block.ref(r).weight][block.ref(r).rows][rows].sum()) for r in "qkv")
                left += int(masks[block.ref("o").weight][:, rows].sum())
                assert facts[name]["kept"][layer][head] == pytest.approx(left / (4 * size * block.d_model))
