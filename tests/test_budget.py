"""Budgets: shares of all parameters, refused when out of range or out of reach."""

import pytest
from towers import two_towers, views

from snp.compression.budget import Budget
from snp.errors import InputError


def test_the_target_is_a_share_of_all_parameters():
    model = two_towers()
    budget = Budget.from_model(model, views(model), keep=0.6)
    assert budget.total == sum(p.numel() for p in model.parameters())
    assert budget.target == round(0.6 * budget.total)
    assert budget.units == budget.target - budget.fixed


def test_what_is_fixed_is_counted_by_hand():
    model = two_towers()
    budget = Budget.from_model(model, views(model), keep=0.6)
    d, layers = 32, 4
    outside = 2 * 2 * d * layers + 2 * 2 * d  # norms: two a layer, one a tower
    outside += (d * 3 * 4 * 4 + d) + d + 17 * d  # patches, class token, positions
    outside += 19 * d + 7 * d + d * d  # words, positions, text projection
    outside += 2 * d * 5 + 5  # head
    biases = 2 * d * layers
    assert budget.fixed == outside + biases
    assert budget.least == budget.fixed + layers * (2 * 4 * (d + 1) + 4 * (2 * d + 1) + (2 * d + 1))


@pytest.mark.parametrize("keep", [0.0, -0.1, 1.5, float("nan")])
def test_shares_outside_zero_to_one_are_refused(keep):
    with pytest.raises(InputError, match=r"keep: .* is not a share"):
        Budget(keep, 100, 10)


def test_an_impossible_budget_names_the_reachable_minimum():
    model = two_towers()
    least = Budget.from_model(model, views(model), keep=1.0).least
    total = Budget.from_model(model, views(model), keep=1.0).total
    with pytest.raises(InputError, match=f"{least:,} must survive") as raised:
        Budget.from_model(model, views(model), keep=0.9 * least / total)
    reachable = float(raised.value.hint.split()[-1])
    assert Budget.from_model(model, views(model), keep=reachable).target >= least
    assert reachable == pytest.approx(least / total, abs=1e-4)


def test_the_error_is_relative_to_the_target():
    budget = Budget(0.5, 200, 10)
    assert budget.error(101) == pytest.approx(0.01)
    assert budget.error(100) == 0
