"""Bases of units: changes of a model's weights that keep its function, made before a method decides.

What a unit of attention or of an FFN is depends on the basis that training happened to end in. Methods that cut or
share units see the model in one where much lies in few units, and where unit i of a layer is the i-th in every tower.
"""

from typing import Literal

import torch
from torch import Tensor

from snp.compression.block import UNIT_DIMS, Block
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

    Nothing may stand between the two maps of a pair (rotary positions, norms of queries or keys): `recognise` refuses
    such layers.
    """
    if basis == "none":
        return
    for _, _, block in iterate(towers):
        _arrange(block, "ffn", _by_norm(block, "ffn", 1))
        for component in ("qk", "vo"):
            if basis == "sorted":
                _arrange(block, component, _by_norm(block, component, block.n_heads))
            else:
                _turn_heads(block, component)


def _by_norm(block: Block, component: str, groups: int) -> Tensor:
    """[n_share] the order of units by their norm, the largest first, inside each of so many groups."""
    norms_GN = block.units(component).double().norm(dim=1).view(groups, -1)
    order_GN = norms_GN.argsort(dim=1, descending=True, stable=True)
    return (order_GN + torch.arange(groups, device=order_GN.device)[:, None] * norms_GN.shape[1]).flatten()


def _arrange(block: Block, component: str, order: Tensor) -> None:
    for role, dim in UNIT_DIMS[component]:
        weight = block.weight(role)
        weight.copy_(weight.index_select(dim, order))
        if dim == 0:
            block.bias(role).copy_(block.bias(role)[order])


def _turn_heads(block: Block, component: str) -> None:
    first_HED, second_HED = (_heads(block, role, dim) for role, dim in UNIT_DIMS[component])
    turned = _spectral(first_HED, second_HED)
    for (role, dim), rows_HED in zip(UNIT_DIMS[component], turned, strict=True):
        rows = rows_HED.flatten(0, 1).to(block.weight(role))
        if dim == 0:
            block.weight(role).copy_(rows[:, :-1])
            block.bias(role).copy_(rows[:, -1])
        else:
            block.weight(role).copy_(rows.T)


def _heads(block: Block, role: str, dim: int) -> Tensor:
    """[h, d_head, d_model (+1)] in float64: the rows of a map with its bias, or its columns."""
    rows = torch.cat([block.weight(role), block.bias(role)[:, None]], 1) if dim == 0 else block.weight(role).T
    return rows.double().unflatten(0, (block.n_heads, -1))


def _spectral(a_HED: Tensor, b_HEG: Tensor) -> tuple[Tensor, Tensor]:
    """Two factors of the same products a^T b, whose rows are orthogonal, equally long, and the longest first."""
    (qa, ra), (qb, rb) = (torch.linalg.qr(x.mT) for x in (a_HED, b_HEG))
    u, s, vh = torch.linalg.svd(ra @ rb.mT)
    left, right = (qa @ u).mT, (qb @ vh.mT).mT
    # a pair of rows may be negated: which one a library gives would decide how far a unit is from its donor
    root = s.sqrt()[:, :, None] * torch.where(left.sum(2, keepdim=True) < 0, -1.0, 1.0)
    return root * left, root * right
