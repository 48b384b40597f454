"""Numbers of units that suit kernels: blocks of units stand and fall together, and the budget is met from below."""

import pytest
import torch
from torch import nn
from towers import PATHS, example, loss_of, two_towers
from transformers import CLIPConfig, CLIPModel, LlamaConfig, LlamaModel

import snp
from baselines.ranking import best_within
from snp.compression.block import Component, Part
from snp.compression.budget import Budget
from snp.compression.method import OneShot
from snp.compression.plan import Plan, shapes
from snp.compression.problem import Problem
from snp.compression.registry import methods, register
from snp.compression.rounding import blocks, step_of
from snp.compression.tower import Site, towers_of
from snp.errors import InputError

CUTTING = [name for name, cls in methods().items() if cls.kind in ("structured", "joint")]
SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


def compressed(name: str, keep: float, round_to: int, **options: object) -> tuple[nn.Module, nn.Module, Plan]:
    model = two_towers()
    small, plan = snp.compress(
        model,
        name,
        keep=keep,
        towers=PATHS,
        calibration=[example(seed=i) for i in range(8)],
        forward=lambda model, batch: model(*batch),
        loss=loss_of,
        steps=20 if methods()[name].stage == "training" else 0,
        round_to=round_to,
        **options,
    )
    return model, small, plan


def size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("keep", [0.7, 0.45])
@pytest.mark.parametrize("name", CUTTING)
def test_every_method_that_cuts_keeps_multiples_and_meets_the_budget_from_below(name: str, keep: float) -> None:
    model, small, plan = compressed(name, keep, 4)
    assert all(int(kept.sum()) % 4 == 0 for kept in plan.keep.values())
    shape = plan.towers["vision"]
    towers = 2 if methods()[name].kind == "joint" or name == "upop" else 1
    most = max(4 * shape.unit_cost(c) for c in shape.components) * towers  # upop cuts qk and vo together
    assert 0 <= keep * size(model) - size(small) < most
    if name == "snp":  # single units that are shared make up for the blocks
        assert keep * size(model) - size(small) < max(shape.unit_cost(c, "share") for c in shape.components)


@pytest.mark.slow
def test_snp_that_only_prunes_gives_back_blocks_that_fit() -> None:
    model, small, plan = compressed("snp", 0.6, 4, cross=False, blockwise=False)
    shape = plan.towers["vision"]
    assert all(int(kept.sum()) % 4 == 0 for kept in plan.keep.values())
    assert 0 <= 0.6 * size(model) - size(small) < 2 * 4 * min(shape.unit_cost(c) for c in shape.components)


def test_blocks_hold_units_of_adjacent_ranks_and_the_last_one_what_is_left_over() -> None:
    scores = torch.tensor([0.3, 0.9, 0.1, 0.7, 0.5, 0.2, 0.8])
    assert blocks(scores, 2) == [[1, 6], [3, 4], [0, 5, 2]]
    assert blocks(scores, 1) == [[1], [6], [3], [4], [0], [5], [2]]
    assert blocks(scores, 8) == [[1, 6, 3, 4, 0, 5, 2]]  # fewer than a block: all or none


@pytest.mark.parametrize(
    ("form", "each", "expected"),
    [("hidden", 1, 8), ("dims", 1, 8), ("heads", 64, 1), ("heads", 20, 2), ("padded", 1, 1)],
)
def test_widths_of_maps_are_what_is_rounded(form: str, each: int, expected: int) -> None:
    parts = (Part("q", 0, 2 * each), Part("k", 0, each), Part("v", 0, each), Part("o", 1, 2 * each))
    assert step_of(Component("attn", form, parts, 1, 12), 8) == expected


def test_scores_decide_which_blocks_stay() -> None:
    model = two_towers()
    towers = towers_of(model, PATHS)
    problem = Problem(model, towers, Budget.from_model(model, towers, 0.8), 0, loss_of, lambda: None, round_to=8)
    sites = [
        Site(name, layer, c)
        for name in towers
        for layer in range(2)
        for c, shape in [(c, towers[name].shape) for c in ("qk", "vo", "ffn")]
    ]
    scores = {site: torch.arange(towers[site.tower].shape.units(site.component)).float() for site in sites}
    scores[Site("vision", 0, "ffn")] += 1000  # all of it before anything else
    plan = best_within(problem, scores)
    assert Site("vision", 0, "ffn") not in plan.keep
    assert all(kept[int(kept.logical_not().sum()) :].all() for kept in plan.keep.values())  # the best ones
    assert not any(site.component != "ffn" for site in plan.keep)  # of 8 dimensions a head: one block, which stays


def test_maps_of_other_families_get_such_widths_too() -> None:
    vision, text = {**SIZES, "image_size": 16, "patch_size": 8}, {**SIZES, "vocab_size": 60, "eos_token_id": 59}
    clip = CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=16))
    small, _ = snp.compress(clip, "magnitude-structured", keep=0.6, towers="auto", round_to=8)
    for layer in (*small.vision_model.encoder.layers, *small.text_model.encoder.layers):
        assert layer.self_attn.head_dim in (8, 16) and layer.mlp.fc1.out_features % 8 == 0


def test_whole_heads_are_as_wide_as_they_are() -> None:
    llama = LlamaModel(LlamaConfig(**SIZES | {"num_attention_heads": 4, "num_key_value_heads": 4}, vocab_size=60))
    _, plan = snp.compress(llama, "magnitude-structured", keep=0.7, towers="auto", round_to=8)
    heads = {int(kept.sum()) for site, kept in plan.keep.items() if site.component == "heads"}
    hidden = {int(kept.sum()) for site, kept in plan.keep.items() if site.component == "ffn"}
    assert any(number % 8 for number in heads) and not any(number % 8 for number in hidden)


@pytest.mark.slow
@pytest.mark.parametrize("hidden", [96, 100])
def test_towers_that_share_a_part_of_their_units_keep_multiples_too(hidden: int) -> None:
    vision = {**SIZES, "image_size": 16, "patch_size": 8, "intermediate_size": hidden}
    text = {**SIZES, "vocab_size": 60, "eos_token_id": 59, "num_hidden_layers": 3}
    torch.manual_seed(0)
    clip = CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=16))
    batches = [
        {"pixel_values": torch.randn(4, 3, 16, 16), "input_ids": torch.randint(58, (4, 7)), "return_loss": True}
        for _ in range(4)
    ]
    how = {"calibration": batches, "forward": lambda model, batch: model(**batch)}
    how["loss"] = lambda model, batch: model(**batch).loss
    small, plan = snp.compress(clip, "snp", keep=0.6, towers="auto", steps=20, round_to=8, **how)
    assert 0 <= 0.6 * size(clip) - size(small) < 66  # a unit that is shared
    odd = {site.tower for site, kept in plan.keep.items() if int(kept.sum()) % 8}
    assert odd <= ({"vision_model"} if hidden % 8 else set())


def test_where_not_one_block_of_each_fits_the_way_out_is_named() -> None:
    with pytest.raises(InputError, match=r"keep: 0\.3 is too small \(at least 0\.\d+ must remain\)"):
        compressed("magnitude-structured", 0.3, 64)


@pytest.mark.parametrize(("name", "options"), [("omp", {}), ("upop", {"mode": "official"})])
def test_methods_that_cannot_are_refused_before_any_work(name: str, options: dict[str, str]) -> None:
    with pytest.raises(InputError, match=f"round_to: {name} cuts"):
        compressed(name, 0.6, 8, **options)


@pytest.mark.parametrize("value", [0, -8, 1.5, "8", True])
def test_it_is_a_number_of_at_least_one(value: object) -> None:
    with pytest.raises(InputError, match=r"round_to: .* is not a whole number of at least 1"):
        compressed("magnitude-structured", 0.6, value)


def test_a_method_that_does_not_go_by_it_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snp.compression.registry._METHODS", dict(methods()))

    @register
    class Stubborn(OneShot):
        name, kind, stage, source, summary = "stubborn", "structured", "one-shot", "this test", "keeps five"

        def plan(self, problem: Problem) -> Plan:
            return Plan(shapes(problem.towers), {Site("vision", 0, "ffn"): torch.arange(128) < 5})

    with pytest.raises(InputError, match="round_to: stubborn does not go by it: it keeps 5 units of vision/0/ffn"):
        snp.compress(two_towers(), "stubborn", keep=0.9, towers=PATHS, round_to=8)
