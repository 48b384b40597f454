"""The result store: states, validity, atomic results, logs that survive a kill."""

import json
from pathlib import Path

import pytest
from synthetic import MANIFEST, cost, finetuned

from snp.errors import InputError
from snp.experiment.manifest import manifest
from snp.experiment.store import CURVE_POINTS, Store
from snp.experiment.tables import find

ROW = find("scenes/snp@60", "smoke")
COMPRESS, FINETUNE = ROW.compress(0), ROW.finetune(0, "refcoco")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "results")


def test_a_run_is_missing_then_incomplete_then_done(store: Store) -> None:
    assert store.state(COMPRESS) == "missing"
    store.begin(COMPRESS)
    assert store.state(COMPRESS) == "incomplete"
    store.save(COMPRESS, MANIFEST, cost(ROW))
    assert store.state(COMPRESS) == "done"


def test_a_folder_with_only_a_checkpoint_is_incomplete(store: Store) -> None:
    store.folder(COMPRESS).mkdir(parents=True)
    (store.folder(COMPRESS) / "checkpoint.safetensors").write_bytes(b"weights")
    assert store.state(COMPRESS) == "incomplete"


def test_a_run_begun_again_keeps_its_state_and_drops_what_a_kill_cut_off(store: Store) -> None:
    folder = store.begin(COMPRESS)
    for name in ("state.pt", ".state.pt.x1y2z3.part"):
        (folder / name).write_bytes(b"state")
    store.begin(COMPRESS)
    assert {path.name for path in folder.iterdir()} == {"spec.json", "state.pt"}


def test_a_result_comes_back_as_it_was_saved(store: Store) -> None:
    metrics = finetuned("refcoco", 0.875)
    store.save(FINETUNE, MANIFEST, metrics, [{"step": 1, "loss": 0.1}])
    found = store.result(FINETUNE)
    assert (found.run, found.manifest, found.metrics) == (FINETUNE, MANIFEST, metrics)
    assert found.curve == [{"step": 1, "loss": 0.1}]


def test_the_same_result_has_the_same_bytes(store: Store) -> None:
    path = store.folder(FINETUNE) / "result.json"
    store.save(FINETUNE, MANIFEST, finetuned("refcoco", 0.875))
    first = path.read_bytes()
    store.save(FINETUNE, dict(reversed(MANIFEST.items())), finetuned("refcoco", 0.875))
    assert path.read_bytes() == first


def test_a_result_cut_in_half_is_named_and_never_taken_for_missing(store: Store) -> None:
    store.save(COMPRESS, MANIFEST, cost(ROW))
    path = store.folder(COMPRESS) / "result.json"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    for look in (store.state, store.result, store.find):
        with pytest.raises(InputError, match=r"result\.json: not valid JSON.*delete the file"):
            look(COMPRESS)


def test_a_result_in_the_folder_of_another_run_is_refused(store: Store) -> None:
    store.save(COMPRESS, MANIFEST, cost(ROW))
    other = ROW.compress(1)
    store.folder(other).mkdir()
    (store.folder(other) / "result.json").write_bytes((store.folder(COMPRESS) / "result.json").read_bytes())
    with pytest.raises(InputError, match="holds the result of scenes-snp-keep60-seed0"):
        store.state(other)


@pytest.mark.parametrize("field", ["kind", "stored_params", "stored_ratio", "nonzero_ratio", "flops_ratio"])
def test_a_missing_measurement_is_refused_and_nothing_is_written(store: Store, field: str) -> None:
    metrics = cost(ROW)
    del metrics[field]
    with pytest.raises(InputError, match=field):
        store.save(COMPRESS, MANIFEST, metrics)
    assert store.state(COMPRESS) == "missing"


def test_a_precision_above_one_is_refused_with_its_place(store: Store) -> None:
    with pytest.raises(InputError, match=r"splits\.val\.precision@1"):
        store.save(FINETUNE, MANIFEST, finetuned("refcoco", 1.5))


def test_a_long_curve_is_thinned_to_its_ends_so_that_results_stay_small(store: Store) -> None:
    curve = [{"step": step, "loss": 1 / (step + 1)} for step in range(9001)]
    kept = store.save(FINETUNE, MANIFEST, finetuned("refcoco", 0.9), curve).curve
    assert len(kept) == CURVE_POINTS and kept[0] == curve[0] and kept[-1] == curve[-1]
    assert (store.folder(FINETUNE) / "result.json").stat().st_size < 20_000


def test_results_are_listed_by_kind(store: Store) -> None:
    store.save(COMPRESS, MANIFEST, cost(ROW))
    store.save(FINETUNE, MANIFEST, finetuned("refcoco", 0.9))
    assert [result.run for result in store.results("finetune")] == [FINETUNE]
    assert len(list(store.results())) == 2


def test_a_log_line_cut_by_a_kill_is_left_out_and_repeated_steps_count_once(store: Store) -> None:
    store.begin(COMPRESS)
    for step, loss in [(1, 3.0), (2, 2.0), (2, 1.5)]:
        store.log(COMPRESS, {"step": step, "loss": loss})
    with open(store.folder(COMPRESS) / "log.jsonl", "a") as file:
        file.write('{"step": 3, "lo')
    assert store.read_log(COMPRESS) == [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 1.5}]


def test_a_store_borrows_only_finished_pretraining_from_its_base(store: Store, tmp_path: Path) -> None:
    store.save(ROW.pretrain, MANIFEST, {"params": {"all": 1}})
    store.save(COMPRESS, MANIFEST, cost(ROW))
    own = Store(tmp_path / "own", base=store)
    assert own.state(ROW.pretrain) == "done" and own.folder(ROW.pretrain) == store.folder(ROW.pretrain)
    assert own.state(COMPRESS) == "missing"
    assert not own.root.exists()


def test_a_manifest_says_how_a_result_came_about() -> None:
    from datetime import UTC, datetime

    started = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    found = manifest(FINETUNE, {"batch": 32}, threads=1, data_hash="abc", started=started, wall_seconds=1.23)
    assert found["config"] == {"spec": FINETUNE.canonical(), "recipe": {"batch": 32}}
    assert (found["seed"], found["threads"], found["data_hash"]) == (0, 1, "abc")
    assert (found["started"], found["wall_seconds"]) == ("2026-01-02T03:04:05+00:00", 1.2)
    assert {"torch", "timm", "open_clip_torch", "transformers"} <= found["packages"].keys()
    assert found["cpu"] and found["python"].startswith("3.")
    assert json.loads(json.dumps(found)) == found


def test_every_committed_result_is_valid_and_small() -> None:
    for scale in ("desk", "smoke"):
        committed = Store.at(scale)
        for result in committed.results():
            path = committed.folder(result.run) / "result.json"
            assert path.exists(), f"{path.parent.name} is not named by its spec"
            assert path.stat().st_size < 25_000, path
