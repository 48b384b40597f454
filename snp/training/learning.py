"""What a run learns from: captions for the weights and for the structure, in which order, and for what."""

from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np
from torch import Tensor, nn

from snp import ranks
from snp.data.batch import Batch
from snp.data.dataset import GroundingSet
from snp.data.sources.layout import MIXTURE
from snp.data.tokens import Vocabulary
from snp.data.views import Draws
from snp.experiment.benchmarks import EXPRESSIONS, Expressions
from snp.experiment.recipes import Phase
from snp.models import config as configs
from snp.models.config import TowerConfig
from snp.models.family import GroundingModel
from snp.models.mdetr import MDETR
from snp.tasks import grounding
from snp.tasks.objective import losses, weigh
from snp.training.prepare import HELD_OUT, Source

Planned = list[tuple[GroundingSet, int]]
"""Data sets in the order in which they are learned from, each for so many steps."""
Objective = Callable[[nn.Module, Batch, dict[str, Tensor] | None, int], dict[str, Tensor]]


def learning(
    source: Source, vocabulary: Vocabulary, config: TowerConfig, task: Expressions | None = None
) -> tuple[GroundingSet, GroundingSet]:
    """The pre-training captions: those for the weights, and the held-out ones for the structure.

    MDETR: captions of several phrases and the training expressions of all benchmarks, as in its mixture, of which
    Flickr30k's sentences are in a file of their own [MDETR's code]; at desk scale four fifths are single expressions:
    from a mixture that is half captions, relations are learned far too late. [ours]
    GLIP: captions, and prompts of class names.
    With a `task`: the training expressions of this benchmark alone. A user's own: the training captions.
    """
    prompted = isinstance(config, configs.GLIPConfig)
    names = list(MIXTURE if source.real else MIXTURE[:1]) if task is None else []
    if source.own:
        names = ["train"]
    elif (task or not source.real) and not prompted:  # the published mixture has the expressions in it
        names += [f"finetune_{benchmark}_train" for benchmark in EXPRESSIONS if task in (None, benchmark)]
    sets = [source.captions(name, vocabulary, config) for name in names]
    if prompted:
        prompts = source.prompts(vocabulary, config)
        sets.append(source.set(source.detection("train2017", prompts), vocabulary, config))
    first, *others = sets
    mixed = first.joined(*others)
    turn = np.arange(len(mixed)) % HELD_OUT == 0
    return mixed.subset(np.flatnonzero(~turn)), mixed.subset(np.flatnonzero(turn))


def draws(phase: Phase, seed: int) -> Draws | None:
    """What is drawn of pictures that keep their sides' ratio, in a run of this seed."""
    return None if phase.sides is None else Draws(phase.sides, phase.crop, seed)


def in_order(planned: Planned, phase: Phase, seed: int, per_image: int = 1) -> Callable[[int], Iterator[Batch]]:
    """Batches from a given step on, of one data set after the other; of each process its own part."""

    def stream(start: int) -> Iterator[Batch]:
        for data, steps in planned:
            batches = data.stream(phase.batch, seed, start, per_image, ranks.share(), draws(phase, seed))
            yield from islice(batches, max(steps - start, 0))
            start = max(start - steps, 0)

    return stream


def courses(
    model: GroundingModel, train: GroundingSet, source: Source, vocabulary: Vocabulary, phase: Phase
) -> tuple[nn.Module, Objective, Planned]:
    """What is trained, for what, and on which data for how many steps."""
    if not isinstance(model, MDETR) or not phase.towers_only:
        return model, objective, [(train, phase.steps)]
    # every object by its full description first: from sparse captions that also tell places the towers learn
    # words very slowly
    regions = source.regions(vocabulary, model.config)
    # then short expressions: relations are found within hundreds of steps there, and late or never in the mixture
    short = train if source.own else train.subset(np.flatnonzero(train.datasets == "refcoco"))

    def in_turn(learner: nn.Module, batch: Batch, overrides: dict[str, Tensor] | None, step: int) -> dict[str, Tensor]:
        assert isinstance(learner, grounding.WarmUp)
        if step >= phase.towers_only:
            return losses(learner.model, batch, overrides)
        return weigh(learner.losses(batch))

    planned = [(regions, phase.towers_only), (short, phase.short_only), (train, phase.steps)]
    return grounding.WarmUp(model, regions.categories), in_turn, planned


def objective(model: nn.Module, batch: Batch, overrides: dict[str, Tensor] | None, step: int) -> dict[str, Tensor]:
    """The named, weighted losses of a model's own task, at whatever step."""
    return losses(model, batch, overrides)
