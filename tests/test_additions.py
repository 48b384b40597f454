"""What it takes to add something: one record or one file, and all else asks it."""

from pathlib import Path

import pytest
from synthetic import fill

from snp.compression.size import Size
from snp.experiment import scores, tables
from snp.experiment.benchmarks import ABOUT, About
from snp.experiment.labels import find
from snp.experiment.rows import make
from snp.report.frame import Measured
from snp.report.table import render
from snp.runs.store import Store
from snp.training.tuning import TUNINGS, Questions


def test_a_table_is_one_function(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It has rows, labels, a launch and a rendering, and no other file knows of it."""

    def mine(scale: str) -> list[tables.Row]:
        return [make(scale, "scenes", name, size=Size(0.55), main=True) for name in ("dense", "snp", "lamp")]

    monkeypatch.setitem(tables.TABLES, "mine", mine)
    rows = tables.rows("mine", "desk")
    assert [row.label for row in tables.select("mine", "desk", "scenes")] == [row.label for row in rows]
    assert find("scenes/lamp@55", "desk") == rows[2]
    store = Store(tmp_path)
    for row, precision in zip(rows, (0.8, 0.7, 0.6), strict=True):
        fill(store, row, [precision])
    text = render(Measured(rows, store), "markdown")
    assert "45% of all parameters removed" in text and "| lamp" in text


def test_a_benchmark_is_one_record(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its title, splits and columns are asked for by tables; results are checked against its task."""
    monkeypatch.setitem(ABOUT, "own", About("Birds", scores.LOCATING, ("dev", "hidden"), ("precision@1", "mean_iou")))
    store, row = Store(tmp_path), make("desk", "birds", "snp", size=Size(0.6), benchmarks=("own",))
    fill(store, row, [0.75])
    text = render(Measured([row], store), "markdown")
    assert "Birds dev P@1" in text and "Birds hidden mean IoU" in text


def test_a_task_is_a_record_an_evaluator_and_what_a_model_learns_of_it() -> None:
    """Every task of a benchmark has the class that trains and judges it; a new one is found by its record."""
    assert {about.task for about in ABOUT.values()} == TUNINGS.keys()
    counting = scores.Task("counting", "picture", scores.Answered, ("accuracy",), "Accuracy (of counts)")

    class Counting(Questions):
        task = counting

    assert TUNINGS.pop(counting) is Counting and TUNINGS[scores.ANSWERING] is Questions
