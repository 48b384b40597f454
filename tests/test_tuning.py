"""Benchmarks other than expressions, run for real at smoke scale: from the dense model to figures in a table."""

from pathlib import Path

import pytest

from snp.compression.surgery import verify
from snp.experiment.benchmarks import ABOUT
from snp.experiment.labels import find
from snp.experiment.rows import Row
from snp.experiment.scores import ANSWERING, REJECTING
from snp.experiment.spec import dense
from snp.experiment.tables import rows
from snp.models.dual import Dual
from snp.models.mdetr import MDETR, TOWERS
from snp.report import frame
from snp.report.table import table
from snp.runs.result import Result
from snp.runs.store import Store
from snp.training import saved, stages

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def store(smoke_dense: Store, smoke_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with the dense GLIP-style model, that borrows the dense MDETR-style one."""
    store = Store(tmp_path_factory.mktemp("tasks"), base=smoke_dense)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SNP_DATA", str(smoke_data))
        stages.run(dense("smoke", "scenes", "glip"), store)
    return store


@pytest.fixture(autouse=True)
def data(smoke_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNP_DATA", str(smoke_data))


def done(row: Row, store: Store) -> Result:
    """The row's one benchmark, with all that stands before it."""
    for run in row.runs(0):
        if store.state(run) != "done":
            stages.run(run, store)
    return store.result(row.finetune(0, row.benchmarks[0]))


@pytest.mark.parametrize("label", ["scenes/snp@60:gqa", "scenes/snp@60:flickr30k", "scenes/snp@60:coco"])
def test_a_row_ends_in_the_figures_of_all_its_splits(label: str, store: Store) -> None:
    row = find(label, "smoke")
    about = ABOUT[row.benchmarks[0]]
    result = done(row, store)
    assert tuple(sorted(result.metrics["splits"])) == tuple(sorted(about.splits))
    for split in result.metrics["splits"].values():
        assert split["n"] > 0 and all(0 <= split[name] <= 1 for name in about.shown)
    assert bool(result.metrics["zero_shot"]) == (about.task is not ANSWERING)  # nobody answers with untrained heads


@pytest.mark.parametrize("benchmark", ["refcoco", "gqa"])
@pytest.mark.parametrize("parent", ["dense@100", "snp@60"])
def test_a_row_that_trims_says_what_it_kept_and_judges_itself_whole_too(
    parent: str, benchmark: str, store: Store
) -> None:
    row = find(f"scenes/{parent}+trim50" + (f":{benchmark}" if benchmark != "refcoco" else ""), "smoke")
    result = done(row, store)
    found = result.scores.trimmed
    assert found is not None and len(found.tokens_by_layer) == 2 and found.heads.mean == 1
    assert found.tokens.p10 <= found.tokens.mean <= found.tokens.p90 and found.flops.mean > 0
    assert result.scores.untrimmed.keys() == {"val"} and found.target is not None
    folder = store.folder(row.finetune(0, benchmark))
    model, plan, _ = saved.load(folder)
    assert isinstance(model, MDETR) and model.trimmer is not None and model.config.trim == row.trim
    verify(model, plan, TOWERS)


def test_the_control_of_trimming_is_trained_as_long_and_keeps_all(store: Store) -> None:
    row = find("scenes/dense@100+trim100", "smoke")
    assert done(row, store).scores.trimmed is None
    assert saved.load(store.folder(row.finetune(0, "refcoco")))[0].config.trim is None


@pytest.mark.parametrize("label", ["scenes/snp@60+dual", "scenes/dense@100+dual,labels=true:gqa"])
def test_a_dual_encoder_is_taught_judged_and_kept(label: str, store: Store) -> None:
    row = find(label, "smoke")
    result = done(row, store)
    found, run = result.scores.dual, row.finetune(0, row.benchmarks[0])
    assert found is not None and found.flops_kept < found.flops_kept_beside_kept < found.flops_new < 1
    assert result.metrics["splits"].keys() == {*ABOUT[row.benchmarks[0]].splits}
    model, plan, _ = saved.load(store.folder(run))
    assert isinstance(model, Dual) and bool(model.config.answers) == (row.benchmarks[0] == "gqa")
    verify(model, plan, TOWERS)


def test_questions_bring_their_words_and_heads_and_are_kept_with_them(store: Store) -> None:
    row = find("scenes/snp@60:gqa", "smoke")
    done(row, store)
    before, after = (saved.load(store.folder(run))[0] for run in (row.compress(0), row.finetune(0, "gqa")))
    assert after.config.vocabulary > before.config.vocabulary and before.config.answers == ()
    answers = saved.answers(store.folder(row.finetune(0, "gqa")))
    assert dict(after.config.answers) == {kind: len(known) for kind, known in answers.items()}


def test_what_needs_no_picture_stands_beside_the_dense_answers(store: Store) -> None:
    result = done(find("scenes/dense@100:gqa", "smoke"), store)
    assert set(result.metrics["baselines"]) == {"majority", "text_only"}
    assert 0 < result.metrics["baselines"]["majority"]["val"]["accuracy"] < 1


@pytest.mark.parametrize("method", ["upop", "multiflow", "lottery", "cross-modal", "magnitude-structured-uniform"])
def test_every_method_of_table_4_compresses_the_other_model(method: str, store: Store) -> None:
    row = find(f"scenes/{method}@60:coco", "smoke")
    metrics = stages.run(row.compress(0), store).metrics
    reached = metrics["nonzero_ratio"] == pytest.approx(0.6, abs=0.02)
    assert reached or "target is not reached" in metrics["note"]  # whole-layer tying ends at half of the towers


@pytest.mark.parametrize("name", ["table2", "table3", "table4"])
def test_tables_show_main_figures_and_name_what_is_missing(
    name: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frame, "_dirty", lambda results: False)  # in any working tree; the mark has tests of its own
    label = rows(name, "smoke")[1].label
    done(find(label, "smoke"), store)
    text = table(name, store, "smoke")
    about = ABOUT[rows(name, "smoke")[0].benchmarks[0]]
    assert f"{about.title} {about.splits[0]}" in text
    assert "| snp " in text and "| upop (missing) " in text


def test_a_model_learns_to_say_that_nothing_is_meant_and_its_threshold_is_that_of_val(store: Store) -> None:
    row = find("scenes/snp@60:gqa", "smoke").model_copy(update={"benchmarks": ("no-target",)})
    result = done(row, store)
    splits = result.metrics["splits"]
    assert splits.keys() == {"val", "testA"} and splits["val"]["threshold"] == splits["testA"]["threshold"]
    for split in splits.values():
        assert split["n"] == 8 + 2 and all(0 <= split[name] <= 1 for name in REJECTING.figures)
        assert sum(part["n"] for kind, part in split["by_type"].items() if kind in REJECTING.types) == 8
        assert sum(part["n"] for kind, part in split["by_type"].items() if kind[11:] in ("hard", "easy")) == 2
    plain = store.result(row.compress(0)).manifest["data_hash"]
    assert result.manifest["data_hash"] not in (plain, None), "captions without a target are data of their own"
