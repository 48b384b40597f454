"""What each kind of run does: pre-train the dense model, compress it, fine-tune and judge the compressed one."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from snp import ranks
from snp.compression import count
from snp.compression.budget import Budget
from snp.compression.plan import Plan
from snp.compression.problem import Problem, linear_weights
from snp.compression.registry import get
from snp.compression.surgery import apply
from snp.compression.tower import towers_of
from snp.data.drawn.folder import reading
from snp.errors import InputError
from snp.experiment.benchmarks import ABOUT, FIRST
from snp.experiment.places import data_folder
from snp.experiment.recipes import training_of
from snp.experiment.rows import DENSE
from snp.experiment.spec import MADE, Compress, Finetune, Pretrain, Run, is_own
from snp.models import config as configs
from snp.models.config import TowerConfig
from snp.models.dual import Dual
from snp.models.family import build, take_towers
from snp.models.mdetr import MDETR, TOWERS
from snp.runs.manifest import code_state
from snp.runs.result import Result
from snp.runs.store import Store
from snp.training import adapted, asked, saved, stopping, taught, trimmed
from snp.training.cursor import Cursor
from snp.training.finish import finish, source_of
from snp.training.held_out import mean_loss, own_passes
from snp.training.learning import courses, draws, in_order, learning, objective
from snp.training.loop import Loop
from snp.training.prepare import Source
from snp.training.remaining import ratios, sparsity
from snp.training.setup import Setup
from snp.training.start import fill_towers
from snp.training.tuning import tuning
from snp.trimming.trimmer import untrimmed


def run(
    run: Run,
    store: Store,
    progress: Callable[[int], None] = lambda captions: None,
    setup: Setup = Setup(),
) -> Result:
    """Do one run, or go on with it, and leave its result in the store. Its parents must be done.

    What another process has done by the time that this one may begin is not done again.

    Several processes (snp.ranks) do it together: rank 0 holds the folder and writes.

    Raises:
        Stopped: by a signal, with its state saved.
        Busy: another process does it now.
        InputError: something is wrong that a user can mend; it is noted in the run's folder, as any failure is.
    """
    if store.trial != setup.trial:
        raise ValueError(f"{store.root} is a store of {store.trial or 'real runs'}, and this is {setup.trial or 'one'}")
    setup.look_for_device()
    for parent in run.parents():
        if store.state(parent) != "done":
            raise InputError(store.folder(parent), f"{run.name} needs this run, which is {store.state(parent)}")
    if is_own(run.data):
        _same(run, store, setup)
    code_state()  # now: the checkout may be another one when the run ends
    # rank 0 alone attempts it, and every process notes why it fails
    with stopping.catching(), ranks.leading(store.attempt(run)), store.noting(run), _reading(run):
        if ranks.once(lambda: store.settled(run)):
            phase = setup.phase(run)
            progress(phase.steps * phase.batch)
            return store.result(run)
        match run:
            case Pretrain():
                return pretrain(run, store, progress, setup)
            case Compress():
                return compress(run, store, progress, setup)
            case Finetune() if run.adapt is not None:
                return adapted.adapt(run, store, progress, setup)
            case Finetune():
                return finetune(run, store, progress, setup)


def pretrain(run: Pretrain, store: Store, progress: Callable[[int], None], setup: Setup) -> Result:
    """The dense model: MDETR's on captions and expressions, GLIP's on captions and prompts of class names."""
    source, phase = source_of(run, setup), setup.phase(run)
    base: TowerConfig = setup.sized(getattr(configs, training_of(run).model))
    vocabulary = source.vocabulary(base)
    config = base.model_copy(update={"vocabulary": len(vocabulary)})
    torch.manual_seed(run.seed)
    model = build(config)
    if run.parent is not None:
        take_towers(model, saved.load(store.folder(run.parent))[0])
    began = fill_towers(model, run.weights, setup, vocabulary)
    with ranks.in_turn():
        train, _ = learning(source, vocabulary, config)
        first = tuning("own" if source.own else FIRST[run.model], source, model, vocabulary)
    learner, aim, planned = courses(model, train, source, vocabulary, phase)

    def judge(learner: nn.Module) -> dict[str, Any]:
        return {f"val/{name}": value for name, value in first.glance(model).items()}

    loop = Loop(
        learner,
        phase,
        in_order(planned, phase, run.seed),
        aim,
        store.folder(run),
        run.seed,
        judge=judge,
        progress=progress,
        log=lambda record: store.log(run, record),
        device=setup.on(run),
    )
    loop.run()
    ranks.once(lambda: saved.save(store.folder(run), model, Plan.dense(towers_of(model, TOWERS)), vocabulary))
    counted = count.count(model, towers_of(model, TOWERS))
    params = {
        "stored": counted.stored,
        "towers": counted.total,
        "embeddings": counted.embeddings,
        "other": counted.other,
    }
    split = ABOUT[first.benchmark].splits[0]
    metrics = {"params": params, "splits": {f"{first.benchmark}/{split}": first.evaluate(model, split)}}
    return finish(run, store, loop, metrics, source, began)


def compress(run: Compress, store: Store, progress: Callable[[int], None], setup: Setup) -> Result:
    """One method decides, in continued pre-training with the same captions for every method."""
    source, phase = source_of(run, setup), setup.phase(run)
    dense, _, vocabulary = saved.load(store.folder(run.parent))
    assert not isinstance(dense, Dual)
    method = get(run.method, **run.options)
    if not run.recovery and method.stage == "training":
        raise InputError(run.name, f"{run.method} decides while training", "run it with recovery")
    with ranks.in_turn():
        train, held_out = learning(source, vocabulary, dense.config, run.task)
    # one benchmark alone says too little of an image, and a user's own data may say one thing
    per_image = 1 if run.task or source.own else phase.per_image
    # as many images as a weight step has: what costs, and what varies, is images
    device = setup.on(run)
    dense.to(device)
    held = Cursor(lambda start: held_out.stream(phase.batch // phase.per_image, run.seed + 1, start), device=device)

    towers = towers_of(dense, TOWERS)
    groups = linear_weights(towers)
    if run.size.sparsity is not None:
        groups["fusion"] = dense.fusion_weights()
    problem = Problem(
        model=dense,
        towers=towers,
        budget=Budget.from_size(run.size, dense, towers, groups, method.official),
        steps=phase.steps,
        heldout=held,
        seed=run.seed,
        groups=groups,
        sparsity=run.size.sparsity,
        token_masks=dense.token_masks(),
        across=lambda tensor: ranks.across(tensor)[0],
        **own_passes(dense, phase, lambda: f"{store.folder(run)}: held-out batch {held.position}"),
    )
    session = method.begin(problem)

    def probe(model: nn.Module) -> float:
        batches = held_out.epoch(min(phase.batch, len(held_out)), run.seed + 2)[:8]
        return mean_loss(model, [held_out.batch(i) for i in batches], phase.own_part, device)

    loop = Loop(
        dense,
        phase,
        lambda start: train.stream(phase.batch, run.seed, start, per_image, ranks.share(), draws(phase, run.seed)),
        objective,
        store.folder(run),
        run.seed,
        session=session,
        apply=lambda model, plan: apply(model, plan, TOWERS),
        probe=probe,
        cursor=held,
        progress=progress,
        log=lambda record: store.log(run, record),
        device=device,
    )
    model = loop.run()
    plan = loop.plan
    assert plan is not None
    ranks.once(lambda: saved.save(store.folder(run), model, plan, vocabulary))
    metrics = {
        "kind": method.kind,
        "options": method.options.model_dump(),
        "note": plan.note,
        "plan": plan.summary(),
        "seconds": loop.seconds,
        "session_seconds": loop.session_seconds,
        "projection_gap": loop.gap,
        **({"facts": loop.facts} if loop.facts else {}),
        **ratios(model.cpu(), plan, dense.config, held_out),
        **({} if run.size.sparsity is None else {"sparsity": sparsity(model, groups)}),
    }
    return finish(run, store, loop, metrics, source)


def finetune(run: Finetune, store: Store, progress: Callable[[int], None], setup: Setup) -> Result:
    """The compressed model learns one benchmark, and what to trim of its inputs where it shall; then it is judged."""
    source, phase = source_of(run, setup), setup.phase(run)
    model, plan, vocabulary = saved.load(store.folder(run.parent))
    torch.manual_seed(run.seed)  # for the heads and words that a benchmark brings
    if run.dual is not None:
        model = taught.student(run, model, plan)
    with ranks.in_turn():
        on = tuning(run.benchmark, source, model, vocabulary)
    first, *others = ABOUT[run.benchmark].splits
    zero_shot = {first: on.evaluate(model, first)} if on.untuned else {}
    trims = run.trim is not None and not run.trim.whole
    if trims:
        assert isinstance(model, MDETR) and run.trim is not None
        model.add_trimmer(run.trim)
    aim = trimmed.objective(phase.steps) if trims else objective
    if run.dual is not None:
        aim = taught.objective(run, store, on.vocabulary, setup.on(run))
    planned, made = [(on.train, phase.steps)], None
    if run.ask is not None:
        planned, made = asked.asked(run, store, on, phase.steps, setup.on(run))
    loop = Loop(
        model,
        phase,
        in_order(planned, phase, run.seed, phase.per_image),
        aim,
        store.folder(run),
        run.seed,
        progress=progress,
        log=lambda record: store.log(run, record),
        device=setup.on(run),
    )
    model = loop.run()
    ranks.once(lambda: saved.save(store.folder(run), model, plan, on.vocabulary, on.answers))
    judged = {split: on.evaluate(model, split) for split in (first, *others)}
    metrics: dict[str, Any] = {"splits": judged, "zero_shot": zero_shot}
    if made is not None:
        metrics["asked"] = made
    if trims:
        assert isinstance(model, MDETR)
        metrics["trimmed"] = trimmed.kept(model, on.data(first))
        with untrimmed(model):
            metrics["untrimmed"] = {first: on.evaluate(model, first)}
    elif isinstance(model, Dual):
        metrics["dual"] = taught.costs(model.eval(), on.data(first))
    elif run.parent.method == DENSE:
        metrics["baselines"] = on.baselines()
    return finish(run, store, loop, metrics, source)


@contextmanager
def _reading(run: Run) -> Iterator[None]:
    """What was made here for runs is not deleted while one reads it."""
    with ExitStack() as stack:
        for data in run.reads:
            if data in MADE:
                stack.enter_context(reading(data_folder(run.scale, data)))
        yield


def _same(run: Run, store: Store, setup: Setup) -> None:
    """Whether a user's own data are those that the run's parents learned from: several may have one name."""
    source = Source.from_scale(run.scale, run.data, setup.data_root)
    for parent in run.parents():
        if store.result(parent).manifest.get("data_hash") != source.hash:
            problem = f"{parent.name} learned from other annotations, which were called {run.data} too"
            raise InputError(source.root, problem, "give another folder with --out, or the data another name")
