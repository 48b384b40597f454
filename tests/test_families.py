"""Layers of many families: found by themselves, and compressed with the function of the dense model that is masked."""

from pathlib import Path

import pytest
import torch
from architectures import PUBLIC, Called, built, table
from torch import Tensor, nn
from torch.func import functional_call

import snp
from snp.compression.basis import turn
from snp.compression.finding import Towers, find
from snp.compression.plan import Plan, Share, shapes
from snp.compression.surgery import apply, substitute
from snp.compression.tower import Tower, towers_of
from snp.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore")


def seen(model: nn.Module) -> tuple[Towers, dict[str, Tower]]:
    found = find(model)
    return found, towers_of(model, found.paths, list(found.left))


def close(ours: list[Tensor], theirs: list[Tensor], to: float = 1e-5) -> None:
    """Apart by at most `to` of the largest value."""
    for a, b in zip(ours, theirs, strict=True):
        size = 1 + b[b.isfinite()].abs().max()
        torch.testing.assert_close(a / size, b / size, atol=to, rtol=0, equal_nan=True)


def shareable(tower: Tower, component: str) -> bool:
    return not any(block.alone(component) for block in tower.blocks)


def joint(towers: dict[str, Tower]) -> Plan:
    """A third of the units pruned in every layer, and half of the others of layer 1 those of layer 0."""
    sizes, keep, shares = shapes(towers), {}, []
    for name, shape in sizes.items():
        for component in shape.components:
            kept = torch.arange(shape.units(component)) % 3 != 1
            keep |= {(name, layer, component): kept for layer in range(shape.layers)}
            if shape.layers > 1 and shareable(towers[name], component):
                alive = shape.expand(component, kept)
                units = alive & (torch.arange(len(alive)) % 2 == 0)
                shares.append(Share((name, 1, component), (name, 0), units))
    return Plan(sizes, keep, tuple(shares))


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLIC)
@torch.no_grad()
def test_a_smaller_model_is_the_dense_one_whose_units_are_zero(name: str) -> None:
    model = built(name)
    found, towers = seen(model)
    small, plan = snp.compress(model, "random-structured", keep=0.85, towers="auto")
    expected = functional_call(model, substitute(model, towers, plan), ())
    close(small(), expected, 1e-3 if name == "Grounding DINO" else 1e-5)  # it samples where it is told to look
    assert any(not torch.allclose(a, b, atol=1e-6) for a, b in zip(model(), expected, strict=True))
    dense, stored = (sum(p.numel() for p in m.parameters()) for m in (model, small))
    assert 0.83 < stored / dense <= 0.85
    assert found.paths and all(path.startswith("model.") for path in found.paths.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLIC)
def test_ties_hold_through_a_step_as_if_there_were_one_weight(name: str) -> None:
    model = built(name)
    _, towers = seen(model)
    plan = joint(towers)
    paths = {tower: view.blocks[0].layer.rpartition(".")[0] for tower, view in towers.items()}
    small = apply(model, plan, paths)
    with torch.no_grad():
        close(small(), functional_call(model, substitute(model, towers, plan), ()), 1e-3 if "DINO" in name else 1e-5)
    if not plan.shares:
        return
    for one, run in ((small, small), (model, lambda: functional_call(model, substitute(model, towers, plan), ()))):
        optimizer = torch.optim.SGD(one.parameters(), lr=1e-3)
        values = [value for value in run() if value.requires_grad and value.isfinite().all()]
        sum(value.square().mean() for value in values).backward()
        torch.nn.utils.clip_grad_norm_(one.parameters(), 1.0)
        optimizer.step()
    with torch.no_grad():
        close(small(), functional_call(model, substitute(model, towers, plan), ()), 1e-2 if "DINO" in name else 2e-4)
    stored = [p.data_ptr() for p in small.parameters() if p.numel()]
    assert len(stored) == len(set(stored))


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLIC)
@torch.no_grad()
def test_weights_are_masked_and_bases_keep_the_function(name: str) -> None:
    model = built(name)
    _, towers = seen(model)
    small, plan = snp.compress(model, "magnitude", sparsity=0.5, towers="auto")
    close(small(), functional_call(model, substitute(model, towers, plan), ()))
    before = model()
    turn(towers, "spectral")
    close(model(), before, 5e-4)


@pytest.mark.parametrize("name", ["CLIP", "Llama", "timm EVA02", "BLIP"])
def test_what_is_found_is_named_and_pictures_come_first(name: str) -> None:
    found = find(built(name).model)
    names = {
        "CLIP": {"vision_model": ("attn", "ffn"), "text_model": ("attn", "ffn")},
        "Llama": {"layers": ("heads", "ffn")},
        "timm EVA02": {"blocks": ("attn", "ffn")},
        "BLIP": {"vision_model": ("qk", "vo", "ffn"), "text_model": ("heads", "heads2", "ffn")},
    }[name]
    assert {tower: view.shape.components for tower, view in found.towers.items()} == names
    assert list(found.towers) == list(names) and not found.left


def test_parts_that_cannot_be_cut_stay_whole_and_say_why() -> None:
    found = find(built("Grounding DINO").model)
    assert set(found.towers) >= {"text_backbone", "encoder", "decoder"}
    assert "encoder.layers.0.deformable_layer" in found.left
    assert all("\n" not in why for why in found.left.values())


def test_a_model_without_towers_is_one_line() -> None:
    with pytest.raises(InputError, match=r"towers: it has no list of transformer layers .give groups="):
        find(nn.Sequential(nn.Linear(2, 2)))


def test_parts_may_be_left_whole_by_pattern() -> None:
    model = built("CLIP")
    small, plan = snp.compress(model, "random-structured", keep=0.9, towers="auto", exclude=["*.self_attn"])
    assert all(shape.components == ("ffn",) for shape in plan.towers.values())
    with torch.no_grad():
        found = find(model)
        towers = towers_of(model, found.paths, ["*.self_attn"])
        close(small(), functional_call(model, substitute(model, towers, plan), ()))
    with pytest.raises(InputError, match=r"layers\.0: no part of CLIPEncoderLayer is left to be cut"):
        snp.compress(model, "random-structured", keep=0.9, towers={"t": "model.text_model"}, exclude=["*"])


@pytest.mark.parametrize(("name", "why"), [("timm EVA02", "keeps its size"), ("timm Swin", "beside its maps")])
def test_units_of_what_keeps_its_size_or_has_more_than_maps_are_not_shared(name: str, why: str) -> None:
    model = built(name)
    _, towers = seen(model)
    sizes = shapes(towers)
    tower, shape = next((t, s) for t, s in sizes.items() if s.layers > 1)
    component = shape.components[0]
    if shareable(towers[tower], component):
        pytest.skip("its heads are cut by dimensions")
    share = Share((tower, 1, component), (tower, 0), torch.ones(shape.units(component, "share"), dtype=torch.bool))
    with pytest.raises(InputError, match=why):
        Plan(sizes, shares=(share,)).check(towers, model)


def test_a_called_model_gives_what_its_family_gives() -> None:
    assert all(value.is_floating_point() for value in Called(nn.Linear(2, 2), lambda m: m(torch.ones(2)))())


@pytest.mark.slow
def test_the_page_shows_what_is_cut_in_each() -> None:
    """`python tests/architectures.py` writes it anew."""
    assert table() in (Path(__file__).parents[1] / "docs" / "families.md").read_text(encoding="utf-8")
