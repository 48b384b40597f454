"""The bench of inference: plans of the size that is asked for, each case once, killed or not, and what it tells."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from towers import PATHS, TwoTowers, example, two_towers, views

from snp.bench import inference
from snp.bench.inference import BATCHES, CASE, EXAMPLES, GOALS, KEEP, Example, Timed
from snp.compression.plan import Plan
from snp.compression.surgery import apply
from snp.compression.tower import Shape

SMALL = Example(
    two_towers,
    {"structured": ("vision", "text"), "joint": ("vision", "text"), "shared": ("text",)},
    {
        "vision": Timed("vision", lambda batch: example(batch)[0], lambda model, images: model.vision(images)),
        "text": Timed("text", lambda batch: example(batch)[1], lambda model, words: model.text(words)),
    },
)
LINES = 2 + 1 + 2 + 2  # of a model that shares, its second tower is timed as it is and materialized


def bench(path: Path, **changes: Any) -> str:
    return inference.inference(
        **{"examples": {"small": SMALL}, "batches": {2: 2}, "threads": (1,), "path": path} | changes
    )


def test_every_case_is_measured_and_told_beside_its_operations(tmp_path: Path) -> None:
    path = tmp_path / "inference.json"
    told = bench(path).splitlines()
    lines = json.loads(path.read_text(encoding="utf-8"))["measured"]
    assert len(told) == len(lines) == LINES == len({tuple(line[key] for key in CASE) for line in lines})
    for line in lines:
        assert line["low"] <= line["ratio"] <= line["high"] and line["rounds"] == 2
        assert (line["operations"] < 1) == (line["kind"] != "shared")
        assert line["disk"][1] < 0.65 * line["disk"][0]
        dense, small = line["memory"]
        assert dense > small >= 0.59 * dense
    # what maps keep is beside the parts that they keep it of; a copy has whole weights alone
    by_way = {line["way"]: line["memory"][1] for line in lines if line["kind"] == "joint" and line["tower"] == "text"}
    assert by_way["as it is"] > by_way["materialized"]
    assert all("of them, within" in line or "of them, above" in line for line in told)


def test_what_is_measured_is_not_measured_again_by_the_same_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, about = (
        tmp_path / "inference.json",
        {"commit": "1", "dirty": False, "cpu": "one", "torch": "2", "time": "now"},
    )
    monkeypatch.setattr(inference, "bench_state", lambda: about)
    bench(path)
    found = json.loads(path.read_text(encoding="utf-8"))
    found["measured"] = found["measured"][1:]  # killed in between
    path.write_text(json.dumps(found), encoding="utf-8")
    bench(path)
    again = json.loads(path.read_text(encoding="utf-8"))["measured"]
    assert again[:-1] == found["measured"] and len(again) == LINES
    monkeypatch.setattr(inference, "compressed", None)  # nothing is left to be made
    bench(path)
    for change in ({"commit": "2"}, {"dirty": True}, {"cpu": "another"}):
        monkeypatch.setattr(inference, "bench_state", lambda change=change: about | change)
        assert inference._begun(path)["measured"] == []


@pytest.mark.parametrize("alike", [True, False], ids=["towers of one shape", "of two"])
def test_joint_plans_are_as_large_as_they_may_be_and_share_where_they_can(alike: bool) -> None:
    model = two_towers()
    if not alike:
        from open_clip.transformer import TextTransformer

        sizes = {"context_length": 7, "vocab_size": 19, "width": 16, "heads": 2, "layers": 3, "output_dim": 32}
        model.text = TextTransformer(**sizes)
    plan = inference.joint(model, PATHS)
    assert plan == inference.joint(model, PATHS)
    whole, stored = (sum(p.numel() for p in one.parameters()) for one in (model, apply(model, plan, PATHS)))
    assert KEEP - 0.02 < stored / whole <= KEEP
    assert {share.donor[0] for share in plan.shares} == ({"vision", "text"} if alike else {"text"})
    assert {share.receiver.tower for share in plan.shares} == {"text"}


def test_joint_plans_have_heads_of_unequal_sizes_as_snp_makes_them() -> None:
    sizes = dict.fromkeys(("vision", "text"), Shape(layers=3, d_model=768, n_heads=12, d_head=64, d_ffn=3072))
    plan = inference._drawn(sizes, 0.6)
    kept = [[int(plan.kept(*place, c).sum()) for c in ("qk", "vo")] for place in plan.layers]
    assert any(qk != vo for qk, vo in kept) and all(0.45 * 64 < n < 0.75 * 64 for both in kept for n in both)


def test_parameters_that_are_tied_are_in_memory_once() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    apart = inference.resident(model)
    model[1].weight = model[0].weight
    assert (apart, inference.resident(model)) == (4 * 24, 4 * 15)
    model.register_buffer("more", torch.zeros(5, dtype=torch.half))
    assert inference.resident(model) == 4 * 15 + 10


def test_the_bench_is_of_public_shapes_and_has_a_goal_for_each_kind() -> None:
    assert {*EXAMPLES} == {"DeiT-B", "SigLIP-B/16", "CLIP-B/32"} and {*BATCHES} == {1, 16}
    for one in EXAMPLES.values():
        assert one.kinds.keys() <= GOALS.keys()
        assert all({*towers} <= {*one.towers} for towers in one.kinds.values())
    assert "shared" not in EXAMPLES["CLIP-B/32"].kinds  # its towers differ in width


def test_a_dense_plan_is_what_the_dense_model_is_stored_with() -> None:
    model = TwoTowers()
    stored = inference._disk(model, Plan.dense(views(model)), PATHS)
    assert (
        4 * sum(p.numel() for p in model.parameters()) < stored < 1.1 * 4 * sum(p.numel() for p in model.parameters())
    )
