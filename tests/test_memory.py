"""Memory at paper scale, counted and not measured: tensors that have shapes and no values pass the real models.

Every tensor that torch makes is counted until it is freed, those of the backward pass too.
"""

import weakref
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from snp.compression import trial
from snp.compression.budget import Budget
from snp.compression.problem import Problem
from snp.compression.tower import towers_of
from snp.data.batch import Batch
from snp.experiment.recipes import RECIPES
from snp.models import config as configs
from snp.models.config import TowerConfig
from snp.models.family import build
from snp.models.mdetr import TOWERS
from snp.sharing.geometry import Geometry
from snp.sharing.objective import task_gradients
from snp.sharing.structure import Structure
from snp.training import held_out
from snp.training.loop import Loop

pytestmark = pytest.mark.slow

aten = torch.ops.aten


class Told(TorchDispatchMode):
    """What depends on values that are not there: a number that is read is 1, things that may be equal are not."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is aten._local_scalar_dense.default:
            return True if args[0].dtype == torch.bool else 1.0 if args[0].is_floating_point() else 1
        if function in (aten._unique2.default, aten.unique_dim.default):
            index = torch.arange(len(args[0]))
            return args[0].clone(), index, torch.ones_like(index)
        return function(*args, **(kwargs or {}))


class Counted(TorchDispatchMode):
    """Bytes of the tensors that are there `now`, and when they were `most`."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.sizes: dict[int, int] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        for tensor in tree_iter(out):
            if isinstance(tensor, Tensor) and (key := (storage := tensor.untyped_storage())._cdata) not in self.sizes:
                self.sizes[key] = storage.nbytes()
                self.now += storage.nbytes()
                self.most = max(self.most, self.now)
                weakref.finalize(storage, self._freed, key)
        return out

    def _freed(self, key: int) -> None:
        self.now -= self.sizes.pop(key)

    def peak(self) -> int:
        """The most since this was last asked for."""
        most, self.most = self.most, self.now
        return most


def batch(config: TowerConfig, size: int) -> Batch:
    """Captions of the longest kind, five boxes each, every one with an image of its own."""
    L, M, side = config.context, 5, config.image_size
    yes = torch.ones(size, M, L, dtype=torch.bool)
    return Batch(
        torch.zeros(size, 3, side, side, dtype=torch.uint8),
        torch.arange(size),
        torch.ones(size, L, dtype=torch.long),
        yes[:, 0],
        torch.ones(size, M, 4),
        yes[..., 0],
        yes,
        torch.zeros(size, M, dtype=torch.long),
    )


def losses(
    model: nn.Module, batch: Batch, overrides: dict[str, Tensor] | None = None, step: int = 0
) -> dict[str, Tensor]:
    """Of all that the model says; the real losses look at values."""
    out = torch.func.functional_call(model, overrides, batch.inputs) if overrides else model(*batch.inputs)
    said = [getattr(out, field.name) for field in fields(out)]
    parts = [x.float().square().mean() for x in said if isinstance(x, Tensor) and x.requires_grad]
    return {"all": torch.stack(parts).sum()}


@pytest.mark.parametrize("kind", ["mdetr", "glip"])
def test_a_structure_step_at_paper_scale_needs_less_memory_than_a_weight_step(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held_out, "losses", losses)
    for kind_of_trial in ("attention", "own"):  # on values, and there are none
        monkeypatch.setattr(trial, kind_of_trial, lambda *_: None)
    recipe = getattr(RECIPES["paper"], kind)
    config, phase = getattr(configs, recipe.model), recipe.compress
    with FakeTensorMode(), Told(), Counted() as counted:
        model = build(config)
        towers = towers_of(model, TOWERS)
        part = phase.batch // phase.accumulate
        loop = Loop(model, phase.model_copy(update={"batch": part, "accumulate": 1}), None, losses, Path(), 0)  # type: ignore[arg-type]
        loop._fresh()
        for parameter in loop.parameters:
            parameter.grad = torch.zeros_like(parameter)
        loop.optimizer.step()  # so that it has its moments
        loop.optimizer.zero_grad()
        counted.peak()
        loop._step(batch(config, part), 0)
        weight_step = counted.peak()

        held = 2 * phase.own_part
        budget = Budget.from_model(model, towers, 0.6)
        problem = Problem(
            model, towers, budget, 1, heldout=lambda: batch(config, held), **held_out.own_passes(model, phase)
        )
        geometry = Geometry.from_towers(list(towers.values()), budget.fixed, block=2)
        ones = {c: {k: torch.ones(stack.shape(k)) for k in stack.kinds} for c, stack in geometry.stacks.items()}
        task_gradients(problem, Structure.compose(geometry, ones))
        structure_step = counted.peak()
    print(f"{kind}: weight step {weight_step / 2**30:.2f} GiB, structure step {structure_step / 2**30:.2f} GiB")
    assert counted.now > 4 * 4 * sum(p.numel() for p in model.parameters())  # weights, average, moments
    assert structure_step < weight_step
