"""Referring expression comprehension: the evaluator against a slow one, and what it lets a model see."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.ops import box_convert

from snp.data import annotations
from snp.data.annotations import Entry
from snp.data.dataset import GroundingSet
from snp.data.decoded import pixels_below
from snp.data.tokens import Vocabulary
from snp.models.config import SMOKE
from snp.models.mdetr import MDETR
from snp.tasks.rec import RANKS, evaluate, pairwise_iou, score

TYPES = ("attribute", "relation", "order")


# -- the score --------------------------------------------------------------------------------------------------


def corners(box: Tensor) -> list[float]:
    x, y, w, h = box.double().tolist()
    return [x - w / 2, y - h / 2, x + w / 2, y + h / 2]


def slow_iou(a: Tensor, b: Tensor, generalized: bool = False) -> float:
    (a0, a1, a2, a3), (b0, b1, b2, b3) = corners(a), corners(b)
    overlap = max(0.0, min(a2, b2) - max(a0, b0)) * max(0.0, min(a3, b3) - max(a1, b1))
    union = (a2 - a0) * (a3 - a1) + (b2 - b0) * (b3 - b1) - overlap
    hull = (max(a2, b2) - min(a0, b0)) * (max(a3, b3) - min(a1, b1))
    return overlap / union - ((hull - union) / hull if generalized else 0.0)


def slow_score(boxes: Tensor, ranks: Tensor, targets: Tensor, compatible: bool) -> dict[str, float]:
    """Every expression by itself: sort the boxes, look at the first k.

    The public evaluator sorts pairs of rank and corners from the largest down, and so decides ties by the corners.
    """
    right, first = dict.fromkeys(RANKS, 0), 0.0
    for n, target in enumerate(targets):
        order = sorted(range(boxes.shape[1]), key=lambda q: (-float(ranks[n, q]), q))
        if compatible:
            xyxy = box_convert(boxes[n], "cxcywh", "xyxy").tolist()
            pairs = sorted(((float(ranks[n, q]), xyxy[q], q) for q in range(len(xyxy))), reverse=True)
            order = [q for _, _, q in pairs]
        first += slow_iou(boxes[n, order[0]], target)
        for k in RANKS:
            right[k] += any(slow_iou(boxes[n, q], target, compatible) >= 0.5 for q in order[:k])
    rest = {f"precision@{k}": count / len(targets) for k, count in right.items()}
    return {"n": len(targets), "mean_iou": first / len(targets)} | rest


def random_answers(seed: int, N: int = 60, Q: int = 12) -> tuple[Tensor, Tensor, Tensor, np.ndarray]:
    """Boxes near the truth more or less, some of them twice; ranks of few values, so that many are equal."""
    torch.manual_seed(seed)
    targets = torch.cat([0.3 + 0.4 * torch.rand(N, 2), 0.1 + 0.3 * torch.rand(N, 2)], 1)
    boxes = targets[:, None] * (1 + 0.2 * torch.randn(N, Q, 4)).clamp(0.3, 2)
    boxes[:, 5], boxes[:, 9] = boxes[:, 1], boxes[:, 0]
    ranks = torch.randint(0, 4, (N, Q)) / 4
    return boxes, ranks, targets, np.array([TYPES[i % 3] for i in range(N)])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("compatible", [False, True])
def test_the_score_is_that_of_a_slow_evaluator_also_with_ties_and_duplicates(seed, compatible):
    boxes, ranks, targets, types = random_answers(seed)
    found = score(boxes, ranks, targets, types, mdetr_compatible=compatible)
    expected = slow_score(boxes, ranks, targets, compatible)
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert 0 < found["precision@1"] < found["precision@5"] < found["precision@10"]


@pytest.mark.slow
def test_the_public_evaluators_ties_are_its_own_over_a_thousand_expressions_half_of_whose_ranks_are_equal():
    torch.manual_seed(0)
    N, Q = 1500, 12
    targets = torch.cat([0.3 + 0.4 * torch.rand(N, 2), 0.1 + 0.3 * torch.rand(N, 2)], 1)
    boxes = targets[:, None] * (1 + 0.2 * torch.randn(N, Q, 4)).clamp(0.3, 2)
    boxes = (boxes * 16).round() / 16  # so that corners are equal too
    ranks = torch.where(torch.rand(N, Q) < 0.5, torch.tensor(0.75), torch.randint(0, 4, (N, Q)) / 4)
    types = np.array([str(n) for n in range(N)])  # a figure for every expression
    found = score(boxes, ranks, targets, types, mdetr_compatible=True)["by_type"]
    differing = 0
    ours = score(boxes, ranks, targets, types)["by_type"]
    for n in range(N):
        expected = slow_score(boxes[n : n + 1], ranks[n : n + 1], targets[n : n + 1], compatible=True)
        assert found[str(n)] == pytest.approx(expected, abs=1e-6)
        differing += found[str(n)]["mean_iou"] != ours[str(n)]["mean_iou"]
    assert differing > N / 4


def test_by_type_is_the_score_of_each_type_alone():
    boxes, ranks, targets, types = random_answers(7)
    found = score(boxes, ranks, targets, types)["by_type"]
    assert list(found) == sorted(TYPES)
    for name, part in found.items():
        own = torch.from_numpy(types == name)
        expected = slow_score(boxes[own], ranks[own], targets[own], compatible=False)
        assert part == pytest.approx(expected, abs=1e-6)


def one(box: list[float], target: list[float], **options) -> dict[str, float]:
    return score(torch.tensor([[box]]), torch.ones(1, 1), torch.tensor([target]), np.array([""]), **options)


def test_a_box_of_exactly_half_overlap_is_right():
    assert one([0.5, 0.5, 0.5, 0.25], [0.5, 0.5, 0.5, 0.5])["precision@1"] == 1
    assert one([0.5, 0.5, 0.5, 0.2499], [0.5, 0.5, 0.5, 0.5])["precision@1"] == 0


def test_mdetrs_own_evaluator_thresholds_giou_and_is_harder():
    # shifted along the diagonal: IoU 0.516, GIoU 0.472
    box, target = [0.57, 0.57, 0.4, 0.4], [0.5, 0.5, 0.4, 0.4]
    ours, theirs = one(box, target), one(box, target, mdetr_compatible=True)
    assert ours["precision@1"] == 1 and theirs["precision@1"] == 0
    assert ours["mean_iou"] == theirs["mean_iou"] == pytest.approx(0.1089 / 0.2111, abs=1e-5)


def test_of_equally_ranked_boxes_the_first_query_counts():
    good, bad = [0.5, 0.5, 0.4, 0.4], [0.1, 0.1, 0.1, 0.1]
    for boxes, right in (([good, bad], 1), ([bad, good], 0)):
        given = (torch.tensor([boxes]), torch.ones(1, 2), torch.tensor([good]), np.array([""]))
        found, theirs = score(*given), score(*given, mdetr_compatible=True)
        assert found["precision@1"] == right and found["precision@10"] == 1
        assert theirs["precision@1"] == 1, "there the box with the larger corners counts"


def test_boxes_without_area_overlap_nothing():
    found = pairwise_iou(torch.tensor([[[0.5, 0.5, 0.0, 0.0], [0.5, 0.5, 0.2, 0.2]]]), torch.tensor([[0.5] * 4]))
    assert found.tolist() == [[0.0, pytest.approx(0.16)]]


# -- the evaluation of a model ----------------------------------------------------------------------------------

CAPTIONS = ["a red star", "the blue heart left of a big ring", "moon", "second square from the left"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Ten expressions on three pictures, and the same pictures and sentences with other answers."""
    root = tmp_path_factory.mktemp("rec")
    (root / "images" / "val").mkdir(parents=True)
    source = np.random.default_rng(0)
    for name in "abc":
        pixels = source.integers(0, 256, (64, 64, 3), np.uint8)
        Image.fromarray(pixels).save(root / "images" / "val" / f"{name}.png")
    entries = []
    for number in range(10):
        x, y, w, h = source.integers(4, 30, 4).tolist()
        entries.append(
            Entry(
                number,
                f"val/{'abc'[number % 3]}.png",
                64,
                64,
                CAPTIONS[number % 4],
                "toy",
                ((x, y, w, h),),
                (((0, 4),),),
                TYPES[number % 3],
                number,
                (number % 5,),
            )
        )
    others = [
        replace(
            entry,
            boxes=((1, 2, 3, 4), *entry.boxes),
            spans=(((2, 4), (0, 1)), ((1, 3),)),
            type="order",
            categories=(0, 0),
            original_id=0,
            dataset_name="other",
        )
        for entry in entries
    ]
    for name, content in (("answers", entries), ("others", others)):
        annotations.write(root / "annotations" / f"{name}.json", content, list("abcde"))
    return root


@pytest.fixture(scope="module")
def model():
    """Random weights, large enough that pictures and words change the answers."""
    torch.manual_seed(0)
    model = MDETR(SMOKE)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.16)
    return model.eval()


def data(root, name: str) -> GroundingSet:
    images = pixels_below(root / "images", SMOKE.image_size, root / "cache")
    return GroundingSet.read(root, name, images, Vocabulary.from_captions(CAPTIONS), SMOKE.context)


def said(model: MDETR, data: GroundingSet) -> tuple[list[tuple[Tensor, Tensor]], dict]:
    """What the model answered while it was evaluated, and the score."""
    answers: list[tuple[Tensor, Tensor]] = []
    hook = model.register_forward_hook(lambda _, __, out: answers.append((out.boxes_KBQ4, out.logits_KBQS)))
    found = evaluate(model, data)
    hook.remove()
    return answers, found


def test_a_model_is_given_pixels_and_words_alone(root, model):
    """Other boxes, spans, types, categories, more boxes in another order: the same answers, judged otherwise."""
    answers, found = said(model, data(root, "answers"))
    others, judged = said(model, data(root, "others"))
    assert len(answers) == len(others) > 0
    for ours, theirs in zip(answers, others, strict=True):
        assert all(map(torch.equal, ours, theirs))
    assert found["mean_iou"] != judged["mean_iou"] and set(judged["by_type"]) == {"order"}


def test_the_answers_depend_on_pixels_and_on_words(root, model):
    batch = data(root, "answers").batch(np.array([0, 1]))
    images, index, tokens, text = batch.inputs
    plain = model(*batch.inputs).boxes_KBQ4
    assert not torch.allclose(plain, model(images.flip(0), index, tokens, text).boxes_KBQ4, atol=1e-3)
    assert not torch.allclose(plain, model(images, index, tokens.roll(1, 1), text).boxes_KBQ4, atol=1e-3)


@pytest.mark.parametrize("captions", [1, 4, 128])
def test_evaluating_by_images_gives_what_one_caption_at_a_time_gives(root, model, captions):
    answers = data(root, "answers")
    with torch.inference_mode():
        batches = [answers.batch(np.array([i])) for i in range(len(answers))]
        out = [model(*batch.inputs) for batch in batches]
    boxes = torch.cat([o.boxes_KBQ4[-1] for o in out])
    ranks = 1 - torch.cat([o.logits_KBQS[-1] for o in out]).softmax(-1)[..., -1]
    targets = torch.cat([batch.boxes_BM4[:, 0] for batch in batches])
    expected, found = score(boxes, ranks, targets, answers.types), evaluate(model, answers, captions)
    assert found["n"] == 10 and {k: v["n"] for k, v in found["by_type"].items()} == {
        "attribute": 4,
        "order": 3,
        "relation": 3,
    }
    by_type, by_type_expected = found.pop("by_type"), expected.pop("by_type")
    assert found == pytest.approx(expected, abs=1e-5)
    for name, part in by_type.items():
        assert part == pytest.approx(by_type_expected[name], abs=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_evaluating_leaves_the_mode_of_the_model_and_makes_no_gradients(root, training):
    model = MDETR(SMOKE).train(training)
    evaluate(model, data(root, "answers"))
    assert all(module.training == training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
