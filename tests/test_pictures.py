"""Pictures of several sizes in a batch: each is seen as it is alone, in training, evaluation and calibration."""

import math
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import box_convert

from snp.compression.budget import Budget
from snp.compression.problem import Problem, linear_weights
from snp.compression.registry import get
from snp.compression.statistics import input_energy
from snp.compression.surgery import apply
from snp.compression.tower import towers_of
from snp.data.batch import Batch
from snp.models import pictures
from snp.models.anchors import NOWHERE, Anchors
from snp.models.checkpointing import checkpointing
from snp.models.config import GLIP_SMOKE, PAPER, SMOKE, ModelConfig
from snp.models.glip import GLIP
from snp.models.mdetr import MDETR, TOWERS
from snp.tasks import detect, objective

SIZED = dict(image_size=32, patch=8, vocabulary=30, context=10, stem="patch", class_token=True, shortest=32, longest=64)
MODELS: dict[str, tuple[Any, Any]] = {
    "mdetr": (MDETR, SMOKE.model_copy(update=SIZED | {"proposals": False, "causal": True, "queries": 6})),
    "glip": (GLIP, GLIP_SMOKE.model_copy(update=SIZED | {"deformable": True})),
}
SIZES = [[32, 50], [64, 32], [32, 32], [20, 64]]
L, M = 7, 2


def model(kind: str, compressed: bool = False) -> Any:
    make, config = MODELS[kind]
    torch.manual_seed(0)
    found = make(config).eval()
    for name, parameter in found.named_parameters():  # so that nothing starts as nothing
        if name.endswith(("pos_embed", "gamma_image", "gamma_text", "cls_token")):
            nn.init.normal_(parameter, std=0.3)
    if not compressed:
        return found
    towers = towers_of(found, TOWERS)
    problem = Problem(found, towers, Budget.from_model(found, towers, 0.7), 0, lambda *_: torch.zeros(()), lambda: None)
    plan = get("magnitude-structured", scope="global").start(problem).plan()
    return apply(found, plan, TOWERS).eval()


def batch(sizes: list[list[int]] = SIZES, seed: int = 0, extra: int = 0) -> Batch:
    """A caption for every picture, one or two boxes each; pixels beside a picture are noise, `extra` of them more."""
    source = torch.Generator().manual_seed(seed)
    B = len(sizes)
    text = torch.arange(L) < torch.randint(5, L + 1, (B, 1), generator=source)
    valid = torch.arange(M) < torch.randint(1, M + 1, (B, 1), generator=source)
    positive = torch.rand(B, M, L, generator=source) < 0.4
    positive[..., 1] = True
    height, width = (max(own) + extra for own in zip(*sizes, strict=True))
    tokens = torch.randint(1, 30, (B, L), generator=source) * text
    boxes = torch.rand(B, M, 4, generator=source) * 0.4 + 0.3
    images = torch.zeros(B, 3, height, width, dtype=torch.uint8)
    for image, (h, w) in zip(images, sizes, strict=True):
        image[:, :h, :w] = torch.randint(0, 256, (3, h, w), generator=source)
    return Batch(
        images,
        torch.arange(B),
        tokens,
        text,
        boxes,
        valid,
        positive & valid[..., None] & text[:, None],
        torch.zeros(B, M, dtype=torch.long),
        sizes_I2=torch.tensor(sizes),
    )


def said(out: Any, b: int) -> dict[str, Tensor]:
    """What a model says of one caption, without what it says of places behind those of its picture."""
    found = {f.name: getattr(out, f.name) for f in fields(out) if isinstance(getattr(out, f.name), Tensor)}
    if "level_BN" in found:
        there = found["level_BN"][b] != NOWHERE
        return {name: value[b][there] for name, value in found.items()}
    return {name: value[b] if name == "token_BLC" else value[:, b] for name, value in found.items()}


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kind", MODELS)
@torch.no_grad()
def test_a_picture_is_seen_as_it_is_alone_whatever_stands_beside_it(kind: str, compressed: bool) -> None:
    network, together = model(kind, compressed), batch(extra=16)
    out = network(*together.inputs)
    for b in range(len(SIZES)):
        alone = together.part(b, len(SIZES))
        for name, value in said(network(*alone.inputs), 0).items():
            found = said(out, b)[name]
            torch.testing.assert_close(found, value, rtol=1e-4, atol=1e-5, msg=lambda t, n=name: f"{n}: {t}")


@pytest.mark.parametrize("kind", MODELS)
@torch.no_grad()
def test_squares_are_the_case_without_padding(kind: str) -> None:
    network, one = model(kind), batch([[32, 32]] * 3)
    plain = replace(one, sizes_I2=None)
    make, config = MODELS[kind]
    fixed = make(config.model_copy(update={"shortest": None, "longest": None})).eval()
    fixed.load_state_dict(network.state_dict())
    expected = fixed(*plain.inputs)
    for out in (network(*plain.inputs), network(*one.inputs)):
        for b in range(3):
            for name, value in said(expected, b).items():
                torch.testing.assert_close(said(out, b)[name], value, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(value, said(network(*plain.inputs), 0)[n]) for n, value in said(expected, 0).items())


@pytest.mark.parametrize("kind", MODELS)
@torch.no_grad()
def test_captions_of_one_picture_share_it(kind: str) -> None:
    network, one = model(kind), batch()
    index = torch.tensor([1, 0, 1, 3])
    shared = network(one.images_ICHW, index, *one.inputs[2:])
    each = network(one.images_ICHW[index], torch.arange(4), one.tokens_BL, one.text_BL, one.sizes_I2[index])
    for b in range(4):
        for name, value in said(each, b).items():
            torch.testing.assert_close(said(shared, b)[name], value, rtol=1e-4, atol=1e-5)


def gradients(network: nn.Module, parts: list[Batch]) -> tuple[dict[str, float], dict[str, Tensor]]:
    network.zero_grad()
    sums: dict[str, float] = {}
    for part in parts:
        found = objective.losses(network, part)
        torch.stack(list(found.values())).sum().backward()
        for name, value in found.items():
            sums[name] = sums.get(name, 0.0) + float(value.detach())
    return sums, {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


@pytest.mark.slow
@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("count", [2, 4])
def test_the_parts_of_a_batch_have_its_losses_and_gradients(kind: str, count: int) -> None:
    network, whole = model(kind), batch()
    sums, expected = gradients(network, [whole])
    parts, found = gradients(network, list(whole.parts(count)))
    assert parts == pytest.approx(sums, rel=1e-4) and found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}")


@pytest.mark.slow
@pytest.mark.parametrize("kind", MODELS)
def test_layers_are_computed_again_where_keys_are_hidden_too(kind: str) -> None:
    network, whole, passes = model(kind), batch(), list[str]()
    for name, module in network.named_modules():
        if name.rpartition(".")[0] in ("vision.blocks", "fuse", "encoder"):
            module.register_forward_pre_hook(lambda *_, name=name: passes.append(name))
    expected, once = gradients(network, [whole]), passes.copy()
    passes.clear()
    with checkpointing(network):
        found = gradients(network, [whole])
    assert found[0] == expected[0] and all(torch.equal(found[1][n], g) for n, g in expected[1].items())
    assert sorted(passes) == sorted(once * 2)


# -- positions and places ----------------------------------------------------------------------------------------


def test_a_grid_covers_its_picture_and_padding_is_no_patch_of_it() -> None:
    assert [pictures.grid(size, 8) for size in ((32, 50), (64, 32), (1, 9))] == [(4, 7), (8, 4), (1, 2)]
    sizes = torch.tensor([[32, 50], [64, 32], [20, 64]])
    assert pictures.patches(sizes, 8).sum(1).tolist() == [28, 32, 24]
    assert pictures.attended(model("mdetr").vision, sizes).sum(1).tolist() == [29, 33, 25]
    assert pictures.patches(torch.tensor([[32, 64], [64, 32]]), 8) is None and pictures.patches(None, 8) is None


def test_positions_are_shares_of_the_picture_without_its_padding() -> None:
    found = pictures.centres([(2, 4), (1, 3)], torch.zeros(()))
    assert found[0, 5].tolist() == [1.5 / 4, 1.5 / 2] and found[1, 2].tolist() == pytest.approx([2.5 / 3, 0.5])
    assert torch.equal(found[1, 3:], found[1, 2:3].expand(5, 2))
    square = pictures.centres([(3, 3)] * 2, torch.zeros(()))
    assert square.shape == (9, 2) and square[5].tolist() == pytest.approx([2.5 / 3, 1.5 / 3])


@torch.no_grad()
def test_learned_positions_are_resampled_to_the_grid_of_each_picture() -> None:
    network = model("mdetr")
    pixels = torch.zeros(1, 3, 32, 64)
    ramp = torch.arange(4.0).repeat(4)  # of a position, its column
    network.vision.pos_embed.zero_()[0, 1:] = ramp[:, None]
    network.vision.patch_embed.proj.weight.zero_(), network.vision.patch_embed.proj.bias.zero_()
    seen: list[Tensor] = []
    hook = network.vision.blocks[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    pictures.see(network.vision, pixels, torch.tensor([[32, 64]]))
    hook.remove()
    columns = seen[0][0, 1:, 0].view(4, 8)
    assert torch.allclose(columns, columns[:1].expand(4, 8), atol=1e-5)
    assert columns[0, 2:6].tolist() == pytest.approx([0.75, 1.25, 1.75, 2.25], abs=0.05)  # twice as many, as far apart


def test_anchors_are_squares_in_pixels_at_the_centres_of_their_places() -> None:
    anchors = Anchors((32, 32), patch=8, scales=(2, 1, 0.5), size=2.0)
    assert anchors.levels((4, 7)) == [(8, 14), (4, 7), (2, 4)]
    corners, level = anchors.places(2, torch.tensor([[32, 50], [20, 64]]), torch.zeros(()))
    assert level.shape == corners.shape[:2] and (level == NOWHERE).sum(1).tolist() == [0, 148 - (6 * 16 + 24 + 8)]
    for b, (height, width) in enumerate(((32, 50), (20, 64))):
        rows, columns = pictures.grid((height, width), 8)
        levels = anchors.levels((rows, columns))
        places = [(lv, r, c) for lv, (h, w) in enumerate(levels) for r in range(h) for c in range(w)]
        for n in (0, 17, len(places) // 2, len(places) - 1):
            lv, row, column = places[n]
            stride = 8 / (2, 1, 0.5)[lv]
            x, y = (column + 0.5) * stride, (row + 0.5) * stride
            expected = [(x - stride) / width, (y - stride) / height, (x + stride) / width, (y + stride) / height]
            assert corners[b, n].tolist() == pytest.approx(expected, abs=1e-6) and int(level[b, n]) == lv


def test_the_nearest_places_of_a_box_are_nearest_in_pixels() -> None:
    """ATSS in plain loops, on a picture twice as wide as high, all in pixels."""
    one = batch([[32, 64]], seed=3)
    anchors = Anchors((32, 32), patch=8, scales=(2, 1, 0.5), size=2.0)
    corners, level = anchors.places(1, one.sizes_B2, one.boxes_BM4)
    unit = torch.tensor([64.0, 32.0, 64.0, 32.0])
    boxes = (box_convert(one.boxes_BM4[0], "cxcywh", "xyxy") * unit)[one.valid_BM[0]]
    found = detect.assign(boxes, corners[0] * unit, level[0])
    _, where_N, box, _, near = detect.assigned(corners, level, one)
    assert where_N.tolist() == (found >= 0).nonzero()[:, 0].tolist() and len(where_N) > 0
    assert box.tolist() == found[found >= 0].tolist()
    for n, m, value in zip(where_N.tolist(), box.tolist(), near.tolist(), strict=True):
        x, y = (float(v) for v in ((corners[0, n, :2] + corners[0, n, 2:]) / 2 * unit[:2]))
        x0, y0, x1, y1 = boxes[m].tolist()
        expected = math.sqrt(min(x - x0, x1 - x) / max(x - x0, x1 - x) * min(y - y0, y1 - y) / max(y - y0, y1 - y))
        assert value == pytest.approx(expected, abs=1e-4)


@torch.no_grad()
def test_detections_are_shares_of_each_pictures_own_sides_and_never_of_padding() -> None:
    network, one = model("glip"), batch()
    network.word_bias.bias.fill_(1.0)
    classes = torch.zeros(2, L, dtype=torch.bool)
    classes[0, 1] = classes[1, 2:4] = True
    together = detect.detections(network(*one.inputs), classes)
    for b in range(len(SIZES)):
        ((boxes, scores, labels),) = detect.detections(network(*one.part(b, len(SIZES)).inputs), classes)
        assert len(boxes) > 10 and torch.equal(labels, together[b][2])
        torch.testing.assert_close(together[b][0], boxes, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(together[b][1], scores, rtol=1e-4, atol=1e-5)
        pointed = detect.ground(network, one)[0][b], detect.ground(network, one.part(b, len(SIZES)))[0][0]
        torch.testing.assert_close(*pointed, rtol=1e-4, atol=1e-4)


# -- calibration -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MODELS)
def test_padding_does_not_count_in_what_calibration_measures(kind: str) -> None:
    network, together = model(kind), batch(extra=8)
    together = replace(together, text_BL=torch.ones_like(together.text_BL))  # one length: the mean is over pictures
    groups = linear_weights(towers_of(network, TOWERS)) | {"fusion": network.fusion_weights()}

    def energy(batches: list[Batch]) -> dict[str, Tensor]:
        return input_energy(network, groups, batches, lambda one: network(*one.inputs), network.token_masks())

    found, expected = energy([together]), energy(list(together.parts(len(SIZES))))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}")


# -- configurations ----------------------------------------------------------------------------------------------


def test_sizes_go_together_and_proposals_want_squares() -> None:
    assert (PAPER.shortest, PAPER.longest, PAPER.image_tokens) == (800, 1333, 50 * 84)
    assert SMOKE.shortest is None and SMOKE.image_tokens == 64
    for changes, problem in (
        ({"longest": None}, "shortest and longest go together"),
        ({"proposals": True}, "proposals want pictures"),
    ):
        with pytest.raises(ValueError, match=problem):
            ModelConfig(**PAPER.model_dump() | changes)
