"""Which weights of a model learn: biases, a layer, a ticket, units that are shared or not; all others stay."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from snp.compression.masked import learn_only
from snp.compression.plan import Plan
from snp.compression.tied import TiedLinear
from snp.errors import InputError
from snp.models.adapt import Train
from snp.models.mdetr import MDETR, TOWERS

LAST = ("decoder", "slot_head", "box_head", "query_contrast", "token_contrast")
"""Where the last layer of fusion and the heads are; of the decoder its last layer."""


def hold(model: nn.Module, learns: Mapping[str, Tensor | None]) -> None:
    """Let these parameters learn, where their mask is True (None: all of it); all others stay as they are.

    What a mask leaves out moves with weight decay: train without.
    """
    for name, parameter in model.named_parameters():
        mask = learns.get(name, torch.zeros((), dtype=torch.bool))
        if mask is not None and not mask.any():
            parameter.requires_grad_(False)
        elif mask is not None and not mask.all():
            learn_only(parameter, mask)


def learning(model: MDETR, plan: Plan, train: Train) -> dict[str, Tensor | None]:
    """The parameters that learn, with masks of those that do in part.

    Args:
        plan: how the model was compressed, or the ticket of a model that was not.

    Raises:
        InputError: it has no such weights.
    """
    names = [name for name, _ in model.named_parameters()]
    if train in ("all", "near"):
        return dict.fromkeys(names)
    if train == "bias":
        return dict.fromkeys(name for name in names if name.endswith("bias"))
    if train == "last":
        last = f"decoder.{len(model.decoder) - 1}"
        parts = (last, *LAST[1:])
        return dict.fromkeys(name for name in names if name.startswith(tuple(f"{part}." for part in parts)))
    if train == "ticket":
        if not plan.masks:
            raise InputError("train=ticket", "the model has none: its method masks no weights", "name another row")
        return dict(plan.masks)
    shared = shared_units(model)
    if not shared:
        raise InputError(f"train={train}", "no layer of the model has units of another", "name a row that shares")
    if train == "shared":
        return dict(shared)
    return {name: None if (mask := shared.get(name)) is None else ~mask for name in tower_maps(model)}


def tower_maps(model: MDETR) -> Iterator[str]:
    """The parameters of the linear maps in the layers of both towers."""
    for name, module in model.named_modules():
        if name.split(".")[0] in TOWERS.values() and isinstance(module, nn.Linear | TiedLinear) and "." in name:
            yield from (f"{name}.{kind}" for kind, _ in module.named_parameters(recurse=False))


def shared_units(model: nn.Module) -> dict[str, Tensor]:
    """Where the parameters of maps are that another map reads units of: name -> mask, True for units that it reads."""
    names = {id(module): name for name, module in model.named_modules()}
    found: dict[str, Tensor] = {}
    for module in model.modules():
        if not isinstance(module, TiedLinear):
            continue
        start = module.weight.shape[module.dim]
        for donor in module.donors:
            size = donor.get_parameter("weight").shape[module.dim]
            read = torch.zeros(size, dtype=torch.bool)
            read[module.index[(module.index >= start) & (module.index < start + size)] - start] = True
            for kind in ("weight", "bias")[: 2 - module.dim]:
                parameter = donor.get_parameter(kind)
                shape = [-1 if d == module.dim else 1 for d in range(parameter.dim())]
                name = f"{names[id(donor)]}.{kind}"
                found[name] = found.get(name, False) | read.view(shape).expand_as(parameter)
            start += size
    return found


def share(model: nn.Module, learns: Mapping[str, Tensor | None]) -> float:
    """Which share of the parameters that are not masked away learns."""
    parameters = dict(model.named_parameters())
    there = sum(
        int(mask.sum()) if (mask := getattr(p, "mask", None)) is not None else p.numel() for p in parameters.values()
    )
    masks = {name: getattr(parameters[name], "mask", None) if mask is None else mask for name, mask in learns.items()}
    return sum(parameters[name].numel() if mask is None else int(mask.sum()) for name, mask in masks.items()) / there
