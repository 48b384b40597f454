"""The benchmarks of every task, for one model: what it learns on them, and how their splits are judged."""

from typing import Any

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
from snp.experiment.recipes import POOL
from snp.experiment.spec import DRAWN
from snp.models.family import Answering, GroundingModel
from snp.models.glip import GLIP
from snp.tasks import detect, phrases, rec, rejecting, vqa, words
from snp.training.prepare import Source
from snp.training.task import TUNINGS as TUNINGS
from snp.training.task import Tuning

WITHOUT, SHARE = 1_000, 1 / 8
"""Captions without a target that a model learns from, by default, and their share of every batch; in gRefCOCO a ninth
of all. [ours]"""
READ = 8_000
"""Captions of each sort, at most, that what words alone tell is learned from."""
GLANCE = 1000
"""Expressions that the learning curve looks at."""
PICTURES, PIXELS = 64, 4 * 800**2
"""Most pictures that are searched for objects at once, and most pixels: 4 of the paper's size, or it takes 50 GiB."""


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


class Looks(Expressions):
    """Scenes that look otherwise, a split each: a few expressions of one are learned from, others are judged on."""

    task = scores.ADAPTING
    learned, judged, home = "finetune_refcoco_train", "finetune_refcoco_testA", "finetune_refcoco_val"
    at_home = 500
    """Expressions of the scenes that a model comes from, which tell what was forgotten."""

    @staticmethod
    def samples(source: Source, benchmark: Benchmark, split: str) -> list[Entry]:
        return annotations.read(source.beside(split).root / "annotations" / f"{Looks.judged}.json")

    def _begin(self, model: Answering) -> None:
        """The words of captions may be read of pictures of which nothing is told."""
        for split in ABOUT[self.benchmark].splits:
            if split in DRAWN:
                path = self.source.beside(split).root / "annotations" / f"{self.learned}.json"
                self._learn_words(model, annotations.read(path))

    def data(self, split: str) -> GroundingSet:
        return self._of(self.source.beside(split), self.judged, POOL)

    def pool(self, split: str) -> GroundingSet:
        """What a few expressions are drawn of."""
        return self._of(self.source.beside(split), self.learned, POOL)

    def evaluate(self, model: Answering, split: str) -> dict[str, Any]:
        kept = rec.evaluate(model, self._of(self.source, self.home, self.at_home))
        return rec.evaluate(model, self.data(split)) | {"source": kept["precision@1"]}

    def _of(self, source: Source, name: str, most: int) -> GroundingSet:
        found = source.captions(name, self.vocabulary, self.config)
        return found.subset(np.arange(min(len(found), most)))


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

    def baselines(self) -> dict[str, dict[str, Any]]:
        """What words alone tell of whether a caption has a target: the least that a model is to beat."""
        first = ABOUT[self.benchmark].splits[0]
        learned, asked = (self.samples(self.source, self.benchmark, split) for split in ("train", first))
        some, none = ([one for one in learned if bool(one.boxes) == there][:READ] for there in (True, False))
        _, likely_N2 = words.likely(
            [entry.caption for entry in some + none], ["yes"] * len(some) + ["no"] * len(none),
            [entry.caption for entry in asked],
        )  # fmt: skip
        sure_N, there_N = (likely_N2[:, 1] - likely_N2[:, 0]).numpy(), np.array([bool(entry.boxes) for entry in asked])
        return {"text_only": {first: {"n": len(asked), "auroc": rejecting.auroc(sure_N[there_N], sure_N[~there_N])}}}

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
