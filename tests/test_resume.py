"""A run that is killed and started again ends as if nothing had happened: same figures, same weights, to the bit."""

import random
import re
import signal
import subprocess
import sys
import time
from multiprocessing.context import BaseContext
from pathlib import Path

import pytest
import torch
from processes import COMPRESS, FINETUNE, MODEL_FILES, PRETRAIN, ROW, Blow, alive, assert_bit_equal, start

from snp.errors import InputError
from snp.experiment.labels import find
from snp.experiment.recipes import RECIPES
from snp.runs.store import Store
from snp.training import stages

pytestmark = pytest.mark.slow


def test_a_compression_and_its_fine_tuning_killed_three_times_end_bit_equal(
    processes: BaseContext, smoke_dense: Store, tmp_path: Path
) -> None:
    runs, base = [COMPRESS, FINETUNE], smoke_dense.root
    assert start(processes, tmp_path / "whole", base, runs) == 0

    # once while the structure is learned, once when the plan has been applied, once in fine-tuning;
    # always after the first saved state and before the end
    draw = random.Random(0)
    recipe = RECIPES["smoke"].mdetr
    moments = [
        (COMPRESS, draw.randrange(5, 11)),
        (COMPRESS, draw.randrange(13, recipe.compress.steps)),
        (FINETUNE, draw.randrange(3, recipe.finetune.steps)),
    ]
    killed = Store(tmp_path / "killed", base=smoke_dense)
    for run, step in moments:
        code = start(processes, killed.root, base, runs, Blow(run, step, draw.uniform(0, 0.03)))
        assert code == -signal.SIGKILL and killed.state(run) == "incomplete", (run.kind, step)
        assert list(killed.folder(run).glob("state*.pt"))
    assert start(processes, killed.root, base, runs) == 0

    whole = Store(tmp_path / "whole", base=smoke_dense)
    assert_bit_equal(killed, whole, COMPRESS, (*MODEL_FILES, "trained.pt"))
    assert_bit_equal(killed, whole, FINETUNE, ("trained.pt",))
    for run, kills in ((COMPRESS, 2), (FINETUNE, 1)):
        # it went on from its last state: at most the record that the kill kept from being saved is there twice
        lines = (killed.folder(run) / "log.jsonl").read_text().splitlines()
        records = getattr(recipe, run.kind).steps // getattr(recipe, run.kind).log_every
        assert records <= len(lines) <= records + kills
        assert killed.read_log(run) == whole.read_log(run)


@pytest.mark.parametrize("special", ["trim50,heads=0.7", "dual"])
def test_learning_to_trim_or_being_taught_killed_ends_bit_equal(
    special: str, processes: BaseContext, smoke_dense: Store, tmp_path: Path
) -> None:
    run = find(f"scenes/dense@100+{special}", "smoke").finetune(0, "refcoco")
    whole, killed = (Store(tmp_path / name, base=smoke_dense) for name in ("whole", "killed"))
    runs = [*run.parents()[1:], run]  # the dense model is there
    assert start(processes, whole.root, smoke_dense.root, runs) == 0
    blow = Blow(run, 4, 0.01)
    assert start(processes, killed.root, smoke_dense.root, runs, blow) == -signal.SIGKILL
    assert start(processes, killed.root, smoke_dense.root, runs) == 0
    assert_bit_equal(killed, whole, run, ("trained.pt",))
    assert killed.result(run).metrics == whole.result(run).metrics


def test_a_killed_command_takes_its_workers_along_and_the_run_ends_bit_equal(
    processes: BaseContext, smoke_dense: Store, tmp_path: Path
) -> None:
    store = Store(tmp_path)
    command = ["run", ROW.label, "--scale", "smoke", "--workers", "1", "--out", str(tmp_path)]
    process = subprocess.Popen(
        [sys.executable, "-m", "snp", *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    log, limit = store.folder(PRETRAIN) / "log.jsonl", time.monotonic() + 600
    while not log.exists() and time.monotonic() < limit and process.poll() is None:
        time.sleep(0.01)
    workers = children(process.pid)
    process.kill()
    process.wait()
    assert log.exists() and workers and store.state(PRETRAIN) == "incomplete"
    while any(map(alive, workers)) and time.monotonic() < limit:
        time.sleep(0.01)
    assert not any(map(alive, workers))

    left = len(log.read_text().splitlines())
    time.sleep(0.2)
    assert len(log.read_text().splitlines()) == left, "somebody still trains"
    assert start(processes, tmp_path, tmp_path, [PRETRAIN]) == 0
    assert_bit_equal(store, smoke_dense, PRETRAIN, MODEL_FILES)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        ("cut off", "cannot be read"),
        ("another recipe", "was left by another recipe"),
        ("another model", r"\S+: is missing, the model needs \["),
    ],
)
def test_a_state_that_does_not_fit_is_named_and_not_trained_on(
    damage: str,
    problem: str,
    smoke_dense: Store,
    smoke_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SNP_DATA", str(smoke_data))
    store = Store(tmp_path, base=smoke_dense)
    state = store.begin(COMPRESS) / "state.pt"
    phase = RECIPES["smoke"].mdetr.compress.model_dump()
    if damage == "another recipe":
        phase["lr"] /= 2
    torch.save({"phase": phase, "plan": None, "weights": {"odd": torch.zeros(3)}}, state)
    if damage == "cut off":
        state.write_bytes(state.read_bytes()[:-100])
    with pytest.raises(InputError, match=rf"state\.pt: {problem}.*delete"):
        stages.run(COMPRESS, store)
    assert store.state(COMPRESS) == "failed" and re.search(problem, store.failure(COMPRESS) or "")
