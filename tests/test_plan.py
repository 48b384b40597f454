"""Plans: values that check themselves, know their cost, and survive JSON."""

import json
from dataclasses import replace

import pytest
import torch
from towers import two_towers, views

from snp.compression.codec import decode_units, encode_units
from snp.compression.plan import Plan, Share, shapes
from snp.compression.tower import Shape
from snp.errors import InputError

SHAPE = Shape(layers=3, d_model=32, n_heads=4, d_head=8, d_ffn=128)
TOWERS = {"vision": SHAPE, "text": SHAPE}


def units(n: int, *chosen: int) -> torch.Tensor:
    mask = torch.zeros(n, dtype=torch.bool)
    mask[list(chosen)] = True
    return mask


def chain() -> Plan:
    """FFN units 3 and 4: text 2 -> text 0 -> vision 0; unit 5: text 2 -> text 0."""
    shares = (
        Share(("text", 0, "ffn"), ("vision", 0), units(128, 3, 4)),
        Share(("text", 2, "ffn"), ("text", 0), units(128, 3, 4, 5)),
    )
    return Plan(TOWERS, {("text", 1, "qk"): ~units(8, 0, 7)}, shares)


def test_a_dense_plan_stores_everything():
    cost = Plan.dense(TOWERS).cost()
    assert cost["stored"] == cost["dense"] == 2 * SHAPE.cost
    assert cost["removed"] == cost["shared"] == cost["pruned"] == cost["masked"] == 0


def test_costs_are_counted_by_hand():
    cost = chain().cost()
    assert cost["shared"] == 5 * (2 * 32 + 1)
    assert cost["pruned"] == 2 * 2 * 4 * (32 + 1)
    assert cost["removed"] == cost["shared"] + cost["pruned"]
    assert cost["stored"] == cost["dense"] - cost["removed"]
    assert cost["towers"]["vision"]["stored"] == SHAPE.cost


def test_masks_count_as_removed_but_stored():
    plan = Plan(TOWERS, masks={"w": units(10, 1, 2, 3)})
    assert plan.cost()["masked"] == plan.cost()["removed"] == 7
    assert plan.cost()["stored"] == 2 * SHAPE.cost


def test_owners_are_found_through_chains_of_donors():
    plan = chain()
    owner = plan.owner("text", 2, "ffn")
    assert [plan.layers[i] for i in owner[[3, 5, 6]]] == [("vision", 0), ("text", 0), ("text", 2)]
    assert plan.own("text", 2, "ffn").sum() == 125
    assert plan.own("text", 1, "qk").sum() == 24 == plan.survives("text", 1, "qk").sum()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"keep": {("text", 0, "ffn"): units(128)}}, "leaves no unit"),
        ({"keep": {("text", 0, "ffn"): units(127, 1)}}, r"has shape \[127\], not \[128\]"),
        ({"keep": {("text", 0, "ffn"): torch.ones(128)}}, "float32, not a bool"),
        ({"keep": {("text", 3, "ffn"): units(128, 1)}}, "no such tower, layer"),
        ({"keep": {("audio", 0, "ffn"): units(128, 1)}}, "no such tower, layer"),
        ({"keep": {("text", 0, "mlp"): units(128, 1)}}, "no such tower, layer"),
        ({"keep": {("text", 0, "ffn"): ~units(128, 4)}}, r"pruned in \('text', 0\)"),
        ({"keep": {("vision", 0, "ffn"): ~units(128, 4)}}, r"pruned in \('vision', 0\)"),
        ({"shares": (Share(("text", 0, "qk"), ("vision", 0), units(8, 1)),)}, r"\[8\], not \[32\]"),
        ({"shares": (Share(("text", 0, "qk"), ("vision", 9), units(32, 1)),)}, "no such tower, layer"),
        ({"shares": (Share(("text", 0, "qk"), ("text", 0), units(32, 1)),)}, "cycle"),
        ({"masks": {"w": units(4)}}, "leaves no weight"),
        ({"masks": {"w": torch.ones(4)}}, "not a bool"),
    ],
)
def test_invalid_decisions_are_refused(change, problem):
    with pytest.raises(InputError, match=problem):
        replace(chain(), **change)


def test_a_unit_has_at_most_one_donor():
    second = Share(("text", 2, "ffn"), ("vision", 2), units(128, 5))
    with pytest.raises(InputError, match="two donors"):
        replace(chain(), shares=(*chain().shares, second))
    with pytest.raises(InputError, match="twice"):
        replace(chain(), shares=(*chain().shares, *chain().shares))


@pytest.mark.parametrize("length", [2, 3])
def test_donors_never_form_a_cycle(length):
    ring = [("text", layer) for layer in range(length)]
    shares = tuple(Share((*ring[i], "vo"), ring[(i + 1) % length], units(32, 9)) for i in range(length))
    with pytest.raises(InputError, match="cycle"):
        Plan(TOWERS, shares=shares)
    open_chain = Plan(TOWERS, shares=shares[:-1])  # one link less, and it is a chain
    assert open_chain.cost()["shared"] == (length - 1) * 65


def test_layers_may_give_and_take_different_units():
    there = Share(("text", 0, "ffn"), ("text", 1), units(128, 1))
    back = Share(("text", 1, "ffn"), ("text", 0), units(128, 2))
    assert Plan(TOWERS, shares=(there, back)).cost()["shared"] == 2 * 65


def test_towers_of_different_width_cannot_share():
    towers = {"vision": SHAPE, "text": replace(SHAPE, d_model=64, d_head=16)}
    with pytest.raises(InputError, match="differ in size"):
        Plan(towers, shares=(Share(("text", 0, "ffn"), ("vision", 0), units(128, 1)),))


def test_a_plan_cannot_be_changed_from_outside():
    kept = ~units(128, 4)
    plan = Plan(TOWERS, {("text", 0, "ffn"): kept})
    kept[:] = False
    assert plan.kept("text", 0, "ffn").sum() == 127
    with pytest.raises(AttributeError):
        plan.note = "other"


def test_json_gives_the_same_plan():
    random = torch.Generator().manual_seed(0)
    plan = replace(chain(), masks={"w": torch.rand(13, 7, generator=random) < 0.3}, note="its ceiling")
    again = Plan.from_json(plan.to_json())
    assert again == plan and again.digest == plan.digest and again.note == "its ceiling"
    assert torch.equal(again.masks["w"], plan.masks["w"])
    assert again != chain()


def test_equal_decisions_are_equal_plans_however_they_are_written():
    split = tuple(Share(("text", 0, "ffn"), ("vision", 0), units(128, i)) for i in (4, 3))
    whole = (Share(("text", 0, "ffn"), ("vision", 0), units(128, 3, 4)),)
    everything = {("text", 2, "vo"): torch.ones(8, dtype=torch.bool)}
    assert Plan(TOWERS, everything, split) == Plan(TOWERS, {}, whole)


@pytest.mark.parametrize("chosen", [[], [0], [127], range(128), range(5, 90), [0, 1, 2, 8], range(0, 128, 2)])
def test_unit_sets_survive_as_short_text(chosen):
    text = encode_units(units(128, *chosen))
    assert torch.equal(decode_units(text, 128), units(128, *chosen))
    assert len(text) <= len("base64:") + 24
    assert encode_units(units(9, 0, 1, 2, 3, 4, 5, 8)) == "0-5,8"


@pytest.mark.parametrize("text", ["0-8", "5-3", "x", "-1", "base64:AAAA", "base64:?"])
def test_unit_sets_that_do_not_fit_are_refused(text):
    with pytest.raises(ValueError):
        decode_units(text, 8)


def broken(**change) -> str:
    return json.dumps(json.loads(chain().to_json()) | change)


@pytest.mark.parametrize(
    "text",
    [
        chain().to_json()[:50],
        "[]",
        "null",
        broken(format=99),
        broken(keep={"text/1/qk": "0-99"}),
        broken(keep={"text/1": "0"}),
        broken(keep={"text/1/qk": ""}),
        broken(towers={"vision": {"layers": 3}}),
        broken(masks={"w": [[9], "AAAA"]}),
        broken(shares={"text/0/ffn": {"vision": "0"}}),
    ],
)
def test_malformed_json_names_the_file(text):
    with pytest.raises(InputError, match=r"plan\.json"):
        Plan.from_json(text, "plan.json")


def test_the_summary_is_small_and_json_able():
    summary = json.loads(json.dumps(chain().summary()))
    assert summary["units"]["text"]["qk"] == {"units": 32, "kept": [32, 24, 32], "own": [32, 24, 32]}
    assert summary["units"]["text"]["ffn"]["own"] == [126, 128, 125]
    assert len(json.dumps(summary)) < 3000


def test_the_report_shows_every_layer_and_the_note():
    report = replace(chain(), note="as far as this method goes").report()
    assert "24/32" in report and "128/128 (2)" in report and "128/128 (3)" in report
    assert report.count("\n") == 1 + 6 + 1 and report.endswith("as far as this method goes")


def test_a_plan_is_checked_against_the_model():
    towers = views(model := two_towers())
    weight = "vision.blocks.0.mlp.fc1.weight"
    mask = torch.rand(128, 32) < 0.5
    Plan(shapes(towers), masks={weight: mask}).check(towers, model)
    with pytest.raises(InputError, match="made for towers"):
        chain().check(towers, model)
    with pytest.raises(InputError, match="no such parameter"):
        Plan(shapes(towers), masks={"vision.nothing": mask}).check(towers, model)
    with pytest.raises(InputError, match=r"has shape \[32, 128\]"):
        Plan(shapes(towers), masks={weight: mask.T.contiguous()}).check(towers, model)
    with pytest.raises(InputError, match="cut or shared"):
        Plan(shapes(towers), {("vision", 0, "ffn"): ~units(128, 1)}, masks={weight: mask}).check(towers, model)
