"""Large JSON in pieces: the same values as all at once, and the same line for everything that is wrong."""

import json
import random
from collections.abc import Iterator

import pytest

from snp.data import stream
from snp.data.stream import members
from snp.errors import InputError
from snp.files import read_json

DOCUMENT = {
    "info": {"a": [1, {"b": "}],"}]},
    "first": [1, 22.5e3, 'é"],', None, {"x": [[]]}, -4],
    "none": [],
    "number": 123456,
    "second": [{"k": i, "text": "word " * i, "t": ["},", {"m": {}}]} for i in range(9)],
    "third": [{}, {"a": "}, {"}],
    "": "end",
}
LISTS = ("first", "none", "second", "third")


@pytest.fixture(params=[1, 2, 7, 60, 250, 1 << 20], autouse=True)
def chunk(request, monkeypatch):
    """A file is read in pieces of this many characters: whatever stands at the edge of one, nothing changes."""
    monkeypatch.setattr(stream, "CHUNK", request.param)


@pytest.mark.parametrize("indent", [None, 1])
def test_every_member_comes_as_it_is_in_the_file(tmp_path, indent):
    path = tmp_path / "file.json"
    path.write_text(json.dumps(DOCUMENT, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")
    assert everything(path) == list(DOCUMENT.items())


def test_a_list_that_is_not_used_up_is_passed_over_and_an_unnamed_one_comes_whole(tmp_path):
    path = tmp_path / "file.json"
    path.write_text(json.dumps(DOCUMENT))
    found = {name: next(value, None) if name == "second" else value for name, value in members(path, ["second"])}
    assert found == DOCUMENT | {"second": DOCUMENT["second"][0]}


def test_what_is_no_object_has_no_members_and_a_named_member_need_not_be_a_list(tmp_path):
    path = tmp_path / "file.json"
    for text in ("[1, 2]", "3", "{}", " { } "):
        path.write_text(text)
        assert list(members(path, LISTS)) == []
    path.write_text('{"first": {"no": "list"}}')
    assert list(members(path, LISTS)) == [("first", {"no": "list"})]


@pytest.mark.slow
def test_a_file_spoiled_anywhere_is_refused_with_the_line_that_the_whole_reader_gives(tmp_path):
    path, draw, refused = tmp_path / "file.json", random.Random(0), 0
    text = json.dumps(DOCUMENT, indent=1)
    spoiled = [text[:cut] for cut in range(0, len(text), 5)]
    for _ in range(150):
        place = draw.randrange(len(text))
        spoiled.append(text[:place] + draw.choice(['"', ",", "}", "]", ":", "x", "{", " 1 ", "\\"]) + text[place + 1 :])
    for content in [*spoiled, text + "x", text + "{}", "{,}", '{"first": [,]}', '{"first": [1,]}', '{"a": 1,}']:
        path.write_text(content)
        expected = error_of(lambda: read_json(path))
        assert error_of(lambda: everything(path)) == expected
        refused += expected is not None
    assert refused > 200


def test_a_missing_file_and_one_that_is_no_text_are_refused_alike(tmp_path):
    path = tmp_path / "file.json"
    assert error_of(lambda: everything(path)) == f"{path}: file not found"
    path.write_bytes(b'{"first": ["' + b"x" * 50 + b'\xff"]}')
    expected = error_of(lambda: read_json(path))
    assert error_of(lambda: everything(path)) == expected and "0xff" in expected


def everything(path):
    return [(name, list(value) if isinstance(value, Iterator) else value) for name, value in members(path, LISTS)]


def error_of(call):
    try:
        call()
    except InputError as error:
        return str(error)
    return None
