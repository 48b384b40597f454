"""How a plan is put into a layer: maps cut to what is stored there, ties to where the rest is, sizes that fit."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from snp.compression.block import Block, Part
from snp.compression.cutting import pad, put, resize
from snp.compression.plan import LayerPlan
from snp.compression.recognise import MARK
from snp.compression.tied import TiedLinear

Place = tuple[str, int]  # tower, layer


@dataclass(frozen=True)
class Map:
    """A linear map of a layer, with the parts of components that it holds, in the order of its rows.

    Attributes:
        path: where it is in the model; of an attention that another takes the place of, where it will be.
    """

    path: str
    parts: tuple[tuple[str, Part], ...]

    @property
    def dim(self) -> int:
        return self.parts[0][1].dim

    @property
    def components(self) -> set[str]:
        return {component for component, _ in self.parts}


def maps_of(block: Block) -> dict[str, Map]:
    """The maps of a layer by a name that is the same in all layers of its kind."""
    found: dict[str, list[tuple[str, Part]]] = {}
    paths: dict[str, str] = {}
    for name, component in block.components.items():
        for part in component.parts:
            path, _, attribute = block.ref(part.role).weight.rpartition(".")
            if component.form == "apart":
                path = f"{component.path}.{'proj' if part.dim else 'qkv'}"
            elif attribute != "weight":
                continue  # it stands beside the maps, as a table of positions does
            paths.setdefault(path, part.role)
            found.setdefault(path, []).append((name, part))
    return {paths[path]: Map(path, tuple(parts)) for path, parts in found.items()}


def fits(block: Block, other: Block, component: str) -> bool:
    """Whether units of a layer's component can be stored in the other: rows and columns of like maps, equally long.

    Not those of maps that insist on their sizes, nor what stands beside the maps.
    """
    layout = _layout(block, component)
    return layout is not None and layout == _layout(other, component)


def _layout(block: Block, name: str) -> tuple[Any, ...] | None:
    """What the units of a component are made of; None: they can be stored nowhere else."""
    component = block.components.get(name)
    if component is None or component.form == "padded":
        return None
    maps = [(key, made.parts) for key, made in maps_of(block).items() if name in made.components]
    held = {part for _, parts in maps for of, part in parts if of == name}
    if held != set(component.parts):
        return None
    sizes = [
        (block.weight(part.role).shape[1 - part.dim], block.ref(part.role).bias is not None) for part in component.parts
    ]
    return component.heads, component.heads == 1 or component.units, maps, sizes


@dataclass(frozen=True)
class Link:
    """Where a map finds its units: `index` into its own stored rows followed by those of `donors`."""

    index: Tensor
    donors: tuple[Place, ...]


def link(decided: Mapping[Place, LayerPlan], place: Place, parts: tuple[tuple[str, Part], ...]) -> Link:
    """Of a layer's map; `decided` has all layers, in the order that owners count in."""
    places, own_plan = list(decided), decided[place]
    here = places.index(place)
    owners = {c: own_plan.owner[c][own_plan.survives[c]] for c, _ in parts}
    units = {c: own_plan.survives[c].nonzero()[:, 0] for c, _ in parts}
    others = sorted(set(torch.cat(list(owners.values())).tolist()) - {here})
    index = [torch.empty(len(owners[c]), part.each, dtype=torch.long) for c, part in parts]
    offset = 0
    for row in (here, *others):
        for rows, (c, part) in zip(index, parts, strict=True):
            own = decided[places[row]].own[c]
            mine = owners[c] == row
            first = offset + (own.cumsum(0) - 1)[units[c][mine]] * part.each
            rows[mine] = first[:, None] + torch.arange(part.each)
            offset += int(own.sum()) * part.each
    return Link(torch.cat([rows.flatten() for rows in index]), tuple(places[row] for row in others))


def stored(decided: LayerPlan, block: Block, made: Map, index: Tensor | None) -> nn.Module:
    """The linear map with the units that this layer stores itself; tied by an index, to donors that come later."""
    weights, biases = [], []
    for component, part in made.parts:
        weight = block.weight(part.role)
        own = decided.own[component].repeat_interleave(part.each).nonzero()[:, 0].to(weight.device)
        weights.append(weight.index_select(part.dim, own))
        if block.ref(part.role).bias is not None:
            added = block.bias(part.role)
            biases.append(added[own] if part.dim == 0 else added)
    weight = torch.cat(weights, made.dim).detach().clone()
    bias = torch.cat(biases).detach().clone() if biases else None
    module: nn.Module
    if index is not None:
        module = TiedLinear(weight, bias, index, (), made.dim)
    else:
        module = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
        module.weight = nn.Parameter(weight)
        if bias is not None:
            module.bias = nn.Parameter(bias)
    ref = block.ref(made.parts[0][1].role)
    for name, parameter in module.named_parameters():
        full = ref.weight if name == "weight" else ref.bias
        assert full is not None
        parameter.requires_grad_(block.model.get_parameter(full).requires_grad)
    return module


def install(model: nn.Module, block: Block, decided: LayerPlan, made: Mapping[str, nn.Module]) -> None:
    """Put the maps that were made for a layer into it, and tell its modules their sizes."""
    maps = maps_of(block)
    touched = {component for name in made for component in maps[name].components}
    if "qk" in touched and block.kind is not None:
        _succeed(model, block, decided, made["q"], made["o"])
    for name in touched - {"qk", "vo"} if block.kind is not None else touched:
        component = block.components[name]
        holder: Any = model.get_submodule(component.path)
        for role, module in made.items():
            if name in maps[role].components:
                _replace(model, maps[role], decided, module, component.form == "padded")
        for part in component.parts:  # what stands beside the maps
            path, _, attribute = block.ref(part.role).weight.rpartition(".")
            if attribute != "weight":
                beside = model.get_parameter(block.ref(part.role).weight)
                rows = decided.own[name].nonzero()[:, 0].to(beside.device)
                kept = beside.detach().index_select(part.dim, rows).clone()
                setattr(model.get_submodule(path), attribute, nn.Parameter(kept, beside.requires_grad))
        resize(holder, component, int(decided.kept[name].sum()))
        units = int(decided.survives[name].sum())
        setattr(holder, MARK, {**getattr(holder, MARK, {}), name: replace(component, path="", units=units)})


def _replace(model: nn.Module, made: Map, decided: LayerPlan, module: nn.Module, is_padded: bool) -> None:
    """A map in the place of the dense one: the module that is there stays, if it can hold it."""
    dense: Any = model.get_submodule(made.path)
    if isinstance(module, TiedLinear):
        put(model, made.path, module.train(dense.training))
    elif is_padded:
        alive = torch.cat([decided.survives[c].repeat_interleave(part.each) for c, part in made.parts])
        tensors = {f"{made.path}.{name}": p.detach() for name, p in module.named_parameters()}
        pad(model, made.path, {f"{made.path}.weight": (made.dim, alive)}, tensors)
        model.get_submodule(made.path).train(dense.training)
    else:
        for name, parameter in module.named_parameters():
            setattr(dense, name, parameter)
        dense.in_features, dense.out_features = module.in_features, module.out_features


def _succeed(model: nn.Module, block: Block, decided: LayerPlan, qkv: nn.Module, proj: nn.Module) -> None:
    """Another attention module in the place of the dense one."""
    path = block.components["qk"].path
    dense: Any = model.get_submodule(path)
    kind = block.kind
    assert kind is not None
    d_qk, d_vo, own_qk, own_vo = (int(of[c].sum()) for of in (decided.kept, decided.own) for c in ("qk", "vo"))
    scale = getattr(dense, "scale", block.d_qk**-0.5)
    cut = kind(qkv, proj, block.n_heads, d_qk, d_vo, own_qk, own_vo, scale, **kind.habits(dense))
    put(model, path, cut.train(dense.training))
