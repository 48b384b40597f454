"""Where the data of a scale lie, and the desk data made there when they are missing."""

import os
from importlib import import_module
from pathlib import Path

from snp.data import annotations, build
from snp.data.tokens import Vocabulary, encode
from snp.errors import InputError
from snp.experiment.recipes import RECIPES
from snp.experiment.spec import Data, Scale
from snp.files import read_json, write_json

SEED = 0
"""Of the desk data: one fixed set that every row shares."""


def data_folder(scale: Scale, data: Data) -> Path:
    """`$SNP_DATA/<data>-<scale>`; without SNP_DATA below `.data/` of this repository."""
    base = os.environ.get("SNP_DATA") or Path(__file__).resolve().parents[2] / ".data"
    return Path(base) / f"{data}-{scale}"


def data_root(scale: Scale, data: Data, workers: int = 2) -> Path:
    """The folder of a data set, made from its seed first if it is not there."""
    if scale not in RECIPES:
        raise InputError(f"scale {scale}", "its data cannot be made", "fetch them and give their folder")
    root, recipe = data_folder(scale, data), RECIPES[scale]
    if not (root / "dataset.json").exists():
        module = import_module(f"snp.data.{data}")
        module.make(root, SEED, train=recipe.train_scenes, test=recipe.test_expressions,
             pretrain_val=max(40, recipe.train_scenes // 64), workers=workers)  # fmt: skip
    return root


def vocabulary(root: Path) -> Vocabulary:
    """The tokens that occur in the training captions of a data set; worked out once and kept beside the pixels."""
    path = root / "cache" / f"vocabulary-{build.data_hash(root)[:12]}.json"
    if not path.exists():
        captions = {entry.caption for file in sorted((root / "annotations").glob("*_train.json"))
                    for entry in annotations.read(file)}  # fmt: skip
        write_json(path, sorted({i for caption in captions for i in encode(caption)[0]}), indent=None)
    return Vocabulary(read_json(path))


def data_hash(root: Path) -> str:
    """Of pixels and annotations, for the manifest."""
    return build.data_hash(root)
