"""Looking after runs: their curves, what there is and how large, and what may be deleted, which is asked first."""

from pathlib import Path

import numpy as np
import pytest
from synthetic import MANIFEST, cost, fill, finetuned

from snp.cli import main
from snp.data.drawn import folder as datasets
from snp.experiment.labels import find
from snp.experiment.places import Trial
from snp.launch import cleaning
from snp.report.curve import bars, curve_of
from snp.runs import inventory
from snp.runs.present import label_of
from snp.runs.store import STATES, Store

ROW = find("scenes/snp@60", "smoke")
RUN = ROW.compress(0)
CURVE = [{"step": step, "lr": 1e-3, "l1": 10 - step, "val/precision@1": step / 10} for step in range(1, 9)]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder that is no checkout: nothing of this project can be deleted, whatever a test does."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SNP_DATA", str(tmp_path / "data"))
    for module in (inventory, cleaning):
        monkeypatch.setattr(module, "home", lambda: tmp_path)
    return tmp_path


def said(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    main([*command])
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    with pytest.raises(SystemExit) as exit:
        main([*command])
    assert exit.value.code == 2
    return capsys.readouterr().err


def begun(root: Path, trial: Trial | None = None) -> Path:
    """The folder of a run that was killed, with its states."""
    folder = Store(root, trial=trial).begin(RUN)
    for name in STATES:
        (folder / name).write_bytes(b"x" * 1000)
    return folder


@pytest.mark.slow
def test_the_curves_of_a_row_are_shown_over_the_steps(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    store = Store(place / "runs")
    store.save(RUN, MANIFEST, cost(ROW), CURVE)
    store.save(ROW.finetune(0, "refcoco"), MANIFEST, finetuned("refcoco", 0.5))  # has none
    text = said(capsys, "curve", "scenes/snp@60", "--out", "runs", "--png", "curve.png")
    assert "scenes-snp-keep60-seed0: done, steps 1 to 8" in text
    lines = {line.split()[0]: line.split()[1:] for line in text.splitlines() if "▁" in line or "lr" in line}
    assert lines["val/precision@1"] == ["▁▂▃▄▅▆▇█", "0.1", "0.8"]
    assert lines["l1"] == ["█▇▆▅▄▃▂▁", "9", "2"]
    assert list(lines) == ["val/precision@1", "l1", "lr"]
    assert (place / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert "steps 1 to 8" in said(capsys, "curve", str(store.folder(RUN)))


def test_of_a_run_that_is_not_done_the_log_is_shown(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    store = Store(place / "runs")
    store.begin(RUN)
    for record in CURVE[:3]:
        store.log(RUN, record)
    assert "incomplete, steps 1 to 3" in said(capsys, "curve", RUN.slug, "--out", "runs", "--scale", "smoke")
    assert [*curve_of(RUN, store)["l1"]] == [9, 8, 7]


def test_what_is_no_number_in_a_log_is_left_out(place: Path) -> None:
    store = Store(place / "runs")
    store.begin(RUN)
    log = store.folder(RUN) / "log.jsonl"
    log.write_text('{"step": "x", "l1": 5}\n{"step": 1, "l1": NaN, "lr": 0.1}\n{"step": 2, "l1": 4}\n[3]\n')
    assert {name: [*series] for name, series in curve_of(RUN, store).items()} == {"l1": [4], "lr": [0.1]}


def test_a_run_without_a_curve_is_one_line(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    fill(Store(place / "runs"), ROW, [0.5])
    assert "has no learning curve here" in refused(capsys, "curve", "scenes/snp@60", "--out", "runs")
    (place / "empty").mkdir()
    assert "is no folder of a run" in refused(capsys, "curve", "empty")


def test_bars_are_means_where_there_is_no_room_for_each() -> None:
    assert bars(np.arange(16.0), 8) == "▁▂▃▄▅▆▇█"
    assert bars(np.ones(16), 4) == "▁▁▁▁"


def test_runs_are_listed_by_folder_and_one_by_one(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    fill(Store(place / "results" / "smoke"), ROW, [0.5])
    trial = Trial(steps=2)
    begun(place / ".runs" / trial.name, trial)
    text = said(capsys, "runs")
    assert "Folders of runs: 5 runs" in text
    lines = [line.split()[:3] for line in text.splitlines() if "smoke" in line or "trial" in line]
    assert lines[:2] == [["results/smoke", "4", "4"], [".runs/trial-steps2", "1", "0"]]
    text = said(capsys, "runs", "--out", ".runs")
    assert text.startswith(".runs/trial-steps2: 1 incomplete; 2.")
    assert ["scenes/snp@60", "0", "compress", "incomplete"] in [line.split()[:4] for line in text.splitlines()]
    assert "holds no runs" in refused(capsys, "runs", "--out", "results")


def test_a_run_has_the_label_of_its_row() -> None:
    questions = find("scenes/snp@60:gqa", "smoke")
    assert label_of(questions.finetune(0, "gqa")) == questions.label
    assert label_of(ROW.finetune(0, "refcoco+")) == label_of(RUN) == "scenes/snp@60"
    assert label_of(RUN.parent) == "scenes/mdetr"


def test_a_run_that_a_process_is_at_is_running_and_stays(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    folder = begun(place / "runs")
    store = Store(place / "runs")
    with store.attempt(RUN):
        assert inventory.state(folder) == "running"
        assert "nothing to delete" in said(capsys, "clean", "states", "--yes", "--out", "runs")
    (item,) = cleaning.items(place / "runs")  # and one that is begun between listing and deleting
    with store.attempt(RUN):
        assert not item.delete() and (folder / STATES[0]).exists()
    assert item.delete() and not (folder / STATES[0]).exists()


def test_nothing_is_deleted_before_it_is_asked_for(
    capsys: pytest.CaptureFixture[str], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = begun(place / "runs")
    listed = said(capsys, "clean", "--dry-run", "--out", "runs")
    assert "states: 1, 2.0 kB" in listed and "trials: no run with --steps" in listed
    assert "there is no terminal" in refused(capsys, "clean", "--out", "runs")
    assert "names no kind" in refused(capsys, "clean", "--yes", "--out", "runs")
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: "n")
    said(capsys, "clean", "--out", "runs")
    assert (folder / STATES[0]).exists()
    monkeypatch.setattr("builtins.input", lambda question: "y")
    assert "deleted: 2.0 kB of states" in said(capsys, "clean", "--out", "runs")
    assert {path.name for path in folder.iterdir()} == {"spec.json"}


def test_trials_are_deleted_and_real_runs_stay(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    trial = Trial(steps=2, batch=4)
    begun(place / ".runs" / trial.name, trial)
    fill(Store(place / ".runs"), ROW, [0.5])
    (place / ".runs" / "trial-of-mine").mkdir()
    assert said(capsys, "clean", "trials", "--yes").count("deleted") == 1
    assert not (place / ".runs" / trial.name).exists() and (place / ".runs" / "trial-of-mine").exists()
    assert len([*inventory.held(place / ".runs")]) == 4


def test_a_finished_run_is_real_whatever_its_folder_is_called(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    fill(Store(place / ".runs" / "trial-steps2"), ROW, [0.5])
    assert "nothing to delete" in said(capsys, "clean", "trials", "--yes")
    assert len([*inventory.held(place / ".runs" / "trial-steps2")]) == 4


@pytest.mark.parametrize("link", [".runs/trial-steps2", "results/smoke", ".nox"])
def test_what_lies_behind_a_link_stays(capsys: pytest.CaptureFixture[str], place: Path, link: str) -> None:
    elsewhere = place / "elsewhere"
    begun(elsewhere, Trial(steps=2))
    (elsewhere / "environment").mkdir()
    (elsewhere / "environment" / "pyvenv.cfg").touch()
    (place / link).parent.mkdir(exist_ok=True)
    (place / link).symlink_to(elsewhere)
    before = sorted(elsewhere.rglob("*"))
    said(capsys, "clean", "trials", "states", "environments", "--yes")
    assert sorted(elsewhere.rglob("*")) == before


def test_results_are_never_deleted(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    folder = begun(place / "results" / "smoke")
    assert "results, which are never deleted" in refused(capsys, "clean", "--out", "results/smoke", "--dry-run")
    assert "nothing to delete" in said(capsys, "clean", "states", "--yes")
    assert (folder / STATES[0]).exists()


@pytest.mark.slow
def test_only_data_that_were_made_here_are_deleted(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    from snp.data.drawn import scenes

    root = scenes.make(place / "data" / "scenes-smoke", seed=0, train=8, test=4, pretrain_val=4, workers=1)
    (place / "data" / "mine").mkdir()
    (place / "data" / "mine" / "dear.txt").write_text("dear")
    begun(place / "runs")
    with Store(place / ".runs").attempt(RUN):  # which reads them
        assert "nothing to delete" in said(capsys, "clean", "data", "--yes")
    (root / "notes.txt").write_text("mine too")
    assert "deleted" in said(capsys, "clean", "data", "--yes")
    assert [path.name for path in root.iterdir()] == ["notes.txt"] and not datasets.ours(root)
    assert (place / "data" / "mine" / "dear.txt").exists()


@pytest.mark.slow
def test_data_that_a_run_of_another_working_folder_reads_are_left(
    capsys: pytest.CaptureFixture[str], place: Path
) -> None:
    from snp.data.drawn import scenes

    root = scenes.make(place / "data" / "scenes-smoke", seed=0, train=8, test=4, pretrain_val=4, workers=1)
    with datasets.reading(root), datasets.reading(root):
        said(capsys, "clean", "data", "--yes")
        assert datasets.ours(root) and (root / "annotations").is_dir()
    said(capsys, "clean", "data", "--yes")
    assert not root.exists()


def test_environments_are_deleted_but_for_the_one_at_work(
    capsys: pytest.CaptureFixture[str], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("shared", "old"):
        (place / ".nox" / name).mkdir(parents=True)
        (place / ".nox" / name / "pyvenv.cfg").touch()
    monkeypatch.setattr("sys.prefix", str(place / ".nox" / "shared"))
    assert "environments" in said(capsys, "clean", "environments", "--yes")
    assert [path.name for path in (place / ".nox").iterdir()] == ["shared"]


def test_commands_find_the_scale_of_a_folder(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    store = Store(place / "runs")
    for label in ("scenes/dense@100", "scenes/snp@60"):
        fill(store, find(label, "smoke"), [0.5])
    assert " 50.0 " in said(capsys, "table", "table1", "--out", "runs")
    assert "mean over benchmarks" in said(capsys, "compare", "scenes/snp@60", "scenes/dense@100", "--out", "runs")
    assert "almost no loss" in said(capsys, "claims", "--out", "runs")
    assert "done" in said(capsys, "rows", "table1", "--out", "runs")
    assert inventory.scale_of(place / "runs") == "smoke"
    fill(store, find("scenes/snp@60", "desk"), [0.5])
    assert inventory.scale_of(place / "runs") is None
