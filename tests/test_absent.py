"""Table 7: captions without a target that are made; what is claimed of them, and of compressed models."""

from pathlib import Path

import pytest
from synthetic import MANIFEST, cost

from snp.errors import InputError
from snp.experiment.absent import PAIR, SEQ, SWAP, table7
from snp.experiment.rows import DENSE, Row
from snp.models.augment import Augment
from snp.report import noise
from snp.report.absent import gap
from snp.report.claims import claims
from snp.report.frame import Measured
from snp.report.table import table
from snp.runs.store import Store

MADE = {"doubt": 0.0, "readable": 1.0, "related": 0.9, "copied": 0.8, "count": 5000, "pairs": 1000, "seconds": 9.0}


def figures(auroc: float, exact: float, found: float) -> dict[str, float]:
    return {"n": 100, "auroc": auroc, "precision@f1": exact, "precision@1": found, "threshold": 0.5}


def reached(row: Row, seed: int) -> dict[str, float]:
    """Pairs add two points of Pr@(F1=1), swaps as much; SNP loses more AUROC than precision, UPop less."""
    gained = {PAIR: 0.02, SEQ: 0.0, SWAP: 0.02}.get(row.special, 0.0) if row.special else 0.0
    base = 0.8 + 0.01 * seed
    if row.method == "snp":
        return figures(base - 0.1, base, base - 0.02 - 0.001 * seed)
    if row.method != DENSE:
        return figures(base - 0.02 - 0.001 * seed, base, base - 0.1)
    return figures(base + gained, base + gained + 0.001 * seed * bool(gained), base)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    found = Store(tmp_path_factory.mktemp("table7"))
    for row in table7("desk"):
        for seed in row.seeds:
            splits = dict.fromkeys(("val", "testA"), reached(row, seed))
            wrong = {"pair": 0.1, "swap": 0.2}.get(row.special.kind, 0.3) if isinstance(row.special, Augment) else 0
            if isinstance(row.special, Augment) and row.special.kind == "rule":
                wrong = row.special.noise
            made = {"asked": MADE | {"noise": wrong}} if row.special else {}
            found.save(row.compress(seed), MANIFEST, cost(row))
            found.save(row.finetune(seed, "no-target"), MANIFEST, {"splits": splits, **made})
    return found


def test_claims_are_tested_on_the_figure_that_each_is_about(store: Store) -> None:
    told = {claim.text: claim for claim in claims(Measured(table7("desk"), store)) if claim.number == "Q"}
    assert told["made with the picture beat made without"].measured == "+2.0"
    assert told["fewer of those made with the picture are wrong"].measured == "+20.0"
    assert told["made captions add at least 1.5 points"].measured == "+2.1"  # mean of 2.0, 2.1, 2.2
    assert told["they cost at most 0.5 points of precision"].measured == "+0.0"
    assert told["blind swaps do as well (tested again by others)"].measured == "+0.0"
    assert {claim.verdict for text, claim in told.items() if "compression" not in text} == {"holds"}


def test_whether_saying_no_is_lost_first_is_told_of_every_compressed_model(store: Store) -> None:
    told = [claim for claim in claims(Measured(table7("desk"), store)) if "say no" in claim.text]
    assert len(told) == 5 and all((claim.verdict == "holds") == (": snp," in claim.where) for claim in told)


def test_a_gap_is_of_one_figure_and_of_the_seeds_that_both_have(store: Store) -> None:
    measured = Measured(table7("desk"), store)
    few, pair, *_ = measured.rows
    assert gap(measured, pair, few, "precision@f1").round(6).to_dict() == {0: 2.0, 1: 2.1, 2: 2.2}
    assert gap(measured, pair, few, "precision@1").abs().max() < 1e-9


def test_the_table_shows_what_was_made_and_how_much_of_it_is_wrong(store: Store) -> None:
    text = table("table7", store, "desk")
    head, _, first, pair = text.splitlines()[2:6]
    assert all(name in head for name in ("auroc", "precision@f1", "P@1", "noise", "readable", "related", "made"))
    assert "true ones alone" in first and "5000" not in first and "10.0%" in pair and "5000" in pair


def test_the_figure_has_true_edits_as_a_curve_and_is_equal_for_equal_results(store: Store, tmp_path: Path) -> None:
    once, twice = (noise.figure(store, "desk", tmp_path / name).read_bytes() for name in ("a.png", "b.png"))
    assert once == twice
    found = noise.points(store, "desk")
    assert [point.noise for point in found if point.kind == "rule"] == [0, 10, 25, 50]
    assert {point.kind for point in found} == {"rule", "pair", "seq", "swap", "nearest", "random"}
    alone, row = Store(tmp_path), next(row for row in table7("desk") if row.special == SWAP)
    made = {"asked": MADE | {"noise": 0.2}, "splits": dict.fromkeys(("val", "testA"), reached(row, 0))}
    alone.save(row.finetune(0, "no-target"), MANIFEST, made)
    with pytest.raises(InputError, match="holds no results"):  # there is nothing that it is beside
        noise.figure(alone, "desk", tmp_path / "c.png")


def test_at_paper_scale_compressed_models_alone_are_asked(store: Store) -> None:
    rows = table7("paper")
    assert [row.name for row in rows[:2]] == ["dense", "snp"] and not any(row.special for row in rows)
