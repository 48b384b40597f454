"""Drawn scenes: exact boxes, held-out pairs, equal bytes for equal seeds, benchmarks of the promised size."""

import json
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from snp.data import annotations
from snp.data.drawn import scenes
from snp.data.drawn.build import BENCHMARKS
from snp.data.drawn.expressions import KINDS
from snp.data.drawn.folder import data_hash
from snp.data.drawn.scenes import COLORS, HELD_OUT, PAIRS, SHAPES, SIZES, TEXTURES, Look, Scenes
from snp.data.show import sample_page
from snp.errors import InputError


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return scenes.make(tmp_path_factory.mktemp("data") / "scenes", 3, train=60, test=50, pretrain_val=10, workers=1)


def entries(root, name):
    return annotations.read(root / "annotations" / f"{name}.json")


def contents(root):
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_data_set_has_every_file_of_the_three_benchmarks(root):
    names = {path.stem for path in (root / "annotations").iterdir()}
    expected = {f"finetune_{benchmark}_{split}" for benchmark, splits in BENCHMARKS.items() for split in splits}
    assert names == expected | {"final_mixed_train", "final_mixed_val", "regions_train"}
    assert {path.name for path in (root / "images").iterdir()} == {
        "train",
        "val",
        "testA",
        "testB",
        "test",
        "pretrain-val",
    }


def test_images_are_plain_64x64_rgb_png_files(root):
    for entry in entries(root, "final_mixed_train"):
        with Image.open(root / "images" / entry.file_name) as image:
            assert (image.format, image.size, image.mode) == ("PNG", (64, 64), "RGB")
            assert "interlace" not in image.info
        assert (entry.height, entry.width) == (64, 64)


def test_evaluation_splits_have_exactly_the_expressions_asked_for(root):
    for benchmark, splits in BENCHMARKS.items():
        for split in set(splits) - {"train"}:
            assert len(entries(root, f"finetune_{benchmark}_{split}")) == 50
        assert len(entries(root, f"finetune_{benchmark}_train")) == 60
    assert len(entries(root, "final_mixed_train")) == 120 and len(entries(root, "final_mixed_val")) == 20


def test_the_default_gives_5000_expressions_and_over_30000_training_scenes():
    default = scenes.make.__defaults__
    assert default[0] >= 30_000 and default[1] == 5_000


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_the_mix_of_kinds_is_the_promised_one(root, benchmark):
    kinds = Counter(entry.type for entry in entries(root, f"finetune_{benchmark}_val"))
    share = {"refcocog": (0.3, 0.5, 0.2)}.get(benchmark, (0.5, 0.3, 0.2))
    assert [kinds[kind] / 50 for kind in KINDS] == pytest.approx(share, abs=0.03)


def test_a_referring_expression_has_exactly_one_box(root):
    for path in (root / "annotations").glob("finetune_*"):
        assert all(len(entry.boxes) == 1 and len(entry.spans[0]) == 1 for entry in annotations.read(path))


def test_spans_cover_the_noun_phrase_of_their_box(root):
    for name in ("final_mixed_train", "finetune_refcocog_val"):
        for entry in entries(root, name):
            for spans, category in zip(entry.spans, entry.categories, strict=True):
                for begin, end in spans:
                    phrase = entry.caption[begin:end].split()
                    assert phrase[0] in ("a", "an", "the") and phrase[-1] in (PAIRS[category][1], "thing")


def test_a_caption_annotates_every_object_once(root):
    for entry in entries(root, "final_mixed_train"):
        assert len(set(entry.boxes)) == len(entry.boxes) <= 8


def test_regions_name_every_object_by_its_full_description(root):
    for entry in entries(root, "regions_train"):
        assert 3 <= len(entry.boxes) <= 8
        phrases = [entry.caption[begin:end] for ((begin, end),) in entry.spans]
        assert ", ".join(phrases) == entry.caption
        for phrase, category in zip(phrases, entry.categories, strict=True):
            assert phrase.endswith(" ".join(PAIRS[category])) and phrase.split()[0] in SIZES


def test_held_out_pairs_cover_every_colour_and_shape_alike():
    assert len(HELD_OUT) == 16 and len(PAIRS) == 80
    assert set(Counter(color for color, _ in HELD_OUT).values()) == {2}
    assert {shape for _, shape in HELD_OUT} == set(SHAPES)


def test_held_out_pairs_are_drawn_only_in_test_b_and_are_its_only_targets(root):
    for split in ("train", "val", "testA", "test", "pretrain-val"):
        for seed in range(30):
            _, items = Scenes().draw(random.Random(seed), split)
            assert not {PAIRS[item.category] for item in items} & HELD_OUT
    for benchmark in ("refcoco", "refcoco+"):
        for entry in entries(root, f"finetune_{benchmark}_testB"):
            assert PAIRS[entry.categories[0]] in HELD_OUT
        for entry in entries(root, f"finetune_{benchmark}_testA"):
            assert PAIRS[entry.categories[0]] not in HELD_OUT


def test_boxes_are_tight_around_what_is_drawn_and_lie_inside():
    bare = np.full((64, 64, 3), 100, np.float32)
    plain = Scenes(Look("plain", background=lambda rng: bare.copy()))
    for seed in range(60):
        image, items = plain.draw(random.Random(seed), "train")
        drawn = (image.astype(int) != 100).any(-1)
        covered = np.zeros_like(drawn)
        for x, y, width, height in (item.box for item in items):
            assert x >= 0 and y >= 0 and x + width <= 64 and y + height <= 64
            inside = drawn[y : y + height, x : x + width]
            rims = inside[0], inside[-1], inside[:, 0], inside[:, -1]
            assert all(rim.any() for rim in rims)
            assert not covered[y : y + height, x : x + width].any(), "objects overlap"
            covered[y : y + height, x : x + width] = True
        assert not (drawn & ~covered).any(), "something is drawn outside the boxes"


def test_scenes_have_three_to_eight_objects_and_all_looks_occur():
    items = [Scenes().draw(random.Random(seed), "train")[1] for seed in range(200)]
    assert {len(found) for found in items} == set(range(3, 9))
    words = {word for found in items for item in found for word in (item.noun, *item.attributes.values())}
    assert words == {*SHAPES, *COLORS, *SIZES, *TEXTURES}
    for item in (item for found in items for item in found):
        assert abs(max(item.box[2:]) - sum(SIZES[item.attributes["size"]]) / 2) <= 3


@pytest.mark.slow
def test_equal_seeds_give_equal_bytes_whatever_the_number_of_workers(root, tmp_path):
    again = scenes.make(tmp_path / "again", 3, train=60, test=50, pretrain_val=10, workers=2)
    assert contents(again) == contents(root)
    assert data_hash(again) == data_hash(root)


def test_another_seed_gives_other_scenes(root, tmp_path):
    other = scenes.make(tmp_path / "other", 4, train=3, test=4, pretrain_val=1, workers=1)
    name = Path("images/train/000000.png")
    assert (other / name).read_bytes() != (root / name).read_bytes() and data_hash(other) != data_hash(root)


def test_an_interrupted_folder_is_no_data_set_and_is_made_again(tmp_path):
    made = scenes.make(tmp_path / "cut", 5, train=2, test=4, pretrain_val=1, workers=1)
    whole = contents(made)
    (made / "dataset.json").unlink()
    (made / "images/train/000000.png").unlink()
    with pytest.raises(InputError, match="no complete data set"):
        data_hash(made)
    assert contents(scenes.make(made, 5, train=2, test=4, pretrain_val=1, workers=1)) == whole


def test_bad_counts_and_folders_of_others_are_refused(tmp_path):
    with pytest.raises(InputError, match="train: 0 is below one"):
        scenes.make(tmp_path / "none", 0, train=0)
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(InputError, match="holds no data set"):
        scenes.make(tmp_path, 0, train=1)
    assert (tmp_path / "letter.txt").read_text() == "mine"


def test_dataset_json_says_what_was_made(root):
    made = json.loads((root / "dataset.json").read_text())
    assert made["name"] == "scenes" and made["seed"] == 3 and made["pictures"]["train"] == 60
    assert made["captions"]["finetune_refcoco_val"] == 50
    assert set(made["pixels_sha256"]) == set(made["pictures"])


@pytest.mark.slow
def test_the_sample_page_is_a_picture_and_the_same_every_time(root, tmp_path):
    pages = [sample_page(root, tmp_path / f"{k}.png", n=5, seed=1).read_bytes() for k in range(2)]
    assert pages[0] == pages[1]
    with Image.open(tmp_path / "0.png") as image:
        assert image.format == "PNG" and image.width > 800


def test_the_sample_page_names_an_image_that_is_cut_off(root, tmp_path):
    broken = tmp_path / "broken"
    made = scenes.make(broken, 1, train=1, test=4, pretrain_val=1, workers=1)
    for path in made.rglob("*.png"):
        path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(InputError, match=r"\.png: image cannot be read"):
        sample_page(made, tmp_path / "page.png", n=1)
    assert not (tmp_path / "page.png").exists()
