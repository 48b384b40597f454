"""Data that are made here, at the size of a scale: drawn from one seed where they are missing."""

from importlib import import_module
from pathlib import Path
from typing import Any

from snp import ranks
from snp.data.drawn import build, folder
from snp.errors import InputError
from snp.experiment.benchmarks import LOOKS
from snp.experiment.places import data_folder
from snp.experiment.recipes import POOL, RECIPES
from snp.experiment.spec import DRAWN, Data, Scale

SEED = 0
"""Of the desk data: one fixed set that every row shares."""


def data_root(scale: Scale, data: Data, workers: int = 2) -> Path:
    """The folder of a data set, made from its seed first if it is not there."""
    root = data_folder(scale, data)
    with ranks.in_turn():
        return root if build.is_made(root) else make(root, scale, data, workers)


def ready(root: Path, scale: Scale, data: Data, workers: int = 2, **options: Any) -> Path:
    """A data set in a folder that a user names: as it is there, or, with options of its own or where none is, made.

    Raises:
        InputError: another data set, or anything else, is there.
    """
    there = build.is_made(root)
    if there and (name := folder.said(root, "name")) != data:
        raise InputError(root, f"holds the data set {name}", f"choose another folder for {data}")
    return root if there and not options else make(root, scale, data, workers, **options)


def make(root: Path, scale: Scale, data: Data, workers: int = 2, **options: Any) -> Path:
    """Make a desk data set at the size of a scale; `options` are the data set's own (`source` of stamps)."""
    train, test = RECIPES[scale].train_scenes, RECIPES[scale].test_expressions
    if data in LOOKS:
        draw = import_module("snp.data.drawn.looks").make
        return draw(root, SEED, data, min(train, POOL), min(test, POOL), 40, workers=workers, **options)
    if data not in DRAWN:
        raise InputError(f"data set {data}", "is not made here", "give its folder with --data-root")
    maker = import_module(f"snp.data.drawn.{data}").make
    return maker(root, SEED, train=train, test=test, pretrain_val=max(40, train // 64), workers=workers, **options)
