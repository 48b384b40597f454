"""Other looks of drawn scenes: what is said of them stays true, and every look is a data set that is made here."""

import colorsys
import random
from itertools import pairwise

import numpy as np
import pytest

from snp.data import annotations
from snp.data.drawn import looks
from snp.data.drawn.folder import data_hash
from snp.data.drawn.looks import LOOKS
from snp.data.drawn.scenes import COLORS, HELD_OUT, SIZES, Scenes
from snp.errors import InputError
from snp.experiment import benchmarks
from snp.experiment.benchmarks import ABOUT


def hue(color: tuple[int, int, int]) -> float:
    return colorsys.rgb_to_hls(*(value / 255 for value in color))[0]


def apart(one: float, other: float) -> float:
    """Between two hues, around the circle."""
    return min(abs(one - other), 1 - abs(one - other))


def test_benchmarks_know_every_look_and_judge_on_all_but_the_last() -> None:
    assert tuple(LOOKS) == benchmarks.LOOKS and ABOUT["faded"].splits == benchmarks.LOOKS[-1:]


@pytest.mark.parametrize("look", LOOKS.values(), ids=lambda look: look.name)
def test_a_look_shows_other_pixels_and_tight_boxes_of_true_sizes(look: looks.Look) -> None:
    _, plain = Scenes().draw(random.Random(3), "testA")
    image, items = Scenes(look).draw(random.Random(3), "testA")
    assert image.shape == (64, 64, 3) and image.dtype == np.uint8 and 3 <= len(items) <= 8
    assert not np.array_equal(image, Scenes().draw(random.Random(3), "testA")[0])
    for item in items:
        low, high = look.sizes[item.attributes["size"]]
        assert low - 2 <= max(item.box[2:]) <= high and (item.attributes["color"], item.noun) not in HELD_OUT
    if look.name in ("repainted", "blurred", "faded"):  # nothing is drawn by chance before the things are
        assert [item.box for item in items] == [item.box for item in plain]


def test_a_color_that_is_repainted_is_still_nearest_to_its_own_word() -> None:
    hues = {word: hue(color) for word, color in COLORS.items() if word != "white"}
    for word, color in LOOKS["repainted"].colors.items():
        if word == "white":
            assert color == COLORS["white"]
        else:
            assert min(hues, key=lambda other: apart(hues[other], hue(color))) == word


def test_sizes_that_are_smaller_keep_their_order_and_do_not_meet() -> None:
    smaller = list(LOOKS["smaller"].sizes.values())
    assert all(a[1] < b[0] for a, b in pairwise(smaller))
    assert all(new[1] < old[1] for new, old in zip(smaller, SIZES.values(), strict=True))


def test_a_look_is_made_as_scenes_are_from_a_chance_of_its_own(tmp_path_factory) -> None:
    folder = tmp_path_factory.mktemp("looks")
    one, other = (looks.make(folder / name, 0, "blurred", 6, 8, 2, 1) for name in "ab")
    assert data_hash(one) == data_hash(other)
    found = annotations.read(one / "annotations" / "finetune_refcoco_testA.json")
    assert len(found) == 8 and all(entry.boxes for entry in found)


def test_a_look_that_is_not_known_or_lacks_its_photographs_is_refused(tmp_path) -> None:
    with pytest.raises(InputError, match="misty: is no look of scenes"):
        looks.make(tmp_path / "a", 0, "misty")
    with pytest.raises(InputError, match="no such folder"):
        looks.make(tmp_path / "b", 0, "photographs", source=tmp_path / "none")
    assert not (tmp_path / "b").exists()
