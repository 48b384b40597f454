"""Gradual magnitude pruning: a growing share of the weights falls while training goes on; heads may weigh them."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from baselines.masking import Scores, lowest, plan_of, removals, weights
from snp.compression.method import Method, Session
from snp.compression.plan import Plan
from snp.compression.problem import Problem
from snp.compression.registry import register
from snp.compression.tower import Tower
from snp.errors import InputError

LEAST, MOST = 0.1, 10.0
"""What a head may weigh."""
TIMES = 4
"""How often heads are asked anew."""


@register
class Gradual(Method):
    """Weights of least magnitude fall, more of them every few steps, as the cubic schedule of Zhu and Gupta says.

    At step t of T the share s (1 - (1 - t/T)^3) has fallen; what has fallen does not come back. With `attribution`
    (ALTER, EMNLP Findings 2021: of its text the abstract alone was at hand, and there is no code) the weights of a head
    count as much as the head does: |w| times its share of its layer's self-attention attribution (Hao et al., AAAI
    2021). How both are joined is [ours].
    """

    name = "gradual"
    kind = "unstructured"
    stage = "training"
    source = "To prune, or not to prune (Zhu and Gupta, 2017); ALTER (Zhu et al., EMNLP Findings 2021)"
    summary = "zero a growing share of the smallest weights while training goes on"

    class Options(Method.Options):
        """How weights fall."""

        every: int = Field(10, ge=1, description="weight steps between two looks at the weights")
        until: float = Field(0.8, gt=0, le=1, description="share of the steps after which the last has fallen")
        attribution: bool = Field(False, description="weights of a head count as much as it contributes")
        beta: float = Field(1.0, ge=0, description="power of what a head contributes; 0: all heads count alike")
        points: int = Field(8, ge=1, description="of the integral that says what a head contributes")
        batches: int = Field(4, ge=1, description="that it is a mean over")

    options: Options

    def phase(self, steps: int) -> int:
        return round(steps / self.options.until)

    def start(self, problem: Problem) -> "GradualSession":
        return GradualSession(problem, self.options)


class GradualSession(Session):
    """The fall of the weights."""

    def __init__(self, problem: Problem, options: Gradual.Options) -> None:
        self.problem, self.options = problem, options
        dense = weights(problem)
        self.alive = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in dense.items()}
        self.wanted = removals(problem, dense)
        self.apply_at = max(1, round(options.until * problem.steps))
        self.heads: dict[str, Tensor] = {}
        """Of every tower what its heads weigh, [layers, heads]; empty where all weigh the same."""

    @property
    def looks(self) -> dict[int, int]:
        """Steps done -> weights that have fallen by then."""
        end = self.apply_at
        steps = sorted({*range(self.options.every, end, self.options.every), end})
        return {t: round(self.wanted * (1 - (1 - t / end) ** 3)) for t in steps}

    def overrides(self) -> dict[str, Tensor] | None:
        """What has fallen stays zero."""
        fallen = {name: mask for name, mask in self.alive.items() if not mask.all()}
        return {name: self.problem.model.get_parameter(name) * mask for name, mask in fallen.items()} or None

    def after_step(self, step: int) -> bool:
        looks = self.looks
        if step + 1 not in looks:
            return False
        steps = list(looks)
        if self.options.attribution and steps.index(step + 1) % -(-len(steps) // TIMES) == 0:
            self.heads = self._asked()
        scores = [score.masked_fill(~self.alive[name], -1.0) for name, score in self._scores().items()]
        self.alive = dict(zip(self.alive, lowest(scores, looks[step + 1]), strict=True))
        return False

    def _scores(self) -> Scores:
        """|w|, times what its head weighs."""
        parts = {}
        for name in self.alive:
            weight = self.problem.model.get_parameter(name).detach()
            if not weight.isfinite().all():
                raise InputError(name, "is not finite after training", "check the batches and the learning rate")
            parts[name] = weight.abs()
        for tower, weighs in self.heads.items():
            for block, c_h in zip(self.problem.towers[tower].blocks, weighs, strict=True):
                for role in "qkv":
                    ref = block.ref(role)
                    rows = parts[ref.weight][ref.rows]
                    rows *= c_h.to(rows).repeat_interleave(len(rows) // len(c_h))[:, None]
                columns = parts[block.ref("o").weight]
                columns *= c_h.to(columns).repeat_interleave(columns.shape[1] // len(c_h))
        return parts

    def _asked(self) -> dict[str, Tensor]:
        """(|attribution| / its mean over the layer)^beta of every head, within `LEAST` and `MOST`."""
        found = {}
        batches = list(self.problem.batches(self.options.batches))
        for name, tower in self.problem.towers.items():
            own = attribution(self.problem, tower, batches, self.options.points, self.overrides() or {})
            mean = own.mean(1, keepdim=True).clamp(min=1e-12)
            found[name] = (own / mean).pow(self.options.beta).clamp(LEAST, MOST)
        return found

    def plan(self) -> Plan:
        return plan_of(self.problem, self.alive)

    def facts(self) -> dict[str, Any]:
        """Tower -> of every head, layer by layer, the share of its weights that is left, and what it weighed."""
        found: dict[str, Any] = {}
        for name, tower in self.problem.towers.items():
            kept = []
            for block in tower.blocks:
                heads, total = torch.zeros(block.n_heads), 0
                for role in "qkvo":
                    ref = block.ref(role)
                    mask = self.alive[ref.weight].float().cpu()
                    own = (mask.T if role == "o" else mask[ref.rows]).unflatten(0, (block.n_heads, -1))
                    heads += own.flatten(1).sum(1)
                    total += own[0].numel()
                kept.append((heads / total).tolist())
            found[name] = {"kept": kept} | ({"weigh": self.heads[name].tolist()} if name in self.heads else {})
        return found

    def state_dict(self) -> dict[str, Any]:
        return {"alive": dict(self.alive), "heads": dict(self.heads)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.alive = {name: state["alive"][name].to(mask.device) for name, mask in self.alive.items()}
        self.heads = dict(state["heads"])


def attribution(
    problem: Problem, tower: Tower, batches: list[Any], points: int, given: Mapping[str, Tensor] | None = None
) -> Tensor:
    """How much each head lowers the loss, |.| summed over batches: [layers, heads].

    The sum over the entries of a head's self-attention attribution is the integral, from 0 to 1, of the gradient of
    -loss for a factor of the head's attention, all heads of the layer being scaled together; and a factor of a head's
    attention is one of its columns of the output map. So a scalar a head is enough, and no hook into the attention:
    attributions of a layer add up to what the layer's attention lowers the loss by. [ours: the trick; midpoint rule]

    Args:
        given: what stands in for weights already.
    """
    found = []
    for block in tower.blocks:
        name = block.ref("o").weight
        weight = (given or {}).get(name, problem.model.get_parameter(name)).detach()
        total = torch.zeros(block.n_heads)
        for batch in batches:
            total += signed(problem, name, weight, block.n_heads, batch, points, given or {}).abs()
        found.append(total)
    return torch.stack(found)


def signed(
    problem: Problem, name: str, weight: Tensor, heads: int, batch: Any, points: int, given: Mapping[str, Tensor]
) -> Tensor:
    """Attribution of the heads of one layer on one batch, [heads]; `name`: of its output map."""
    return torch.stack([*_along(problem, name, weight, heads, batch, points, given)]).mean(0)


def _along(
    problem: Problem, name: str, weight: Tensor, heads: int, batch: Any, points: int, given: Mapping[str, Tensor]
) -> Iterator[Tensor]:
    """Gradients of -loss for the factors of the heads, at points between none of the attention and all of it."""
    for point in range(points):
        scale = torch.full((heads,), (point + 0.5) / points, device=weight.device, dtype=weight.dtype)
        leaf = scale.requires_grad_()

        def make(leaf: Tensor = leaf) -> dict[str, Tensor]:
            return {**given, name: weight * leaf.repeat_interleave(weight.shape[1] // heads)}

        _, (gradient,) = problem.gradients(batch, make, [leaf])
        if gradient is None or not gradient.isfinite().all():
            raise InputError(name, "no finite gradient reaches its heads", "check the calibration batches")
        yield -gradient.float().cpu()
