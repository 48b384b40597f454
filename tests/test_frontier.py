"""The frontier figure: what each row loses beside its own dense row, over work and parameters."""

from pathlib import Path

import pytest
from synthetic import MANIFEST, cost, fill, finetuned, score
from test_trimmed_report import kept
from test_trimmed_report import store as table5  # noqa: F401 - a fixture

from snp.errors import InputError
from snp.experiment.labels import find
from snp.report.frame import Measured
from snp.report.frontier import Point, figure, points, undominated
from snp.runs.store import Store


def test_every_row_is_beside_the_dense_row_that_it_is_fair_to(table5: Store, tmp_path: Path) -> None:  # noqa: F811
    fill(table5, find("scenes/dense@100", "desk"), [0.8] * 5)
    fill(table5, find("scenes/snp@60", "desk"), [0.78] * 5)
    found = {point.title: point for point in points(table5, "desk")}
    assert found["snp@60"].loss == pytest.approx(2.0) and found["snp@60"].kind == "structured"
    trimmed = found["dense, trim50"]
    assert (trimmed.kind, trimmed.flops) == ("dynamic", pytest.approx(50)) and trimmed.loss == pytest.approx(0.5)
    assert found["snp@60, trim50"].loss == pytest.approx(2.1) and "dense, whole" not in found
    assert (
        figure(table5, "desk", tmp_path / "f.png").read_bytes()
        == figure(table5, "desk", tmp_path / "g.png").read_bytes()
    )


def test_rows_that_another_beats_in_both_are_off_the_frontier() -> None:
    one, two, three = (Point(name, "joint", flops, 50, loss, 1) for name, flops, loss in
                       (("one", 80, 0.0), ("two", 60, 1.0), ("three", 70, 2.0)))  # fmt: skip
    assert undominated([three, two, one], "flops") == [one, two]


def test_without_results_there_is_nothing_to_draw(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no results"):
        points(Store(tmp_path), "desk")


def test_a_row_whose_seeds_are_not_all_tuned_costs_what_those_cost_that_are(tmp_path: Path) -> None:
    row, store = find("scenes/dense@100+trim50", "desk"), Store(tmp_path)
    for seed in row.seeds:
        store.save(row.compress(seed), MANIFEST, cost(row))
    assert Measured([row], store).cost(row).empty  # what it trims is learned in fine-tuning
    half = {"trimmed": kept(0.5), "untrimmed": {"val": score(0.8)}}
    store.save(row.finetune(0, "refcoco"), MANIFEST, finetuned("refcoco", 0.8) | half)
    [ratio] = Measured([row], store).cost(row).flops_ratio
    assert ratio == half["trimmed"]["flops"]["mean"]
