"""Tables, claims and figures from results: hand-computed numbers, stable bytes, missing rows."""

import csv
import io
import json
from pathlib import Path
from typing import get_args

import pandas as pd
import pytest
from synthetic import MANIFEST, cost, fill, score

from snp.compression.size import Size
from snp.errors import InputError
from snp.experiment.rows import Row
from snp.experiment.spec import Run, Scale
from snp.experiment.tables import TABLES, rows, select, table1
from snp.report.claims import CLAIMED, Claim, claims, claims_table
from snp.report.ending import ending
from snp.report.evidence import verdict
from snp.report.figures import curves, figure, limits
from snp.report.frame import Measured, dense_of
from snp.report.statistics import estimate, points, reach, seeds_needed
from snp.report.table import Format, render, table
from snp.runs.store import Store

ROWS = {(row.data, row.name, row.group): row for row in table1("desk")}


def row(name: str, group: str = "40%", data: str = "scenes") -> Row:
    return ROWS[data, name, group]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Dense: 90, 91, 92 per cent over three seeds; snp: 88, 90, 89; random-structured: two seeds of three."""
    store = Store(tmp_path / "results")
    fill(store, row("dense"), [0.90, 0.91, 0.92])
    fill(store, row("snp"), [0.88, 0.90, 0.89], kind="joint")
    fill(store, row("random-structured"), [0.80, 0.82])
    return store


def long(store: Store) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(table("table1", store, "desk", "scenes", "csv"))))


def line(lines: list[dict[str, str]], **wanted: str) -> dict[str, str]:
    (found,) = [line for line in lines if all(line[key] == value for key, value in wanted.items())]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("run", [row("snp").compress(1), row("snp").finetune(1, "refcocog")])
def test_what_is_of_code_that_is_in_no_commit_is_marked_in_tables_and_claims(store: Store, run: Run) -> None:
    def texts() -> list[str]:
        shown = [table("table1", store, "desk", "scenes", format) for format in ("markdown", "latex")]
        return [*shown, claims_table("table1", store, "desk"), ending([row("snp")], store, store, "desk")]

    assert not any(mark in text for text in texts() for mark in ("†", "dagger"))
    assert {line["dirty"] for line in long(store)} == {"0"}
    store.save(run, MANIFEST | {"dirty": True}, store.result(run).metrics)
    shown, latex, tested, beside = texts()
    meaning = "† of code with changes that are not in its commit"
    assert shown.count(f"{meaning}: snp (seed 1)") == 2 and "| snp † " in shown and shown.count("dense †") == 0
    assert f"{meaning}: snp (seed 1)" in tested and f"{meaning}: snp (seed 1)" in beside
    assert f"({meaning})".replace("†", r"\textdagger{}") in latex
    assert {line["dirty"] for line in long(store) if line["label"] == "scenes/snp@60"} == {"1"}


def test_where_the_dense_model_is_of_such_code_all_rows_are(store: Store) -> None:
    metrics = {"params": {}, "splits": {"refcoco/val": score(0.9)}}
    store.save(row("snp").pretrain, MANIFEST | {"dirty": True}, metrics)
    shown = table("table1", store, "desk", "scenes")
    assert "| dense † " in shown and "| snp † " in shown and "| upop (missing)" in shown


def test_the_csv_holds_mean_deviation_interval_and_paired_difference(store: Store) -> None:
    found = line(
        long(store),
        label="scenes/snp@60",
        benchmark="refcoco+",
        split="testB",
        type="all",
        metric="precision@1",
    )
    # half width of the interval: t(0.975; 2) * 1 / sqrt(3) = 4.30265 / 1.73205 = 2.484
    assert (found["mean"], found["std"], found["seeds"]) == ("89.000", "1.000", "3")
    assert (found["ci_low"], found["ci_high"]) == ("86.516", "91.484")
    # differences by seed: -2, -1, -3
    assert (found["delta_vs_dense"], found["delta_ci_low"], found["delta_ci_high"]) == (
        "-2.000",
        "-4.484",
        "0.484",
    )
    assert (found["kind"], found["target"], found["group"], found["state"]) == ("joint", "0.6", "40%", "3 of 5")
    assert (found["stored_params"], found["stored_ratio"], found["tower_ratio"]) == (
        "600000",
        "0.60000",
        "0.50000",
    )


def test_the_csv_reports_by_expression_type_and_before_fine_tuning(store: Store) -> None:
    lines = [line for line in long(store) if line["label"] == "scenes/snp@60" and line["benchmark"] == "refcoco"]
    assert line(lines, split="val", type="attribute", metric="precision@1")["mean"] == "94.000"
    assert line(lines, split="val", type="relation", metric="precision@1")["mean"] == "84.000"
    assert line(lines, split="val", type="all", metric="mean_iou")["mean"] == "50.000"
    assert line(lines, split="val", type="all", metric="zero_shot_precision@1")["mean"] == "40.000"
    splits = [found["split"] for found in lines if (found["type"], found["metric"]) == ("all", "precision@1")]
    assert splits == ["val", "testA", "testB"]


def test_dense_has_no_difference_to_itself(store: Store) -> None:
    found = line(
        long(store),
        label="scenes/dense@100",
        benchmark="refcocog",
        split="test",
        type="all",
        metric="mean_iou",
    )
    assert found["delta_vs_dense"] == found["delta_ci_low"] == ""


def test_differences_use_only_seeds_that_both_rows_have(store: Store) -> None:
    found = line(
        long(store),
        label="scenes/random-structured@60",
        benchmark="refcoco",
        split="val",
        type="all",
        metric="precision@1",
    )
    # dense 90, 91 against 80, 82: -10, -9
    assert (found["mean"], found["delta_vs_dense"], found["seeds"], found["state"]) == (
        "81.000",
        "-9.500",
        "2",
        "2 of 3",
    )


@pytest.mark.slow
def test_a_row_without_results_is_shown_as_missing_in_every_format(store: Store) -> None:
    found = line(long(store), label="scenes/magnitude@60", benchmark="refcoco")
    assert (found["state"], found["mean"], found["seeds"]) == ("missing", "", "0")
    markdown = table("table1", store, "desk", "scenes")
    assert "| magnitude (missing) " in markdown and "| random-structured (2 of 3) " in markdown
    assert "magnitude (missing) &" in table("table1", store, "desk", "scenes", "latex")


def test_the_markdown_table_is_this_one(store: Store) -> None:
    markdown = table("table1", store, "desk", "scenes")
    lines = [[cell.strip() for cell in text.split("|")[1:-1]] for text in markdown.splitlines()[2:6]]
    eight = ["val", "testA", "testB"]
    assert lines[0] == [
        "method",
        "kind",
        *(f"RefCOCO {split}" for split in eight),
        *(f"RefCOCO+ {split}" for split in eight),
        "RefCOCOg val",
        "RefCOCOg test",
        "Δ dense",
        "stored",
        "non-zero",
        "towers",
        "FLOPs",
    ]
    full = ["100.0%", "100.0%", "100.0%", "75.0%"]
    assert lines[2] == ["dense (3 of 5)", "dense", *["91.0 ±1.0"] * 8, "", *full]
    cut = ["60.0%", "60.0%", "50.0%", "75.0%"]
    assert lines[3] == ["snp (3 of 5)", "joint", *["89.0 ±1.0"] * 8, "-2.0 [-4.5, +0.5]", *cut]


@pytest.mark.slow
def test_the_same_results_give_the_same_bytes(store: Store) -> None:
    for form in ("markdown", "csv", "latex"):
        assert table("table1", store, "desk", None, form) == table("table1", store, "desk", None, form)


@pytest.mark.slow
def test_removing_one_result_takes_that_seed_out_of_that_row_and_breaks_nothing(store: Store) -> None:
    before = table("table1", store, "desk", "scenes")
    (store.folder(row("snp").finetune(1, "refcocog")) / "result.json").unlink()
    after = table("table1", store, "desk", "scenes")
    assert "| snp (2 of 5) " in after
    changed = [text for text in after.splitlines() if text not in before.splitlines()]
    assert "| dense " not in "\n".join(text for text in changed if "snp" not in text)
    one = line(long(store), label="scenes/snp@60", benchmark="refcocog", split="val", type="all", metric="mean_iou")
    assert one["state"] == "2 of 5"


def test_what_a_method_says_about_its_ceiling_stands_under_the_table(store: Store) -> None:
    fill(
        store,
        row("cross-modal", "60%"),
        [0.7, 0.7, 0.7],
        stored_ratio=0.57,
        note="ceiling: 57.0% is the least",
    )
    assert "- cross-modal: ceiling: 57.0% is the least" in table("table1", store, "desk", "scenes")


@pytest.mark.slow
def test_published_figures_are_quoted_with_their_source_and_never_measured(store: Store) -> None:
    markdown = table("table1", store, "desk", "scenes")
    measured, quoted = markdown.split("### Published figures")
    assert "87.51" in quoted and "ashkamath/mdetr README" in quoted and "35-40% of all parameters" in quoted
    assert "87.51" not in measured and "MDETR" not in measured
    assert "sdc17/UPop README" in quoted and "- lottery: 50-70% sparsity of relaxed" in quoted
    assert "published" not in table("table1", store, "desk", "scenes", "csv")


def test_only_what_speaks_of_the_same_things_is_quoted(store: Store) -> None:
    fill(store, rows("table1b", "desk")[0], [0.9])
    quoted = table("table1b", store, "desk").split("### Published figures")[1]
    assert "87.51" in quoted  # the RefCOCO of the originals
    assert "RefCOCO+" not in quoted and "UPop" not in quoted and "lottery" not in quoted


@pytest.mark.slow
@pytest.mark.parametrize("format", ["markdown", "csv", "latex"])
def test_no_results_at_all_are_said_and_not_tabled(tmp_path: Path, format: Format) -> None:
    empty = Store(tmp_path / "none")
    told = "none: holds no results of table1 .`snp run table1 --out .*none` makes them"
    with pytest.raises(InputError, match=told):
        table("table1", empty, "desk", format=format)
    with pytest.raises(InputError, match=told):
        claims_table("table1", empty, "desk")
    with pytest.raises(InputError, match="holds no results of rows of figure1 beside the dense one, on scenes"):
        limits("figure1", empty, "desk", "scenes")
    assert {claim.verdict for claim in claims(Measured(table1("desk"), empty))} == {"not tested"}


@pytest.mark.slow
def test_a_table_with_one_result_alone_is_a_table_in_which_all_else_is_missing(tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    store.save(row("snp").compress(0), MANIFEST, cost(row("snp")))
    assert table("table1", store, "desk").count("missing") > 100
    assert {claim.verdict for claim in claims(Measured(table1("desk"), store))} == {"not tested"}
    assert claims_table("table1", store, "desk").count("| not tested |") == len(claims(Measured(table1("desk"), store)))


@pytest.mark.slow
@pytest.mark.parametrize("scale", get_args(Scale))
def test_every_table_either_tests_claims_or_says_that_it_tests_none(tmp_path: Path, scale: Scale) -> None:
    for name in TABLES:
        if not rows(name, scale):
            continue
        said = claims(Measured(rows(name, scale), Store(tmp_path)))
        assert bool(said) == (name in CLAIMED or name in ("figure1", "ablations", "longer"))
    with pytest.raises(InputError, match="its rows can test none of the paper's claims"):
        claims_table("table1b", Store.at("desk"), "desk")


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLES)
def test_the_figure_of_every_table_has_a_curve_of_every_method_that_is_measured_and_no_number_that_is_none(
    tmp_path: Path, name: str
) -> None:
    store = Store.at("desk")
    if Measured(rows(name, "desk"), store).empty:
        pytest.skip("no run of it is committed")
    if not rows(name, "desk")[0].of:
        with pytest.raises(InputError, match="has no sizes to draw curves over"):
            limits(name, store, "desk", "scenes")
        return
    told = limits(name, store, "desk", "scenes")
    drawn = [row for row in rows(name, "desk") if row.data == "scenes" and row.name != "dense"]
    methods = {row.name.split(",")[0] for row in drawn if store.find(row.finetune(0, row.benchmarks[0]))}
    assert {text.split(",")[0] for text in told.method} == methods
    assert not told.map(lambda text: "nan" in text).any(axis=None)


def test_a_table_without_rows_is_refused(store: Store) -> None:
    with pytest.raises(InputError, match="has no rows at scale smoke"):
        table("table1", store, "smoke", "stamps")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, 2.0, 3.0], "+2.0 [-0.5, +4.5]"),
        ([-1.0], "-1.0"),
        ([float("nan"), -1.0, -3.0], "-2.0 [-14.7, +10.7]"),
        ([-0.01, -0.01], "+0.0 [+0.0, +0.0]"),
        ([], ""),
    ],
)
def test_intervals_are_students_t_over_the_values_there_are(values: list[float], expected: str) -> None:
    assert points(estimate(pd.Series(values, dtype=float))) == expected


def claims_of(store: Store) -> list[Claim]:
    return claims(Measured(select("table1", "desk", "scenes"), store))


def claim(found: list[Claim], number: str, text: str = "", where: str = "") -> Claim:
    (one,) = [claim for claim in found if claim.number == number and text in claim.text and where in claim.where]
    return one


@pytest.mark.parametrize(
    ("values", "bound", "needed"),
    [
        ([1.0, 2.0, 3.0], 0.0, 4),  # 2 +- 2.48 at three seeds, 2 +- 1.59 at four
        ([9.9, 10.0, 10.1], 0.0, 2),
        ([-1.0, 0.0, 1.0], 0.0, None),
        ([1.0], 0.0, None),
    ],
)
def test_seeds_are_needed_until_the_interval_leaves_the_bound(
    values: list[float], bound: float, needed: int | None
) -> None:
    assert seeds_needed(estimate(pd.Series(values)), bound) == needed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("snp", "verdict"),
    [
        ([0.899, 0.909, 0.919], "holds"),  # -0.1 each
        ([0.87, 0.88, 0.89], "fails"),  # -3 each
        ([0.88, 0.90, 0.89], "undecided"),  # -2, -1, -3
        ([0.90], "not tested"),
    ],
)
def test_almost_no_loss_is_at_most_one_point_by_the_interval(tmp_path: Path, snp: list[float], verdict: str) -> None:
    store = Store(tmp_path)
    fill(store, row("dense"), [0.90, 0.91, 0.92])
    fill(store, row("snp"), snp)
    found = claim(claims_of(store), "1")
    assert found.verdict == verdict and found.seeds == len(snp)
    assert "removed 40.0% of all, 50.0% of the towers" in found.where


@pytest.mark.parametrize(
    ("apart", "expected"),
    [
        ([0.4, 0.5, 0.6], "holds"),  # [+0.3, +0.7]
        ([-0.4, -0.5, -0.6], "fails"),
        ([-0.2, 0.1, 0.2], "alike"),  # [-0.5, +0.6]
        ([-0.5, 0.1, 0.6], "undecided"),  # [-1.3, +1.4]
        ([0.1], "not tested"),
    ],
)
def test_rows_within_a_point_of_each_other_are_alike_where_one_should_beat_the_other(apart, expected) -> None:
    assert verdict(estimate(pd.Series(apart)), 0, strictly=True) == expected
    assert verdict(estimate(pd.Series(apart)), 0) != "alike"


def test_each_claim_compares_the_rows_it_speaks_of(store: Store) -> None:
    fill(store, row("snp-prune-only"), [0.85, 0.87, 0.86])  # snp is 3 points above, every seed
    fill(store, row("snp-cross-only"), [0.70, 0.72, 0.71])
    fill(store, row("cross-modal"), [0.72, 0.74, 0.73])  # 2 above learned sharing; 18, 17, 19 below dense
    fill(store, row("snp-free-logits"), [0.88, 0.90, 0.89])
    fill(store, row("cross-modal", "60%"), [0.7, 0.7, 0.7], stored_ratio=0.6, tower_ratio=0.5)
    found = claims_of(store)

    def outcome(number: str, text: str = "", where: str = "") -> tuple[str, str]:
        one = claim(found, number, text, where)
        return one.measured, one.verdict

    assert outcome("2") == ("-2.0", "undecided")
    assert outcome("3", "pruning alone", "40%") == ("+3.0", "holds")
    assert outcome("3", "sharing alone") == ("+18.0", "holds")
    assert outcome("4") == ("-2.0", "fails")
    assert outcome("5", "ends at", "60%") == ("50.0% of towers", "holds")
    assert outcome("5", "early") == ("+18.0", "holds")
    assert outcome("6") == ("1.05x", "holds")
    assert outcome("7", where="40%") == ("+0.0", "fails")  # equal is not better
    assert outcome("7", where="60%") == ("", "not tested")
    assert outcome("T", "3 points") == ("+9.5", "holds")


def test_the_method_at_its_best_is_held_against_rivals_as_published_and_in_its_basis(store: Store) -> None:
    fill(store, row("snp", "60%"), [0.89, 0.90, 0.91])  # 1 point below dense, every seed
    fill(store, row("upop", "60%"), [0.85, 0.86, 0.87])
    fill(store, row("magnitude-structured-uniform", "60%"), [0.87, 0.88, 0.89])
    fill(store, row("taylor-basis", "60%"), [0.89, 0.90, 0.91])
    found = [(one.text, one.measured, one.verdict) for one in claims_of(store) if one.number == "B" and one.seeds]
    assert found == [
        ("at most 1.5 points are lost", "-1.0", "holds"),
        ("ahead of a rival as published by 3 points", "+4.0", "holds"),
        ("ahead of a rival as published by 3 points", "+2.0", "fails"),
        ("ahead of a rival in the same basis", "+0.0", "fails"),
    ]


def test_a_run_ends_with_what_it_found_beside_dense_and_the_committed_results(store: Store, tmp_path: Path) -> None:
    here = Store(tmp_path / "here")
    mine = [row(name).model_copy(update={"seeds": (0,)}) for name in ("dense", "snp", "magnitude")]
    fill(here, mine[0], [0.90])
    fill(here, mine[1], [0.875])
    text = ending(mine, here, store, "desk")
    first, second, third = (line.split() for line in text.splitlines()[5:8])
    assert first == ["dense", "90.0", "90.0", "90.0", "90.0", "0.0"]
    assert second == ["snp", "87.5", "87.5", "87.5", "-2.5", "88.0", "0.5"]
    assert third == ["magnitude", "missing", "missing", "missing"]
    assert f"runs: {here.root} (8.0 minutes of one thread)" in text
    assert f"next: snp table scenes/dense@100 scenes/snp@60 scenes/magnitude@60 --out {here.root}" in text
    assert max(map(len, text.splitlines()[:8])) <= 80


@pytest.mark.parametrize("root", ["results", "../{}/results"])
def test_a_run_in_the_committed_folder_is_not_compared_with_itself(store: Store, root: str) -> None:
    here = Store(store.root.parent / root.format(store.root.parent.name))
    text = ending([row("snp")], here, store, "desk")
    assert ["snp", "89.0", "89.0", "89.0", "-2.0"] in [line.split() for line in text.splitlines()]
    assert "largest" not in text


def test_without_a_dense_model_of_its_own_a_run_stands_beside_the_committed_one(store: Store, tmp_path: Path) -> None:
    here = Store(tmp_path / "here")
    mine = row("snp").model_copy(update={"seeds": (0,), "size": Size(0.5)})
    fill(here, mine, [0.875])
    text = ending([mine], here, store, "desk")
    assert ["snp", "87.5", "87.5", "87.5", "-2.5"] in [line.split() for line in text.splitlines()]
    assert "Δ dense is empty" not in text


def test_where_no_dense_model_is_a_run_and_its_table_name_the_command_that_makes_it(tmp_path: Path) -> None:
    here, mine = Store(tmp_path / "here"), row("snp").model_copy(update={"seeds": (1, 2)})
    fill(here, mine, [0.875, 0.87])
    needed = f"`snp run scenes/dense@100 --seed 1 2 --out {here.root}` makes it"
    assert needed in ending([mine], here, Store(tmp_path / "none"), "desk")
    assert needed in render(Measured([mine], here))
    fill(here, dense_of(mine), [0.9, 0.9])
    assert "makes it" not in ending([mine], here, here, "desk") + render(Measured([mine], here))


def test_at_smoke_scale_a_run_says_that_figures_mean_nothing(tmp_path: Path) -> None:
    (dense, *_) = rows("table1", "smoke")
    fill(Store(tmp_path), dense, [0.5])
    assert "figures mean nothing" in ending([dense], Store(tmp_path), Store(tmp_path / "none"), "smoke")


@pytest.mark.slow
@pytest.mark.parametrize("columns", [60, 80, 120, 240])
def test_a_table_keeps_within_the_terminal_and_says_what_has_no_room(
    store: Store, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    text = table("table1", store, "desk", "scenes", "text")
    assert max(map(len, text.splitlines())) <= columns
    shown = text.split("no room for:")[0]
    assert all(head in shown for head in ("method", "dense", "stored")) and "random-structured" in shown
    assert ("no room for" in text) == (columns < 240)
    assert "towers" in text


@pytest.mark.slow
def test_html_and_json_hold_what_markdown_and_csv_do(store: Store) -> None:
    records = json.loads(table("table1", store, "desk", "scenes", "json"))
    lines = long(store)
    assert [record["label"] for record in records] == [line["label"] for line in lines]
    page = table("table1", store, "desk", "scenes", "html")
    assert page.count("<table") == 3 and "89.0 ±1.0" in page


@pytest.mark.slow
def test_the_figure_is_a_png_with_the_same_bytes_twice(store: Store, tmp_path: Path) -> None:
    first = figure("table1", store, "desk", "scenes", tmp_path / "a.png").read_bytes()
    assert first.startswith(b"\x89PNG") and len(first) > 10_000
    assert figure("table1", store, "desk", "scenes", tmp_path / "b.png").read_bytes() == first


def test_a_curve_reaches_as_far_as_its_loss_stays_within_a_point_by_straight_lines_between_sizes() -> None:
    def reached(*loss: float) -> float:
        return reach(pd.Series([0.2, 0.4, 0.6]), pd.Series(loss), 1.0)

    assert reached(0.5, 2.5, 9.0) == pytest.approx(0.25)
    assert reached(4.0, 5.0, 6.0) == pytest.approx(0.05)  # from nothing removed, at no loss, on
    assert reached(-1.0, 0.0, 0.9) == 0.6
    assert reached(1.5, 0.5, 2.5) == pytest.approx(0.45)  # the largest share counts


@pytest.mark.slow
def test_figure1_gives_the_lossless_ratio_of_every_method_kinds_told_apart(tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    for one in rows("figure1", "desk"):
        precision = {"dense": 0.9, "snp": 0.9 - 0.05 * (1 - one.size.share), "lamp": 0.9 - 0.2 * (1 - one.size.share)}
        if one.name in precision:
            kind = {"dense": "dense", "snp": "joint", "lamp": "unstructured"}[one.name]
            stored = {"stored_ratio": 1.0, "stored_params": 1_000_000} if one.name == "lamp" else {}
            fill(store, one, [precision[one.name]], kind=kind, **stored)
    found = limits("figure1", store, "desk", "scenes").set_index("method")
    assert found.loc["snp"].to_dict() == {"kind": "joint", "lossless ratio": "20%", "sizes": "6"}
    assert found.loc["lamp", "lossless ratio"] == "5%"
    assert list(found.index) == ["snp", "lamp"]  # what is not measured is left out
    lamp = curves("figure1", store, "desk", "scenes")[1].points
    assert lamp.removed.tolist() == pytest.approx([0.2, 0.4, 0.5, 0.6, 0.7])  # zero, and stored all the same
    picture = figure("figure1", store, "desk", "scenes", tmp_path / "figure1.png")
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_figure1_takes_every_seed_that_is_there_and_draws_sizes_beyond_a_methods_reach_once(tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    for one in (row for row in rows("figure1", "desk") if row.name in ("dense", "snp", "cross-modal")):
        stored = {"stored_ratio": max(one.size.share, 0.595)} if one.name == "cross-modal" else {}
        seeds = (0, 1) if one.size.share < 0.55 or one.name == "dense" else (0,)
        lost = 0 if one.name == "dense" else 0.1 * (1 - one.size.share)
        planned = one.model_copy(update={"seeds": seeds})
        fill(store, planned, [0.9 - lost, 0.88 - lost], **stored, kind="dense" if one.name == "dense" else "joint")
    snp, tied = curves("figure1", store, "desk", "scenes")
    assert snp.points.n.tolist() == [1, 1, 2, 2, 2, 2]
    assert snp.points.score.tolist() == pytest.approx([88.0, 86.0, 84.0, 83.0, 82.0, 81.5])
    assert snp.points["std"].tolist()[2:] == pytest.approx([2**0.5] * 4)
    assert snp.points.loss.tolist() == pytest.approx([2.0, 4.0, 5.0, 6.0, 7.0, 7.5])  # paired seed by seed
    assert tied.points.removed.tolist() == pytest.approx([0.2, 0.4, 0.405, 0.405, 0.405, 0.405])
    assert tied.drawn.removed.tolist() == pytest.approx([0.0, 0.2, 0.4])


@pytest.mark.slow
def test_relaxed_tickets_keep_99_per_cent_of_the_dense_score_of_their_benchmark(tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    for one in rows("tickets", "desk"):
        lost = {"dense": 0.0, "task-ticket": 0.02, "universal-ticket": 0.01, "random-ticket": 0.1}[one.name]
        fill(store, one, [0.8 * (1 - lost * (one.size.sparsity or 0))], kind="unstructured", sparsity=one.size.sparsity)
    found = limits("tickets", store, "desk", "scenes").set_index("method")["relaxed sparsity"]
    assert found.to_dict() == {
        "task-ticket, RefCOCO": "50%",
        "universal-ticket, RefCOCO": "≥ 90%",
        "universal-ticket, RefCOCO+": "≥ 90%",
        "random-ticket, RefCOCO": "10%",
        "random-ticket, RefCOCO+": "10%",
    }
    picture = figure("tickets", store, "desk", "scenes", tmp_path / "tickets.png")
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_mode_of_a_method_that_has_several_stands_under_the_table(store: Store) -> None:
    fill(store, row("multiflow"), [0.9], kind="unstructured", options={"mode": "corrected"})
    assert "- multiflow: in its corrected mode\n" in table("table1", store, "desk", "scenes")


def test_answers_that_see_no_picture_stand_below_the_dense_row(store: Store) -> None:
    dense = next(row for row in rows("table2", "desk") if row.name == "dense" and row.data == "scenes")
    store.save(dense.compress(0), MANIFEST, cost(dense))
    score = {"n": 100, "accuracy": 0.81, "type_accuracy": 1.0, "by_type": {}}
    splits = {"val": score, "testdev": score | {"accuracy": 0.8}}
    baselines = {"majority": {"val": {"n": 100, "accuracy": 0.37}}}
    store.save(dense.finetune(0, "gqa"), MANIFEST, {"splits": splits, "zero_shot": {}, "baselines": baselines})
    _, _, first, second, *_ = (text for text in table("table2", store, "desk", "scenes").splitlines() if "|" in text)
    assert [cell.strip() for cell in first.split("|")[3:5]] == ["81.0", "80.0"]
    assert [cell.strip() for cell in second.split("|")[1:5]] == ["majority answer", "sees no picture", "37.0", ""]
