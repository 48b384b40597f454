"""Structure vectors are exclusive by construction, cost what their plan costs, and meet the budget exactly."""

import pytest
import torch
from towers import example, loss_of, views

from snp.compression.budget import Budget
from snp.compression.surgery import substitute
from snp.compression.tower import COMPONENTS
from snp.errors import InputError
from snp.sharing.geometry import KINDS, Geometry
from snp.sharing.hypernetwork import binary
from snp.sharing.objective import Alignment, budget_regularizer, effective_parameters
from snp.sharing.projection import expected, harden, offset, project, shifted
from snp.sharing.structure import Structure


@pytest.fixture
def geometry(two_towers) -> Geometry:
    towers = views(two_towers)
    return Geometry.from_towers(list(towers.values()), Budget.from_model(two_towers, towers, keep=1).fixed, block=2)


def random_logits(geometry: Geometry, seed: int, spread: float = 1.0, mean: float = 0.0):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: {kind: mean + spread * torch.randn(stack.shape(kind), generator=generator) for kind in stack.kinds}
        for name, stack in geometry.stacks.items()
    }


@pytest.mark.parametrize("seed", range(5))
def test_a_unit_is_never_both_shared_and_pruned_nor_shared_twice(geometry, seed):
    structure = harden(geometry, random_logits(geometry, seed))
    for c in COMPONENTS:
        keep, cross, blockwise = structure.keep[c], structure.cross[c], structure.blockwise[c]
        assert not (cross * blockwise).any()
        assert not ((cross + blockwise) * (1 - keep)).any()
    assert all(part > 0 for part in structure.shares().values())


def test_base_layers_lend_and_never_take(geometry):
    structure = harden(geometry, random_logits(geometry, 0))
    for c, stack in geometry.stacks.items():
        base = stack.base.unique()
        assert base.tolist() == list(range(0, len(stack.layers), 2))
        assert not structure.blockwise[c][base].any()


def test_nothing_is_borrowed_from_a_pruned_base_unit(geometry):
    structure = harden(geometry, random_logits(geometry, 1))
    for c in COMPONENTS:
        assert not (structure.blockwise[c] * (1 - structure.keep[c][geometry.stacks[c].base])).any()


@pytest.mark.parametrize("seed", range(3))
def test_stored_parameters_are_those_of_the_plan(two_towers, geometry, seed):
    structure = harden(geometry, random_logits(geometry, seed))
    plan = structure.plan()
    dense = sum(p.numel() for p in two_towers.parameters())
    removed = plan.cost()["removed"]
    assert float(structure.stored()) == dense - removed


def test_effective_weights_are_the_plan_substituted_into_the_model(two_towers, geometry):
    structure = harden(geometry, random_logits(geometry, 2))
    soft = effective_parameters(structure)
    hard = substitute(two_towers, views(two_towers), structure.plan())
    for name, tensor in soft.items():
        torch.testing.assert_close(tensor, hard[name] if name in hard else two_towers.get_parameter(name))


def test_the_loss_reaches_every_structure_vector(two_towers, geometry):
    own = {c: {k: torch.ones(stack.shape(k)).requires_grad_() for k in KINDS} for c, stack in geometry.stacks.items()}
    structure = Structure.compose(geometry, own)
    loss_of(two_towers, example(), effective_parameters(structure)).backward()
    for c in COMPONENTS:
        assert own[c]["prune"].grad.abs().sum() > 0
        assert own[c]["cross"].grad.abs().sum() > 0
        base = geometry.stacks[c].base
        assert own[c]["blockwise"].grad[base].abs().sum() == 0  # base layers never take


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("mean", [-3.0, 0.0, 3.0])
@pytest.mark.parametrize("part", [0.3, 0.5, 0.8])
def test_projection_meets_any_budget_from_any_logits(geometry, seed, mean, part):
    full = float(harden(geometry, random_logits(geometry, seed, 0, 1)).stored())
    target = round(geometry.rest + part * (full - geometry.rest))
    structure, reached = project(geometry, random_logits(geometry, seed, mean=mean), target)
    assert reached
    smallest = min(stack.cost for stack in geometry.stacks.values())
    assert target - 2 * smallest < float(structure.stored()) <= target
    assert all(structure.keep[c].any(1).all() for c in COMPONENTS)


def test_projection_keeps_the_order_of_the_logits(geometry):
    logits = random_logits(geometry, 0)
    for vectors in logits.values():
        vectors["cross"][:] = vectors["blockwise"][:] = float("inf")
    structure, _ = project(
        geometry,
        logits,
        round(geometry.rest + 0.5 * (float(harden(geometry, shifted(logits, 99.0)).stored()) - geometry.rest)),
    )
    values = torch.cat([logits[c]["prune"].flatten() for c in COMPONENTS])
    kept = (
        torch.cat([structure.keep[c][:, : stack.prune_units].flatten() for c, stack in geometry.stacks.items()]) > 0.5
    )
    swapped = (values[kept].sort().values < values[~kept].max()).sum()
    assert swapped <= 8  # only the last units that fill the budget, and forced survivors, break the order


def test_sharing_alone_ends_at_its_ceiling(geometry):
    logits = random_logits(geometry, 0)
    for vectors in logits.values():
        vectors["prune"][:] = vectors["blockwise"][:] = float("inf")
    structure, reached = project(geometry, logits, geometry.rest + 1)
    assert not reached
    assert all(structure.cross[c].all() for c in COMPONENTS)


def test_everything_switched_off_is_a_clear_error(geometry):
    logits = {
        c: {k: torch.full_like(v, float("inf")) for k, v in vectors.items()}
        for c, vectors in random_logits(geometry, 0).items()
    }
    with pytest.raises(InputError, match="switched off"):
        project(geometry, logits, geometry.rest)


def test_the_budget_regulariser_is_zero_within_the_budget_and_logarithmic_above():
    assert float(budget_regularizer(torch.tensor(90.0), 100)) == 0
    assert float(budget_regularizer(torch.tensor(200.0), 100)) == pytest.approx(0.6931, abs=1e-4)


def test_alignment_is_the_distance_to_what_the_structure_will_make_of_the_weights(geometry):
    structure = harden(geometry, random_logits(geometry, 3))
    expected = 0.0
    for c, stack in geometry.stacks.items():
        n, p = len(stack.units), stack.prune_units
        vision, text = (stack.matrix(tower).detach() for tower in geometry.towers)
        for layer in stack.layers:
            base = int(stack.base[layer])
            for i in range(p):
                if not structure.keep[c][layer, i]:
                    expected += sum(float(t[layer, i::p].norm()) for t in (vision, text))
            for i in range(n):
                lent = vision[base, i] if structure.cross[c][base, i] else text[base, i]
                if structure.cross[c][layer, i] or structure.blockwise[c][layer, i]:
                    donor = vision[layer, i] if structure.cross[c][layer, i] else lent
                    expected += float((text[layer, i] - donor).norm() / donor.norm())
    assert float(Alignment(structure)()) == pytest.approx(expected, rel=1e-4)


def test_alignment_vanishes_on_weights_that_have_the_structure(two_towers, geometry):
    structure = harden(geometry, random_logits(geometry, 3))
    with torch.no_grad():
        for name, tensor in effective_parameters(structure).items():
            two_towers.get_parameter(name).copy_(tensor)
    assert float(Alignment(structure)()) < 0.01


def test_the_expected_size_is_the_mean_over_samples(geometry):
    logits, generator = random_logits(geometry, 0), torch.Generator().manual_seed(0)
    sizes = [
        float(
            Structure.compose(
                geometry, {c: {k: binary(logits[c][k], 0.4, generator) for k in KINDS} for c in COMPONENTS}
            ).stored()
        )
        for _ in range(300)
    ]
    assert float(expected(geometry, logits).stored()) == pytest.approx(sum(sizes) / len(sizes), rel=0.01)


@pytest.mark.parametrize("part", [0.3, 0.6, 0.95])
def test_the_offset_gives_any_expected_size(geometry, part):
    logits = random_logits(geometry, 0, mean=-5.0)
    full = float(harden(geometry, shifted(logits, 99.0)).stored())
    target = geometry.rest + part * (full - geometry.rest)
    lowest = min(v.min() for vectors in logits.values() for v in vectors.values())
    shift = offset(geometry, logits, target, most=3.0)
    assert float(expected(geometry, shifted(logits, shift)).stored()) == pytest.approx(target, rel=0.01)
    assert offset(geometry, logits, 2 * full, most=3.0) == pytest.approx(3.0 - float(lowest), abs=0.1)
