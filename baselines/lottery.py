"""Lottery tickets: train, let the smallest weights fall, set the others back to the pre-trained ones, and again."""

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from baselines.masking import lowest, plan_of, schedule, weights
from snp.compression.method import Method, Session
from snp.compression.plan import Plan
from snp.compression.problem import Problem
from snp.compression.registry import register
from snp.errors import InputError


@register
class Lottery(Method):
    """Iterative magnitude pruning with rewinding, unstructured and global over all prunable weights.

    The phase is cut into `rounds` + 1 equal parts. At the end of all but the last the smallest trained weights fall and
    the others are set back to the pre-trained ones; the last part trains the ticket. Found on the pre-training task it
    is a universal ticket, on a benchmark a task ticket: what it trains on says which.

    In the paper every round is a whole training. Here all of them together have the steps that other methods have, so a
    round has 1/(rounds + 1) of them; and a rewind sets weights, optimizer and averages back, but does not begin the
    learning rate's schedule anew, which is one for the whole phase in every row: so the first rounds are trained at its
    height, and the ticket as it falls. [ours]
    """

    name = "lottery"
    kind = "unstructured"
    stage = "training"
    source = "Playing Lottery Tickets with Vision and Language (Gan et al., AAAI 2022)"
    summary = "train, zero the smallest weights, rewind the others to the pre-trained ones, repeat"

    class Options(Method.Options):
        """How a ticket is found."""

        rounds: int = Field(3, ge=1, description="prunings; the remaining weights shrink by the same factor in each")
        ticket: Literal["found", "random"] = Field("found", description="random: weights fall by chance, the control")

    options: Options

    def phase(self, steps: int) -> int:
        return (self.options.rounds + 1) * (steps // self.options.rounds)

    def start(self, problem: Problem) -> "LotterySession":
        return LotterySession(problem, self.options)


class LotterySession(Session):
    """The rounds of one ticket."""

    def __init__(self, problem: Problem, options: Lottery.Options) -> None:
        self.problem, self.options = problem, options
        dense = weights(problem)
        self.names = list(dense)
        self.alive = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in dense.items()}
        self.pretrained = {name: p.detach().clone() for name, p in problem.model.named_parameters()}
        length = max(1, problem.steps // (options.rounds + 1))
        fallen = schedule(problem, dense, options.rounds)
        self.rounds = {length * (r + 1): count for r, count in enumerate(fallen)}  # steps done -> weights fallen
        self.apply_at = length * options.rounds
        self.generator = torch.Generator().manual_seed(problem.seed)

    def overrides(self) -> dict[str, Tensor] | None:
        """What has fallen stays zero."""
        fallen = {name: mask for name, mask in self.alive.items() if not mask.all()}
        return {name: self.problem.model.get_parameter(name) * mask for name, mask in fallen.items()} or None

    def after_step(self, step: int) -> bool:
        if step + 1 not in self.rounds:
            return False
        scores = [self._score(name).masked_fill(~self.alive[name], -1.0) for name in self.names]
        self.alive = dict(zip(self.names, lowest(scores, self.rounds[step + 1]), strict=True))
        with torch.no_grad():
            for name, parameter in self.problem.model.named_parameters():
                parameter.copy_(self.pretrained[name])
        return True

    def _score(self, name: str) -> Tensor:
        if self.options.ticket == "random":
            drawn = torch.rand(self.alive[name].shape, generator=self.generator)
            return drawn.to(self.alive[name].device)
        trained = self.problem.model.get_parameter(name).detach()
        if not trained.isfinite().all():
            raise InputError(name, "is not finite after training", "check the batches and the learning rate")
        return trained.abs()

    def plan(self) -> Plan:
        return plan_of(self.problem, self.alive)

    def state_dict(self) -> dict[str, Any]:
        return {"alive": dict(self.alive), "pretrained": self.pretrained, "random": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.alive = {name: state["alive"][name].to(mask.device) for name, mask in self.alive.items()}
        self.pretrained = dict(state["pretrained"])
        self.generator.set_state(state["random"].cpu())
