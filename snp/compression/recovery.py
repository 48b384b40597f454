"""Recovery: the compressed model is trained on, taught by the dense one, and goes on from its state when killed."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from snp.compression import arguments, state
from snp.compression.distil import distance, tensors
from snp.compression.passes import apart, settle, stream
from snp.compression.plan import Plan
from snp.compression.recomputing import recomputing
from snp.compression.recover import Recover
from snp.compression.state import State, tensors_of
from snp.compression.statistics import evaluating
from snp.errors import InputError
from snp.terminal import progress

HALF = (torch.float16, torch.bfloat16)


@dataclass
class Recovery:
    """Trains `small` in place; `dense`, its teacher, is left as it was.

    Args:
        how: what was asked for.
        small: a compressed model, with its ties and masks. plan: what it was made by.
        batches: trained on. forward, loss: as in `snp.compress`.
        seed: of everything drawn at random.
        about: what makes two calls the same, as JSON has it: a state of another is refused.
    """

    how: Recover
    small: nn.Module
    plan: Plan
    dense: nn.Module
    batches: Iterable[Any]
    forward: Callable[[nn.Module, Any], Any]
    loss: Callable[[nn.Module, Any], Tensor] | None
    seed: int
    about: dict[str, Any]

    step: int = field(default=0, init=False)
    within: int = field(default=0, init=False)  # batches of the present pass that are gone
    over: bool = field(default=False, init=False)
    best: float | None = field(default=None, init=False)
    idle: int = field(default=0, init=False)  # looks since the best one
    sums: dict[str, float] = field(default_factory=dict, init=False)  # of losses since the last look
    kept: dict[str, Tensor] = field(default_factory=dict, init=False)  # parameters and buffers of the best look

    def run(self, found: State | None = None) -> None:
        """Train to the end, from the beginning or from a state.

        Raises:
            InputError: a loss, a gradient or a weight is not finite; outputs that are not alike; no batch.
        """
        self.device = next(self.small.parameters()).device
        with _teaching(self.dense), evaluating(self.small), apart({p.device for p in self.small.parameters()}):
            self.small.train()
            with recomputing(self.small, self.how.checkpointing):
                self._fresh()
                if found is None:
                    self._look()
                    self._save()
                else:
                    self._resume(found)
                self._train()
            _fill(tensors_of(self.small), self.kept)
        arguments.finite(self.small, "recovery made them so: lower its rate")

    def _fresh(self) -> None:
        trained = {name: p for name, p in self.small.named_parameters() if p.requires_grad}
        if not trained:
            raise InputError("recover", "no weight of the model is trained", "let some require gradients")
        groups = [[name for name, p in trained.items() if (p.dim() > 1) == matrix] for matrix in (True, False)]
        self.names = [name for group in groups for name in group]
        self.live = [trained[name] for name in self.names]
        # small steps are lost in half precision
        self.stepped = {n: p.detach().float() if p.dtype in HALF else p for n, p in trained.items()}
        decays = (self.how.weight_decay, 0.0)
        self.optimizer = torch.optim.AdamW(
            [
                {"params": [self.stepped[name] for name in group], "weight_decay": decay}
                for group, decay in zip(groups, decays, strict=True)
                if group
            ]
        )
        self.parts: dict[str, Callable[[Any], Tensor]] = {}
        if self.loss is not None and self.how.task:
            self.parts["loss"] = self._task
        if self.how.distil:
            self.parts["distillation"] = self._distance

    # -- steps ---------------------------------------------------------------------------------------------------

    def _train(self) -> None:
        source = stream(self.batches, self.seed, self.step * self.how.accumulate, self.within)
        saved = time.monotonic()
        shown = {"total": self.how.steps, "initial": self.step, "desc": "recovery", "unit": "step"}
        with progress(disable=not self.how.progress or self.over, **shown) as bar:
            while not self.over:
                now = self._step(source)
                self.sums = {name: self.sums.get(name, 0.0) + value for name, value in now.items()}
                self.step += 1
                if self.step % self.how.looks == 0 or self.step == self.how.steps:
                    self._look()
                held_out = {} if self.best is None else {"held_out": self.best}
                bar.set_postfix({"loss": sum(now.values()), **held_out}, refresh=False)
                bar.update()
                if self.over or time.monotonic() - saved >= self.how.save_every:
                    self._save()
                    saved = time.monotonic()

    def _step(self, source: Iterator[tuple[Any, int]]) -> dict[str, float]:
        """One weight step; returns its losses."""
        losses = dict.fromkeys(self.parts, 0.0)
        for _ in range(self.how.accumulate):
            batch, self.within = next(source)
            for name, part in self.parts.items():  # one after the other, so that one graph is there at a time
                with self._autocast():
                    value = part(batch) / self.how.accumulate
                losses[name] += self._finite(name, value)
                value.backward()
        stepped = [self.stepped[name] for name in self.names]
        for live, own in zip(self.live, stepped, strict=True):
            if own is not live and live.grad is not None:
                own.grad = live.grad.float()
        norm = torch.nn.utils.clip_grad_norm_(stepped, self.how.clip or math.inf)
        self._finite("the gradient", norm)
        for group in self.optimizer.param_groups:
            group["lr"] = self.how.rate_at(self.step)
        self.optimizer.step()
        self.optimizer.zero_grad()
        with torch.no_grad():
            for live, own in zip(self.live, stepped, strict=True):
                if own is not live:
                    live.copy_(own)
                live.grad = None
        return losses

    def _task(self, batch: Any) -> Tensor:
        assert self.loss is not None
        return self.how.task * arguments.scalar(self.loss(self.small, batch))

    def _distance(self, batch: Any) -> Tensor:
        with torch.no_grad():
            theirs = self._outputs(self.dense, batch)
        value = distance(self._outputs(self.small, batch), theirs, self.how.temperature)
        if torch.is_grad_enabled() and not value.requires_grad:
            raise InputError("outputs", "depend on no weight", "do not detach them, and let gradients be in `forward`")
        return self.how.distil * value

    def _outputs(self, model: nn.Module, batch: Any) -> dict[str, Tensor]:
        if self.how.outputs is None:
            return tensors(self.forward(model, batch))
        return tensors(self.how.outputs(model, batch), every=True)

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, torch.bfloat16, self.how.precision == "bfloat16")

    def _finite(self, name: str, value: Tensor) -> float:
        """The number, of the step that is under way."""
        number = float(value.detach())
        if not math.isfinite(number):
            problem = f"{name} is not finite at step {self.step + 1} of {self.how.steps}: {number}"
            raise InputError("recover", problem, "check its batch, and the learning rate")
        return number

    # -- looks ---------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """What was measured since the last look, and whether the weights are the best ones so far."""
        count = (self.step - 1) % self.how.looks + 1
        record = {"step": self.step, "rate": self.how.rate_at(max(self.step - 1, 0))}
        record |= {name: value / count for name, value in self.sums.items()}
        self.sums = {}
        if self.how.held_out is not None:
            record["held out"] = value = self._judge()
            better = self.best is None or value < self.best
            self.idle = 0 if better else self.idle + 1
            if better:
                self.best = value
                self.kept = {name: tensor.detach().clone() for name, tensor in tensors_of(self.small).items()}
        self.over = self.step == self.how.steps or self.idle == (self.how.patience or -1)
        if self.how.log is not None:
            self.how.log(record)

    @torch.no_grad()
    def _judge(self) -> float:
        """The mean loss of the held-out batches, which are drawn in the same way every time."""
        settle(self.seed, 0, self.how.held_out)
        total, count = 0.0, 0
        with evaluating(self.small), self._autocast():
            for batch in self.how.held_out:
                total += sum(float(part(batch)) for part in self.parts.values())
                count += 1
        if not count or not math.isfinite(total):
            problem = "holds no batch" if not count else f"gives a loss that is not finite after step {self.step}"
            raise InputError("recover.held_out", problem, "check its batches")
        return total / count

    # -- state ---------------------------------------------------------------------------------------------------

    def _save(self) -> None:
        if self.how.folder is None:
            return
        names = ("step", "within", "over", "best", "idle", "sums")
        groups = {
            "weight": tensors_of(self.small),
            "best": self.kept,
            "stepped": {n: p for n, p in self.stepped.items() if p is not self.small.get_parameter(n)},
        }
        for name in self.names:
            for part, tensor in self.optimizer.state[self.stepped[name]].items():
                groups.setdefault(part, {})[name] = tensor
        flat = {f"{group}/{name}": tensor for group, members in groups.items() for name, tensor in members.items()}
        state.write(self.how.folder, self.about, self.plan, {name: getattr(self, name) for name in names}, flat)

    def _resume(self, found: State) -> None:
        for name, value in found.numbers.items():
            setattr(self, name, value)
        _fill(tensors_of(self.small), found.group("weight"))
        _fill(self.stepped, found.group("stepped"))
        self.kept = found.group("best")
        parts = {part: found.group(part) for part in ("step", "exp_avg", "exp_avg_sq")}
        known = {
            place: {part: of[name] for part, of in parts.items()}
            for place, name in enumerate(self.names)
            if name in parts["step"]
        }
        self.optimizer.load_state_dict({"state": known, "param_groups": self.optimizer.state_dict()["param_groups"]})


@contextmanager
def _teaching(dense: nn.Module) -> Iterator[None]:
    """Within, no weight of the dense model learns, whatever a function of the user passes through it."""
    learned = [parameter for parameter in dense.parameters() if parameter.requires_grad]
    with evaluating(dense):
        try:
            for parameter in learned:
                parameter.requires_grad_(False)
            yield
        finally:
            for parameter in learned:
                parameter.requires_grad_(True)


@torch.no_grad()
def _fill(own: dict[str, Tensor], values: dict[str, Tensor]) -> None:
    for name, value in values.items():
        own[name].copy_(value)
