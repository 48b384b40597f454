"""Visual question answering: typed answers, counted as GQA's accuracy."""

from typing import Any

import numpy as np

from snp.errors import InputError


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
