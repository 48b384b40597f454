"""Visual question answering: MDETR's losses of typed answers, GQA's accuracy, and baselines that see no image."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from snp.data.annotations import Entry
from snp.data.batch import Batch
from snp.data.dataset import OUTSIDE, GroundingSet
from snp.errors import InputError
from snp.models.family import Answering
from snp.models.mdetr import TYPE, Grounding
from snp.tasks import words
from snp.tasks.passes import passes
from snp.tasks.precision import in_float32

WEIGHT = {"type": 25.0, "answer": 25.0}
"""Of the sum over all heads: `qa_loss_coef` of MDETR's public code."""


@in_float32
def losses(out: Grounding, batch: Batch) -> dict[str, Tensor]:
    """Cross-entropy per question, not yet weighted: type, of all of them; answer, of the head of each one's own type.

    MDETR divides the sum of a type's head by the questions of that type in the batch; here all are divided by those of
    the batch, so that a question of a rare type counts no more than another. [ours] An answer or type outside the
    vocabulary costs nothing.
    """
    assert out.answers is not None and batch.type_B is not None and batch.answer_B is not None
    heads = [logits for name, logits in out.answers.items() if name != TYPE]
    own = [batch.answer_B.masked_fill(batch.type_B != kind, OUTSIDE) for kind in range(len(heads))]
    return {
        "type": _sum(out.answers[TYPE], batch.type_B) / len(batch.divisor),
        "answer": torch.stack(list(map(_sum, heads, own))).sum() / len(batch.divisor),
    }


def _sum(logits_BN: Tensor, target_B: Tensor) -> Tensor:
    return cross_entropy(logits_BN, target_B, ignore_index=OUTSIDE, reduction="sum")


def evaluate(model: Answering, data: GroundingSet, questions: int = 128) -> dict[str, Any]:
    """Score the model on every question of `data`: the likeliest type, and the likeliest answer of that type.

    Args:
        questions: how many are asked at once; each image passes the vision tower once for all of its own.

    Raises:
        InputError: model and data do not have the same answers; or the model says of a question what is not finite.
    """
    names = {kind: sorted(ids, key=ids.__getitem__) for kind, ids in (data.answers or {}).items()}
    sizes = {kind: len(own) for kind, own in names.items()}
    if not sizes or model.config.answers != tuple(sizes.items()):
        problem = f"the model gives {dict(model.config.answers)}, the data set knows {sizes}"
        raise InputError("answers", problem, "give both the same types of questions, in the same order")
    kinds = list(names)

    def look(index: np.ndarray, batch: Batch, out: Grounding) -> list[tuple[str, str, str, str]]:
        """Of every question: type and answer as they are said, and as they are."""
        best = [logits.argmax(1).tolist() for logits in (out.answers or {}).values()]
        said = [(kinds[kind], names[kinds[kind]][answers[kind]]) for kind, *answers in zip(*best, strict=True)]
        asked = [data.entries[i] for i in index]
        return [(*own, entry.question_type, entry.answer) for own, entry in zip(said, asked, strict=True)]

    return score(*np.array([row for rows in passes(model, data, questions, look) for row in rows]).T)


def score(
    type_N: np.ndarray, answer_N: np.ndarray, true_type_N: np.ndarray, true_answer_N: np.ndarray
) -> dict[str, Any]:
    """Accuracy: type and answer right, over the whole split, and by true type; and how often the type alone is right.

    (The public evaluator's figures by type are means over batches that read 1.0 where a type is absent.)

    Args:
        type_N, answer_N: what the model says, as names. true_type_N, true_answer_N: what is right.
    """
    if not len(type_N) == len(answer_N) == len(true_type_N) == len(true_answer_N) > 0:
        sizes = [len(a) for a in (type_N, answer_N, true_type_N, true_answer_N)]
        raise InputError("predictions", f"are not one for each question: {sizes}")
    typed = type_N == true_type_N
    right = typed & (answer_N == true_answer_N)

    def over(where: np.ndarray) -> dict[str, Any]:
        rates = {"accuracy": float(right[where].mean()), "type_accuracy": float(typed[where].mean())}
        return {"n": int(where.sum()), **rates}

    by_type = {str(kind): over(true_type_N == kind) for kind in sorted(set(true_type_N.tolist()))}
    return over(np.ones(len(right), bool)) | {"by_type": by_type}


def majority(train_type: np.ndarray, train_answer: np.ndarray, type_N: np.ndarray) -> np.ndarray:
    """The baseline that sees no image and no word but the question's type: its most frequent training answer."""
    best: dict[str, str] = {}
    for kind in set(type_N.tolist()):
        answers, counts = np.unique(train_answer[train_type == kind], return_counts=True)
        best[kind] = str(answers[counts.argmax()]) if len(answers) else ""
    return np.array([best[kind] for kind in type_N.tolist()])


def text_only(train: Sequence[Entry], test: Sequence[Entry]) -> np.ndarray:
    """The baseline that reads the question and sees no image: its answer to every test question. [ours]"""
    answers = [entry.answer for entry in train]
    known, likely_NK = words.likely([entry.caption for entry in train], answers, [entry.caption for entry in test])
    return known[likely_NK.argmax(1).numpy()]
