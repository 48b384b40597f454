"""What `snp.compress` was given, checked before any work: every fault is one line that names the argument."""

import math
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from snp.compression.block import FLOATS
from snp.compression.problem import prunable
from snp.errors import InputError


def sound(model: Any) -> nn.Module:
    """A module whose parameters all hold numbers; InputError names one that does not."""
    if not isinstance(model, nn.Module):
        raise InputError("model", f"{type(model).__name__} is no torch.nn.Module", "give the module itself")
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise InputError(name or "model", "is TorchScript, which cannot be changed", "build it as a plain module")
    for name, parameter in model.named_parameters():
        if is_lazy(parameter):
            raise InputError(name, "has no shape yet: its module is lazy", "pass a batch through the model first")
        if parameter.is_meta:
            raise InputError(name, "has no values: it is on the meta device", "load the weights first")
    finite(model, "check the checkpoint")
    return model


def finite(model: nn.Module, hint: str) -> None:
    """InputError names a parameter that holds a value which is not finite."""
    for name, parameter in model.named_parameters():
        if parameter.dtype in FLOATS and parameter.layout == torch.strided and not parameter.isfinite().all():
            raise InputError(name, "holds values that are not finite", hint)


def share(name: str, value: Any) -> float | None:
    """A number, or None."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, Real) or math.isnan(value):
        raise InputError(name, f"{value!r} is not a number", "give a share, for example 0.6")
    return float(value)


def whole(name: str, value: Any, least: int = 0) -> int:
    """A whole number of at least so much."""
    try:
        number = -1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = -1
    if number < least:
        raise InputError(name, f"{value!r} is not a whole number of at least {least}", f"for example {least}")
    return number


def seed(value: Any) -> int:
    """What generators of random numbers begin with."""
    if (number := whole("seed", value)) >= 2**32:
        raise InputError("seed", f"{number} is too large", f"at most {2**32 - 1}")
    return number


def optimizer(made: Any) -> torch.optim.Optimizer:
    """What takes a weight step after each pass."""
    if not isinstance(made, torch.optim.Optimizer) or isinstance(made, torch.optim.LBFGS):
        problem = f"made a {type(made).__name__}, not what steps after one pass"
        raise InputError("optimizer", problem, "for example torch.optim.AdamW")
    return made


def function(name: str, value: Any) -> None:
    """InputError unless it can be called."""
    if not callable(value):
        raise InputError(name, f"{value!r} cannot be called", "give a function")


def scalar(value: Any) -> Tensor:
    """What a loss gave, [] and floating, and differentiable where gradients are wanted."""
    if not isinstance(value, Tensor) or value.numel() != 1 or not value.is_floating_point():
        gave = f"{value.dtype} of shape {list(value.shape)}" if isinstance(value, Tensor) else repr(value)
        raise InputError("loss", f"gave {gave}, not one number", "return a scalar tensor: a mean or a sum")
    if torch.is_grad_enabled() and not value.requires_grad:
        raise InputError("loss", "depends on no weight", "leave weights to be trained, and do not detach them")
    return value if value.dim() == 0 else value.reshape(())


def batches(value: Any, name: str = "calibration") -> Iterable[Any]:
    """What can be passed over again and again, as methods do."""
    if not isinstance(value, Iterable) or isinstance(value, str | bytes | Mapping):
        problem = f"of type {type(value).__name__} holds no batches one after the other"
        raise InputError(name, problem, "give a list of batches")
    if isinstance(value, Iterator):
        problem = f"a {type(value).__name__} gives its batches once, and they are passed over several times"
        raise InputError(name, problem, "give a list, or a DataLoader")
    return value


def paths(towers: Any) -> dict[str, str]:
    """Tower -> path of its module."""
    named = _mapping("towers", towers, "{name: path}")
    for name, path in named.items():
        if not isinstance(path, str):
            raise InputError(f"towers.{name}", f"{path!r} is no path", "give that of a module, as in named_modules()")
    return named


def patterns(value: Any) -> list[str]:
    """Patterns of paths."""
    if isinstance(value, str) or not isinstance(value, Iterable) or not all(isinstance(one, str) for one in value):
        raise InputError("exclude", f"{value!r} is no list of patterns", 'give a list, as ["*.attn"]')
    return list(value)


def groups(model: nn.Module, given: Any) -> dict[str, list[str]]:
    """Modality -> names of weights that can be masked; empty where none were given.

    Raises:
        InputError: all groups are empty; a name of no parameter, or of one that is no weight: a bias or scale, the
            rows of an embedding, numbers that are not floating.
    """
    named = _mapping("groups", given, "{modality: [name of a weight, ...]}")
    for group, names in named.items():
        if isinstance(names, str) or not isinstance(names, Sequence):
            raise InputError(f"groups.{group}", f"{names!r} is no list of names", "give a list")
    maps = {id(p) for m in model.modules() if not _embeds(m) for p in m.parameters(recurse=False)}
    found = prunable(model, named)
    for group, names in found.items():
        for name in names:
            parameter, problem = model.get_parameter(name), ""
            if parameter.dtype not in FLOATS or parameter.layout != torch.strided:
                problem = f"is of {parameter.dtype} and {parameter.layout}, and weights are dense and floating"
            elif parameter.dim() < 2:
                problem = f"is of shape {list(parameter.shape)}, and weights of a map have two dimensions or more"
            elif id(parameter) not in maps:
                problem = "holds the vectors of an embedding, and no weights of a map"
            if problem:
                raise InputError(f"groups.{group}: {name}", problem, "leave it out")
    if found and not any(found.values()):
        raise InputError("groups", "name no weight", "name some, or leave them out")
    return found


def masks(given: Any, known: Iterable[str]) -> dict[str, Callable[[Any], Any]]:
    """Modality -> function that gives the token mask of a batch."""
    named, known = _mapping("token_masks", given, "{modality: function}"), list(known)
    for group, mask in named.items():
        if group not in known:
            raise InputError(f"token_masks.{group}", "there is no such group", f"groups: {', '.join(known)}")
        function(f"token_masks.{group}", mask)
    return named


def _embeds(module: nn.Module) -> bool:
    return isinstance(module, nn.Embedding | nn.EmbeddingBag)


def _mapping(name: str, value: Any, form: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise InputError(name, f"{value!r} is not of the form {form}", "give a dict with strings as keys")
    return dict(value)
