"""A run that is killed and started again ends as if nothing had happened: same figures, same weights, to the bit."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing import get_context
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import pytest
import torch

from snp.errors import InputError
from snp.experiment import stages
from snp.experiment.recipes import RECIPES, phase_of
from snp.experiment.store import AnyRun, Store
from snp.experiment.tables import find

ROW = find("scenes/snp@60", "smoke")
PRETRAIN, COMPRESS, FINETUNE = ROW.pretrain, ROW.compress(0), ROW.finetune(0, "refcoco")
TIMING = {"seconds", "session_seconds"}


@pytest.fixture(scope="module")
def processes(smoke_data: Path) -> Iterator[BaseContext]:
    """Processes of one thread, forked from a fresh interpreter that has loaded the stages; state saved at every log."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("SNP_DATA", smoke_data), ("SNP_SAVE_EVERY", 0), ("OMP_NUM_THREADS", 1)):
            patch.setenv(name, str(value))
        context = get_context("forkserver")
        context.set_forkserver_preload(["snp.experiment.stages", "snp.sharing.snp"])
        yield context


def work(root: Path, base: Path, runs: list[AnyRun], kill: tuple[AnyRun, int, float] | None) -> None:
    """Do what is not done of `runs`; with `kill` = (run, step, seconds) die that long after that step of that run."""
    torch.set_num_threads(1)

    class Keeping(stages.Loop):
        def run(self) -> Any:
            """The trained weights are kept, which fine-tuning itself does not."""
            model = super().run()
            torch.save(model.state_dict(), self.folder / "trained.pt")
            return model

    stages.Loop = Keeping
    store = Store(root, base=Store(base))
    for run in runs:
        if store.state(run) == "done":
            continue
        batch, done = phase_of(run).batch, [0]

        def progress(captions: int, run: AnyRun = run, batch: int = batch, done: list[int] = done) -> None:
            done[0] += captions
            if kill and run == kill[0] and done[0] == kill[1] * batch:
                threading.Timer(kill[2], os.kill, (os.getpid(), signal.SIGKILL)).start()

        stages.run(run, store, progress)


def start(processes: BaseContext, *arguments: Any) -> int:
    """The exit code of a process that does `work`."""
    process = processes.Process(target=work, args=arguments)
    process.start()
    process.join()
    return process.exitcode


def figures(store: Store, run: AnyRun) -> dict[str, Any]:
    """The result of a run without clock times."""
    result = store.result(run)
    metrics = {name: value for name, value in result.metrics.items() if name not in TIMING}
    made = {name: result.manifest[name] for name in ("config", "seed", "threads", "data_hash")}
    return {"metrics": metrics, "curve": result.curve, "manifest": made}


def assert_bit_equal(store: Store, expected: Store, run: AnyRun, files: tuple[str, ...]) -> None:
    assert figures(store, run) == figures(expected, run)
    for name in files:
        ours, theirs = (s.folder(run) / name for s in (store, expected))
        if name.endswith(".pt"):
            state, other = (torch.load(path, weights_only=True) for path in (ours, theirs))
            assert state.keys() == other.keys() and all(torch.equal(state[key], other[key]) for key in state)
        else:
            assert ours.read_bytes() == theirs.read_bytes(), name
    assert not list(store.folder(run).glob(".*")), "a half-written file is left"
    assert not (store.folder(run) / "state.pt").exists()


MODEL_FILES = ("weights.safetensors", "plan.json", "model.json")


def test_a_compression_and_its_fine_tuning_killed_three_times_end_bit_equal(
    processes: BaseContext, smoke_dense: Store, tmp_path: Path
) -> None:
    runs, base = [COMPRESS, FINETUNE], smoke_dense.root
    assert start(processes, tmp_path / "whole", base, runs, None) == 0

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
        code = start(processes, killed.root, base, runs, (run, step, draw.uniform(0, 0.03)))
        assert code == -signal.SIGKILL and killed.state(run) == "incomplete", (run.kind, step)
        assert (killed.folder(run) / "state.pt").exists()
    assert start(processes, killed.root, base, runs, None) == 0

    whole = Store(tmp_path / "whole", base=smoke_dense)
    assert_bit_equal(killed, whole, COMPRESS, (*MODEL_FILES, "trained.pt"))
    assert_bit_equal(killed, whole, FINETUNE, ("trained.pt",))
    for run, kills in ((COMPRESS, 2), (FINETUNE, 1)):
        # it went on from its last state: at most the record that the kill kept from being saved is there twice
        lines = (killed.folder(run) / "log.jsonl").read_text().splitlines()
        records = getattr(recipe, run.kind).steps // getattr(recipe, run.kind).log_every
        assert records <= len(lines) <= records + kills
        assert killed.read_log(run) == whole.read_log(run)


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
    assert start(processes, tmp_path, tmp_path, [PRETRAIN], None) == 0
    assert_bit_equal(store, smoke_dense, PRETRAIN, MODEL_FILES)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    """Whether a process runs: one that has ended but was not waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize(("damage", "problem"), [
    ("cut off", "cannot be read"), ("another recipe", "was left by another recipe"),
    ("another model", r"\S+: is missing, the model needs \["),
])  # fmt: skip
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
    assert store.state(COMPRESS) == "incomplete"
