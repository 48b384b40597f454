"""Pictures that keep their sides' ratio: published sizes, draws that all processes share, boxes that stay on things."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.ops import box_convert

from snp.data.annotations import Entry
from snp.data.batch import Batch
from snp.data.dataset import GroundingSet
from snp.data.loading import Pictures
from snp.data.tokens import Vocabulary
from snp.data.views import Draws, Fit

FIT = Fit(80, 133)
DRAWS = Draws(sides=(48, 64, 80), crop=0.5, seed=1)
THINGS = {  # height and width of a picture, and the box (x, y, width, height) of the one bright thing in it
    "wide.png": ((60, 90), (12, 15, 30, 24)),
    "high.png": ((120, 60), (30, 60, 18, 40)),
    "square.png": ((70, 70), (7, 14, 21, 28)),
    "long.png": ((40, 200), (100, 10, 60, 20)),
}


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((480, 640), (800, 1066)),  # 800 / 480 * 640 = 1066.7
        ((640, 480), (1066, 800)),
        ((500, 500), (800, 800)),
        ((400, 1000), (533, 1332)),  # 1333 / 1000 * 400 = 533.2, and 533 / 400 * 1000 = 1332.5
        ((3000, 4000), (800, 1066)),
        ((20, 10_000), (3, 1333)),
        ((1, 3), (444, 1332)),
    ],
)
def test_the_shorter_side_has_800_pixels_or_as_many_as_let_the_longer_one_have_1333(size, expected):
    assert Fit(800, 1333)(size) == expected


def test_a_size_that_is_drawn_takes_the_place_of_the_shorter_side():
    assert Fit(800, 1333)((480, 640), 480) == (480, 640)
    assert Fit(800, 1333)((300, 900), 480) == (444, 1332)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    for name, ((height, width), (x, y, w, h)) in THINGS.items():
        pixels = np.zeros((height, width, 3), np.uint8)
        pixels[y : y + h, x : x + w] = 255
        Image.fromarray(pixels).save(root / name)
    return root


def data(folder: Path, fit: Fit | None = FIT, sizes: bool = True) -> GroundingSet:
    entries = [
        Entry(
            i,
            name,
            *(size if sizes else (0, 0)),
            "a bright thing",
            "toy",
            (box,) if sizes else (),
            (((0, 14),),) if sizes else (),
        )
        for i, (name, (size, box)) in enumerate(THINGS.items())
    ]
    words = Vocabulary.from_captions(["a bright thing"])
    return GroundingSet(entries, Pictures((folder,), False, 32, fit), words, 10)


def pixels_of(batch: Batch, i: int) -> torch.Tensor:
    """A picture without its padding, [3, height, width]."""
    height, width = batch.sizes_I2[i].tolist()
    return batch.images_ICHW[i, :, :height, :width]


def assert_boxes_are_on_what_is_bright(batch: Batch) -> None:
    for b, i in enumerate(batch.image_index_B.tolist()):
        shown = pixels_of(batch, i)[0] > 127
        height, width = shown.shape
        ys, xs = shown.nonzero().T
        found = [xs.min() / width, ys.min() / height, (xs.max() + 1) / width, (ys.max() + 1) / height]
        box = box_convert(batch.boxes_BM4[b, 0], "cxcywh", "xyxy")
        # pixels at the edge are of both
        assert box.tolist() == pytest.approx([float(v) for v in found], abs=1.6 / min(height, width))


def test_pictures_are_shown_whole_at_their_own_sizes_and_padded_to_the_largest_sides(folder):
    batch = data(folder).batch(np.arange(4))
    assert batch.sizes_I2.tolist() == [[80, 120], [132, 66], [80, 80], [27, 133]]
    assert batch.images_ICHW.shape == (4, 3, 132, 133) and batch.images_ICHW.dtype == torch.uint8
    for i, (height, width) in enumerate(batch.sizes_I2.tolist()):
        assert not batch.images_ICHW[i, :, height:].any() and not batch.images_ICHW[i, :, :, width:].any()
    assert_boxes_are_on_what_is_bright(batch)
    assert len(batch.inputs) == 5 and batch.inputs[-1] is batch.sizes_I2
    assert torch.equal(batch.sizes_B2, batch.sizes_I2)


def test_a_question_that_does_not_know_the_size_of_its_picture_gets_it_from_the_file(folder):
    known, unknown = (data(folder, sizes=sizes).batch(np.arange(4)) for sizes in (True, False))
    assert torch.equal(unknown.sizes_I2, known.sizes_I2)


def test_without_a_fit_pictures_are_squares(folder):
    batch = data(folder, fit=None).batch(np.arange(4))
    assert batch.images_ICHW.shape == (4, 3, 32, 32) and batch.sizes_I2 is None and len(batch.inputs) == 4


@pytest.mark.parametrize("step", range(12))
def test_boxes_stay_on_their_things_whatever_is_drawn(folder, step):
    batch = data(folder).batch(np.array([0, 1, 2, 3, 2]), share_images=True, draws=DRAWS, step=step)
    assert_boxes_are_on_what_is_bright(batch)
    corners = box_convert(batch.boxes_BM4[:, 0], "cxcywh", "xyxy")
    assert float(corners.min()) >= 0 and float(corners.max()) <= 1


def test_every_size_is_drawn_and_half_of_the_pictures_are_shown_in_part(folder):
    views, whole = [], [Fit(side, 133)(size) for size, _ in THINGS.values() for side in DRAWS.sides]
    sizes = np.array([size for size, _ in THINGS.values()])
    for step in range(100):
        views += DRAWS.views(FIT, sizes, [np.array([[0.5, 0.5, 0.51, 0.51]], np.float32)] * 4, step)
    assert {view.size for view in views if view.region == (0, 0, 1, 1)} == {*whole}
    parts = [view for view in views if view.region != (0, 0, 1, 1)]
    assert all(v.region == (0, 0, 1, 1) for v in DRAWS.views(FIT, sizes, [np.zeros((0, 4), np.float32)] * 4, 0))
    assert 0.4 < len(parts) / len(views) < 0.6
    squares = [view for view in views[2::4] if view.region != (0, 0, 1, 1)]
    for left, top, right, bottom in (view.region for view in squares):  # 384 pixels of 600 are the least that is kept
        assert 0.64 <= right - left <= 1 and 0.64 <= bottom - top <= 1
        assert 0 <= left < right <= 1 and 0 <= top < bottom <= 1


def test_what_is_drawn_depends_on_seed_and_step_alone(folder):
    one, again = (list(islice(data(folder).stream(2, seed=0, start=start, draws=DRAWS), 6)) for start in (0, 2))
    for a, b in zip(one[2:], again, strict=False):
        assert torch.equal(a.images_ICHW, b.images_ICHW) and torch.equal(a.boxes_BM4, b.boxes_BM4)
    assert len({tuple(batch.sizes_I2.flatten().tolist()) for batch in one}) > 2


@pytest.mark.parametrize("step", range(4))
def test_a_share_of_a_batch_is_drawn_as_in_the_whole_and_knows_the_sizes_of_the_whole(folder, step):
    index = np.array([0, 1, 2, 3, 2])
    whole = data(folder).batch(index, True, draws=DRAWS, step=step)
    for place, part in enumerate(whole.parts(2)):
        share = data(folder).batch(index, True, (place, 2), DRAWS, step)
        assert torch.equal(share.sizes_I2, part.sizes_I2) and torch.equal(share.boxes_BM4, part.boxes_BM4)
        assert torch.equal(share.whole.sizes_B2, whole.sizes_B2)
        assert torch.equal(share.whole.boxes_BM4, whole.boxes_BM4)
        for i in range(len(share.sizes_I2)):
            assert torch.equal(pixels_of(share, i), pixels_of(part, i))


def test_a_part_holds_boxes_that_need_more_than_it_would_have():
    boxes = np.array([[0.02, 0.01, 0.98, 0.3], [0.5, 0.2, 0.6, 0.99]], np.float32)
    everywhere = Draws((80,), 1.0, 0)
    for step in range(20):
        ((left, top, right, bottom),) = (v.region for v in everywhere.views(FIT, np.array([[60, 90]]), [boxes], step))
        assert left <= 0.02 and top <= 0.01 and right >= 0.98 and bottom >= 0.99
