"""Captions with and without a target: figures by hand, thresholds by trying all, and the public evaluator's ways."""

from itertools import permutations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from snp.data import annotations
from snp.data.annotations import Entry
from snp.data.dataset import GroundingSet
from snp.data.decoded import pixels_below
from snp.data.mixture import Mixture
from snp.data.tokens import Vocabulary
from snp.errors import InputError
from snp.models.config import SMOKE
from snp.models.mdetr import MDETR
from snp.tasks.rejecting import auroc, evaluate, kinds_of, score

HERE, THERE, AWAY = [0.2, 0.2, 0.2, 0.2], [0.7, 0.7, 0.2, 0.2], [0.2, 0.8, 0.1, 0.1]
NEAR = [0.24, 0.2, 0.2, 0.2]  # IoU with HERE 2/3
NO_TARGET: list[list[float]] = []


def judged(*captions: tuple[list[tuple[list[float], float]], list[list[float]]], **options) -> dict:
    """The figures of captions, each with boxes and how sure the model is of them, and with its targets."""
    boxes = torch.tensor([[box for box, _ in said] for said, _ in captions])
    ranks = torch.tensor([[rank for _, rank in said] for said, _ in captions])
    targets = [torch.tensor(true).reshape(-1, 4) for _, true in captions]
    kinds = options.pop("kinds", [()] * len(captions))
    return score(boxes, ranks, targets, kinds, **options)


SURE = [(HERE, 0.9), (AWAY, 0.2)], [HERE]
UNSURE = [(HERE, 0.4), (AWAY, 0.1)], [HERE]
WRONG = [(AWAY, 0.8), (HERE, 0.1)], [HERE]
QUIET = [(HERE, 0.3), (AWAY, 0.1)], NO_TARGET
LOUD = [(HERE, 0.6), (AWAY, 0.1)], NO_TARGET


def test_the_figures_are_those_by_hand() -> None:
    found = judged(SURE, UNSURE, WRONG, QUIET, LOUD, threshold=0.5)
    assert found["n"] == 5 and found["threshold"] == 0.5
    assert found["precision@1"] == pytest.approx(2 / 3), "whatever the threshold is"
    assert found["t_acc"] == pytest.approx(2 / 3), "a wrong box is an answer"
    assert found["n_acc"] == 1 / 2
    assert found["precision@f1"] == pytest.approx(2 / 5), "SURE and QUIET"
    # 0.9 and 0.8 are above 0.3 and 0.6, and 0.4 above 0.3
    assert found["auroc"] == pytest.approx(5 / 6)


def test_a_model_that_never_answers_is_right_of_captions_without_a_target_alone() -> None:
    found = judged(SURE, UNSURE, QUIET, LOUD, threshold=0.95)
    assert (found["n_acc"], found["t_acc"], found["precision@f1"]) == (1, 0, 0.5)
    always = judged(SURE, UNSURE, QUIET, LOUD, threshold=0.05)
    assert (always["n_acc"], always["t_acc"], always["precision@f1"]) == (0, 1, 0)


def test_the_threshold_is_one_that_no_other_is_better_than() -> None:
    assert judged(SURE, UNSURE, QUIET, LOUD)["threshold"] == pytest.approx(0.4)
    assert judged(SURE, UNSURE, QUIET, LOUD)["precision@f1"] == 3 / 4
    assert judged(SURE, QUIET, QUIET)["threshold"] == pytest.approx(0.9), "that of a score, which counts as reached"
    never = judged(WRONG, LOUD)
    assert never["threshold"] > 1 and (never["n_acc"], never["t_acc"]) == (1, 0)


def test_boxes_of_one_object_count_once_and_in_the_public_evaluator_each() -> None:
    twice = [(HERE, 0.9), (NEAR, 0.8)], [HERE]
    assert judged(twice, QUIET, threshold=0.5)["precision@f1"] == 1
    assert judged(twice, QUIET, compatible=True)["precision@f1"] == 0.5
    other = [(HERE, 0.9), (THERE, 0.8)], [HERE]
    assert judged(other, QUIET, threshold=0.5)["precision@f1"] == 0.5, "a second object is one too many"


def test_several_targets_want_a_box_each() -> None:
    both, one = [(THERE, 0.9), (HERE, 0.8)], [(THERE, 0.9), (HERE, 0.3)]
    assert judged((both, [HERE, THERE]), QUIET, threshold=0.5)["precision@f1"] == 1
    assert judged((one, [HERE, THERE]), QUIET, threshold=0.5)["precision@f1"] == 0.5
    assert judged((one, [HERE, THERE]), QUIET, threshold=0.5)["precision@1"] == 1, "either is right"
    assert judged((both, [HERE, THERE, AWAY]), QUIET, threshold=0.1)["precision@f1"] == 0, "more than there are boxes"


def test_the_public_evaluator_thresholds_giou_at_a_score_of_its_own() -> None:
    # shifted along the diagonal: IoU 0.516, GIoU 0.472
    shifted = [([0.57, 0.57, 0.4, 0.4], 0.8), (AWAY, 0.1)], [[0.5, 0.5, 0.4, 0.4]]
    ours, theirs = judged(shifted, QUIET, threshold=0.5), judged(shifted, QUIET, compatible=True)
    assert (ours["precision@f1"], theirs["precision@f1"]) == (1, 0.5) and theirs["threshold"] == 0.7
    assert theirs["precision@1"] == 1


def test_targets_are_matched_as_well_as_can_be_and_in_the_public_evaluator_greedily() -> None:
    boxes, targets = ([[x, 0.5, 0.2, 0.2] for x in line] for line in ((0.21, 0.32), (0.27, 0.385)))
    iou = [[slow_iou(torch.tensor(box), torch.tensor(target)) for target in targets] for box in boxes]
    # both boxes reach the first target, the second box, its nearest, the second target too
    assert iou[1][0] > max(iou[0][0], iou[1][1]) and min(iou[0][0], iou[1][1]) >= 0.5 > iou[0][1]
    said = list(zip(boxes, (0.9, 0.8), strict=True))
    assert judged((said, targets), QUIET, threshold=0.5)["precision@f1"] == 1
    assert judged((said, targets), QUIET, compatible=True)["precision@f1"] == 0.5


def slow_iou(a: Tensor, b: Tensor) -> float:
    (ax, ay, aw, ah), (bx, by, bw, bh) = a.tolist(), b.tolist()
    x = max(0.0, min(ax + aw / 2, bx + bw / 2) - max(ax - aw / 2, bx - bw / 2))
    y = max(0.0, min(ay + ah / 2, by + bh / 2) - max(ay - ah / 2, by - bh / 2))
    return x * y / (aw * ah + bw * bh - x * y)


def slow_right(boxes: Tensor, ranks: Tensor, targets: Tensor, threshold: float) -> bool:
    """Whether the boxes from a threshold on, without those that a surer one covers, are the targets."""
    kept: list[Tensor] = []
    for q in sorted(range(len(boxes)), key=lambda q: -float(ranks[q])):
        if float(ranks[q]) >= threshold and all(slow_iou(boxes[q], other) <= 0.5 for other in kept):
            kept.append(boxes[q])
    ways = permutations(kept) if len(kept) == len(targets) else ()
    return any(all(slow_iou(box, true) >= 0.5 for box, true in zip(way, targets, strict=True)) for way in ways)


@pytest.mark.parametrize("seed", range(3))
def test_at_any_threshold_the_figures_are_those_of_a_slow_evaluator_and_the_chosen_one_is_the_best(seed: int) -> None:
    torch.manual_seed(seed)
    N, Q = 40, 6
    targets = [
        torch.cat([0.3 + 0.4 * torch.rand(m, 2), 0.2 + 0.1 * torch.rand(m, 2)], 1) for m in [0, 1, 1, 2] * (N // 4)
    ]
    boxes = torch.rand(N, Q, 4) * 0.5 + 0.2
    for n, true in enumerate(targets):
        for q in range(min(Q, 2 * len(true))):
            boxes[n, q] = true[q % len(true)] * (1 + 0.1 * torch.randn(4))
    ranks = torch.randint(0, 9, (N, Q)) / 8 * torch.tensor([1, 0.9, 0.5, 0.5, 0.3, 0.2])  # so that some are equal
    said = boxes, ranks, targets, [()] * N
    first = ranks.max(1).values
    absent = torch.tensor([not len(true) for true in targets])
    values = sorted({float(rank) for rank in ranks.flatten()} | {1.5})
    slowly = {}
    for threshold in values:
        found = score(*said, threshold=threshold)
        slowly[threshold] = sum(slow_right(b, r, t, threshold) for b, r, t in zip(*said[:3], strict=True)) / N
        assert found["precision@f1"] == pytest.approx(slowly[threshold])
        assert found["n_acc"] == pytest.approx(float((first[absent] < threshold).float().mean()))
        assert found["t_acc"] == pytest.approx(float((first[~absent] >= threshold).float().mean()))
    chosen = score(*said)
    assert 0 < chosen["precision@f1"] == pytest.approx(max(slowly.values()))


def test_auroc_is_the_chance_of_the_right_order_also_with_ties() -> None:
    random = np.random.default_rng(0)
    ours, theirs = random.integers(0, 6, 50) / 5, random.integers(0, 5, 30) / 5
    expected = np.mean([(a > b) + 0.5 * (a == b) for a in ours for b in theirs])
    assert auroc(ours, theirs) == pytest.approx(expected)
    assert auroc(np.ones(3), np.zeros(2)) == 1 and auroc(np.zeros(3), np.zeros(2)) == 0.5


def test_a_kind_is_held_against_all_captions_of_the_other_sort() -> None:
    kinds = [("attribute",), ("order",), ("order",), ("no target: noun", "no target: easy"), ("no target: noun",)]
    parts = judged(SURE, UNSURE, WRONG, QUIET, LOUD, threshold=0.5, kinds=kinds)["by_type"]
    assert {name: part["n"] for name, part in parts.items()} == {
        "attribute": 1, "order": 2, "no target: noun": 2, "no target: easy": 1,
    }  # fmt: skip
    assert parts["attribute"]["auroc"] == 1 and parts["order"]["auroc"] == pytest.approx(3 / 4)
    assert parts["no target: easy"]["auroc"] == 1 and parts["no target: noun"]["auroc"] == pytest.approx(5 / 6)
    assert parts["no target: noun"]["n_acc"] == 0.5 and "precision@1" not in parts["no target: noun"]
    assert parts["order"]["precision@1"] == 0.5 and "n_acc" not in parts["order"]


def test_what_a_caption_is_counted_in_is_told_by_its_entry() -> None:
    entry = Entry(0, "a.png", 64, 64, "the star", "", ((1, 1, 2, 2),), (((0, 8),),), "order")
    bare = Entry(0, "a.png", 64, 64, "the star", "", (), (), "noun", difficulty="hard")
    assert kinds_of(entry) == ("order",) and kinds_of(bare) == ("no target: noun", "no target: hard")
    assert kinds_of(Entry(0, "a.png", 64, 64, "the star", "", (), ())) == ()


@pytest.mark.parametrize(
    ("captions", "problem"), [((SURE, WRONG), "all have a target"), ((QUIET,), "none has a target")]
)
def test_both_sorts_of_captions_are_needed(captions: tuple, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        judged(*captions)


# -- a model, and what it learns ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[GroundingSet, GroundingSet]:
    """Nine expressions and six captions without a target, on three pictures."""
    root = tmp_path_factory.mktemp("rejecting")
    (root / "images").mkdir()
    for name in "abc":
        Image.effect_noise((64, 64), 60).convert("RGB").save(root / "images" / f"{name}.png")
    said = [
        Entry(n, f"{'abc'[n % 3]}.png", 64, 64, "the red star", "t", ((4, 5, 20, 21),), (((0, 12),),), "order")
        for n in range(9)
    ]
    bare = [
        Entry(n, f"{'abc'[n % 3]}.png", 64, 64, "the blue moon", "t", (), (), "noun", difficulty="easy")
        for n in range(6)
    ]
    images, words = (
        pixels_below(root / "images", 64, root / "cache"),
        Vocabulary.from_captions(["the red blue star moon"]),
    )
    annotations.write(root / "annotations/bare.json", bare, [])
    assert annotations.read(root / "annotations/bare.json", boxless=True) == bare
    return GroundingSet(said, images, words, 16), GroundingSet.read(root, "bare", images, words, 16, boxless=True)


def test_a_model_is_judged_on_captions_with_and_without_boxes_together(data: tuple[GroundingSet, GroundingSet]) -> None:
    torch.manual_seed(0)
    model = MDETR(SMOKE)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.16)
    both = data[0].joined(data[1])
    found, apart = (evaluate(model, both, captions=n) for n in (128, 1))
    assert found == apart | {"by_type": found["by_type"]} and found["n"] == 15
    assert {name: part["n"] for name, part in found["by_type"].items()} == {
        "order": 9, "no target: noun": 6, "no target: easy": 6,
    }  # fmt: skip
    with torch.inference_mode():
        out = model.eval()(*both.batch(np.arange(15)).inputs)
    first = (1 - out.logits_KBQS[-1].softmax(-1)[..., -1]).max(1).values
    assert found["auroc"] == pytest.approx(np.mean([(a > b) + 0.5 * (a == b) for a in first[:9] for b in first[9:]]))
    assert evaluate(model, both, threshold=0.123)["threshold"] == 0.123


def test_every_batch_has_its_share_and_all_entries_come(data: tuple[GroundingSet, GroundingSet]) -> None:
    mixed = Mixture(*data, share=1 / 4)
    steps = mixed.epoch(4, 0)
    assert steps.shape == (3, 4) and ((steps >= 9).sum(1) == 1).all()
    assert sorted(steps[steps < 9]) == list(range(9)) and len(set(steps[steps >= 9])) == 3
    many = np.concatenate([mixed.epoch(4, seed) for seed in range(8)])
    assert set(many[many >= 9].tolist()) == set(range(9, 15))
    assert (mixed.epoch(4, 5) == mixed.epoch(4, 5)).all() and (mixed.epoch(4, 5) != mixed.epoch(4, 6)).any()
    stream = mixed.stream(8, 0, per_image=2)
    assert [batch.valid_BM.sum().item() for batch, _ in zip(stream, range(3), strict=False)] == [6, 6, 6]


def test_a_part_of_a_mixture_has_whatever_shares_it_has(data: tuple[GroundingSet, GroundingSet]) -> None:
    part = Mixture(*data, share=1 / 2).subset(np.array([0, 1, 2, 14]))
    assert len(part) == 4 and sorted(part.epoch(4, 0)[0]) == [0, 1, 2, 3]
