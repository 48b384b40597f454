"""What a dual encoder learns from its teacher: predictions, and the attention between words and places."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from snp.data.batch import Batch
from snp.models.distill import Distill
from snp.models.dual import TEMPERATURE, Dual
from snp.models.mdetr import MDETR, Grounding
from snp.tasks import vqa
from snp.tasks.grounding import giou_loss, inside
from snp.tasks.precision import in_float32
from snp.tasks.trimming import kl

L1, GIOU = 5.0, 2.0
"""Weights of boxes, MDETR's."""


@dataclass
class Heard:
    """Queries and keys of an attention of so many heads in one pass, [rows, tokens, width] each."""

    heads: int
    q: Tensor
    k: Tensor

    def of(self, role: str) -> Tensor:
        """[rows, heads, tokens, width of a head]"""
        return getattr(self, role).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # type: ignore[no-any-return]

    def rows(self, index_B: Tensor) -> "Heard":
        """The same of other rows."""
        return Heard(self.heads, self.q[index_B], self.k[index_B])


@contextmanager
def listening(layers: nn.ModuleList) -> Iterator[Heard]:
    """Queries and keys of the attention of the last of a fusion's layers, whenever it is asked within."""
    attention: Any = layers[-1].attention
    heard = Heard(attention.heads, torch.empty(0), torch.empty(0))

    def hear(role: str) -> RemovableHandle:
        return getattr(attention, role).register_forward_hook(lambda _, given, out: setattr(heard, role, out))  # type: ignore[no-any-return]

    hooks = [hear(role) for role in "qk"]
    try:
        yield heard
    finally:
        for hook in hooks:
            hook.remove()


def losses(student: Dual, teachers: Sequence[MDETR], batch: Batch, how: Distill) -> dict[str, Tensor]:
    """The named losses of a batch, each of weight 1 [DiDE's code].

    Args:
        teachers: whose predictions are learned, and whose attention; frozen; none where labels alone are.
    """
    with listening(student.image_encoder) as image, listening(student.text_encoder) as text:
        out = student(*batch.inputs)
    parts: dict[str, Tensor] = {}
    if how.taught:
        with torch.no_grad(), listening(teachers[0].encoder) as both:
            said = teachers[0](*batch.inputs)
    if how.soft:
        parts |= soft(said, out, batch)
    if how.attention != "none":
        if teachers[1] is not teachers[0]:
            with torch.no_grad(), listening(teachers[1].encoder) as both:
                teachers[1](*batch.inputs)
        parts |= attention(both, image.rows(batch.image_index_B), text, batch, how)
    if how.labels:
        parts |= labelled(out, batch)
    return parts


@in_float32
def soft(said: Grounding, out: Grounding, batch: Batch) -> dict[str, Tensor]:
    """KL(teacher || student) of what is said, mean over captions.

    Questions: of every head's answers. Expressions: each query's chance to be an object stands at the image token that
    it started from; KL over the tokens, and the query's box for the box of that token. [ours]
    """
    captions = len(batch.divisor)
    if said.answers is not None and out.answers is not None:
        terms = [kl(said.answers[name].detach(), logits).sum() / captions for name, logits in out.answers.items()]
        return {"soft": torch.stack(terms).sum()}
    assert said.start_BQ is not None and out.patches is not None and out.patch_score_BN is not None
    chance_BQ = 1 - said.logits_KBQS[-1].detach().softmax(-1)[..., -1]
    chance_BQ = chance_BQ / chance_BQ.sum(1, keepdim=True).clamp(min=1e-6)
    target_BN = torch.zeros_like(out.patch_score_BN).scatter_add(1, said.start_BQ, chance_BQ)
    boxes = out.patches.boxes_BN4.gather(1, said.start_BQ[..., None].expand(-1, -1, 4))
    wanted = said.boxes_KBQ4[-1].detach()
    apart_BQ = L1 * (boxes - wanted).abs().sum(-1) + GIOU * giou_loss(boxes, wanted)
    return {
        "soft": _apart(target_BN, out.patch_score_BN / TEMPERATURE).sum() / captions,
        "soft boxes": (chance_BQ * apart_BQ).sum() / captions,
    }


def _apart(target_BN: Tensor, logits_BN: Tensor) -> Tensor:
    """KL(target || softmax(logits)), [B]."""
    return (torch.xlogy(target_BN, target_BN) - target_BN * logits_BN.log_softmax(-1)).sum(-1)


@in_float32
def attention(teacher: Heard, image: Heard, text: Heard, batch: Batch, how: Distill) -> dict[str, Tensor]:
    """KL(teacher || student) of attention across modalities, each normalised over the other one's tokens alone.

    Summed over keys, mean over captions, heads and queries; padded words are no keys, nor queries but where `official`.
    """
    q, k = (teacher.of(role).detach() for role in "qk")
    N, there_B1L, heads = q.shape[2] - batch.text_BL.shape[1], batch.text_BL[:, None], teacher.heads
    parts = {}
    if how.attention in ("both", "text"):
        apart_BHL = _crossing(q[:, :, N:], k[:, :, :N], text.of("q"), image.of("k"), None)
        asking = torch.ones_like(batch.divisor.text_BL) if how.official else batch.divisor.text_BL
        counted = apart_BHL if how.official else apart_BHL * there_B1L
        parts["attention of words"] = counted.sum() / (heads * asking.sum())
    if how.attention in ("both", "image"):
        hidden = ~there_B1L[:, :, None]
        apart_BHN = _crossing(q[:, :, :N], k[:, :, N:], image.of("q"), text.of("k"), hidden)
        parts["attention of places"] = apart_BHN.sum() / (heads * N * len(batch.divisor))
    return parts


def _crossing(q_t: Tensor, k_t: Tensor, q_s: Tensor, k_s: Tensor, hidden: Tensor | None) -> Tensor:
    """KL of every query, [B, heads, queries]; teacher's and student's queries and keys, and which keys are hidden."""
    teacher, student = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5 for q, k in ((q_t, k_t), (q_s, k_s)))
    if hidden is not None:
        teacher, student = teacher.masked_fill(hidden, -1e4), student.masked_fill(hidden, -1e4)
    return kl(teacher, student)


@in_float32
def labelled(out: Grounding, batch: Batch) -> dict[str, Tensor]:
    """The task's own losses: of questions MDETR's; of expressions a cross-entropy over the tokens on what is asked for,
    and the boxes of those tokens. [ours]"""
    if out.answers is not None:
        return {f"labels: {name}": value for name, value in vqa.losses(out, batch).items()}
    assert out.patches is not None and out.patch_score_BN is not None
    on_BN = inside(out.patches.centres_N2, batch)[:, 0].to(out.patch_score_BN)
    share_BN = on_BN / on_BN.sum(1, keepdim=True).clamp(min=1)
    boxes, wanted = out.patches.boxes_BN4, batch.boxes_BM4[:, :1]
    apart_BN = L1 * (boxes - wanted).abs().sum(-1) + GIOU * giou_loss(boxes, wanted)
    said = -(share_BN * (out.patch_score_BN / TEMPERATURE).log_softmax(-1)).sum(1)
    captions = len(batch.divisor)
    return {"labels": said.sum() / captions, "labels: boxes": (share_BN * apart_BN).sum() / captions}
