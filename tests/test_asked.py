"""Captions made for a run, for real at smoke scale: what is learned, what is told of them, and what a kill leaves."""

import json
import signal
from multiprocessing.context import BaseContext
from pathlib import Path

import pytest
from processes import Blow, start

from snp.asking import generator
from snp.data.drawn import notarget
from snp.experiment.labels import find
from snp.experiment.spec import Finetune
from snp.runs.store import Store
from snp.training import asked, saved, stages
from snp.training.prepare import Source
from snp.training.tuning import tuning

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def data(smoke_data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SNP_DATA", str(smoke_data))
    monkeypatch.setattr(generator, "EPOCHS", 2)
    return smoke_data / "scenes-smoke"


def tuned(how: str) -> Finetune:
    return find(f"scenes/dense@100+ask{how}:no-target", "smoke").finetune(0, "no-target")


@pytest.fixture(scope="module")
def store(smoke_dense: Store, smoke_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store that holds what all these runs start from."""
    store = Store(tmp_path_factory.mktemp("runs"), base=smoke_dense)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SNP_DATA", str(smoke_data))
        stages.run(tuned("").parent, store)
    return store


def made(store: Store, run: Finetune) -> list[dict]:
    return json.loads((store.folder(run) / asked.FILE).read_text())["captions"]


@pytest.mark.parametrize("how", ["", ",kind=seq,phases=1", ",kind=rule,noise=0.25,pairs=10"])
def test_a_run_tells_what_was_made_for_it_and_of_which_pictures(how: str, store: Store, data: Path) -> None:
    run = tuned(how)
    found = stages.run(run, store).scores.asked
    captions = made(store, run)
    pairs = json.loads((data / notarget.FOLDER / f"{notarget.PAIRS}.json").read_text())
    learned = min(run.ask.pairs, len(pairs) // 2)
    assert (found.count, found.pairs) == (len(captions), learned) and found.seconds > 0
    assert found.noise + found.doubt <= found.readable <= 1 and found.copied > 0
    if run.ask.noise:
        assert found.noise == round(run.ask.noise * len(captions)) / len(captions)
    told = {(pair["file_name"], pair["source"]): pair["box"] for pair in pairs}
    seen = {pair["file_name"] for pair in pairs[:learned]}
    for caption in captions:  # of no picture that is judged, and of none that was learned from
        assert caption["file_name"].startswith("train/") and caption["file_name"] not in seen
        key = (caption["file_name"], caption["source"])
        assert caption["box"] == told.get(key, caption["box"])


@pytest.mark.parametrize("phases", [1, 2])
def test_made_captions_are_learned_with_true_ones_or_before_them(phases: int, store: Store, data: Path) -> None:
    run = tuned(f",kind=rule,pairs=8,count=9,phases={phases}")
    model, _, vocabulary = saved.load(store.folder(run.parent))
    on = tuning("no-target", Source(data), model, vocabulary)
    store.begin(run)
    planned, _ = asked.asked(run, store, on, 6, "cpu")
    true = [entry.caption for entry in notarget.read(data, "train")[:8]]
    own = [caption["caption"] for caption in made(store, run)]
    found = [[entry.caption for entry in data.entries if not entry.boxes] for data, _ in planned]
    assert found == ([true + own] if phases == 1 else [own, true])
    assert [steps for _, steps in planned] == ([6] if phases == 1 else [4, 2])
    for part, _ in planned:
        batch = part.batch(part.epoch(16, 0)[0])
        assert int((~batch.valid_BM.any(1)).sum()) == 2  # an eighth, whatever there is of them


def test_a_killed_run_goes_on_with_the_captions_that_were_made_and_ends_bit_equal(
    processes: BaseContext, smoke_dense: Store, tmp_path: Path
) -> None:
    run = tuned(",pairs=10,count=10")
    runs = [run.parent, run]
    whole, killed = (Store(tmp_path / name, base=smoke_dense) for name in ("whole", "killed"))
    assert start(processes, whole.root, smoke_dense.root, runs) == 0
    blow = Blow(run, 5, 0.01)
    assert start(processes, killed.root, smoke_dense.root, runs, blow) == -signal.SIGKILL
    before = (killed.folder(run) / asked.FILE).read_bytes()
    assert start(processes, killed.root, smoke_dense.root, runs) == 0
    assert (killed.folder(run) / asked.FILE).read_bytes() == before
    assert made(killed, run) == made(whole, run)
    one, other = (store.result(run).metrics for store in (killed, whole))
    for metrics in (one, other):
        metrics["asked"].pop("seconds")
    weights = [(store.folder(run) / "weights.safetensors").read_bytes() for store in (killed, whole)]
    assert one == other and weights[0] == weights[1]
