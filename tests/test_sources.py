"""The published formats, read from small files of the true form: what is read, and what is refused."""

import json
import os
import pickle
import re
from pathlib import Path
from typing import Any

import pytest

from snp.data.sources import coco, flickr, gqa, refer
from snp.data.sources.images import Images, places
from snp.errors import InputError

INSTANCES = {
    "images": [{"id": 7, "file_name": "COCO_train2014_000000000007.jpg", "height": 48, "width": 64}],
    "annotations": [{"id": 70, "image_id": 7, "category_id": 3, "bbox": [4, 6, 10.5, 20], "iscrowd": 0}],
    "categories": [{"id": 3, "name": "dog"}],
}
REFS = [
    {
        "ann_id": 70,
        "image_id": 7,
        "ref_id": 1,
        "category_id": 3,
        "split": "testA",
        "sent_ids": [0, 1],
        "file_name": "COCO_train2014_000000000007_0.jpg",
        "sentences": [
            {"sent": "the dog", "raw": "The dog", "tokens": ["the", "dog"], "sent_id": 0},
            {"sent": "left animal", "raw": "left animal", "tokens": ["left", "animal"], "sent_id": 1},
        ],
    }
]


def write(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


GENERAL = [
    {"ann_id": [70, 71], "image_id": 7, "split": "val", "no_target": False, "sentences": [{"sent": "both dogs"}]},
    {"ann_id": [70], "image_id": 7, "split": "val", "no_target": False, "sentences": [{"sent": "left dog"}]},
    {"ann_id": [-1], "image_id": 7, "split": "val", "no_target": True, "sentences": [{"sent": "the cat"}]},
]
"""References of gRefCOCO; their dogs are those of `INSTANCES` and another one."""
DOGS = INSTANCES | {
    "annotations": [*INSTANCES["annotations"], INSTANCES["annotations"][0] | {"id": 71, "bbox": [20, 6, 9, 9]}]
}


class TestRefer:
    @pytest.fixture
    def files(self, tmp_path: Path) -> tuple[Path, Path]:
        refs = tmp_path / "refs(unc).p"
        refs.write_bytes(pickle.dumps(REFS, protocol=2))
        return refs, write(tmp_path / "instances.json", INSTANCES)

    def test_every_sentence_is_an_entry_with_the_box_of_its_object(self, files: tuple[Path, Path]) -> None:
        ((first, second),) = refer.read(*files, "refcoco").values()
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

    @pytest.mark.parametrize(
        ("change", "field"),
        [
            ({"ann_id": 71}, r"\[0\].ann_id: 71 is not in"),
            ({"image_id": 8}, r"\[0\].image_id: 8 is not in"),
            ({"image_id": None}, r"\[0\].image_id: missing"),
            ({"ann_id": True}, r"\[0\].ann_id: True is not int"),
            ({"split": 3}, r"\[0\].split: 3 is not str"),
            ({"split": ""}, r"\[0\].split: '' is no split of refcoco .*its splits are train, val, testA, testB"),
            ({"split": "test"}, r"\[0\].split: 'test' is no split of refcoco"),
            ({"sentences": [{"sent": " "}]}, r"\[0\].sentences\[0\].sent: is empty"),
            ({"sentences": [{}]}, r"\[0\].sentences\[0\].sent: missing"),
            ({"sentences": ["the dog"]}, r"\[0\].sentences\[0\]: 'the dog' is not an object"),
        ],
    )
    def test_a_reference_that_is_broken_is_named(self, files: tuple[Path, Path], change: dict, field: str) -> None:
        files[0].write_bytes(pickle.dumps([REFS[0] | change]))
        with pytest.raises(InputError, match=field):
            refer.read(*files, "refcoco")

    @pytest.mark.parametrize(
        ("image", "box", "problem"),
        [
            (8, [4, 6, 10, 20], r"\[0\].ann_id: 70 is an object of image 7, not of image_id 8"),
            (7, [4, 6, 0, 20], r"\[0\].ann_id: box of 70 in instances.json: .* is empty"),
        ],
    )
    def test_a_box_of_another_image_and_one_without_area_are_named(
        self, files: tuple[Path, Path], image: int, box: list, problem: str
    ) -> None:
        images = [INSTANCES["images"][0] | {"id": n} for n in (7, 8)]
        write(files[1], INSTANCES | {"images": images, "annotations": [INSTANCES["annotations"][0] | {"bbox": box}]})
        files[0].write_bytes(pickle.dumps([REFS[0] | {"image_id": image}]))
        with pytest.raises(InputError, match=problem):
            refer.read(*files, "refcoco")

    def test_all_faults_are_gathered_and_what_is_sound_is_read(self, files: tuple[Path, Path]) -> None:
        files[0].write_bytes(pickle.dumps([REFS[0] | {"ann_id": 71}, REFS[0], 3, REFS[0] | {"split": None}]))
        faults: list[InputError] = []
        assert len(refer.read(*files, "refcoco", faults)["testA"]) == 2
        assert [str(fault).split(": ")[1] for fault in faults] == ["[0].ann_id", "[2]", "[3].split"]


class TestGeneral:
    @pytest.fixture
    def files(self, tmp_path: Path) -> tuple[Path, Path]:
        return write(tmp_path / "grefs(unc).json", GENERAL), write(tmp_path / "instances.json", DOGS)

    def test_a_sentence_has_a_box_for_every_object_that_it_names_or_none(self, files: tuple[Path, Path]) -> None:
        both, one, none = refer.read(*files, "grefcoco")["val"]
        assert both.boxes == ((4, 6, 10.5, 20), (20, 6, 9, 9)) and both.spans == (((0, 9),), ((0, 9),))
        assert one.boxes == both.boxes[:1] and none.boxes == none.spans == none.categories == ()
        assert [entry.type for entry in (both, one, none)] == ["several targets", "one target", ""]
        assert [entry.caption for entry in (both, one, none)] == ["both dogs", "left dog", "the cat"]

    def test_an_object_that_is_named_twice_has_one_box_and_a_number_alone_is_one_object(
        self, files: tuple[Path, Path]
    ) -> None:
        write(files[0], [GENERAL[0] | {"ann_id": numbers} for numbers in ([70, 70], 70)])
        assert [len(entry.boxes) for entry in refer.read(*files, "grefcoco")["val"]] == [1, 1]

    @pytest.mark.parametrize(
        ("change", "field"),
        [
            ({"ann_id": []}, r"\[0\].ann_id: \[\] does not go with no_target False"),
            ({"ann_id": [-1]}, r"\[0\].ann_id: \[-1\] does not go with no_target False"),
            ({"no_target": True}, r"\[0\].ann_id: \[70, 71\] does not go with no_target True"),
            ({"no_target": 1}, r"\[0\].no_target: 1 is not bool"),
            ({"ann_id": [70, "71"]}, r"\[0\].ann_id\[1\]: '71' is not int"),
            ({"ann_id": [70, 72]}, r"\[0\].ann_id: 72 is not in"),
            ({"ann_id": None}, r"\[0\].ann_id: missing"),
            ({"image_id": 8}, r"\[0\].image_id: 8 is not in"),
            ({"split": "test"}, r"\[0\].split: 'test' is no split of grefcoco"),
        ],
    )
    def test_a_reference_that_is_broken_is_named(self, files: tuple[Path, Path], change: dict, field: str) -> None:
        write(files[0], [GENERAL[0] | change])
        with pytest.raises(InputError, match=field):
            refer.read(*files, "grefcoco")

    def test_others_have_no_lists_of_objects(self, tmp_path: Path, files: tuple[Path, Path]) -> None:
        path = tmp_path / "refs(unc).p"
        path.write_bytes(pickle.dumps(GENERAL))
        with pytest.raises(InputError, match=r"ann_id: \[70, 71\] is not int"):
            refer.read(path, files[1], "refcoco")


class TestCOCO:
    def test_images_boxes_and_categories_are_read(self, tmp_path: Path) -> None:
        found = coco.read(write(tmp_path / "i.json", INSTANCES))
        assert found.images[7].height == 48 and found.categories == {3: "dog"}
        assert found.annotations[70] == coco.Instance(7, 3, (4.0, 6.0, 10.5, 20.0), 210.0, False)

    @pytest.mark.parametrize(
        ("change", "field"),
        [
            ({"image_id": 8}, r"annotations\[0\].image_id: 8 names no image"),
            ({"category_id": 4}, r"annotations\[0\].category_id: 4 names no category"),
            ({"bbox": [1, 2, 3]}, r"annotations\[0\].bbox: \[1, 2, 3\] is not"),
            ({"bbox": [60, 2, 9, 3]}, r"annotations\[0\].bbox: .* lies outside its image of 64x48 pixels"),
            ({"id": "a"}, r"annotations\[0\].id: 'a' is not int"),
            ({"id": None}, r"annotations\[0\].id: missing"),
            ({"id": True}, r"annotations\[0\].id: True is not int"),
            ({"id": 2**53}, r"annotations\[0\].id: 9007199254740992 has more than 53 bits"),
            ({"id": 2**64}, r"annotations\[0\].id: 18446744073709551616 has more than 64 bits"),
            ({"image_id": [7]}, r"annotations\[0\].image_id: \[7\] is not int"),
            ({"image_id": 7.0}, r"annotations\[0\].image_id: 7.0 is not int"),
            ({"bbox": [1, 2, float("nan"), 4]}, r"annotations\[0\].bbox: \[1, 2, nan, 4\] is not"),
            ({"bbox": [1, 2, 10**400, 4]}, r"annotations\[0\].bbox: .* is not \[x, y, width, height\]"),
            ({"bbox": [1, 2, -3, 4]}, r"annotations\[0\].bbox: .* has a negative side"),
            ({"area": "big"}, r"annotations\[0\].area: 'big' is not float"),
            ({"area": float("inf")}, r"annotations\[0\].area: inf is not a finite number"),
            ({"area": -1}, r"annotations\[0\].area: -1 is below zero"),
            ({"iscrowd": 2}, r"annotations\[0\].iscrowd: 2 is neither 0 nor 1"),
            ({"iscrowd": [0]}, r"annotations\[0\].iscrowd: \[0\] is neither 0 nor 1"),
        ],
    )
    def test_a_broken_annotation_is_named(self, tmp_path: Path, change: dict, field: str) -> None:
        spoilt = INSTANCES | {"annotations": [INSTANCES["annotations"][0] | change]}
        with pytest.raises(InputError, match=field):
            coco.read(write(tmp_path / "i.json", spoilt))

    @pytest.mark.parametrize("part", ["images", "annotations", "categories"])
    def test_an_id_that_occurs_twice_is_named(self, tmp_path: Path, part: str) -> None:
        twice = INSTANCES | {part: [INSTANCES[part][0], INSTANCES[part][0] | {"name": "cat"}]}
        with pytest.raises(InputError, match=rf"{part}\[1\].id: {INSTANCES[part][0]['id']} occurs twice"):
            coco.read(write(tmp_path / "i.json", twice))

    def test_two_classes_of_one_name_are_refused(self, tmp_path: Path) -> None:
        spoilt = INSTANCES | {"categories": [*INSTANCES["categories"], {"id": 4, "name": "dog"}]}
        with pytest.raises(InputError, match=r"categories\[1\].name: 'dog' occurs twice"):
            coco.read(write(tmp_path / "i.json", spoilt))

    @pytest.mark.parametrize("number", [0, -1, 2**53 - 1])
    def test_ids_may_be_any_numbers_of_53_bits(self, tmp_path: Path, number: int) -> None:
        changed = {key: [INSTANCES[key][0] | {"id": number}] for key in INSTANCES}
        changed["annotations"][0].update(image_id=number, category_id=number)
        found = coco.read(write(tmp_path / "i.json", changed))
        assert found.annotations[number].image == number and found.categories == {number: "dog"}

    def test_area_and_crowd_are_those_of_the_box_where_they_are_not_said(self, tmp_path: Path) -> None:
        bare = {key: value for key, value in INSTANCES["annotations"][0].items() if key != "iscrowd"}
        for more, area, crowd in (
            ({}, 210, False),
            ({"area": 9.5, "iscrowd": True}, 9.5, True),
            ({"area": None}, 210, False),
        ):
            found = coco.read(write(tmp_path / "i.json", INSTANCES | {"annotations": [bare | more]})).annotations[70]
            assert (found.area, found.crowd) == (area, crowd)


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
        entry = flickr.merged(*flickr.read(root, ["36979"]))
        assert entry.boxes == ((1, 2, 19, 28), (5, 30, 40, 9))

    def test_entities_without_a_box_are_known(self, root: Path) -> None:
        assert flickr.boxes(root / "Annotations/36979.xml").boxless == {"3"}

    @pytest.mark.parametrize(
        ("old", "new", "problem"),
        [
            ("<xmax>10</xmax>", "<xmax>60</xmax>", r"object\[0\].bndbox: .* lies outside its image of 50x40 pixels"),
            ("<xmax>10</xmax>", "<xmax>ten</xmax>", r"object\[0\].bndbox.xmax: 'ten' is not a whole number"),
            ("<width>50</width>", "", r"size.width: missing"),
            ("</annotation>", "", "not valid XML"),
            ("<annotation>", "<?xml version='1.0' encoding='klingon'?><annotation>", "not valid XML"),
            ("<xmin>1<", "<xmin>--1<", r"object\[0\].bndbox.xmin: '--1' is not a whole number"),
            ("<xmin>1<", "<xmin>²<", r"object\[0\].bndbox.xmin: '²' is not a whole number"),
            ("<xmin>1<", "<xmin>12<", r"object\[0\].bndbox: .* has a negative side"),
            ("<width>50</width>", f"<width>{9**99}</width>", r"size.width: .* is not a whole number"),
            ("<width>50</width>", "<width>0</width>", r"size: picture of 0x40 pixels"),
        ],
    )
    def test_a_broken_xml_is_named(self, root: Path, old: str, new: str, problem: str) -> None:
        write(root / "Annotations/36979.xml", XML.replace(old, new))
        with pytest.raises(InputError, match=f"36979.xml.*{problem}"):
            flickr.boxes(root / "Annotations/36979.xml")

    def test_a_sentence_with_a_torn_mark_is_named_with_its_line(self, root: Path) -> None:
        write(root / "Sentences/36979.txt", SENTENCE + "[/EN#1/people Two men ride .\n")
        with pytest.raises(InputError, match=r"36979\.txt: line 2: .* is not a sentence"):
            flickr.sentences(root / "Sentences/36979.txt")

    def test_a_box_may_end_at_the_last_pixel_or_have_no_width(self, root: Path) -> None:
        write(root / "Annotations/36979.xml", XML.replace("<xmax>10<", "<xmax>50<").replace("<xmin>12<", "<xmin>20<"))
        (entry,) = flickr.read(root, ["36979"])
        assert entry.boxes[:2] == ((1, 2, 49, 18), (20, 4, 0, 26))

    @pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
    def test_sentences_end_where_their_lines_do(self, root: Path, ends: str) -> None:
        said = ["one\u2028[/EN#1/people dog] .", "two\x85 .", "\ufeffthree"]
        (root / "Sentences/36979.txt").write_bytes(("\ufeff" + ends.join(said)).encode())
        found = flickr.sentences(root / "Sentences/36979.txt")
        assert [sentence.text for sentence in found] == ["one\u2028dog .", "two\x85 .", "\ufeffthree"]

    def test_a_file_in_another_encoding_is_named(self, root: Path) -> None:
        (root / "Sentences/36979.txt").write_bytes("[/EN#1/people a café]\n".encode("latin-1"))
        with pytest.raises(InputError, match=r"Sentences/36979\.txt: is not UTF-8"):
            flickr.read(root, ["36979"])

    @pytest.mark.parametrize(
        ("listed", "problem"),
        [
            ("36979 img_a1", "picture 2: 'img_a1' is not the number of a picture"),
            ("036979", "picture 1: '036979' is not"),
            ("../36979", "picture 1: '../36979' is not"),
            ("٣٦", "picture 1: '٣٦' is not"),
            ("36979\n36979", "picture 2: 36979 occurs twice"),
        ],
    )
    def test_pictures_are_listed_by_their_numbers_each_once(self, tmp_path: Path, listed: str, problem: str) -> None:
        with pytest.raises(InputError, match=re.escape(f"val.txt: {problem}")):
            flickr.listed(write(tmp_path / "val.txt", listed))


QUESTIONS = {
    "05515938": {
        "question": "Is the small dog on the left?",
        "imageId": "2405722",
        "answer": "yes",
        "types": {"structural": "verify", "semantic": "rel", "detailed": "relVerify"},
        "annotations": {"question": {"2:4": "1061537"}, "answer": {}, "fullAnswer": {}},
    }
}
GRAPHS = {
    "2405722": {
        "width": 640,
        "height": 480,
        "objects": {
            "1061537": {"name": "dog", "x": 10, "y": 20, "w": 30, "h": 40, "attributes": ["small"], "relations": []}
        },
    }
}


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

    @pytest.mark.parametrize(
        ("change", "field"),
        [
            ({"answer": 3}, "answer: 3 is not str"),
            ({"answer": True}, "answer: True is not str"),
            ({"question": " "}, "question: is empty"),
            ({"question": "half \ud83d"}, "question: .* holds half a character"),
            ({"imageId": 5}, "imageId: 5 is not str"),
            ({"types": []}, r"types: \[\] is not dict"),
            ({"types": {"semantic": 1}}, "types.semantic: 1 is not str"),
            ({"annotations": []}, r"annotations: \[\] is not dict"),
            ({"annotations": {"question": {"a": "1061537"}}}, "annotations.question: place 'a' lies outside"),
            ({"annotations": {"question": {"²": "1061537"}}}, "annotations.question: place '²' lies outside"),
            ({"annotations": {"question": {"3:2": "1061537"}}}, "annotations.question: place '3:2' lies outside"),
            ({"annotations": {"question": {"99": "1061537"}}}, "annotations.question: place '99' lies outside"),
            ({"annotations": {"question": {"2": [1]}}}, r"annotations.question: \[1\] is not str"),
        ],
    )
    def test_a_field_of_another_kind_is_named(self, tmp_path: Path, change: dict, field: str) -> None:
        graphs = gqa.scene_graphs(write(tmp_path / "graphs.json", GRAPHS))
        path = write(tmp_path / "q.json", {"1": QUESTIONS["05515938"] | change})
        with pytest.raises(InputError, match=rf"q\.json: 1\.{field}"):
            gqa.questions(path, graphs)

    def test_two_types_of_one_name_are_refused(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.json", {"answer_rel": {"yes": 0}, "rel": {"no": 0}})
        with pytest.raises(InputError, match=r"a\.json: rel: is the second type called rel"):
            gqa.answers_by_type(path)

    def test_what_is_null_is_not_there(self, tmp_path: Path) -> None:
        nothing = {"answer": None, "types": None, "annotations": None}
        (entry,) = gqa.questions(write(tmp_path / "q.json", {"1": QUESTIONS["05515938"] | nothing}))
        assert (entry.answer, entry.question_type, entry.boxes) == ("", "", ())

    @pytest.mark.parametrize(
        ("change", "problem"),
        [
            ({"x": float("nan")}, "x: nan is not a finite number"),
            ({"x": "10"}, "x: '10' is not float"),
            ({"x": -2}, "lies outside its image"),
            ({"w": -1}, "has a negative side"),
        ],
    )
    def test_an_object_that_is_no_box_is_named(self, tmp_path: Path, change: dict, problem: str) -> None:
        graphs = json.loads(json.dumps(GRAPHS))
        graphs["2405722"]["objects"]["1061537"].update(change)
        with pytest.raises(InputError, match=rf"g\.json: 2405722\.objects\.1061537.*{problem}"):
            gqa.scene_graphs(write(tmp_path / "g.json", graphs))

    def test_an_object_may_pass_the_edge_by_a_pixel_and_one_without_area_is_no_box(self, tmp_path: Path) -> None:
        graphs = json.loads(json.dumps(GRAPHS))
        item = graphs["2405722"]["objects"]["1061537"]
        for change, boxes in (({"x": -1, "w": 642}, ((-1, 20, 642, 40),)), ({"w": 0}, ())):
            item.update(change)
            known = gqa.scene_graphs(write(tmp_path / "g.json", graphs))
            assert gqa.questions(write(tmp_path / "q.json", QUESTIONS), known)[0].boxes == boxes


class TestImages:
    def picture(self, root: Path, *names: str) -> None:
        for name in names:
            write(root / name, "a picture")

    def test_a_picture_that_is_missing_is_missing_whatever_others_are_called(self, tmp_path: Path) -> None:
        self.picture(tmp_path, "images/16.jpg", "images/7.jpg", "000000581857.jpg", "images/COCO_train2014_9.jpg")
        images = Images([tmp_path])
        for name in (
            "COCO_train2014_000000581857_16.jpg",
            "img_7.jpg",
            "other/7.jpg",
            "COCO_train2014_7.jpg",
            "9.jpg",
            "XCOCO_train2014_000000581857.jpg",
            "COCO_train2014_000000581857.png",
            "",
            "/",
            "a" * 999,
            "a\0",
        ):
            assert images.find(name) is None, name

    def test_cocos_pictures_have_the_names_of_two_years(self, tmp_path: Path) -> None:
        self.picture(tmp_path, "val2017/000000000009.jpg", "train2014/COCO_train2014_000000000008.jpg")
        images = Images([tmp_path])
        for year in ("train2014", "val2014", "test2015"):
            assert images.find(f"COCO_{year}_000000000009.jpg") == tmp_path / "val2017/000000000009.jpg"
        found = images.find("COCO_train2014_000000000008.jpg")
        assert found == tmp_path / "train2014/COCO_train2014_000000000008.jpg"

    def test_a_name_with_folders_is_one_of_these_folders(self, tmp_path: Path) -> None:
        self.picture(tmp_path, "images/val/7.jpg", "images/7.jpg")
        assert Images([tmp_path]).find("val/7.jpg") == tmp_path / "images/val/7.jpg"
        assert Images([tmp_path]).find("val/8.jpg") is None

    def test_names_that_visual_genome_and_flickr30k_share_are_told_apart(self, tmp_path: Path) -> None:
        self.picture(tmp_path, "images/36979.jpg", "flickr30k-images/36979.jpg")
        assert Images(*places(tmp_path, "gqa")).find("36979.jpg") == tmp_path / "images/36979.jpg"
        assert Images(*places(tmp_path, "flickr30k")).find("36979.jpg") == tmp_path / "flickr30k-images/36979.jpg"

    def test_a_benchmarks_own_folder_comes_before_that_of_all(self, tmp_path: Path) -> None:
        self.picture(tmp_path, "images/5.jpg", "gqa/images/5.jpg", "images/6.jpg")
        images = Images(*places(tmp_path, "gqa"))
        assert images.find("5.jpg") == tmp_path / "gqa/images/5.jpg"
        assert images.find("6.jpg") == tmp_path / "images/6.jpg"
