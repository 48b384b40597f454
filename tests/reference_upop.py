"""A slow and plain UPop for the two towers of the tests: masked copies of the model, and lists of entries."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

WIDTH, DEPTH, HEADS, D_HEAD, D_FFN = 32, 2, 4, 8, 128
ATTENTION_COST, FFN_COST = 3 * HEADS * (WIDTH + 1) + HEADS * WIDTH, 2 * WIDTH + 1
MAPS = {
    "vision": ("vision.blocks.{}", "attn.qkv.weight", "attn.qkv.bias", "mlp.fc1"),
    "text": ("text.transformer.resblocks.{}", "attn.in_proj_weight", "attn.in_proj_bias", "mlp.c_fc"),
}


@dataclass
class Mask:
    """One mask: its place, which rows [entries, copies] of which parameters it scales, and the gradients so far."""

    place: tuple[str, int, str]
    names: list[str]
    rows: Tensor
    cost: int
    value: Tensor
    gradient: Tensor


def masks_of() -> list[Mask]:
    """All masks, at 1: an attention entry scales the rows of q, k and v of its dimension in every head."""
    found = []
    for tower, (prefix, weight, bias, fc1) in MAPS.items():
        for layer in range(DEPTH):
            at = prefix.format(layer) + "."
            heads = [
                [role * WIDTH + head * D_HEAD + e for role in range(3) for head in range(HEADS)] for e in range(D_HEAD)
            ]
            for part, names, rows, cost in (
                ("attention", [at + weight, at + bias], heads, ATTENTION_COST),
                ("ffn", [at + fc1 + ".weight", at + fc1 + ".bias"], [[e] for e in range(D_FFN)], FFN_COST),
            ):
                one, zero = (f(len(rows), dtype=torch.float64) for f in (torch.ones, torch.zeros))
                found.append(Mask((tower, layer, part), names, torch.tensor(rows), cost, one, zero))
    return found


def upop(
    model: nn.Module,
    loss: Callable[[nn.Module, int], Tensor],
    steps: int,
    removals: int,
    lr: float,
    interval: int,
    official: bool,
) -> dict[tuple[str, int, str], list[bool]]:
    """Place -> which entries are kept, after a search of `steps` weight steps of plain gradient descent.

    A mask scales rows of weights and biases, so its gradient is the product of those rows and the gradients they get.
    """
    dense, masks = copy.deepcopy(model).double(), masks_of()
    for step in range(steps):
        masked, scale = copy.deepcopy(dense), {}
        for mask in masks:
            for name in mask.names:
                parameter = masked.get_parameter(name)
                scale.setdefault(name, torch.ones_like(parameter))[mask.rows.T] = spread(mask.value, parameter)
        with torch.no_grad():
            for name, factor in scale.items():
                masked.get_parameter(name).mul_(factor)
        loss(masked, step).backward()
        for mask in masks:
            if official:
                mask.gradient.zero_()
            for name in mask.names:
                product = masked.get_parameter(name).grad * dense.get_parameter(name).detach()
                mask.gradient += product.reshape(len(product), -1).sum(1)[mask.rows].sum(1)
        with torch.no_grad():
            for name, parameter in dense.named_parameters():
                parameter -= lr * masked.get_parameter(name).grad * scale.get(name, 1)
        if (step if official else step + 1) % interval == 0 or step + 1 == steps:
            (rank_officially if official else rank)(masks, (step + 1) / steps, removals)
    return {mask.place: (mask.value == 1).tolist() for mask in masks}


def spread(value: Tensor, parameter: Tensor) -> Tensor:
    """[entries] -> what multiplies the rows [copies, entries, ..] of a bias or a weight."""
    return value if parameter.dim() == 1 else value[:, None]


def z_scores(masks: list[Mask]) -> dict[tuple[str, int, str], np.ndarray]:
    """Place -> the z of every entry of a mask, among all of attention or all of FFN."""
    z = {}
    for part in ("attention", "ffn"):
        group = [mask for mask in masks if mask.place[2] == part]
        values = np.concatenate([mask.gradient.numpy() for mask in group])
        z |= {mask.place: (mask.gradient.numpy() - values.mean()) / values.std(ddof=1) for mask in group}
    return z


def rank(masks: list[Mask], time: float, removals: int) -> None:
    """Lower the entries of highest z until the share of this time has gone; one entry of every mask stays."""
    z = z_scores(masks)
    entries = sorted(
        (-z[mask.place][e], i, e)
        for i, mask in enumerate(masks)
        for e in range(len(mask.value))
        if e != np.argmin(z[mask.place])
    )
    sizes = [masks[i].cost for _, i, _ in entries]
    whole = sum(mask.cost * len(mask.value) for mask in masks)
    if time == 1:  # the least prunable are kept, as long as they fit
        gone, left = [], whole - removals - sum(mask.cost for mask in masks)
        for entry, size in reversed(list(zip(entries, sizes, strict=True))):
            if size <= left:
                left -= size
            else:
                gone.append(entry)
    else:
        reached = np.cumsum([0, *sizes])
        gone = entries[: int(np.argmin(abs(reached - math.sin(math.pi / 2 * time) * removals)))]
    for mask in masks:
        mask.value.fill_(1.0)
    for _, i, e in gone:
        masks[i].value[e] = 0.0 if time == 1 else 1 - math.sin(math.pi / 2 * time)


def rank_officially(masks: list[Mask], time: float, removals: int) -> None:
    """Lower what lies above the entry at which the summed price is nearest to the share of this time; 36 or 1 each."""
    z, price = z_scores(masks), {ATTENTION_COST: 36, FFN_COST: 1}
    entries = sorted(((value, price[mask.cost]) for mask in masks for value in z[mask.place]), reverse=True)
    whole = sum(mask.cost * len(mask.value) for mask in masks)
    aim = math.sin(math.pi / 2 * time) * removals / whole * sum(cost for _, cost in entries)
    threshold = entries[int(np.argmin(abs(np.cumsum([cost for _, cost in entries]) - aim)))][0]
    for mask in masks:
        lowest = min(z[mask.place])
        for e, value in enumerate(z[mask.place]):
            lowered = value > threshold and value > lowest
            mask.value[e] = 1 - math.sin(math.pi / 2 * time) if lowered else 1.0
