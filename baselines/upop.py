"""UPop: masks on attention dimensions and FFN neurons of all towers, lowered together while the model trains."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from baselines.masking import Mode, impossible
from snp.compression.block import Component, Part
from snp.compression.method import Method, Session, StructuredOptions
from snp.compression.plan import Plan, shapes
from snp.compression.problem import Problem
from snp.compression.registry import register
from snp.compression.rounding import blocks, step_of
from snp.compression.tower import Patch, Shape, Site, iterate
from snp.errors import InputError

Key = tuple[str, int, str]
"""(tower, layer, "attention", or a component that is cut as a whole): one mask."""
PUBLIC_COST = 36.0
"""What the public code of CLIP and BLIP counts an attention entry as, in FFN entries."""


@register
class UPop(Method):
    """Unified and progressive pruning of both towers.

    One mask entry stands for a head dimension of q, k and v in all heads of a layer (after the bias, so the logits
    carry its square), or for a neuron before its activation. G is the gradient of every entry, accumulated over all
    search steps; z = (G - mean)/std over all layers and towers, of attention and of FFN entries separately; the largest
    z goes first. At step t of T the share p_t = p sin(pi (t+1)/2T) of the cost has gone: those entries are 1 - p_t/p,
    all others 1, anew at every ranking, so entries may return. At T they are 0, and cutting them changes nothing.

    The L1 terms of the paper are left out: the masks are not stepped by the optimizer, a constant gradient falls to the
    z-score, and nothing of them is left. After cutting the dense scale of the logits stays, as it must.

    Official: G is the gradient of the last batch alone, as mixed precision leaves it there; an attention entry costs as
    much as 36 neurons, whatever the sizes; entries are ranked after steps 0, interval, 2 interval, .. and the last; and
    the entry whose summed cost comes nearest to p_t is a threshold: what lies above it is lowered, itself not, and of
    every mask the lowest z neither, although its cost is in the sum. So the size that is left misses the budget.
    Corrected [ours]: exact costs, only what is lowered is summed, and the last ranking meets the budget from below. In
    both, cutting keeps the function [ours]; that of the public code of CLIP, BLIP and DeiT does not.
    """

    name = "upop"
    kind = "structured"
    stage = "training"
    source = "UPop: Unified and Progressive Pruning for Vision-Language Transformers (Shi et al., ICML 2023)"
    summary = "lower the mask entries of largest accumulated gradient, ranked over all layers and modalities"

    class Options(StructuredOptions):
        """Options of UPop; `mode` official sets what the public code does under mixed precision."""

        mode: Mode = Field(
            "corrected",
            description="official: ranked as in the public code, by gradients of the last batch alone, "
            "attention entries at the cost of 36",
        )
        attention_cost: float | None = Field(
            None,
            gt=0,
            description="cost of an attention entry in FFN entries; none: exact (public: 36, DeiT-S 12)",
        )
        search: float = Field(0.5, gt=0, le=1, description="share of the steps that search; others retrain [ours: 0.5]")
        interval: int = Field(10, ge=1, description="weight steps between two rankings")

    options: Options

    def phase(self, steps: int) -> int:
        return round(steps / self.options.search)

    def start(self, problem: Problem) -> "UPopSession":
        return UPopSession(problem, self.options)


class UPopSession(Session):
    """A search by UPop along the weight steps; cut at `apply_at`, retrained from then on.

    All mask entries [E] lie in one tensor, tower by tower, layer by layer, attention before FFN.
    """

    def __init__(self, problem: Problem, options: UPop.Options) -> None:
        self.options, self.problem = options, problem
        self.apply_at = max(1, round(options.search * problem.steps))
        self.spans: dict[Key, slice] = {}
        self.steps: dict[Key, int] = {}
        exact, attention, start = [], [], 0
        for name, layer, block in iterate(problem.towers):
            shape = problem.towers[name].shape
            for part, components in masks_of(shape).items():
                size, cost = shape.units(components[0]), sum(map(shape.unit_cost, components))
                self.spans[name, layer, part] = slice(start, start + size)
                together = (step_of(block.components[component], problem.round_to) for component in components)
                self.steps[name, layer, part] = math.lcm(*together)
                exact += [cost] * size
                attention += [not part.startswith("ffn")] * size
                start += size
        self.exact_E, self.attention_E = torch.tensor(exact, dtype=torch.float64), torch.tensor(attention)
        least = sum(
            float(self.exact_E[span.start]) * len(blocks(self.exact_E[span], self.steps[key])[0])
            for key, span in self.spans.items()
        )
        if problem.removals > float(self.exact_E.sum()) - least:
            raise impossible(problem, int(self.exact_E.sum()) - int(least), 0)
        self.official = options.mode == "official"
        relative = options.attention_cost or (PUBLIC_COST if self.official else None)
        self.cost_E = self.exact_E if relative is None else torch.where(self.attention_E, relative, 1.0).double()
        self.share = problem.removals / float(self.exact_E.sum())
        self.mask_E = torch.ones(start, requires_grad=True)

    def overrides(self) -> dict[str, Tensor]:
        """Weights and biases of q, k, v and fc1, every row times its mask entry."""
        if self.official:  # the last batch alone is ranked
            self.mask_E.grad = None
        made: dict[str, Tensor] = {}
        mask_E = self.problem.across(self.mask_E)
        for name, layer, block in iterate(self.problem.towers):
            patch, shape = Patch(), self.problem.towers[name].shape
            for part, components in masks_of(shape).items():
                for component in components:
                    units = shape.expand(component, mask_E[self.spans[name, layer, part]])
                    for piece in rows_of(block.components[component]):
                        ref, row = block.ref(piece.role), units.repeat_interleave(piece.each)
                        for parameter in filter(None, (ref.weight, ref.bias)):
                            patch.add(parameter, ref.start, row)
            for parameter, mask in patch.parameters().items():
                dense = self.problem.model.get_parameter(parameter)
                factor = mask.to(dense.device)
                # made, and so differentiated, in the precision of masks: sums of half precision would overflow
                made[parameter] = (dense * (factor[:, None] if dense.dim() == 2 else factor)).to(dense.dtype)
        return made

    def after_step(self, step: int) -> None:
        last = step + 1 >= self.apply_at
        if not last and (step if self.official else step + 1) % self.options.interval:
            return
        if self.official:
            share = self.share * ((1 - math.cos(math.pi * (step + 1) / self.apply_at)) / 2) ** 0.5
            gone = lowered_officially(self.gradient(), self.attention_E, self.cost_E, self.spans.values(), share)
            level = 1 - share / (self.share or 1)
        else:
            done = 1.0 if last else math.sin(math.pi * (step + 1) / (2 * self.apply_at))
            gone, level = self._chosen(done), 1 - done
        with torch.no_grad():
            self.mask_E.copy_(torch.where(gone, level, 1.0))

    def gradient(self) -> Tensor:
        """The gradient of every entry by now, [E]; InputError where one is not finite."""
        gradient = torch.zeros_like(self.mask_E) if self.mask_E.grad is None else self.mask_E.grad
        if not gradient.isfinite().all():
            raise InputError("upop", "the gradient of a mask is not finite", "check the batches and the learning rate")
        return gradient

    def z(self) -> Tensor:
        """The z-score of every entry's gradient, [E]: over layers and towers, attention and FFN apart."""
        z = self.gradient().double()
        for group in (self.attention_E, ~self.attention_E):
            z[group] = (z[group] - z[group].mean()) / z[group].std().clamp(min=1e-30)
        return z

    def _chosen(self, done: float) -> Tensor:
        """Bool [E]: the entries to lower when `done` of the way to the target is made; one of each mask stays."""
        z = self.z()
        free = torch.ones_like(self.attention_E)
        for span in self.spans.values():
            free[span.start + int(z[span].argmin())] = False
        order = z.argsort(descending=True, stable=True)
        order = order[free[order]]
        gone = torch.zeros_like(free)
        if done == 1 and self.cost_E is self.exact_E:
            return self._exactly(z)
        reached = torch.cat([torch.zeros(1), self.cost_E[order].cumsum(0)])
        aim = done * self.share * float(self.cost_E.sum())
        gone[order[: int((reached - aim).abs().argmin())]] = True
        return gone

    def _exactly(self, z: Tensor) -> Tensor:
        """Bool [E]: all but the least prunable that fit, so that the budget is met from below [ours]; if so asked, by
        blocks of them."""
        gone, others = torch.zeros_like(self.attention_E), []
        room = float(self.exact_E.sum()) - self.problem.removals
        for key, span in self.spans.items():
            cost, values = float(self.exact_E[span.start]), z[span].tolist()
            first, *rest = blocks(-z[span], self.steps[key])
            room -= cost * len(first)
            for units in rest:
                mean = sum(values[i] for i in units) / len(units)
                others.append((mean, -span.start - max(units), cost * len(units), [span.start + i for i in units]))
        for _, _, cost, entries in sorted(others):
            fits = cost <= room
            gone[entries] = not fits
            room -= cost if fits else 0.0
        return gone

    def plan(self) -> Plan:
        """The entries that are lowered by now, pruned."""
        keep = {}
        for (name, layer, part), span in self.spans.items():
            for component in masks_of(self.problem.towers[name].shape)[part]:
                keep[Site(name, layer, component)] = self.mask_E.detach()[span] == 1
        return Plan(shapes(self.problem.towers), keep)

    def log(self) -> dict[str, float]:
        return {"lowered": float(self.exact_E[self.mask_E.detach() < 1].sum() / self.exact_E.sum())}

    def state_dict(self) -> dict[str, Any]:
        gradient = self.mask_E.grad
        return {"mask": self.mask_E.detach().clone(), "gradient": None if gradient is None else gradient.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        with torch.no_grad():
            self.mask_E.copy_(state["mask"])
        self.mask_E.grad = None if state["gradient"] is None else state["gradient"].clone().to(self.mask_E.device)


def masks_of(shape: Shape) -> dict[str, tuple[str, ...]]:
    """Name of each mask of a layer -> the components that it cuts alike."""
    both = {"attention": ("qk", "vo")} if "qk" in shape.components else {}
    return both | {c: (c,) for c in shape.components if c not in ("qk", "vo")}


def rows_of(component: Component) -> list[Part]:
    """The rows that a mask multiplies: of queries, keys and values, or of neurons before the activation."""
    names = ("q", "k", "v", "fc1")  # and a number behind them, in a second attention of a layer
    return [part for part in component.parts if part.dim == 0 and part.role.startswith(names)]


def lowered_officially(
    gradient_E: Tensor, attention_E: Tensor, cost_E: Tensor, masks: Iterable[slice], share: float
) -> Tensor:
    """Bool [E]: the entries that the public code lowers when `share` of the whole cost is due. In float32, as there.

    Args:
        attention_E: which entries are of attention; the others are of FFN.
        masks: the entries of each mask.
    """
    z_E = torch.empty_like(gradient_E)
    for group_E in (attention_E, ~attention_E):
        z = gradient_E[group_E]
        z_E[group_E] = (z - z.mean()) / z.std().clamp(min=1e-30)
    order = torch.cat([attention_E.nonzero(), (~attention_E).nonzero()])[:, 0]
    descending, place = z_E[order].sort(descending=True)
    cost = cost_E.float()[order]
    threshold = descending[(cost[place].cumsum(0) - cost.sum() * share).abs().argmin()]
    kept_E = z_E <= threshold
    for mask in masks:
        kept_E[mask] |= z_E[mask] == z_E[mask].min()
    return ~kept_E
