"""The GLIP-style model and its losses: every trait that makes it GLIP, against slow or well-known references."""

import itertools
import math
import operator

import pytest
import torch
import torchvision.models.detection._utils as reference
from pydantic import ValidationError
from torch import Tensor
from torchvision.ops import box_convert, box_iou, generalized_box_iou

from snp.compression.tower import towers_of
from snp.data.batch import Batch
from snp.errors import InputError
from snp.files import read_json
from snp.models.config import GLIP_DESK, GLIP_PAPER, GLIP_SMOKE
from snp.models.family import parse
from snp.models.glip import GLIP, BiAttention
from snp.models.mdetr import TOWERS
from snp.models.pyramid import DynamicBlock, Pyramid
from snp.runs.store import Store
from snp.tasks import detect
from snp.training import saved

B, L = 3, 6


@pytest.fixture(scope="module")
def model() -> GLIP:
    torch.manual_seed(0)
    return GLIP(GLIP_SMOKE)


def batch(seed: int = 0) -> Batch:
    """Two images, three prompts of up to six tokens, one to two boxes each."""
    source = torch.Generator().manual_seed(seed)
    text = torch.arange(L) < torch.tensor([6, 4, 5])[:, None]
    positive = torch.zeros(B, 2, L, dtype=torch.bool)
    positive[:, 0, 0] = positive[:, 1, 2:4] = True
    boxes = torch.rand(B, 2, 4, generator=source) * 0.3 + 0.3
    valid = torch.tensor([[True, True], [True, False], [True, True]])
    return Batch(
        torch.randint(0, 256, (2, 3, 64, 64), generator=source, dtype=torch.uint8),
        torch.tensor([0, 0, 1]),
        torch.randint(1, 100, (B, L), generator=source) * text,
        text,
        boxes,
        valid,
        positive & valid[..., None],
        torch.zeros(B, 2, dtype=torch.long),
    )


class TestModel:
    def test_it_says_something_of_every_place_of_every_level_and_every_token(self, model: GLIP) -> None:
        out = model(*batch().inputs)
        places = 16 * 16 + 8 * 8 + 4 * 4
        assert out.logits_BNL.shape == (B, places, L) and out.deltas_BN4.shape == (B, places, 4)
        assert out.level_BN[0].bincount().tolist() == [256, 64, 16]

    def test_an_untrained_model_gives_every_pair_of_place_and_word_about_one_per_cent(self, model: GLIP) -> None:
        likely = model(*batch().inputs).logits_BNL.sigmoid()
        assert float(likely.detach().median()) == pytest.approx(0.01, rel=0.3)

    def test_padding_changes_nothing(self, model: GLIP) -> None:
        one = batch()
        longer = [torch.nn.functional.pad(x, (0, 3)) for x in (one.tokens_BL, one.text_BL)]
        short, padded = (model.eval()(one.images_ICHW, one.image_index_B, *text) for text in (one.inputs[2:], longer))
        assert torch.allclose(short.logits_BNL[1, :, :4], padded.logits_BNL[1, :, :4], atol=1e-5)
        assert torch.allclose(short.deltas_BN4, padded.deltas_BN4, atol=1e-5)

    def test_its_towers_are_those_of_the_other_model(self, model: GLIP) -> None:
        assert set(towers_of(model, TOWERS)) == {"vision", "text"}

    def test_fusion_starts_as_nothing_and_goes_both_ways(self) -> None:
        torch.manual_seed(0)
        fuse = BiAttention(8, 12, 16, 4)
        image, text, seen = torch.randn(2, 5, 8), torch.randn(2, 3, 12), torch.ones(2, 3, dtype=torch.bool)
        new_image, new_text = fuse(image, text, seen)
        assert torch.allclose(new_image, image, atol=1e-3) and torch.allclose(new_text, text, atol=1e-3)
        with torch.no_grad():
            fuse.gamma_image.fill_(1)
            fuse.gamma_text.fill_(1)
        for side, other in itertools.permutations((0, 1)):
            inputs = [image.clone().requires_grad_(), text.clone().requires_grad_()]
            fuse(*inputs, seen)[side].square().sum().backward()
            assert inputs[other].grad.abs().sum() > 0  # each side hears the other

    @pytest.mark.parametrize("deformable", [False, True])
    def test_levels_of_the_dynamic_head_hear_their_neighbours_and_only_them(self, deformable: bool) -> None:
        torch.manual_seed(0)
        levels = [torch.randn(1, 8, s, s).requires_grad_() for s in (16, 8, 4, 2)]
        DynamicBlock(8, deformable)(levels)[1].sum().backward()
        assert [bool(x.grad is not None and x.grad.abs().sum() > 0) for x in levels] == [True, True, True, False]

    def test_a_pyramid_has_every_scale_odd_sides_included(self) -> None:
        maps = Pyramid(8, 4, (4, 2, 1, 0.5, 0.25))(torch.randn(1, 8, 5, 5))
        assert [x.shape[-1] for x in maps] == [20, 10, 5, 3, 2]


class TestPrompts:
    class Words:
        """Every word and every full stop is a token."""

        def encode(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
            return [1] * len(text.replace(".", " .").split()), []

    def test_names_are_joined_by_full_stops_and_every_name_knows_where_it_stands(self) -> None:
        ((text, spans),) = detect.prompts(["dog", "red car", "cat"], self.Words(), 10)
        assert text == "dog. red car. cat"
        assert [text[slice(*span)] for span in spans] == ["dog", "red car", "cat"]

    def test_what_does_not_fit_stands_in_another_prompt(self) -> None:
        found = list(detect.prompts(["dog", "red car", "cat", "cow"], self.Words(), 4))
        assert [text for text, _ in found] == ["dog. red car", "cat. cow"]
        assert [[text[slice(*span)] for span in spans] for text, spans in found] == [["dog", "red car"], ["cat", "cow"]]

    def test_a_name_longer_than_a_prompt_is_an_error(self) -> None:
        with pytest.raises(InputError, match="class 'a b c': is longer than the 2 tokens"):
            list(detect.prompts(["dog", "a b c"], self.Words(), 2))


def corners(count: int, seed: int) -> Tensor:
    source = torch.Generator().manual_seed(seed)
    low = torch.rand(count, 2, generator=source) * 0.6
    return torch.cat([low, low + 0.05 + 0.3 * torch.rand(count, 2, generator=source)], 1)


def test_boxes_are_coded_as_in_faster_rcnn() -> None:
    boxes, anchors = corners(50, 0), corners(50, 1)
    coder = reference.BoxCoder(weights=detect.CODING)
    deltas = coder.encode_single(boxes, anchors)
    assert torch.allclose(detect.encode(boxes, anchors), deltas, atol=1e-5)
    wild = deltas * 3
    assert torch.allclose(detect.decode(wild, anchors), coder.decode_single(wild, anchors), atol=1e-5)


def slow_atss(boxes: Tensor, anchors: Tensor, levels: Tensor) -> list[int]:
    """ATSS in plain loops, by its paper."""
    best = [(-1.0, -1)] * len(anchors)
    for m, box in enumerate(boxes):
        middle = [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2]
        candidates = []
        for level in sorted(set(levels.tolist())):
            own = [n for n in range(len(anchors)) if levels[n] == level]

            def distance(n: int, middle: list = middle) -> float:
                x, y = (anchors[n, :2] + anchors[n, 2:]) / 2
                return float((x - middle[0]) ** 2 + (y - middle[1]) ** 2)

            candidates += sorted(own, key=distance)[:9]
        overlaps = [float(box_iou(anchors[n : n + 1], box[None])) for n in candidates]
        threshold = torch.tensor(overlaps).mean() + torch.tensor(overlaps).std()
        for n, overlap in zip(candidates, overlaps, strict=True):
            x, y = (anchors[n, :2] + anchors[n, 2:]) / 2
            if overlap >= threshold and box[0] < x < box[2] and box[1] < y < box[3] and overlap > best[n][0]:
                best[n] = (overlap, m)
    return [m for _, m in best]


@pytest.mark.parametrize("seed", range(5))
def test_assignment_equals_atss_in_plain_loops(model: GLIP, seed: int) -> None:
    out = model(*batch().inputs)
    boxes = corners(4, seed)
    found = detect.assign(boxes, out.corners_BN4[0], out.level_BN[0])
    assert found.tolist() == slow_atss(boxes, out.corners_BN4[0], out.level_BN[0])
    assert set(found.tolist()) >= {-1, 0}


@torch.no_grad()
def test_alignment_logits_equal_their_formula_place_by_place_and_word_by_word() -> None:
    torch.manual_seed(1)
    model, kept = GLIP(GLIP_SMOKE).eval(), {}
    model.log_scale.fill_(0.3)
    torch.nn.init.normal_(model.word_bias.weight, std=0.1)
    model.region.register_forward_hook(lambda module, inputs, region: kept.update(region=region))
    model.word.register_forward_hook(lambda module, inputs, word: kept.update(text=inputs[0], word=word))
    out = model(*batch().inputs)
    bias, shift = model.word_bias.weight[0].tolist(), float(model.word_bias.bias)
    for b, n, token in itertools.product(range(B), (0, 100, 300, 335), range(L)):
        region, word, text = kept["region"][b, n].tolist(), kept["word"][b, token].tolist(), kept["text"][b, token]
        dot = sum(map(operator.mul, region, word)) / (math.hypot(*word) * math.exp(0.3))
        expected = dot + sum(map(operator.mul, text.tolist(), bias)) + shift
        assert float(out.logits_BNL[b, n, token]) == pytest.approx(expected, abs=1e-5)


def official(alignment: str = "official") -> GLIP:
    return GLIP(GLIP_SMOKE.model_copy(update={"alignment": alignment}))


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("seed", range(20))
def test_official_alignment_is_that_of_the_public_code_place_by_place_and_word_by_word(seed: int) -> None:
    """The text is normalised first, then halved and mapped; places are taken as they are; the bias is of that text."""
    torch.manual_seed(seed)
    model, kept = official().eval(), {}
    model.log_scale.fill_(float(torch.randn(())))
    for parameter in (*model.word.parameters(), *model.word_bias.parameters()):
        torch.nn.init.normal_(parameter, std=0.5)
    model.head[-1].register_forward_hook(lambda module, inputs, levels: kept.update(levels=levels))
    model.read[-1].register_forward_hook(lambda module, inputs, text: kept.update(text=text))
    out = model(*batch(seed).inputs)
    regions = [place.tolist() for level in kept["levels"] for place in level[0].flatten(1).T]
    weight, shift = model.word.weight.tolist(), model.word.bias.tolist()
    bias, bias0 = model.word_bias.weight[0].tolist(), float(model.word_bias.bias)
    for token in range(L):
        text = kept["text"][0, token].tolist()
        unit = [x / math.hypot(*text) for x in text]
        word = [sum(map(operator.mul, row, unit)) / 2 + c for row, c in zip(weight, shift, strict=True)]
        for n in range(seed, len(regions), 20):
            dot = sum(map(operator.mul, regions[n], word)) / math.exp(float(model.log_scale))
            expected = dot + sum(map(operator.mul, unit, bias)) + bias0
            assert float(out.logits_BNL[0, n, token]) == pytest.approx(expected, rel=1e-4, abs=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(("alignment", "most"), [("official", 50_000.0), ("ours", 50.0)])
def test_alignment_logits_have_a_limit(alignment: str, most: float) -> None:
    model = official(alignment=alignment)
    model.log_scale.fill_(-20.0)
    logits = model.align(torch.randn(1, 50, 8), torch.randn(1, 4, GLIP_SMOKE.width))
    assert float(logits.max()) == most and float(logits.min()) == -most


@torch.no_grad()
def test_untrained_the_official_alignment_gives_about_one_per_cent_too() -> None:
    torch.manual_seed(0)
    likely = official()(*batch().inputs).logits_BNL.sigmoid()
    assert float(likely.median()) == pytest.approx(0.01, rel=0.3)


@pytest.mark.slow
def test_paper_scale_is_official_and_the_others_are_what_their_checkpoints_are() -> None:
    assert GLIP_PAPER.alignment == "official" and {GLIP_DESK.alignment, GLIP_SMOKE.alignment} == {"ours"}
    ours, theirs = GLIP(GLIP_SMOKE).state_dict().keys(), official().state_dict().keys()
    assert ours - theirs == {"region.weight", "region.bias"} and theirs < ours
    for path in Store.at("desk").root.glob("*-glip-pretrain-*/model.json"):
        about = read_json(path)
        assert "alignment" not in about["config"], "it was saved before there was another one"
        model, _, _ = saved.load(path.parent)
        assert model.config.alignment == "ours" and isinstance(model.region, torch.nn.Linear)
    with pytest.raises(ValidationError, match="alignment"):
        parse(GLIP_SMOKE.model_dump() | {"alignment": "cosine"})


@torch.no_grad()
@pytest.mark.parametrize("shared", [False, True])
def test_losses_equal_plain_loops(model: GLIP, shared: bool) -> None:
    """`shared`: every token of a phrase of n is told 1/n, as in the public code."""
    one, out = batch(), model(*batch().inputs)
    words = places = boxes = near_all = centre = 0.0
    for b in range(B):
        true = box_convert(one.boxes_BM4[b][one.valid_BM[b]], "cxcywh", "xyxy")
        found = slow_atss(true, out.corners_BN4[0], out.level_BN[0])
        for n, m in enumerate(found):
            for token in range(int(one.text_BL[b].sum())):
                p = float(out.logits_BNL[b, n, token].double().sigmoid())
                wanted = float(m >= 0 and bool(one.positive_BML[b, m, token]))
                if wanted and shared:
                    wanted /= int(one.positive_BML[b, m].sum())
                off = 1 - (p * wanted + (1 - p) * (1 - wanted))
                entropy = -wanted * math.log(p) - (1 - wanted) * math.log(1 - p)
                words += (0.25 * wanted + 0.75 * (1 - wanted)) * off**2 * entropy
            if m < 0:
                continue
            places += 1
            x, y = ((out.corners_BN4[0, n, :2] + out.corners_BN4[0, n, 2:]) / 2).tolist()
            x0, y0, x1, y1 = true[m].tolist()
            near = math.sqrt(min(x - x0, x1 - x) / max(x - x0, x1 - x) * min(y - y0, y1 - y) / max(y - y0, y1 - y))
            said = detect.decode(out.deltas_BN4[b, n], out.corners_BN4[0, n])
            boxes += near * (1 - float(generalized_box_iou(said[None], true[m : m + 1])))
            near_all += near
            p = float(out.centre_BN[b, n].double().sigmoid())
            centre -= near * math.log(p) + (1 - near) * math.log(1 - p)
    expected = {"word": words / places, "box": boxes / near_all, "centre": centre / places}
    parts = detect.losses(out, one, shared)
    assert {name: float(value) for name, value in parts.items()} == pytest.approx(expected, rel=1e-5)


def test_a_prompt_without_a_box_has_no_positive_and_finite_losses(model: GLIP) -> None:
    one = batch()
    bare = Batch(*one.inputs, one.boxes_BM4, one.valid_BM & False, one.positive_BML & False, one.category_BM)
    parts = detect.losses(model(*bare.inputs), bare)
    assert parts["box"] == parts["centre"] == 0 and parts["word"].isfinite()


def test_centerness_is_one_at_the_centre_and_falls_to_the_edge() -> None:
    box = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(3, 4)
    middle = torch.tensor([[0.5, 0.5], [0.25, 0.5], [0.0, 0.5]])
    anchors = torch.cat([middle - 0.1, middle + 0.1], 1)
    assert detect.centerness(anchors, box).tolist() == pytest.approx([1.0, (1 / 3) ** 0.5, 0.0], abs=1e-6)


@pytest.mark.slow
def test_a_model_learns_one_batch_and_then_finds_its_boxes_by_its_words(model: GLIP) -> None:
    torch.manual_seed(0)
    model = GLIP(GLIP_SMOKE)
    one = batch()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(120):
        parts = detect.losses(model(*one.inputs), one)
        optimizer.zero_grad()
        sum(detect.WEIGHTS[name] * value for name, value in parts.items()).backward()
        optimizer.step()
    classes = torch.zeros(2, L, dtype=torch.bool)
    classes[0, 0] = classes[1, 2:4] = True
    boxes, scores, labels = detect.detections(model.eval()(*one.inputs), classes)[0]
    assert scores.tolist() == sorted(scores.tolist(), reverse=True)
    truth = torch.cat(
        [one.boxes_BM4[0, :, :2] - one.boxes_BM4[0, :, 2:] / 2, one.boxes_BM4[0, :, :2] + one.boxes_BM4[0, :, 2:] / 2],
        1,
    )
    for label in (0, 1):
        first = boxes[labels == label][:1]
        assert float(box_iou(first, truth[label : label + 1])) > 0.6
        pointed, _ = detect.ground(model, one, one.positive_BML[:, label])
        assert float(box_iou(pointed[:1], truth[label : label + 1])) > 0.6
