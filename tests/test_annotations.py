"""Annotations: one format for every task, and one clear line for every way a file can be wrong."""

import json

import pytest

from snp.data import annotations
from snp.data.annotations import Entry
from snp.data.flat import Flat
from snp.data.tokens import Vocabulary
from snp.errors import InputError

CAPTION = "a red star and a blue heart"
ENTRY = Entry(
    id=4,
    file_name="val/000001.png",
    height=64,
    width=48,
    caption=CAPTION,
    dataset_name="mixed",
    boxes=((1, 2, 10, 12), (30, 40, 8, 9)),
    spans=(((0, 10),), ((15, 27),)),
    type="relation",
    original_id=9,
    categories=(1, 0),
)


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


@pytest.mark.parametrize(
    ("change", "field", "problem"),
    [
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
        (
            lambda d: d["annotations"][0].update(tokens_positive=[[20, 28]]),
            "annotations[0].tokens_positive",
            "outside the caption of 27 characters",
        ),
        (lambda d: d["annotations"][0].update(tokens_positive=[[5, 5]]), "annotations[0].tokens_positive", "outside"),
        (lambda d: d["images"][0].pop("file_name"), "images[0].file_name", "missing"),
        (lambda d: d["images"][0].update(caption=" "), "images[0].caption", "empty"),
        (lambda d: d["images"][0].update(height="64"), "images[0].height", "not int"),
        (lambda d: d["images"].append(d["images"][0]), "images[1].id", "occurs twice"),
        (lambda d: d["images"][0].update(id=2**64), "images[0].id", "more than 64 bits"),
        (lambda d: d["images"][0].update(id=True), "images[0].id", "True is not int"),
        (lambda d: d["images"][0].update(id=None), "images[0].id", "missing"),
        (lambda d: d["images"][0].update(width=2**31), "images[0].height", "picture of 2147483648x64 pixels"),
        (lambda d: d["images"][0].update(caption="half an emoji \ud83d"), "images[0].caption", "half a character"),
        (lambda d: d["images"][0].update(file_name="\ud83d.png"), "images[0].file_name", "half a character"),
        (lambda d: d["images"][0].update(dataset_name=3), "images[0].dataset_name", "3 is not str"),
        (lambda d: d["images"][0].update(dataset_name="\udc80"), "images[0].dataset_name", "half a character"),
        (lambda d: d["images"][0].update(answer=3), "images[0].answer", "3 is not str"),
        (lambda d: d["images"][0].update(original_id=2**64), "images[0].original_id", "more than 64 bits"),
        (lambda d: d["images"][0].update(original_id=1.5), "images[0].original_id", "1.5 is not int or str"),
        (lambda d: d["images"][0].update(sentence_id=[1]), "images[0].sentence_id", "[1] is not int or str"),
        (lambda d: d["images"][0].update(questionId={}), "images[0].questionId", "{} is not int or str"),
        (lambda d: d["images"][0].update(tokens_positive_eval=3), "images[0].tokens_positive_eval", "3 is not list"),
        (
            lambda d: d["images"][0].update(tokens_positive_eval=[[[0, 99]]]),
            "images[0].tokens_positive_eval[0]",
            "span",
        ),
        (lambda d: d["images"][0].update(tokens_positive_eval=[[]]), "images[0].tokens_positive_eval[0]", "empty"),
        (lambda d: d["images"][0].update(phrase_types=["people"]), "images[0].phrase_types[0]", "'people' is not list"),
        (lambda d: d["images"][0].update(phrase_types=[[3]]), "images[0].phrase_types[0]", "3 is not str"),
        (lambda d: d["images"][0].update(phrase_types=[["a"]]), "images[0].phrase_types", "where 0 are evaluated"),
        (lambda d: d["annotations"][1].update(image_id=[4]), "annotations[1].image_id", "no image"),
        (lambda d: d["annotations"][1].update(image_id=4.0), "annotations[1].image_id", "no image"),
        (lambda d: d["annotations"][1].update(category_id="dog"), "annotations[1].category_id", "'dog' is not int"),
        (lambda d: d["annotations"][1].update(category_id=-(2**64)), "annotations[1].category_id", "64 bits"),
        (lambda d: d["annotations"][1].update(bbox=[1, 2, 10**400, 4]), "annotations[1].bbox", "not [x, y"),
        (lambda d: d["annotations"][1].update(bbox=[1, 2, float("inf"), 4]), "annotations[1].bbox", "not [x, y"),
        (lambda d: d["annotations"][1].update(bbox=[1, True, 3, 4]), "annotations[1].bbox", "not [x, y"),
        (lambda d: d["annotations"][1].update(bbox=[1, 2, -3, 4]), "annotations[1].bbox", "negative side"),
        (
            lambda d: d["annotations"][1].update(tokens_positive=[[True, 5]]),
            "annotations[1].tokens_positive",
            "not [beg",
        ),
    ],
)
def test_a_wrong_file_is_refused_with_its_name_and_field(path, change, field, problem):
    spoil(path, change)
    with pytest.raises(InputError) as caught:
        annotations.read(path)
    assert caught.value.where == f"{path}: {field}"
    assert problem in caught.value.problem and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "key",
    [
        "dataset_name",
        "expression_type",
        "original_id",
        "sentence_id",
        "questionId",
        "question_type",
        "answer",
        "tokens_positive_eval",
        "phrase_types",
    ],
)
def test_null_is_as_good_as_nothing(path, key):
    spoil(path, lambda d: d["images"][0].pop(key, None))
    without = annotations.read(path)
    spoil(path, lambda d: (d["images"][0].update({key: None}), d["annotations"][1].update(category_id=None)))
    assert annotations.read(path) == without
    assert Flat.read(path, Vocabulary.full(), 77).entry(0) == without[0]


@pytest.mark.parametrize("number", [0, -1, 2**63 - 1])
def test_ids_may_be_any_numbers_of_64_bits(path, number):
    spoil(path, lambda d: d["images"][0].update(id=number, original_id=number))
    spoil(path, lambda d: [a.update(image_id=number, category_id=number) for a in d["annotations"]])
    (entry,) = annotations.read(path)
    assert (entry.id, entry.original_id, entry.categories) == (number, number, (number, number))
    assert Flat.read(path, Vocabulary.full(), 77).entry(0) == entry


def test_all_faults_are_gathered_and_what_is_sound_is_read(path):
    def change(document):
        first = document["images"][0]
        document["images"] += [first | {"id": 5, "height": None}, 3, first | {"id": 6}]
        document["annotations"] += [document["annotations"][0] | {"image_id": 5}]

    spoil(path, change)
    faults = []
    found = annotations.read(path, faults=faults)
    assert [entry.id for entry in found] == [4, 6] and found[0] == ENTRY
    assert [fault.where.split(": ")[1] for fault in faults] == [
        "images[1].height",
        "images[2]",
        "annotations[2].image_id",
        "images[3]",
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_byte_order_mark_is_no_fault(path, encoding):
    spoil(path, lambda d: d["images"][0].update(caption="a réd star and a blue heart"))
    path.write_text(json.dumps(json.loads(path.read_text()), ensure_ascii=False), encoding=encoding)
    (entry,) = annotations.read(path)
    assert entry.caption == "a réd star and a blue heart"
    assert Flat.read(path, Vocabulary.full(), 77).entry(0) == entry


@pytest.mark.parametrize("content", [b"\xff\xfe{\x00", b'{"images": "caf\xe9"}', b"[" * 10**6, b"9" * 9999])
def test_what_is_no_text_or_has_no_end_is_refused(path, content):
    path.write_bytes(content)
    for read in (annotations.read, lambda p: Flat.read(p, Vocabulary.full(), 77)):
        with pytest.raises(InputError, match=r"file\.json: not valid JSON"):
            read(path)


def test_a_folder_of_that_name_is_refused(tmp_path):
    for read in (annotations.read, lambda p: Flat.read(p, Vocabulary.full(), 77)):
        with pytest.raises(InputError, match="cannot be read: Is a directory"):
            read(tmp_path)


def test_a_file_cut_in_half_is_refused(path):
    path.write_text(path.read_text()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match="not valid JSON"):
        annotations.read(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="not found"):
        annotations.read(tmp_path / "none.json")
