"""Few-shot adaptation: a model learns from a few expressions of another look of its scenes, for every draw anew."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import BaseModel, Field, ValidationError
from torch import Tensor, nn

from snp import ranks
from snp.compression.plan import Plan
from snp.data.batch import Batch
from snp.data.dataset import GroundingSet
from snp.errors import InputError
from snp.experiment.benchmarks import ABOUT
from snp.experiment.explained import explain
from snp.experiment.recipes import RECIPES, Phase
from snp.experiment.scores import Located
from snp.experiment.spec import Finetune
from snp.files import read_json, write_json
from snp.models.adapt import Adapt
from snp.models.learns import hold, learning, share
from snp.models.mdetr import MDETR
from snp.runs.result import Result
from snp.runs.store import Store
from snp.tasks.objective import losses
from snp.training import saved, state
from snp.training.finish import finish, source_of
from snp.training.learning import Objective, objective
from snp.training.loop import Loop
from snp.training.prepare import Source
from snp.training.setup import Setup
from snp.training.tuning import Looks

PULL = 0.01
"""Weight of the squared distance to where training began, of `train=near`. [ours]"""
DONE = "draws.json"
"""What is known of every draw that is done, in the run's folder."""
UNTOLD = -1
"""In the place of a draw: nothing was learned yet."""

Figures = dict[str, Any]


class Draw(Located):
    """What one draw came to, or, before any, the model that it begins with."""

    source: Annotated[float, Field(ge=0, le=1)]
    seconds: Annotated[float, Field(ge=0)]
    by_type: dict[str, dict[str, Any]]


class Left(BaseModel):
    """The content of `DONE`: the recipe, and every draw that is done, by look and number."""

    phase: Phase
    draws: dict[str, Draw]


@dataclass
class Trained:
    """What the trainings of a run took together."""

    phase: Phase
    seconds: float
    curve: list[dict[str, Any]] = field(default_factory=list)


def adapt(run: Finetune, store: Store, progress: Callable[[int], None], setup: Setup) -> Result:
    """The model learns from a few expressions of each look of its benchmark, in several draws, and is judged on others.

    Draws that are done when a run is killed are not done again.
    """
    home, phase, folder = source_of(run, setup), setup.phase(run), store.folder(run)
    draws, looks = range(RECIPES[run.scale].draws), ABOUT[run.benchmark].splits
    known = _known(folder / DONE, phase)

    def learned(model: MDETR, train: GroundingSet, key: str) -> tuple[MDETR, float]:
        loop = Loop(
            model,
            phase,
            lambda start: train.stream(phase.batch, run.seed, start, share=ranks.share()),
            _aim(run, model),
            folder,
            run.seed,
            progress=progress,
            log=lambda record: store.log(run, {"of": key, **record}),
            device=setup.on(run),
        )
        return loop.run(), loop.seconds

    for look in looks:
        for draw in (UNTOLD, *draws):
            if (key := f"{look}/{draw}") in known:
                progress(0 if draw == UNTOLD else phase.steps * phase.batch)
                continue
            model, on, _ = begun(run, store, home)
            seconds = 0.0
            if draw != UNTOLD:
                model, seconds = learned(model, shots(on, look, _how(run).shots, draw), key)
            known[key] = on.evaluate(model, look) | {"seconds": seconds}
            ranks.once(lambda: _keep(folder, known, phase))
    model, _, plan = begun(run, store, home)
    metrics = {
        "splits": {look: _mean([known[f"{look}/{draw}"] for draw in draws]) for look in looks},
        "zero_shot": {look: _mean([known[f"{look}/{UNTOLD}"]]) for look in looks},
        "learns": share(model, learning(model, plan, _how(run).train)),
    }
    trained = Trained(phase, sum(figures["seconds"] for figures in known.values()))
    return finish(run, store, trained, metrics, home)


def begun(run: Finetune, store: Store, home: Source) -> tuple[MDETR, Looks, Plan]:
    """The model that a run adapts, of which learns what shall, the looks, and the Plan of the run's parent."""
    model, plan, vocabulary = saved.load(store.folder(run.parent))
    if run.begins != run.parent:
        model, _, vocabulary = saved.load(store.folder(run.begins))
    assert isinstance(model, MDETR)
    torch.manual_seed(run.seed)  # for words that are new
    on = Looks(run.benchmark, home, model, vocabulary)
    hold(model, learning(model, plan, _how(run).train))
    return model, on, plan


def shots(on: Looks, look: str, wanted: int, draw: int) -> GroundingSet:
    """The few expressions of a draw: the same for every model; a larger number has those of a smaller one.

    Raises:
        InputError: there are not so many.
    """
    pool = on.pool(look)
    if wanted > len(pool):
        problem = f"there are {len(pool)} expressions of {look} to learn from"
        raise InputError(f"adapt{wanted}", problem, "name a smaller number")
    return pool.subset(np.random.default_rng(draw).permutation(len(pool))[:wanted])


def _how(run: Finetune) -> Adapt:
    assert run.adapt is not None
    return run.adapt


def _aim(run: Finetune, model: nn.Module) -> Objective:
    """The losses of the task, and of `near` the squared distance to where the model is now."""
    if _how(run).train != "near":
        return objective
    began = [parameter.detach().clone() for parameter in model.parameters()]

    def pulled(model: nn.Module, batch: Batch, overrides: dict[str, Tensor] | None, step: int) -> dict[str, Tensor]:
        gone = [(now - then.to(now)).square().sum() for now, then in zip(model.parameters(), began, strict=True)]
        return losses(model, batch, overrides) | {"pull": PULL * torch.stack(gone).sum()}

    return pulled


def _known(path: Path, phase: Phase) -> dict[str, Figures]:
    """The draws that are done, of a run that is not.

    Raises:
        InputError: the file is damaged, or was left by another recipe.
    """
    if not path.is_file():
        return {}
    try:
        left = Left.model_validate(read_json(path))
    except ValidationError as error:
        raise explain(error, f"{path} (delete it to begin again)") from None
    if left.phase != phase:
        raise InputError(path, "was left by another recipe", "delete its folder to start again")
    return {key: draw.model_dump(by_alias=True) for key, draw in left.draws.items()}


def _keep(folder: Path, known: dict[str, Figures], phase: Phase) -> None:
    state.forget(folder)  # first: it is of the draw that is done, and the next one must not go on from it
    write_json(folder / DONE, {"phase": phase.model_dump(mode="json"), "draws": known})


def _mean(found: list[Figures]) -> Figures:
    """Means over draws, by type too, and the precision of every draw."""
    source = float(np.mean([figures["source"] for figures in found]))

    def over(parts: list[Figures]) -> Figures:
        draws = [part["precision@1"] for part in parts]
        return {"n": parts[0]["n"], "precision@1": float(np.mean(draws)), "source": source, "draws": draws}

    return over(found) | {
        "by_type": {kind: over([one["by_type"][kind] for one in found]) for kind in found[0]["by_type"]}
    }
