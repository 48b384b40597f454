"""Adaptation by a few expressions: what learns and what stays, which expressions, how it ends, and what is claimed."""

from io import StringIO
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import torch
from synthetic import MANIFEST, cost

from snp.compression.compress import compress
from snp.compression.masked import MaskedParameter
from snp.compression.plan import Plan
from snp.compression.tied import TiedLinear
from snp.compression.tower import towers_of
from snp.data.drawn import looks
from snp.errors import InputError
from snp.experiment.benchmarks import ABOUT
from snp.experiment.labels import find
from snp.experiment.rows import Row
from snp.experiment.shots import main, rates, table6
from snp.experiment.spec import Finetune
from snp.files import read_json, write_json
from snp.models.adapt import RATES, TRIED, Adapt
from snp.models.config import SMOKE
from snp.models.learns import hold, learning, share, shared_units, tower_maps
from snp.models.mdetr import MDETR, TOWERS
from snp.report import heads, shots
from snp.report.claims import claims
from snp.report.few import by_seed, wins
from snp.report.frame import Measured
from snp.report.table import table
from snp.runs.store import Store
from snp.training import adapted, saved, stages
from snp.training.prepare import Source


def test_labels_say_what_is_learned_from_and_what_learns() -> None:
    for text in ("adapt128", "adapt32,train=bias", "adapt512,rest=dense,train=ticket", "adapt128,rate=0.001"):
        assert str(Adapt.from_text(text)) == text
    row = find("scenes/gradual-attribution@s80+adapt64,train=ticket:looks", "desk")  # of no table
    assert row.special == Adapt(shots=64, train="ticket") and row.recovery
    assert row.label == "scenes/gradual-attribution@s80+adapt64,train=ticket:looks"
    assert all(find(row.label, "desk") == row for row in table6("desk") + rates("desk"))


@pytest.mark.parametrize(
    ("label", "problem"),
    [
        ("scenes/dense@100+adapt128", "is adapted to other looks"),
        ("scenes/dense@100:looks", "is about a few expressions of another look"),
        ("scenes/dense@100+trim50:looks", "is about a few expressions of another look"),
        ("scenes/dense@100+adapt0:looks", "no such row|no number of expressions"),
        ("scenes/dense@100+adapt9,rest=dense:looks", "train=ticket"),
        ("scenes/dense@100+adapt9+dual:looks", "do not go together"),
        ("scenes/dense@100+adapt9:coco", "is of the model that looks for what captions say"),
        ("scenes/dense@100+adapt9,train=ticket:looks", "dense leaves no weights of train=ticket"),
        ("scenes/gradual@s70+adapt9,train=own:looks", "gradual leaves no weights of train=own"),
        ("scenes/dense@100+adapt9999:looks", "there are 2000 expressions of a look"),
        ("scenes/dense@100+adapt9,shots=8:looks", "shots is given twice"),
        ("scenes/dense@100+adapt9,rate=inf:looks", "rate: .*finite"),
    ],
)
def test_labels_that_say_what_cannot_be_are_refused_in_a_line(label: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        find(label, "desk")


def test_a_run_that_is_not_adapted_keeps_its_name() -> None:
    plain, few = find("scenes/dense@100", "desk"), find("scenes/dense@100+adapt128:looks", "desk")
    assert plain.finetune(0, "refcoco").slug == "scenes-dense-keep100-seed0-refcoco-2734add1b4"
    assert few.finetune(0, "looks").parents() == plain.finetune(0, "refcoco").parents()


def test_where_a_ticket_only_says_what_learns_the_dense_model_is_a_parent_too() -> None:
    run = find("scenes/random@s70+adapt128,rest=dense,train=ticket:looks", "desk").finetune(1, "looks")
    assert [one.method for one in run.parents()[1:]] == ["random", "dense"] and run.begins.seed == 1  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def model() -> MDETR:
    torch.manual_seed(0)
    return MDETR(SMOKE.model_copy(update={"vocabulary": 50}))


def learn(model: MDETR, steps: int = 5) -> dict[str, torch.Tensor]:
    """The parameters after steps that would move every one of them."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.0)
    for _ in range(steps):
        sum(parameter.sin().sum() for parameter in model.parameters() if parameter.requires_grad).backward()
        optimizer.step()
        optimizer.zero_grad()
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def moved(model: MDETR, learns: dict[str, torch.Tensor | None]) -> dict[str, torch.Tensor]:
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    hold(model, learns)
    after = learn(model)
    return {name: after[name] != before[name] for name in before}


def test_what_a_ticket_leaves_out_stays_to_the_bit(model: MDETR) -> None:
    fresh = MDETR(model.config)
    name = "vision.blocks.0.mlp.fc1.weight"
    mask = torch.rand(fresh.get_parameter(name).shape) > 0.7
    for parameter, where in moved(fresh, {name: mask}).items():
        assert torch.equal(where, mask) if parameter == name else not where.any()


@pytest.mark.parametrize("train", ["bias", "last"])
def test_biases_or_the_last_layer_alone_move(train: str, model: MDETR) -> None:
    fresh = MDETR(model.config)
    changed = {name for name, where in moved(fresh, learning(fresh, None, train)).items() if where.any()}  # type: ignore[arg-type]
    if train == "bias":
        assert changed == {name for name, _ in fresh.named_parameters() if name.endswith("bias")}
    else:
        assert {name.split(".")[0] for name in changed} == {
            "decoder", "slot_head", "box_head", "query_contrast", "token_contrast",
        }  # fmt: skip
        assert not any(name.startswith("decoder.0.") for name in changed) or len(fresh.decoder) == 1


def test_shared_and_own_units_part_the_maps_of_the_towers(model: MDETR) -> None:
    small, plan = compress(model, "cross-modal", keep=0.75, towers=TOWERS)
    shared, own = (learning(small, plan, train) for train in ("shared", "own"))
    names = set(tower_maps(small))
    assert set(own) == names and set(shared) < names
    assert {name.split(".")[0] for name in shared} == {"vision"}  # which gives
    for name in names:
        everything = torch.ones_like(small.get_parameter(name), dtype=torch.bool)
        theirs = shared.get(name, ~everything)
        assert torch.equal(theirs, ~(everything if own[name] is None else own[name]))


def test_units_are_shared_where_another_map_reads_them() -> None:
    donor = torch.nn.Linear(3, 4)
    reader = TiedLinear(torch.zeros(1, 3), torch.zeros(1), torch.tensor([0, 2, 4]), (donor,), 0)
    columns = torch.nn.Linear(4, 2)
    other = TiedLinear(torch.zeros(2, 2), torch.zeros(2), torch.tensor([0, 1, 5]), (columns,), 1)
    found = shared_units(torch.nn.ModuleDict({"a": donor, "b": reader, "c": columns, "d": other}))
    assert found.keys() == {"a.weight", "a.bias", "c.weight"}  # biases behind columns are never shared
    assert found["a.bias"].tolist() == [False, True, False, True]
    assert torch.equal(found["a.weight"], found["a.bias"][:, None].expand(4, 3))
    assert found["c.weight"].any(0).tolist() == [False, False, False, True] and bool(found["c.weight"][:, 3].all())


def test_what_has_no_ticket_or_shares_nothing_cannot_learn_there_alone(model: MDETR) -> None:
    with pytest.raises(InputError, match="masks no weights"):
        learning(model, Plan.dense(towers_of(model, TOWERS)), "ticket")
    with pytest.raises(InputError, match="no layer of the model has units of another"):
        learning(model, Plan.dense(towers_of(model, TOWERS)), "own")


def test_the_share_that_learns_counts_what_is_there() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 2))  # 8 and 6 parameters
    assert share(net, {"0.weight": None}) == 6 / 14
    half = torch.tensor([[True, False, False], [True, True, False]])
    assert share(net, {"0.weight": half, "0.bias": None}) == 5 / 14
    net[0].weight = MaskedParameter(net[0].weight.data, half)  # type: ignore[index]
    assert share(net, {"0.weight": half}) == share(net, {"0.weight": None}) == 3 / 11


def test_a_ticket_wins_a_look_if_it_is_ahead_over_seeds_however_many_draws_each_has() -> None:
    """By hand: seeds of mean 2, deviation 0.2: t = 17 of 2 degrees, p = 0.002; of mean 1 and 1: t = 1.7, p = 0.11."""
    draws = pd.MultiIndex.from_product([range(3), range(2)])
    gap = pd.DataFrame(
        [[1.7, 1.9, 1.9, 2.1, 2.1, 2.3], [-1, 1, 0, 2, 1, 3], [0.0] * 6], ["sure", "hardly", "no"], draws
    )
    assert by_seed(gap).loc["sure"].tolist() == pytest.approx([1.8, 2.0, 2.2])
    assert wins(gap).to_dict() == {"sure": True, "hardly": False, "no": False}
    assert not wins(gap[[0]]).any()  # of one seed nothing is known


def test_rates_are_the_best_of_those_that_were_tried() -> None:
    measured = Measured(rates("desk"), Store.at("desk"))
    found: dict[str, dict[float, float]] = {}
    for row in measured.rows:
        if not (own := measured.main(row)).empty and isinstance(row.special, Adapt):
            found.setdefault(row.special.train, {})[row.special.lr] = own.iloc[0, 0]
    known = {train: max(tried, key=tried.__getitem__) for train, tried in found.items() if len(tried) == len(TRIED)}
    assert known and known == {train: RATES[train] for train in known}  # type: ignore[index]


SHOTS = 8
ROW = find(f"scenes/gradual-attribution@s50+adapt{SHOTS}:faded", "smoke")


@pytest.fixture(scope="module")
def data(smoke_data: Path) -> Path:
    looks.make(smoke_data / "faded-smoke", 0, "faded", 40, 12, 2, 1)
    return smoke_data


@pytest.fixture
def store(smoke_dense: Store, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("SNP_DATA", str(data))
    return Store(tmp_path / "runs", base=smoke_dense)


def finished(row: Row, store: Store) -> Finetune:
    *parents, run = row.runs(0)
    for one in parents:
        if store.state(one) != "done":
            stages.run(one, store)
    assert isinstance(run, Finetune)
    return run


@pytest.mark.slow
def test_draws_are_nested_equal_for_all_models_and_free_of_what_is_judged(store: Store) -> None:
    run = finished(ROW, store)
    _, on, _ = adapted.begun(run, store, Source.from_scale("smoke", "scenes"))

    def of(shots: int, draw: int) -> list[str]:
        return [f"{entry.file_name} {entry.caption}" for entry in adapted.shots(on, "faded", shots, draw).entries]

    assert of(16, 0)[:8] == of(8, 0) and of(8, 0) != of(8, 1) and len({*of(16, 0)}) == 16
    assert all(name.startswith("train/") for name in of(16, 1))
    assert not any(entry.file_name.startswith("train/") for entry in on.data("faded").entries)
    with pytest.raises(InputError, match="adapt50: there are 40 expressions of faded"):
        of(50, 0)


@pytest.mark.slow
def test_a_row_says_how_every_draw_ended_what_it_began_with_and_what_was_forgotten(store: Store) -> None:
    run = finished(ROW, store)
    result = stages.run(run, store)
    after, before = result.scores.splits["faded"], result.scores.zero_shot["faded"]
    assert len(after["draws"]) == 1 == len(before["draws"]) and after["n"] == 12
    assert after["precision@1"] == np.mean(after["draws"]) and 0 <= after["source"] <= 1
    assert result.scores.learns == 1 and not store.has_weights(run)


@pytest.mark.slow
def test_a_run_that_is_killed_between_draws_ends_the_same(store: Store, tmp_path: Path) -> None:
    run = finished(ROW, store)
    whole = stages.run(run, store).metrics
    other = Store(store.root.parent / "killed", base=store.base)
    for parent in run.parents():
        if other.state(parent) != "done":
            stages.run(parent, other)
    left = read_json(store.folder(run) / adapted.DONE)
    first, draw = next(iter(left["draws"].items()))
    folder = other.folder(run)
    folder.mkdir(parents=True)
    for odd, problem in (([], "valid dictionary"), (left | {"draws": {first: {}}}, "n: Field required")):
        write_json(folder / adapted.DONE, odd)
        with pytest.raises(InputError, match=f"draws.json.*{problem}"):
            stages.run(run, other)
    write_json(folder / adapted.DONE, left | {"phase": left["phase"] | {"lr": 1.0}})
    with pytest.raises(InputError, match="left by another recipe"):
        stages.run(run, other)
    write_json(folder / adapted.DONE, left | {"draws": {first: draw}})
    again = stages.run(run, other).metrics
    assert again["splits"] == whole["splits"] and again["zero_shot"] == whole["zero_shot"]


@pytest.mark.slow
def test_a_ticket_alone_learns_while_the_rest_stays_what_the_dense_model_has(store: Store) -> None:
    row = find(f"scenes/random@s50+adapt{SHOTS},rest=dense,train=ticket:faded", "smoke")
    run = finished(row, store)
    model, _, plan = adapted.begun(run, store, Source.from_scale("smoke", "scenes"))
    dense, _, _ = saved.load(store.folder(run.begins))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), dense.parameters(), strict=True))
    after = learn(model)
    for name, weight in dense.named_parameters():
        where = after[name] != weight
        assert torch.equal(where, plan.masks[name]) if name in plan.masks else not where.any()
    assert stages.run(run, store).scores.learns < 0.5  # type: ignore[operator]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The main rows at 128 expressions, on every look: the ticket by attribution is ahead by three points."""
    store = Store(tmp_path_factory.mktemp("measured"))
    rows = {
        plan[0]: row
        for plan, row in zip(main(128), (r for r in table6("desk") if r.main and r.special == Adapt()), strict=True)
    }
    for name, ahead in (("dense", 0.0), ("gradual", 0.01), ("gradual-attribution", 0.03), ("random", -0.1)):
        row = rows[name]
        for seed in row.seeds:
            draws = [0.6 + ahead + 0.001 * draw * seed for draw in range(5)]
            figures = {"n": 100, "precision@1": float(np.mean(draws)), "source": 0.8, "draws": draws}
            facts = {"facts": {"vision": {"kept": [[0.2, 0.4]], "weigh": [[0.5, 1.5]]}}} if name != "dense" else {}
            store.save(row.compress(seed), MANIFEST, cost(row, **facts))
            splits = {look: figures for look in ABOUT["looks"].splits}
            store.save(row.finetune(seed, "looks"), MANIFEST, {"splits": splits, "zero_shot": splits, "learns": 0.5})
    return store


def test_claims_are_tested_over_seeds_and_draws(measured: Store) -> None:
    told = [claim for claim in claims(Measured(table6("desk"), measured)) if claim.number == "A" and claim.seeds]
    assert [claim.measured for claim in told] == ["5 of 5", "+2.0", "+13.0"]
    assert {claim.verdict for claim in told} == {"holds"}


def test_a_table_shows_what_is_there_what_learns_and_what_was_forgotten(measured: Store) -> None:
    frame = pd.read_json(StringIO(table("table6", measured, "desk", format="json")))
    assert not frame.empty
    text = table("table6", measured, "desk")
    head = next(line for line in text.splitlines() if "looks outlines" in line)
    assert [name in head for name in ("there", "learns", "before", "at home, before", "after", "Δ dense")] == [True] * 6
    line = next(line for line in text.splitlines() if "gradual-attribution@s70, adapt128 " in line and "+3.0" in line)
    assert "44.0%" in line and "22.0%" in line  # 30% of the 80% that can be zero; half learns


@pytest.mark.parametrize("figure", [shots, heads])
def test_figures_are_drawn_from_results_alone_and_told(figure: ModuleType, measured: Store, tmp_path: Path) -> None:
    once, twice = (figure.figure(measured, "desk", tmp_path / name).read_bytes() for name in ("a.png", "b.png"))
    assert once == twice and not figure.told(figure.points(measured, "desk")).empty
    with pytest.raises(InputError, match="holds no results"):
        figure.figure(Store(tmp_path), "desk", tmp_path / "c.png")


def test_what_is_left_of_heads_goes_with_what_they_weigh(measured: Store) -> None:
    told = heads.told(heads.points(measured, "desk"))
    assert told["rank correlation"].tolist() == ["1.00", "1.00"] and told["left of a head"].tolist() == ["30.0%"] * 2


def test_a_table_of_rows_that_are_not_adapted_yet_says_so(tmp_path: Path) -> None:
    store, row = Store(tmp_path), find("scenes/dense@100+adapt128:looks", "desk")
    store.save(row.compress(0), MANIFEST, cost(row))
    assert "dense, adapt128 (missing)" in table("table6", store, "desk")
    with pytest.raises(InputError, match="table6: has no rows at scale paper"):
        table("table6", store, "paper")


def test_a_ticket_that_only_says_where_the_dense_model_learns_costs_what_that_does(tmp_path: Path) -> None:
    store, row = Store(tmp_path), find("scenes/random@s70+adapt128,rest=dense,train=ticket:looks", "desk")
    store.save(row.compress(0), MANIFEST, cost(row, sparsity=0.7))
    [costs] = Measured([row], store).cost(row).to_dict("records")
    assert costs["nonzero_ratio"] == costs["flops_ratio"] == 1 and pd.isna(costs["sparsity"])
