"""Sparse models keep their zeros through the training loop: weights, moments of the optimizer, and their average."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from nets import GROUPS, NAMES, Net, batches, loss_of
from torch import Tensor, nn

import snp
from snp.experiment.recipes import Phase
from snp.training.loop import Loop

PHASE = Phase(steps=6, batch=4, lr=1e-2, warm_up=2, decay=0.5, weight_decay=0.1, ema=0.9, log_every=3)


def stream(step: int) -> Iterator[Any]:
    return iter(batches(0, PHASE.steps)[step:])


def losses(model: nn.Module, batch: Any, overrides: dict[str, Tensor] | None, step: int) -> dict[str, Tensor]:
    return {"loss": loss_of(model, batch)}


@pytest.mark.parametrize("method", ["omp", "multiflow", "chita"])
def test_zeros_stay_through_fine_tuning_in_weights_moments_and_average(method, tmp_path):
    sparse, plan = compressed(method)
    before = {name: sparse.get_parameter(name).detach().clone() for name in NAMES}
    loop = Loop(sparse, PHASE, stream, losses, tmp_path, seed=0)
    live = watched(loop)
    trained = loop.run()
    average = dict(zip(loop.names, loop.average, strict=True))
    for name in NAMES:
        mask, weight = plan.masks[name], trained.get_parameter(name)
        moments = loop.optimizer.state[weight]
        for value in (live[name], average[name], weight, moments["exp_avg"], moments["exp_avg_sq"]):
            assert value[~mask].count_nonzero() == 0 and value[mask].count_nonzero() > 0
        assert not torch.equal(live[name], before[name]) and not torch.equal(live[name], average[name])


def test_zeros_stay_when_training_goes_on_from_its_state(tmp_path):
    sparse, plan = compressed("omp")
    Loop(sparse, PHASE, stream, losses, tmp_path, seed=0).run()
    again = Loop(compressed("omp")[0], PHASE, stream, losses, tmp_path, seed=0)
    again.run()  # nothing is left to do but to take up the state
    loss_of(again.model, batches(1)[0]).backward()
    again.optimizer.step()
    for name in NAMES:
        weight = again.model.get_parameter(name)
        assert weight[~plan.masks[name]].count_nonzero() == 0
        assert again.optimizer.state[weight]["exp_avg_sq"][~plan.masks[name]].count_nonzero() == 0


def compressed(method: str) -> tuple[nn.Module, Any]:
    return snp.compress(Net(0), method, sparsity=0.63, groups=GROUPS, calibration=batches(0), loss=loss_of)


def watched(loop: Loop) -> dict[str, Tensor]:
    """Filled with the weights as they are after the last step, before their average takes their place."""
    found: dict[str, Tensor] = {}
    loop.progress = lambda _: found.update({n: loop.model.get_parameter(n).detach().clone() for n in NAMES})
    return found
