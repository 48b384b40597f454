"""Data of all tasks from the same pictures: nothing older changes, and every format is read back as it was drawn."""

import random
from pathlib import Path

import pytest
from pycocotools.coco import COCO
from test_sources import GRAPHS, INSTANCES, QUESTIONS, SENTENCE, XML, write

from snp.data import annotations, readers
from snp.data.drawn import build, pictures, scenes, stamps, taskfiles
from snp.data.drawn.expressions import Scene
from snp.data.drawn.folder import data_hash, tasks_hash
from snp.data.drawn.items import Item
from snp.data.drawn.pictures import Picture
from snp.data.drawn.questions import TYPES, Question
from snp.data.drawn.scenes import SHAPES, Scenes
from snp.data.sources import flickr
from snp.data.sources.check import check
from snp.data.tokens import UNKNOWN, Vocabulary
from snp.errors import InputError
from snp.files import read_json

SIZES = {"train": 24, "test": 24, "pretrain_val": 2}
PARTS = {"train": 24, "val": 6, "test": 6}
"""Pictures of every split that tasks use."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scenes.make(tmp_path_factory.mktemp("data") / "scenes", 3, workers=1, **SIZES)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Picture]:
    """File name -> what was drawn there, drawn once more."""
    folder = tmp_path_factory.mktemp("again")
    made = {}
    for split, count in PARTS.items():
        (folder / "images" / split).mkdir(parents=True)
        for number in range(count):
            picture = build.picture(Scenes(), folder, 3, split, number)
            made[picture.file_name] = picture
    return made


# -- nothing older changes ----------------------------------------------------------------------------------------


def test_pictures_and_expressions_of_scenes_are_those_of_the_time_before_these_tasks(tmp_path: Path) -> None:
    made = scenes.make(tmp_path / "s", 3, train=6, test=8, pretrain_val=2, workers=1)
    assert data_hash(made) == "38e045dd1dcf50c175aa5b1dca92472337cf3a6669feee674a694b2f152e64ce"


@pytest.mark.slow
@pytest.mark.skipif(not stamps.SOURCE.is_dir(), reason=f"needs Debian's {stamps.PACKAGE}")
def test_pictures_and_expressions_of_stamps_are_those_of_the_time_before_these_tasks(tmp_path: Path) -> None:
    made = stamps.make(tmp_path / "s", 3, train=6, test=8, pretrain_val=2, workers=1)
    assert data_hash(made) == "f5093727e3911728a83a377c11c613b970a6204bcb7cd865300829e564829b55"


@pytest.mark.slow
def test_the_hash_of_tasks_is_its_own_and_tells_one_answer_from_another(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tasks_hash(root)
    assert before != data_hash(root) == data_hash(scenes.make(tmp_path / "a", 3, workers=1, **SIZES))
    assert tasks_hash(tmp_path / "a") == before
    monkeypatch.setattr(taskfiles, "SENTENCES", 1)
    other = scenes.make(tmp_path / "b", 3, workers=1, **SIZES)
    assert tasks_hash(other) != before and data_hash(other) == data_hash(root)


def test_a_data_set_of_the_time_before_these_tasks_is_to_be_made_again(tmp_path: Path) -> None:
    write(tmp_path / "dataset.json", {"annotations_sha256": {}, "pixels_sha256": {}})
    assert data_hash(tmp_path)
    with pytest.raises(InputError, match=r"tasks_sha256: missing .*make it again"):
        tasks_hash(tmp_path)


def test_making_it_again_leaves_nothing_of_the_old_files(tmp_path: Path) -> None:
    made = scenes.make(tmp_path / "s", 0, train=3, test=4, pretrain_val=1, workers=1)
    assert (made / "flickr30k/Sentences/2.txt").exists()
    scenes.make(made, 0, train=1, test=4, pretrain_val=1, workers=1)
    assert not (made / "flickr30k/Sentences/2.txt").exists()


def test_benchmarks_take_the_first_pictures_of_training_and_all_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taskfiles, "TRAIN", {"gqa": 3, "flickr30k": 2, "coco": 4})
    made = scenes.make(tmp_path / "s", 3, train=6, test=8, pretrain_val=1, workers=1)
    asked = {split: len(readers.questions(made / "gqa", split)) for split in ("train", "val")}
    assert asked == {"train": 3 * 4, "val": 2 * 4}
    assert (made / "flickr30k/train.txt").read_text() == "0\n1\n"
    assert (made / "flickr30k/test.txt").read_text() == "5000000\n5000001\n"
    loaded = (COCO(made / f"coco/annotations/instances_{split}.json") for split in ("train2017", "val2017"))
    assert [len(instances.imgs) for instances in loaded] == [4, 2]


def test_every_picture_has_its_own_chance_and_types_are_dealt_out_in_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others, types = [], []

    def ask(scene: Scene, other: list[Item], kinds: list[str], rng: random.Random) -> list[Question]:
        others.append(str(other))
        types.extend(kinds)
        return []

    monkeypatch.setattr(build, "ask", ask)
    scenes.make(tmp_path / "s", 3, train=5, test=4, pretrain_val=1, workers=1)
    assert len(set(others)) == 7 and types[:20] == [*TYPES] * 4


# -- numbers ------------------------------------------------------------------------------------------------------


def test_a_number_leads_to_its_picture() -> None:
    assert pictures.identity("train", 7) == 7 and pictures.identity("test", 12) == 5_000_012
    assert pictures.file_name("7") == "train/000007.png" and pictures.file_name("5000012") == "test/000012.png"


@pytest.mark.parametrize("number", ["n7", "6000000", "", "-1"])
def test_a_number_of_no_picture_is_refused(number: str) -> None:
    with pytest.raises(InputError, match=f"picture '{number}': is no number of a drawn picture"):
        pictures.file_name(number)


# -- formats ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("benchmark", taskfiles.SPLITS)
def test_the_check_of_published_data_finds_no_fault(root: Path, benchmark: str) -> None:
    findings = check(benchmark, root / benchmark)
    assert not [finding for finding in findings if finding.level == "error"]
    splits = taskfiles.SPLITS[benchmark].values()
    assert f"{sum(PARTS[split] for split in splits):,} pictures, all of them whole" in [f.text for f in findings]


@pytest.mark.parametrize("benchmark", taskfiles.SPLITS)
def test_the_check_misses_a_picture_that_is_gone(tmp_path: Path, benchmark: str) -> None:
    made = scenes.make(tmp_path / "s", 3, train=1, test=4, pretrain_val=1, workers=1)
    (made / "images/val/000000.png").unlink()
    errors = [finding.text for finding in check(benchmark, made / benchmark) if finding.level == "error"]
    assert len(errors) == 1 and "pictures are missing, as val/000000.png" in errors[0]


@pytest.mark.parametrize(("split", "part"), [("train", "train"), ("val", "val"), ("testdev", "test")])
def test_questions_are_read_back_with_the_boxes_of_what_they_name(
    root: Path, drawn: dict[str, Picture], split: str, part: str
) -> None:
    found = readers.questions(root / "gqa", split)
    said = [
        (name, question) for name, made in drawn.items() if name.startswith(f"{part}/") for question in made.questions
    ]
    assert len(found) == len(said) == 4 * PARTS[part]
    for entry, (name, question) in zip(found, said, strict=True):
        assert (entry.caption, entry.question_type, entry.answer) == (question.text, question.type, question.answer)
        assert (entry.file_name, entry.width, entry.height, entry.dataset_name) == (name, 64, 64, "gqa")
        items = drawn[name].items
        named = {(items[index].box, (span,)) for index, span in question.named}
        assert {*zip(entry.boxes, entry.spans, strict=True)} == named
    assert len({entry.question_id for entry in found}) == len(found)


def test_questions_have_all_fields_of_gqa(root: Path) -> None:
    questions = read_json(root / "gqa/val_balanced_questions.json")
    for number, question in questions.items():
        assert number.isdecimal() and len(number) == 8 and question["imageId"].startswith("2")
        assert set(question) == {
            "question",
            "imageId",
            "answer",
            "fullAnswer",
            "isBalanced",
            "groups",
            "types",
            "annotations",
        }
        assert question["isBalanced"] is True and set(question["groups"]) == {"global", "local"}
        assert set(question["types"]) == {"structural", "semantic", "detailed"}
        assert set(question["annotations"]) == {"question", "answer", "fullAnswer"}
    graph = read_json(root / "gqa/val_sceneGraphs.json")["2000000"]
    assert (graph["width"], graph["height"]) == (64, 64)
    for item in graph["objects"].values():
        assert set(item) == {"name", "x", "y", "w", "h", "attributes", "relations"} and item["name"] in SHAPES


def test_every_answer_is_in_the_vocabulary_of_its_type(root: Path) -> None:
    answers = readers.answers(root / "gqa")
    assert sorted(answers) == ["compare", "count", "exist", "logical", "query"]
    assert answers["exist"] == {"no": 0, "yes": 1}
    whole = read_json(root / "gqa/gqa_answer2id.json")
    assert set(whole) == set().union(*answers.values()) and sorted(whole.values()) == list(range(len(whole)))
    for split in ("train", "val", "testdev"):
        for entry in readers.questions(root / "gqa", split):
            assert entry.answer in answers[entry.question_type]


def test_a_vocabulary_extended_by_the_questions_knows_them_all_and_keeps_its_numbers(root: Path) -> None:
    captions = [
        entry.caption
        for path in sorted((root / "annotations").glob("*_train.json"))
        for entry in annotations.read(path)
    ]
    old = Vocabulary.from_captions(captions)
    said = [entry.caption for entry in readers.questions(root / "gqa", "train")]
    assert any(UNKNOWN in old.encode(caption)[0] for caption in said)
    new = old.extended(said)
    assert not any(UNKNOWN in new.encode(caption)[0] for caption in said)
    assert all((old.encode(caption)[0] == new.encode(caption)[0]).all() for caption in captions)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_phrases_are_read_back_with_all_boxes_they_name(root: Path, drawn: dict[str, Picture], split: str) -> None:
    found = readers.phrases(root / "flickr30k", split)
    said = [
        (name, place, sentence)
        for name, made in drawn.items()
        if name.startswith(f"{split}/")
        for place, sentence in enumerate(made.sentences)
    ]
    assert len(found) == len(said) > 2 * PARTS[split]
    kinds = set()
    for entry, (name, place, sentence) in zip(found, said, strict=True):
        assert (entry.caption, entry.file_name, entry.sentence_id) == (sentence.caption, name, place)
        boxes = [(drawn[name].items[index].box, (span,)) for index, span in sentence.named]
        assert sorted(zip(entry.boxes, entry.spans, strict=True)) == sorted(boxes)
        assert entry.evaluated == tuple((span,) for span in sorted({span for _, span in sentence.named}))
        for spans, types in zip(entry.evaluated, entry.phrase_types, strict=True):
            assert types == ("single" if entry.spans.count(spans) == 1 else "several",)
            kinds.add(types)
    assert len(kinds) == 2


def test_merged_phrases_have_one_box_around_all(root: Path) -> None:
    for apart, merged in zip(*(readers.phrases(root / "flickr30k", "val", m) for m in (False, True)), strict=True):
        assert merged.spans == merged.evaluated == apart.evaluated
        for box, spans in zip(merged.boxes, merged.spans, strict=True):
            own = [box for box, named in zip(apart.boxes, apart.spans, strict=True) if named == spans]
            assert box == flickr.around(own)


def test_a_picture_has_up_to_three_sentences_and_its_entities_are_shared(root: Path) -> None:
    counts, shared = set(), False
    for number in range(24):
        said = flickr.sentences(root / f"flickr30k/Sentences/{number}.txt")
        counts.add(len(said))
        entities = [{phrase.entity for phrase in sentence.phrases} for sentence in said]
        shared |= any(one & two for one in entities for two in entities if one is not two)
    assert max(counts) == 3 and shared


@pytest.mark.parametrize(("split", "part"), [("train2017", "train"), ("val2017", "val")])
def test_detection_asks_every_prompt_of_every_picture(
    root: Path, drawn: dict[str, Picture], split: str, part: str
) -> None:
    names = readers.classes(root / "coco", split)
    assert list(names.values()) == list(SHAPES) and list(names) == list(range(1, 11))
    prompts = [("circle. square", [(0, 6), (8, 14)]), ("moon", [(0, 4)])]
    found = readers.detection(root / "coco", split, iter(prompts))
    assert [entry.id for entry in found] == list(range(2 * PARTS[part]))
    assert any(not entry.boxes for entry in found) and any(entry.boxes for entry in found)
    for place, entry in enumerate(found):
        text, spans = prompts[place % 2]
        made = drawn[f"{part}/{place // 2:06d}.png"]
        assert (entry.caption, entry.file_name, entry.dataset_name) == (text, made.file_name, "coco")
        assert entry.original_id == pictures.identity(part, place // 2) and entry.width == 64
        words = {text[begin:end]: (begin, end) for begin, end in spans}
        wanted = [
            (item.box, (words[item.noun],), 1 + SHAPES.index(item.noun)) for item in made.items if item.noun in words
        ]
        assert [*zip(entry.boxes, entry.spans, entry.categories, strict=True)] == wanted


def test_instances_have_all_fields_of_coco(root: Path) -> None:
    document = read_json(root / "coco/annotations/instances_val2017.json")
    assert set(document) == {"info", "licenses", "images", "annotations", "categories"}
    for annotation in document["annotations"]:
        x, y, width, height = annotation["bbox"]
        assert annotation["area"] == width * height and x + width <= 64 and y + height <= 64
        assert (annotation["iscrowd"], annotation["segmentation"]) == (0, [])
    assert min(annotation["id"] for annotation in document["annotations"]) == 1
    assert [category["name"] for category in document["categories"]] == list(SHAPES)


# -- folders as published -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["", "questions"])
def test_questions_as_published_have_sizes_and_boxes_only_with_scene_graphs(tmp_path: Path, folder: str) -> None:
    write(tmp_path / folder / "val_balanced_questions.json", QUESTIONS)
    (bare,) = readers.questions(tmp_path, "val")
    assert (bare.file_name, bare.width, bare.boxes) == ("2405722.jpg", 0, ())
    write(tmp_path / "sceneGraphs/val_sceneGraphs.json", GRAPHS)
    (entry,) = readers.questions(tmp_path, "val")
    assert (entry.width, entry.height, entry.boxes) == (640, 480, ((10, 20, 30, 40),))


def test_answers_as_mdetr_gives_them_lose_their_prefix(tmp_path: Path) -> None:
    path = write(tmp_path / "annotations/gqa_answer2id_by_type.json", {"answer_rel": {"left": 0, "right": 1}})
    assert readers.answers(tmp_path) == {"rel": {"left": 0, "right": 1}}
    write(path, {"answer_rel": {"left": 1}})
    with pytest.raises(InputError, match=r"by_type.json: answer_rel: its numbers are not 0, 1, 2"):
        readers.answers(tmp_path)
    write(path, [])
    with pytest.raises(InputError, match="is not a dict of answers by type"):
        readers.answers(tmp_path)


def test_phrases_as_published_are_read(tmp_path: Path) -> None:
    write(tmp_path / "Sentences/36979.txt", SENTENCE)
    write(tmp_path / "Annotations/36979.xml", XML)
    write(tmp_path / "val.txt", "36979\n")
    assert [len(readers.phrases(tmp_path, "val", merged)[0].boxes) for merged in (False, True)] == [3, 2]
    assert readers.phrases(tmp_path, "val")[0].file_name == "36979.jpg"


def test_detection_as_published_leaves_crowds_and_empty_boxes_out(tmp_path: Path) -> None:
    first = INSTANCES["annotations"][0]
    more = [first | {"id": 71, "iscrowd": 1}, first | {"id": 72, "bbox": [4, 6, 0, 20]}]
    write(tmp_path / "annotations/instances_val2017.json", INSTANCES | {"annotations": [first, *more]})
    (entry,) = readers.detection(tmp_path, "val2017", [("dog", [(0, 3)])])
    assert (entry.boxes, entry.categories, entry.original_id) == (((4, 6, 10.5, 20),), (3,), 7)


def test_a_prompt_of_no_class_is_refused(root: Path) -> None:
    with pytest.raises(InputError, match=r"prompt 'circle\. dog': 'dog' is no class"):
        readers.detection(root / "coco", "val2017", [("circle. dog", [(0, 6), (8, 11)])])


@pytest.mark.parametrize(
    "read",
    [
        lambda root: readers.questions(root, "val"),
        lambda root: readers.answers(root),
        lambda root: readers.phrases(root, "val"),
        lambda root: readers.classes(root, "val2017"),
    ],
)
def test_a_file_that_is_missing_is_named_with_what_is_needed(tmp_path: Path, read) -> None:
    with pytest.raises(InputError, match=r"file not found, looked in .*needs "):
        read(tmp_path)
