"""Surgery: a model and a Plan make a smaller model, with units cut or stored once and weights masked."""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor, nn

from snp.compression.block import UNIT_DIMS, Block, attention_name, linear_names
from snp.compression.masked import MaskedParameter, StayMasked
from snp.compression.modules import Attention
from snp.compression.plan import LayerPlan, Plan
from snp.compression.tied import TiedLinear
from snp.compression.tower import Patch, Tower, iterate, towers_of
from snp.errors import InputError

M = TypeVar("M", bound=nn.Module)
Place = tuple[str, int]  # tower, layer
#: The linear maps of a compressed layer: (role, component) of each part, and the dimension of units.
MAPS: dict[str, tuple[tuple[tuple[str, str], ...], int]] = {
    "qkv": ((("q", "qk"), ("k", "qk"), ("v", "vo")), 0),
    "proj": ((("o", "vo"),), 1),
    "fc1": ((("fc1", "ffn"),), 0),
    "fc2": ((("fc2", "ffn"),), 1),
}


def substitute(
    model: nn.Module, towers: dict[str, Tower], plan: Plan, params: dict[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """What the plan makes of the dense weights, in dense shapes: zeros, and donors' values for shared units.

    Args:
        params: tensors to start from instead of the model's own parameters (full names).

    Returns:
        Full name -> tensor of every parameter that the plan changes, differentiable, for functional_call.
    """
    plan.check(towers, model)
    base = dict(model.named_parameters(remove_duplicate=False)) | (params or {})
    blocks = {(name, layer): block for name, layer, block in iterate(towers)}
    result = {name: base[name] * mask.to(base[name].device) for name, mask in plan.masks.items()}
    for place, block in blocks.items():
        patch, changed, here = Patch(), set(), plan.layer(*place)
        for component, roles in UNIT_DIMS.items():
            owner, alive = here.owner[component], here.survives[component]
            donors = [d for d in owner[alive].unique().tolist() if plan.layers[d] != place]
            for role, dim in roles:
                names = ("weight", "bias") if dim == 0 else ("weight",)
                for kind in names:
                    name = getattr(block.ref(role), kind)
                    tensor = base[name][block.ref(role).rows]
                    shape = [-1 if d == dim else 1 for d in range(tensor.dim())]
                    for donor in donors:
                        ref = blocks[plan.layers[donor]].ref(role)
                        theirs = (owner == donor).view(shape).to(tensor.device)
                        tensor = torch.where(theirs, base[getattr(ref, kind)][ref.rows], tensor)
                    kept = alive.view(shape).to(tensor.device)
                    patch.add(name, block.ref(role).start, tensor * kept)
                    if donors or not alive.all():
                        changed.add(name)
        result |= patch.parameters(changed)
    return result


def apply(model: M, plan: Plan, paths: dict[str, str]) -> M:
    """A compressed deep copy of a dense `model`, which gives the outputs that `substitute` gives.

    Args:
        paths: tower name -> path of its submodule, as in `tower.view`.

    Raises:
        InputError: the plan is not of this model, or the model is compressed already or cannot be copied.
    """
    model = copied(model)
    towers = towers_of(model, paths)
    plan.check(towers, model)
    blocks = {(name, layer): block for name, layer, block in iterate(towers)}
    touched = {c: _touched(plan, c) for c in UNIT_DIMS}
    replaceable([blocks[place] for place in sorted(set().union(*touched.values()))])
    decided = {place: plan.layer(*place) for place in plan.layers}
    maps: dict[tuple[Place, str], nn.Module] = {}
    links = {}
    for place, block in blocks.items():
        for map_name, (roles, _) in MAPS.items():
            components = {"qk", "vo"} if map_name in ("qkv", "proj") else {c for _, c in roles}
            if any(place in touched[c] for c in components):
                link = _link(decided, place, map_name)
                links[place, map_name] = link
                maps[place, map_name] = _stored(decided[place], block, map_name, link)
    for (place, map_name), link in links.items():
        if link.donors:
            tied = maps[place, map_name]
            assert isinstance(tied, TiedLinear)
            tied.link(tuple(maps[donor, map_name] for donor in link.donors))
    for place, block in blocks.items():
        new = {name: maps[place, name] for name in MAPS if (place, name) in maps}
        _install(model, block, decided[place], new)
    for name, mask in plan.masks.items():
        parameter = model.get_parameter(name)
        holders = [(module, attribute) for module in model.modules() for attribute in module._parameters]
        StayMasked(mask, [(module, a) for module, a in holders if module._parameters[a] is parameter])
    if plan.keep or plan.shares:
        for module in model.modules():
            if hasattr(module, "save_pretrained"):
                module.save_pretrained = _no_save_pretrained  # type: ignore[assignment]
    return model


def verify(model: nn.Module, plan: Plan, paths: Mapping[str, str]) -> None:
    """InputError unless `model` is one that `apply` made of this plan with these paths, trained or not."""
    hint = "give them as in towers={name: path} of snp.compress"
    if odd := sorted(plan.towers.keys() ^ paths.keys()):
        verb = "lack" if odd[0] in plan.towers else "have"
        raise InputError("paths", f"{verb} {odd[0]!r}; towers of the plan: {', '.join(plan.towers)}", hint)
    try:
        towers = towers_of(model, dict(paths))
    except InputError as error:
        raise InputError("paths", str(error), hint) from None
    for name, tower in towers.items():
        expected = [_sizes_of(plan, place) for place in plan.layers if place[0] == name]
        if [_sizes(block) for block in tower.blocks] != expected:
            raise InputError(f"tower {name}", "is not of the sizes that the plan makes", "take the model of the plan")
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name, mask in plan.masks.items():
        if name not in parameters or parameters[name].shape != mask.shape:
            raise InputError(name, "the plan masks it, and the model has no such weight", "take the model of the plan")
        if bool(parameters[name][~mask.to(parameters[name].device)].any()):
            raise InputError(name, "is not zero where the plan masks it", "take the model of the plan")


def _sizes(block: Block) -> tuple[int, ...]:
    """Width, heads, and of every component the units that work in the layer and those that it stores."""
    stored = (block.ref(role).stop - block.ref(role).start for role in ("q", "v", "fc1"))
    return block.d_model, block.n_heads, block.d_qk, block.d_vo, block.d_ffn, *stored


def _sizes_of(plan: Plan, place: Place) -> tuple[int, ...]:
    """The same of the layer that the plan makes."""
    shape = plan.towers[place[0]]
    here = plan.layer(*place)
    units = [int(of[c].sum()) for of in (here.kept, here.own) for c in UNIT_DIMS]
    return shape.d_model, shape.n_heads, *units


def copied(model: M) -> M:
    """A deep copy of a dense model.

    Raises:
        InputError: it is compressed already, or as `duplicate`; names the module.
    """
    for name, module in model.named_modules():
        if isinstance(module, Attention | TiedLinear) or any(
            isinstance(parameter, MaskedParameter) for parameter in module.parameters(recurse=False)
        ):
            raise InputError(name or "model", "is compressed already", "start from the dense model")
    return duplicate(model)


def duplicate(model: M) -> M:
    """A deep copy of any model.

    Raises:
        InputError: it cannot be copied; names the module.
    """
    try:
        return copy.deepcopy(model)
    except Exception as error:  # of many kinds: whatever a model holds may not be copied
        hint = "make it a plain model first: remove its pruning, norms or hooks"
        for name, module in model.named_modules():
            for attribute, value in vars(module).items():
                if isinstance(value, Tensor) and not value.is_leaf:  # of torch.nn.utils.prune and weight_norm
                    where = ".".join(filter(None, (name, attribute)))
                    raise InputError(where, "is made of other parameters, and cannot be copied", hint) from None
        raise InputError("model", f"cannot be copied: {' '.join(str(error).split())}", hint) from None


def replaceable(blocks: Iterable[Block]) -> None:
    """InputError where modules cannot be replaced, as cutting or sharing units does, without losing something.

    That is a hook, or which of the weights of queries, keys and values are frozen: they become one.
    """
    for block in blocks:
        layer: Any = block.model.get_submodule(block.layer)
        attention = attention_name(layer)
        names = [attention, *(f"{attention}.{name}" for name, _ in getattr(layer, attention).named_modules() if name)]
        for name in [*names, *(f"mlp.{name}" for name in linear_names(layer.mlp))]:
            for kind in ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks"):
                for hook in getattr(layer.get_submodule(name), kind).values():
                    # transformers' own record attentions: the cut module refuses to be asked for them
                    if not getattr(hook, "__module__", "").startswith("transformers."):
                        problem = "has a hook, which a compressed module would not have"
                        raise InputError(f"{block.layer}.{name}", problem, "remove it before")
        for kind in ("weight", "bias"):
            parts = [block.model.get_parameter(getattr(block.ref(role), kind)) for role in "qkv"]
            if len({part.requires_grad for part in parts}) == 2:
                problem = f"some of its {kind} parts of q, k and v are frozen, some are trained"
                raise InputError(f"{block.layer}.{attention}", problem, "freeze all of them or none: they become one")


def _no_save_pretrained(*_: Any, **__: Any) -> NoReturn:
    """In the place of transformers' own: from_pretrained would build the dense layers, and leave them random."""
    raise InputError(
        "save_pretrained",
        "saves a compressed model as from_pretrained cannot load it",
        "use snp.compression.checkpoint.save(folder, model, plan, paths=towers)",
    )


@dataclass(frozen=True)
class _Link:
    """Where a map finds its units: `index` into its own stored units followed by those of `donors`."""

    index: Tensor
    donors: tuple[Place, ...]


def _touched(plan: Plan, component: str) -> set[Place]:
    """Layers whose component is cut, receives units, or stores units for others."""
    places = {site.place for site in plan.keep if site.component == component}
    for share in plan.shares:
        if share.receiver.component == component:
            owners = plan.owner(*share.receiver)[share.units].unique().tolist()
            places |= {share.receiver.place, *(plan.layers[owner] for owner in owners)}
    return places


def _link(decided: dict[Place, LayerPlan], place: Place, map_name: str) -> _Link:
    """Of a layer's map; `decided` has all layers, in the order that owners count in."""
    components = [component for _, component in MAPS[map_name][0]]
    places, own_plan = list(decided), decided[place]
    here = places.index(place)
    owners = {c: own_plan.owner[c][own_plan.survives[c]] for c in components}
    units = {c: own_plan.survives[c].nonzero()[:, 0] for c in components}
    others = sorted(set(torch.cat(list(owners.values())).tolist()) - {here})
    index = [torch.empty_like(owners[c]) for c in components]
    offset = 0
    for row in (here, *others):
        for part, c in zip(index, components, strict=True):
            own = decided[places[row]].own[c]
            mine = owners[c] == row
            part[mine] = offset + (own.cumsum(0) - 1)[units[c][mine]]
            offset += int(own.sum())
    return _Link(torch.cat(index), tuple(places[row] for row in others))


def _stored(decided: LayerPlan, block: Block, map_name: str, link: _Link) -> nn.Module:
    """The linear map with the units that this layer stores itself; donors are linked later."""
    roles, dim = MAPS[map_name]
    weights, biases = [], []
    for role, component in roles:
        own = decided.own[component].nonzero()[:, 0].to(block.weight(role).device)
        weights.append(block.weight(role).index_select(dim, own))
        biases.append(block.bias(role)[own] if dim == 0 else block.bias(role))
    weight, bias = torch.cat(weights, dim).detach().clone(), torch.cat(biases).detach().clone()
    module: nn.Module
    if link.donors:
        module = TiedLinear(weight, bias, link.index, (), dim)
    else:
        module = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
        module.weight, module.bias = nn.Parameter(weight), nn.Parameter(bias)
    for kind in ("weight", "bias"):
        trained = block.model.get_parameter(getattr(block.ref(roles[0][0]), kind)).requires_grad
        module.get_parameter(kind).requires_grad_(trained)
    return module


def _install(model: nn.Module, block: Block, decided: LayerPlan, maps: dict[str, nn.Module]) -> None:
    layer = model.get_submodule(block.layer)
    if "fc1" in maps:
        mlp: nn.Module = layer.mlp  # type: ignore[assignment]
        for name, map_name in zip(linear_names(mlp), ("fc1", "fc2"), strict=True):
            setattr(mlp, name, maps[map_name].train(mlp.training))
    if "qkv" in maps:
        name = attention_name(layer)
        dense = getattr(layer, name)
        d_qk, d_vo, own_qk, own_vo = (int(of[c].sum()) for of in (decided.kept, decided.own) for c in ("qk", "vo"))
        scale = getattr(dense, "scale", block.d_qk**-0.5)
        cut = block.kind(
            maps["qkv"], maps["proj"], block.n_heads, d_qk, d_vo, own_qk, own_vo, scale, **block.kind.habits(dense)
        )
        setattr(layer, name, cut.train(dense.training))
