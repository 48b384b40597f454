"""Flat arrays: entry by entry what the plain reader gives, from a stream or a cache, and the same errors."""

import json
import os
import random
from dataclasses import replace

import numpy as np
import pytest

from snp.data import annotations, stream, tokens
from snp.data.annotations import Entry
from snp.data.flat import Flat
from snp.data.tokens import Vocabulary
from snp.errors import InputError

CONTEXT = 40
WORDS = ["a", "red", "star", "Ünder", "the", "man's", "t-shirt.", "中文", "12", "unbelievably", " ", "left-most,", "İ"]


def entries(count=60, seed=0):
    """Entries of all kinds: several boxes, spans that cut words, questions without boxes, Flickr's phrases."""
    draw, found = random.Random(seed), []
    for i in range(count):
        caption = " ".join(draw.choices(WORDS, k=draw.randint(1, 9))) + " x"
        boxes, spans = [], []
        for _ in range(draw.choice([0, 1, 1, 2, 5])):
            boxes.append((draw.randint(0, 9), draw.uniform(-0.9, 9), draw.uniform(1, 20), draw.randint(1, 20)))
            cuts = sorted(draw.sample(range(len(caption) + 1), 2 * draw.randint(1, min(2, len(caption) // 2))))
            spans.append(tuple(zip(cuts[::2], cuts[1::2], strict=True)))
        entry = Entry(
            id=3 * i + 1,
            file_name=f"part{i % 2}/{i // 4}.jpg",
            height=40 + i,
            width=50,
            caption=caption,
            dataset_name=draw.choice(["mixed", "flickr"]),
            boxes=tuple(boxes),
            spans=tuple(spans),
            type=draw.choice(["", "relation"]),
            original_id=i // 3,
            categories=tuple(draw.choices(range(90), k=len(boxes))),
        )
        if not boxes:
            entry = replace(entry, question_id=f"q{i}", question_type="obj", answer=draw.choice(["yes", "no"]))
        elif i % 5 == 0:
            entry = replace(entry, evaluated=(spans[0],), phrase_types=(("people", "other"),), sentence_id=i)
        found.append(entry)
    return found


ENTRIES = entries()
VOCABULARY = Vocabulary.from_captions(entry.caption for entry in ENTRIES[:40])


@pytest.fixture
def root(tmp_path):
    annotations.write(tmp_path / "annotations" / "file.json", ENTRIES, [])
    return tmp_path


def spoil(path, change):
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def assert_equal(one, other):
    for name, array in vars(one).items():
        assert np.array_equal(array, getattr(other, name)), name


@pytest.mark.parametrize("chunk", [100, 1 << 20])
def test_a_file_is_read_in_pieces_as_it_is_read_at_once(root, chunk, monkeypatch):
    monkeypatch.setattr(stream, "CHUNK", chunk)
    path = root / "annotations" / "file.json"
    flat = Flat.read(path, VOCABULARY, CONTEXT, boxless=True)
    assert [flat.entry(i) for i in range(len(flat))] == annotations.read(path, boxless=True) == ENTRIES
    assert_equal(flat, Flat.from_entries(ENTRIES, VOCABULARY, CONTEXT))


def test_annotations_may_stand_in_any_order_and_before_the_images(root):
    path = root / "annotations" / "file.json"

    def change(document):
        random.Random(1).shuffle(document["annotations"])
        items = list(document.items())[::-1]
        document.clear()
        document.update(items)

    spoil(path, change)
    flat = Flat.read(path, VOCABULARY, CONTEXT, boxless=True)
    assert [flat.entry(i) for i in range(len(flat))] == annotations.read(path, boxless=True) != ENTRIES


def test_it_gives_all_that_a_batch_is_made_of():
    flat = Flat.from_entries(ENTRIES, VOCABULARY, CONTEXT)
    for i, entry in enumerate(ENTRIES):
        ids, characters = VOCABULARY.encode(entry.caption)
        assert flat.tokens(i).tolist() == ids.tolist() and flat.lengths[i] == len(ids)
        assert flat.text(i) == entry.caption and flat.categories(i).tolist() == list(entry.categories)
        for box, (x, y, w, h) in zip(flat.boxes(i), entry.boxes, strict=True):
            expected = np.array([x + w / 2, y + h / 2, w, h]) / ([entry.width, entry.height] * 2)
            np.testing.assert_allclose(box, expected, rtol=1e-6)
        touched = [[any(b < end and e > begin for b, e in spans) for begin, end in characters] for spans in entry.spans]
        assert flat.positive(i).tolist() == touched and flat.positive(i).shape == (len(entry.boxes), len(ids))
    names = flat.names
    for column, field in ((flat.file_N, "file_name"), (flat.type_N, "type"), (flat.dataset_N, "dataset_name")):
        assert names[column].tolist() == [getattr(entry, field) for entry in ENTRIES]


def test_numbers_that_a_file_gives_as_words_are_kept():
    odd = replace(ENTRIES[1], original_id="n1234", sentence_id=None)
    assert Flat.from_entries([odd], VOCABULARY, CONTEXT).entry(0) == odd


def test_nothing_is_a_flat_too():
    assert len(Flat.from_entries([], VOCABULARY, CONTEXT)) == 0


@pytest.mark.parametrize("slab", [3, 50_000])
def test_many_captions_are_encoded_as_one_by_one(slab, monkeypatch):
    monkeypatch.setattr(tokens, "_SLAB", slab)
    draw = random.Random(0)
    letters = "ab c'sD.1\n\t\x1c\u3000é ü\u2003中文-'\"σΣİ 9"
    captions = ["", " ", *("".join(draw.choices(letters, k=draw.randint(0, 30))) for _ in range(300))]
    ids, characters, lengths = VOCABULARY.encode_all(captions)
    at = 0
    for caption, length in zip(captions, lengths, strict=True):
        expected = VOCABULARY.encode(caption)
        assert ids[at : at + length].tolist() == expected[0].tolist(), caption
        assert list(map(tuple, characters[at : at + length].tolist())) == expected[1], caption
        at += length
    assert at == len(ids) == len(characters)


def test_a_cache_is_used_until_the_file_the_vocabulary_or_the_context_changes(root, monkeypatch):
    path = root / "annotations" / "file.json"
    made = Flat.cached(root, "file", VOCABULARY, CONTEXT, boxless=True)
    with monkeypatch.context() as patch:
        patch.setattr(Flat, "read", lambda *a: pytest.fail("read anew"))
        assert_equal(Flat.cached(root, "file", VOCABULARY, CONTEXT, boxless=True), made)
    assert not Flat.cached(root, "file", VOCABULARY, CONTEXT, boxless=True).box_M4.flags.owndata  # mapped, not copied
    other = Flat.cached(root, "file", Vocabulary([]), CONTEXT, boxless=True)
    assert not np.array_equal(other.token_T, made.token_T)
    with pytest.raises(InputError, match="tokens, the model takes 5"):
        Flat.cached(root, "file", VOCABULARY, 5, boxless=True)
    stat = path.stat()
    path.write_text(path.read_text().replace("mixed", "mated"))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert "mated" in Flat.cached(root, "file", VOCABULARY, CONTEXT, boxless=True).names


@pytest.mark.parametrize(
    "damage",
    [
        "cut",
        "empty",
        "no header",
        "offsets",
        "missing",
        "rows",
        "codes",
        "kind",
        "shape",
        "nothing",
        "scalar",
    ],
)
def test_a_damaged_cache_is_named_and_made_again(root, damage):
    made = Flat.cached(root, "file", VOCABULARY, CONTEXT, boxless=True)
    (cache,) = (root / "cache").iterdir()
    whole = cache.read_bytes()
    if damage == "cut":
        cache.write_bytes(whole[:-1])
    elif damage == "empty":
        cache.write_bytes(b"")
    elif damage == "no header":
        cache.write_bytes(b"x" * len(whole))
    elif damage == "missing":
        cache.write_bytes(whole.replace(b'"rest_at"', b'"best_at"'))
    else:
        change = {
            "offsets": {"box_at": made.box_at[::-1].copy()},
            "rows": {"id_N": made.id_N[1:]},
            "codes": {"type_N": made.type_N + 99},
            "kind": {"token_T": made.token_T.astype(np.int64)},
            "shape": {"box_M4": made.box_M4[:, :3].copy()},
            "nothing": {"name_at": made.name_at[:0], "name": made.name[:0]},
            "scalar": {"id_N": np.array(3)},
        }[damage]
        replace(made, **change).save(cache)
    with pytest.raises(InputError, match=rf"{cache.name}.*delete it"):
        Flat.load(cache)
    assert_equal(Flat.cached(root, "file", VOCABULARY, CONTEXT, boxless=True), made)
    assert cache.read_bytes() == whole and [cache] == list((root / "cache").iterdir())


def test_a_folder_where_no_cache_can_be_kept_is_read_all_the_same(root):
    (root / "cache").write_text("a file of a user")
    flat = Flat.cached(root, "file", VOCABULARY, CONTEXT, boxless=True)
    assert_equal(flat, Flat.from_entries(ENTRIES, VOCABULARY, CONTEXT))
    assert (root / "cache").read_text() == "a file of a user"


def test_files_of_others_beside_a_cache_are_left_alone(root):
    (root / "cache").mkdir()
    for name in ("file.safetensors", "file-0123456789ab.safetensors", ".file"):
        (root / "cache" / name).write_text("a file of a user")
    Flat.cached(root, "file", VOCABULARY, CONTEXT, boxless=True)
    kept = [path.read_bytes() for path in (root / "cache").iterdir()]
    assert len(kept) == 4 and kept.count(b"a file of a user") == 3


def test_a_cache_of_captions_that_were_cut_otherwise_is_made_anew(root, monkeypatch):
    Flat.cached(root, "file", VOCABULARY, CONTEXT, boxless=True)
    monkeypatch.setattr(tokens, "VERSION", tokens.VERSION + 1)
    Flat.cached(root, "file", VOCABULARY, CONTEXT, boxless=True)
    assert len(list((root / "cache").iterdir())) == 2


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["images"][3].pop("caption"),
        lambda d: d["images"][3].update(caption="  "),
        lambda d: d["images"][3].update(height=0),
        lambda d: d["images"][3].update(id=d["images"][2]["id"]),
        lambda d: d["images"].insert(2, "nothing"),
        lambda d: d["annotations"][3].update(bbox=[90, 2, 10, 12]),
        lambda d: d["annotations"][3].update(bbox=[1, 2, 10]),
        lambda d: d["annotations"][3].update(tokens_positive=[[0, 999]]),
        lambda d: d["annotations"][3].update(image_id=-1),
        lambda d: d["annotations"].insert(0, 7),
        lambda d: d["annotations"][3].update(image_id=[1]),
        lambda d: d["annotations"][3].update(category_id="dog"),
        lambda d: d["annotations"][3].update(category_id=2**64),
        lambda d: d["annotations"][3].update(bbox=[1, 2, 10**400, 12]),
        lambda d: d["images"][3].update(id=2**64),
        lambda d: d["images"][3].update(caption="\ud83d"),
        lambda d: d["images"][3].update(dataset_name=7),
        lambda d: d["images"][3].update(original_id=[]),
        lambda d: d["images"][3].update(tokens_positive_eval=[[[0, 999]]]),
        lambda d: d.pop("images"),
        lambda d: d.update(annotations={}),
        lambda d: None,
    ],
)
def test_bad_input_has_the_same_line(root, change):
    path = root / "annotations" / "file.json"
    spoil(path, change)
    with pytest.raises(InputError) as expected:
        annotations.read(path)  # without `boxless`: at the latest a caption without a box is wrong
    with pytest.raises(InputError) as found:
        Flat.cached(root, "file", VOCABULARY, CONTEXT)
    assert str(found.value) == str(expected.value)
    assert not (root / "cache").exists()


def test_a_file_that_is_missing_or_no_json_has_the_same_line(tmp_path):
    path = tmp_path / "annotations" / "file.json"
    for content in (None, '{"images": [', '{"images": [], "annotations": []} x', "[]"):
        if content is not None:
            path.parent.mkdir(exist_ok=True)
            path.write_text(content)
        with pytest.raises(InputError) as expected:
            annotations.read(path)
        with pytest.raises(InputError) as found:
            Flat.cached(tmp_path, "file", VOCABULARY, CONTEXT)
        assert str(found.value) == str(expected.value)


def test_a_caption_that_is_too_long_is_named(root):
    long = max(range(len(ENTRIES)), key=lambda i: len(VOCABULARY.encode(ENTRIES[i].caption)[0]))
    length = len(VOCABULARY.encode(ENTRIES[long].caption)[0])
    first = next(i for i, e in enumerate(ENTRIES) if len(VOCABULARY.encode(e.caption)[0]) == length)
    with pytest.raises(InputError, match=rf"file\.json: images\[{first}\]\.caption: {length} tokens, the model takes"):
        Flat.read(root / "annotations" / "file.json", VOCABULARY, length - 1, boxless=True)
