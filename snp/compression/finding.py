"""Towers that are found in a model by themselves: where they are, what can be cut in them, and what stays whole."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import nn

from snp.compression.families import lists_of
from snp.compression.tower import Tower, view
from snp.errors import InputError

PICTURES = re.compile(r"vis|image|pixel|patch", re.IGNORECASE)


@dataclass(frozen=True)
class Towers:
    """What was found.

    Attributes:
        towers: name -> view; those that see pictures first, since shared weights are theirs.
        paths: name -> path of its layers in the model.
        left: path of a part that stays whole, or of layers that are no tower -> why.
    """

    towers: dict[str, Tower]
    paths: dict[str, str]
    left: dict[str, str]


def find(model: nn.Module, exclude: Sequence[str] = ()) -> Towers:
    """All towers of a model; parts of them that cannot be cut are left whole.

    Args:
        exclude: patterns of paths of parts that stay whole.

    Raises:
        InputError: there is none; says why of each list of layers.
    """
    found: dict[str, Tower] = {}
    left: dict[str, str] = {}
    for path, _ in lists_of(model):
        whole: dict[str, str] = {}
        try:
            tower = view(model, path, path or "tower", exclude, left=whole)
            tower.shape  # noqa: B018 - layers that differ in what can be cut are no tower
        except InputError as error:
            left |= whole | {path: str(error)}
        else:
            found[path] = tower
            left |= whole
    if not found:
        said = "; ".join(f"{path}: {why}" for path, why in left.items()) or "it has no list of transformer layers"
        raise InputError("towers", said, "give groups={modality: names}, for a method that cuts no units")
    order = sorted(found, key=lambda path: PICTURES.search(path) is None)
    paths = dict(zip(_names(order), order, strict=True))
    return Towers({name: replace(found[path], name=name) for name, path in paths.items()}, paths, left)


def _names(paths: Sequence[str]) -> list[str]:
    """A short name for each: of its path from the front as much as no other path begins with."""
    if len(paths) == 1:
        return [paths[0].partition(".")[0] or "tower"]

    def short(path: str) -> str:
        pieces = path.split(".")
        fronts = (".".join(pieces[:size]) for size in range(1, len(pieces)))
        others = [other for other in paths if other != path]
        return next((front for front in fronts if not any(f"{o}.".startswith(f"{front}.") for o in others)), path)

    return [short(path) for path in paths]
