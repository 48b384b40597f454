"""How every kind of run begins and ends: the data that it is on, and what it leaves behind."""

from datetime import UTC, datetime
from typing import Any, Protocol

import torch

from snp import ranks
from snp.experiment.benchmarks import of_expressions, of_looks
from snp.experiment.recipes import Phase, training_of
from snp.experiment.spec import Finetune, Run
from snp.runs.manifest import manifest
from snp.runs.result import Result
from snp.runs.store import Store
from snp.training import state
from snp.training.prepare import Source
from snp.training.setup import Setup


class Trained(Protocol):
    """What a run has trained for, for how long, and what it saw on the way."""

    phase: Phase
    seconds: float
    curve: list[dict[str, Any]]


def source_of(run: Run, setup: Setup) -> Source:
    """The data of a run, made first where they are made here."""
    return Source.from_scale(run.scale, run.data, setup.data_root, setup.ahead(run.data))


def finish(
    run: Run, store: Store, loop: Trained, metrics: dict[str, Any], source: Source, weights: Any = None
) -> Result:
    """Leave the result of a run in the store, and forget its state.

    Args:
        weights: what a dense model started from.
    """
    # the spec was written when the run was begun, before any kill
    started = datetime.fromtimestamp((store.folder(run) / "spec.json").stat().st_mtime, UTC)
    recipe = {"model": training_of(run).model, **loop.phase.model_dump()}
    on_captions = not isinstance(run, Finetune) or (of_expressions(run.benchmark) or of_looks(run.benchmark))
    hash = source.hash if on_captions and run.model == "mdetr" else source.tasks_hash
    if isinstance(run, Finetune) and run.benchmark == "no-target":
        hash = source.no_target_hash
    about = manifest(
        run, recipe, torch.get_num_threads(), hash, started, loop.seconds, ranks.size(), store.trial, weights
    )

    def leave() -> Result:
        result = store.save(run, about, metrics, loop.curve)
        state.forget(store.folder(run))
        return result

    return ranks.once(leave)
