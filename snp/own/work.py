"""A compression that was asked for in the shell: told before it is done, done, and told again."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from snp.compression import count
from snp.compression.budget import Budget
from snp.compression.compress import compress
from snp.compression.finding import Towers
from snp.compression.plan import Plan
from snp.compression.problem import linear_weights
from snp.compression.recover import Recover
from snp.compression.size import Size
from snp.compression.tower import Tower, towers_of
from snp.errors import InputError
from snp.own.asked import Asked
from snp.own.learning import DISTANCE, Loss, loss_of
from snp.own.looking import towers_in
from snp.own.origin import PIXELS, WORDS, Origin, origin
from snp.own.reading import Batches, captioned, parted, pictures
from snp.terminal import progress

STEPS, RATE = 50, 1e-5
HELD_OUT = 5
"""Every so many-th batch judges recovery, and is not trained on."""
LOOKS = 16
"""Batches that a method looks at, for what it may take; more than one or two say themselves how many."""


@dataclass
class Work:
    """Everything that the compression needs, each made when it is asked for."""

    asked: Asked
    out: Path

    @cached_property
    def origin(self) -> Origin:
        return origin(self.asked.model, self.asked.weights)

    @cached_property
    def dense(self) -> nn.Module:
        return self.origin.whole().to(self.asked.device)

    @cached_property
    def found(self) -> Towers:
        """Towers of the model, found or as they are named."""
        named = self.asked.towers
        if named:
            views = towers_of(self.dense, named, self.asked.exclude)
            return Towers(views, dict(named), {})
        return towers_in(self.dense, self.asked.model, self.asked.exclude)

    @cached_property
    def whole(self) -> list[str]:
        """Patterns of parts that stay whole."""
        return [*self.asked.exclude, *self.found.left]

    @cached_property
    def batches(self) -> Batches | None:
        """The user's data; None: there are none."""
        if (folder := self.asked.data) is None:
            return None
        reads = self.origin.reads(self.dense)
        if PIXELS not in reads:
            raise InputError(
                "--data", f"{self.asked.model} sees no pictures", "use --data none, or snp.compress in Python"
            )
        items = captioned(folder) if WORDS in reads else pictures(folder)
        read = self.origin.reader(self.dense) if WORDS in reads else None
        batches = parted(items, self.asked.batch, self.asked.seed)
        return Batches(batches, self.origin.eye(self.dense), read, self.asked.device)

    @cached_property
    def learned(self) -> tuple[Loss, str] | None:
        """The loss, and what it is; None where there are no data."""
        if self.batches is None:
            return None
        return loss_of(self.origin, self.dense, next(iter(self.batches)))

    def run(self) -> tuple[nn.Module, Plan]:
        """The compressed model, and its plan."""
        asked, batches = self.asked, self.batches
        trains = asked.chosen.stage == "training"
        steps = (asked.steps or STEPS) if trains else 0
        torch.manual_seed(asked.seed)
        shown = {"desc": asked.method, "unit": "step" if trains else "batch", "total": steps or None}
        with progress(disable=asked.chosen.stage == "one-shot", **shown) as bar:
            small, plan = compress(
                self.dense,
                asked.method,
                keep=asked.keep,
                sparsity=asked.sparsity,
                towers=self.found.paths,
                exclude=self.whole,
                calibration=() if batches is None else batches if trains else _Watched(batches, bar.update),
                forward=self.origin.forward,
                loss=None if self.learned is None else self.learned[0],
                steps=steps,
                optimizer=lambda parameters: self._optimizer(parameters, bar.update if trains else None),
                recover=self._recover(),
                round_to=asked.round_to,
                seed=asked.seed,
                **asked.options,
            )
        return small, plan

    def _optimizer(self, parameters: Iterable[nn.Parameter], tick: Callable[[], Any] | None) -> torch.optim.Optimizer:
        made = torch.optim.AdamW(parameters, lr=self.asked.rate or RATE)
        if tick is not None:
            made.register_step_post_hook(lambda *_: tick())
        return made

    def _recover(self) -> Recover | None:
        if self.asked.recover is None or self.batches is None or self.learned is None:
            return None
        train, held_out = self.batches.split(HELD_OUT)
        return Recover(
            steps=self.asked.recover,
            **({} if self.asked.rate is None else {"rate": self.asked.rate}),
            task=0.0 if self.learned[1] == DISTANCE else 1.0,
            batches=train,
            held_out=held_out if len(held_out) else None,
            folder=self.out,
        )

    # ------------------------------------------------------------------ what is told

    def facts(self, small: nn.Module, plan: Plan) -> dict[str, Any]:
        """What was found, as JSON has it; neither operations nor time."""
        views = towers_of(small, self.found.paths, shapes=plan.towers)
        return self.about() | {
            "dense": sizes(self.dense, self.found.towers),
            "small": sizes(small, views),
            "weights_kept": weights_kept(plan, self.found.towers) if plan.masks else [],
            "units": [
                {"tower": tower, "component": component, "heads": plan.towers[tower].heads(component), **found}
                for tower, components in plan.summary()["units"].items()
                for component, found in components.items()
            ],
            "note": plan.note,
        }

    def about(self) -> dict[str, Any]:
        """What is compressed, and by what."""
        return {
            "name": self.asked.model,
            "class": type(self.dense).__name__,
            "library": self.origin.library,
            "weights": self.origin.weights,
            "method": self.asked.method,
            "kind": self.asked.chosen.kind,
            "loss": self.learned[1] if self.learned else "",
        }

    def planned(self) -> dict[str, Any]:
        """What would be done, as JSON has it."""
        budget = Budget.from_size(
            Size(self.asked.keep, self.asked.sparsity),
            self.dense,
            self.found.towers,
            linear_weights(self.found.towers),
            self.asked.chosen.official,
        )
        self.asked.chosen.check(self.found.towers)
        seen = sum(map(len, self.batches.items)) if self.batches else 0
        return {
            "total": budget.total,
            "target": budget.target,
            "towers": self.found.paths,
            "left": self.found.left,
            "pictures": seen,
            "batches": len(self.batches) if self.batches else 0,
            "steps": (self.asked.steps or STEPS) if self.asked.chosen.stage == "training" else 0,
            "recover": self.asked.recover or 0,
            "seconds": self.seconds(),
        }

    def seconds(self) -> dict[str, float]:
        """Roughly what each part takes, by one batch that is tried; empty where nothing is passed through the model."""
        if self.batches is None or self.learned is None:
            return {}
        batch, loss, passes = next(iter(self.batches)), self.learned[0], []
        for _ in range(2):  # the first one is slow
            start = time.perf_counter()
            loss(self.dense, batch).backward()
            passes.append(time.perf_counter() - start)
        self.dense.zero_grad()
        found = {}
        looks = min(getattr(self.asked.chosen.options, "batches", LOOKS), len(self.batches))
        if self.asked.chosen.stage == "calibration":
            found["looking at batches"] = passes[-1] * looks
        if self.asked.chosen.stage == "training":  # half of which are of the method itself
            found["steps"] = passes[-1] * (2 * (self.asked.steps or STEPS) + looks)
        if self.asked.recover:
            found["recovery"] = passes[-1] * 1.4 * self.asked.recover
        return found

    def called(self, model: nn.Module) -> Callable[[], Any]:
        """One input passed through a model, without gradients."""
        example = {name: tensor.to(self.asked.device) for name, tensor in self.origin.example(model).items()}

        @torch.inference_mode()
        def call() -> Any:
            return self.origin.forward(model, example)

        return call

    def flops(self, model: nn.Module) -> int:
        """Operations of one input."""
        example = {name: tensor.to(self.asked.device) for name, tensor in self.origin.example(model).items()}
        return count.flops(_Call(self.origin, model), example)


class _Call(nn.Module):
    def __init__(self, origin: Origin, model: nn.Module) -> None:
        super().__init__()
        self.origin, self.model = origin, model

    def forward(self, batch: dict[str, Tensor]) -> Any:
        return self.origin.forward(self.model, batch)


@dataclass
class _Watched:
    """Batches that tell of each that is done with."""

    batches: Batches
    tick: Callable[[], Any]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        for batch in self.batches:
            yield batch
            self.tick()


def weights_kept(plan: Plan, towers: dict[str, Tower]) -> list[dict[str, Any]]:
    """Share of the weights of every component that masks leave, in the form of the units that a plan keeps."""
    found: list[dict[str, Any]] = []
    for name, tower in towers.items():
        for component, about in tower.blocks[0].components.items():
            kept = []
            for block in tower.blocks:
                refs = [block.ref(part.role) for part in about.parts]
                masks = [plan.masks[ref.weight][ref.rows] for ref in refs if ref.weight in plan.masks]
                weights = sum(block.weight(part.role).numel() for part in about.parts)
                kept.append(1 - sum(int((~mask).sum()) for mask in masks) / weights)
            found.append({"tower": name, "component": component, "kept": kept})
    return found


def sizes(model: nn.Module, towers: dict[str, Tower]) -> dict[str, Any]:
    """Parameters that a model stores, those that are not zero, and where they are."""
    counts = count.count(model, towers)
    return {
        "parameters": counts.stored,
        "nonzero": counts.nonzero,
        "towers": [[name, number] for name, number in counts.towers.items()],
        "outside": counts.stored - counts.total,
    }
