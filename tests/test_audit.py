"""An audit: a sample of results is run afresh, and every one comes out to the bit, near, or off."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from snp.errors import InputError
from snp.experiment.spec import Compress, Finetune, Pretrain, Run
from snp.report.audit import audited
from snp.runs import audit
from snp.runs.metrics import check
from snp.runs.result import Result
from snp.runs.store import Store

SCORE = {"n": 10, "precision@1": 0.8, "precision@5": 0.9, "precision@10": 0.95, "mean_iou": 0.7}
COSTS = {"kind": "joint", "stored_params": 60, "stored_ratio": 0.6, "tower_ratio": 0.5, "nonzero_ratio": 0.6,
         "flops_ratio": 0.7, "seconds": 5.0, "plan": {}}  # fmt: skip
SPLITS = {split: dict(SCORE) for split in ("val", "testA", "testB")}


def run(seed: int, keep: float = 0.6) -> Finetune:
    dense = Pretrain(scale="smoke", data="scenes")
    parent = Compress(scale="smoke", data="scenes", method="snp", keep=keep, seed=seed, parent=dense)
    return Finetune(benchmark="refcoco", parent=parent)


def result(of: Run, metrics: dict[str, Any]) -> Result:
    manifest = {"commit": "0123456789abcdef", "data_hash": "ab"}
    return Result(of, manifest, metrics, measured=check(of, metrics, "metrics"))


def pair(more: float, seed: int = 0) -> audit.Audited:
    """A result, and the same run with so many points more on one split."""
    kept, costs = result(run(seed), {"splits": SPLITS, "zero_shot": {}}), result(run(seed).parent, COSTS)
    metrics = copy.deepcopy(kept.metrics)
    metrics["splits"]["testA"]["precision@1"] += more / 100
    slower = result(run(seed).parent, COSTS | {"seconds": 9.0})
    return audit.Audited((kept, costs), (result(run(seed), metrics), slower))


@pytest.mark.parametrize(
    ("more", "verdict"), [(0, "to the bit"), (0.3, "near"), (-0.4, "near"), (0.6, "off"), (-2, "off")]
)
def test_a_result_is_judged_by_its_worst_split(more, verdict):
    one = pair(more)
    assert one.verdict == verdict
    assert one.worst == pytest.approx(more)


def changed(one: audit.Audited, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> audit.Audited:
    """The same with the metrics of scores and costs as somebody changed them."""
    scores, costs = (copy.deepcopy(part.metrics) for part in one.afresh)
    change(scores, costs)
    return replace(one, afresh=(result(one.afresh[0].run, scores), result(one.afresh[1].run, costs)))


def test_what_no_table_shows_counts_too():
    one = changed(pair(0), lambda scores, costs: scores["splits"]["val"].update(mean_iou=SCORE["mean_iou"] + 1e-9))
    assert one.verdict == "near"


@pytest.mark.parametrize(
    "change",
    [
        lambda scores, costs: scores["splits"].pop("testB"),
        lambda scores, costs: scores["splits"]["val"].update({"precision@5": 0.99}),
        lambda scores, costs: costs.update(stored_ratio=0.1),
    ],
    ids=["a split is missing", "a figure", "what is stored"],
)
def test_a_result_that_somebody_changed_is_off(change):
    assert changed(pair(0), change).verdict == "off"


def test_a_result_of_other_data_is_off():
    one = pair(0)
    scores, costs = one.afresh
    assert replace(one, afresh=(replace(scores, manifest={"data_hash": "cd"}), costs)).verdict == "off"


@pytest.fixture
def store(tmp_path) -> Store:
    store = Store(tmp_path / "runs")
    for seed in range(6):
        store.begin(run(seed))
        store.save(run(seed), {}, {"splits": SPLITS})
    return store


def test_a_sample_is_drawn_by_its_seed_from_all_scored_runs(store):
    first = audit.sample(store, 3, seed=0)
    assert len({*first}) == 3
    assert audit.sample(store, 3, seed=0) == first
    assert {*audit.sample(store, 99, seed=0)} == {run(seed) for seed in range(6)}
    assert {one for seed in range(20) for one in audit.sample(store, 3, seed)} == {run(seed) for seed in range(6)}


def test_a_folder_without_scored_runs_is_one_line(tmp_path):
    with pytest.raises(InputError, match="holds no scored run"):
        audit.sample(Store(tmp_path), 3, seed=0)


def test_the_summary_names_the_worst_last_and_counts(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    text = audited([pair(-2), pair(0, seed=1), pair(0.3, seed=2)])
    lines = text.splitlines()
    places = [next(i for i, line in enumerate(lines) if f"seed{seed}" in line) for seed in (1, 2, 0)]
    assert places == sorted(places)
    assert "-2.00" in lines[places[-1]] and "0123456789" in lines[places[-1]]
    assert "1 to the bit, 1 near, 1 off of 3" in text
