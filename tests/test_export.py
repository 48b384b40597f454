"""Committed compressed models: small, as their results say, found by demo and predictions; and how they are made."""

import json
import shutil
from importlib import import_module
from pathlib import Path

import pytest
import torch

from snp.cli import main
from snp.compression import count
from snp.compression.tower import towers_of
from snp.data.drawn import stamps
from snp.errors import InputError
from snp.experiment.labels import find
from snp.experiment.rows import Row
from snp.experiment.spec import Pretrain
from snp.models.mdetr import TOWERS
from snp.runs.store import Store
from snp.training import export, saved
from snp.training.prepare import Source
from snp.training.tuning import tuning

LARGEST = 3_000_000
"""Bytes: it is kept in git."""
ROWS = [find(label, "desk") for label in export.COMMITTED]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.data)
def test_a_committed_model_is_small_has_a_clean_commit_and_keeps_what_its_result_says(row: Row) -> None:
    store, run = export.models(), row.compress(0)
    folder, result = store.folder(run), store.result(run)
    assert sum(path.stat().st_size for path in folder.iterdir()) < LARGEST
    assert result.manifest["dirty"] is False
    model, plan, _ = saved.load(folder)
    dense, _, _ = saved.load(store.folder(row.pretrain))
    stored = count.count(model, towers_of(model, TOWERS)).stored
    assert stored == result.metrics["stored_params"]
    whole = count.count(dense, towers_of(dense, TOWERS)).stored
    assert stored / whole == pytest.approx(row.size.keep, abs=1e-3)
    assert plan.summary() == result.metrics["plan"]
    scores = result.metrics["exported"]["precision@1"]
    assert abs(scores["float16"] - scores["float32"]) <= export.TOLERATED / 100
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.data)
def test_a_committed_model_scores_on_fresh_pictures_about_what_its_result_says(row: Row, tmp_path: Path) -> None:
    if row.data == "stamps" and not stamps.SOURCE.is_dir():
        pytest.skip(f"needs Debian's {stamps.PACKAGE}")
    store, run = export.models(), row.compress(0)
    import_module(f"snp.data.drawn.{row.data}").make(
        tmp_path / "made", seed=7, train=8, test=200, pretrain_val=4, workers=1
    )
    model, _, vocabulary = saved.load(store.folder(run))
    judge = tuning("refcoco", Source(tmp_path / "made"), model, vocabulary)
    told = store.result(run).metrics["exported"]["precision@1"]["float16"]
    # of 200 expressions; chance is near 0.2
    assert judge.evaluate(model, "val")["precision@1"] == pytest.approx(told, abs=0.1)


@pytest.fixture(scope="module")
def runs(smoke_dense: Store, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A folder of runs with a finished dense model alone."""
    return Store(shutil.copytree(smoke_dense.root, tmp_path_factory.mktemp("runs") / "runs"))


@pytest.mark.slow
def test_one_command_compresses_and_writes_half_of_the_bytes(
    runs: Store, smoke_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SNP_DATA", str(smoke_data))
    label, run = "scenes/magnitude-structured@70", find("scenes/magnitude-structured@70", "smoke").compress(0)
    command = ["export", label, "--scale", "smoke", "--out", str(runs.root), "--to", str(tmp_path), "--workers", "1"]
    main(command)
    folder = tmp_path / run.slug
    assert str(folder) in capsys.readouterr().out
    assert {path.name for path in folder.iterdir()} == {"weights.safetensors", "plan.json", "model.json", "result.json"}
    size = {at: (at / "weights.safetensors").stat().st_size for at in (folder, runs.folder(run))}
    assert size[folder] < 0.6 * size[runs.folder(run)]
    (small, plan, _), (model, same, _) = saved.load(folder), saved.load(runs.folder(run))
    assert plan == same
    for name, tensor in model.state_dict().items():
        assert torch.equal(small.state_dict()[name], tensor.half().float() if tensor.is_floating_point() else tensor)
    kept, told = Store(tmp_path).result(run), runs.result(run)
    assert kept.manifest == told.manifest and kept.metrics["exported"]["stored"] == "float16"
    # where half precision costs too much, all bits are kept
    monkeypatch.setattr(export, "TOLERATED", -1.0)
    main(command)
    assert "half" not in json.loads((folder / "model.json").read_text(encoding="utf-8"))
    assert (folder / "weights.safetensors").read_bytes() == (runs.folder(run) / "weights.safetensors").read_bytes()


@pytest.mark.slow
def test_what_is_not_there_is_not_exported(runs: Store, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no model"):
        export.export(find("scenes/snp@60", "smoke").compress(1), runs, Store(tmp_path))
    assert runs.has_weights(Pretrain(scale="smoke", data="scenes"))


@pytest.mark.slow
def test_demo_and_predictions_ask_the_committed_models(
    smoke_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The pictures are those of smoke scale, which are of the same kind."""
    data = tmp_path / "data"
    shutil.copytree(smoke_data / "scenes-smoke", data / "scenes-desk")
    monkeypatch.setenv("SNP_DATA", str(data))
    photo = min((data / "scenes-desk" / "images").rglob("*.png"))
    main(["demo", str(photo), "the red circle", "--png", str(tmp_path / "demo.png")])
    said = capsys.readouterr().out
    assert "dense: " in said and "snp, 40% removed: " in said
    main(["predictions", "--png", str(tmp_path / "predictions.png")])
    assert (tmp_path / "predictions.png").read_bytes().startswith(b"\x89PNG")
