"""The published formats, read from small files of the true form: what is read, and what is refused."""

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from snp.data.sources import coco, flickr, gqa, refer
from snp.errors import InputError

INSTANCES = {
    "images": [{"id": 7, "file_name": "COCO_train2014_000000000007.jpg", "height": 48, "width": 64}],
    "annotations": [{"id": 70, "image_id": 7, "category_id": 3, "bbox": [4, 6, 10.5, 20], "iscrowd": 0}],
    "categories": [{"id": 3, "name": "dog"}],
}
REFS = [{
    "ann_id": 70, "image_id": 7, "ref_id": 1, "category_id": 3, "split": "testA", "sent_ids": [0, 1],
    "file_name": "COCO_train2014_000000000007_0.jpg",
    "sentences": [{"sent": "the dog", "raw": "The dog", "tokens": ["the", "dog"], "sent_id": 0},
                  {"sent": "left animal", "raw": "left animal", "tokens": ["left", "animal"], "sent_id": 1}],
}]  # fmt: skip


def write(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


class TestRefer:
    @pytest.fixture
    def files(self, tmp_path: Path) -> tuple[Path, Path]:
        refs = tmp_path / "refs(unc).p"
        refs.write_bytes(pickle.dumps(REFS, protocol=2))
        return refs, write(tmp_path / "instances.json", INSTANCES)

    def test_every_sentence_is_an_entry_with_the_box_of_its_object(self, files: tuple[Path, Path]) -> None:
        (first, second), = refer.read(*files, "refcoco").values()
        assert (first.caption, first.boxes, first.spans) == ("the dog", ((4, 6, 10.5, 20),), (((0, 7),),))
        assert (second.caption, second.spans) == ("left animal", (((0, 11),),))
        assert (first.file_name, first.width, first.categories) == ("COCO_train2014_000000000007.jpg", 64, (3,))

    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_plain_values_are_read_in_every_protocol(self, tmp_path: Path, protocol: int) -> None:
        path = tmp_path / "plain.p"
        path.write_bytes(pickle.dumps(REFS, protocol=protocol))
        assert refer.plain_pickle(path) == REFS

    def test_a_pickle_of_the_second_python_is_read(self, tmp_path: Path) -> None:
        path = tmp_path / "old.p"
        path.write_bytes(b"(lp0\n(dp1\nS'sent'\np2\nS'caf\\xe9'\np3\nsa.")
        assert refer.plain_pickle(path) == [{"sent": "café"}]

    def test_a_pickle_that_runs_code_is_refused_and_named_and_nothing_runs(self, tmp_path: Path) -> None:
        class Harm:
            def __reduce__(self) -> tuple[Any, tuple[str]]:
                return os.mkdir, (str(tmp_path / "harmed"),)

        path = tmp_path / "refs(unc).p"
        path.write_bytes(pickle.dumps([Harm()]))
        with pytest.raises(InputError, match=r"refs\(unc\)\.p: refused: it wants to load posix\.mkdir"):
            refer.plain_pickle(path)
        assert not (tmp_path / "harmed").exists()

    def test_an_object_of_any_class_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "refs.p"
        path.write_bytes(pickle.dumps([Path("x")]))
        with pytest.raises(InputError, match=r"refused: it wants to load pathlib"):
            refer.plain_pickle(path)

    def test_a_cut_pickle_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "refs.p"
        path.write_bytes(pickle.dumps(REFS)[:40])
        with pytest.raises(InputError, match=r"refs\.p: refused"):
            refer.plain_pickle(path)

    @pytest.mark.parametrize(("change", "field"), [
        ({"ann_id": 71}, r"\[0\].ann_id: 71 is not in"),
        ({"image_id": 8}, r"\[0\].image_id: 8 is not in"),
        ({"image_id": None}, r"\[0\].image_id: missing"),
        ({"ann_id": True}, r"\[0\].ann_id: True is not int"),
        ({"split": 3}, r"\[0\].split: 3 is not str"),
        ({"sentences": [{"sent": " "}]}, r"\[0\].sentences\[0\].sent: is empty"),
        ({"sentences": [{}]}, r"\[0\].sentences\[0\].sent: missing"),
        ({"sentences": ["the dog"]}, r"\[0\].sentences\[0\]: 'the dog' is not an object"),
    ])  # fmt: skip
    def test_a_reference_that_is_broken_is_named(self, files: tuple[Path, Path], change: dict, field: str) -> None:
        files[0].write_bytes(pickle.dumps([REFS[0] | change]))
        with pytest.raises(InputError, match=field):
            refer.read(*files, "refcoco")


class TestCOCO:
    def test_images_boxes_and_categories_are_read(self, tmp_path: Path) -> None:
        found = coco.read(write(tmp_path / "i.json", INSTANCES))
        assert found.images[7].height == 48 and found.categories == {3: "dog"}
        assert found.annotations[70] == coco.Instance(7, 3, (4.0, 6.0, 10.5, 20.0), 210.0, False)

    @pytest.mark.parametrize(("change", "field"), [
        ({"image_id": 8}, r"annotations\[0\].image_id: 8 names no image"),
        ({"category_id": 4}, r"annotations\[0\].category_id: 4 names no category"),
        ({"bbox": [1, 2, 3]}, r"annotations\[0\].bbox: \[1, 2, 3\] is not"),
        ({"bbox": [60, 2, 9, 3]}, r"annotations\[0\].bbox: .* lies outside its image of 64x48 pixels"),
        ({"id": "a"}, r"annotations\[0\].id: 'a' is not int"),
    ])  # fmt: skip
    def test_a_broken_annotation_is_named(self, tmp_path: Path, change: dict, field: str) -> None:
        spoilt = INSTANCES | {"annotations": [INSTANCES["annotations"][0] | change]}
        with pytest.raises(InputError, match=field):
            coco.read(write(tmp_path / "i.json", spoilt))


SENTENCE = "[/EN#1/people Two young men] on [/EN#2/vehicles/other a cart] under [/EN#0/notvisual the sun] .\n"
XML = """<annotation><filename>36979.jpg</filename><size><width>50</width><height>40</height><depth>3</depth></size>
<object><name>1</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>10</xmax><ymax>20</ymax></bndbox></object>
<object><name>1</name><bndbox><xmin>12</xmin><ymin>4</ymin><xmax>20</xmax><ymax>30</ymax></bndbox></object>
<object><name>2</name><bndbox><xmin>5</xmin><ymin>30</ymin><xmax>45</xmax><ymax>39</ymax></bndbox></object>
<object><name>3</name><scene>1</scene><nobndbox>1</nobndbox></object></annotation>"""


class TestFlickr:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        write(tmp_path / "Sentences/36979.txt", SENTENCE + "[/EN#3/scene Outside] .\n")
        write(tmp_path / "Annotations/36979.xml", XML)
        return tmp_path

    def test_a_sentence_gives_its_words_and_where_its_phrases_stand(self) -> None:
        said = flickr.sentence(SENTENCE.strip(), "here")
        assert said.text == "Two young men on a cart under the sun ."
        assert [(said.text[slice(*p.span)], p.entity, p.types) for p in said.phrases] == [
            ("Two young men", "1", ("people",)),
            ("a cart", "2", ("vehicles", "other")),
            ("the sun", "0", ("notvisual",)),
        ]

    def test_phrases_with_boxes_become_an_entry_a_box_is_as_wide_as_its_corners_are_apart(self, root: Path) -> None:
        (entry,) = flickr.read(root, ["36979"])  # the second sentence names nothing that has a box
        assert entry.boxes == ((1, 2, 9, 18), (12, 4, 8, 26), (5, 30, 40, 9))
        assert [entry.caption[slice(*spans[0])] for spans in entry.spans] == ["Two young men"] * 2 + ["a cart"]
        assert entry.evaluated == (((0, 13),), ((17, 23),))
        assert entry.phrase_types == (("people",), ("vehicles", "other"))
        assert (entry.sentence_id, entry.original_id, entry.width) == (0, 36979, 50)

    def test_the_merged_protocol_puts_one_box_around_those_of_a_phrase(self, root: Path) -> None:
        (entry,) = flickr.read(root, ["36979"], merged=True)
        assert entry.boxes == ((1, 2, 19, 28), (5, 30, 40, 9))

    def test_entities_without_a_box_are_known(self, root: Path) -> None:
        assert flickr.boxes(root / "Annotations/36979.xml").boxless == {"3"}

    @pytest.mark.parametrize(("old", "new", "problem"), [
        ("<xmax>10</xmax>", "<xmax>60</xmax>", r"object\[0\].bndbox: .* lies outside its image of 50x40 pixels"),
        ("<xmax>10</xmax>", "<xmax>ten</xmax>", r"object\[0\].bndbox.xmax: 'ten' is not a whole number"),
        ("<width>50</width>", "", r"size.width: missing"),
        ("</annotation>", "", "not valid XML"),
    ])  # fmt: skip
    def test_a_broken_xml_is_named(self, root: Path, old: str, new: str, problem: str) -> None:
        write(root / "Annotations/36979.xml", XML.replace(old, new))
        with pytest.raises(InputError, match=f"36979.xml.*{problem}"):
            flickr.boxes(root / "Annotations/36979.xml")

    def test_a_sentence_with_a_torn_mark_is_named_with_its_line(self, root: Path) -> None:
        write(root / "Sentences/36979.txt", SENTENCE + "[/EN#1/people Two men ride .\n")
        with pytest.raises(InputError, match=r"36979\.txt: line 2: .* is not a sentence"):
            flickr.sentences(root / "Sentences/36979.txt")


QUESTIONS = {"05515938": {
    "question": "Is the small dog on the left?", "imageId": "2405722", "answer": "yes",
    "types": {"structural": "verify", "semantic": "rel", "detailed": "relVerify"},
    "annotations": {"question": {"2:4": "1061537"}, "answer": {}, "fullAnswer": {}},
}}  # fmt: skip
GRAPHS = {"2405722": {"width": 640, "height": 480, "objects": {
    "1061537": {"name": "dog", "x": 10, "y": 20, "w": 30, "h": 40, "attributes": ["small"], "relations": []},
}}}  # fmt: skip


class TestGQA:
    def test_a_question_has_type_and_answer_and_with_scene_graphs_boxes(self, tmp_path: Path) -> None:
        graphs = gqa.scene_graphs(write(tmp_path / "graphs.json", GRAPHS))
        (entry,) = gqa.questions(write(tmp_path / "q.json", QUESTIONS), graphs)
        assert (entry.question_id, entry.question_type, entry.answer) == ("05515938", "rel", "yes")
        assert entry.file_name == "2405722.jpg" and entry.boxes == ((10, 20, 30, 40),)
        assert entry.caption[slice(*entry.spans[0][0])] == "small dog"

    def test_a_question_of_a_test_split_has_neither_answer_nor_box(self, tmp_path: Path) -> None:
        bare = {"1": {"question": "Who?", "imageId": "n1"}}
        (entry,) = gqa.questions(write(tmp_path / "q.json", bare))
        assert (entry.answer, entry.question_type, entry.boxes) == ("", "", ())

    def test_a_question_without_a_picture_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"q\.json: 1.imageId: missing"):
            gqa.questions(write(tmp_path / "q.json", {"1": {"question": "Who?"}}))

    def test_an_object_outside_its_image_is_named(self, tmp_path: Path) -> None:
        graphs = json.loads(json.dumps(GRAPHS))
        graphs["2405722"]["objects"]["1061537"]["w"] = 700
        with pytest.raises(InputError, match=r"g.json: 2405722.objects.1061537: .* outside its image of 640x480"):
            gqa.scene_graphs(write(tmp_path / "g.json", graphs))

    @pytest.mark.parametrize("answers", [{"yes": 0, "no": 2}, {"yes": "0"}, ["yes"]])
    def test_a_vocabulary_numbers_its_answers_from_zero_on(self, tmp_path: Path, answers: Any) -> None:
        with pytest.raises(InputError, match=r"a\.json: answer_rel: "):
            gqa.answers_by_type(write(tmp_path / "a.json", {"answer_rel": answers}))
