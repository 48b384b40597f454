"""Surgery: a model and a Plan make a smaller model, with units cut or stored once and weights masked."""

import copy
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, NoReturn, TypeVar

from torch import Tensor, nn

from snp.compression.block import Block
from snp.compression.installing import Place, fits, install, link, maps_of, stored
from snp.compression.masked import MaskedParameter, StayMasked
from snp.compression.modules import Attention
from snp.compression.plan import Plan
from snp.compression.recognise import MARK
from snp.compression.tied import TiedLinear
from snp.compression.tower import Patch, Tower, iterate, towers_of
from snp.errors import InputError

M = TypeVar("M", bound=nn.Module)
MADE = "made_by_snp"
"""Attribute of a compressed model: what it was made by."""


@dataclass(frozen=True)
class Made:
    """What a compressed model was made by.

    Attributes:
        paths: tower name -> path of its submodule.
        about: name and options of the method, where `snp.compress` chose it.
    """

    plan: Plan
    paths: Mapping[str, str]
    about: Mapping[str, Any] = field(default_factory=dict)

    def __deepcopy__(self, _: dict[int, Any]) -> "Made":
        return self  # nobody changes it


def made_of(model: nn.Module) -> Made:
    """InputError unless `apply` made the model."""
    made = getattr(model, MADE, None)
    if not isinstance(made, Made):
        raise InputError("model", "was not compressed here", "give what snp.compress or snp.load gave")
    return made


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
        for component in block.components:
            owner, alive = here.owner[component], here.survives[component]
            donors = [d for d in owner[alive].unique().tolist() if plan.layers[d] != place]
            for kind, part, ref in block.pieces(component):
                name = getattr(ref, kind)
                tensor = base[name][ref.rows]
                shape = [-1 if d == part.dim else 1 for d in range(tensor.dim())]
                for donor in donors:
                    other = blocks[plan.layers[donor]].ref(part.role)
                    theirs = (owner == donor).repeat_interleave(part.each).nonzero()[:, 0].to(tensor.device)
                    lent = base[getattr(other, kind)][other.rows].index_select(part.dim, theirs)
                    tensor = tensor.index_copy(part.dim, theirs, lent)
                kept = alive.repeat_interleave(part.each).view(shape).to(tensor.device)
                patch.add(name, ref.start, tensor * kept)
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
    towers = towers_of(model, paths, shapes=plan.towers)
    plan.check(towers, model)
    blocks = {(name, layer): block for name, layer, block in iterate(towers)}
    for share in plan.shares:
        if not fits(blocks[share.receiver.place], blocks[share.donor], share.receiver.component):
            problem = "its units cannot be stored there: their maps differ, or insist on their sizes"
            raise InputError(f"plan: share {share.receiver} from {share.donor}", problem, "prune them")
    decided = {place: plan.layer(*place) for place in plan.layers}
    links, touched = {}, _touched(plan)
    maps = {place: maps_of(block) for place, block in blocks.items()}
    for place in blocks:
        for name, made in maps[place].items():
            together = {"qk", "vo"} if made.components & {"qk", "vo"} else made.components
            if any((place, component) in touched for component in together):
                links[place, name] = link(decided, place, made.parts)
    tied = {maps[place][name].path for (place, name), found in links.items() if found.donors}
    replaceable([blocks[place] for place in sorted({place for place, _ in links})], tied)
    modules = {
        (place, name): stored(decided[place], blocks[place], maps[place][name], found.index if found.donors else None)
        for (place, name), found in links.items()
    }
    for place, block in blocks.items():
        install(model, block, decided[place], {n: m for (at, n), m in modules.items() if at == place})
    for (place, name), found in links.items():
        if found.donors:
            tied_map: Any = modules[place, name]
            tied_map.link(tuple(model.get_submodule(maps[donor][name].path) for donor in found.donors))
    for name, mask in plan.masks.items():
        parameter = model.get_parameter(name)
        holders = [(module, attribute) for module in model.modules() for attribute in module._parameters]
        StayMasked(mask, [(module, a) for module, a in holders if module._parameters[a] is parameter])
    if plan.keep or plan.shares:
        for module in model.modules():
            if hasattr(module, "save_pretrained"):
                module.save_pretrained = _no_save_pretrained  # type: ignore[assignment]
    setattr(model, MADE, Made(plan, dict(paths)))
    return model


def verify(model: nn.Module, plan: Plan, paths: Mapping[str, str]) -> None:
    """InputError unless `model` is one that `apply` made of this plan with these paths, trained or not."""
    hint = "give them as in towers={name: path} of snp.compress"
    if odd := sorted(plan.towers.keys() ^ paths.keys()):
        verb = "lack" if odd[0] in plan.towers else "have"
        raise InputError("paths", f"{verb} {odd[0]!r}; towers of the plan: {', '.join(plan.towers)}", hint)
    try:
        towers = towers_of(model, paths, shapes=plan.towers)
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


def _sizes(block: Block) -> dict[str, tuple[int, ...]]:
    """Width, and of every component the units that work in the layer and those that it stores."""
    found: dict[str, tuple[int, ...]] = {"": (block.d_model,)}
    for name, component in block.components.items():
        part = component.parts[0]
        ref = block.ref(part.role)
        found[name] = (component.units, (ref.stop - ref.start) // part.each)
    return found


def _sizes_of(plan: Plan, place: Place) -> dict[str, tuple[int, ...]]:
    """The same of the layer that the plan makes."""
    shape, here = plan.towers[place[0]], plan.layer(*place)
    found: dict[str, tuple[int, ...]] = {"": (shape.d_model,)}
    return found | {c: (int(here.survives[c].sum()), int(here.own[c].sum())) for c in shape.components}


def copied(model: M) -> M:
    """A deep copy of a dense model.

    Raises:
        InputError: it is compressed already, or as `duplicate`; names the module.
    """
    for name, module in model.named_modules():
        if (
            isinstance(module, Attention | TiedLinear)
            or hasattr(module, MARK)
            or any(isinstance(parameter, MaskedParameter) for parameter in module.parameters(recurse=False))
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


def replaceable(blocks: Iterable[Block], tied: Collection[str]) -> None:
    """InputError where a module with a hook would be replaced: the hook would be lost.

    An attention that is not cut itself is replaced, and so is a map whose units another stores.

    Args:
        tied: paths of such maps, or patterns of them.
    """
    for block in blocks:
        names = [ref.weight.rpartition(".")[0] for ref in block.refs.values()]
        names = [name for name in dict.fromkeys(names) if any(fnmatchcase(name, path) for path in tied)]
        if block.kind is not None:
            path = block.components["qk"].path
            names += [f"{path}.{name}".rstrip(".") for name, _ in block.model.get_submodule(path).named_modules()]
        for name in names:
            for kind in ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks"):
                for hook in getattr(block.model.get_submodule(name), kind).values():
                    # transformers' own record attentions: the cut module refuses to be asked for them
                    if not getattr(hook, "__module__", "").startswith("transformers."):
                        problem = "has a hook, which a compressed module would not have"
                        raise InputError(name, problem, "remove it before")


def _no_save_pretrained(*_: Any, **__: Any) -> NoReturn:
    """In the place of transformers' own: from_pretrained would build the dense layers, and leave them random."""
    raise InputError(
        "save_pretrained",
        "saves a compressed model as from_pretrained cannot load it",
        "use snp.save(model, folder), and snp.load(folder)",
    )


def _touched(plan: Plan) -> set[tuple[Place, str]]:
    """(Layer, component) that is cut, receives units, or stores units for others."""
    found = {(site.place, site.component) for site in plan.keep}
    for share in plan.shares:
        component = share.receiver.component
        owners = plan.owner(*share.receiver)[share.units].unique().tolist()
        found |= {(place, component) for place in (share.receiver.place, *(plan.layers[owner] for owner in owners))}
    return found
