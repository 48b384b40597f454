"""Recipes: the learning rate over a phase, and that committed results were made by the recipes of this commit."""

import pytest
from pydantic import ValidationError

from snp.compression.registry import get
from snp.experiment.recipes import RECIPES, Phase, phase_of, training_of
from snp.runs.store import Store


def test_the_rate_rises_holds_and_falls_to_nothing():
    phase = Phase(steps=100, batch=1, lr=1.0, warm_up=10, decay=0.5)
    assert phase.rate(0) == pytest.approx(0.1) and phase.rate(9) == 1.0
    assert phase.rate(50) == 1.0 and phase.rate(75) == pytest.approx(0.5)
    assert phase.rate(99) == pytest.approx(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("scale", RECIPES)
def test_every_committed_plan_was_made_with_the_options_that_the_method_has_today(scale):
    for result in Store.at(scale).results("compress"):
        today = get(result.run.method, **result.run.options).options.model_dump()
        # an option that came later has the default that it had before
        assert result.metrics["options"].items() <= today.items(), result.run.slug


@pytest.mark.parametrize("scale", RECIPES)
def test_every_committed_result_was_made_by_todays_recipe(scale):
    for result in Store.at(scale).results():
        recorded = dict(result.manifest["config"]["recipe"])
        assert recorded.pop("model") == training_of(result.run).model, result.run.slug
        assert Phase(**recorded) == phase_of(result.run), result.run.slug


def test_a_drop_takes_all_rates_to_a_tenth():
    phase = Phase(steps=40, batch=1, lr=1e-4, vision_lr=1e-5, warm_up=0, decay=0, drop=(35 / 40,))
    assert phase.rate(34) == 1e-4 and phase.rate(35) == phase.rate(39) == pytest.approx(1e-5)
    assert phase.rate(35, phase.held("vision.pos_embed")) == pytest.approx(1e-6)


def test_every_drop_takes_a_tenth_of_what_is_left():
    phase = Phase(steps=100, batch=1, lr=1e-4, warm_up=0, decay=0, drop=(0.67, 0.89))
    assert [phase.rate(step) for step in (66, 67, 88, 89, 99)] == pytest.approx([1e-4, 1e-5, 1e-5, 1e-6, 1e-6])


def test_the_text_tower_may_go_its_own_way_up_and_down_in_straight_lines():
    phase = Phase(steps=100, batch=1, lr=1e-4, text_lr=5e-5, warm_up=0, decay=0, drop=(0.5,), text_rise=0.1)
    assert [phase.apart(name) for name in ("text.ln_final.weight", "text_to_fusion.0.weight", "vision.norm.bias")] == [
        True,
        False,
        False,
    ]
    rates = [phase.rate(step, phase.held("text.ln_final.weight"), apart=True) for step in (0, 5, 10, 55, 99)]
    assert rates == pytest.approx([0, 2.5e-5, 5e-5, 2.5e-5, 5e-5 / 90])
    assert phase.rate(99) == pytest.approx(1e-5), "others drop as they do"
    assert not Phase(steps=1, batch=1, lr=1.0, warm_up=0, decay=0).apart("text.ln_final.weight")


def test_a_batch_must_fall_into_equal_parts():
    with pytest.raises(ValidationError, match="batch=32 is no multiple of accumulate=3"):
        Phase(steps=1, batch=32, lr=1.0, warm_up=0, decay=0, accumulate=3)
