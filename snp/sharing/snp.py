"""SNP, the paper's method: a hypernetwork learns what to share and prune while the model trains on."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from snp.compression.method import Method, Problem, Session
from snp.compression.method import Options as MethodOptions
from snp.compression.plan import Plan
from snp.compression.registry import register
from snp.compression.tower import COMPONENTS
from snp.errors import InputError
from snp.sharing.hypernetwork import FreeLogits, HyperNetwork, binary
from snp.sharing.objective import Alignment, budget_regularizer, effective_parameters
from snp.sharing.structure import KINDS, Geometry, Structure, Vectors, harden, project


class Options(MethodOptions):
    """Options of SNP. Defaults are for a compression phase of 600-1500 weight steps at desk scale."""

    prune: bool = Field(True, description="prune units in both towers [paper]")
    cross: bool = Field(True, description="share text units with the vision tower [paper]")
    blockwise: bool = Field(True, description="share text units inside blocks of text layers [paper]")
    hypernetwork: bool = Field(True, description="False: one free logit per unit instead [author: ablation]")
    block: int = Field(2, ge=1, description="text layers per block; the first is the base layer [ours]")
    every: int = Field(10, ge=1, description="weight steps per hypernetwork step [ours; author: 20]")
    lr: float = Field(3e-3, gt=0, description="Adam learning rate of the hypernetwork [ours; author: 1e-3]")
    head_scale: float = Field(0.1, gt=0, description="initial size of the hypernetwork's heads [ours]")
    tau: float = Field(0.4, gt=0, description="temperature of the Gumbel-sigmoid [author]")
    b0: float = Field(3.0, description="logit offset: training starts from the full, unshared model [author]")
    lam: float = Field(8.0, ge=0, description="lambda, weight of the budget regulariser [author: 4 to 16]")
    gamma: float = Field(
        1e-3, ge=0, description="weight of the alignment regulariser while structure is learned [ours]"
    )
    gamma_end: float = Field(
        1e-1, ge=0, description="its weight when the plan is applied; grows geometrically [ours]"
    )
    freeze: float = Field(
        0.5, gt=0, le=1, description="share of the steps after which the structure is frozen [ours]"
    )
    apply_at: float = Field(
        0.7, gt=0, le=1, description="share of the steps after which the plan is applied [ours]"
    )


@register
class SNP(Method):
    """Learning to jointly share and prune weights of two transformer towers [paper]."""

    name = "snp"
    kind = "joint"
    stage = "training"
    source = "Learning to Jointly Share and Prune Weights for Grounding Based Vision and Language Models (ICLR 2023)"
    summary = (
        "a hypernetwork learns which units to prune, share across towers, or share inside the text tower"
    )
    Options = Options

    def start(self, problem: Problem) -> "SNPSession":
        return SNPSession(problem, self.options)


class SNPSession(Session):
    """One compression by SNP: weight steps with an alignment penalty, hypernetwork steps in between.

    After `freeze` of the steps the learned structure is projected to the exact budget and kept; then gamma grows
    until `apply_at`, where the plan is applied; the compressed model is trained on tied.
    """

    def __init__(self, problem: Problem, options: Options) -> None:
        self.problem, self.options = problem, options
        self.geometry = Geometry.of(list(problem.towers.values()), problem.budget.fixed, options.block)
        self.target = problem.budget.target
        self.freeze_at = max(1, round(options.freeze * problem.steps))
        self.apply_at = max(self.freeze_at, round(options.apply_at * problem.steps))
        network = (
            HyperNetwork(self.geometry, problem.seed, options.head_scale)
            if options.hypernetwork
            else FreeLogits(self.geometry, problem.seed)
        )
        self.hyper: nn.Module = network
        self.optimizer = torch.optim.Adam(self.hyper.parameters(), lr=options.lr)
        self.generator = torch.Generator().manual_seed(problem.seed + 1)
        self.frozen, self.step = False, 0
        self.measured = {"task": float("nan"), "regularizer": float("nan")}
        self._adopt(self._learned())
        _, reached = project(self.geometry, self._logits(), self.target)
        if not reached and options.prune:
            raise InputError(
                "keep", f"{problem.budget.keep:g} is below what snp can reach", "choose a larger share"
            )

    # -- hypernetwork steps -------------------------------------------------------------------------------------

    def after_step(self, step: int) -> None:
        """Call after weight step `step` (from 0): every `every` steps the hypernetwork learns, until it is frozen."""
        self.step = step + 1
        if self.frozen:
            return
        if self.step % self.options.every == 0:
            self._hyper_step()
        if self.step >= self.freeze_at:
            structure, _ = project(self.geometry, self._logits(), self.target)
            self.frozen = True
            self._adopt(structure)
        elif self.step % self.options.every == 0:
            self._adopt(self._learned())

    def _hyper_step(self) -> None:
        """One step on L_task(x; W~(m,s,b)) + lambda * R(P, T): weights frozen, model in eval mode, held-out batch."""
        structure = self._sample()
        with evaluating(self.problem.model):
            task = self.problem.loss(self.problem.heldout(), effective_parameters(structure))
        excess = budget_regularizer(structure.stored(), self.target)
        parameters = list(self.hyper.parameters())
        gradients = torch.autograd.grad(task + self.options.lam * excess, parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        self.optimizer.step()
        self.measured = {"task": float(task.detach()), "regularizer": float(excess.detach())}

    def _logits(self) -> Vectors:
        """Logits with the offset b0; +inf (kept, own) where an operation is switched off."""
        on = {kind: getattr(self.options, kind) for kind in KINDS}
        logits = self.hyper()
        return {
            c: {k: logits[c][k] + (self.options.b0 if on[k] else float("inf")) for k in KINDS}
            for c in COMPONENTS
        }

    def _sample(self) -> Structure:
        logits = self._logits()
        own = {
            c: {
                k: binary(logits[c][k], self.options.tau, self.generator)
                if getattr(self.options, k)
                else torch.ones_like(logits[c][k])
                for k in KINDS
            }
            for c in COMPONENTS
        }
        return Structure.compose(self.geometry, own)

    @torch.no_grad()
    def _learned(self) -> Structure:
        return harden(self.geometry, self._logits())

    def _adopt(self, structure: Structure) -> None:
        self.structure, self.alignment = structure, Alignment(structure)

    # -- what the training loop asks for ------------------------------------------------------------------------

    def overrides(self) -> None:
        """None: the weights are not masked during pre-training, only aligned [paper]."""
        return None

    def gamma(self) -> float:
        """Weight of the alignment regulariser at this step: constant until the freeze, then growing [ours]."""
        first, last = self.options.gamma, self.options.gamma_end
        if not self.frozen or not first or self.apply_at == self.freeze_at:
            return first
        done = min(1.0, (self.step - self.freeze_at) / (self.apply_at - self.freeze_at))
        return first * (last / first) ** done

    def penalty(self) -> Tensor | None:
        """gamma * A(W; m, s, b), or None when nothing is to be aligned."""
        gamma = self.gamma()
        return gamma * self.alignment() if gamma and not self.alignment.empty else None

    def plan(self) -> Plan:
        """The frozen structure as a Plan; before the freeze, what the projection would make of the current one."""
        if self.frozen:
            structure, reached = self.structure, float(self.structure.stored()) <= self.target
        else:
            structure, reached = project(self.geometry, self._logits(), self.target)
        return structure.plan("" if reached else "sharing alone cannot reach the target: this is its ceiling")

    def log(self) -> dict[str, float]:
        """Stored parameters over target, shares of the receiver's units, last hypernetwork losses, gamma."""
        return {
            "budget_ratio": float(self.structure.stored()) / self.target,
            **self.structure.shares(),
            **{f"hyper_{name}": value for name, value in self.measured.items()},
            "gamma": self.gamma(),
        }

    def state_dict(self) -> dict[str, Any]:
        """Everything that a killed run needs to go on bit-equal: tensors, numbers and containers of them only."""
        s = self.structure
        return {
            "hyper": self.hyper.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": self.generator.get_state(),
            "frozen": self.frozen,
            "step": self.step,
            "measured": dict(self.measured),
            "structure": {"keep": s.keep, "cross": s.cross, "blockwise": s.blockwise},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.hyper.load_state_dict(state["hyper"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["rng"])
        self.frozen, self.step, self.measured = state["frozen"], state["step"], dict(state["measured"])
        self._adopt(Structure(self.geometry, **state["structure"]))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in eval mode, with every submodule's own mode restored afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
