"""Trials: they go through all that a run does, in a few steps, and never count as one."""

import shutil
from pathlib import Path

import pytest
import standin
from processes import COMPRESS, PRETRAIN, ROW
from synthetic import MANIFEST, cost

from snp.cli import main
from snp.errors import InputError
from snp.experiment.places import Trial
from snp.launch.status import statuses
from snp.runs.store import Store
from snp.runs.submitted import records
from snp.training import stages
from snp.training.setup import Setup

SHORT = Setup(steps=2, batch=8)


@pytest.fixture
def out(tmp_path: Path, smoke_data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that holds a trial of the dense model."""
    monkeypatch.setenv("SNP_DATA", str(smoke_data))
    main(["pretrain", "--scale", "smoke", "--steps", "2", "--batch", "8", "--out", str(tmp_path)])
    return tmp_path


def test_a_trial_is_done_for_the_same_trial_alone(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trial = Store(out / "trial-steps2-batch8", trial=SHORT.trial)
    assert trial.result(PRETRAIN).trial == Trial(steps=2, batch=8) and trial.state(PRETRAIN) == "done"
    for other in (Setup(), Setup(steps=2), Setup(steps=3, batch=8)):
        name = other.trial.name if other.trial else "."
        assert Store(out / name, trial=other.trial).state(PRETRAIN) == "missing"
    assert list(Store(out).results()) == []

    before = (trial.folder(PRETRAIN) / "result.json").read_bytes()
    capsys.readouterr()
    main(["pretrain", "--scale", "smoke", "--steps", "2", "--batch", "8", "--out", str(out)])
    assert capsys.readouterr().out == f"done: {trial.folder(PRETRAIN)}\n"
    assert (trial.folder(PRETRAIN) / "result.json").read_bytes() == before


def test_a_real_run_never_starts_from_its_weights(out: Path) -> None:
    with pytest.raises(InputError, match="needs this run, which is missing"):
        stages.run(COMPRESS, Store(out))


def test_its_folder_given_for_real_runs_is_an_error_and_nothing_in_it_changes(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = out / "trial-steps2-batch8"
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for command in (
        ["run", ROW.label, "--scale", "smoke", "--out", str(folder)],
        ["pretrain", "--scale", "smoke", "--out", str(folder)],
        ["launch", "table1", "--scale", "smoke", "--cluster", "local", "--out", str(folder)],
    ):
        with pytest.raises(SystemExit) as exit:
            main(command)
        assert exit.value.code == 2
        assert "is the result of a trial (trial-steps2-batch8), whose figures count nowhere" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == files


def test_what_is_shown_leaves_it_out_and_says_so(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    note = f"snp: left out, as trials say nothing: trial-steps2-batch8 in {out}\n"
    main(["rows", "table1", "--scale", "smoke", "--out", str(out)])
    said = capsys.readouterr()
    assert said.err == note and "done" not in said.out
    with pytest.raises(SystemExit):
        main(["table", "table1", "--scale", "smoke", "--out", str(out)])
    assert capsys.readouterr().err.startswith(f"{note}snp: {out}: holds no results of table1")


@pytest.mark.slow
def test_it_may_start_from_a_real_parent(
    smoke_dense: Store, smoke_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SNP_DATA", str(smoke_data))
    store = Store(tmp_path, base=smoke_dense, trial=SHORT.trial)
    assert store.state(PRETRAIN) == "done"
    assert stages.run(COMPRESS, store, setup=SHORT).trial == SHORT.trial
    with pytest.raises(ValueError, match="is a store of"):
        stages.run(COMPRESS, smoke_dense, setup=SHORT)
    assert smoke_dense.state(COMPRESS) == "missing"


def test_a_result_that_was_moved_beside_real_ones_is_named(out: Path) -> None:
    store = Store(out)
    shutil.copytree(out / "trial-steps2-batch8" / PRETRAIN.slug, store.folder(PRETRAIN))
    with pytest.raises(InputError, match=r"result\.json: is the result of a trial.*move its folder away"):
        store.state(PRETRAIN)
    assert list(store.results()) == []


def test_a_real_result_among_trials_is_named_too(tmp_path: Path) -> None:
    Store(tmp_path).save(COMPRESS, MANIFEST, cost(ROW))
    with pytest.raises(InputError, match="is the result of a real run"):
        Store(tmp_path, trial=SHORT.trial).state(COMPRESS)


@pytest.mark.parametrize("mark", [True, 3, [], {}, {"steps": 0}, {"steps": "two"}, {"steps": 2, "more": 1}])
def test_a_mark_that_cannot_be_read_is_named(mark: object, tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(InputError, match=r"result\.json: manifest\.trial: "):
        store.save(COMPRESS, {**MANIFEST, "trial": mark}, cost(ROW))


@pytest.mark.slow
def test_a_launched_trial_is_found_by_status_and_cancel_with_the_same_flags(
    smoke_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SNP_DATA", str(smoke_data))
    monkeypatch.setenv("PATH", standin.slurm(tmp_path / "slurm").path)
    same = ["table1", "--scale", "smoke", "--out", str(tmp_path / "my runs"), "--steps", "2"]
    main(["launch", *same])
    said = capsys.readouterr().out
    assert f"snp status table1 --scale smoke --out '{tmp_path / 'my runs'}' --steps 2`" in said
    store = Store(tmp_path / "my runs" / "trial-steps2", trial=Trial(steps=2))
    assert records(store) and not records(Store(tmp_path / "my runs"))
    assert {one.state for one in statuses(ROW.runs(0), store)} == {"queued"}

    main(["status", *same])
    queued = capsys.readouterr().out.splitlines()[-1]
    assert queued.endswith("queued") and "missing" not in queued
    main(["status", *same[:-2]])
    assert capsys.readouterr().out.splitlines()[-1].endswith("missing")
    main(["cancel", *same[:-2]])
    assert "nothing to cancel" in capsys.readouterr().out
    main(["cancel", *same])
    assert f"cancelled: {PRETRAIN.name}" in capsys.readouterr().out
