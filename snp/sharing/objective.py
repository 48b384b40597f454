"""The objectives: effective weights for the hypernetwork's loss, the budget regulariser, the alignment regulariser."""

from functools import partial

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from snp.compression.block import Block
from snp.compression.problem import Problem
from snp.compression.statistics import evaluating
from snp.compression.tower import Patch, Tower
from snp.errors import InputError
from snp.sharing.geometry import KINDS, Geometry
from snp.sharing.structure import Structure, Vectors


def effective_parameters(structure: Structure) -> dict[str, Tensor]:
    """Full parameter name -> effective tensor of all towers, for functional_call.

    Differentiable in the structure vectors; the model's weights are detached (frozen in a hypernetwork step). What a
    block of layers is made of is computed again in the backward pass: of a large model it would be most of the memory.
    """
    g = structure.geometry
    patch = Patch()
    parts: dict[tuple[str, int, str], dict[int, Tensor]] = {}  # of several stacks: site -> first unit -> units
    for name, stack in g.stacks.items():
        for taker, rows, layers in stack.groups():
            made = checkpoint(
                _effective, structure, name, taker, rows, layers, use_reentrant=False, preserve_rng_state=False
            )
            for tower, units_LNF in zip((stack.donor, taker), made, strict=True):
                if tower is not None and units_LNF is not None:
                    for layer, units_NF in enumerate(units_LNF, layers.start):
                        block, c = tower.blocks[layer], stack.component
                        if len(units_NF) == block.components[c].units:
                            # at once, so that the backward pass is through with a block before it begins another
                            _add(patch, block, c, units_NF)
                        else:
                            parts.setdefault((tower.name, layer, c), {})[stack.units.start] = units_NF
    towers = {tower.name: tower for tower in g.towers}
    for (tower_name, layer, c), found in parts.items():
        _add(patch, towers[tower_name].blocks[layer], c, torch.cat([found[first] for first in sorted(found)]))
    return patch.parameters()


def _add(patch: Patch, block: Block, component: str, units_NF: Tensor) -> None:
    for name, start, tensor in block.split(component, units_NF):
        patch.add(name, start, tensor)


def _effective(
    structure: Structure, name: str, taker: Tower, rows: slice, layers: slice
) -> tuple[Tensor | None, Tensor]:
    stack = structure.geometry.stacks[name]
    donor_LNF = None if stack.donor is None else stack.matrix(stack.donor, layers).detach()
    return structure.effective(name, rows, stack.matrix(taker, layers).detach(), donor_LNF)


def task_gradients(problem: Problem, structure: Structure) -> tuple[Tensor, list[Tensor]]:
    """The next held-out batch's loss of the model that the structure makes, in eval mode, and its gradients.

    The gradients are those of `structure.vectors`: what has made these is passed once, after all parts of the batch.
    """
    cut = structure.cut()
    with evaluating(problem.model):
        loss, found = problem.gradients(problem.heldout(), partial(effective_parameters, cut), cut.vectors)
    return loss, [torch.zeros_like(v) if g is None else g for v, g in zip(cut.vectors, found, strict=True)]


def budget_regularizer(stored: Tensor, target: float) -> Tensor:
    """R(P, T) = log(max(P, T) / T): zero when the budget is met, else it falls as fast everywhere [author]."""
    return torch.log(stored.clamp(min=target) / target)


@torch.no_grad()
def change(geometry: Geometry) -> Vectors:
    """The squared weight change per saved parameter that each operation means [ours].

    Pruning changes a unit of all towers by its whole norm, sharing changes one by its distance to the donor. So
    the first order of all operations is that of magnitude pruning, and near twins are shared first.
    """
    made: Vectors = {}
    for name, stack in geometry.stacks.items():
        units = [stack.measured(tower) for tower in stack.towers]
        takers = torch.cat(units[-len(stack.takers) :])
        norms_LN = torch.stack([own.square() for own in units]).sum(0).mean(-1) / len(units)
        scores = {
            "prune": norms_LN.unflatten(1, (-1, stack.prune_units)).mean(1),
            "cross": (takers - units[0].repeat(len(stack.takers), 1, 1)).square().mean(-1),
            "blockwise": (takers - takers[stack.base]).square().mean(-1),
        }
        made[name] = {kind: scores[kind] for kind in stack.kinds}
    return made


def fisher(problem: Problem, geometry: Geometry, batches: int) -> Vectors:
    """The loss per saved parameter that each operation costs, to second order, by the empirical Fisher information.

    E over batches of <g, dw>^2, where dw is what the operation does to weights: -w of all towers, donor - own, base -
    own [ours; of pruning alone it is the Taylor score of Molchanov et al., CVPR 2019]. <g, dw> is the gradient of the
    loss in the operation's own vector at the dense model, so it costs a hypernetwork step without the hypernetwork.

    Args:
        batches: held-out ones.
    """
    dense = Structure.dense(geometry)
    sums: list[Tensor | float] = [0.0] * len(dense.operations)
    for _ in range(batches):
        _, slopes = task_gradients(problem, dense)
        for i, ((kind, name), slope_LN) in enumerate(zip(dense.operations, slopes, strict=True)):
            if not slope_LN.isfinite().all():
                wrong = "the gradient of a held-out batch is not finite on the dense model"
                raise InputError("snp", wrong, "check the batches and the loss")
            rows, units = geometry.stacks[name].shape(kind)
            slope_TLHN = slope_LN.double().cpu().unflatten(1, (-1, units)).unflatten(0, (-1, rows))
            sums[i] = sums[i] + slope_TLHN.sum((0, 2)).square()
    made: Vectors = {name: {} for name in geometry.stacks}
    for (kind, name), total in zip(dense.operations, sums, strict=True):
        stack = geometry.stacks[name]
        saved = stack.cost * (len(stack.towers) * stack.heads if kind == "prune" else 1)
        able = stack.takes[:, None] if kind == "blockwise" else torch.ones(())
        made[name][kind] = able * total / (batches * saved)
    return made


def prior(geometry: Geometry, scores: Vectors, scope: str) -> Vectors:
    """Where the logits start: the log of what operations cost, less its mean; zero where base layers could take.

    Args:
        scope: uniform: the mean of a kind in every layer and component, so that all lose the same at first; global: the
            mean of a kind over all of them.
    """
    logs = {c: {k: v.clamp(min=1e-30).log().float().cpu() for k, v in kinds.items()} for c, kinds in scores.items()}
    able = {
        (c, k): geometry.stacks[c].takes > 0 if k == "blockwise" else torch.ones(len(v), dtype=torch.bool)
        for c, kinds in logs.items()
        for k, v in kinds.items()
    }
    those = {k: [logs[c][k][rows].flatten() for (c, kind), rows in able.items() if kind == k] for k in KINDS}
    means = {k: torch.cat(values).mean() for k, values in those.items() if values}
    return {
        c: {
            k: (v - (v.mean(1, keepdim=True) if scope == "uniform" else means[k])).where(able[c, k][:, None], 0.0)
            for k, v in kinds.items()
        }
        for c, kinds in logs.items()
    }


class Alignment:
    """A(W; m, s, b) of one binary structure: pulls weights towards what the structure will make of them.

    A = sum over pruned units of all towers of ||unit||
      + sum over shared units of takers of ||unit - donor|| / ||donor||     [paper: idea; ours: this form]

    The donor of a block-wise unit is the base layer's EFFECTIVE unit. Pruned units of attention are the same
    dimension of all heads together. Indices are found once per structure, so a call costs a few large operations.
    """

    def __init__(self, structure: Structure) -> None:
        self.geometry = structure.geometry
        self.pruned: dict[str, Tensor] = {}
        self.shared: dict[str, Tensor] = {}
        self.lender: dict[str, Tensor] = {}
        for name, stack in self.geometry.stacks.items():
            keep, cross, blockwise = (v[name] > 0.5 for v in (structure.keep, structure.cross, structure.blockwise))
            layers, units = stack.shape("prune")
            # the units of all towers one after the other: the donor's, if there is one, come first
            donor = torch.arange(layers * len(stack.units)).view(layers, -1)
            own = torch.arange(len(stack.towers) * donor.numel()).view(-1, len(stack.units))[-len(keep) :]
            donor = donor.repeat(len(stack.takers), 1)
            lent = torch.where(cross, donor, own)
            lender = torch.where(cross, donor, lent[stack.base])
            shared = cross | blockwise
            self.pruned[name] = (~keep[:layers, :units]).nonzero()
            self.shared[name], self.lender[name] = own[shared], lender[shared]

    @property
    def empty(self) -> bool:
        return not any(len(rows) for rows in (*self.pruned.values(), *self.shared.values()))

    def __call__(self) -> Tensor:
        """The regulariser on the live weights (0-d, differentiable in them)."""
        block = self.geometry.towers[0].blocks[0]
        total = torch.zeros((), device=block.weight(next(iter(block.refs))).device)
        for name, stack in self.geometry.stacks.items():
            pruned, shared = self.pruned[name], self.shared[name]
            if not len(pruned) and not len(shared):
                continue
            towers = [stack.measured(tower) for tower in stack.towers]
            if len(pruned):
                for units in towers:
                    square_LHP = units.square().sum(-1).unflatten(1, (-1, stack.prune_units))
                    square = square_LHP.sum(1)[pruned[:, 0], pruned[:, 1]]
                    total = total + (square + 1e-12).sqrt().sum()
            if len(shared):
                rows = torch.cat(towers).flatten(0, 1)
                lender = rows[self.lender[name]]
                distance = ((rows[shared] - lender).square().sum(-1) + 1e-12).sqrt()
                total = total + (distance / lender.detach().norm(dim=-1).clamp(min=1e-6)).sum()
        return total
