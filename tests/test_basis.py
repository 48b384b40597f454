"""Bases of units: the function of a model stays, and what its layers do lies in their first units."""

import copy

import pytest
import torch
from towers import example, two_towers, views

import snp
from snp.compression.basis import turn
from snp.compression.tower import towers_of

BASES = ("sorted", "spectral")


def turned(basis):
    """A model before and after, in double precision."""
    model = two_towers().double()
    after = copy.deepcopy(model)
    turn(views(after), basis)
    return model, after


def products(block):
    """Of every head, what queries and keys make of pairs of tokens, and what values and outputs write: [h, d, d]."""
    h = block.n_heads
    q, k, v = (torch.cat([block.weight(r), block.bias(r)[:, None]], 1).unflatten(0, (h, -1)) for r in "qkv")
    return q.mT @ k, block.weight("o").unflatten(1, (h, -1)).permute(1, 0, 2) @ v


@pytest.mark.parametrize("basis", BASES)
def test_the_function_stays_and_the_weights_do_not(basis):
    model, after = turned(basis)
    images, words = example()
    torch.testing.assert_close(after(images.double(), words), model(images.double(), words), atol=1e-10, rtol=1e-10)
    for tower, other in zip(views(model).values(), views(after).values(), strict=True):
        for before, block in zip(tower.blocks, other.blocks, strict=True):
            for role in ("q", "k", "v", "o", "fc1", "fc2"):
                assert not torch.allclose(block.weight(role), before.weight(role), atol=1e-3)
            assert torch.equal(block.bias("o"), before.bias("o"))


@pytest.mark.parametrize("basis", BASES)
def test_a_basis_is_where_it_stays(basis):
    _, once = turned(basis)
    again = copy.deepcopy(once)
    turn(views(again), basis)
    for name, tower in views(once).items():
        for block, other in zip(tower.blocks, views(again)[name].blocks, strict=True):
            for component in ("qk", "vo", "ffn"):
                torch.testing.assert_close(other.units(component).norm(dim=1), block.units(component).norm(dim=1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_basis_is_found_in_any_floating_type(dtype):
    model = two_towers().to(dtype)
    turn(views(model), "spectral")
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_units_of_the_ffn_fall_in_norm():
    for basis in BASES:
        for tower in views(turned(basis)[1]).values():
            for block in tower.blocks:
                norms = block.units("ffn").norm(dim=1)
                assert (norms.diff() <= 0).all()


def test_sorted_dimensions_fall_in_norm_inside_every_head():
    for tower in views(turned("sorted")[1]).values():
        for block in tower.blocks:
            for component in ("qk", "vo"):
                norms = block.units(component).norm(dim=1).unflatten(0, (block.n_heads, -1))
                assert (norms.diff(dim=1) <= 0).all()


def test_the_first_spectral_dimensions_of_a_head_are_its_best_approximation():
    _, model = turned("spectral")
    for tower in views(model).values():
        for block in tower.blocks:
            dense = products(block)
            half = block.d_qk // 2
            with torch.no_grad():
                for role, dim in (("q", 0), ("k", 0), ("v", 0), ("o", 1)):
                    block.weight(role).unflatten(dim, (block.n_heads, -1)).narrow(dim + 1, half, half).zero_()
                    if dim == 0:
                        block.bias(role).unflatten(0, (block.n_heads, -1))[:, half:] = 0
            for whole, cut in zip(dense, products(block), strict=True):
                lost = torch.linalg.svdvals(whole.detach())[:, half:].square().sum(1)  # Eckart and Young
                torch.testing.assert_close((whole - cut).square().sum((1, 2)).detach(), lost)


def test_the_spectral_basis_is_balanced():
    """Queries and keys are of one size, so that neither is seen as the larger part of a unit."""
    for tower in views(turned("spectral")[1]).values():
        for block in tower.blocks:
            q, k = (torch.cat([block.weight(r), block.bias(r)[:, None]], 1).norm(dim=1) for r in "qk")
            torch.testing.assert_close(q, k)


def test_a_model_of_ones_own_is_compressed_in_a_basis_and_left_as_it_was():
    model = two_towers()
    before = copy.deepcopy(model.state_dict())
    towers = {"vision": "vision", "text": "text"}
    small, plan = snp.compress(model, "magnitude-structured", keep=0.7, towers=towers, basis="spectral")
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert small(*example()).isfinite().all()
    kept = [plan.kept(tower, layer, "vo") for tower in towers for layer in range(2)]
    assert all((units.int().diff() <= 0).all() for units in kept)  # a head's last dimensions are what is cut
    assert towers_of(small, towers)["text"].blocks[0].compressed
