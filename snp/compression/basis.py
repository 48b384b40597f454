"""Bases of units: changes of a model's weights that keep its function, made before a method decides.

What a unit of attention or of an FFN is depends on the basis that training happened to end in. Methods that cut or
share units see the model in one where much lies in few units, and where unit i of a layer is the i-th in every tower.
"""

from typing import Literal

import torch
from torch import Tensor

from snp.compression.block import Block, Part
from snp.compression.tower import Tower, iterate

Basis = Literal["none", "sorted", "spectral"]
"""none: as trained. sorted: units by their norm, the largest first; in attention inside each head. spectral: the same
in the FFN; in attention, dimension i of a head is the i-th strongest direction of what its pair of maps makes."""


@torch.no_grad()
def turn(towers: dict[str, Tower], basis: Basis) -> None:
    """Bring the weights of towers into a basis, in place; their function stays, to rounding.

    Spectral [ours; after MoDeGPT, ICLR 2025]: logits are x~ M y~ with M = [W_q b_q]^T [W_k b_k], and what a head writes
    is N x~ with N = W_o [W_v b_v]; x~ is x with a one. Of M = U S V^T, queries become S^1/2 U^T and keys S^1/2 V^T, and
    those of N alike. So to cut a head's last dimensions is its best approximation of that rank, in the Frobenius norm.

    Nothing may stand between the two maps of a pair (rotary positions, norms of queries or keys): such heads are cut
    whole, and stay as they are.
    """
    if basis == "none":
        return
    for _, _, block in iterate(towers):
        for name, component in block.components.items():
            parts = component.parts
            if component.form == "hidden":
                _arrange(block, parts, _by_norm(block.units(name), 1))
            elif component.form in ("apart", "dims"):
                for pair in (parts[:2], parts[2:]) if component.form == "dims" else (parts,):
                    if basis == "sorted":
                        _arrange(block, pair, _by_norm(_units(block, pair), component.heads))
                    else:
                        _turn_heads(block, pair, component.heads)


def _units(block: Block, pair: tuple[Part, ...]) -> Tensor:
    """[n_share, parameters] of a pair of maps: rows or columns, and biases of rows."""
    weights = [block.weight(part.role) if part.dim == 0 else block.weight(part.role).T for part in pair]
    return torch.cat(weights + [block.bias(part.role)[:, None] for part in pair if _biased(block, part)], dim=1)


def _biased(block: Block, part: Part) -> bool:
    return part.dim == 0 and block.ref(part.role).bias is not None


def _by_norm(units_NF: Tensor, groups: int) -> Tensor:
    """[n_share] the order of units by their norm, the largest first, inside each of so many groups."""
    norms_GN = units_NF.double().norm(dim=1).view(groups, -1)
    order_GN = norms_GN.argsort(dim=1, descending=True, stable=True)
    return (order_GN + torch.arange(groups, device=order_GN.device)[:, None] * norms_GN.shape[1]).flatten()


def _arrange(block: Block, parts: tuple[Part, ...], order: Tensor) -> None:
    for part in parts:
        weight = block.weight(part.role)
        weight.copy_(weight.index_select(part.dim, order))
        if _biased(block, part):
            block.bias(part.role).copy_(block.bias(part.role)[order])


def _turn_heads(block: Block, pair: tuple[Part, ...], heads: int) -> None:
    first_HED, second_HED = (_heads(block, part, heads) for part in pair)
    turned = _spectral(first_HED, second_HED)
    for part, rows_HED in zip(pair, turned, strict=True):
        rows = rows_HED.flatten(0, 1).to(block.weight(part.role))
        if _biased(block, part):
            block.weight(part.role).copy_(rows[:, :-1])
            block.bias(part.role).copy_(rows[:, -1])
        else:
            block.weight(part.role).copy_(rows if part.dim == 0 else rows.T)


def _heads(block: Block, part: Part, heads: int) -> Tensor:
    """[h, d_head, d_model (+1)] in float64: the rows of a map with its bias, or its columns."""
    rows = block.weight(part.role) if part.dim == 0 else block.weight(part.role).T
    if _biased(block, part):
        rows = torch.cat([rows, block.bias(part.role)[:, None]], 1)
    return rows.double().unflatten(0, (heads, -1))


def _spectral(a_HED: Tensor, b_HEG: Tensor) -> tuple[Tensor, Tensor]:
    """Two factors of the same products a^T b, whose rows are orthogonal, equally long, and the longest first."""
    (qa, ra), (qb, rb) = (torch.linalg.qr(x.mT) for x in (a_HED, b_HEG))
    u, s, vh = torch.linalg.svd(ra @ rb.mT)
    left, right = (qa @ u).mT, (qb @ vh.mT).mT
    # a pair of rows may be negated: which one a library gives would decide how far a unit is from its donor
    root = s.sqrt()[:, :, None] * torch.where(left.sum(2, keepdim=True) < 0, -1.0, 1.0)
    return root * left, root * right
