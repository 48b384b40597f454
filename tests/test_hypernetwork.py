"""The hypernetwork makes all logits together, from a seed, and training starts from the full model."""

import math

import pytest
import torch
from towers import views

from snp.sharing.geometry import KINDS, Geometry
from snp.sharing.hypernetwork import FreeLogits, HyperNetwork, binary


@pytest.fixture
def geometry(two_towers) -> Geometry:
    return Geometry.from_towers(list(views(two_towers).values()), rest=0, block=2)


def test_every_layer_and_component_gets_one_logit_per_unit(geometry):
    shape = geometry.towers[0].shape
    for network in (HyperNetwork(geometry, 0, 1.0), FreeLogits(geometry, 0)):
        logits = network()
        for component, vectors in logits.items():
            assert set(vectors) == set(KINDS)
            assert vectors["prune"].shape == (shape.layers, shape.units(component, "prune"))
            assert (
                vectors["cross"].shape == vectors["blockwise"].shape == (shape.layers, shape.units(component, "share"))
            )


def test_the_same_seed_gives_the_same_logits_and_leaves_the_global_generator_alone(geometry):
    before = torch.random.get_rng_state()
    first, same, other = (HyperNetwork(geometry, seed, 1.0)() for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first["ffn"]["prune"], same["ffn"]["prune"])
    assert not torch.equal(first["ffn"]["prune"], other["ffn"]["prune"])


def test_the_inputs_are_frozen_and_the_heads_have_no_bias(geometry):
    network = HyperNetwork(geometry, 0, 1.0)
    learned = dict(network.named_parameters())
    assert "inputs" not in learned and "inputs" in network.state_dict()
    for head in network.heads.values():
        torch.nn.init.zeros_(head)
    assert all(not v.any() for vectors in network().values() for v in vectors.values())


def test_a_vector_depends_on_the_inputs_of_other_layers(geometry):
    network = HyperNetwork(geometry, 0, 1.0)
    before = network()["ffn"]["prune"][-1]
    network.inputs[0] += 1
    assert not torch.allclose(before, network()["ffn"]["prune"][-1])


@pytest.mark.parametrize("logit", [-2.0, -0.5, 0.0, 1.0])
def test_samples_are_one_as_often_as_the_gumbel_sample_says(logit):
    sample = binary(torch.full((40_000,), logit), 0.4, torch.Generator().manual_seed(0))
    assert set(sample.unique().tolist()) <= {0.0, 1.0}
    assert float(sample.mean()) == pytest.approx(1 - math.exp(-math.exp(logit)), abs=0.01)


def test_the_offset_starts_training_from_the_full_model(geometry):
    generator = torch.Generator().manual_seed(0)
    for vectors in HyperNetwork(geometry, 0, 0.1)().values():
        assert all((binary(v + 3.0, 0.4, generator) == 1).all() for v in vectors.values())


def test_gradients_pass_the_rounding_straight_through():
    logit = torch.zeros(100, requires_grad=True)
    binary(logit, 0.4, torch.Generator().manual_seed(0)).sum().backward()
    assert (logit.grad > 0).all()
