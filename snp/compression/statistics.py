"""What flows into linear maps: statistics streamed over calibration batches, with no activation kept."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from snp.compression.modules import TorchAttention
from snp.errors import InputError

TokenMask = Callable[[Any], Tensor | Sequence[Tensor | None] | None]
"""batch -> bool [B, L], False at padding; or one for each time that a map is called in the pass; None: no padding."""


def wide(tensor: Tensor) -> Tensor:
    """The same values in float32, or in float64 if they are: in half precision squares overflow and shares vanish."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


@torch.no_grad()
def input_energy(
    model: nn.Module,
    groups: Mapping[str, Sequence[str]],
    batches: Iterable[Any],
    forward: Callable[[Any], Any],
    token_masks: Mapping[str, TokenMask] | None = None,
    official: bool = False,
) -> dict[str, Tensor]:
    """The energy of every input feature of linear maps: mean over samples of its squared L2 norm over tokens.

    A_j <- A_j * N/(N+B) + ||X_j||^2/(N+B) for every batch of B samples after N [MULTIFLOW, after Wanda].

    Args:
        model: seen in eval mode; left as it was.
        groups: modality -> names of weights [out, in] of nn.Linear or of torch's self-attention.
        batches: what is passed over.
        forward: is handed every batch once.
        token_masks: modality, name of a weight, or pattern of names (fnmatch) -> which of the tokens that these maps
            see count, in inputs [B, L, in]. A name goes before patterns, the longest of them first, and these before
            the modality: a map of the text's group that sees the image has another mask, or none. [ours: the public
            code takes the mask of the text wherever its length fits, be they words or places of the image]
        official: a map that is called several times in a pass has the norm of all its inputs together, and counts the
            samples of each, as in the public code (which also keeps the inputs of a pass); else its calls are parts of
            the same samples.

    Returns:
        Name -> [in], in float32 or wider. Tied weights go by every name that was asked for.

    Raises:
        InputError: a weight that no linear map has or that no batch reaches; inputs that are not finite; no batch; a
            mask that does not fit its map's input, or that is meant for nothing.
    """
    names: dict[int, str] = {}
    group_of: dict[str, str] = {}
    for group, members in groups.items():
        for name in members:
            group_of[names.setdefault(id(model.get_parameter(name)), name)] = group
    token_masks = token_masks or {}
    key_of = _keys(model, group_of, token_masks)
    swapped = _sequence_first(model)
    energy: dict[str, Tensor] = {}
    seen: dict[str, int] = {}
    current: dict[str, list[tuple[int, Tensor]]] = {}
    masks: dict[str, Any] = {}

    def watch(module: nn.Linear, arguments: tuple[Any, ...]) -> None:
        name = names[id(module.weight)]
        x = arguments[0].transpose(0, 1) if id(module) in swapped and arguments[0].dim() == 3 else arguments[0]
        calls = current.setdefault(name, [])
        mask = _mask(name, masks.get(key_of.get(name, "")), len(calls), x)
        x_TI = x.reshape(-1, x.shape[-1]) if mask is None else x[mask]
        calls.append((len(x), x_TI.float() if official else torch.linalg.vector_norm(wide(x_TI), dim=0) ** 2))

    with ExitStack() as stack:
        stack.enter_context(evaluating(model))
        stack.enter_context(open_attention(model, names))
        hooked = set()
        for module in model.modules():
            if isinstance(module, nn.Linear) and id(module.weight) in names:
                stack.callback(module.register_forward_pre_hook(watch).remove)
                hooked.add(names[id(module.weight)])
        for name in group_of:
            if name not in hooked:
                raise InputError(name, "is not the weight of a linear map", "leave it out of the groups")
        for batch in batches:
            masks = {key: mask(batch) for key, mask in token_masks.items()}
            current.clear()
            forward(batch)
            for name, calls in current.items():
                if official:
                    samples = sum(count for count, _ in calls)
                    square = torch.linalg.vector_norm(torch.cat([x_TI for _, x_TI in calls]), dim=0) ** 2
                else:
                    samples, square = calls[0][0], torch.stack([s for _, s in calls]).sum(0)
                before = seen.get(name, 0)
                total = before + samples
                energy[name] = energy.get(name, torch.zeros_like(square)) * (before / total) + square / total
                seen[name] = total
    for name in group_of:
        if name not in energy:
            raise InputError(name, "no calibration batch reaches this weight", "leave it out of the groups")
        if not energy[name].isfinite().all():
            raise InputError(name, "calibration gives inputs that are not finite", "check the batches and the weights")
    return {name: energy[names[id(model.get_parameter(name))]] for members in groups.values() for name in members}


def _keys(model: nn.Module, group_of: Mapping[str, str], masks: Mapping[str, TokenMask]) -> dict[str, str]:
    """Weight -> the key of its token mask; weights without one are missing."""
    known = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    for key in masks:
        if key not in group_of.values() and not any(fnmatchcase(name, key) for name in known):
            raise InputError(f"token_masks: {key}", "is neither a group nor the name or pattern of a weight")
    found = {}
    for name, group in group_of.items():
        fitting = [key for key in masks if fnmatchcase(name, key)]
        key = name if name in fitting else max(fitting, key=len, default=group)
        if key in masks:
            found[name] = key
    return found


def _mask(name: str, given: Any, call: int, x: Tensor) -> Tensor | None:
    """Which tokens of an input [B, L, in] count, bool [B, L], in this call of a map; None: all."""
    if isinstance(given, list | tuple):
        if call >= len(given):
            raise InputError(name, f"is called more than {len(given)} times in a pass", "give each call a token mask")
        given = given[call]
    if given is None:
        return None
    if given.shape != x.shape[:-1]:
        raise InputError(
            name,
            f"has a token mask of {list(given.shape)} but sees tokens {list(x.shape[:-1])}",
            "give token_masks one for this weight: of the tokens that it sees, or None",
        )
    return given.to(x.device, torch.bool)


def _sequence_first(model: nn.Module) -> set[int]:
    """Ids of the linear maps that see [L, B, in]: those beside torch's attention in layers that are not batch-first."""
    stacks = [module for module in model.modules() if isinstance(module, nn.ModuleList | nn.Sequential)]
    found: set[int] = set()
    for layer in {layer for stack in stacks for layer in stack}:
        attention = [part for part in layer.children() if isinstance(part, nn.MultiheadAttention | TorchAttention)]
        if any(not part.batch_first for part in attention):
            inside = {id(module) for part in attention for module in part.modules()}  # made batch-first there
            found |= {id(module) for module in layer.modules()} - inside
    return found


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in eval mode, with every submodule's own mode restored afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def open_attention(model: nn.Module, wanted: Mapping[int, str]) -> Iterator[None]:
    """torch's MultiheadAttention hides its linear maps from hooks: a module of the same function shows them instead."""
    swapped: list[tuple[nn.Module, str, nn.Module]] = []
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # it would pass the hooks of whole encoder layers by
    try:
        for parent in list(model.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, nn.MultiheadAttention) and {id(p) for p in child.parameters()} & wanted.keys():
                    swapped.append((parent, name, child))
                    setattr(parent, name, _opened(child))
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for parent, name, child in swapped:
            setattr(parent, name, child)


def _opened(attention: nn.MultiheadAttention) -> TorchAttention:
    d, h = attention.embed_dim, attention.num_heads
    qkv = nn.Linear(d, 3 * d, device="meta")
    qkv.weight, qkv.bias = attention.in_proj_weight, attention.in_proj_bias
    opened = TorchAttention(
        qkv, attention.out_proj, h, d // h, d // h, d, d, (d // h) ** -0.5, attention.dropout,
        batch_first=attention.batch_first,
    )  # fmt: skip
    return opened.train(attention.training)
