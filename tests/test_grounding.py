"""Losses of grounding against slow references that follow the definitions with loops and scalars."""

from dataclasses import replace
from itertools import permutations
from math import exp, log

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_convert, generalized_box_iou
from transformers.loss.loss_for_object_detection import HungarianMatcher

from snp.data.batch import Batch
from snp.models.config import SMOKE
from snp.models.mdetr import MDETR, Grounding, Patches
from snp.tasks import grounding
from snp.tasks.grounding import (
    TEMPERATURE,
    WarmUp,
    contrast,
    giou_loss,
    inside,
    match,
    patch_loss,
    score_loss,
    set_loss,
    slots,
)

B, M, L, Q, S, C, K = 3, 3, 6, 5, 9, 4, 2


def boxes(*shape: int) -> Tensor:
    """Random boxes within the unit square, as centre and size."""
    size = 0.1 + 0.4 * torch.rand(*shape, 2)
    return torch.cat([size / 2 + torch.rand(*shape, 2) * (1 - size), size], -1)


def random_batch(seed: int, one_token: bool = False, lengths: tuple[int, ...] = (6, 4, 5)) -> Batch:
    """Captions of 6, 4 and 5 tokens with 3, 1 and 2 boxes; phrases of one or of several tokens."""
    torch.manual_seed(seed)
    text = torch.arange(L) < torch.tensor(lengths)[:, None]
    valid = torch.arange(M) < torch.tensor([3, 1, 2])[:, None]
    positive = torch.rand(B, M, L) < (0 if one_token else 0.4)
    first = torch.stack([torch.randperm(4)[:M] for _ in range(B)])  # every phrase has a token, of its own
    positive = (positive | F.one_hot(first, L).bool()) & text[:, None] & valid[..., None]
    return Batch(
        images_ICHW=torch.zeros(B, 3, 2, 2, dtype=torch.uint8),
        image_index_B=torch.arange(B),
        tokens_BL=torch.where(text, 4, 0),
        text_BL=text,
        boxes_BM4=boxes(B, M) * valid[..., None],
        valid_BM=valid,
        positive_BML=positive,
        category_BM=torch.zeros(B, M, dtype=torch.int64),
    )


def random_output(seed: int) -> Grounding:
    torch.manual_seed(100 + seed)
    unit = lambda *shape: F.normalize(torch.randn(*shape), dim=-1)  # noqa: E731
    return Grounding(torch.randn(K, B, Q, S), boxes(K, B, Q), unit(K, B, Q, C), unit(B, L, C), None, None)


# -- references -------------------------------------------------------------------------------------------------


def slow_giou(a: Tensor, b: Tensor) -> float:
    """GIoU of two boxes of centre and size, by its definition."""
    (ax, ay, aw, ah), (bx, by, bw, bh) = a.tolist(), b.tolist()

    def side(a: float, w: float, b: float, v: float) -> tuple[float, float]:
        overlap = min(a + w / 2, b + v / 2) - max(a - w / 2, b - v / 2)
        return max(overlap, 0.0), max(a + w / 2, b + v / 2) - min(a - w / 2, b - v / 2)

    (ix, hull_x), (iy, hull_y) = side(ax, aw, bx, bw), side(ay, ah, by, bh)
    union, hull = aw * ah + bw * bh - ix * iy, hull_x * hull_y
    return ix * iy / union - (hull - union) / hull


def slow_target(batch: Batch, b: int, m: int) -> list[float]:
    tokens = batch.positive_BML[b, m].tolist()
    return [float(t) / sum(tokens) for t in tokens] + [0.0] * (S - L)


def slow_cost(logits_QS: Tensor, boxes_Q4: Tensor, batch: Batch, b: int, q: int, m: int) -> float:
    """MDETR's: - probability of the phrase + 5 L1 - 2 GIoU."""
    chance, target = logits_QS[q].softmax(-1).tolist(), slow_target(batch, b, m)
    wanted = batch.boxes_BM4[b, m]
    return (
        -sum(p * t for p, t in zip(chance, target, strict=True))
        + 5 * float((boxes_Q4[q] - wanted).abs().sum())
        - 2 * slow_giou(boxes_Q4[q], wanted)
    )


def slow_match(logits_BQS: Tensor, boxes_BQ4: Tensor, batch: Batch) -> list[list[int]]:
    """The cheapest of all assignments of queries to the boxes of each caption."""
    found = []
    for b, count in enumerate(batch.valid_BM.sum(1).tolist()):
        table = [
            [slow_cost(logits_BQS[b], boxes_BQ4[b], batch, b, q, m) for m in range(count)]
            for q in range(boxes_BQ4.shape[1])
        ]
        ways = permutations(range(len(table)), count)
        found.append(list(min(ways, key=lambda way: sum(table[q][m] for m, q in enumerate(way)))))
    return found


def slow_contrast(left_XC: Tensor, tokens_LC: Tensor, pairs: set[tuple[int, int]], length: int) -> float:
    """Both directions of the alignment of one caption: `pairs` are (row of `left_XC`, token) that belong together."""
    X = range(len(left_XC))
    logit = {(x, t): float(left_XC[x] @ tokens_LC[t]) / TEMPERATURE for x in X for t in range(length)}
    total = 0.0
    for x in {x for x, _ in pairs}:
        own = [logit[x, t] for t in range(length) if (x, t) in pairs]
        total += log(sum(exp(logit[x, t]) for t in range(length))) - sum(own) / len(own)
    for t in {t for _, t in pairs}:
        own = [logit[x, t] for x in X if (x, t) in pairs]
        total += log(sum(exp(logit[x, t]) for x in X)) - sum(own) / len(own)
    return total / 2


def slow_set_loss(out: Grounding, batch: Batch) -> dict[str, float]:
    total = dict.fromkeys(("slot", "l1", "giou", "contrast"), 0.0)
    for k in range(K):
        matched = slow_match(out.logits_KBQS[k], out.boxes_KBQ4[k], batch)
        for b in range(B):
            owner = {q: m for m, q in enumerate(matched[b])}
            for q in range(Q):
                target = slow_target(batch, b, owner[q]) if q in owner else [0.0] * (S - 1) + [1.0]
                logs = out.logits_KBQS[k, b, q].log_softmax(-1).tolist()
                entropy = -sum(t * p for t, p in zip(target, logs, strict=True))
                total["slot"] += entropy if q in owner else 0.1 * entropy
            for q, m in owner.items():
                found, wanted = out.boxes_KBQ4[k, b, q], batch.boxes_BM4[b, m]
                total["l1"] += float((found - wanted).abs().sum())
                total["giou"] += 1 - slow_giou(found, wanted)
            pairs = {(q, t) for q, m in owner.items() for t in range(L) if batch.positive_BML[b, m, t]}
            total["contrast"] += slow_contrast(
                out.query_KBQC[k, b], out.token_BLC[b], pairs, int(batch.text_BL[b].sum())
            )
    return {name: value / int(batch.valid_BM.sum()) for name, value in total.items()}


# -- matching ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_the_matcher_finds_the_cheapest_of_all_assignments(seed):
    batch, out = random_batch(seed), random_output(seed)
    found = match(out.logits_KBQS[0], out.boxes_KBQ4[0], batch)
    expected = slow_match(out.logits_KBQS[0], out.boxes_KBQ4[0], batch)
    assert [row[: len(want)] for row, want in zip(found.tolist(), expected, strict=True)] == expected


@pytest.mark.parametrize("seed", range(4))
def test_for_phrases_of_one_token_the_matcher_is_detrs(seed):
    batch, out = random_batch(seed, one_token=True), random_output(seed)
    found = match(out.logits_KBQS[0], out.boxes_KBQ4[0], batch)
    targets = [
        {"class_labels": batch.positive_BML[b, valid].int().argmax(-1), "boxes": batch.boxes_BM4[b, valid]}
        for b, valid in enumerate(batch.valid_BM)
    ]
    detr = HungarianMatcher(class_cost=1, bbox_cost=5, giou_cost=2)
    expected = detr({"logits": out.logits_KBQS[0], "pred_boxes": out.boxes_KBQ4[0]}, targets)
    for b, (queries, order) in enumerate(expected):
        assert found[b, order].tolist() == queries.tolist()


def test_no_query_answers_for_two_boxes_and_padding_has_none():
    batch, out = random_batch(0), random_output(0)
    found = match(out.logits_KBQS[0], out.boxes_KBQ4[0], batch)
    assert torch.equal(found >= 0, batch.valid_BM)
    for row, valid in zip(found, batch.valid_BM, strict=True):
        assert len(set(row[valid].tolist())) == valid.sum()


def test_boxes_beyond_the_number_of_queries_stay_unmatched_and_cost_nothing():
    batch, out = random_batch(0), random_output(0)
    few = replace(
        out,
        logits_KBQS=out.logits_KBQS[:, :, :2],
        boxes_KBQ4=out.boxes_KBQ4[:, :, :2],
        query_KBQC=out.query_KBQC[:, :, :2],
    )
    found = match(few.logits_KBQS[0], few.boxes_KBQ4[0], batch)
    assert [(row >= 0).sum().item() for row in found] == [2, 1, 2]
    lost = [(found[0] < 0).nonzero().item()]
    l1 = sum(
        float((few.boxes_KBQ4[k, b, q] - batch.boxes_BM4[b, m]).abs().sum())
        for k in range(K)
        for b, row in enumerate(match(few.logits_KBQS[k], few.boxes_KBQ4[k], batch).tolist())
        for m, q in enumerate(row)
        if q >= 0
    )
    assert len(lost) == 1 and float(set_loss(few, batch)["l1"]) == pytest.approx(l1 / 6, abs=1e-5)


# -- the set loss -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("one_token", [True, False])
def test_soft_token_l1_giou_and_contrastive_losses_follow_their_definitions(seed, one_token):
    batch, out = random_batch(seed, one_token), random_output(seed)
    found, expected = set_loss(out, batch), slow_set_loss(out, batch)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert float(found[name]) == pytest.approx(value, abs=1e-5, rel=1e-5), name


def test_giou_is_torchvisions():
    torch.manual_seed(0)
    a, b = boxes(7), boxes(4)
    expected = 1 - generalized_box_iou(*(box_convert(x, "cxcywh", "xyxy") for x in (a, b)))
    assert torch.allclose(giou_loss(a[:, None], b), expected, atol=1e-5)


def test_the_target_of_a_box_is_uniform_over_its_phrase():
    positive = torch.tensor([[[0, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]]], dtype=torch.bool)
    assert slots(positive, 6).tolist() == [[[0, 0.5, 0.5, 0, 0, 0], [1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]]]


def test_padding_takes_no_part():
    batch, out = random_batch(3), random_output(3)
    longer = replace(
        batch,
        tokens_BL=F.pad(batch.tokens_BL, (0, 2)),
        text_BL=F.pad(batch.text_BL, (0, 2)),
        positive_BML=F.pad(batch.positive_BML, (0, 2, 0, 1)),
        valid_BM=F.pad(batch.valid_BM, (0, 1)),
        boxes_BM4=torch.cat([batch.boxes_BM4, boxes(B, 1)], 1),
        category_BM=F.pad(batch.category_BM, (0, 1)),
    )
    noise = torch.randn(B, L + 2, C)
    noise[:, :L][batch.text_BL] = out.token_BLC[batch.text_BL]
    plain, padded = set_loss(out, batch), set_loss(replace(out, token_BLC=noise), longer)
    for name, value in plain.items():
        assert torch.allclose(value, padded[name], atol=1e-6), name


def perfect(batch: Batch) -> Grounding:
    """What a model that knows the answer says: tokens and queries of a phrase lie on an axis of their own."""
    logits = torch.full((K, B, Q, S), -30.0)
    logits[..., -1] = 30.0
    found, axes = boxes(K, B, Q), 2 * M + Q
    query, tokens = torch.zeros(K, B, Q, axes), torch.zeros(B, L, axes)
    query[..., 2 * M :] = torch.eye(Q)
    tokens[..., 2 * M - 1] = 1
    for b, m in batch.valid_BM.nonzero().tolist():
        q = (m + b) % Q
        logits[:, b, q, -1], found[:, b, q] = -30.0, batch.boxes_BM4[b, m]
        logits[:, b, q, :L][:, batch.positive_BML[b, m]] = 30.0
        query[:, b, q] = tokens[b, batch.positive_BML[b, m]] = torch.eye(axes)[m]
    return Grounding(logits, found, query, tokens, None, None)


def test_a_perfect_answer_has_the_least_loss_there_is():
    batch = random_batch(0, one_token=True)
    best = {name: float(value) for name, value in set_loss(perfect(batch), batch).items()}
    assert all(0 <= value < 1e-4 for value in best.values()), best
    torch.manual_seed(1)
    for _ in range(5):
        answer = perfect(batch)
        worse = replace(
            answer,
            logits_KBQS=answer.logits_KBQS + 30 * torch.randn(K, B, Q, S),
            boxes_KBQ4=answer.boxes_KBQ4 * 0.9,
            query_KBQC=F.normalize(answer.query_KBQC + torch.randn_like(answer.query_KBQC), dim=-1),
        )
        assert all(float(value) > best[name] for name, value in set_loss(worse, batch).items())


def test_the_soft_token_loss_of_a_perfect_answer_is_the_entropy_of_its_targets():
    batch = random_batch(0)
    tokens = batch.positive_BML[batch.valid_BM].sum(-1).double()
    least = K * float(tokens.log().sum()) / len(tokens)
    assert least > 0.1 and float(set_loss(perfect(batch), batch)["slot"]) == pytest.approx(least, abs=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_the_contrastive_loss_sums_captions_and_takes_the_mean_of_both_directions(seed):
    batch, out = random_batch(seed), random_output(seed)
    positive = torch.rand(B, Q, L) < 0.3
    positive &= batch.text_BL[:, None]
    expected = sum(
        slow_contrast(out.query_KBQC[0, b], out.token_BLC[b], {*map(tuple, positive[b].nonzero().tolist())}, n)
        for b, n in enumerate(batch.text_BL.sum(1).tolist())
    )
    found = contrast(out.query_KBQC[0], out.token_BLC, positive, batch.text_BL)
    assert float(found) == pytest.approx(expected, rel=1e-5)


# -- dense losses -----------------------------------------------------------------------------------------------

GRID = torch.tensor([[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]])
WHOLE, CORNER = [0.5, 0.5, 1.0, 1.0], [0.75, 0.75, 0.4, 0.4]


def toy(*boxes: list[float], padding: int = 0) -> Batch:
    """One caption "<start> first second <pad>" with one token for every box."""
    n, m = len(boxes), len(boxes) + padding
    text = torch.tensor([[True] * (n + 1) + [False]])
    positive = torch.zeros(1, m, n + 2, dtype=torch.bool)
    positive[0, range(n), range(1, n + 1)] = True
    return Batch(
        torch.zeros(1, 3, 2, 2, dtype=torch.uint8),
        torch.zeros(1, dtype=torch.int64),
        text.long(),
        text,
        torch.tensor([[*boxes, *[[0.0] * 4] * padding]]),
        (torch.arange(m) < n)[None],
        positive,
        torch.arange(1, m + 1)[None],
    )


def test_an_image_token_belongs_to_the_boxes_that_its_centre_lies_in():
    within = inside(GRID, toy(WHOLE, CORNER, [0.25, 0.5, 0.4, 0.6], padding=1))
    assert within.int().tolist() == [[[1, 1, 1, 1], [0, 0, 0, 1], [1, 0, 1, 0], [0, 0, 0, 0]]]


def test_a_box_between_the_centres_has_the_nearest_token():
    within = inside(GRID, toy([0.9, 0.05, 0.02, 0.02], [0.45, 0.6, 0.1, 0.1]))
    assert within.int().tolist() == [[[0, 1, 0, 0], [0, 0, 1, 0]]]


def test_a_token_on_two_objects_answers_for_the_smaller_box_and_for_both_phrases():
    # every token says the whole picture: right for three, and for the fourth wrong by
    # L1 = 0.25 + 0.25 + 0.6 + 0.6 and GIoU = IoU = 0.16
    axes = torch.eye(3)
    patches = Patches(
        image_BND=torch.zeros(1, 4, 1),
        boxes_BN4=torch.tensor([[WHOLE] * 4]),
        centres_N2=GRID,
        patch_BNC=axes[[0] * 4][None],
        token_BLC=axes[[2, 0, 1, 0]][None],
    )
    found = patch_loss(patches, toy(WHOLE, CORNER))
    assert float(found["patch_box"]) == pytest.approx((5 * 1.7 + 2 * 0.84) / 4, abs=1e-5)
    # logits of every patch: 1/T with the first phrase's token, 0 with the start and the second's, padding left out
    row, logit = log(exp(1 / TEMPERATURE) + 2), 1 / TEMPERATURE
    rows = 3 * (row - logit) + (row - logit / 2)
    columns = log(4) + log(4)
    assert float(found["towers"]) == pytest.approx((rows + columns) / 2 / 4, rel=1e-5)


def test_tokens_beside_all_objects_are_not_asked_for_boxes():
    patches = Patches(
        torch.zeros(1, 4, 1),
        torch.tensor([[WHOLE, WHOLE, WHOLE, CORNER]]),
        GRID,
        torch.zeros(1, 4, 3),
        torch.zeros(1, 3, 3),
    )
    assert float(patch_loss(patches, toy(CORNER))["patch_box"]) == pytest.approx(0, abs=1e-5)


def test_the_score_loss_is_focal_and_divided_by_the_tokens_on_objects():
    scores = [-1.0, 0.0, 2.0, 0.5]  # the last lies on the object
    chance = [1 / (1 + exp(-s)) for s in scores]
    beside = sum(0.75 * p**2 * -log(1 - p) for p in chance[:3])
    on = 0.25 * (1 - chance[3]) ** 2 * -log(chance[3])
    assert float(score_loss(torch.tensor([scores]), GRID, toy(CORNER))) == pytest.approx(beside + on, rel=1e-5)
    both = toy(CORNER, [0.25, 0.25, 0.3, 0.3])
    sure = torch.tensor([[20.0, -20.0, -20.0, 20.0]])
    assert float(score_loss(sure, GRID, both)) < 1e-6 < float(score_loss(-sure, GRID, both))


def without_boxes(captions: int) -> Batch:
    """Captions without a target."""
    nothing = torch.zeros(captions, 1, L, dtype=torch.bool)
    return Batch(
        images_ICHW=torch.zeros(captions, 3, 2, 2, dtype=torch.uint8),
        image_index_B=torch.arange(captions),
        tokens_BL=torch.full((captions, L), 4),
        text_BL=torch.ones(captions, L, dtype=torch.bool),
        boxes_BM4=torch.zeros(captions, 1, 4),
        valid_BM=nothing[..., 0],
        positive_BML=nothing,
        category_BM=torch.zeros(captions, 1, dtype=torch.int64),
    )


def test_captions_without_a_target_teach_every_query_that_there_is_no_object():
    batch, out = without_boxes(B), random_output(0)
    logits = out.logits_KBQS.clone().requires_grad_()
    found = set_loss(replace(out, logits_KBQS=logits), batch)
    assert {name: float(value) for name, value in found.items() if name != "slot"} == {
        "l1": 0,
        "giou": 0,
        "contrast": 0,
    }
    nothing = -out.logits_KBQS.log_softmax(-1)[..., -1].sum()
    found["slot"].backward()
    assert found["slot"].item() == pytest.approx(0.1 * float(nothing) / B, rel=1e-5)
    assert logits.grad is not None and (logits.grad[..., -1] < 0).all() and (logits.grad[..., :-1] > 0).all()


def test_of_captions_without_a_target_a_token_costs_the_share_of_its_caption():
    scores = [-1.0, 0.0, 2.0, 0.5]
    chance = [1 / (1 + exp(-s)) for s in scores]
    beside = sum(0.75 * p**2 * -log(1 - p) for p in chance)
    for captions in (1, 4):
        found = score_loss(torch.tensor([scores] * captions), GRID, without_boxes(captions))
        assert float(found) == pytest.approx(beside, rel=1e-5)
    places = torch.zeros(2, 4, 1), torch.rand(2, 4, 4), GRID, torch.zeros(2, 4, 3), torch.zeros(2, L, 3)
    patches = Patches(*places)
    assert [float(value) for value in patch_loss(patches, without_boxes(2)).values()] == [0, 0]


def test_the_warm_up_asks_every_token_on_an_object_for_its_category():
    torch.manual_seed(0)
    warm = WarmUp(MDETR(SMOKE), categories=4)
    batch = replace(toy(WHOLE, CORNER), images_ICHW=torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8))
    patches = warm.model.towers_only(*batch.inputs)
    logs = warm.category(patches.image_BND[0]).log_softmax(-1).detach()
    within = inside(patches.centres_N2, batch)[0]
    wanted = [-float(logs[n, 1 + m]) for m in range(2) for n in within[m].nonzero().flatten().tolist()]
    found = warm.losses(batch)
    assert within[0].all() and 0 < within[1].sum() < 64
    assert float(found["category"].detach()) == pytest.approx(sum(wanted) / len(wanted), rel=1e-4)
    assert found.keys() == {"patch_box", "towers", "category"}


@pytest.mark.parametrize("proposals", [True, False])
def test_a_model_has_a_weight_for_each_of_its_losses_and_learns_from_all(proposals):
    torch.manual_seed(0)
    model = MDETR(SMOKE.model_copy(update={"proposals": proposals}))
    batch = replace(toy(WHOLE, CORNER), images_ICHW=torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8))
    found = grounding.losses(model(*batch.inputs), batch)
    dense = {"score", "patch_box", "towers"} if proposals else set()
    assert found.keys() == {"slot", "l1", "giou", "contrast"} | dense and found.keys() <= grounding.WEIGHTS.keys()
    sum(grounding.WEIGHTS[name] * value for name, value in found.items()).backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None]
    assert not silent
