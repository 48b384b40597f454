"""A dual encoder in fine-tuning: what it starts from, who teaches it, and what it keeps of a picture for captions."""

import numpy as np
import torch
from torch import Tensor, nn

from snp.compression import count
from snp.compression.plan import Plan
from snp.data.batch import Batch
from snp.data.dataset import GroundingSet
from snp.data.tokens import Vocabulary
from snp.errors import InputError
from snp.experiment.spec import Finetune
from snp.models.config import ModelConfig
from snp.models.cost import cost
from snp.models.dual import Cache, Dual
from snp.models.family import GroundingModel
from snp.models.grounder import Inputs
from snp.models.mdetr import MDETR
from snp.runs.store import Store
from snp.tasks import distilling
from snp.training import saved
from snp.training.learning import Objective


def student(run: Finetune, model: GroundingModel, plan: Plan) -> Dual:
    """The dual encoder that starts as a model, dense or compressed.

    Raises:
        InputError: some of its fusion is masked, which the student has twice.
    """
    assert isinstance(model, MDETR)
    if masked := [name for name in plan.masks if name.startswith(("encoder.", "decoder."))]:
        raise InputError(run.name, f"{masked[0]} is masked, and a dual encoder has two of it", "name a structured row")
    return Dual.from_mdetr(model)


def objective(run: Finetune, store: Store, vocabulary: Vocabulary, device: str) -> Objective:
    """The named losses of the student of a run.

    Args:
        vocabulary: its words, which are those of its teacher.
    """
    how, teachers = run.dual, list[MDETR]()
    assert how is not None
    if run.teacher is not None:
        folder = store.folder(run.teacher)
        tuned, _, words = saved.load(folder)
        if words.clip_ids != vocabulary.clip_ids:
            raise InputError(folder, "knows other words than the student", "run it again with the same data")
        assert isinstance(tuned, MDETR)
        other = tuned
        if how.teacher == "random":
            with torch.random.fork_rng():
                torch.manual_seed(run.seed)
                other = MDETR(tuned.config)
        teachers = [one.eval().requires_grad_(False).to(device) for one in (tuned, other)]

    def losses(model: nn.Module, batch: Batch, overrides: dict[str, Tensor] | None, step: int) -> dict[str, Tensor]:
        assert isinstance(model, Dual) and how is not None
        return distilling.losses(model, teachers, batch, how)

    return losses


class _Asked(nn.Module):
    """A caption about a picture of which all that is needed is kept."""

    def __init__(self, model: Dual, kept: Cache) -> None:
        super().__init__()
        self.model, self.kept = model, kept

    def forward(self, tokens_BL: Tensor, text_BL: Tensor) -> Tensor:
        return self.model.say(self.kept, self.model.read(tokens_BL, text_BL), text_BL).logits_KBQS


def costs(model: Dual, data: GroundingSet) -> dict[str, float | int]:
    """What a caption of middle length costs, as shares of the dense model's, and what is kept of a picture.

    `flops_new`: its picture is new; `flops_kept`: all that depends on the picture is kept, beside the dense model with
    a new picture (the paper's sense); `flops_kept_beside_kept`: beside the dense model that keeps its vision tower's
    states. `stored`: parameters.
    """
    config = model.config.model_dump() | {"name": model.config.name.replace("dual", "mdetr")}
    dense = MDETR(ModelConfig.model_validate(config)).eval()
    batch = data.batch(np.array([int(np.argsort(data.lengths)[len(data) // 2])]))
    inputs = Inputs(*batch.inputs)
    with torch.no_grad():
        kept = model.cache(inputs).of(inputs.image_index_B)
    words = batch.text_BL.sum(1)
    whole = cost(dense, None, words)
    new = count.flops(model, *batch.inputs)
    asked = count.flops(_Asked(model, kept), inputs.tokens_BL, inputs.text_BL)
    return {
        "stored": sum(p.numel() for p in model.parameters()) / sum(p.numel() for p in dense.parameters()),
        "flops_new": new / float(whole.over(1)),
        "flops_kept": asked / float(whole.over(1)),
        "flops_kept_beside_kept": asked / float(whole.caption_B),
        "bytes": kept.bytes,
    }
