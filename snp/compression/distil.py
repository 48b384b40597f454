"""What a compressed model learns of the dense one: tensors of what both give, and how far apart they are."""

from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any

import torch
from torch import Tensor

from snp.errors import InputError

STATES = ("last_hidden_state", "pooler_output", "_embeds", "_features")
"""How the names of final states end, in transformers and open_clip."""
HINT = "give Recover(outputs=lambda model, batch: ...)"


def tensors(given: Any, every: bool = False) -> dict[str, Tensor]:
    """The floating tensors, scalars left out, of what a model gives, by name; those of a tuple by their place.

    Args:
        given: a tensor, a tuple, a mapping, a dataclass, or a named tuple.
        every: all that are named; else, where some are logits or final states, these alone.

    Raises:
        InputError: it holds none.
    """
    if isinstance(given, Tensor):
        named: dict[str, Any] = {"output": given}
    elif isinstance(given, Mapping):
        named = {str(name): value for name, value in given.items()}
    elif hasattr(given, "_asdict"):
        named = given._asdict()
    elif isinstance(given, list | tuple):
        named = {str(place): value for place, value in enumerate(given)}
    else:
        named = dict(vars(given)) if is_dataclass(given) else {}
    found = {n: v for n, v in named.items() if isinstance(v, Tensor) and v.is_floating_point() and v.dim()}
    known = {n: v for n, v in found.items() if "logits" in n or n.endswith(STATES)}
    found = known if known and not every else found
    if not found:
        raise InputError("outputs", f"there is no tensor to distil in a {type(given).__name__}", HINT)
    return found


def distance(small: Mapping[str, Tensor], dense: Mapping[str, Tensor], temperature: float) -> Tensor:
    """Mean over outputs: of logits [..., K] T^2 KL(dense / T || small / T), mean over rows (Hinton et al., 2015).

    Of others the squared error, as a share of the mean square of the dense model's: no unit of theirs counts. [ours]
    In float32 whatever the passes were in.

    Raises:
        InputError: names an output that only one of them has, that differs in shape, or that is not finite in the dense
            model.
    """
    if odd := sorted(small.keys() ^ dense.keys()):
        which = "small" if odd[0] in small else "dense"
        raise InputError(f"outputs.{odd[0]}", f"only the {which} model gives it", HINT)
    parts = []
    for name, theirs in dense.items():
        own = small[name]
        if own.shape != theirs.shape:
            problem = f"has shape {list(own.shape)} in the small model and {list(theirs.shape)} in the dense one"
            raise InputError(f"outputs.{name}", problem, HINT)
        if not theirs.isfinite().all():
            raise InputError(f"outputs.{name}", "is not finite in the dense model", "check its batch, or leave it out")
        with torch.autocast(own.device.type, enabled=False):
            logits = "logits" in name and own.shape[-1] > 1
            own, theirs = own.float(), theirs.float()
            parts.append(divergence(own, theirs, temperature) if logits else error(own, theirs))
    return torch.stack([part.to(parts[0].device) for part in parts]).mean()


def divergence(small: Tensor, dense: Tensor, temperature: float) -> Tensor:
    """T^2 KL(softmax(dense / T) || softmax(small / T)) of logits [..., K], mean over rows."""
    log_small, log_dense = ((logits / temperature).log_softmax(-1) for logits in (small, dense))
    return temperature**2 * (log_dense.exp() * (log_dense - log_small)).sum(-1).mean()


def error(small: Tensor, dense: Tensor) -> Tensor:
    """Squared error over the mean square of `dense`."""
    return (small - dense).square().mean() / dense.square().mean().clamp(min=torch.finfo(dense.dtype).tiny)
