"""Compressed models small enough for git: what a compression left, in half precision where that costs nothing."""

from copy import deepcopy
from pathlib import Path
from typing import Any

from snp.checkout import home
from snp.errors import InputError
from snp.experiment.benchmarks import ABOUT, FIRST
from snp.experiment.spec import Compress
from snp.files import write_json
from snp.runs.store import Store
from snp.training import saved
from snp.training.prepare import Source
from snp.training.tuning import tuning

COMMITTED = ("scenes/snp@60", "stamps/snp@60")
"""Rows whose compressed models, of seed 0, are in git."""
TOLERATED = 0.1
"""Points of the main figure that half precision may change."""


def models() -> Store:
    """The committed compressed models: a store of their own, as the committed results are those of other runs."""
    return Store(home() / "results" / "models", base=Store.at("desk"))


def export(run: Compress, store: Store, to: Store) -> Path:
    """Copy what a finished compression left to another store: weights, plan, configuration, result with manifest.

    Weights are stored in 16 bits where the main figure of the first benchmark stays within `TOLERATED` points, before
    fine-tuning; the result says what either scores (`exported`).

    Raises:
        InputError: the model is not there; `to` is where runs are; or it is one that cannot be judged before it is
            fine-tuned.
    """
    if to.root.resolve() in (store.root.resolve(), Store.at(run.scale).root.resolve()):
        raise InputError(f"--to {to.root}", "holds runs, which would be overwritten", "name a folder of models")
    if not store.has_weights(run):
        raise InputError(store.folder(run), "holds no model", "run it first")
    model, plan, vocabulary = saved.load(store.folder(run))
    benchmark = FIRST[run.model]
    judge = tuning(benchmark, Source.from_scale(run.scale, run.data), model, vocabulary)
    figure, split = ABOUT[benchmark].shown[0], ABOUT[benchmark].splits[0]
    rounded = deepcopy(model).half().float()
    scores = {f"float{bits}": judge.evaluate(one, split)[figure] for bits, one in ((32, model), (16, rounded))}
    half = abs(scores["float16"] - scores["float32"]) * 100 <= TOLERATED
    about: dict[str, Any] = {"split": f"{benchmark}/{split}", figure: scores, "stored": f"float{16 if half else 32}"}
    found = store.result(run)
    folder = to.root / run.slug
    saved.save(folder, model, plan, vocabulary, half=half)
    write_json(
        folder / "result.json",
        {"spec": run.canonical(), "manifest": found.manifest, "metrics": found.metrics | {"exported": about}},
        indent=1,
    )
    return folder
