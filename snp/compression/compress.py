"""`snp.compress`: one call that compresses a model of one's own with any registered method."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from snp.compression import arguments, rounding
from snp.compression.budget import Budget
from snp.compression.finding import find
from snp.compression.method import Session, finalize, weight_step
from snp.compression.overriding import overriding
from snp.compression.plan import Plan
from snp.compression.problem import Problem, linear_weights
from snp.compression.recover import Recover, asked, source
from snp.compression.recovery import Recovery
from snp.compression.registry import get
from snp.compression.size import Size
from snp.compression.state import fingerprint, read
from snp.compression.statistics import TokenMask
from snp.compression.surgery import MADE, apply, copied, made_of, replaceable
from snp.compression.tower import iterate, towers_of
from snp.errors import InputError


def compress(
    model: nn.Module,
    method: str = "snp",
    *,
    keep: float | None = None,
    sparsity: float | None = None,
    towers: Mapping[str, str] | Literal["auto"] | None = None,
    exclude: Sequence[str] = (),
    groups: Mapping[str, Sequence[str]] | None = None,
    calibration: Iterable[Any] = (),
    forward: Callable[[nn.Module, Any], Any] | None = None,
    token_masks: Mapping[str, TokenMask] | None = None,
    loss: Callable[[nn.Module, Any], Tensor] | None = None,
    steps: int = 0,
    optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer] = torch.optim.AdamW,
    recover: Recover | int | None = None,
    round_to: int = 1,
    seed: int = 0,
    scores: bool = False,
    **options: Any,
) -> Any:
    """Compress a model; the one that was given is left as it was.

    Args:
        model: any module.
        method: a name of `snp methods`, or one that the tables have for a method with its options.
        keep: share of ALL parameters to remain, in (0, 1]; or
        sparsity: share of the prunable weights (those in `groups`) to zero, in [0, 1].
        towers: name -> path of a transformer tower in the model, the donor of shared weights first; needed by
            structured and sharing methods. Without `groups`, their linear weights are the prunable ones.
            "auto": all that are found, those that see pictures first; parts that cannot be cut stay whole.
        exclude: patterns of paths of attentions and feed-forward modules that stay whole, as "*.attn".
        groups: modality -> names of prunable weights, of linear maps; enough for unstructured methods.
        calibration: a list of batches, a DataLoader, or what else can be passed over again and again, for methods that
            look at data; a training method trains on it too.
        forward: (model, batch) -> anything; by default `model(batch)`.
        token_masks: modality, name of a weight or pattern of names -> (batch -> bool [B, L], False at padding): which
            of the tokens that these maps see count; the most specific key holds, and it must fit what the map sees.
        loss: (model, batch) -> scalar, for methods that need gradients.
        steps: weight steps that a method takes which decides while the model trains, and no other does. Where its
            rounds must be of equal length, as those of lottery, so many of them as fit.
        optimizer: makes, of parameters, what takes these steps.
        recover: how the compressed model is trained on, with the given one as its teacher: `snp.Recover(...)`, or the
            number of weight steps alone.
        round_to: of methods that cut units: how many every layer keeps of a component is a multiple of it, or all, so
            that kernels are fast: dimensions of each head, hidden units; of whole heads as many as make a width that is
            one. The budget is met from below as without it, but missed by less than the smallest block of so many
            units, in place of the smallest unit; snp makes up for that with units that it shares one by one. A
            component of fewer than two blocks stays whole.
        seed: of everything random in the method, and of recovery.
        scores: return the scores of the weights too.
        options: of the method, for example `mode="official"`.

    Returns:
        The compressed model, with the training modes of the one given, and its Plan, whose `masks` are bool tensors by
        parameter name (a name that is missing is kept whole); with `scores` also a dict of scores by parameter name.

    Raises:
        InputError: one line that names the argument at fault.
    """
    size = Size(arguments.share("keep", keep), arguments.share("sparsity", sparsity))
    steps, seed = arguments.whole("steps", steps), arguments.seed(seed)
    round_to = arguments.whole("round_to", round_to, least=1)
    calibration, exclude = arguments.batches(calibration), arguments.patterns(exclude)
    for name, given in (("forward", forward), ("loss", loss), ("optimizer", optimizer)):
        if given is not None or name == "optimizer":
            arguments.function(name, given)
    chosen, how = get(method, **options), asked(recover)
    learned = () if how is None else source(how, calibration, loss, scores)
    weights = arguments.groups(arguments.sound(model), groups)
    if towers == "auto":
        seen = find(model, exclude)
        paths, exclude = seen.paths, [*exclude, *seen.left]
    else:
        paths = arguments.paths(towers)
    if not paths and not weights:
        hint = "give towers={name: path} or groups={modality: names}"
        raise InputError("compress", "knows no weights to remove", hint)
    if not paths and chosen.kind != "unstructured":
        raise InputError("towers", f"{chosen.name} cuts or shares units of towers", "give towers={name: path}")
    if chosen.stage == "training" and (steps < 1 or loss is None):
        hint = "give both, and batches in calibration"
        raise InputError("steps, loss", f"{chosen.name} decides while the model trains", hint)
    if round_to > 1 and (chosen.kind == "unstructured" or chosen.official):
        problem = f"{chosen.name} cuts {'what the public code cuts' if chosen.official else 'no units'}"
        raise InputError("round_to", problem, "leave it out")
    forward = forward or (lambda model, batch: model(batch))

    def decide() -> tuple[nn.Module, Plan, dict[str, Tensor]]:
        """The compressed model, its plan and its scores; what was needed to decide is let go."""
        dense = copied(model)
        views = towers_of(dense, paths, exclude)
        if chosen.kind not in ("unstructured", "dense"):
            shared = ("*",) if chosen.kind in ("shared", "joint") else ()
            replaceable((block for _, _, block in iterate(views)), shared)
        named = weights or linear_weights(views)
        given = Problem(
            model=dense,
            towers=views,
            budget=Budget.from_size(size, dense, views, named, chosen.official),
            steps=chosen.phase(steps),
            loss=_functional(dense, loss),
            heldout=_endless(calibration).__next__,
            seed=seed,
            round_to=round_to,
            sparsity=size.sparsity,
            groups=named,
            forward=forward,
            token_masks=arguments.masks(token_masks, named),
            calibration=calibration,
        )
        session = chosen.begin(given)
        if (taken := session.apply_at) > steps:
            raise InputError("steps", f"{chosen.name} takes {taken} before it decides", f"give at least {taken}")
        if taken:
            _train(given, session, optimizer)
        plan = finalize(session, dense)
        rounding.check(plan, views, round_to, chosen.name)
        return apply(dense, plan, paths), plan, session.scores() if scores else {}

    if how is None:
        small, plan, found = decide()
    else:
        about = {
            "method": [chosen.name, chosen.options.model_dump(mode="json")],
            "size": asdict(size),
            "steps": steps,
            "seed": seed,
            "round_to": round_to,
            "towers": paths,
            "exclude": exclude,
            "groups": weights,
            "loss": loss is not None,
            "model": None if how.folder is None else fingerprint(model),
        } | how.about()
        left = None if how.folder is None else read(how.folder, about)
        small, plan, found = decide() if left is None else (apply(model, left.plan, paths), left.plan, {})
        Recovery(how, small, plan, model, learned, forward, loss, seed, about).run(left)
    told = {"method": chosen.name, "options": chosen.options.model_dump(mode="json", exclude_defaults=True)}
    setattr(small, MADE, replace(made_of(small), about=told))
    return (small, plan, found) if scores else (small, plan)


def _functional(model: nn.Module, loss: Callable[[nn.Module, Any], Tensor] | None) -> Callable[..., Tensor]:
    """The user's loss as methods see it, with tensors in place of parameters."""

    def functional(batch: Any, overrides: dict[str, Tensor] | None) -> Tensor:
        if loss is None:
            raise InputError("loss", "this method needs gradients", "give loss=lambda model, batch: ...")
        return arguments.scalar(overriding(model, overrides, lambda: loss(model, batch)))

    return functional


def _endless(batches: Iterable[Any]) -> Iterator[Any]:
    while True:
        empty = True
        for batch in batches:
            empty = False
            yield batch
        if empty:
            raise InputError("calibration", "holds no batch, or no further one", "give a list of batches")


def _train(given: Problem, session: Session, make: Callable[..., torch.optim.Optimizer]) -> None:
    """The weight steps before the plan is applied."""
    optimizer = arguments.optimizer(make(given.model.parameters()))
    for step in range(session.apply_at):
        with weight_step(session, step) as now:
            loss, penalty = given.loss(given.heldout(), now.overrides), now.penalty()
            total = loss if penalty is None else loss + penalty
            if not total.isfinite():
                problem = f"is not finite at step {step}: {float(total.detach())}"
                raise InputError("loss", problem, "check its batch and the learning rate")
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
        if now.again:
            optimizer = make(given.model.parameters())
    arguments.finite(given.model, "training made them so: check the loss and the learning rate")
