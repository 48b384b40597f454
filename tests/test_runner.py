"""What is run: whatever is not done, and again those parents whose weights a checkout does not have."""

from pathlib import Path

import pytest
from synthetic import fill

from snp.experiment.labels import find
from snp.launch.runner import planned
from snp.runs.store import Store

ROW = find("scenes/snp@60", "desk")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Seed 0 of a row is done, by its results; the weights of the compressed model are not there."""
    store = Store(tmp_path, base=Store.at("desk"))
    fill(store, ROW, [0.9])
    return store


def test_what_is_done_is_not_done_again_even_without_weights(store: Store) -> None:
    assert planned([ROW], [0], store) == []


def test_a_missing_fine_tuning_needs_the_compressed_model_again(store: Store) -> None:
    (store.folder(ROW.finetune(0, "refcoco+")) / "result.json").unlink()
    assert planned([ROW], [0], store) == [ROW.compress(0), ROW.finetune(0, "refcoco+")]


def test_with_its_weights_there_it_is_not_needed(store: Store) -> None:
    (store.folder(ROW.finetune(0, "refcoco+")) / "result.json").unlink()
    (store.folder(ROW.compress(0)) / "weights.safetensors").touch()
    assert planned([ROW], [0], store) == [ROW.finetune(0, "refcoco+")]
