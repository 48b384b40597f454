"""The one training loop: resumable to the bit, with a moving average of the weights and an optional compression."""

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from snp import ranks
from snp.compression.method import Session, WeightStep, finalize, weight_step
from snp.compression.overriding import overriding
from snp.compression.plan import Plan
from snp.data.batch import Batch
from snp.data.crops import cropped
from snp.errors import InputError
from snp.experiment.recipes import Phase
from snp.models.checkpointing import checkpointing
from snp.training import state as states
from snp.training import stopping
from snp.training.cursor import Cursor
from snp.training.device import Device

SAVE_EVERY_SECONDS = float(os.environ.get("SNP_SAVE_EVERY", 45))
"""With the step that is under way, a killed run loses less than a minute."""

GRADIENT = "norm of the gradient"
Losses = dict[str, Tensor]
M = TypeVar("M", bound=nn.Module)


class _Passing(nn.Module):
    """The named losses of a batch as what a module says of it, which is what DistributedDataParallel can hold."""

    def __init__(self, model: nn.Module, losses: Callable[..., Losses]) -> None:
        super().__init__()
        self.model, self.losses = model, losses

    def forward(self, batch: Batch, overrides: dict[str, Tensor] | None, step: int) -> Losses:
        return self.losses(self.model, batch, overrides, step)


@dataclass
class Loop(Generic[M]):
    """Trains `model` for one phase, from its beginning or from the state left in `folder`.

    Several processes (snp.ranks) take a part of every batch each. Losses and gradients are those of the whole batch in
    all of them, so that weights, averages and a method's own state are equal; rank 0 alone writes.

    Args:
        model: trained in place until a plan is applied, then replaced by the smaller one; brought to `device`.
        phase: steps, batch, rates.
        stream: batches from a given step on, of which each process makes its own part (`ranks.share`); must depend on
            the step alone.
        losses: named, weighted losses of (model, batch, overrides, step); their sum is minimised.
        folder: where state.pt is kept, and the one before it; a run that was killed, or stopped by a signal (which
            saves first), goes on from it and ends the same.
        seed: of everything drawn at random within the loop.
        session, apply: the compression under way, and how its plan is applied to the model.
        probe: the loss of a model, of which `gap` says how far it jumps when the plan is applied.
        judge: measured every `phase.judge_every` steps and at the end, on the averaged weights, for the curve.
        cursor: where the session is in the held-out batches, kept with the state.
        progress: told the captions of every finished step.
        device: where batches pass the model, as "cuda"; a session must have been started on a model that is there.
    """

    model: M
    phase: Phase
    stream: Callable[[int], Iterator[Batch]]
    losses: Callable[[nn.Module, Batch, dict[str, Tensor] | None, int], Losses]
    folder: Path
    seed: int
    session: Session | None = None
    apply: Callable[[M, Plan], M] | None = None
    probe: Callable[[M], float] | None = None
    judge: Callable[[M], dict[str, Any]] | None = None
    cursor: Cursor | None = None
    progress: Callable[[int], None] = lambda captions: None
    log: Callable[[dict[str, Any]], None] = lambda record: None
    device: str = "cpu"

    plan: Plan | None = field(default=None, init=False)
    curve: list[dict[str, Any]] = field(default_factory=list, init=False)
    seconds: float = field(default=0.0, init=False)
    session_seconds: float = field(default=0.0, init=False)
    gap: float | None = field(default=None, init=False)
    facts: dict[str, Any] = field(default_factory=dict, init=False)
    sums: dict[str, float] = field(default_factory=dict, init=False)  # of losses since the last log record

    @property
    def on(self) -> Device:
        """Where it trains."""
        return Device(self.device)

    def run(self) -> M:
        """Train to the end and return the model with its averaged weights.

        Raises:
            Stopped: a signal asked for it; the state is saved.
            InputError: a loss, the gradient or a weight is not finite, in any process; it ends all of them before such
                a gradient changes a weight, and before such a weight is saved. The last state stays.
        """
        torch.manual_seed(self.seed + ranks.rank())  # each process drops out for itself
        self.model.to(self.device)
        self._fresh()
        step = self._resume()
        self.progress(step * self.phase.batch)
        batches = self.on.batches(cropped(self.stream(step), self.phase.crop, self.seed, step, ranks.share()))
        began = saved = time.monotonic()
        self.model.train()
        with stopping.held():
            while step < self.phase.steps:
                if self.session is not None and self.plan is None and step == self.session.apply_at:
                    self._finalize()
                for name, value in self._step(next(batches), step).items():
                    self.sums[name] = self.sums.get(name, 0.0) + value
                step += 1
                self.progress(self.phase.batch)
                last = step == self.phase.steps
                if step % self.phase.log_every == 0 or last:
                    self._record(step, last)
                now = time.monotonic()
                if ranks.any(now - saved > SAVE_EVERY_SECONDS or last or stopping.asked()):
                    self.seconds, began = self.seconds + now - began, now
                    self._save(step)
                    saved = time.monotonic()
                    if ranks.any(stopping.asked()):
                        stopping.stop()
        if self.session is not None and self.plan is None:
            self._finalize()
        self._load_average()
        return self.model

    def _record(self, step: int, last: bool) -> None:
        """A point of the curve, and a line of the log: mean losses since the one before, and what is measured now."""
        count = (step - 1) % self.phase.log_every + 1
        record = {"step": step, "lr": self.phase.rate(step - 1)} | {
            k: round(v / count, 4) for k, v in self.sums.items()
        }
        if self.session is not None and self.plan is None:
            record |= self.session.log()
        if self.judge is not None and (last or (self.phase.judge_every and step % self.phase.judge_every == 0)):
            record |= self._judged()
        self._finite(step, record)
        self.curve.append(record)
        if ranks.rank() == 0:
            self.log(record)
        self.sums = {}

    def _finite(self, step: int, values: Mapping[str, float]) -> None:
        """Whether the numbers of a step, from 1, are finite."""
        for name, value in values.items():
            if not math.isfinite(value):
                problem = f"{name} is {value}: training has diverged, or what it started from is not sound"
                hint = "see whether its weights and data are; this step is not saved, the state before it is kept"
                raise InputError(f"{self.folder}: step {step} of {self.phase.steps}", problem, hint)

    def _fresh(self) -> None:
        self.passing = ranks.parallel(_Passing(self.model, self.losses))
        self.names, self.parameters = map(list, zip(*self.model.named_parameters(), strict=True))
        self.average = [p.detach().clone() for p in self.parameters]
        # by rate: units that towers share learn as those who store them
        groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
        for name, parameter in zip(self.names, self.parameters, strict=True):
            groups.setdefault((self.phase.held(name), self.phase.apart(name)), []).append(parameter)
        self.rates = list(groups)
        self.optimizer = torch.optim.AdamW(
            [{"params": group} for group in groups.values()],
            lr=self.phase.lr,
            weight_decay=self.phase.weight_decay,
            fused=True,
        )

    def _step(self, batch: Batch, step: int) -> dict[str, float]:
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = self.phase.rate(step, *rate)
        with weight_step(self.session if self.plan is None else None, step) as now:
            sums = self._weights(batch, step, now)
        if now.again:
            self._fresh()
        self.session_seconds += now.seconds
        return sums

    def _weights(self, batch: Batch, step: int, now: WeightStep) -> dict[str, float]:
        """Change the weights, and the averages after them; returns the losses."""
        # processes pass their parts at the same time; the smallest share has a caption for each of its parts
        count = min(-(-self.phase.accumulate // ranks.size()), self.phase.batch // ranks.size())
        parts = [batch] if count == 1 else list(batch.parts(count))
        sums: dict[str, float] = {}
        with checkpointing(self.model, self.phase.checkpointing):
            for part in parts:
                for name, value in self._backward(part, step, now, last=part is parts[-1]).items():
                    sums[name] = sums.get(name, 0.0) + value
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, self.phase.clip, foreach=True))
        sums = ranks.total(sums | {GRADIENT: norm})  # what is not finite in one process is not in all
        norm = sums.pop(GRADIENT)
        self._finite(step + 1, {f"loss '{name}'": value for name, value in sums.items()} | {GRADIENT: norm})
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            # a young average follows faster, so that it forgets where it started
            decay = min(self.phase.ema, (1 + step) / (10 + step))
            torch._foreach_lerp_(self.average, self.parameters, 1 - decay)
        return sums

    def _backward(self, batch: Batch, step: int, now: WeightStep, last: bool) -> dict[str, float]:
        """Add the gradients of a part of a batch, and with the last those of the penalty; returns the losses."""
        with nullcontext() if last else ranks.apart(self.passing):
            with self.on.autocast(self.phase.precision):
                parts = self.passing(batch, now.overrides, step)
            penalty = now.penalty() if last else None
            if penalty is not None:  # equal in all processes, and what they have is added up
                parts = parts | {"penalty": penalty / ranks.size()}
            total = torch.stack(list(parts.values())).sum()
            keep = not last and now.overrides is not None  # all parts share how overrides were made
            overriding(self.model, now.overrides, lambda: total.backward(retain_graph=keep))
        return {name: float(value.detach()) for name, value in parts.items()}

    def _finalize(self) -> None:
        assert self.session is not None
        plan, dense = finalize(self.session, self.model), self.model
        self.facts = self.session.facts()
        self._compress(ranks.once(lambda: plan))  # of one process, as are the weights then: they cannot drift apart
        if self.probe is not None:
            before, after = self.probe(dense), self.probe(self.model)
            self.gap = after - before

    def _compress(self, plan: Plan) -> None:
        assert self.apply is not None
        self.plan = plan
        self.model = self.apply(self.model, plan)
        self.model.train()
        self._fresh()

    def _load_average(self) -> None:
        with torch.no_grad():
            torch._foreach_copy_(self.parameters, self.average)

    def _judged(self) -> dict[str, Any]:
        assert self.judge is not None
        live = [p.detach().clone() for p in self.parameters]
        self._load_average()
        found = self.judge(self.model)
        with torch.no_grad():
            torch._foreach_copy_(self.parameters, live)
        return found

    def _save(self, step: int) -> None:
        state = {
            "step": step,
            "phase": self.phase.model_dump(),
            "plan": None if self.plan is None else self.plan.to_json(),
            "weights": dict(zip(self.names, [p.detach() for p in self.parameters], strict=True)),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "session": self.session.state_dict() if self.session is not None and self.plan is None else None,
            "cursor": self.cursor.position if self.cursor else 0,
            **self.on.random(),
            "curve": self.curve,
            "seconds": self.seconds,
            "session_seconds": self.session_seconds,
            "gap": self.gap,
            "facts": self.facts,
            "sums": self.sums,
        }
        ranks.once(lambda: self._write(state))

    def _write(self, state: dict[str, Any]) -> None:
        self._finite(state["step"], {f"weight {name}": float(w.sum()) for name, w in state["weights"].items()})
        states.write(self.folder, state)

    def _resume(self) -> int:
        """Go on from the last state that can be read; the steps done by then."""
        path, state = states.load(self.folder)
        if state is None:
            return 0
        if Phase.model_construct(**state["phase"]) != self.phase:  # a field newer than the state has its default
            raise InputError(path, "was left by another recipe", "delete its folder to start again")
        if state["plan"] is not None:
            self._compress(Plan.from_json(state["plan"]))
        states.fill(path, dict(zip(self.names, self.parameters, strict=True)), state["weights"])
        self.average = state["average"]
        self.optimizer.load_state_dict(state["optimizer"])
        if self.session is not None and self.plan is None:
            self.session.load_state_dict(state["session"])
        if self.cursor is not None:
            self.cursor.seek(state["cursor"])
        self.on.draw_on(state, path)
        self.curve, self.seconds, self.gap = state["curve"], state["seconds"], state.get("gap")
        self.facts = state.get("facts", {})
        self.session_seconds, self.sums = state["session_seconds"], state["sums"]
        return state["step"]
