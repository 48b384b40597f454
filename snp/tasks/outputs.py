"""What models say, tensor by tensor, whatever it is wrapped in; and whether it is finite."""

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any

from torch import Tensor

from snp.errors import InputError

DIVERGED = "its weights have diverged: see where its training went wrong"


def mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """`value` with all of its tensors changed, in dicts and dataclasses too."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return {name: mapped(item, change) for name, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: mapped(getattr(value, f.name), change) for f in fields(value)})
    return value


def check_finite(name: Callable[[int], str], *said: Tensor) -> None:
    """Whether a model's words are numbers: no score, rank or box comes of what is not, and no figure.

    Args:
        said: any number of [B, ...]. name: of the sample at a place.

    Raises:
        InputError: names the first sample of which something is not finite.
    """
    for tensor in said:
        finite_B = tensor.isfinite().flatten(1).all(1)
        if not finite_B.all():
            problem = "what the model says of it is not finite (nan or infinite)"
            raise InputError(name(int(finite_B.logical_not().nonzero()[0])), problem, DIVERGED)
