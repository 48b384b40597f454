"""Where the data of a scale lie: desk data, made when they are missing, and the user's real benchmarks."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from snp import ranks
from snp.data import annotations, build, tasks
from snp.data.annotations import Entry, Span
from snp.data.dataset import GroundingSet, Resolve, pixels_below
from snp.data.loading import Pictures
from snp.data.tokens import Vocabulary, encode
from snp.data.views import Fit
from snp.errors import InputError
from snp.experiment.recipes import RECIPES
from snp.experiment.setup import data_home
from snp.experiment.spec import Data, Scale
from snp.files import read_json, write_json
from snp.models.config import GLIPConfig, TowerConfig
from snp.tasks import detect

SEED = 0
"""Of the desk data: one fixed set that every row shares."""


def data_folder(scale: Scale, data: Data) -> Path:
    """Where the data of a scale are, or will be."""
    return data_home() / f"{data}-{scale}"


def data_root(scale: Scale, data: Data, workers: int = 2) -> Path:
    """The folder of a data set, made from its seed first if it is not there."""
    root = data_folder(scale, data)
    with ranks.in_turn():
        return root if is_made(root) else make(root, scale, data, workers)


def is_made(root: Path) -> bool:
    """Whether a whole data set is there; those of the time before other tasks than expressions lack their files."""
    about = root / "dataset.json"
    return about.exists() and "tasks_sha256" in read_json(about)


def make(root: Path, scale: Scale, data: Data, workers: int = 2, **options: Any) -> Path:
    """Make a desk data set at the size of a scale; `options` are the data set's own (`source` of stamps)."""
    if data == "real":
        raise InputError("--scale paper", "real benchmarks are not made", "give their folder with --data-root")
    train, test = RECIPES[scale].train_scenes, RECIPES[scale].test_expressions
    maker = import_module(f"snp.data.{data}").make
    return maker(root, SEED, train=train, test=test, pretrain_val=max(40, train // 64), workers=workers, **options)


def vocabulary(root: Path) -> Vocabulary:
    """The tokens that occur in the training captions of a data set; worked out once and kept beside the pixels."""
    path = root / "cache" / f"vocabulary-{build.data_hash(root)[:12]}.json"
    if not path.exists():
        captions = {entry.caption for file in sorted((root / "annotations").glob("*_train.json"))
                    for entry in annotations.read(file)}  # fmt: skip
        write_json(path, sorted({i for caption in captions for i in encode(caption)[0]}), indent=None)
    return Vocabulary(read_json(path))


def fit_of(config: TowerConfig) -> Fit | None:
    """How a model's pictures are brought to size with their sides' ratio kept; None where they become squares."""
    return None if config.shortest is None or config.longest is None else Fit(config.shortest, config.longest)


@dataclass(frozen=True)
class Source:
    """The data that runs are made of: one folder with pictures, captions and benchmarks.

    Args:
        root: a made data set, or the user's folder with the published benchmarks.
        real: it is the user's: words are all of CLIP's, and nothing is counted on but what was published.
        loaders: processes that decode real pictures ahead of time.
    """

    root: Path
    real: bool = False
    loaders: int = 0

    @classmethod
    def of(cls, scale: Scale, data: Data, root: Path | None = None, loaders: int = 0) -> "Source":
        """The data of a scale; `root` is needed for real ones."""
        if data != "real":
            return cls(data_root(scale, data))
        if root is None or not root.is_dir():
            mend = "give the folder that `snp data check` finds sound with --data-root"
            raise InputError("--data-root", "missing" if root is None else f"{root} is no folder", mend)
        return cls(root, real=True, loaders=loaders)

    @property
    def hash(self) -> str | None:
        """Of pixels and captions, for the manifest; None for real data, which are not ours to hash."""
        return None if self.real else build.data_hash(self.root)

    @property
    def tasks_hash(self) -> str | None:
        """Of pixels and the other tasks' files."""
        return None if self.real else build.tasks_hash(self.root)

    def vocabulary(self, config: TowerConfig) -> Vocabulary:
        """The words that a model starts with; GLIP's prompts have some of their own."""
        if self.real:
            return Vocabulary.full()
        words = vocabulary(self.root)
        return words.extended([". ".join(self.classes().values())]) if isinstance(config, GLIPConfig) else words

    def captions(self, name: str, vocabulary: Vocabulary, config: TowerConfig) -> GroundingSet:
        """The entries of an annotation file, ready for this model; read once in a process, whatever runs follow."""
        return _captions(self, name, self.hash, vocabulary, config)

    def set(
        self,
        entries: list[Entry],
        vocabulary: Vocabulary,
        config: TowerConfig,
        answers: dict[str, dict[str, int]] | None = None,
        strict: bool = True,
    ) -> GroundingSet:
        """Entries ready for this model; `answers` and `strict` as in GroundingSet."""
        where = f"{self.root}: {entries[0].dataset_name if entries else 'entries'}"
        found = GroundingSet(entries, self._images(config), vocabulary, config.context, where, answers, strict)
        found.loaders = self.loaders
        return found

    def _images(self, config: TowerConfig) -> Resolve:
        """Finds pictures at the size that a model takes: real ones are too many to be kept decoded."""
        if self.real:
            return _pictures(self.root, config.image_size, fit_of(config))
        return pixels_below(self.root / "images", config.image_size, self.root / "cache")

    def questions(self, split: str) -> list[Entry]:
        """GQA's questions of a split."""
        return tasks.questions(self._folder("gqa"), split)

    def answers(self) -> dict[str, dict[str, int]]:
        """The answers that models choose from: type -> answer -> number."""
        return tasks.answers(self._folder("gqa"))

    def phrases(self, split: str) -> list[Entry]:
        """Flickr30k's sentences of a split."""
        return tasks.phrases(self._folder("flickr30k"), split)

    def classes(self) -> dict[int, str]:
        """COCO's classes, number -> name, in the order of their prompts."""
        return tasks.classes(self._folder("coco"), "val2017")

    def prompts(self, vocabulary: Vocabulary, config: TowerConfig) -> list[tuple[str, list[Span]]]:
        """Prompts that hold all classes, with the place of each name."""
        return list(detect.prompts(list(self.classes().values()), vocabulary, config.context))

    def detection(self, split: str, prompts: Sequence[tuple[str, list[Span]]]) -> list[Entry]:
        """Every picture of a split of COCO with every prompt."""
        return tasks.detection(self._folder("coco"), split, prompts)

    def instances(self, split: str) -> Path:
        """COCO's boxes of a split."""
        return tasks.instances(self._folder("coco"), split)

    def _folder(self, benchmark: str) -> Path:
        """A benchmark's own folder, or the one that holds all."""
        own = self.root / benchmark
        return own if own.is_dir() else self.root


@cache
def _captions(source: Source, name: str, hash: str | None, vocabulary: Vocabulary, config: TowerConfig) -> GroundingSet:
    found = GroundingSet.read(source.root, name, source._images(config), vocabulary, config.context)
    found.loaders = source.loaders
    return found


@cache
def _pictures(root: Path, size: int, fit: Fit | None) -> Pictures:
    """One for a folder: listing it takes long."""
    return Pictures(root, size, fit)
