"""Random crops: boxes stay on what they are of, whole; and the same step draws the same crop."""

from itertools import islice

import pytest
import torch
from torch import Tensor
from torchvision.ops import box_convert

from snp.data.batch import Batch
from snp.data.crops import SMALLEST, crop, cropped

SIDE = 40


def batch(boxes: list[list[list[float]]], image_index: list[int]) -> Batch:
    """Captions with boxes (x0, y0, x1, y1) in pixels, painted white, on black pictures of 40 x 40."""
    most = max(1, *map(len, boxes))
    found, valid = torch.zeros(len(boxes), most, 4), torch.zeros(len(boxes), most, dtype=torch.bool)
    images = torch.zeros(max(image_index) + 1, 3, SIDE, SIDE, dtype=torch.uint8)
    for b, own in enumerate(boxes):
        for m, (x0, y0, x1, y1) in enumerate(own):
            images[image_index[b], :, int(y0) : int(y1), int(x0) : int(x1)] = 255
            found[b, m] = box_convert(torch.tensor([x0, y0, x1, y1]), "xyxy", "cxcywh") / SIDE
            valid[b, m] = True
    B = len(boxes)
    words = torch.ones(B, 3, dtype=torch.long)
    return Batch(
        images,
        torch.tensor(image_index),
        words,
        words > 0,
        found,
        valid,
        torch.ones(B, most, 3, dtype=torch.bool),
        torch.zeros(B, most, dtype=torch.long),
    )


def white(image_CHW: Tensor) -> list[float]:
    """The box around what is bright, in pixels."""
    ys, xs = (image_CHW[0] > 127).nonzero().T
    return [float(v) for v in (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)]


@pytest.mark.parametrize("seed", range(20))
def test_a_box_is_where_its_object_is_after_the_crop(seed: int) -> None:
    found = crop(batch([[[6, 10, 16, 18]]], [0]), 1.0, torch.Generator().manual_seed(seed))
    box = SIDE * box_convert(found.boxes_BM4[0, 0], "cxcywh", "xyxy")
    assert box.tolist() == pytest.approx(white(found.images_ICHW[0]), abs=1.0)  # bilinear edges
    assert found.images_ICHW.shape == (1, 3, SIDE, SIDE)
    # magnified, but no more than the smallest crop allows
    assert 10 <= box[2] - box[0] <= 10 / SMALLEST + 1e-3


@pytest.mark.parametrize("seed", range(20))
def test_every_box_of_all_captions_of_an_image_stays_whole(seed: int) -> None:
    two = batch([[[2, 3, 8, 9]], [[30, 20, 38, 39], [20, 20, 24, 24]]], [0, 0])
    found = crop(two, 1.0, torch.Generator().manual_seed(seed))
    corners = box_convert(found.boxes_BM4[found.valid_BM], "cxcywh", "xyxy")
    assert bool((corners > -1e-6).all()) and bool((corners < 1 + 1e-6).all())
    before, after = (box_convert(b.boxes_BM4[b.valid_BM], "cxcywh", "xyxy") for b in (two, found))
    grown = (after[:, 2:] - after[:, :2]) / (before[:, 2:] - before[:, :2])
    assert torch.allclose(grown, grown[:1].expand_as(grown), atol=1e-4), "a box was cut, or moved by another crop"


def test_a_picture_that_a_box_fills_and_places_without_a_box_stay_as_they_are() -> None:
    full = batch([[[0, 0, 40, 40]], []], [0, 0])
    found = crop(full, 1.0, torch.Generator().manual_seed(0))
    assert torch.equal(found.images_ICHW, full.images_ICHW) and torch.allclose(found.boxes_BM4, full.boxes_BM4)


@pytest.mark.parametrize("seed", range(5))
def test_the_parts_of_a_batch_are_cropped_as_the_whole(seed: int) -> None:
    whole = batch([[[2, 3, 8, 9]], [[30, 20, 38, 39]], [], [[20, 20, 24, 24]], [[6, 10, 16, 18]]], [0, 1, 0, 1, 2])
    expected = crop(whole, 0.7, torch.Generator().manual_seed(seed))
    for place, part in enumerate(expected.parts(2)):
        found = crop(whole.part(place, 2), 0.7, torch.Generator().manual_seed(seed), (place, 2))
        assert torch.equal(found.images_ICHW[found.image_index_B], part.images_ICHW[part.image_index_B])
        assert torch.equal(found.boxes_BM4, part.boxes_BM4)
        assert torch.equal(found.divisor.boxes_BM4, expected.boxes_BM4)
    assert not torch.equal(expected.boxes_BM4, whole.boxes_BM4)


def test_a_step_draws_the_same_wherever_the_stream_begins_and_a_share_of_images_is_cropped() -> None:
    one = batch([[[6, 10, 16, 18]]] * 200, list(range(200)))
    whole = list(islice(cropped(iter([one] * 4), 0.5, seed=3), 4))
    later = next(cropped(iter([one]), 0.5, seed=3, start=2))
    assert torch.equal(whole[2].images_ICHW, later.images_ICHW) and torch.equal(whole[2].boxes_BM4, later.boxes_BM4)
    assert not torch.equal(whole[0].boxes_BM4, whole[1].boxes_BM4)
    same = (whole[0].boxes_BM4 == one.boxes_BM4).all(-1).float().mean()
    assert 0.4 < float(same) < 0.65
    assert next(cropped(iter([one]), 0.0, seed=3)) is one
