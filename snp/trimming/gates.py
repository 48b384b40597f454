"""Gates: small modules that say of every token, or every head, of a layer whether it is kept."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

OPEN = 3.0
"""Logit of keeping, over dropping, that gates begin with: 95% are kept. [ours]"""


def hard(logits_X2: Tensor, draw: bool) -> Tensor:
    """1 where it is kept and 0 where not, [...], from logits of (keep, drop), with the gradient of a soft choice.

    Args:
        draw: by Gumbel noise (Jang et al. 2017), as in training; otherwise what is likelier.
    """
    if draw:
        return F.gumbel_softmax(logits_X2, tau=1.0, hard=True)[..., 0]
    return (logits_X2[..., 0] > logits_X2[..., 1]).to(logits_X2.dtype)


class Gate(nn.Module):
    """Two logits for each of `choices` from a state, and what guides: W2 GELU(W1 [LN(state); guide]).  [ours]

    W2 starts at zero and its bias at (OPEN, 0): nothing but chance decides at first, and little is dropped.
    """

    def __init__(self, width: int, guided: bool, choices: int = 1) -> None:
        super().__init__()
        self.choices = choices
        self.norm = nn.LayerNorm(width)
        self.inner = nn.Linear(2 * width if guided else width, width // 4)
        self.outer = nn.Linear(width // 4, 2 * choices)
        nn.init.zeros_(self.outer.weight)
        self.outer.bias.data = torch.tensor([OPEN, 0.0]).repeat(choices)

    def forward(self, state_XD: Tensor, guide_XD: Tensor | None) -> Tensor:
        """[..., D], and a guide that broadcasts to it -> [..., 2], or with several choices [..., choices, 2]."""
        seen = self.norm(state_XD)
        if guide_XD is not None:
            seen = torch.cat([seen, guide_XD.expand_as(seen)], -1)
        logits = self.outer(F.gelu(self.inner(seen)))
        return logits if self.choices == 1 else logits.unflatten(-1, (self.choices, 2))


STEP = 50.0
"""How far a logit that stands alone moves, in learning rates: Adam moves a parameter by about one, and within 1,500
steps of 3e-4 none would get from `OPEN` to being dropped, where those of a net do. [ours]"""


class FixedGate(nn.Module):
    """Two logits for each of `choices`, the same whatever the input is.  [ours: whether adapting is worth anything]"""

    def __init__(self, choices: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([OPEN / STEP, 0.0]).repeat(choices, 1))

    def forward(self, rows: int) -> Tensor:
        """[rows, choices, 2]"""
        return (STEP * self.logits).expand(rows, -1, -1)


def best(score_RN: Tensor, keep: int, among_RN: Tensor | None = None) -> Tensor:
    """1 for the `keep` highest of every row, else 0; of rows that have so many, only `among` those."""
    if among_RN is not None:
        score_RN = score_RN.masked_fill(among_RN < 0.5, float("-inf"))
    chosen = score_RN.topk(min(keep, score_RN.shape[1]), 1).indices
    return torch.zeros_like(score_RN).scatter_(1, chosen, 1.0)
