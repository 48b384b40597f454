"""Runs in processes of their own, which tests kill, stop and set against each other; and what must be equal after."""

import os
import signal
import sys
import threading
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import torch

from snp.errors import InputError
from snp.experiment.labels import find
from snp.experiment.recipes import phase_of
from snp.experiment.spec import Run
from snp.runs.store import Store
from snp.training import loop, stages
from snp.training.stopping import Stopped

ROW = find("scenes/snp@60", "smoke")
PRETRAIN, COMPRESS, FINETUNE = ROW.pretrain, ROW.compress(0), ROW.finetune(0, "refcoco")
MODEL_FILES = ("weights.safetensors", "plan.json", "model.json")
TIMING = {"seconds", "session_seconds"}


@dataclass(frozen=True)
class Blow:
    """A signal that a process sends itself so long after a step of a run."""

    run: Run
    step: int
    seconds: float = 0
    signum: int = signal.SIGKILL


def work(root: Path, base: Path, runs: list[Run], blow: Blow | None = None, save_every: float = 0) -> None:
    """Do what is not done of `runs`; ends with the exit code that the command would have."""
    torch.set_num_threads(1)
    loop.SAVE_EVERY_SECONDS = save_every

    class Keeping(stages.Loop):
        def run(self) -> Any:
            """The trained weights are kept, so that they can be compared."""
            model = super().run()
            torch.save(model.state_dict(), self.folder / "trained.pt")
            return model

    stages.Loop = Keeping
    store = Store(root, base=Store(base))
    for run in runs:
        if store.state(run) == "done":
            continue
        batch, done = phase_of(run).batch, [0]

        def progress(captions: int, run: Run = run, batch: int = batch, done: list[int] = done) -> None:
            done[0] += captions
            if blow and run == blow.run and done[0] == blow.step * batch:
                threading.Timer(blow.seconds, os.kill, (os.getpid(), blow.signum)).start()

        try:
            stages.run(run, store, progress)
        except InputError as error:
            print("snp:", error, file=sys.stderr)
            sys.exit(2)
        except Stopped as stopped:
            sys.exit(stopped.exit_code)


def start(processes: BaseContext, *arguments: Any) -> int:
    """The exit code of a process that does `work`; what it says is added to `said`."""
    process = processes.Process(target=_said, args=arguments)
    process.start()
    process.join()
    return process.exitcode


def _said(root: Path, *arguments: Any) -> None:
    with open(said(root), "a", buffering=1) as sys.stderr:
        work(root, *arguments)


def said(root: Path) -> Path:
    """Where processes write what they say on stderr; they are forked from another one, so pytest does not see it."""
    return root.with_name(f"{root.name}.stderr")


def figures(store: Store, run: Run) -> dict[str, Any]:
    """The result of a run without clock times."""
    result = store.result(run)
    metrics = {name: value for name, value in result.metrics.items() if name not in TIMING}
    made = {name: result.manifest[name] for name in ("config", "seed", "threads", "data_hash")}
    return {"metrics": metrics, "curve": result.curve, "manifest": made}


def assert_bit_equal(store: Store, expected: Store, run: Run, files: tuple[str, ...]) -> None:
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


def alive(pid: int) -> bool:
    """Whether a process runs: one that has ended but was not waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
