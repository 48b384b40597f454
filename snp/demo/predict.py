"""What a model says of one picture and one text: boxes, how sure it is, the words that they belong to, the answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_convert, nms

from snp.data.annotations import Span
from snp.data.loading import shown
from snp.data.pixels import load, read_image
from snp.data.tokens import UNKNOWN, Vocabulary, cover
from snp.data.views import View
from snp.errors import InputError
from snp.experiment.benchmarks import ABOUT
from snp.experiment.rows import DENSE
from snp.experiment.scores import REJECTING
from snp.experiment.spec import Finetune, Pretrain
from snp.launch.wanted import check_folder
from snp.models.config import TowerConfig
from snp.models.dual import Dual
from snp.models.family import GroundingModel
from snp.models.glip import GLIP
from snp.models.mdetr import MDETR
from snp.runs.present import label_of
from snp.runs.result import read, run_of
from snp.tasks import detect
from snp.tasks.outputs import check_finite
from snp.training import saved
from snp.training.prepare import fit_of

SURE = 0.5
"""Boxes of MDETR that are as probable as this are drawn, and the best one in any case; for GLIP's half is enough."""
OVERLAP = 0.5
"""Of boxes with a larger IoU only the surest is drawn."""
WORDS = 0.2
"""Words that carry this share of the largest one's probability belong to a box."""


@dataclass(frozen=True)
class Seen:
    """One box: corners as shares of the picture's sides, how sure the model is, and the words that it belongs to."""

    box: tuple[float, float, float, float]
    score: float
    words: str


@dataclass(frozen=True)
class Prediction:
    """All that a model says of one picture and one text.

    Attributes:
        answer: "" where it was not taught to answer.
        absent: why nothing in the picture fits, of a model that learned to say so; "" where something does.
    """

    seen: list[Seen]
    answer: str
    absent: str = ""


@dataclass(frozen=True)
class Checkpoint:
    """A model of a run folder, with its words and the answers that it knows by type; `title` is what people call it.

    Attributes:
        threshold: how sure the model must be of a box; of one that learned that captions may have no target, the best
            one for the first split of its benchmark.
    """

    name: str
    title: str
    model: GroundingModel
    vocabulary: Vocabulary
    answers: dict[str, list[str]]
    """By type, in the order of their numbers."""
    threshold: float | None = None

    @classmethod
    def from_folder(cls, folder: Path) -> "Checkpoint":
        """The model that a run left in its folder.

        Raises:
            InputError: no folder, or no whole model in it, and the command that makes it.
        """
        check_folder(folder)
        model, _, vocabulary = saved.load(folder)
        known = saved.answers(folder)
        answers = {kind: sorted(known[kind], key=known[kind].__getitem__) for kind, _ in _answers(model)}
        return cls(folder.name, _title(folder), model.eval(), vocabulary, answers, _threshold(folder))


def _threshold(folder: Path) -> float | None:
    run = run_of(folder)
    if not isinstance(run, Finetune) or ABOUT[run.benchmark].task is not REJECTING:
        return None
    found = read(folder / "result.json").scores.splits[ABOUT[run.benchmark].splits[0]].get("threshold")
    return None if found is None else float(found)


def _title(folder: Path) -> str:
    """`dense`, or method and share removed, as `snp, 40% removed`; the folder's name where nothing says what it is."""
    match run_of(folder):
        case None:
            return folder.name
        case Finetune() as run:
            trimmed = run.trim is not None and not run.trim.whole
            special = ", dual encoder" if run.dual else ", inputs trimmed" if trimmed else ""
            special += ", with captions made" if run.ask else ""
            tuned, run = f", tuned on {ABOUT[run.benchmark].title}{special}", run.parent
        case run:
            tuned = ""
    if isinstance(run, Pretrain) or run.method == DENSE:
        return DENSE + tuned
    name = label_of(run).partition("/")[2].partition("@")[0]
    gone = "removed" if run.size.sparsity is None else "of prunable weights zero"
    return f"{name}, {100 * run.size.gone:.3g}% {gone}{tuned}"


@torch.inference_mode()
def predict(checkpoint: Checkpoint, picture: Path, text: str, phrases: Sequence[Sequence[Span]] = ()) -> Prediction:
    """What the model finds in a picture for a sentence, a question, or class names joined by ". " (GLIP).

    Args:
        phrases: of the sentence, each with the characters that name it: MDETR's best box of each is wanted.

    Raises:
        InputError: a picture that cannot be read; a text without a known word, or too long; a model that says what is
            not finite.
    """
    model, config = checkpoint.model, checkpoint.model.config
    ids, spans = checkpoint.vocabulary.encode(text)
    if len(ids) > config.context:
        raise InputError("text", f"{len(ids)} tokens, the model takes {config.context}", "shorten it")
    if (ids[1:-1] == UNKNOWN).all():
        raise InputError("text", "holds no word that the model knows", "it knows those of its training captions")
    tokens = torch.from_numpy(ids.astype(np.int64))[None]
    pixels, *sizes = _looked_at(picture, config)
    out = model(pixels, torch.zeros(1, dtype=torch.long), tokens, torch.ones_like(tokens, dtype=torch.bool), *sizes)
    check_finite(lambda _: f"{checkpoint.name}: {picture}", *out.judged)
    if isinstance(model, GLIP):
        return Prediction(_detected(out, text, spans), "")
    likely_QS = out.logits_KBQS[-1][0].softmax(-1)
    boxes_Q4 = box_convert(out.boxes_KBQ4[-1][0], "cxcywh", "xyxy").clamp(0, 1)
    if phrases:
        return Prediction(_phrases(likely_QS, boxes_Q4, text, spans, phrases), _answer(out, checkpoint.answers))
    seen = _grounded(likely_QS, boxes_Q4, text, spans)
    if (least := checkpoint.threshold) is not None and seen[0].score < least:
        return Prediction([], "", f"nothing here fits (the surest box is {seen[0].score:.2f}, below {least:.2f})")
    return Prediction([one for one in seen if least is None or one.score >= least], _answer(out, checkpoint.answers))


def _looked_at(picture: Path, config: TowerConfig) -> tuple[Tensor, ...]:
    """Pixels [1, 3, height, width] as a model of this configuration takes them; and their size, where any will do."""
    if (fit := fit_of(config)) is None:
        return (torch.from_numpy(read_image(picture, config.image_size).copy())[None],)
    image = load(picture)
    view = View(fit((image.height, image.width)))
    return torch.from_numpy(shown(image, view).copy())[None], torch.tensor([view.size])


def _phrases(
    likely_QS: Tensor, boxes_Q4: Tensor, text: str, spans: Sequence[Span], phrases: Sequence[Sequence[Span]]
) -> list[Seen]:
    """The box of every phrase that evaluation takes first."""
    found = []
    for phrase, asked in zip(phrases, cover(spans, phrases), strict=True):
        score, q = likely_QS[:, : len(spans)][:, asked].amax(-1).max(0)
        words = " ".join(text[begin:end] for begin, end in phrase)
        found.append(Seen(tuple(boxes_Q4[q].tolist()), float(score), words))
    return found


def _grounded(likely_QS: Tensor, boxes_Q4: Tensor, text: str, spans: Sequence[Span]) -> list[Seen]:
    found = 1 - likely_QS[:, -1]
    best = nms(boxes_Q4, found, OVERLAP).tolist()
    kept = [q for place, q in enumerate(best) if place == 0 or found[q] >= SURE]
    return [Seen(tuple(boxes_Q4[q].tolist()), float(found[q]), _words(likely_QS[q], text, spans)) for q in kept]


def _words(likely_S: Tensor, text: str, spans: Sequence[Span]) -> str:
    """The words of a text that a query belongs to, in their order."""
    share = likely_S[: len(spans)]
    own = dict.fromkeys(span for span, p in zip(spans, share.tolist(), strict=True) if p >= WORDS * float(share.max()))
    return " ".join(text[begin:end] for begin, end in sorted(own) if end > begin)


def _detected(out: Any, text: str, spans: Sequence[Span]) -> list[Seen]:
    names, at = [], 0
    for name in text.split(". "):
        names.append((at, at + len(name)))
        at += len(name) + 2
    classes_CL = torch.from_numpy(cover(spans, [[name] for name in names]))
    ((boxes, scores, labels),) = detect.detections(out, classes_CL)
    best = nms(boxes, scores, OVERLAP).tolist()
    return [
        Seen(tuple(boxes[i].tolist()), float(scores[i]), text[slice(*names[labels[i]])])
        for i in best
        if scores[i] >= SURE / 2
    ]


def _answer(out: Any, known: dict[str, list[str]]) -> str:
    if not known or out.answers is None:
        return ""
    kind = list(known)[int(out.answers["type"][0].argmax())]
    return known[kind][int(out.answers[kind][0].argmax())]


def _answers(model: GroundingModel) -> Sequence[tuple[str, int]]:
    """Types of questions with the number of their answers, in the order of the model's heads."""
    return model.config.answers if isinstance(model, MDETR | Dual) else ()
