"""How a result came about: commit, configuration, versions, machine and time, kept beside every result."""

import platform
import subprocess
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from snp.checkout import CODE
from snp.compression import plugins
from snp.experiment.places import Trial
from snp.experiment.spec import Run
from snp.files import read_json

PACKAGES = (
    "torch", "torchvision", "timm", "open_clip_torch", "transformers",
    "numpy", "scipy", "pillow", "safetensors", "pydantic",
)  # fmt: skip
STATE_FILE = "code.json"
"""In a snapshot of the code: what git said of it."""


def manifest(
    run: Run,
    recipe: dict[str, Any],
    threads: int,
    data_hash: str | None,
    started: datetime,
    wall_seconds: float,
    processes: int = 1,
    trial: Trial | None = None,
    weights: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The manifest of a run.

    Args:
        run: the spec.
        recipe: the training recipe behind the spec (batch, learning rate, samples, model configuration ...).
        threads: compute threads of the process; two thread counts give two sums.
        data_hash: hash of the data set (dataset.json).
        started: when the run was first started, with time zone.
        wall_seconds: seconds of work, over all restarts.
        processes: how many did it together; they too give other sums.
        trial: which one, where it is no real run.
        weights: that a dense model started from, by tower: name, sha256 of a file, what of it was left out.
    """
    found: dict[str, Any] = {
        **code_state(),
        "config": {"spec": run.canonical(), "recipe": recipe},
        "seed": run.seed,
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "python": platform.python_version(),
        "threads": threads,
        "processes": processes,
        "cpu": cpu_name(),
        "started": started.isoformat(timespec="seconds"),
        "wall_seconds": round(wall_seconds, 1),
        "data_hash": data_hash,
    }
    if loaded := plugins.load():
        found["plugins"] = loaded
    if trial is not None:
        found["trial"] = trial.model_dump(exclude_none=True)
    if weights:
        found["weights"] = weights
    return found


@cache
def code_state() -> dict[str, Any]:
    """`git_state` of the code that this process runs: asked first when a run begins, as the checkout may move on.

    Of a snapshot it is that of the checkout when the snapshot was taken.
    """
    frozen = CODE / STATE_FILE
    return read_json(frozen) if frozen.exists() else git_state(CODE)


def git_state(folder: Path) -> dict[str, Any]:
    """`commit` and `dirty` (changes outside results/, where runs write); None where `folder` is no repository's top.

    Code that is installed below somebody's repository is not of that repository.
    """

    def git(*arguments: str) -> str | None:
        try:
            # a lock of the repository would be left where this is interrupted
            command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
            done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False)
        except FileNotFoundError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    top = git("rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != folder.resolve():
        return {"commit": None, "dirty": None}
    commit, status = git("rev-parse", "HEAD"), git("status", "--porcelain", "--", ".", ":!results")
    return {"commit": commit, "dirty": None if status is None else bool(status)}


def bench_state() -> dict[str, Any]:
    """Of which code, on which machine and when a bench is run, as is written beside what it measures."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {**code_state(), "cpu": cpu_name(), "torch": version("torch"), "time": now}


def cpu_name() -> str:
    """The model name of the processor, as the system gives it."""
    info = Path("/proc/cpuinfo")
    for line in info.read_text(encoding="utf-8", errors="replace").splitlines() if info.exists() else []:
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
