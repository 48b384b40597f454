"""What words alone tell, without any picture: the baseline of questions, and of captions that may have no target."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from snp.data import tokens

FIT_STEPS = 100
"""Of L-BFGS, at most."""


def likely(train: Sequence[str], labels: Sequence[str], test: Sequence[str]) -> tuple[np.ndarray, Tensor]:
    """How likely each label is for each caption of `test`: the labels [K], and logits [N, K]. [ours]

    Logistic regression on words and pairs of neighbouring words, with a Gaussian prior of variance one on its weights.
    One weight for every pair and label is held many times: for tens of thousands of captions, not for a million.

    Args:
        train: captions, with a label each.
    """
    kinds = np.unique(labels)
    number: dict[Any, int] = {}
    for caption in train:
        for word in _words(caption):
            number.setdefault(word, len(number))

    def bags(captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Numbers of all words, one caption after the other, and where each begins."""
        found = [[number[word] for word in _words(caption) if word in number] for caption in captions]
        begin = np.cumsum([0, *map(len, found)])[:-1]
        return torch.tensor([word for words in found for word in words], dtype=torch.long), torch.from_numpy(begin)

    weight = nn.EmbeddingBag(len(number), len(kinds), mode="sum")
    nn.init.zeros_(weight.weight)
    words, target = bags(train), torch.from_numpy(np.searchsorted(kinds, labels))
    fit = torch.optim.LBFGS(weight.parameters(), max_iter=FIT_STEPS, history_size=10, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        fit.zero_grad()
        value = cross_entropy(weight(*words), target) + weight.weight.square().sum() / (2 * len(train))
        value.backward()
        return value

    fit.step(loss)
    with torch.inference_mode():
        return kinds, weight(*bags(test))


def _words(caption: str) -> list[Any]:
    """Words, ends included, and pairs of neighbours; every caption has at least its ends."""
    words = [None, *tokens.encode(caption)[0], None]
    return [*words, *pairwise(words)]
