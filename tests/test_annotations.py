"""Annotations: one format for every task, and one clear line for every way a file can be wrong."""

import json

import pytest

from snp.data import annotations
from snp.data.annotations import Entry
from snp.errors import InputError

CAPTION = "a red star and a blue heart"
ENTRY = Entry(
    id=4, file_name="val/000001.png", height=64, width=48, caption=CAPTION, dataset_name="mixed",
    boxes=((1, 2, 10, 12), (30, 40, 8, 9)), spans=(((0, 10),), ((15, 27),)), type="relation", original_id=9,
    categories=(1, 0),
)  # fmt: skip


@pytest.fixture
def path(tmp_path):
    return annotations.write(tmp_path / "file.json", [ENTRY], ["blue heart", "red star"])


def spoil(path, change):
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def test_what_was_written_is_read_again(path):
    assert annotations.read(path) == [ENTRY]


def test_the_file_is_coco_style_with_one_image_per_caption(path):
    document = json.loads(path.read_text())
    assert set(document) == {"info", "licenses", "images", "annotations", "categories"}
    assert document["images"][0]["expression_type"] == "relation"
    first, second = document["annotations"]
    assert first["bbox"] == [1, 2, 10, 12] and first["area"] == 120 and first["tokens_positive"] == [[0, 10]]
    assert second["image_id"] == 4 and second["category_id"] == 0 and second["id"] != first["id"]
    assert document["categories"] == [{"id": 0, "name": "blue heart"}, {"id": 1, "name": "red star"}]


def test_equal_entries_give_equal_bytes(path, tmp_path):
    again = annotations.write(tmp_path / "again.json", [ENTRY], ["blue heart", "red star"])
    assert again.read_bytes() == path.read_bytes()


def test_published_files_with_other_keys_are_read(path):
    spoil(path, lambda d: (d["images"][0].update(refexp_id=3), d["images"][0].pop("expression_type")))
    assert annotations.read(path)[0].type == ""


def test_boxes_rounded_past_the_edge_are_read(path):
    spoil(path, lambda d: d["annotations"][0].update(bbox=[-0.4, 0.0, 48.5, 64.3]))
    assert annotations.read(path)[0].boxes[0] == (-0.4, 0.0, 48.5, 64.3)


@pytest.mark.parametrize(("change", "field", "problem"), [
    (lambda d: d.update(annotations=[]), "images[0]", "has no boxes"),
    (lambda d: d.pop("annotations"), "annotations", "missing"),
    (lambda d: d["annotations"][1].pop("bbox"), "annotations[1].bbox", "not [x, y, width, height]"),
    (lambda d: d["annotations"][1].update(bbox=[1, 2, 3]), "annotations[1].bbox", "not [x, y"),
    (lambda d: d["annotations"][1].update(bbox=[1, 2, float("nan"), 4]), "annotations[1].bbox", "not [x, y"),
    (lambda d: d["annotations"][1].update(bbox=[1, 2, 0, 4]), "annotations[1].bbox", "is empty"),
    (lambda d: d["annotations"][0].update(bbox=[40, 2, 10, 12]), "annotations[0].bbox", "image of 48x64"),
    (lambda d: d["annotations"][0].update(bbox=[-5, 2, 10, 12]), "annotations[0].bbox", "outside its image"),
    (lambda d: d["annotations"][0].update(image_id=5), "annotations[0].image_id", "no image"),
    (lambda d: d["annotations"][0].pop("tokens_positive"), "annotations[0].tokens_positive", "missing"),
    (lambda d: d["annotations"][0].update(tokens_positive=[[20, 28]]), "annotations[0].tokens_positive",
     "outside the caption of 27 characters"),
    (lambda d: d["annotations"][0].update(tokens_positive=[[5, 5]]), "annotations[0].tokens_positive",
     "outside"),
    (lambda d: d["images"][0].pop("file_name"), "images[0].file_name", "missing"),
    (lambda d: d["images"][0].update(caption=" "), "images[0].caption", "empty"),
    (lambda d: d["images"][0].update(height="64"), "images[0].height", "not int"),
    (lambda d: d["images"].append(d["images"][0]), "images[1].id", "occurs twice"),
])  # fmt: skip
def test_a_wrong_file_is_refused_with_its_name_and_field(path, change, field, problem):
    spoil(path, change)
    with pytest.raises(InputError) as caught:
        annotations.read(path)
    assert caught.value.where == f"{path}: {field}"
    assert problem in caught.value.problem and "\n" not in str(caught.value)


def test_a_file_cut_in_half_is_refused(path):
    path.write_text(path.read_text()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match="not valid JSON"):
        annotations.read(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="not found"):
        annotations.read(tmp_path / "none.json")
