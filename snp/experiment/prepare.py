"""Where the data of a scale lie, and the desk data made there when they are missing."""

import os
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from snp.data import annotations, build
from snp.data.dataset import GroundingSet
from snp.data.tokens import Vocabulary, encode
from snp.errors import InputError
from snp.experiment.recipes import RECIPES
from snp.experiment.spec import Data, Scale
from snp.files import read_json, write_json
from snp.models.config import ModelConfig

SEED = 0
"""Of the desk data: one fixed set that every row shares."""


def data_folder(scale: Scale, data: Data) -> Path:
    """`$SNP_DATA/<data>-<scale>`; without SNP_DATA below `.data/` of this repository."""
    base = os.environ.get("SNP_DATA") or Path(__file__).resolve().parents[2] / ".data"
    return Path(base) / f"{data}-{scale}"


def data_root(scale: Scale, data: Data, workers: int = 2) -> Path:
    """The folder of a data set, made from its seed first if it is not there."""
    root = data_folder(scale, data)
    return root if (root / "dataset.json").exists() else make(root, scale, data, workers)


def make(root: Path, scale: Scale, data: Data, workers: int = 2, **options: Any) -> Path:
    """Make a desk data set at the size of a scale; `options` are the data set's own (`source` of stamps)."""
    if scale not in RECIPES:
        raise InputError(f"--scale {scale}", f"{data} is not made at this scale", f"scales: {', '.join(RECIPES)}")
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


def entries(root: Path, name: str, vocabulary: Vocabulary, config: ModelConfig) -> GroundingSet:
    """The entries of an annotation file, ready for this model; read once in a process, whatever runs follow."""
    return _entries(root, data_hash(root), name, vocabulary, config.image_size, config.context)


@cache
def _entries(root: Path, hash: str, name: str, *how: Any) -> GroundingSet:
    return GroundingSet.read(root, name, *how)


def data_hash(root: Path) -> str:
    """Of pixels and annotations, for the manifest."""
    return build.data_hash(root)
