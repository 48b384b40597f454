"""The objectives: effective weights for the hypernetwork's loss, the budget regulariser, the alignment regulariser."""

from functools import partial

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from snp.compression.problem import Problem
from snp.compression.statistics import evaluating
from snp.compression.tower import Patch, Tower
from snp.errors import InputError
from snp.sharing.structure import KINDS, Geometry, Structure, Vectors


def stacked(tower: Tower, component: str, layers: slice = slice(None)) -> Tensor:
    """Live unit matrices of layers, by default all (L, N, F): row (l, i) holds all parameters of unit i of layer l."""
    return torch.stack([block.units(component) for block in tower.blocks[layers]])


def measured(tower: Tower, component: str) -> Tensor:
    """The same in float32 at least: squares of half-precision weights are too small for their own type."""
    units_LNF = stacked(tower, component)
    return units_LNF.to(torch.promote_types(units_LNF.dtype, torch.float32))


def effective_parameters(structure: Structure) -> dict[str, Tensor]:
    """Full parameter name -> effective tensor of both towers, for functional_call.

    Differentiable in the structure vectors; the model's weights are detached (frozen in a hypernetwork step). What a
    block of layers is made of is computed again in the backward pass: of a large model it would be most of the memory.
    """
    g = structure.geometry
    patch = Patch()
    for c in g.shape.components:
        for layers in g.groups:
            made = checkpoint(_effective, structure, c, layers, use_reentrant=False, preserve_rng_state=False)
            for tower, units_LNF in zip((g.donor, g.receiver), made, strict=True):
                for block, units_NF in zip(tower.blocks[layers], units_LNF, strict=True):
                    for name, start, tensor in block.split(c, units_NF):
                        patch.add(name, start, tensor)
    return patch.parameters()


def _effective(structure: Structure, component: str, layers: slice) -> tuple[Tensor, Tensor]:
    towers = (structure.geometry.donor, structure.geometry.receiver)
    donor, receiver = (stacked(tower, component, layers).detach() for tower in towers)
    return structure.effective(component, layers, donor, receiver)


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

    Pruning changes a unit of both towers by its whole norm, sharing changes one by its distance to the donor. So
    the first order of all operations is that of magnitude pruning, and near twins are shared first.
    """
    made: Vectors = {}
    for c in geometry.shape.components:
        donor, receiver = measured(geometry.donor, c), measured(geometry.receiver, c)
        both = (donor.square() + receiver.square()).mean(-1) / 2
        made[c] = {
            "prune": both.unflatten(1, (-1, geometry.shape.units(c))).mean(1),
            "cross": (receiver - donor).square().mean(-1),
            "blockwise": (receiver - receiver[geometry.base]).square().mean(-1),
        }
    return made


def fisher(problem: Problem, geometry: Geometry, batches: int) -> Vectors:
    """The loss per saved parameter that each operation costs, to second order, by the empirical Fisher information.

    E over batches of <g, dw>^2, where dw is what the operation does to weights: -w of both towers, donor - own, base -
    own [ours; of pruning alone it is the Taylor score of Molchanov et al., CVPR 2019]. <g, dw> is the gradient of the
    loss in the operation's own vector at the dense model, so it costs a hypernetwork step without the hypernetwork.

    Args:
        batches: held-out ones.
    """
    shape = geometry.shape
    operations = [(kind, c) for kind in KINDS for c in shape.components]  # in the order of `Structure.vectors`
    sums: list[Tensor | float] = [0.0] * len(operations)
    dense = Structure.dense(geometry)
    for _ in range(batches):
        _, slopes = task_gradients(problem, dense)
        for i, ((kind, c), slope_LN) in enumerate(zip(operations, slopes, strict=True)):
            if not slope_LN.isfinite().all():
                wrong = "the gradient of a held-out batch is not finite on the dense model"
                raise InputError("snp", wrong, "check the batches and the loss")
            units = shape.units(c, "prune" if kind == "prune" else "share")
            sums[i] = sums[i] + slope_LN.double().cpu().unflatten(1, (-1, units)).sum(1).square()
    made: Vectors = {c: {} for c in shape.components}
    for (kind, c), total in zip(operations, sums, strict=True):
        saved = 2 * shape.unit_cost(c) if kind == "prune" else shape.unit_cost(c, "share")
        able = geometry.takes[:, None] if kind == "blockwise" else torch.ones(())
        made[c][kind] = able * total / (batches * saved)
    return made


def prior(geometry: Geometry, scores: Vectors, scope: str) -> Vectors:
    """Where the logits start: the log of what operations cost, less its mean; zero where base layers could take.

    Args:
        scope: uniform: the mean of a kind in every layer and component, so that all lose the same at first; global: the
            mean of a kind over all of them.
    """
    logs = {c: {k: v.clamp(min=1e-30).log().float().cpu() for k, v in kinds.items()} for c, kinds in scores.items()}
    takes = geometry.takes > 0
    able = {k: takes if k == "blockwise" else torch.ones_like(takes) for k in KINDS}
    means = {k: torch.cat([logs[c][k][able[k]].flatten() for c in logs]).mean() for k in KINDS}
    return {
        c: {
            k: (v - (v.mean(1, keepdim=True) if scope == "uniform" else means[k])).where(able[k][:, None], 0.0)
            for k, v in kinds.items()
        }
        for c, kinds in logs.items()
    }


class Alignment:
    """A(W; m, s, b) of one binary structure: pulls weights towards what the structure will make of them.

    A = sum over pruned units of both towers of ||unit||
      + sum over shared receiver units of ||unit - donor|| / ||donor||     [paper: idea; ours: this form]

    The donor of a block-wise unit is the base layer's EFFECTIVE unit. Pruned units of attention are the same
    dimension of all heads together. Indices are found once per structure, so a call costs a few large operations.
    """

    def __init__(self, structure: Structure) -> None:
        self.geometry = g = structure.geometry
        self.pruned: dict[str, Tensor] = {}
        self.shared: dict[str, Tensor] = {}
        self.lender: dict[str, Tensor] = {}
        for c in g.shape.components:
            keep, cross, blockwise = (v[c] > 0.5 for v in (structure.keep, structure.cross, structure.blockwise))
            n = g.shape.units(c, "share")
            rows = torch.arange(g.shape.layers * n).view(
                g.shape.layers, n
            )  # row of the donor; + L*N: row of the receiver
            lent = torch.where(cross, rows, rows + g.shape.layers * n)
            lender = torch.where(cross, rows, lent[g.base])
            shared = cross | blockwise
            self.pruned[c] = (~keep[:, : g.shape.units(c)]).nonzero()
            self.shared[c], self.lender[c] = (rows + g.shape.layers * n)[shared], lender[shared]

    @property
    def empty(self) -> bool:
        return not any(len(rows) for rows in (*self.pruned.values(), *self.shared.values()))

    def __call__(self) -> Tensor:
        """The regulariser on the live weights (0-d, differentiable in them)."""
        g = self.geometry
        total = torch.zeros((), device=g.donor.blocks[0].units(g.shape.components[0]).device)
        for c in g.shape.components:
            pruned, shared = self.pruned[c], self.shared[c]
            if not len(pruned) and not len(shared):
                continue
            donor, receiver = measured(g.donor, c), measured(g.receiver, c)
            if len(pruned):
                for units in (donor, receiver):
                    square_LHP = units.square().sum(-1).unflatten(1, (-1, g.shape.units(c)))
                    square = square_LHP.sum(1)[pruned[:, 0], pruned[:, 1]]
                    total = total + (square + 1e-12).sqrt().sum()
            if len(shared):
                rows = torch.cat([donor, receiver]).flatten(0, 1)
                lender = rows[self.lender[c]]
                distance = ((rows[shared] - lender).square().sum(-1) + 1e-12).sqrt()
                total = total + (distance / lender.detach().norm(dim=-1).clamp(min=1e-6)).sum()
        return total
