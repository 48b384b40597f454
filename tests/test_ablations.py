"""Ablations: every switch of SNP is shown where it is measured, and where it is not that is said."""

from pathlib import Path

import pytest
from synthetic import fill

from snp.errors import InputError
from snp.experiment.labels import find
from snp.experiment.tables import STEPS
from snp.report.ablations import EXAMPLES, Ablations
from snp.report.plots import OTHERS, SWITCHES
from snp.runs.store import Store
from snp.sharing.snp import SNP


def put(store: Store, label: str, precisions: list[float], kind: str = "joint") -> None:
    """A row with a seed for each precision."""
    row = find(label, "desk").model_copy(update={"seeds": tuple(range(len(precisions)))})
    fill(store, row, precisions, kind=kind)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "runs")
    put(store, "scenes/dense@100", [0.90, 0.91, 0.92], "dense")
    put(store, "scenes/snp@60", [0.88, 0.90, 0.89])
    return store


def test_switches_are_options_of_the_method_and_each_option_is_of_one() -> None:
    options = [option for own in SWITCHES.values() for option in own]
    assert {*options} <= SNP.Options.model_fields.keys() and len({*options}) == len(options)


@pytest.mark.slow
def test_a_switch_is_a_difference_to_snp_paired_over_seeds(store: Store) -> None:
    put(store, "scenes/snp,block=3@60", [0.86, 0.88, 0.87])
    put(store, "scenes/snp,block=1@60", [0.89, 0.90])
    put(store, "scenes/snp,block=6@60", [0.80])
    plot = Ablations(store).switch("block size")
    assert plot.png.startswith(b"\x89PNG")
    assert plot.said.startswith("Beside snp, ") and plot.said.endswith(").") and plot.said.count(". ") == 0
    assert "snp,block=3 is worse at 40% removed (-2.0 [-2.0, -2.0])" in plot.said
    assert "snp,block=1 is undecided at 40% removed (+0.5 [-5.9, +6.9])" in plot.said
    assert "snp,block=6 has one seed at 40% removed (-8.0)" in plot.said
    numbers = plot.numbers.set_index("row")
    assert numbers.loc["scenes/snp,block=3@60"].tolist() == ["87.0", "-2.0 [-2.0, -2.0]", "0.01", "3"]


@pytest.mark.slow
@pytest.mark.parametrize("switch", [*SWITCHES])
def test_a_switch_that_is_not_measured_says_so_and_names_a_row_that_exists(store: Store, switch: str) -> None:
    plot = Ablations(store).switch(switch)
    assert not plot.png and plot.said.startswith("**Not measured.** No committed run differs from snp in `")
    assert switch not in EXAMPLES or f"`snp run scenes/snp,{EXAMPLES[switch]}@60`" in plot.said
    if switch in EXAMPLES:
        assert {*find(f"scenes/snp,{EXAMPLES[switch]}@60", "desk").options} <= {*SWITCHES[switch]}


@pytest.mark.slow
def test_a_waterfall_goes_from_least_norm_to_snp_and_gives_each_part_what_it_adds(store: Store) -> None:
    assert "Not measured" in Ablations(store).waterfall().said
    for name, lost in zip(STEPS[:-1], (0.10, 0.07, 0.05, 0.03), strict=True):
        put(store, f"scenes/{name}@60", [0.90 - lost, 0.91 - lost, 0.92 - lost])
    plot = Ablations(store).waterfall()
    assert plot.png.startswith(b"\x89PNG")
    assert plot.said == (
        "With 40% removed, units of least norm lose 10.0 points, of which are given back: the basis 3.0, "
        "a score over all layers 2.0, sharing 2.0 and learning 1.0."
    )
    assert plot.numbers.iloc[0].tolist()[:2] == ["40%", "-10.0 [-10.0, -10.0]"]


@pytest.mark.slow
def test_rows_are_drawn_over_the_sizes_that_they_are_measured_at(store: Store) -> None:
    assert "No run of snp-free-logits" in Ablations(store).over_sizes("snp", "snp-free-logits").said
    put(store, "scenes/snp-free-logits@60", [0.87, 0.88, 0.89])
    put(store, "scenes/snp@25", [0.80, 0.81, 0.82])
    plot = Ablations(store).over_sizes("snp", "snp-free-logits")
    assert plot.png.startswith(b"\x89PNG")
    assert plot.said.startswith("Beside the dense model: snp -10.0 [-10.0, -10.0] with 75% removed and snp-free-logits")
    assert plot.numbers.row.tolist() == ["scenes/snp@60", "scenes/snp@25", "scenes/snp-free-logits@60"]


@pytest.mark.slow
def test_what_differs_in_several_switches_or_in_none_is_not_left_out(store: Store) -> None:
    put(store, "scenes/snp,block=3,lam=8@60", [0.89, 0.90, 0.89])
    put(store, "scenes/snp,tau=0.2@60", [0.89, 0.90, 0.89])
    put(store, "scenes/snp,block=3@50", [0.89])  # of a size at which snp is not measured
    shown = Ablations(store)
    assert shown.switch(OTHERS).numbers.row.tolist() == ["scenes/snp,block=3,lam=8@60", "scenes/snp,tau=0.2@60"]
    assert not shown.switch("block size").png


def test_without_snp_and_the_dense_model_there_is_nothing_to_show(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    put(store, "scenes/snp@60", [0.88])
    with pytest.raises(InputError, match="holds no results of snp beside the dense model, on scenes"):
        Ablations(store)


def test_a_longer_phase_is_no_variant_and_no_second_snp(store: Store) -> None:
    before = [row.label for row in Ablations(store).rows]
    put(store, "scenes/snp@60x4", [0.95])
    assert [row.label for row in Ablations(store).rows] == before
