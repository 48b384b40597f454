"""UPop: the ranking, the schedule and the masks, by hand; and that cutting what has been masked changes nothing."""

import math
from itertools import pairwise

import numpy as np
import pytest
import reference_upop
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from towers import PATHS, example, loss_of, two_towers
from transformers import SiglipConfig, SiglipModel

from baselines.upop import UPopSession, lowered_officially
from snp.compression.budget import Budget
from snp.compression.method import weight_step
from snp.compression.problem import Problem
from snp.compression.registry import get
from snp.compression.surgery import apply
from snp.compression.tower import towers_of
from snp.errors import InputError


def session_of(model: nn.Module, keep=0.6, steps=20, paths=PATHS, loss=loss_of, **options) -> UPopSession:
    towers = towers_of(model, paths)
    problem = Problem(
        model, towers, Budget.from_model(model, towers, keep), steps, lambda b, o: loss(model, b, o), lambda: example()
    )
    return get("upop", **options).start(problem)


def search(session: UPopSession, lr: float = 1e-3) -> None:
    """The whole search phase, with weight steps."""
    optimizer = torch.optim.SGD(session.problem.model.parameters(), lr=lr)
    for step in range(session.apply_at):
        with weight_step(session, step) as now:
            session.problem.loss(example(seed=step), now.overrides).backward()
            optimizer.step()
            optimizer.zero_grad()


def test_a_search_by_hand():
    """Two towers of one layer, d = 4, h = 2 heads of 2 dimensions, 3 neurons: entries cost 38 and 9, 206 in all.

    G = 1 5 | 1 2 6 (vision: attention, FFN) and 2 4 | 3 7 5 (text). Attention has the mean 3 and the deviation 1.83:
    z = -1.10 1.10 and -.55 .55; FFN 4 and 2.37: z = -1.27 -.85 .85 and -.42 1.27 .42. The lowest of each mask stays.
    By z, 7 5 6 4 5 2 have cost 9 47 56 94 103 112. Of 100 to remove, half are due at a third of the way (sin 30
    degrees): 47 is nearest. At the end 12 of the 106 that may stay are free: the neuron of 2 fits, the others go.
    """
    tower = {"img_size": 4, "patch_size": 4, "embed_dim": 4, "depth": 1, "num_heads": 2, "mlp_ratio": 0.75}
    model = nn.ModuleDict({name: VisionTransformer(**tower) for name in PATHS})
    session = session_of(model, keep=1 - 100 / sum(p.numel() for p in model.parameters()), steps=6, interval=1)
    session.mask_E.grad = torch.tensor([1.0, 5, 1, 2, 6, 2, 4, 3, 7, 5])
    session.after_step(0)
    assert session.mask_E.tolist() == pytest.approx([1, 0.5, 1, 1, 1, 1, 1, 1, 0.5, 1])
    session.after_step(2)
    assert session.mask_E.tolist() == [1, 0, 1, 1, 0, 1, 0, 1, 0, 0]
    assert session.plan().cost()["removed"] == 38 + 9 + 38 + 9 + 9


@pytest.mark.slow
@pytest.mark.parametrize(
    "share, mode",
    [(0.5, "corrected"), (0.63, "corrected"), (0.75, "corrected"), (0.9, "corrected"), (0.63, "official")],
)
def test_the_plan_is_that_of_a_slow_reference(share, mode):
    """`share` of what masks can remove; four steps, the ranking made anew after every second."""
    for seed in range(10):
        model = two_towers(seed)
        prunable = sum(len(m.value) * m.cost for m in reference_upop.masks_of())
        keep = 1 - share * prunable / sum(p.numel() for p in model.parameters())
        session = session_of(model, keep, steps=8, interval=2, mode=mode)
        expected = reference_upop.upop(
            model,
            lambda masked, step: loss_of(masked, wide(example(seed=step))),
            session.apply_at,
            session.problem.removals,
            1e-3,
            2,
            mode == "official",
        )
        search(session)
        plan = session.plan()
        for (tower, layer, part), kept in expected.items():
            for component in ("qk", "vo") if part == "attention" else ("ffn",):
                assert plan.kept(tower, layer, component).tolist() == kept, (seed, tower, layer, component)


def wide(batch: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    return batch[0].double(), batch[1]


def test_z_scores_are_taken_over_towers_and_layers_of_attention_and_ffn_apart(two_towers):
    """G = 1, 2, ..: attention 1..32 has mean 16.5 and deviation sqrt(88); FFN 10, 20, .. is scaled away."""
    session = session_of(two_towers)
    attention, ffn = session.attention_E, ~session.attention_E
    gradient = torch.zeros_like(session.mask_E)
    gradient[attention] = torch.arange(1.0, 33.0)
    gradient[ffn] = 10 * torch.arange(1.0, int(ffn.sum()) + 1)
    session.mask_E.grad = gradient
    z = session.z()
    assert int(attention.sum()) == 2 * 2 * 8
    torch.testing.assert_close(z[attention], (torch.arange(1.0, 33.0).double() - 16.5) / math.sqrt(88))
    assert float(z[ffn].mean()) == pytest.approx(0, abs=1e-9) and float(z[ffn].std()) == pytest.approx(1)


def test_an_attention_entry_costs_its_parameters_in_ffn_entries(two_towers):
    """h=4, d=32: (3h(d+1) + hd)/(2d+1) = (396 + 128)/65; at d=768, h=12 it is 24.0."""
    session = session_of(two_towers)
    costs = session.exact_E[session.attention_E].unique(), session.exact_E[~session.attention_E].unique()
    assert [c.tolist() for c in costs] == [[524.0], [65.0]]
    assert round((3 * 12 * 769 + 12 * 768) / (2 * 768 + 1), 2) == 24.01
    assert session_of(two_towers, attention_cost=12).cost_E.unique().tolist() == [1.0, 12.0]
    assert session_of(two_towers, mode="official").cost_E.unique().tolist() == [1.0, 36.0]


def test_the_largest_gradients_go_first_and_one_entry_of_every_mask_stays(two_towers):
    session = session_of(two_towers, keep=0.3)
    session.mask_E.grad = torch.arange(len(session.mask_E)).float()
    gone = session._chosen(0.5)
    z = session.z()
    stay = torch.ones_like(gone)
    for span in session.spans.values():
        assert not gone[span].all()
        stay[span.start + int(z[span].argmin())] = False
    assert z[gone].min() >= z[~gone & stay].max()


def test_the_share_follows_a_quarter_of_a_sine_and_ends_at_the_target(two_towers):
    session = session_of(two_towers, interval=1)
    whole = float(session.exact_E.sum())
    for step in range(session.apply_at):
        session.problem.loss(example(seed=step), session.overrides()).backward()
        session.after_step(step)
        done = math.sin(math.pi * (step + 1) / (2 * session.apply_at))
        lowered = session.mask_E.detach() < 1
        removed = float(session.exact_E[lowered].sum()) / whole
        assert removed == pytest.approx(done * session.share, abs=524 / whole)
        assert session.mask_E.detach()[lowered].unique().tolist() == pytest.approx([1 - done], abs=1e-6)
    assert session.mask_E.detach().unique().tolist() == [0.0, 1.0]
    assert 0 <= session.exact_E[lowered].sum() - session.problem.removals < 65


def test_gradients_add_up_over_all_steps_or_are_those_of_the_last_batch():
    accumulated, last = (session_of(two_towers(), interval=100, mode=mode) for mode in ("corrected", "official"))
    single = []
    for step in range(3):
        for session in (accumulated, last):
            session.problem.loss(example(seed=step), session.overrides()).backward()
        single.append(last.mask_E.grad.clone())
    torch.testing.assert_close(accumulated.mask_E.grad, sum(single))
    assert torch.equal(last.mask_E.grad, single[-1]) and not torch.allclose(accumulated.mask_E.grad, single[-1])
    assert not torch.equal(accumulated._chosen(0.5), last._chosen(0.5))


def test_an_official_ranking_by_hand():
    """One layer of 2 heads and 4 neurons; G = 1 -1 | 4 3 2 -5, so z = .71 -.71 | .73 .49 .24 -1.47; half is due.

    By z the costs 1 36 1 1 36 1 sum up to 1 37 38 39 75 76: the third, neuron 3, is at half of them and so the
    threshold: above it are neuron 4 and attention's 1. A ranking is made after steps 0, 2, .. and the last.
    """
    model = VisionTransformer(img_size=4, patch_size=4, embed_dim=4, depth=1, num_heads=2, mlp_ratio=1)
    keep = 1 - 56 / sum(p.numel() for p in model.parameters())  # entries cost 38 and 9: 112
    session = session_of(model, keep, steps=8, paths={"vision": ""}, interval=2, mode="official")
    session.mask_E.grad = torch.tensor([1.0, -1, 4, 3, 2, -5])
    session.after_step(1)
    assert session.mask_E.tolist() == [1.0] * 6
    session.after_step(3)
    assert session.mask_E.tolist() == [0, 1, 0, 1, 1, 1]
    assert session.plan().cost()["removed"] == 38 + 9


@pytest.mark.slow
def test_official_rankings_lower_what_the_public_rule_lowers():
    """Random cases: masks of attention and FFN of any size, some with equal gradients, at any price and share."""
    random, compared = np.random.default_rng(0), 0
    for case in range(2500):
        sizes = random.integers(1, 12, size=2 * random.integers(1, 4))  # attention, FFN, attention, ..
        ends = np.cumsum([0, *sizes])
        masks = [slice(int(a), int(b)) for a, b in pairwise(ends)]
        attention = np.repeat(np.arange(len(sizes)) % 2 == 0, sizes)
        gradient = random.standard_normal(ends[-1]).astype(np.float32)
        if case % 2:
            for group in (attention, ~attention):
                gradient[group] = random.choice(gradient[group][: group.sum() // 2 + 1], group.sum())
        price, share = int(random.choice([12, 24, 36])), float(random.uniform(0, 1.02))
        groups = [np.flatnonzero(attention).tolist(), np.flatnonzero(~attention).tolist()]
        if min(len(set(gradient[group].tolist())) for group in groups) < 3:
            continue  # z of two values is the same in both groups, but for rounding
        of = torch.tensor(attention)
        found = lowered_officially(torch.tensor(gradient), of, torch.where(of, price, 1), masks, share)
        expected = publicly_lowered(gradient.tolist(), groups, [price, 1], masks, share)
        assert set(found.nonzero()[:, 0].tolist()) == expected, case
        compared += 1
    assert compared > 1500


@pytest.mark.slow
def test_official_searches_rank_after_steps_zero_and_every_interval_and_the_last():
    """Gradients are others after every step; masks change where p_t = p sin(pi (t+1) / 2T) is due, to 1 - p_t/p."""
    torch.manual_seed(0)
    model = VisionTransformer(img_size=4, patch_size=4, embed_dim=4, depth=2, num_heads=2, num_classes=0)
    random = np.random.default_rng(1)
    for case in range(100):
        steps, interval = int(random.integers(1, 60)), int(random.integers(1, 12))
        session = session_of(model, 0.8, steps, {"vision": ""}, interval=interval, mode="official")
        for t in range(session.apply_at):
            before = session.mask_E.detach().clone()
            session.mask_E.grad = torch.from_numpy(random.standard_normal(len(before)).astype(np.float32))
            session.after_step(t)
            if t % interval and t != session.apply_at - 1:
                assert torch.equal(session.mask_E, before), (case, t)
            else:
                share = session.share * math.sin(math.pi * (t + 1) / (2 * session.apply_at))
                gone = publicly_lowered(
                    session.mask_E.grad.tolist(),
                    [session.attention_E.nonzero()[:, 0].tolist(), (~session.attention_E).nonzero()[:, 0].tolist()],
                    [36, 1],
                    list(session.spans.values()),
                    share,
                )
                expected = [1 - share / session.share if e in gone else 1.0 for e in range(len(before))]
                torch.testing.assert_close(session.mask_E.detach(), torch.tensor(expected), atol=1e-6, rtol=0)


def publicly_lowered(
    gradient: list[float], groups: list[list[int]], prices: list[int], masks: list[slice], share: float
) -> set[int]:
    """The entries above the one at which the summed price, from the highest z on, is nearest to `share` of all.

    z is taken within each group, with the unbiased deviation; the lowest of every mask is never lowered.
    """
    z, price = [0.0] * len(gradient), [0] * len(gradient)
    for members, cost in zip(groups, prices, strict=True):
        mean = sum(gradient[e] for e in members) / len(members)
        deviation = math.sqrt(sum((gradient[e] - mean) ** 2 for e in members) / (len(members) - 1))
        for e in members:
            z[e], price[e] = (gradient[e] - mean) / deviation, cost
    best, threshold, spent = math.inf, 0.0, 0
    for e in sorted(range(len(z)), key=lambda e: -z[e]):
        spent += price[e]
        if abs(spent - share * sum(price)) < best:
            best, threshold = abs(spent - share * sum(price)), z[e]
    spared = {e for mask in masks for e in range(mask.start, mask.stop) if z[e] == min(z[mask])}
    return {e for e in range(len(z)) if z[e] > threshold} - spared


def test_what_is_masked_at_the_end_can_be_cut_in_timm_and_open_clip(two_towers):
    session = session_of(two_towers)
    search(session)
    batch = example(seed=99)
    masked = torch.func.functional_call(two_towers, session.overrides(), batch)
    cut = apply(two_towers, session.plan(), PATHS)
    torch.testing.assert_close(cut(*batch), masked, atol=1e-5, rtol=1e-5)


def test_what_is_masked_at_the_end_can_be_cut_in_siglip():
    torch.manual_seed(0)
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = SiglipConfig(
        text_config=small | {"vocab_size": 19, "max_position_embeddings": 7, "projection_size": 32},
        vision_config=small | {"image_size": 16, "patch_size": 4},
    )
    model = SiglipModel(config)
    paths = {"vision": "vision_model", "text": "text_model"}

    def outputs(model, batch, overrides):
        inputs = {"pixel_values": batch[0], "input_ids": batch[1]}
        return torch.func.functional_call(model, overrides or {}, (), inputs).logits_per_image

    session = session_of(model, paths=paths, loss=lambda *a: outputs(*a).square().mean())
    search(session)
    batch = example(seed=99)
    masked = outputs(model, batch, session.overrides())
    torch.testing.assert_close(outputs(apply(model, session.plan(), paths), batch, None), masked, atol=1e-5, rtol=1e-5)


def test_a_loss_that_is_not_finite_is_named_before_it_ranks_anything(two_towers):
    session = session_of(two_towers)
    (session.problem.loss(example(), session.overrides()) * torch.nan).backward()
    with pytest.raises(InputError, match="gradient of a mask is not finite"):
        session.after_step(session.apply_at - 1)


def test_a_single_tower_is_enough():
    torch.manual_seed(0)
    model = VisionTransformer(img_size=16, patch_size=4, embed_dim=32, depth=2, num_heads=4, num_classes=3)
    paths = {"vision": ""}

    def loss(model, batch, overrides):
        return torch.func.functional_call(model, overrides or {}, (batch[0],)).square().mean()

    session = session_of(model, paths=paths, loss=loss)
    search(session)
    masked = torch.func.functional_call(model, session.overrides(), (example()[0],))
    torch.testing.assert_close(apply(model, session.plan(), paths)(example()[0]), masked, atol=1e-5, rtol=1e-5)


def test_a_search_that_goes_on_from_its_state_ends_the_same():
    whole = session_of(two_towers(), interval=3)
    search(whole, lr=0)
    first = session_of(two_towers(), interval=3)
    for step in range(5):
        first.problem.loss(example(seed=step), first.overrides()).backward()
        first.after_step(step)
    second = session_of(two_towers(), interval=3)
    second.load_state_dict(first.state_dict())
    for step in range(5, second.apply_at):
        second.problem.loss(example(seed=step), second.overrides()).backward()
        second.after_step(step)
    assert second.plan() == whole.plan()
