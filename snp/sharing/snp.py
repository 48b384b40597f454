"""SNP, the paper's method: a hypernetwork learns what to share and prune while the model trains on."""

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from snp.compression.basis import Basis
from snp.compression.method import Method, Session, StructuredOptions
from snp.compression.plan import Plan
from snp.compression.problem import Problem
from snp.compression.registry import register
from snp.compression.tower import Tower
from snp.errors import InputError
from snp.sharing.geometry import KINDS, Geometry
from snp.sharing.hypernetwork import FreeLogits, HyperNetwork, binary
from snp.sharing.objective import (
    Alignment,
    budget_regularizer,
    change,
    effective_parameters,
    fisher,
    prior,
    task_gradients,
)
from snp.sharing.projection import harden, offset, project, shifted
from snp.sharing.structure import Structure, Vectors

ALIGN_EVERY = 8
"""Weight steps between two decoupled alignments: often enough to be smooth, seldom enough to be free."""


@register
class SNP(Method):
    """Learning to jointly share and prune weights of two transformer towers [paper]."""

    name = "snp"
    kind = "joint"
    stage = "training"
    source = "Learning to Jointly Share and Prune Weights for Grounding Based Vision and Language Models, ICLR 2023"
    summary = "a hypernetwork learns which units to prune, share across towers, or share inside the text tower"

    class Options(StructuredOptions):
        """Options of SNP. Defaults are for a compression phase of 500 weight steps and more."""

        basis: Basis = Field("spectral", description="in which basis units are seen [ours]")
        prune: bool = Field(True, description="prune units in both towers [paper]")
        cross: bool = Field(True, description="share text units with the vision tower [paper]")
        blockwise: bool = Field(True, description="share text units inside blocks of text layers [paper]")
        hypernetwork: bool = Field(True, description="False: one free logit per unit instead [author: ablation]")
        block: int = Field(2, ge=1, description="text layers per block; the first is the base layer [ours]")
        every: int = Field(1, ge=1, description="weight steps per hypernetwork step [ours; author: 20]")
        lr: float = Field(3e-3, gt=0, description="Adam learning rate of the hypernetwork [ours; author: 1e-3]")
        head_scale: float = Field(0.1, gt=0, description="initial size of the hypernetwork's heads [ours]")
        tau: float = Field(0.4, gt=0, description="temperature of the Gumbel-sigmoid [author]")
        noise: float = Field(0.3, gt=0, description="size of the Gumbel noise [ours; author: 1]")
        b0: float = Field(3.0, description="logit offset: training starts from the full, unshared model [author]")
        track: bool = Field(True, description="the offset follows a target that falls from dense to budget [ours]")
        ramp: float = Field(
            0.7, gt=0, le=1, description="track: share of the learning in which the target falls [ours]"
        )
        prior: float = Field(2.0, ge=0, description="weight of the prior in the logits [ours; author: 0]")
        score: Literal["magnitude", "fisher"] = Field(
            "fisher", description="the prior: change of weights, or loss that it costs by the Fisher information [ours]"
        )
        scope: Literal["uniform", "global"] = Field(
            "global",
            description="the prior: units compete at first inside their layer and component, or over all [ours]",
        )
        batches: int = Field(8, ge=1, description="fisher: held-out batches [ours]")
        lam: float = Field(4.0, ge=0, description="lambda, weight of the budget regulariser [author: 4 to 16]")
        align: Literal["decoupled", "loss"] = Field("decoupled", description="how weights are aligned [ours]")
        pull: float = Field(0.03, ge=0, lt=1, description="decoupled: way to the structure per weight step [ours]")
        gamma: float = Field(1e-3, ge=0, description="loss: weight of the alignment until the freeze [ours]")
        gamma_end: float = Field(0.1, ge=0, description="loss: its weight when the plan is applied [ours]")
        freeze: float = Field(0.08, ge=0, le=1, description="share of the steps that learn the structure [ours]")
        apply_at: float = Field(0.1, ge=0, le=1, description="share of the steps before the plan is applied [ours]")

    options: Options

    def phase(self, steps: int) -> int:
        share = max(self.options.freeze, self.options.apply_at)
        return round(steps / share) if share else steps

    def check(self, towers: dict[str, Tower]) -> None:
        Geometry.from_towers(list(towers.values()), 0, self.options.block)

    def start(self, problem: Problem) -> "SNPSession":
        return SNPSession(problem, self.options)


class SNPSession(Session):
    """One compression by SNP: weight steps that align weights with the structure, hypernetwork steps in between.

    The budget. [author] keeps the logits' offset b0 and leaves the budget to the regulariser, over thousands of
    hypernetwork steps. Here there are 50 to 100 of them, in which the common fall of all logits is faster than the
    learning of their order, and the budget is overshot. So (`track`) the target falls linearly from the dense size
    to the budget, and the offset is set before every step such that the EXPECTED size is that target; the
    regulariser then weighs what a unit costs against what it is worth. [ours]

    The alignment. With align="loss", gamma * A is added to the weight loss, and gamma grows geometrically from the
    freeze on. With "decoupled" (as AdamW treats weight decay), a step towards the structure is taken every
    ALIGN_EVERY weight steps outside the optimizer: it neither meets the gradient clip nor costs a backward pass.
    After the freeze, the rest of the way shrinks linearly to zero, so that applying the plan changes nothing. [ours]

    Order: structure learned until `freeze_at`, then projected to the exact budget and kept; applied at `apply_at`;
    the compressed model is trained on tied.
    """

    def __init__(self, problem: Problem, options: SNP.Options) -> None:
        self.problem, self.options = problem, options
        self.geometry = Geometry.from_towers(list(problem.towers.values()), problem.budget.fixed, options.block)
        self.target = problem.budget.target
        self.freeze_at = round(options.freeze * problem.steps)
        self.apply_at = max(self.freeze_at, round(options.apply_at * problem.steps))
        self.hyper: nn.Module = (
            HyperNetwork(self.geometry, problem.seed, options.head_scale)
            if options.hypernetwork
            else FreeLogits(self.geometry, problem.seed)
        )
        self.optimizer = torch.optim.Adam(self.hyper.parameters(), lr=options.lr, fused=True)
        self.generator = torch.Generator().manual_seed(problem.seed + 1)
        self.frozen, self.step = False, 0
        self.measured: dict[str, float] = {}
        scores = fisher(problem, self.geometry, options.batches) if options.score == "fisher" else change(self.geometry)
        self.prior = prior(self.geometry, scores, options.scope)
        if not self._exact()[1] and options.prune:
            raise InputError("keep", f"{problem.budget.keep:g} is below what snp can reach", "choose a larger share")
        self._adopt(self._structure())
        self._freeze()

    # -- hypernetwork steps -------------------------------------------------------------------------------------

    def after_step(self, step: int) -> None:
        """Call after weight step `step` (from 0): every `every` steps the hypernetwork learns, until it is frozen."""
        self.step = step + 1
        if not self.frozen:
            if self.step % self.options.every == 0:
                self._hyper_step()
                self._adopt(self._structure())
            self._freeze()
        if self.options.align == "decoupled" and (self.step % ALIGN_EVERY == 0 or self.step == self.apply_at):
            self._pull()

    def _freeze(self) -> None:
        """Once enough is learned, the structure is that of the exact budget, for good."""
        if self.step >= self.freeze_at:
            self._adopt(self._exact()[0])
            self.frozen = True

    def _hyper_step(self) -> None:
        """One step on L_task(x; W~(m,s,b)) + lambda * R(P, T): weights frozen, model in eval mode, held-out batch."""
        structure = self._sample()
        task, slopes = task_gradients(self.problem, structure)
        excess = budget_regularizer(structure.stored(), self._target_now())
        parameters = list(self.hyper.parameters())
        sources = [*structure.vectors, self.options.lam * excess]
        gradients = torch.autograd.grad(sources, parameters, [*slopes, None], allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None and not gradient.isfinite().all():
                problem = f"its gradient at step {self.step} is not finite; the held-out loss is {float(task)}"
                raise InputError("snp", problem, "check the batches and the learning rate")
            parameter.grad = gradient
        self.optimizer.step()
        size = float(structure.stored().detach()) / self.target
        self.measured = {
            "hyper_task": float(task),
            "hyper_budget": float(excess.detach()),
            "hyper_size": size,
        }

    def _target_now(self) -> float:
        """What the structure may store at this step: under `track` it falls linearly from everything to the budget."""
        ramp = self.options.ramp * self.freeze_at if self.options.track else 0.0
        done = min(1.0, self.step / ramp) if ramp else 1.0
        return self.problem.budget.total + done * (self.target - self.problem.budget.total)

    @torch.no_grad()
    def _pull(self) -> None:
        """Move weights towards what the structure will make of them; at `apply_at` they have arrived."""
        rate = 1 - (1 - self.options.pull) ** ALIGN_EVERY
        if self.frozen:
            rate = max(rate, 1 / (1 + -(-(self.apply_at - self.step) // ALIGN_EVERY)))
        if rate and not self.alignment.empty:
            aims = effective_parameters(self.structure)
            torch._foreach_lerp_([self.problem.model.get_parameter(name) for name in aims], list(aims.values()), rate)

    def _logits(self) -> Vectors:
        """Logits without offset; +inf (kept, own) where an operation is switched off."""
        off = {kind: 0.0 if getattr(self.options, kind) else float("inf") for kind in KINDS}
        return {
            c: {k: v + self.options.prior * self.prior[c][k] + off[k] for k, v in made.items()}
            for c, made in self.hyper().items()
        }

    def _sample(self) -> Structure:
        """A random structure, of the expected size `_target_now` under `track`; differentiable."""
        logits, shift = self._logits(), self.options.b0
        if self.options.track:
            shift = offset(self.geometry, logits, self._target_now(), self.options.b0, self.options.noise)
        own = {
            c: {k: binary(v, self.options.tau, self.generator, self.options.noise) for k, v in vectors.items()}
            for c, vectors in shifted(logits, shift).items()
        }
        return Structure.compose(self.geometry, own)

    @torch.no_grad()
    def _structure(self) -> Structure:
        """The structure as learned so far, without noise, of the size `_target_now` under `track`."""
        if self.options.track:
            return project(self.geometry, self._logits(), self._target_now(), exact=False)[0]
        return harden(self.geometry, shifted(self._logits(), self.options.b0))

    def _exact(self) -> tuple[Structure, bool]:
        """What is learned so far as the structure of the exact budget, and whether that is reached."""
        return project(self.geometry, self._logits(), self.target, round_to=self.problem.round_to)

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
        """gamma * A(W; m, s, b), or None when nothing is to be aligned by the loss."""
        if self.options.align != "loss":
            return None
        gamma = self.gamma()
        return gamma * self.alignment() if gamma and not self.alignment.empty else None

    def plan(self) -> Plan:
        """The frozen structure as a Plan; before the freeze, what the projection would make of the current one."""
        if self.frozen:
            structure, reached = self.structure, float(self.structure.stored()) <= self.target
        else:
            structure, reached = self._exact()
        ceiling = "" if reached else "sharing alone cannot reach the target: this is its ceiling"
        return structure.plan("; ".join(filter(None, (self.geometry.note, ceiling))))

    def log(self) -> dict[str, float]:
        """What a person needs to see it learn.

        budget_ratio: stored parameters of the present structure over the budget's; pruned, cross, blockwise: parts of
        the receiver's units; spread: standard deviation of the pruning logits, which grows as units are told apart;
        hyper_*: task loss, budget regulariser and size over budget of the last sampled structure.
        """
        with torch.no_grad():
            logits = torch.cat([vectors["prune"].flatten() for vectors in self._logits().values()])
        return {
            "budget_ratio": float(self.structure.stored()) / self.target,
            **self.structure.shares(),
            **({"spread": float(logits.std())} if self.options.prune else {}),  # else all are infinite
            **self.measured,
        }

    def state_dict(self) -> dict[str, Any]:
        """Everything that a killed run needs to go on bit-equal: tensors, numbers and containers of them only."""
        s = self.structure
        return {
            "hyper": self.hyper.state_dict(),
            "prior": self.prior,
            "optimizer": self.optimizer.state_dict(),
            "rng": self.generator.get_state(),
            "frozen": self.frozen,
            "step": self.step,
            "measured": dict(self.measured),
            "structure": {"keep": s.keep, "cross": s.cross, "blockwise": s.blockwise},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.hyper.load_state_dict(state["hyper"])
        self.prior = state["prior"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["rng"])
        self.frozen, self.step, self.measured = state["frozen"], state["step"], dict(state["measured"])
        self._adopt(Structure(self.geometry, **state["structure"]))
