"""What a model that trims is trained to lower: its task, its cost, and how far it is from itself with all tokens."""

import torch
import torch.nn.functional as F
from torch import Tensor

from snp.data.batch import Batch
from snp.models.mdetr import MDETR, Grounding
from snp.tasks.objective import of_output
from snp.tasks.precision import in_float32
from snp.trimming.trimmer import untrimmed

COST = 100.0
"""Weight of the squared errors of the kept shares. [ours] DynamicViT has 2 and 10, beside the loss of a classifier, and
ours are ten times that: with 10 here, a target of 35% ended at 44%."""


def losses(model: MDETR, batch: Batch, step: int, steps: int) -> dict[str, Tensor]:
    """The named, weighted losses of a batch at a weight step.

    The trimmed pass pays for its task and for what it keeps: (share - target)^2 of tokens and of heads, each a mean
    over batch and layers, so that layers and inputs may differ; of a batch that passes in parts, over each part. With
    distillation the same batch passes whole too, pays for the task (`whole`), and what it says teaches the trimmed
    pass.
    """
    assert model.trimmer is not None
    trim, whole = model.trimmer.trim, None
    parts: dict[str, Tensor] = {}
    if trim.distill:
        with untrimmed(model):
            whole = model(*batch.inputs)
        parts["whole"] = torch.stack(list(of_output(model, whole, batch).values())).sum()
    out = model(*batch.inputs)
    parts |= of_output(model, out, batch)
    if whole is not None:
        parts |= distance(whole, out, batch)
    targets = [trim.target(share, step, steps) for share in (trim.tokens, trim.heads)]
    if out.kept.keep_RN.requires_grad or out.kept.heads_RS.requires_grad:
        part = len(batch) / len(batch.divisor)
        parts["cost"] = COST * part * (out.kept.shares - out.kept.shares.new_tensor(targets)).square().sum()
    return parts


@in_float32
def distance(whole: Grounding, out: Grounding, batch: Batch) -> dict[str, Tensor]:
    """KL(whole || trimmed) of what is said, a query or an answer, and L1 of boxes, a caption.

    Nothing flows into the whole pass.

    Queries are compared where both passes started from the same image token [ours: MDETR's have no other order that
    both share]; a box counts as much as the whole pass holds it for an object. Without proposals queries are the same
    ones.
    """
    _, B, Q, _ = out.logits_KBQS.shape
    pairs_BQQ = torch.eye(Q, dtype=torch.bool, device=out.logits_KBQS.device).expand(B, -1, -1)
    if whole.start_BQ is not None and out.start_BQ is not None:
        pairs_BQQ = whole.start_BQ[:, :, None] == out.start_BQ[:, None]
    b, theirs, ours = pairs_BQQ.nonzero(as_tuple=True)
    captions = len(batch.divisor)
    taught = whole.logits_KBQS[-1][b, theirs].detach()
    object_P = 1 - taught.softmax(-1)[..., -1]
    apart = (whole.boxes_KBQ4[-1][b, theirs].detach() - out.boxes_KBQ4[-1][b, ours]).abs().sum(-1)
    parts = {
        "taught": kl(taught, out.logits_KBQS[-1][b, ours]).sum() / (captions * pairs_BQQ.shape[1]),
        "taught boxes": (object_P * apart).sum() / captions,
    }
    if whole.answers is not None and out.answers is not None:
        terms = [kl(whole.answers[name].detach(), said).sum() / captions for name, said in out.answers.items()]
        parts["taught answers"] = torch.stack(terms).sum()
    return parts


def kl(teacher_XC: Tensor, student_XC: Tensor) -> Tensor:
    """KL(teacher || student) of logits, summed over the last axis."""
    return F.kl_div(student_XC.log_softmax(-1), teacher_XC.log_softmax(-1), reduction="none", log_target=True).sum(-1)
