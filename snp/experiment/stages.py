"""What each kind of run does: pre-train the dense model, compress it, fine-tune and judge the compressed one."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor, nn

from snp.compression import checkpoint, count
from snp.compression.budget import Budget
from snp.compression.method import Problem, linear_weights
from snp.compression.plan import Plan
from snp.compression.registry import get
from snp.compression.surgery import apply
from snp.compression.tower import towers_of
from snp.data.dataset import Batch, GroundingSet
from snp.data.tokens import Vocabulary
from snp.errors import InputError
from snp.experiment import prepare
from snp.experiment.loop import Cursor, Loop
from snp.experiment.manifest import code_state, manifest
from snp.experiment.recipes import RECIPES, Recipe, phase_of
from snp.experiment.spec import Benchmark, Compress, Finetune, Pretrain, explain
from snp.experiment.store import AnyRun, Result, Store
from snp.experiment.tables import SPLITS
from snp.files import read_json, write_json
from snp.models import config as configs
from snp.models.config import ModelConfig
from snp.models.mdetr import MDETR, TOWERS
from snp.tasks import grounding, rec
from snp.tasks.objective import losses as weighted_losses
from snp.tasks.objective import weigh

HELD_OUT = 20
"""One in so many pre-training captions is kept for the steps that learn the structure. [author]"""


def run(run: AnyRun, store: Store, progress: Callable[[int], None] = lambda captions: None) -> Result:
    """Do one run, or go on with it, and leave its result in the store. Its parents must be done."""
    for parent in run.parents():
        if store.state(parent) != "done":
            raise InputError(
                store.folder(parent), f"{run.name} needs this run, which is {store.state(parent)}"
            )
    code_state()  # now: the checkout may be another one when the run ends
    store.begin(run)
    return {"pretrain": pretrain, "compress": compress, "finetune": finetune}[run.kind](run, store, progress)


def pretrain(run: Pretrain, store: Store, progress: Callable[[int], None]) -> Result:
    """The dense model: the towers alone first, then multi-phrase grounding mixed with single expressions."""
    recipe, root = RECIPES[run.scale], prepare.data_root(run.scale, run.data)
    vocabulary = prepare.vocabulary(root)
    base: ModelConfig = getattr(configs, recipe.model)
    config = base.model_copy(update={"vocabulary": len(vocabulary)})
    torch.manual_seed(run.seed)
    model = MDETR(config)
    train = learning(root, vocabulary, config)[0]
    val = prepare.entries(root, "finetune_refcoco_val", vocabulary, config)
    glance = val.subset(np.arange(min(len(val), 1000)))

    def judge(learner: nn.Module) -> dict[str, Any]:
        return _flat("val", rec.evaluate(model, glance))

    phase = phase_of(run)
    # every object by its full description first: from sparse captions that also tell places the towers learn
    # words very slowly
    regions = prepare.entries(root, "regions_train", vocabulary, config)
    learner = grounding.WarmUp(model, regions.categories)

    # then short expressions: relations are found within hundreds of steps there, and late or never in the mixture
    short = train.subset(np.flatnonzero(train.datasets == "refcoco"))
    courses = ((regions, phase.towers_only), (short, phase.short_only), (train, phase.steps))

    def stream(start: int) -> Iterator[Batch]:
        for data, steps in courses:
            yield from islice(data.stream(phase.batch, run.seed, start), max(steps - start, 0))
            start = max(start - steps, 0)

    def objective(
        learner: nn.Module, batch: Batch, overrides: dict[str, Tensor] | None, step: int
    ) -> dict[str, Tensor]:
        assert isinstance(learner, grounding.WarmUp)
        if step >= phase.towers_only:
            return losses(learner.model, batch, overrides, step)
        return weigh(learner.losses(batch))

    loop = Loop(learner, phase, stream, objective, store.folder(run), run.seed, judge=judge, progress=progress,
                log=lambda record: store.log(run, record))  # fmt: skip
    loop.run()
    _save_model(store.folder(run), model, Plan.dense(towers_of(model, TOWERS)), config, vocabulary)
    counted = count.count(model, towers_of(model, TOWERS))
    params = {
        "stored": counted.stored,
        "towers": counted.total,
        "embeddings": counted.embeddings,
        "other": counted.other,
    }
    metrics = {"params": params, "splits": {"refcoco/val": rec.evaluate(model, val)}}
    return _finish(run, store, recipe, loop, metrics, root)


def compress(run: Compress, store: Store, progress: Callable[[int], None]) -> Result:
    """One method decides, in continued pre-training with the same captions for every method."""
    recipe, root = RECIPES[run.scale], prepare.data_root(run.scale, run.data)
    dense, _, config, vocabulary = load_model(store.folder(run.parent))
    method = get(run.method, **run.options)
    phase = phase_of(run)
    if not run.recovery and method.stage == "training":
        raise InputError(run.name, f"{run.method} decides while training", "run it with recovery")
    train, held_out = learning(root, vocabulary, config, run.task)
    per_image = 1 if run.task else phase.per_image  # one benchmark alone says too little of an image
    # as many images as a weight step has: what costs, and what varies, is images
    held = Cursor(lambda start: held_out.stream(phase.batch // phase.per_image, run.seed + 1, start))
    gap: dict[str, float] = {}

    towers = towers_of(dense, TOWERS)
    groups = linear_weights(towers)
    if run.sparsity is None:
        budget = Budget.of(dense, towers, run.keep)
    else:
        groups["fusion"] = dense.fusion_weights()
        budget = Budget.of_weights(dense, groups, run.sparsity)
    problem = Problem(
        model=dense,
        towers=towers,
        budget=budget,
        steps=phase.steps,
        loss=inference_loss(dense),
        heldout=held,
        seed=run.seed,
        groups=groups,
        sparsity=run.sparsity,
        token_masks={
            "text": lambda batch: batch.text_BL,
            "fusion": lambda batch: F.pad(batch.text_BL, (config.image_tokens, 0), value=True),
        },
    )
    session = method.start(problem)

    def project(model: nn.Module, plan: Plan) -> nn.Module:
        smaller = apply(model, plan, TOWERS)
        probe = [held_out.batch(i) for i in held_out.epoch(min(phase.batch, len(held_out)), run.seed + 2)[:8]]
        before, after = (_mean_loss(m, probe) for m in (model, smaller))
        gap["projection_gap"] = after - before
        loop.notes = dict(gap)
        return smaller

    loop = Loop(dense, phase, lambda start: train.stream(phase.batch, run.seed, start, per_image), losses,
                store.folder(run), run.seed, session=session, apply=project, cursor=held, progress=progress,
                log=lambda record: store.log(run, record))  # fmt: skip
    model = loop.run()
    plan = loop.plan
    assert plan is not None
    _save_model(store.folder(run), model, plan, config, vocabulary)
    metrics = {
        "kind": method.kind,
        "options": method.options.model_dump(),
        "note": plan.note,
        "plan": plan.summary(),
        "seconds": loop.seconds,
        "session_seconds": loop.session_seconds,
        **loop.notes,
        **ratios(model, plan, config, held_out),
        **({} if run.sparsity is None else {"sparsity": sparsity(model, groups)}),
    }
    return _finish(run, store, recipe, loop, metrics, root)


def finetune(run: Finetune, store: Store, progress: Callable[[int], None]) -> Result:
    """The compressed model learns one benchmark, then answers all its splits."""
    recipe, root = RECIPES[run.scale], prepare.data_root(run.scale, run.data)
    model, _, config, vocabulary = load_model(store.folder(run.parent))

    def data(split: str) -> GroundingSet:
        return prepare.entries(root, f"finetune_{run.benchmark}_{split}", vocabulary, config)

    train, phase, val = data("train"), phase_of(run), data("val")
    zero_shot = {"val": rec.evaluate(model, val)}
    loop = Loop(model, phase, lambda start: train.stream(phase.batch, run.seed, start), losses, store.folder(run),
                run.seed, progress=progress, log=lambda record: store.log(run, record))  # fmt: skip
    model = loop.run()
    splits = {
        split: rec.evaluate(model, val if split == "val" else data(split)) for split in SPLITS[run.benchmark]
    }
    return _finish(run, store, recipe, loop, {"splits": splits, "zero_shot": zero_shot}, root)


def losses(
    model: nn.Module, batch: Batch, overrides: dict[str, Tensor] | None, step: int
) -> dict[str, Tensor]:
    """The weighted losses of a batch, with `overrides` in place of parameters of the same names."""
    return weighted_losses(model, batch, overrides)


def inference_loss(model: nn.Module) -> Callable[[Batch, dict[str, Tensor] | None], Tensor]:
    """The pre-training loss as compression methods see it: (batch, overrides) -> scalar."""
    return lambda batch, overrides: torch.stack(list(losses(model, batch, overrides, 0).values())).sum()


def ratios(model: nn.Module, plan: Plan, config: ModelConfig, data: GroundingSet) -> dict[str, float | int]:
    """What is left of the dense model: parameters stored, in the towers, not zero, and FLOPs of one expression."""
    dense = MDETR(config)
    whole, left = (count.count(m, towers_of(m, TOWERS)) for m in (dense, model))
    batch = data.batch(np.array([int(np.argsort(data.lengths)[len(data) // 2])]))
    return {
        "stored_params": left.stored,
        "stored_ratio": left.stored / whole.stored,
        "tower_ratio": left.total / whole.total,
        "nonzero_ratio": left.nonzero / whole.stored,
        "flops_ratio": count.flops(model, *batch.inputs) / count.flops(dense, *batch.inputs),
    }


def sparsity(model: nn.Module, groups: Mapping[str, Sequence[str]]) -> float:
    """The share of these weights that is zero."""
    weights = [model.get_parameter(name) for names in groups.values() for name in names]
    return 1 - sum(int(w.count_nonzero()) for w in weights) / sum(w.numel() for w in weights)


def load_model(folder: Path) -> tuple[MDETR, Plan, ModelConfig, Vocabulary]:
    """A model saved by a run, dense or compressed, with what is needed to use it."""
    file = folder / "model.json"
    about = read_json(file)
    for name in ("config", "vocabulary"):
        if name not in about:
            raise InputError(f"{file}: {name}", "missing", "save the checkpoint again")
    try:
        config = ModelConfig.model_validate(about["config"])
    except ValidationError as error:
        raise explain(error, f"{file}: config") from None
    model, plan = checkpoint.load(folder, lambda: MDETR(config))
    return model, plan, config, Vocabulary(about["vocabulary"])


def _save_model(
    folder: Path, model: nn.Module, plan: Plan, config: ModelConfig, vocabulary: Vocabulary
) -> None:
    write_json(
        folder / "model.json", {"config": config.model_dump(), "vocabulary": vocabulary.clip_ids}, indent=None
    )
    checkpoint.save(folder, model, plan, paths=TOWERS)


def learning(
    root: Path, vocabulary: Vocabulary, config: ModelConfig, task: Benchmark | None = None
) -> tuple[GroundingSet, GroundingSet]:
    """The pre-training captions: those for the weights, and the held-out ones for the structure.

    Captions of several phrases and the training expressions of all benchmarks, as in MDETR's mixture. Four fifths
    are single expressions: from a mixture that is half captions, relations are learned far too late. [ours]
    With a `task`: the training expressions of this benchmark alone.
    """
    names = ["final_mixed_train"] if task is None else []
    names += [f"finetune_{benchmark}_train" for benchmark in SPLITS if task in (None, benchmark)]
    first, *others = (prepare.entries(root, name, vocabulary, config) for name in names)
    mixed = first.joined(*others)
    turn = np.arange(len(mixed)) % HELD_OUT == 0
    return mixed.subset(np.flatnonzero(~turn)), mixed.subset(np.flatnonzero(turn))


@torch.no_grad()
def _mean_loss(model: nn.Module, batches: list[Batch]) -> float:
    training = model.training
    model.eval()
    total = sum(float(torch.stack(list(losses(model, batch, None, 0).values())).sum()) for batch in batches)
    model.train(training)
    return total / len(batches)


def _flat(name: str, found: dict[str, Any]) -> dict[str, float]:
    flat = {f"{name}/precision@1": found["precision@1"], f"{name}/mean_iou": found["mean_iou"]}
    return flat | {f"{name}/{kind}": part["precision@1"] for kind, part in found["by_type"].items()}


def _finish(
    run: AnyRun, store: Store, recipe: Recipe, loop: Loop, metrics: dict[str, Any], root: Path
) -> Result:
    phase = phase_of(run)
    # the spec was written when the run was begun, before any kill
    started = datetime.fromtimestamp((store.folder(run) / "spec.json").stat().st_mtime, UTC)
    about = manifest(run, {"model": recipe.model, **phase.model_dump()}, torch.get_num_threads(),
                     prepare.data_hash(root), started, loop.seconds)  # fmt: skip
    result = store.save(run, about, metrics, loop.curve)
    loop.state_file.unlink(missing_ok=True)
    return result
