"""What flows into linear maps: statistics streamed over calibration batches, with no activation kept."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from snp.compression.modules import TorchAttention
from snp.errors import InputError


@torch.no_grad()
def input_energy(
    model: nn.Module,
    groups: Mapping[str, Sequence[str]],
    batches: Iterable[Any],
    forward: Callable[[Any], Any],
    token_masks: Mapping[str, Callable[[Any], Tensor]] | None = None,
    official: bool = False,
) -> dict[str, Tensor]:
    """The energy of every input feature of linear maps: mean over samples of its squared L2 norm over tokens.

    A_j <- A_j * N/(N+B) + ||X_j||^2/(N+B) for every batch of B samples after N [MULTIFLOW, after Wanda].

    Args:
        model: seen in eval mode; left as it was.
        groups: modality -> names of weights [out, in] of nn.Linear or of torch's self-attention.
        batches, forward: every batch is handed to `forward` once.
        token_masks: modality -> (batch -> bool [B, L]); False tokens do not count in inputs [B, L, in] of that group.
        official: a map that is called twice in a pass counts the samples twice, as in the public code; else its calls
            are parts of one sample.

    Returns:
        Name -> [in]. Tied weights go by every name that was asked for.

    Raises:
        InputError: a weight that no linear map has or that no batch reaches; inputs that are not finite; no batch.
    """
    names: dict[int, str] = {}
    group_of: dict[str, str] = {}
    for group, members in groups.items():
        for name in members:
            group_of[names.setdefault(id(model.get_parameter(name)), name)] = group
    energy: dict[str, Tensor] = {}
    seen: dict[str, int] = {}
    current: dict[str, list[tuple[int, Tensor]]] = {}
    masks: dict[str, Tensor] = {}

    def watch(module: nn.Linear, arguments: tuple[Any, ...]) -> None:
        name = names[id(module.weight)]
        x = arguments[0]
        mask = masks.get(group_of[name])
        samples = len(x)
        x_TI = x[mask] if mask is not None and mask.shape == x.shape[:-1] else x.reshape(-1, x.shape[-1])
        current.setdefault(name, []).append((samples, torch.linalg.vector_norm(x_TI.float(), dim=0) ** 2))

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
            masks = {group: mask(batch) for group, mask in (token_masks or {}).items()}
            current.clear()
            forward(batch)
            for name, calls in current.items():
                parts = calls if official else [(calls[0][0], torch.stack([s for _, s in calls]).sum(0))]
                for samples, square in parts:
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
