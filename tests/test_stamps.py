"""Pasted photographs: names from captions, photographs only, and cut-outs that training never saw."""

import random
from collections import defaultdict

import numpy as np
import pytest
from oracle import solve
from PIL import Image, ImageDraw

from snp.data import annotations
from snp.data.drawn import stamps
from snp.data.drawn.build import picture
from snp.data.drawn.stamps import NOUNS, SOURCE, Stamps, photographic
from snp.errors import InputError

installed = pytest.mark.skipif(not SOURCE.is_dir(), reason=f"needs Debian's {stamps.PACKAGE}")


def photograph(path, caption, seed, size=(60, 50)):
    """A grainy, shaded disc: what a photograph is to the criterion."""
    chance = np.random.default_rng(seed)
    shade = np.linspace(40, 200, size[0])[None, :, None] + chance.normal(0, 12, (size[1], size[0], 3))
    mask = Image.new("L", size)
    ImageDraw.Draw(mask).ellipse((0, 0, size[0] - 1, size[1] - 1), fill=255)
    image = Image.fromarray(shade.clip(0, 255).astype(np.uint8))
    image.putalpha(mask)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    path.with_suffix(".txt").write_text(f"{caption}\nde.utf8=Etwas.\n")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A folder laid out like the package: every noun once, some more often, a drawing and a stranger."""
    folder = tmp_path_factory.mktemp("stamps")
    for number, noun in enumerate(NOUNS):
        photograph(folder / "things" / f"{noun}.png", f"A {noun}.", number)
    for number, caption in enumerate(("A “Fuji” apple.", "A green apple.", "A ripe, red apple!")):
        photograph(folder / "fruit" / f"apple-{number}.png", caption, 1000 + number)
    photograph(folder / "birds" / "gander.png", "A gander.", 2000)
    photograph(folder / "copies" / "again.png", "A bear.", NOUNS.index("bear"))
    photograph(folder / "odd" / "gizmo.png", "A gizmo, such as the bear has.", 3000)
    photograph(folder / "cartoon" / "bear.png", "A bear.", 4000)
    photograph(folder / "odd" / "sliver.png", "A saw.", 5000, size=(120, 20))
    Image.new("RGBA", (60, 60), (200, 10, 10, 255)).save(folder / "odd" / "flat.png")
    (folder / "odd" / "flat.txt").write_text("A bear.\n")
    return folder


def by_name(generator):
    named = defaultdict(list)
    for cutout in generator.cutouts:
        named[cutout.name].append(cutout)
    return named


@pytest.mark.slow
def test_names_come_from_the_english_captions(source):
    named = by_name(Stamps(source))
    assert set(named) == set(NOUNS)
    assert len(named["apple"]) == 4 and {c.path.stem for c in named["goose"]} == {"goose", "gander"}


@pytest.mark.slow
def test_drawings_slivers_strangers_and_copies_are_left_out(source):
    stems = {cutout.path.stem for cutout in Stamps(source).cutouts}
    assert not stems & {"flat", "sliver", "gizmo"}
    # the cartoon and the copy of the bear are left out: one cut-out remains
    assert len(by_name(Stamps(source))["bear"]) == 1


def test_a_flat_drawing_is_no_photograph(source):
    assert photographic(source / "things" / "apple.png")
    assert not photographic(source / "odd" / "flat.png")


def test_names_with_several_cut_outs_keep_some_from_training(source):
    for name, cutouts in by_name(Stamps(source)).items():
        if len(cutouts) == 1:
            assert cutouts[0].train and cutouts[0].evaluate
        else:
            assert all(cutout.train != cutout.evaluate for cutout in cutouts), name
            assert {cutout.train for cutout in cutouts} == {True, False}


@pytest.mark.slow
def test_boxes_are_inside_disjoint_and_of_their_size_class(source):
    generator = Stamps(source)
    for seed in range(60):
        image, items = generator.draw(random.Random(seed), "train")
        assert image.shape == (64, 64, 3) and 2 <= len(items) <= 5
        for item in items:
            x, y, width, height = item.box
            assert x >= 0 and y >= 0 and x + width <= 64 and y + height <= 64
            low, high = stamps.SIZES[item.attributes["size"]]
            assert low - 2 <= max(width, height) <= high
        boxes = sorted(item.box for item in items)
        for one in boxes:
            for other in boxes:
                if one is not other:
                    assert any(one[k] + one[k + 2] <= other[k] or other[k] + other[k + 2] <= one[k] for k in (0, 1))


@pytest.mark.slow
def test_the_oracle_solves_every_expression(source, tmp_path):
    generator = Stamps(source)
    for split in ("val", "testB", "test"):
        (tmp_path / "images" / split).mkdir(parents=True)
        for number in range(40):
            made = picture(generator, tmp_path, 1, split, number)
            for found in made.expressions.values():
                for expression in found:
                    assert solve(expression.caption, made.items) == [expression.target], expression.caption


@pytest.mark.slow
def test_stamps_come_in_the_format_of_all_data_and_repeat(source, tmp_path):
    roots = [
        stamps.make(tmp_path / str(k), 2, train=6, test=8, pretrain_val=2, workers=1, source=source) for k in (0, 1)
    ]
    files = [{p.relative_to(r): p.read_bytes() for p in r.rglob("*") if p.is_file()} for r in roots]
    assert files[0] == files[1]
    found = annotations.read(roots[0] / "annotations" / "finetune_refcoco+_testB.json")
    names = by_name(Stamps(source))
    categories = Stamps(source).categories
    assert len(found) == 8
    assert all(len(names[categories[entry.categories[0]]]) > 1 for entry in found)


def test_missing_stamps_name_the_package_to_install(tmp_path):
    with pytest.raises(InputError, match="tuxpaint-stamps-default") as caught:
        stamps.make(tmp_path / "out", 0, source=tmp_path / "nowhere")
    assert "no such folder" in str(caught.value) and not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="photographs of only 0 known things"):
        stamps.make(tmp_path / "out", 0, source=tmp_path)


@pytest.mark.slow
@installed
def test_the_package_gives_over_a_hundred_names_and_no_drawing():
    generator = Stamps()
    assert 100 <= len(generator.categories) <= 150
    assert set(generator.categories) <= set(NOUNS)
    assert not {"cartoon", "easter"} & {part for c in generator.cutouts for part in c.path.parts}
    assert sum(len(found) > 1 for found in by_name(generator).values()) >= 30


@pytest.mark.slow
@installed
def test_long_expressions_of_real_stamps_are_long(tmp_path):
    (tmp_path / "images" / "test").mkdir(parents=True)
    generator = Stamps()
    pictures = [picture(generator, tmp_path, 1, "test", number) for number in range(30)]
    said = [expression.caption for made in pictures for expression in made.expressions["refcocog"]]
    assert sum(len(caption.split()) for caption in said) / len(said) >= 9
