"""What the stages make of sizes and tasks that differ from the usual, run for real at smoke scale."""

from pathlib import Path

import pytest
import torch

from snp.errors import InputError
from snp.experiment.labels import find
from snp.models.mdetr import MDETR
from snp.runs.store import Store
from snp.training import saved, stages


@pytest.fixture
def store(smoke_dense: Store, smoke_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("SNP_DATA", str(smoke_data))
    return Store(tmp_path / "runs", base=smoke_dense)


def weights(model: MDETR, *parts: str) -> torch.Tensor:
    """All weights of linear maps below these parts of the model, in one row."""
    linear = [m for name, m in model.named_modules() if isinstance(m, torch.nn.Linear) and name.startswith(parts)]
    return torch.cat([m.weight.detach().flatten() for m in linear])


@pytest.mark.slow
def test_a_sparsity_is_a_share_of_the_linear_weights_of_both_towers_and_of_fusion(store: Store) -> None:
    run = find("scenes/multiflow@s63", "smoke").compress(0)
    metrics = stages.run(run, store).metrics
    assert metrics["sparsity"] == pytest.approx(0.63, abs=1e-3)
    model = saved.load(store.folder(run))[0]
    for parts in (("encoder.", "decoder."), ("text.transformer",), ("vision.blocks",)):  # every modality has its share
        zeros = float((weights(model, *parts) == 0).float().mean())
        assert 0.5 < zeros < 0.75
    assert float((weights(model, "slot_head", "box_head", "vision_to_fusion") == 0).float().mean()) < 0.01


@pytest.mark.slow
def test_without_recovery_the_decision_is_all_that_happens_to_the_weights(store: Store) -> None:
    run = find("scenes/omp@s63", "smoke").compress(0)
    result = stages.run(run, store)
    assert (result.curve, "-at-once-" in run.slug) == ([], True)
    dense, pruned = (saved.load(store.folder(of))[0] for of in (run.parent, run))
    for before, after in zip(dense.parameters(), pruned.parameters(), strict=True):
        assert torch.equal(torch.where(after == 0, 0.0, before), after)


def test_a_method_that_decides_while_it_trains_cannot_go_without(store: Store) -> None:
    run = find("scenes/snp@60", "smoke").compress(0).model_copy(update={"recovery": False})
    with pytest.raises(InputError, match="decides while training"):
        stages.run(run, store)


@pytest.mark.slow
def test_a_task_ticket_is_found_on_the_expressions_of_its_benchmark(store: Store) -> None:
    task, universal = (find(f"scenes/{kind}-ticket@s70", "smoke").compress(0) for kind in ("task", "universal"))
    found = [stages.run(run, store) for run in (task, universal)]
    assert [result.metrics["sparsity"] for result in found] == pytest.approx([0.7, 0.7], abs=1e-3)
    assert "-on-refcoco-" in task.slug and "-on-" not in universal.slug
    masks = [saved.load(store.folder(run))[1].masks for run in (task, universal)]
    assert masks[0].keys() == masks[1].keys()
    assert any(not torch.equal(masks[0][name], masks[1][name]) for name in masks[0])
