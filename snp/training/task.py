"""What a benchmark is for one model, whatever the task: a class for each registers itself."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Generic, TypeVar

from snp.data.annotations import Entry
from snp.data.dataset import GroundingSet
from snp.data.tokens import Vocabulary
from snp.experiment.benchmarks import Benchmark
from snp.experiment.scores import Task
from snp.models.config import TowerConfig
from snp.models.family import GroundingModel, grow_vocabulary
from snp.training.prepare import Source

M = TypeVar("M", bound=GroundingModel)
TUNINGS: dict[Task, type["Tuning[Any]"]] = {}
"""Every task with what a model learns of it."""


class Tuning(ABC, Generic[M]):
    """A benchmark, ready for a model; the model gets new words and heads where the benchmark needs them.

    Attributes:
        task: the record of the task that a subclass is for.
        vocabulary: the words that the model knows from now on.
        train: what it learns.
        answers: type of questions -> answer -> number; empty where nothing is answered.
        untuned: a model that has not learned it yet can be judged.
    """

    task: ClassVar[Task]
    untuned = True
    answers: dict[str, dict[str, int]] = {}
    train: GroundingSet

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "task" in vars(cls):
            TUNINGS[cls.task] = cls

    def __init__(self, benchmark: Benchmark, source: Source, model: M, vocabulary: Vocabulary) -> None:
        self.benchmark, self.source, self.vocabulary = benchmark, source, vocabulary
        self.config: TowerConfig = model.config
        self._begin(model)

    @abstractmethod
    def _begin(self, model: M) -> None:
        """Ready the model, and set `train`."""

    @staticmethod
    @abstractmethod
    def samples(source: Source, benchmark: Benchmark, split: str) -> list[Entry]:
        """The samples of a split, to be looked at one by one."""

    @abstractmethod
    def data(self, split: str) -> GroundingSet:
        """A split as models see it."""

    @abstractmethod
    def evaluate(self, model: M, split: str) -> dict[str, Any]:
        """The figures of a split, with `n` and `by_type`."""

    def _learn_words(self, model: M, entries: list[Entry]) -> None:
        """Give the model room for the words of these captions that it does not know yet."""
        self.vocabulary = self.vocabulary.extended(entry.caption for entry in entries)
        grow_vocabulary(model, len(self.vocabulary))
        self.config = model.config

    def glance(self, model: M) -> dict[str, float]:
        """Some figures for the learning curve, quickly."""
        return {}

    def baselines(self) -> dict[str, dict[str, Any]]:
        """Name -> split -> figures of what needs no model, to stand beside its own."""
        return {}
