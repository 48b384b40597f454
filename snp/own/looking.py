"""What can be seen of a model without its weights: its towers, what is cut in them, how small each method makes it."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from snp.compression.block import Component
from snp.compression.budget import Budget
from snp.compression.finding import Towers, find
from snp.compression.method import Method
from snp.compression.problem import Problem, linear_weights
from snp.compression.registry import get, methods
from snp.compression.tower import Tower
from snp.errors import InputError

NEEDS = {"one-shot": "nothing", "calibration": "data", "training": "data and steps"}
"""Stage of a method -> what it is to be given."""
ATTENTION = {"qk": "queries and keys", "vo": "values and outputs"}


def towers_in(model: nn.Module, name: str, exclude: Sequence[str]) -> Towers:
    """Those that are found; InputError with a way out of the shell where there is none."""
    try:
        return find(model, exclude)
    except InputError as error:
        hint = "--towers name=path names them; snp.compress in Python takes groups={modality: names of weights} too"
        raise InputError(name, f"no tower is found: {error.problem}", hint) from None


def facts(model: nn.Module, found: Towers, texts: bool) -> dict[str, Any]:
    """All that `snp inspect` says, as JSON has it.

    Args:
        model: with or without values.
        texts: whether it reads texts.
    """
    total = sum(parameter.numel() for parameter in model.parameters())
    towers = {name: about(model, tower, found.paths[name]) for name, tower in found.towers.items()}
    return {
        "class": type(model).__name__,
        "parameters": total,
        "towers": towers,
        "data": "a folder of pictures with their captions" if texts else "a folder of pictures",
        "outside": total - sum(tower["parameters"] for tower in towers.values()),
        "left": dict(found.left),
        "methods": [reach(get(name), model, found.towers) for name in methods()],
    }


def about(model: nn.Module, tower: Tower, path: str) -> dict[str, Any]:
    """A tower: its layers, their parameters, and the units of each component."""
    shape, block = tower.shape, tower.blocks[0]
    layers = {id(p): p for b in tower.blocks for p in model.get_submodule(b.layer).parameters()}
    return {
        "path": path,
        "layer": type(model.get_submodule(block.layer)).__name__,
        "layers": len(tower),
        "parameters": sum(parameter.numel() for parameter in layers.values()),
        "removable": sum(shape.layers * shape.units(c) * shape.unit_cost(c) for c in shape.components),
        "components": {
            name: {
                "form": component.form,
                "what": words(name, component),
                "units": shape.units(name),
                "heads": shape.heads(name),
                "parameters": shape.unit_cost(name),
            }
            for name, component in block.components.items()
        },
    }


def words(name: str, component: Component) -> str:
    """What a unit of a component is."""
    if component.form == "hidden":
        gated = " with their gates" if any(part.role.startswith("gate") for part in component.parts) else ""
        return f"hidden units{gated}"
    if component.form == "heads":
        q, k = component.parts[:2]
        return "whole heads" if q.each == k.each else f"keys and values with their {q.each // k.each} queries"
    if component.form == "apart":
        return f"dimensions of {ATTENTION[name.rstrip('0123456789')]}, of all {component.heads} heads"
    if component.parts[0].role.startswith("fc1"):
        return "hidden units; zeros stay, so it is not faster"
    zeros = "; zeros stay, so it is not faster" if component.form == "padded" else ""
    return f"dimensions of all {component.heads} heads{zeros}"


def reach(method: Method, model: nn.Module, towers: dict[str, Tower]) -> dict[str, Any]:
    """What a method could remove: `least`, the share of all parameters that stays, or `why` it does not apply.

    Of unstructured methods what stays is what is not zero: they store all.
    """
    line = {"name": method.name, "kind": method.kind, "stage": method.stage, "needs": NEEDS[method.stage]}
    try:
        method.check(towers)
        left = least(method, model, towers)
    except InputError as error:
        return line | {"least": None, "why": error.problem}
    return line | {"least": left / sum(parameter.numel() for parameter in model.parameters()), "why": ""}


def least(method: Method, model: nn.Module, towers: dict[str, Tower]) -> int:
    """The fewest parameters that a method can leave."""
    dense = Budget.from_model(model, towers, 1.0)
    if method.kind == "dense":
        return dense.total
    if method.kind == "unstructured":
        groups = linear_weights(towers)
        most = Budget.from_weights(model, groups, 0.0)
        return max(most.least, dense.least)
    if method.kind == "shared":  # by hand: it knows itself what it ties
        budget = Budget.from_model(model, towers, (dense.least + 1) / dense.total)
        problem = Problem(model, towers, budget, 0, _unasked, lambda: None)
        plan = method.begin(problem).plan()
        return dense.total - int(plan.cost()["removed"])
    return dense.least


def _unasked(batch: Any, overrides: Mapping[str, Any] | None) -> Any:
    raise InputError("data", "are asked for by a method that ties by hand")
