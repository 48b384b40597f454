"""Beam search: the likeliest sequence that a few candidates, carried along word by word, come to."""

from collections.abc import Callable

import torch
from torch import Tensor

State = tuple[Tensor, ...]
"""What is known of R sequences, in tensors [R, ...]."""
Step = Callable[[Tensor, State], tuple[Tensor, State]]
"""(last words [R], state) -> (log-probabilities of the next ones [R, V], state)."""


@torch.no_grad()
def beam(step: Step, state: State, begin: int, end: int, width: int, most: int) -> Tensor:
    """The likeliest of `width` candidates of each of B sequences, [B, T] with T <= `most`, without `begin`.

    What has ended goes on with `end`, at no cost. With a width of 1 it is greedy.

    Args:
        state: of B sequences; `step` is given that of their candidates, those of one sequence one after the other.
    """
    B, device = len(state[0]), state[0].device
    state = tuple(tensor.repeat_interleave(width, 0) for tensor in state)
    words_BKT = torch.full((B, width, 1), begin, device=device)
    score_BK = torch.full((B, width), -torch.inf, device=device)
    score_BK[:, 0] = 0  # all candidates are one at first
    for _ in range(most):
        log_RV, state = step(words_BKT[..., -1].flatten(), state)
        log_BKV = log_RV.unflatten(0, (B, width))
        ended = torch.full_like(log_BKV[0, 0], -torch.inf)
        ended[end] = 0
        log_BKV = torch.where(words_BKT[..., -1:] == end, ended, log_BKV)
        score_BK, place_BK = (score_BK[..., None] + log_BKV).flatten(1).topk(width)
        of_BK, word_BK = place_BK // log_BKV.shape[-1], place_BK % log_BKV.shape[-1]
        rows_R = (of_BK + width * torch.arange(B, device=device)[:, None]).flatten()
        state = tuple(tensor[rows_R] for tensor in state)
        words_BKT = torch.cat([words_BKT.flatten(0, 1)[rows_R].unflatten(0, (B, width)), word_BK[..., None]], -1)
        if bool((word_BK[:, 0] == end).all()):  # the likeliest, which only gets less likely
            break
    return words_BKT[:, 0, 1:]
