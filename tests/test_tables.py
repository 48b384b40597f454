"""Which rows tables and figures have."""

import pytest

from snp.compression.budget import Budget
from snp.compression.tower import towers_of
from snp.errors import InputError
from snp.experiment.labels import find
from snp.experiment.recipes import phase_of
from snp.experiment.tables import STEPS, SWITCHES, TABLES, rows, table1
from snp.models.config import GLIP_SMOKE, SMOKE
from snp.models.family import build
from snp.models.mdetr import TOWERS

DESK = table1("desk")


def names(data: str, group: str) -> list[str]:
    return [row.name for row in DESK if (row.data, row.group) == (data, group)]


def test_labels_are_unique_and_lead_back_to_their_row() -> None:
    labels = [row.label for row in DESK]
    assert len(set(labels)) == len(labels)
    assert [find(label, "desk") for label in labels] == DESK


def test_no_two_rows_share_a_run_other_than_pretraining() -> None:
    runs = [run for row in DESK for seed in row.seeds for run in row.runs(seed)[1:]]
    assert len({run.hash for run in runs}) == len(runs)


def test_the_main_rows_are_dense_snp_and_its_rivals_as_published_and_in_its_basis() -> None:
    main = {row.name for row in DESK if row.main and (row.data, row.group) == ("scenes", "40%")}
    assert main == {
        "dense",
        "snp",
        "upop",
        "multiflow",
        "lottery",
        "cross-modal",
        "magnitude-structured-uniform",
        "magnitude-structured-uniform-basis",
        "taylor-basis",
    }


def test_the_first_group_removes_40_per_cent_on_three_benchmarks() -> None:
    group = [row for row in DESK if (row.data, row.group) == ("scenes", "40%")]
    assert {row.size.keep for row in group} == {0.6, 1.0}
    assert {row.benchmarks for row in group if row.main} == {("refcoco", "refcoco+", "refcocog")}


def test_seeds_are_three_and_five_where_claims_are_decided() -> None:
    seeds = {row.name: len(row.seeds) for row in DESK if row.data == "scenes"}
    five = {"dense", "snp", "upop", "taylor-basis", "magnitude-structured-uniform-basis"}
    assert {name for name, count in seeds.items() if count == 5} == five
    assert {count for name, count in seeds.items() if name not in five} == {3}


def test_the_switches_of_snp_stand_in_every_group_on_refcoco() -> None:
    for group in ("40%", "60%", "75%"):
        switches = {row.name: row.benchmarks for row in DESK if row.group == group and row.name.startswith("snp-")}
        reached = [name for name in SWITCHES if group == "40%" or name != "snp-cross-only"]
        assert switches == dict.fromkeys(reached, ("refcoco",))


@pytest.mark.parametrize(("group", "keep"), [("60%", 0.4), ("75%", 0.25)])
def test_later_groups_are_on_refcoco_without_rows_that_cannot_get_there(group: str, keep: float) -> None:
    chosen = [row for row in DESK if (row.data, row.group) == ("scenes", group)]
    assert {(row.size.keep, row.benchmarks) for row in chosen} == {(keep, ("refcoco",))}
    assert "cross-modal" in names("scenes", group)
    assert not {"dense", "snp-cross-only"} & set(names("scenes", group))


def test_stamps_has_the_most_telling_methods_and_one_seed() -> None:
    assert names("stamps", "40%") == [
        "dense",
        "snp",
        "upop",
        "multiflow",
        "lottery",
        "cross-modal",
        "magnitude-structured-uniform",
        "random-structured",
    ]
    assert {row.seeds for row in DESK if row.data == "stamps"} == {(0,)}


def test_smoke_scale_is_one_seed_of_scenes() -> None:
    assert {(row.data, row.seeds) for row in table1("smoke")} == {("scenes", (0,))}


def test_runs_of_a_seed_start_with_the_shared_dense_checkpoint() -> None:
    runs = find("scenes/snp@60", "desk").runs(2)
    assert [run.kind for run in runs] == ["pretrain", "compress", "finetune", "finetune", "finetune"]
    assert runs[0] == find("scenes/dense@100", "desk").runs(0)[0]
    assert {run.seed for run in runs[1:]} == {2}


def test_another_size_of_a_row_is_a_row() -> None:
    row = find("scenes/snp", "desk", keep=0.5)
    assert (row.label, row.group, row.main) == ("scenes/snp@50", "50%", False)


def test_blockwise_sharing_alone_can_be_run_but_is_in_no_table() -> None:
    assert find("scenes/snp-blockwise-only@90", "desk").options == {"prune": False, "cross": False}
    assert "snp-blockwise-only" not in [row.name for row in DESK]


def test_table1b_zeroes_63_75_and_90_per_cent_of_the_prunable_weights_by_a_family_of_twelve() -> None:
    family = [row for row in rows("table1b", "desk") if row.name != "dense"]
    assert {row.size.sparsity for row in family} == {0.63, 0.75, 0.9}
    assert len({row.method for row in family}) == 12
    assert not any(row.recovery for row in rows("table1b", "desk"))
    thrice = {row.method for row in family if row.seeds == (0, 1, 2)}
    assert thrice == {"multiflow", "omp", "lamp", "snip", "chita"}
    assert family[0].label == "scenes/multiflow@s63"
    assert family[0].heading == "63% of the prunable weights removed"


def test_figure1_has_every_method_at_five_sizes_and_shares_the_runs_of_table1() -> None:
    chosen = rows("figure1", "desk")
    methods = {(row.method, *row.options.items()) for row in chosen if row.method != "dense"}
    assert len(methods) == 10 + 3 + 10  # the main rows but dense, those with help, and what the family adds to them
    assert {row.size.keep for row in chosen if row.name == "snip"} == {0.8, 0.6, 0.5, 0.4, 0.3}
    assert {row.size.keep for row in chosen if row.name == "snp"} == {0.8, 0.6, 0.5, 0.4, 0.3, 0.25}
    assert {len(row.seeds) for row in chosen if row.name in ("snp", "taylor-basis")} == {3}
    assert {len(row.seeds) for row in chosen if row.name in ("snip", "multiflow")} == {1}
    assert find("scenes/snp@60", "desk").compress(0) in [row.compress(0) for row in chosen]


def test_the_towers_of_smoke_scale_can_be_cut_to_every_size_that_a_table_asks_for() -> None:
    for config in (SMOKE, GLIP_SMOKE):
        model = build(config)
        asked = {row.size for name in TABLES for row in rows(name, "smoke") if row.size.keep is not None}
        for size in asked:
            Budget.from_size(size, model, towers_of(model, TOWERS), {})


def test_ablations_go_from_magnitude_to_snp_a_part_at_a_time() -> None:
    steps = [find(f"scenes/{name}@25", "desk") for name in STEPS]
    assert {row.label for row in steps} <= {row.label for row in rows("ablations", "desk")}
    prune, share, snp = steps[2:]
    at_once = {"freeze": 0, "apply_at": 0}
    assert prune.options == {"cross": False, "blockwise": False} | at_once
    assert (share.options, snp.options) == (at_once, {})
    assert [row.options.get("basis") for row in steps[:2]] == [None, "spectral"]


def test_ablations_share_their_runs_with_labels_that_people_type() -> None:
    chosen = {row.name: row for row in rows("ablations", "desk") if row.group == "75%"}
    for name in ("snp,block=3", "snp,pull=0", "snp,track=false", "snp,align=loss"):
        assert find("scenes/snp@25", "desk", options=name.split(",")[1:]).compress(1) == chosen[name].compress(1)
    assert {len(row.seeds) for row in chosen.values()} == {3}


def test_a_longer_phase_is_of_the_strongest_and_of_a_dense_model_that_trains_as_long() -> None:
    chosen = rows("longer", "desk")
    assert {row.times for row in chosen} == {4}
    assert {row.name for row in chosen if row.group == "75%"} == {"snp", "upop", *STEPS[1:2], "taylor-basis"}
    row = find("scenes/snp@25x4", "desk")
    assert row in chosen and row.compress(0).name == "scenes-snp-keep25-x4-seed0"
    assert phase_of(row.compress(0)).steps == 4 * phase_of(find("scenes/snp@25", "desk").compress(0)).steps
    assert find("scenes/lamp@25x2", "desk").times == 2
    with pytest.raises(InputError, match="has no phase to be longer"):
        find("scenes/lamp@s63x4", "desk")


def test_tickets_are_found_on_a_task_on_pre_training_or_by_chance() -> None:
    chosen = {row.name: row for row in rows("tickets", "desk") if row.size.sparsity == 0.7}
    assert {name: row.task for name, row in chosen.items()} == {
        "task-ticket": "refcoco",
        "universal-ticket": None,
        "random-ticket": None,
    }
    assert chosen["universal-ticket"].benchmarks == ("refcoco", "refcoco+")
    assert chosen["random-ticket"].options == {"ticket": "random"}


def test_every_table_has_a_dense_row_for_every_data_set() -> None:
    for name in TABLES:
        chosen = rows(name, "desk")
        assert {row.data for row in chosen if row.method == "dense"} == {row.data for row in chosen}


@pytest.mark.parametrize("keep", [1.5, 0.0, -0.1])
def test_a_size_outside_its_range_is_refused(keep: float) -> None:
    with pytest.raises(InputError, match=r"--keep: must lie in \(0, 1\]"):
        find("scenes/snp@60", "desk", keep=keep)


def test_an_unknown_row_names_near_ones_and_an_unknown_table_the_tables() -> None:
    with pytest.raises(InputError, match="near: scenes/snp@60"):
        find("scenes/snpp@60", "desk")
    with pytest.raises(InputError, match="tables: table1"):
        rows("table9", "desk")
