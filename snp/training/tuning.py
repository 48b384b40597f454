"""A benchmark for one model: what the model learns on it, and how its splits are judged."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np

from snp.data import annotations, readers
from snp.data.annotations import Entry
from snp.data.dataset import GroundingSet
from snp.data.mixture import Mixture
from snp.data.sources import layout
from snp.data.sources.refer import GENERAL
from snp.data.tokens import Vocabulary
from snp.experiment import scores
from snp.experiment.benchmarks import ABOUT, Benchmark
from snp.experiment.scores import Task
from snp.models.config import TowerConfig
from snp.models.family import Answering, GroundingModel, grow_vocabulary
from snp.models.glip import GLIP
from snp.tasks import detect, phrases, rec, rejecting, vqa
from snp.training.prepare import Source

WITHOUT, SHARE = 1_000, 1 / 8
"""Captions without a target that a model learns from, by default, and their share of every batch; in gRefCOCO a ninth
of all. [ours]"""
GLANCE = 1000
"""Expressions that the learning curve looks at."""
PICTURES, PIXELS = 64, 4 * 800**2
"""Most pictures that are searched for objects at once, and most pixels: 4 of the paper's size, or it takes 50 GiB."""


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


class Expressions(Tuning[Answering]):
    """RefCOCO and its kin, and a user's own: one box for one sentence."""

    task = scores.LOCATING

    @staticmethod
    def samples(source: Source, benchmark: Benchmark, split: str) -> list[Entry]:
        return annotations.read(source.root / "annotations" / f"{layout.expressions(benchmark, split)}.json")

    def _begin(self, model: Answering) -> None:
        self.train = self.data("train")
        if self.source.own:  # a picture that a split lacks is found now, and not when all is trained
            for split in ABOUT[self.benchmark].splits:
                self.data(split)

    def evaluate(self, model: Answering, split: str) -> dict[str, Any]:
        return rec.evaluate(model, self.data(split))

    def glance(self, model: Answering) -> dict[str, float]:
        val = self.data("val")
        found = rec.evaluate(model, val.subset(np.arange(min(len(val), GLANCE))))
        flat = {"precision@1": found["precision@1"], "mean_iou": found["mean_iou"]}
        return flat | {kind: part["precision@1"] for kind, part in found["by_type"].items()}

    def data(self, split: str) -> GroundingSet:
        return self.source.captions(layout.expressions(self.benchmark, split), self.vocabulary, self.config)


class Rejecting(Tuning[Answering]):
    """Expressions with and without a target, boxes or none: gRefCOCO's, or RefCOCO's beside captions made of them.

    Attributes:
        threshold: from which boxes count; the best one for the first split, when that was judged last.
    """

    task = scores.REJECTING
    threshold: float | None = None

    @staticmethod
    def samples(source: Source, benchmark: Benchmark, split: str) -> list[Entry]:
        if source.real:
            return readers.expressions(source.root, GENERAL)[split]
        return Expressions.samples(source, "refcoco", split) + source.without_target(split)

    def _begin(self, model: Answering) -> None:
        if self.source.real:
            self.train = self.data("train")
        else:
            self.train = self.learned(self.source.without_target("train")[:WITHOUT])

    def learned(self, without: list[Entry]) -> GroundingSet:
        """What it learns of drawn data: all expressions, and these captions without a target beside them."""
        return Mixture(self._expressions("train", "refcoco"), self._without(without), SHARE)

    def evaluate(self, model: Answering, split: str) -> dict[str, Any]:
        first = ABOUT[self.benchmark].splits[0]
        if split == first:
            self.threshold = None
        elif self.threshold is None:
            self.evaluate(model, first)
        found = rejecting.evaluate(model, self.data(split), self.threshold)
        self.threshold = found["threshold"]
        return found

    def data(self, split: str) -> GroundingSet:
        if self.source.real:
            return self._expressions(split, GENERAL)
        return self._expressions(split, "refcoco").joined(self._without(self.source.without_target(split)))

    def _expressions(self, split: str, benchmark: str) -> GroundingSet:
        return self.source.captions(layout.expressions(benchmark, split), self.vocabulary, self.config)

    def _without(self, entries: list[Entry]) -> GroundingSet:
        return self.source.set(entries, self.vocabulary, self.config)


class Questions(Tuning[Answering]):
    """GQA: an answer of one of several types; its heads start untrained."""

    task = scores.ANSWERING

    untuned = False

    @staticmethod
    def samples(source: Source, benchmark: Benchmark, split: str) -> list[Entry]:
        return source.questions(split)

    def _begin(self, model: Answering) -> None:
        self._entries, self.answers = self.source.questions("train"), self.source.answers()
        self._learn_words(model, self._entries)
        model.add_answers({kind: len(known) for kind, known in self.answers.items()})
        self.config = model.config
        self.train = self.source.set(self._entries, self.vocabulary, self.config, self.answers)

    def evaluate(self, model: Answering, split: str) -> dict[str, Any]:
        return vqa.evaluate(model, self.data(split))

    def data(self, split: str) -> GroundingSet:
        entries = self.source.questions(split)
        return self.source.set(entries, self.vocabulary, self.config, self.answers, strict=False)

    def baselines(self) -> dict[str, dict[str, Any]]:
        """What answers reach that see no picture: the most frequent of each type, and the likeliest after the words."""
        split = ABOUT[self.benchmark].splits[0]
        asked = self.source.questions(split)
        kinds, right = (np.array([getattr(entry, name) for entry in asked]) for name in ("question_type", "answer"))
        learned = [np.array([getattr(entry, name) for entry in self._entries]) for name in ("question_type", "answer")]
        said = {
            "majority": vqa.majority(learned[0], learned[1], kinds),
            "text_only": vqa.text_only(self._entries, asked),
        }
        return {name: {split: vqa.score(kinds, answers, kinds, right)} for name, answers in said.items()}


class Phrases(Tuning[Answering]):
    """Flickr30k Entities: boxes for every phrase of a sentence, under both protocols."""

    task = scores.GROUNDING

    @staticmethod
    def samples(source: Source, benchmark: Benchmark, split: str) -> list[Entry]:
        return source.phrases(split)

    def _begin(self, model: Answering) -> None:
        entries = self.source.phrases("train")
        self._learn_words(model, entries)
        self.train = self.source.set(entries, self.vocabulary, self.config)

    def evaluate(self, model: Answering, split: str) -> dict[str, Any]:
        found = phrases.evaluate(model, self.data(split))
        kinds = found["any_box"]["by_type"]
        by_type = {kind: _both(kinds[kind], found["merged_box"]["by_type"][kind]) for kind in kinds}
        return _both(found["any_box"], found["merged_box"]) | {"by_type": by_type}

    def data(self, split: str) -> GroundingSet:
        return self.source.set(self.source.phrases(split), self.vocabulary, self.config)


class Detection(Tuning[GLIP]):
    """COCO: every object of every class, asked for by prompts of class names."""

    task = scores.DETECTING

    @staticmethod
    def samples(source: Source, benchmark: Benchmark, split: str) -> list[Entry]:
        return source.detection(split, [(". ".join(source.classes().values()), [])])

    def _begin(self, model: GLIP) -> None:
        self.prompts = self.source.prompts(self.vocabulary, self.config)
        entries = self.source.detection("train2017", self.prompts)
        self.train = self.source.set(entries, self.vocabulary, self.config)

    def evaluate(self, model: GLIP, split: str) -> dict[str, Any]:
        data = self.data(split)
        truth, categories = self.source.instances(split), list(self.source.classes())
        pictures = min(max(PIXELS // self.config.image_size**2, 1), PICTURES)
        found = detect.evaluate(model, data, truth, self.prompts, categories, pictures)
        return {"n": len(data) // len(self.prompts), **found}

    def data(self, split: str) -> GroundingSet:
        return self.source.set(self.source.detection(split, self.prompts), self.vocabulary, self.config)


def _both(any_box: dict[str, Any], merged_box: dict[str, Any]) -> dict[str, Any]:
    """Recalls under both protocols as figures of one split."""
    merged = {f"merged_{name}": value for name, value in merged_box.items() if name not in ("n", "by_type")}
    return any_box | merged


def tuning(benchmark: Benchmark, source: Source, model: GroundingModel, vocabulary: Vocabulary) -> Tuning[Any]:
    """The benchmark, ready for this model."""
    return TUNINGS[ABOUT[benchmark].task](benchmark, source, model, vocabulary)
