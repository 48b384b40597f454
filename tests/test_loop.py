"""What the training loop does for paper scale: rates by tower, batches in parts, precision, checkpointing, resuming."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from snp.compression.budget import Budget
from snp.compression.method import Session
from snp.compression.problem import Problem
from snp.compression.registry import get
from snp.compression.surgery import apply
from snp.compression.tower import towers_of
from snp.data.batch import Batch
from snp.experiment.recipes import Phase
from snp.models.checkpointing import checkpointing
from snp.models.config import GLIP_SMOKE, SMOKE
from snp.models.glip import GLIP
from snp.models.mdetr import MDETR, TOWERS
from snp.tasks import detect, grounding
from snp.training.cursor import Cursor
from snp.training.loop import Loop

TINY = SMOKE.model_copy(update=dict(image_size=32, vocabulary=30, context=10))
#: As at paper scale: learned queries, a class token, a patch stem, a causal mask, dropout.
PLAIN = TINY.model_copy(
    update=dict(proposals=False, stem="patch", class_token=True, causal=True, queries=6, dropout=0.1)
)
GLIP_TINY = GLIP_SMOKE.model_copy(update=dict(image_size=32, vocabulary=30, context=10))
PHASE = Phase(steps=8, batch=8, lr=1e-3, warm_up=2, decay=0.5, ema=0.9, log_every=2)
LISTS = {
    "plain": ("vision.blocks", "text.transformer.resblocks", "encoder", "decoder"),
    "glip": ("vision.blocks", "text.transformer.resblocks", "fuse", "read", "head"),
}
LISTS |= {"proposals": LISTS["plain"], "warm-up": ("model.vision.blocks", "model.text.transformer.resblocks")}
ALL = PHASE.model_copy(
    update=dict(vision_lr=1e-4, text_lr=5e-4, drop=(0.6,), accumulate=4, precision="bfloat16", checkpointing=True)
)


def batch(seed: int, size: int = 8) -> Batch:
    """Captions of five to seven tokens, one to three boxes each, two captions to an image."""
    source = torch.Generator().manual_seed(seed)
    L, M = 7, 3
    text = torch.arange(L) < torch.randint(5, L + 1, (size, 1), generator=source)
    valid = torch.arange(M) < torch.randint(1, M + 1, (size, 1), generator=source)
    positive = torch.rand(size, M, L, generator=source) < 0.4
    positive[..., 1] = True
    return Batch(
        torch.randint(0, 256, (size // 2, 3, 32, 32), generator=source, dtype=torch.uint8),
        torch.arange(size // 2).repeat(2),
        torch.randint(1, 30, (size, L), generator=source) * text,
        text,
        torch.rand(size, M, 4, generator=source) * 0.3 + 0.3,
        valid,
        positive & valid[..., None] & text[:, None],
        torch.randint(0, 4, (size, M), generator=source),
    )


def stream(start: int) -> Iterator[Batch]:
    while True:
        yield batch(start)
        start += 1


def losses(model: Any, batch: Batch, overrides: dict[str, Tensor] | None, step: int) -> dict[str, Tensor]:
    if isinstance(model, grounding.WarmUp):
        return model.losses(batch)
    out = functional_call(model, overrides, batch.inputs) if overrides else model(*batch.inputs)
    return detect.losses(out, batch) if isinstance(model, GLIP) else grounding.losses(out, batch)


def model(kind: str = "plain") -> nn.Module:
    torch.manual_seed(0)
    if kind == "warm-up":
        return grounding.WarmUp(MDETR(TINY), categories=4)
    return {"plain": lambda: MDETR(PLAIN), "proposals": lambda: MDETR(TINY), "glip": lambda: GLIP(GLIP_TINY)}[kind]()


def loop(folder: Path, phase: Phase, network: nn.Module | None = None, **options: Any) -> Loop:
    return Loop(network or model(), phase, stream, losses, folder, seed=0, **options)


TURNED = {"basis": "spectral", "score": "fisher", "scope": "global", "batches": 2}


LATE = {"every": 2, "freeze": 0.4, "apply_at": 0.5}
"""So that the hypernetwork takes several steps of a short phase."""


def snp_session(dense: nn.Module, steps: int, method: str = "snp", **options: Any) -> tuple[Session, Cursor]:
    held, towers = Cursor(lambda start: stream(1000 + start)), towers_of(dense, TOWERS)

    def loss(batch: Batch, overrides: dict[str, Tensor] | None) -> Tensor:
        return torch.stack(list(losses(dense, batch, overrides, 0).values())).sum()

    problem = Problem(dense, towers, Budget.from_model(dense, towers, 0.8), steps, loss, held)
    return get(method, **(LATE if method == "snp" else {}) | options).begin(problem), held


# -- rates -------------------------------------------------------------------------------------------------------------


def test_each_tower_has_its_own_rate_and_all_follow_the_schedule(tmp_path):
    phase = PHASE.model_copy(update=dict(vision_lr=1e-4, text_lr=5e-4))
    run = loop(tmp_path, phase)
    run.run()
    name_of = {id(p): name for name, p in run.model.named_parameters()}
    seen = set()
    for group in run.optimizer.param_groups:
        for parameter in group["params"]:
            name = name_of[id(parameter)]
            held = {"vision": 1e-4, "text": 5e-4}.get(name.split(".")[0], 1e-3)
            assert group["lr"] == pytest.approx(held * phase.rate(7) / phase.lr), name
            seen.add(name)
    assert seen == set(name_of.values())


def test_the_text_tower_may_follow_a_schedule_of_its_own(tmp_path):
    phase = PHASE.model_copy(update=dict(decay=0.0, drop=(0.5,), text_rise=0.25))
    run = loop(tmp_path, phase)
    run.run()
    name_of = {id(p): name for name, p in run.model.named_parameters()}
    rates = {name_of[id(p)].split(".")[0]: group["lr"] for group in run.optimizer.param_groups for p in group["params"]}
    assert rates.pop("text") == pytest.approx(phase.lr * 1 / 6)  # the last of the six steps in which it falls
    assert all(rate == pytest.approx(phase.lr / 10) for rate in rates.values()) and len(rates) > 3


def test_a_tower_at_rate_zero_stays_as_it_is(tmp_path):
    phase = PHASE.model_copy(update=dict(vision_lr=0.0, weight_decay=0.0))
    trained, before = loop(tmp_path, phase).run(), model()
    for (name, new), old in zip(trained.named_parameters(), before.parameters(), strict=True):
        if name.startswith(("vision.", "text.")):
            assert torch.equal(new, old) == name.startswith("vision."), name


def test_the_towers_of_a_wrapped_and_of_a_cut_model_keep_their_rates(tmp_path):
    phase = PHASE.model_copy(update=dict(vision_lr=1e-4, text_lr=5e-4))
    assert phase.held("model.vision.blocks.0.attn.qkv.weight") == 1e-4
    assert phase.held("model.text_to_fusion.0.weight") == phase.held("vision_to_fusion.weight") == 1e-3
    dense = model()
    session, held = snp_session(dense, phase.steps)
    run = loop(tmp_path, phase, dense, session=session, cursor=held, apply=lambda m, plan: apply(m, plan, TOWERS))
    cut = run.run()
    before, after = (sum(p.numel() for p in network.parameters()) for network in (dense, cut))
    assert run.plan is not None and after < before
    groups = dict(zip(run.rates, run.optimizer.param_groups, strict=True))
    text = [p for name, p in cut.named_parameters() if name.startswith("text.")]
    assert {id(p) for p in groups[5e-4, False]["params"]} == {id(p) for p in text}


def test_without_rates_of_their_own_all_parameters_are_one_group_in_their_order(tmp_path):
    run = loop(tmp_path, PHASE)
    run.run()
    (group,) = run.optimizer.param_groups
    assert list(map(id, group["params"])) == list(map(id, run.model.parameters()))


# -- accumulation ------------------------------------------------------------------------------------------------------


def gradients(network: nn.Module, parts: list[Batch]) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Sums of losses over the parts, and the gradients they leave."""
    network.zero_grad()
    sums: dict[str, float] = {}
    for part in parts:
        found = losses(network, part, None, 0)
        torch.stack(list(found.values())).sum().backward()
        for name, value in found.items():
            sums[name] = sums.get(name, 0.0) + float(value.detach())
    return sums, {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "proposals", "warm-up", "glip"])
@pytest.mark.parametrize("count", [2, 8])
def test_the_parts_of_a_batch_have_its_losses_and_gradients(kind, count):
    network = model(kind).eval()  # dropout would differ
    whole = batch(0)
    sums, expected = gradients(network, [whole])
    parts, found = gradients(network, list(whole.parts(count)))
    assert parts == pytest.approx(sums, rel=1e-4)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}")


def test_a_part_has_only_its_own_images():
    whole = batch(0)
    parts = list(whole.parts(4))
    assert [len(part) for part in parts] == [2, 2, 2, 2]
    assert [len(part.images_ICHW) for part in parts] == [2, 2, 2, 2] and len(whole.images_ICHW) == 4
    for b, (part, row) in enumerate((part, row) for part in parts for row in range(2)):
        pixels = part.images_ICHW[part.image_index_B[row]]
        assert torch.equal(pixels, whole.images_ICHW[whole.image_index_B[b]])
        assert torch.equal(part.tokens_BL[row], whole.tokens_BL[b])
    (pair,) = replace(whole, image_index_B=torch.zeros(8, dtype=torch.long)).parts(1)
    assert len(pair.images_ICHW) == 1


@pytest.mark.slow
@pytest.mark.parametrize("method", ["snp", "upop"])
def test_a_step_in_parts_is_the_step_of_the_whole_batch_also_while_a_method_searches(method, tmp_path):
    moments = []  # gradients, averaged: where they are nothing but rounding, Adam makes weights of it
    for accumulate in (1, 4):
        torch.manual_seed(0)
        dense = MDETR(PLAIN.model_copy(update=dict(dropout=0.0)))
        session, held = snp_session(dense, 100, method)
        phase = PHASE.model_copy(update=dict(steps=3, accumulate=accumulate))
        run = loop(tmp_path / str(accumulate), phase, dense, session=session, cursor=held, apply=lambda m, plan: m)
        seen: dict[str, Tensor] = {}

        def keep(_: int, run: Loop = run, seen: dict[str, Tensor] = seen) -> None:
            state = run.optimizer.state
            seen.update({n: state[p]["exp_avg"].clone() for n, p in run.model.named_parameters() if p in state})

        run.progress = keep
        run.run()
        moments.append(seen | ({"mask": session.mask_E.grad} if method == "upop" else {}))
    assert moments[0].keys() == moments[1].keys() and len(moments[0]) > 50
    for name, expected in moments[0].items():
        torch.testing.assert_close(moments[1][name], expected, rtol=1e-3, atol=1e-5, msg=lambda t, n=name: f"{n}: {t}")


# -- precision and checkpointing ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "proposals", "warm-up", "glip"])
def test_bfloat16_trains_float32_weights_and_gives_float32_losses(kind, tmp_path):
    phase = PHASE.model_copy(update=dict(precision="bfloat16"))
    low, full = loop(tmp_path / "low", phase, model(kind)), loop(tmp_path / "full", PHASE, model(kind))
    dtypes = set()

    def watched(*arguments: Any) -> dict[str, Tensor]:
        found = losses(*arguments)
        dtypes.update(value.dtype for value in found.values())
        return found

    low.losses = watched
    low.run(), full.run()
    assert dtypes == {torch.float32}
    assert {p.dtype for p in low.model.parameters()} == {torch.float32}
    assert {v.dtype for s in low.optimizer.state.values() for v in s.values()} == {torch.float32}
    assert low.curve[-1].keys() == full.curve[-1].keys()
    for name, value in full.curve[0].items():
        assert low.curve[0][name] == pytest.approx(value, rel=0.1, abs=0.05), name
    assert low.curve != full.curve  # it did run in another precision


@pytest.mark.parametrize("kind", ["plain", "proposals", "warm-up", "glip"])
def test_checkpointing_changes_neither_losses_nor_gradients(kind):
    network, whole = model(kind).train(), batch(0)
    passes: list[str] = []
    for name, module in network.named_modules():
        if name.rpartition(".")[0] in LISTS[kind]:
            module.register_forward_pre_hook(lambda *_, name=name: passes.append(name))
    torch.manual_seed(1)
    expected, once = gradients(network, [whole]), passes.copy()
    passes.clear()
    torch.manual_seed(1)
    with checkpointing(network):
        found = gradients(network, [whole])
    assert found[0] == expected[0]
    assert all(torch.equal(found[1][name], gradient) for name, gradient in expected[1].items())
    assert {name.rpartition(".")[0] for name in once} == set(LISTS[kind])
    assert sorted(passes) == sorted(once * 2), "a layer was not computed again"
    passes.clear()
    gradients(network, [whole])
    assert passes == once, "it did not end with its block"


@pytest.mark.slow
def test_layers_are_computed_again_also_where_other_tensors_stand_in_for_their_weights(tmp_path):
    """UPop's masks stand in: their gradients, and so the search, are to the bit those of layers computed once."""
    found, counts = [], []
    for again in (False, True):
        torch.manual_seed(0)
        dense, passes = MDETR(PLAIN), []
        for name, module in dense.named_modules():
            if name.rpartition(".")[0] in LISTS["plain"]:
                module.register_forward_pre_hook(lambda *_, passes=passes: passes.append(1))
        session, held = snp_session(dense, 100, "upop")
        phase = PHASE.model_copy(update=dict(steps=4, accumulate=2, checkpointing=again))
        trained = loop(tmp_path / str(again), phase, dense, session=session, cursor=held, apply=lambda m, plan: m).run()
        found.append([session.mask_E.grad, *trained.parameters()])
        counts.append(len(passes))
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True)) and found[0][0].count_nonzero() > 0
    assert counts[1] == 2 * counts[0]


# -- going on ----------------------------------------------------------------------------------------------------------


class Killed(Exception):
    pass


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, TURNED], ids=["as trained", "in a basis"])
@pytest.mark.parametrize("kill", [3, 6])
def test_a_run_with_all_options_that_is_killed_goes_on_bit_equal(kill, options, tmp_path, monkeypatch):
    monkeypatch.setattr("snp.training.loop.SAVE_EVERY_SECONDS", 0)

    def start(folder: Path, until: int | None) -> Loop:
        dense = model()
        session, held = snp_session(dense, ALL.steps, **options)
        run = loop(folder, ALL, dense, session=session, cursor=held, apply=lambda m, plan: apply(m, plan, TOWERS))
        done = [0]

        def progress(captions: int) -> None:
            done[0] += captions
            if done[0] == (until or 1000) * ALL.batch:
                raise Killed

        run.progress = progress
        return run

    whole, killed = start(tmp_path / "whole", None), start(tmp_path / "killed", kill)
    expected = whole.run()
    with pytest.raises(Killed):
        killed.run()
    again = start(tmp_path / "killed", None)
    found = again.run()
    assert again.curve == whole.curve and again.rates == whole.rates
    assert found.state_dict().keys() == expected.state_dict().keys()
    assert all(torch.equal(value, expected.state_dict()[name]) for name, value in found.state_dict().items())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_it_trains_on_a_gpu(tmp_path):
    run = loop(tmp_path, ALL, device="cuda")
    trained = run.run()
    assert {p.device.type for p in trained.parameters()} == {"cuda"}
    assert run.curve[-1]["giou"] < run.curve[0]["giou"] + 1


def test_a_batch_goes_to_a_device_whole():
    moved = batch(0).to("meta")
    assert {t.device.type for t in (*moved.inputs, moved.boxes_BM4, moved.positive_BML)} == {"meta"}
    assert moved.whole is None and len(moved) == 8
