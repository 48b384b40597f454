"""An audit: a sample of results is run afresh, and every one comes out to the bit, near, or off."""

import copy
from dataclasses import replace

import pytest

from snp.errors import InputError
from snp.experiment.spec import Compress, Finetune, Pretrain
from snp.report.audit import audited
from snp.runs import audit
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


def pair(more: float, seed: int = 0) -> audit.Audited:
    """A result, and the same run with so many points more on one split."""
    manifest = {"commit": "0123456789abcdef", "data_hash": "ab"}
    kept = Result(run(seed), manifest, {"splits": SPLITS, "zero_shot": {}})
    costs = Result(run(seed).parent, manifest, COSTS)
    metrics = copy.deepcopy(kept.metrics)
    metrics["splits"]["testA"]["precision@1"] += more / 100
    slower = replace(costs, metrics=copy.deepcopy(COSTS) | {"seconds": 9.0})
    return audit.Audited((kept, costs), (replace(kept, metrics=metrics), slower))


@pytest.mark.parametrize(
    ("more", "verdict"), [(0, "to the bit"), (0.3, "near"), (-0.4, "near"), (0.6, "off"), (-2, "off")]
)
def test_a_result_is_judged_by_its_worst_split(more, verdict):
    one = pair(more)
    assert one.verdict == verdict
    assert one.worst == pytest.approx(more)


def test_what_no_table_shows_counts_too():
    one = pair(0)
    one.afresh[0].metrics["splits"]["val"]["mean_iou"] += 1e-9
    assert one.verdict == "near"


@pytest.mark.parametrize("change", ["a split is missing", "a figure", "what is stored", "the data"])
def test_a_result_that_somebody_changed_is_off(change):
    one = pair(0)
    scores, costs = one.afresh
    if change == "a split is missing":
        del scores.metrics["splits"]["testB"]
    elif change == "a figure":
        scores.metrics["splits"]["val"]["precision@5"] = 0.99
    elif change == "what is stored":
        costs.metrics["stored_ratio"] = 0.1
    else:
        one = replace(one, afresh=(replace(scores, manifest={"data_hash": "cd"}), costs))
    assert one.verdict == "off"


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
