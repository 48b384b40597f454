"""Where the data of a scale lie: desk data, made when they are missing, and the user's real benchmarks."""

import hashlib
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from snp import ranks
from snp.data import annotations, readers, tokens
from snp.data.annotations import Entry, Span
from snp.data.dataset import GroundingSet
from snp.data.decoded import Resolve, pixels_below
from snp.data.drawn import folder, notarget
from snp.data.fields import checked
from snp.data.flat import Flat
from snp.data.loading import Pictures
from snp.data.sources import layout
from snp.data.sources.images import places
from snp.data.tokens import Vocabulary
from snp.data.views import Fit
from snp.errors import InputError
from snp.experiment.places import own_name
from snp.experiment.recipes import RECIPES
from snp.experiment.spec import MADE, Data, Scale, is_own
from snp.files import read_json, write_json
from snp.models import config as configs
from snp.models.config import GLIPConfig, TowerConfig
from snp.tasks import detect
from snp.training.made import data_root

HELD_OUT = 20
"""One in so many pre-training captions is kept for the steps that learn the structure. [author]"""
CATEGORIES = 10_000
"""Of a user's own data, at most."""


def limits(scale: Scale) -> dict[str, int]:
    """What a run at this scale asks of a user's own data, for `snp data check`: `context` and `least`."""
    training = RECIPES[scale].mdetr
    batch = max(phase.batch for phase in (training.pretrain, training.compress, training.finetune))
    held = training.compress.batch // training.compress.per_image
    return {"context": getattr(configs, training.model).context, "least": max(HELD_OUT * held, batch + held)}


def vocabulary(root: Path) -> Vocabulary:
    """The tokens that occur in the training captions of a data set; worked out once and kept beside the pixels."""
    path = root / "cache" / f"vocabulary-{folder.data_hash(root)[:12]}-{tokens.VERSION}.json"
    if path.exists():
        with suppress(InputError):  # it is damaged
            return Vocabulary(checked(read_json(path), list, path))
    names = [name for name in folder.said(root, "captions") if name.endswith("_train")]
    captions = (entry.caption for name in names for entry in annotations.read(root / "annotations" / f"{name}.json"))
    found = Vocabulary.from_captions(set(captions))
    write_json(path, found.clip_ids, indent=None)
    return found


def fit_of(config: TowerConfig) -> Fit | None:
    """How a model's pictures are brought to size with their sides' ratio kept; None where they become squares."""
    return None if config.shortest is None or config.longest is None else Fit(config.shortest, config.longest)


@dataclass(frozen=True)
class Source:
    """The data that runs are made of: one folder with pictures, captions and benchmarks.

    Args:
        root: a made data set, or the user's folder with the published benchmarks.
        real: it is the user's: nothing is counted on but what was published, and words are all of CLIP's.
        own: it is the user's, and no published benchmark: words are those of its training captions.
        loaders: processes that decode real pictures ahead of time.
        scale: that it is made at.
    """

    root: Path
    real: bool = False
    own: bool = False
    loaders: int = 0
    scale: Scale = "paper"

    @classmethod
    def from_scale(cls, scale: Scale, data: Data, root: Path | None = None, loaders: int = 0) -> "Source":
        """The data of a scale; `root` is needed for those that are the user's."""
        if data in MADE:
            return cls(data_root(scale, data), scale=scale)
        if root is None or not root.is_dir():
            hint = "give the folder that `snp data check` finds sound with --data-root"
            raise InputError("--data-root", "missing" if root is None else f"{root} is no folder", hint)
        if is_own(data) and own_name(root) != data:
            raise InputError(
                "--data-root", f"{root} holds {own_name(root)}, and the runs are on {data}", "name its folder"
            )
        return cls(root, real=True, own=is_own(data), loaders=loaders)

    def beside(self, data: Data) -> "Source":
        """Another data set that is made here, at the same scale."""
        return Source.from_scale(self.scale, data)

    @property
    def hash(self) -> str | None:
        """Of pixels and captions, for the manifest; None for real data, which are not ours to hash.

        Of a user's own data of the annotations alone: two data sets may have one name.
        """
        if self.own:
            return _annotations_hash(self.root)
        return None if self.real else folder.data_hash(self.root)

    @property
    def tasks_hash(self) -> str | None:
        """Of pixels and the other tasks' files."""
        return None if self.real else folder.tasks_hash(self.root)

    @property
    def no_target_hash(self) -> str | None:
        """Of pixels, captions, and captions without a target."""
        return None if self.real else notarget.hash_of(self.root)

    def vocabulary(self, config: TowerConfig) -> Vocabulary:
        """The words that a model starts with; GLIP's prompts have some of their own."""
        if self.own:
            return _words(self.root)
        if self.real:
            return Vocabulary.full()
        words = vocabulary(self.root)
        return words.extended([". ".join(self.classes().values())]) if isinstance(config, GLIPConfig) else words

    def regions(self, vocabulary: Vocabulary, config: TowerConfig) -> GroundingSet:
        """What towers learn categories from: drawn objects by their full descriptions, of others all captions.

        Raises:
            InputError: categories of a user's own data that a classifier cannot have.
        """
        if not self.own:
            return self.captions("regions_train", vocabulary, config)
        found = self.captions("train", vocabulary, config)
        where = f"{self.root / 'annotations' / 'train.json'}: category_id"
        hint = f"number categories from 0 to {CATEGORIES - 1}"
        if found.lowest < 0:
            raise InputError(where, f"{found.lowest} is negative", hint)
        if found.categories > CATEGORIES:
            raise InputError(where, f"{found.categories - 1} is large", hint)
        return found

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
        benchmark = {"flickr": "flickr30k"}.get(name := entries[0].dataset_name if entries else "", name)
        images = self._images(benchmark, config)
        called = lambda i: readers.called(self.root, entries[i])  # noqa: E731
        found = GroundingSet(entries, images, vocabulary, config.context, called, answers, strict)
        found.loaders = self.loaders
        return found

    def _images(self, benchmark: str, config: TowerConfig) -> Resolve:
        """Finds pictures at the size that a model takes: real ones are too many to be kept decoded."""
        if self.real:
            return _pictures(*places(self.root, benchmark), config.image_size, fit_of(config))
        return pixels_below(self.root / "images", config.image_size, self.root / "cache")

    def without_target(self, split: str) -> list[Entry]:
        """Captions that mean nothing in their pictures, of drawn data; made on first need."""
        return notarget.read(self.root, split)

    def questions(self, split: str) -> list[Entry]:
        """GQA's questions of a split."""
        if self.real:
            _told(f"{readers.asked(self.root, split)}: GQA's questions of {split}")
        return readers.questions(self.root, split)

    def answers(self) -> dict[str, dict[str, int]]:
        """The answers that models choose from: type -> answer -> number."""
        return readers.answers(self.root)

    def phrases(self, split: str) -> list[Entry]:
        """Flickr30k's sentences of a split."""
        if self.real:
            _told(f"{readers.said(self.root, split)}: Flickr30k's sentences of {split}")
        return readers.phrases(self.root, split)

    def classes(self) -> dict[int, str]:
        """COCO's classes, number -> name, in the order of their prompts."""
        return readers.classes(self.root, "val2017")

    def prompts(self, vocabulary: Vocabulary, config: TowerConfig) -> list[tuple[str, list[Span]]]:
        """Prompts that hold all classes, with the place of each name."""
        return list(detect.prompts(list(self.classes().values()), vocabulary, config.context))

    def detection(self, split: str, prompts: Sequence[tuple[str, list[Span]]]) -> list[Entry]:
        """Every picture of a split of COCO with every prompt."""
        return readers.detection(self.root, split, prompts)

    def instances(self, split: str) -> Path:
        """COCO's boxes of a split."""
        return readers.instances(self.root, split)


@cache
def _captions(source: Source, name: str, hash: str | None, vocabulary: Vocabulary, config: TowerConfig) -> GroundingSet:
    found = _read(source, name, vocabulary, config)
    found.loaders = source.loaders
    return found


def _read(source: Source, name: str, vocabulary: Vocabulary, config: TowerConfig) -> GroundingSet:
    if not source.real:
        return GroundingSet.read(source.root, name, source._images("", config), vocabulary, config.context)
    benchmark, split = layout.owner(name), name.rpartition("_")[2]
    images = source._images(benchmark, config)
    if base := layout.prepared(source.root, benchmark, name):
        _told(f"{base / 'annotations' / name}.json: read, and kept as arrays in {base / 'cache'}")
        return GroundingSet.read(base, name, images, vocabulary, config.context)
    files = layout.references(source.root, benchmark) if name.startswith("finetune_") else None
    missing, store = source.root / "annotations" / f"{name}.json", source.root / "cache" / name
    if files is None:
        raise InputError(missing, "file not found", f"needs {layout.NEEDS[benchmark]}")

    def convert() -> Flat:
        if not (entries := _expressions(source.root, benchmark).get(split, [])):
            problem = f"file not found, and {files[0]} has nothing of {split}"
            raise InputError(missing, problem, f"needs {layout.NEEDS[benchmark]}")
        _told(f"{files[0]}: {split} is converted, for {store.parent}")
        called = lambda i: f"{files[0]}: ann_id {entries[i].original_id}"  # noqa: E731
        return Flat.from_entries(entries, vocabulary, config.context, called)

    flat = Flat.kept(store, files, convert, vocabulary, config.context)
    return GroundingSet(flat, images, vocabulary, config.context, lambda i: f"{files[0]}: ann_id {flat.original_N[i]}")


@cache
def _words(root: Path) -> Vocabulary:
    return Vocabulary.from_captions({entry.caption for entry in annotations.read(root / "annotations" / "train.json")})


@cache
def _annotations_hash(root: Path) -> str:
    files = [root / "annotations" / f"{name}.json" for name in layout.OWN]
    if missing := [path for path in files if not path.is_file()]:
        raise InputError(missing[0], "file not found", f"needs {layout.NEEDS['own']}")
    return hashlib.sha256(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in files)).hexdigest()


@cache
def _told(what: str) -> None:
    """Say where something was found, once in a process, and by the first of several."""
    if ranks.rank() == 0:
        print(f"snp: {what}", file=sys.stderr)


@cache
def _expressions(root: Path, benchmark: str) -> dict[str, list[Entry]]:
    """Read once for all splits."""
    return readers.expressions(root, benchmark)


@cache
def _pictures(roots: tuple[Path, ...], flickr: bool, size: int, fit: Fit | None) -> Pictures:
    """One for the folders: listing them takes long."""
    return Pictures(roots, flickr, size, fit)
