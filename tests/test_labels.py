"""Rows that stand in no table: any method at any size with any options; and those that a folder of runs holds."""

from pathlib import Path

import pytest
from pydantic import ValidationError
from synthetic import MANIFEST, cost, fill

from snp.cli import main
from snp.compression.size import Size
from snp.errors import InputError
from snp.experiment.labels import find
from snp.experiment.spec import Finetune, parse
from snp.experiment.tables import TABLES, rows
from snp.models.augment import Augment
from snp.models.distill import Distill
from snp.runs.present import present
from snp.runs.store import Store
from snp.trimming.trim import Trim


def test_any_method_at_any_size_is_a_row() -> None:
    row = find("scenes/lamp@55", "smoke")
    assert (row.label, row.method, row.size, row.group) == ("scenes/lamp@55", "lamp", Size(keep=0.55), "45%")
    assert row.benchmarks == ("refcoco",) and row.recovery
    weights = find("stamps/snip@s62.5:gqa", "desk")
    assert (weights.label, weights.size) == ("stamps/snip@s62.5:gqa", Size(sparsity=0.625))
    assert weights.group == "62.5%" and weights.of == "the prunable weights" and not weights.recovery
    assert find("scenes/magnitude@35:coco", "desk").model == "glip"
    assert find("scenes/upop", "desk", keep=0.35).size == Size(keep=0.35)


def test_options_are_part_of_a_row_and_those_at_their_default_are_not() -> None:
    row = find("scenes/snp@55", "smoke", options=("block=4", "every=1", "track=true"))
    assert row.label == "scenes/snp,block=4@55" and row.options == {"block": 4}
    assert find(row.label, "smoke") == row
    assert find("scenes/snp-prune-only,lam=8@55", "smoke").options == {"cross": False, "blockwise": False, "lam": 8}
    assert find("scenes/snp,block=2@60", "desk").compress(0) == find("scenes/snp@60", "desk").compress(0)


@pytest.mark.parametrize(
    ("label", "options", "problem"),
    [
        ("scenes/snb@55", (), r"no such row at scale desk \(near: .*scenes/snip@"),
        ("scenes/snp", (), "no such row"),
        ("scenes/dense", (), r"near: scenes/dense@100, "),
        ("nowhere/snp@55", (), "no such row"),
        ("real/snp@55", (), "no such row"),
        ("scenes/snp@55:refcoco+", (), "no such row"),
        ("scenes/lamp@0", (), "its size must be more than 0%"),
        ("scenes/lamp@s100", (), "its size must be"),
        ("scenes/lamp@101", (), "its size must be"),
        ("scenes/snp@55", ("blok=4",), r"snp.blok: is no option of it \(options of snp: .*prune, cross"),
        ("scenes/snp@55", ("block=x",), "snp.block: .*integer"),
        ("scenes/snp@55", ("block=3", "block=4"), r"--option block: is given twice"),
        ("scenes/snp,block=3@55", ("block=4",), r"--option block: is given twice"),
        ("scenes/snp@55", ("block",), r"--option block: is no option \(write name=value"),
        ("scenes/snp-prune-only@55", ("cross=true",), "snp-prune-only.cross: is False by this name"),
    ],
)
def test_what_a_label_may_not_be(label: str, options: tuple[str, ...], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        find(label, "desk", options=options)


@pytest.mark.parametrize("name", TABLES)
def test_the_rows_of_a_table_are_found_again_in_its_results(name: str, tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    planned = rows(name, "smoke")[:6]
    for row in planned:
        for seed in row.seeds:
            store.save(row.compress(seed), MANIFEST, cost(row))
    found = {row.compress(seed): row.name for row in present(store) for seed in row.seeds}
    wanted = {row.compress(seed) for row in planned for seed in row.seeds}
    assert found.keys() == wanted


def test_a_table_shows_what_is_there_planned_or_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "runs"
    store = Store(out)
    lone = find("scenes/snp,block=4@55", "smoke").model_copy(update={"seeds": (7,)})
    dense = find("scenes/dense@100", "smoke").model_copy(update={"seeds": (7,), "benchmarks": ("refcoco",)})
    fill(store, lone, [0.81], kind="joint")
    fill(store, dense, [0.9])
    main(["table", "--out", str(out)])
    shown = capsys.readouterr().out
    assert "snp,block=4" in shown and "81.0" in shown and "-9.0" in shown and "missing" not in shown
    assert max(map(len, shown.splitlines())) <= 80
    main(["table", "scenes/snp,block=4@55", "--out", str(out), "--format", "json"])
    assert '"label":"scenes\\/snp,block=4@55"' in capsys.readouterr().out
    main(["compare", "scenes/snp,block=4@55", "scenes/dense@100", "--out", str(out)])
    assert "seeds 7" in (shown := capsys.readouterr().out) and "-9.0" in shown
    with pytest.raises(SystemExit):
        main(["table", "scenes/upop@55", "--out", str(out)])
    assert "holds no results of scenes/upop@55" in capsys.readouterr().err


def test_runs_of_two_scales_have_no_table_in_common(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for scale in ("smoke", "desk"):
        fill(store, find("scenes/snp@60", scale), [0.8])
    with pytest.raises(InputError, match="holds runs of several scales"):
        present(store)


def test_what_is_trimmed_of_inputs_is_part_of_a_row() -> None:
    row = find("scenes/snp@60+trim50,guide=image,sites=1-3:gqa", "desk")
    assert row.special == Trim(guide="image", sites=(1, 3)) and row.benchmarks == ("gqa",)
    assert row.label == "scenes/snp@60+trim50,guide=image,sites=1-3:gqa" and find(row.label, "desk") == row
    assert row.compress(0) == find("scenes/snp@60", "desk").compress(0)
    assert row.finetune(0, "gqa").name.endswith("-gqa-trim50-guide-image-sites-1-3")
    assert find("scenes/dense@100+trim100", "desk").special == Trim(tokens=1)


def test_a_dual_encoder_is_part_of_a_row_and_starts_when_its_teacher_is_done() -> None:
    row = find("scenes/snp@60+dual,labels=true", "desk")
    assert row.special == Distill(labels=True) and row.label == "scenes/snp@60+dual,labels=true"
    teacher = find("scenes/dense@100", "desk").finetune(0, "refcoco")
    assert row.finetune(0, "refcoco").parents()[-1] == teacher and teacher in row.runs(0)
    alone = find("scenes/snp@60+dual,soft=false,attention=none,labels=true", "desk")
    assert alone.finetune(0, "refcoco").teacher is None and teacher not in alone.runs(0)


def test_captions_that_are_made_are_part_of_a_row_and_of_no_run_without() -> None:
    row = find("scenes/dense@100+ask,kind=pair:no-target", "desk")
    assert row.special == Augment() and row.benchmarks == ("no-target",)
    assert row.label == find(row.label, "desk").label == "scenes/dense@100+ask:no-target"
    other = find("scenes/snp@60+ask,count=20000,kind=swap:no-target", "desk")
    assert find(other.label, "desk") == other and other.special == Augment(kind="swap", count=20_000)
    run, plain = row.finetune(0, "no-target"), find("scenes/dense@100:no-target", "desk").finetune(0, "no-target")
    assert run.name.endswith("-no-target-ask") and run.parent == plain.parent
    assert run.hash != plain.hash != other.finetune(0, "no-target").hash and "ask" not in plain.canonical()
    assert parse(run.canonical(), "spec") == run


@pytest.mark.parametrize(
    ("label", "problem"),
    [
        ("scenes/snp@60+ask", "made for no-target"),
        ("scenes/snp@60+ask:gqa", "made for no-target"),
        ("scenes/snp@60+trim50+ask:no-target", r"trim50 and ask do not go together"),
        ("scenes/snp@60+ask,noise=0.2:no-target", "noise is of kind=rule"),
        ("scenes/snp@60+ask,kind=crowd:no-target", "kind: .*'crowd'"),
        ("scenes/snp@60+asking:no-target", "no such row"),
        ("scenes/snp@60+dual,hard=true", "hard: .*not permitted"),
        ("scenes/snp@60+dual,labels=true,labels=false", "labels is given twice"),
        ("scenes/snp@60+trim50,tokens=0.3", "tokens is given twice"),
        ("scenes/snp@60+dualfoo", "no such row"),
        ("scenes/snp@60+trim50+dual", "do not go together"),
        ("scenes/snp@60+dual:flickr30k", "one thing of a whole sentence"),
        ("scenes/snp@60+dual,soft=false,attention=none", "nothing to learn from"),
        ("scenes/multiflow@s63+dual", "twice what is zeroed"),
        ("scenes/snp@60+trim50,sites=7", "no layer of a tower of 6"),
        ("scenes/snp@60+trim100,distill=false", "no other options"),
        ("scenes/snp@60+trim50,policy=random,guide=image", "guide is of learned gates"),
        ("scenes/snp@60+dual:coco", "looks for what captions say"),
        ("scenes/snp@60+trim0", "trim0: tokens: .*greater than 0"),
        ("scenes/snp@60+trim50,guid=text", "guid: .*not permitted"),
        ("scenes/snp@60+trimhalf", "trimhalf is no share of tokens"),
        ("scenes/snp@60+trim50,policy=random,heads=0.5", "policy=random keeps all heads"),
        ("scenes/snp@60+trim50:coco", "looks for what captions say"),
    ],
)
def test_odd_trims_are_refused(label: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        find(label, "desk")


@pytest.mark.parametrize(
    "label", ["real/dense@100+dual", "real/snp@60+trim50,policy=fixed", "real/dense@100+ask:no-target"]
)
def test_what_models_of_paper_scale_cannot_do_is_refused_before_anything_is_trained(label: str) -> None:
    with pytest.raises(InputError, match="paper scale"):
        find(label, "paper")
    special = {row.label for row in rows("table5", "paper")}
    assert special and not any("+dual" in one or "policy=fixed" in one for one in special)


def test_another_size_of_a_special_row_is_special_too() -> None:
    assert find("scenes/snp@60+trim50", "desk", keep=0.5).label == "scenes/snp@50+trim50"
    assert find("scenes/snp@60+dual", "desk", keep=0.5).label == "scenes/snp@50+dual"
    assert find("scenes/snp", "desk", keep=0.5).label == "scenes/snp@50"


def test_trimmed_rows_stand_in_a_folder_beside_those_that_are_not(tmp_path: Path) -> None:
    store, labels = (
        Store(tmp_path),
        ("scenes/snp@60", "scenes/snp@60+trim50", "scenes/dense@100+trim100", "scenes/dense@100+dual"),
    )
    for label in labels:
        fill(store, find(label, "smoke"), [0.5])
    assert {row.label for row in present(store)} == {*labels}


def test_rows_for_which_captions_are_made_stand_beside_those_for_which_none_are(tmp_path: Path) -> None:
    store, score = Store(tmp_path), {"n": 10, "auroc": 0.5, "precision@f1": 0.5}
    labels = {f"scenes/dense@100{how}:no-target" for how in ("", "+ask", "+ask,kind=rule,noise=0.5")}
    for label in labels:
        row = find(label, "smoke")
        store.save(row.compress(0), MANIFEST, cost(row))
        store.save(row.finetune(0, "no-target"), MANIFEST, {"splits": {"val": score, "testA": score}})
    assert {row.label for row in present(store)} == labels


def test_what_learns_no_expressions_without_a_target_needs_none_made() -> None:
    plain = find("scenes/dense@100", "smoke").finetune(0, "refcoco")
    with pytest.raises(ValidationError, match="refcoco has targets alone"):
        Finetune(benchmark="refcoco", parent=plain.parent, ask=Augment())
