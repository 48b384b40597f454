"""From logits to sizes: the structure without noise, the expected size, and the projection to the exact budget."""

import torch
from torch import Tensor

from snp.compression.rounding import blocks, step_of
from snp.errors import InputError
from snp.sharing.geometry import Geometry
from snp.sharing.structure import Structure, Vectors

GRID = 9  # shifts that are tried at once


def shifted(logits: Vectors, shift: float | Tensor) -> Vectors:
    """Logits + shift; a vector of K shifts makes tensors (K, L, units). Switched-off vectors stay +inf."""
    step = shift if isinstance(shift, float) else shift[:, None, None]
    return {c: {kind: values + step for kind, values in logits[c].items()} for c in logits}


def harden(geometry: Geometry, logits: Vectors) -> Structure:
    """The structure without noise: a unit is kept (own) where its logit > 0; one unit of each stack's layer stays."""
    own: Vectors = {c: {kind: (v > 0).float() for kind, v in logits[c].items()} for c in logits}
    for c in logits:
        own[c]["prune"].scatter_(-1, logits[c]["prune"].argmax(-1, keepdim=True), 1.0)
    return Structure.compose(geometry, own)


def expected(geometry: Geometry, logits: Vectors, noise: float = 1.0) -> Structure:
    """The mean of the sampled structures: P(1) = 1 - exp(-exp(logit / noise)) in every vector."""
    return Structure.compose(
        geometry, {c: {k: -torch.expm1(-(v / noise).exp()) for k, v in logits[c].items()} for c in logits}
    )


@torch.no_grad()
def offset(geometry: Geometry, logits: Vectors, target: float, most: float, noise: float = 1.0) -> float:
    """The shift at which the expected size is `target`, to 0.02 of a logit [ours].

    It never lifts more than is needed for all logits to be above `most`.
    """
    finite = _finite(logits)
    low, high = -float(finite.max()) - 4 * noise, most - float(finite.min())
    while high - low > 2e-2:
        shifts = torch.linspace(low, high, GRID)
        fits = expected(geometry, shifted(logits, shifts), noise).stored() <= target
        last = int(fits.nonzero().max()) if fits.any() else 0
        low, high = float(shifts[last]), float(shifts[min(last + 1, GRID - 1)])
    return low


@torch.no_grad()
def project(
    geometry: Geometry, logits: Vectors, target: float, exact: bool = True, round_to: int = 1
) -> tuple[Structure, bool]:
    """The structure nearest to `logits` that stores at most `target` parameters, and whether the target is reached.

    One scalar shift of all logits by bisection, then unit by unit from the least negative logit on, as long as
    the unit still fits [ours]. Switched-off vectors hold +inf. If even full sharing and pruning stores too much,
    that ceiling is returned with False. Not `exact`: the shift to 1% of a logit, and no single units. `round_to`: units
    are pruned in blocks, as `rounding` has them, and shared one by one.
    """
    logits = {c: {kind: v.double() for kind, v in logits[c].items()} for c in logits}
    together = _tie(geometry, logits, round_to) if round_to > 1 else {}
    finite = _finite(logits)
    low, high = -float(finite.max()) - 1, -float(finite.min()) + 1
    for end, reached in ((low, False), (high, True)):
        structure = harden(geometry, shifted(logits, end))
        if (float(structure.stored()) <= target) is reached:
            return structure, reached
    while high - low > (1e-9 if exact else 1e-2):
        shifts = torch.linspace(low, high, GRID, dtype=torch.float64)
        fits = harden(geometry, shifted(logits, shifts)).stored() <= target
        last = int((~fits).nonzero().min()) - 1  # sharing makes the size not quite monotone: take the first crossing
        low, high = float(shifts[last]), float(shifts[last + 1])
    logits = shifted(logits, low)
    return (_fill(geometry, logits, target, together) if exact else harden(geometry, logits)), True


def _tie(geometry: Geometry, logits: Vectors, round_to: int) -> dict[str, list[list[int]]]:
    """Component -> blocks of units, by their places in (L, P); in `logits` those of a block have their mean.

    The best block of a layer is infinite: it stays.
    """
    found: dict[str, list[list[int]]] = {}
    for c, vectors in logits.items():
        stack, width = geometry.stacks[c], vectors["prune"].shape[1]
        step = step_of(stack.towers[0].blocks[0].components[stack.component], round_to)
        rows = [blocks(row, step) for row in vectors["prune"]]
        for layer, (best, *others) in enumerate(rows):
            row = vectors["prune"][layer]
            row[best] = torch.inf
            for units in others:
                row[units] = row[units].mean()
        found[c] = [[layer * width + i for i in units] for layer, row in enumerate(rows) for units in row]
    return found


def _finite(logits: Vectors) -> Tensor:
    """All logits of the operations that are switched on."""
    finite = torch.cat([v[v.isfinite()] for c in logits for v in logits[c].values()])
    if not len(finite):
        raise InputError("snp", "prune, cross and blockwise are all switched off", "leave at least one on")
    return finite


def _fill(
    geometry: Geometry, logits: Vectors, target: float, together: dict[str, list[list[int]]], tries: int = 256
) -> Structure:
    """Give back single units, the most wanted first, while they fit; pruned ones by the blocks in which they are."""
    now = harden(geometry, logits)
    smallest = min(stack.cost for stack in geometry.stacks.values())
    found: list[tuple[float, str, str, int | list[int]]] = []
    for c, stack in geometry.stacks.items():
        rows, columns = stack.shape("prune")
        away = {
            "prune": now.keep[c][:rows, :columns] < 0.5,
            "cross": now.cross[c] > 0.5,
            "blockwise": now.blockwise[c] > 0.5,
        }
        for kind in stack.kinds:
            values = logits[c][kind].flatten()
            if kind == "prune" and together:
                gone = away[kind].flatten().tolist()
                found += [(float(values[one[0]]), c, kind, one) for one in together[c] if gone[one[0]]]
                continue
            units = away[kind].flatten().nonzero().flatten()
            best = units[values[units].argsort(descending=True, stable=True)[:tries]]
            found += [(float(values[i]), c, kind, int(i)) for i in best]
    for value, c, kind, i in sorted(found, key=lambda f: -f[0])[:tries]:
        if target - float(now.stored()) < smallest:
            break
        flat = logits[c][kind].view(-1)
        flat[i] = float("inf")
        more = harden(geometry, logits)
        if float(more.stored()) <= target:
            now = more
        else:
            flat[i] = value
    return now
