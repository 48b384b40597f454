"""From files to batches: tokens with their characters, decoded pixels, and every caption once an epoch."""

import os
from collections import Counter
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer
from PIL import Image

from snp.data import annotations, tokens
from snp.data.annotations import Entry
from snp.data.batch import Batch
from snp.data.dataset import GroundingSet
from snp.data.decoded import PixelCache, Resolve, pixels_below
from snp.data.pixels import read_image
from snp.data.tokens import END, PAD, START, UNKNOWN, Vocabulary
from snp.errors import InputError

SIZE, CONTEXT = 16, 24
CLIP = SimpleTokenizer()
RED, BLUE = "a red star", "the small blue heart left of a red star"
SENTENCES = [
    RED,
    BLUE,
    "Snowman's hat, 2nd from the LEFT!",
    "unbelievably zigzagging squircle-ish thing",
    "café at 10%",
]


def entry(number: int, picture: str, caption: str, boxes, spans, **fields) -> Entry:
    fields = {"height": 32, "width": 48, "dataset_name": "toy"} | fields
    return Entry(id=number, file_name=picture, caption=caption, boxes=boxes, spans=spans, **fields)


def below(root) -> Resolve:
    """The pictures of a data set."""
    return pixels_below(root / "images", SIZE, root / "cache")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Twelve captions on five pictures in two folders; caption 1 names two objects, one of them twice."""
    root = tmp_path_factory.mktemp("toy")
    source = np.random.default_rng(0)
    for name in ("val/a.png", "val/b.png", "val/c.png", "test/a.png", "test/b.png"):
        path = root / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(source.integers(0, 256, (32, 48, 3), np.uint8)).save(path)
    entries = [
        entry(0, "val/a.png", RED, ((12, 8, 24, 16),), (((2, 10),),), type="attribute", categories=(3,)),
        entry(
            1,
            "test/b.png",
            BLUE,
            ((0, 0, 12, 8), (24, 16, 24, 16)),
            (((0, 20), (4, 9)), ((29, 39),)),
            type="relation",
            categories=(7, 3),
        ),
    ]
    pictures = ["val/b.png", "test/a.png", "val/c.png", "val/a.png"]
    for number in range(2, 12):
        caption = "star " * (number % 5) + f"heart {number}"
        entries.append(entry(number, pictures[number % 4], caption, ((1, 1, 2, 2),), (((0, 4),),), categories=(1,)))
    annotations.write(root / "annotations" / "toy.json", entries, [str(i) for i in range(8)])
    return root


@pytest.fixture(scope="module")
def vocabulary(root):
    return Vocabulary.from_captions(entry.caption for entry in annotations.read(root / "annotations" / "toy.json"))


@pytest.fixture(scope="module")
def data(root, vocabulary):
    return GroundingSet.read(root, "toy", below(root), vocabulary, CONTEXT)


# -- words ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("caption", SENTENCES)
def test_ids_are_those_of_open_clips_tokenizer(caption):
    assert tokens.encode(caption)[0] == CLIP.encode(caption)


def test_every_token_carries_the_characters_of_its_word():
    ids, spans = tokens.encode(RED)
    assert [RED[begin:end] for begin, end in spans] == ["a", "red", "star"] and len(ids) == 3


def test_all_pieces_of_a_word_carry_the_whole_word():
    caption = "one squircleish thing"
    ids, spans = tokens.encode(caption)
    words = [caption[begin:end] for begin, end in spans]
    assert words[0] == "one" and words[-1] == "thing"
    assert len(ids) == len(spans) > 3 and {*words[1:-1]} == {"squircleish"}


@pytest.mark.parametrize("caption", SENTENCES)
def test_pieces_joined_again_are_the_words_that_their_spans_show(caption):
    ids, spans = tokens.encode(caption)
    for span in dict.fromkeys(spans):
        pieces = [i for i, s in zip(ids, spans, strict=True) if s == span]
        assert CLIP.decode(pieces).strip() == caption.lower()[slice(*span)]


def test_a_vocabulary_numbers_the_ids_that_occur_and_no_others():
    vocabulary = Vocabulary.from_captions([RED, "a blue star"])
    occurring = sorted({i for text in (RED, "a blue star") for i in tokens.encode(text)[0]})
    assert vocabulary.clip_ids == occurring and len(vocabulary) == 4 + len(occurring)
    ids, spans = vocabulary.encode(RED)
    assert [int(i) for i in ids] == [START, *(4 + occurring.index(i) for i in tokens.encode(RED)[0]), END]
    assert spans == [(0, 0), (0, 1), (2, 5), (6, 10), (0, 0)]


def test_a_word_that_never_occurred_is_unknown_and_the_others_are_not():
    ids, _ = Vocabulary.from_captions([RED]).encode("a green star")
    assert [i == UNKNOWN for i in ids] == [False, False, True, False, False]
    assert len({PAD, START, END, UNKNOWN}) == 4


def test_a_vocabulary_that_is_extended_keeps_its_numbers_and_puts_new_ones_behind():
    old = Vocabulary.from_captions(["a red star", "a blue star"])
    new = old.extended(["how often is there a red circle", "a blue circle"])
    assert new.clip_ids[: len(old.clip_ids)] == old.clip_ids
    added = {i for i in tokens.encode("how often is there circle")[0]}
    assert new.clip_ids[len(old.clip_ids) :] == sorted(added)
    assert [int(i) for i in new.encode("a red star")[0]] == [int(i) for i in old.encode("a red star")[0]]
    assert UNKNOWN not in new.encode("how often is there a blue circle")[0]


def test_an_extended_vocabulary_is_the_same_when_read_from_its_ids():
    new = Vocabulary.from_captions(["a red star"]).extended(["a big circle"])
    assert new.clip_ids != sorted(new.clip_ids)
    assert Vocabulary(new.clip_ids) == new != Vocabulary.from_captions(["a red star", "a big circle"])
    assert new.extended(["a big red star"]) == new


# -- pixels -----------------------------------------------------------------------------------------------------


def test_cached_pixels_are_what_pillow_decodes(root, tmp_path):
    cache = PixelCache(root / "images" / "val", SIZE, tmp_path)
    assert cache.pixels_NCHW.shape == (3, 3, SIZE, SIZE) and cache.pixels_NCHW.dtype == np.uint8
    for name, row in cache.rows.items():
        image = Image.open(root / "images" / "val" / name).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        assert np.array_equal(cache.pixels_NCHW[row], np.asarray(image).transpose(2, 0, 1))


def test_an_image_of_the_right_size_is_not_resampled(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "exact.png")
    assert np.array_equal(read_image(tmp_path / "exact.png", SIZE), pixels.transpose(2, 0, 1))


def test_grey_and_transparent_images_become_rgb(tmp_path):
    Image.new("L", (SIZE, SIZE), 77).save(tmp_path / "grey.png")
    Image.new("RGBA", (SIZE, SIZE), (10, 20, 30, 40)).save(tmp_path / "clear.png")
    assert (read_image(tmp_path / "grey.png", SIZE) == 77).all()
    assert read_image(tmp_path / "clear.png", SIZE)[:, 0, 0].tolist() == [10, 20, 30]


def test_images_are_decoded_once_and_again_when_one_changes(tmp_path, monkeypatch):
    folder, store = tmp_path / "images", tmp_path / "cache"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        Image.new("RGB", (SIZE, SIZE), (9, 9, 9)).save(folder / name)
    PixelCache(folder, SIZE, store)
    with monkeypatch.context() as patch:
        patch.setattr("snp.data.decoded.read_image", lambda *_: pytest.fail("decoded a second time"))
        PixelCache(folder, SIZE, store)
    before = (folder / "b.png").stat()
    Image.new("RGB", (SIZE, SIZE), (8, 9, 9)).save(folder / "b.png")
    os.utime(folder / "b.png", ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    changed = PixelCache(folder, SIZE, store)
    assert changed.pixels_NCHW[changed.rows["b.png"], :, 0, 0].tolist() == [8, 9, 9]
    assert changed.pixels_NCHW[changed.rows["a.png"], :, 0, 0].tolist() == [9, 9, 9]


@pytest.mark.parametrize("content", [b"", b"not numpy", None])
def test_decoded_images_that_are_damaged_are_decoded_again(tmp_path, content):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (SIZE, SIZE), (9, 9, 9)).save(tmp_path / "images" / "a.png")
    whole = np.array(PixelCache(tmp_path / "images", SIZE, tmp_path / "cache").pixels_NCHW)
    (path,) = (tmp_path / "cache").iterdir()
    path.write_bytes(path.read_bytes()[:-9] if content is None else content)
    assert np.array_equal(PixelCache(tmp_path / "images", SIZE, tmp_path / "cache").pixels_NCHW, whole)
    assert list((tmp_path / "cache").iterdir()) == [path]


# -- batches ----------------------------------------------------------------------------------------------------


def test_boxes_are_centre_and_size_as_shares_of_the_picture(data):
    batch = data.batch(np.array([0, 1]))
    assert batch.boxes_BM4[0].tolist() == [[0.5, 0.5, 0.5, 0.5], [0, 0, 0, 0]]
    assert batch.boxes_BM4[1].tolist() == [[0.125, 0.125, 0.25, 0.25], [0.75, 0.75, 0.5, 0.5]]
    assert batch.valid_BM.tolist() == [[True, False], [True, True]]
    assert batch.category_BM.tolist() == [[3, 0], [7, 3]]


def test_the_tokens_of_a_phrase_are_positive_for_its_box_alone(data):
    batch = data.batch(np.array([0, 1]))
    # <start> a red star <end>
    assert batch.positive_BML[0, 0].nonzero().flatten().tolist() == [2, 3]
    # <start> the small blue heart left of a red star <end>
    assert batch.positive_BML[1, 0].nonzero().flatten().tolist() == [1, 2, 3, 4]
    assert batch.positive_BML[1, 1].nonzero().flatten().tolist() == [7, 8, 9]
    assert not batch.positive_BML[0, 1].any(), "no box, no phrase"


def test_shorter_captions_are_padded_to_the_longest(data, vocabulary):
    batch = data.batch(np.array([0, 1]))
    assert batch.tokens_BL.shape == (2, 11) and len(batch) == 2
    assert batch.tokens_BL[0, :5].tolist() == vocabulary.encode(RED)[0].tolist()
    assert (batch.tokens_BL[0, 5:] == PAD).all() and (batch.tokens_BL[1] != PAD).all()
    assert torch.equal(batch.text_BL, batch.tokens_BL != PAD)
    assert not (batch.positive_BML & ~batch.text_BL[:, None]).any()


def test_each_caption_gets_its_own_picture(data, root):
    for number, name in ((0, "val/a.png"), (1, "test/b.png"), (2, "val/c.png"), (5, "test/a.png")):
        batch = data.batch(np.array([4, number]))
        assert np.array_equal(batch.images_ICHW[batch.image_index_B[1]], read_image(root / "images" / name, SIZE))


def test_shared_images_are_held_once_and_show_the_same(data):
    index = np.array([3, 0, 1, 7])  # 3, 0 and 7 are captions of val/a.png
    single, shared = data.batch(index), data.batch(index, share_images=True)
    assert len(single.images_ICHW) == 4 and len(shared.images_ICHW) == 2
    assert torch.equal(shared.images_ICHW[shared.image_index_B], single.images_ICHW[single.image_index_B])


@pytest.mark.parametrize("shared", [False, True])
def test_a_share_is_that_part_of_the_batch(data, shared):
    index = np.array([3, 0, 1, 7, 5])
    whole = data.batch(index, shared)
    for place, part in enumerate(whole.parts(2)):
        share = data.batch(index, shared, (place, 2))
        same(replace(share, whole=None), replace(part, whole=None))
        assert len(share.whole) == 5 and torch.equal(share.whole.boxes_BM4, whole.boxes_BM4)
        assert {t.device.type for t in share.to("meta").whole.inputs} == {"meta"}
    assert len(data.batch(index, shared, (1, 2))) == 2


class Watched:
    """Pixels of ten pictures that know which were asked for."""

    def __init__(self):
        self.asked = []

    def __getitem__(self, row: int) -> np.ndarray:
        self.asked.append(row)
        return np.full((3, SIZE, SIZE), row, np.uint8)


def test_no_pixels_are_made_of_the_shares_of_others():
    pixels = Watched()
    entries = [entry(i, str(i), RED, (), ()) for i in range(10)]
    data = GroundingSet(entries, lambda name: (pixels, int(name)), Vocabulary.from_captions([RED]), CONTEXT)
    batches = data.stream(4, seed=0, share=(1, 2))
    first = next(batches)
    assert len(first) == len(pixels.asked) == 2 and first.images_ICHW[:, 0, 0, 0].tolist() == pixels.asked


def test_a_batch_of_fewer_captions_than_shares_is_refused(data):
    with pytest.raises(InputError, match="batch: 2 captions are too few for 3 parts"):
        data.batch(np.array([0, 1]), share=(0, 3))


def test_a_model_is_given_pixels_and_words_alone(data):
    batch = data.batch(np.array([0, 1]))
    given = [batch.images_ICHW, batch.image_index_B, batch.tokens_BL, batch.text_BL]
    assert len(batch.inputs) == 4 and all(a is b for a, b in zip(batch.inputs, given, strict=True))


def test_a_subset_gives_the_same_batches_as_the_whole(data):
    index = np.array([9, 1, 4])
    part = data.subset(index)
    assert len(part) == 3 and part.captions == [data.captions[i] for i in index]
    assert part.types.tolist() == ["", "relation", ""] and len(data) == 12
    same(part.batch(np.array([0, 1, 2])), data.batch(index))
    assert sorted(np.concatenate(list(part.by_image(1)))) == [0, 1, 2]


def test_joined_data_sets_give_the_entries_of_both_in_order(data, root):
    one, other = data.subset(np.array([1, 0])), data.subset(np.array([5, 2, 7]))
    whole = one.joined(other)
    assert len(whole) == 5 and whole.captions == one.captions + other.captions
    assert whole.types.tolist() == ["relation", "attribute", "", "", ""] and whole.categories == 8
    same(whole.batch(np.arange(5)), data.batch(np.array([1, 0, 5, 2, 7])))
    assert sorted(np.concatenate(list(whole.by_image(1)))) == list(range(5))
    same(whole.subset(np.array([3])).batch(np.array([0])), data.batch(np.array([2])))


# -- sets of any entries ----------------------------------------------------------------------------------------

PIXELS = np.random.default_rng(2).integers(0, 256, (2, 3, SIZE, SIZE), np.uint8)
PICTURES = {"a.png": (PIXELS, 0), "b.png": (PIXELS, 1)}
ANSWERS = {"attr": {"red": 0, "blue": 1}, "obj": {"no": 0, "yes": 1}}
QUESTIONS = [
    entry(0, "b.png", "what colour is the star?", (), (), question_type="attr", answer="blue"),
    entry(1, "a.png", "is it a heart?", ((0, 0, 12, 8),), (((8, 13),),), question_type="obj", answer="no"),
    entry(2, "a.png", "is there a star?", (), (), question_type="obj", answer="yes", height=0, width=0),
]


def questions(entries=QUESTIONS, **options) -> GroundingSet:
    words = Vocabulary.from_captions(question.caption for question in QUESTIONS)
    return GroundingSet(entries, PICTURES.__getitem__, words, CONTEXT, **options)


def test_a_set_of_entries_gives_the_batches_of_a_file_with_them(data, root, vocabulary):
    entries = annotations.read(root / "annotations" / "toy.json")
    names = sorted({entry.file_name for entry in entries})
    pixels = np.stack([read_image(root / "images" / name, SIZE) for name in names])
    images = {name: (pixels, row) for row, name in enumerate(names)}
    same(GroundingSet(entries, images.__getitem__, vocabulary, CONTEXT).batch(np.arange(12)), data.batch(np.arange(12)))


def test_pictures_held_in_memory_are_shared_by_joined_sets():
    whole = questions(QUESTIONS[:1]).joined(questions(QUESTIONS[1:]), questions())
    assert len(whole.batch(np.arange(6), share_images=True).images_ICHW) == 2
    same(whole.batch(np.arange(3)), questions().batch(np.arange(3)))


def test_captions_without_a_box_have_an_empty_place():
    mixed, none = questions().batch(np.arange(3)), questions().batch(np.array([0, 2]))
    assert mixed.valid_BM.tolist() == [[False], [True], [False]] and mixed.category_BM.tolist() == [[0]] * 3
    assert mixed.boxes_BM4.isfinite().all() and not mixed.positive_BML[[0, 2]].any()
    assert none.valid_BM.shape == (2, 1) and not none.valid_BM.any() and not none.positive_BML.any()
    assert questions().categories == 1 and questions(QUESTIONS[:1]).categories == 0


def test_a_file_may_hold_captions_without_a_box_if_that_is_said(tmp_path):
    annotations.write(tmp_path / "annotations" / "q.json", QUESTIONS[:1], ["thing"])
    (tmp_path / "images").mkdir()
    Image.fromarray(PIXELS[1].transpose(1, 2, 0)).save(tmp_path / "images" / "b.png")
    words = Vocabulary.from_captions([QUESTIONS[0].caption])
    read = GroundingSet.read(tmp_path, "q", below(tmp_path), words, CONTEXT, boxless=True)
    same(read.batch(np.array([0])), GroundingSet(QUESTIONS[:1], PICTURES.__getitem__, words, CONTEXT).batch([0]))
    with pytest.raises(InputError, match="has no boxes"):
        GroundingSet.read(tmp_path, "q", below(tmp_path), words, CONTEXT)


def test_types_are_numbered_in_order_and_answers_within_their_type():
    assert questions().batch(np.arange(3)).answer_B is None
    batch = questions(answers=ANSWERS).batch(np.array([2, 0, 1]))
    assert (batch.type_B.tolist(), batch.answer_B.tolist()) == ([1, 0, 1], [1, 1, 0])
    part = questions(answers=ANSWERS).subset(np.array([0, 1]))
    same(part.joined(part).batch(np.array([3, 0])), questions(answers=ANSWERS).batch(np.array([1, 0])))


def test_an_answer_outside_the_vocabulary_is_an_error_or_a_wrong_answer():
    strange = [
        entry(0, "a.png", "is it?", (), (), question_type="obj", answer="red"),
        entry(1, "a.png", "is it?", (), (), question_type="sound", answer="loud"),
        QUESTIONS[0],
    ]
    batch = questions(strange, answers=ANSWERS, strict=False).batch(np.arange(3))
    assert (batch.type_B.tolist(), batch.answer_B.tolist()) == ([1, -1, 0], [-1, -1, 1])
    message = r"entries\[0\]\.answer: 'red' of 'is it\?' is no known answer of type 'obj'"
    with pytest.raises(InputError, match=message):
        questions(strange, answers=ANSWERS)


def test_sets_of_other_answers_are_not_joined_and_answers_are_numbered_without_gaps():
    with pytest.raises(InputError, match="different vocabularies of answers"):
        questions(answers=ANSWERS).joined(questions())
    with pytest.raises(InputError, match="answers of type 'attr': their ids are not 0, 1, 2"):
        questions(answers=ANSWERS | {"attr": {"red": 1, "blue": 2}})


def test_evaluated_phrases_are_told_by_their_tokens():
    flickr = entry(0, "a.png", BLUE, (), (), evaluated=(((0, 20), (29, 30)), ((31, 39),), ()))
    found = GroundingSet([flickr], PICTURES.__getitem__, Vocabulary.from_captions([BLUE]), CONTEXT).asked(0)
    # <start> the small blue heart left of a red star <end>
    assert [row.nonzero()[0].tolist() for row in found] == [[1, 2, 3, 4, 7], [8, 9], []] and found.shape == (3, 11)


def test_a_picture_that_is_nowhere_is_named():
    with pytest.raises(InputError, match=r"entries\[0\]\.file_name: image c\.png not found"):
        questions([entry(0, "c.png", RED, (), ())])


# -- orders -----------------------------------------------------------------------------------------------------


def same(a: Batch, b: Batch) -> None:
    for name, value in vars(a).items():
        other = getattr(b, name)
        assert value is other is None or torch.equal(value, other), name


@pytest.mark.parametrize("window", [1, 2, 64])
def test_an_epoch_shows_every_caption_once(data, window):
    order = data.epoch(3, seed=0, window=window)
    assert order.shape == (4, 3) and sorted(order.flatten()) == list(range(12))


def test_an_epoch_leaves_out_less_than_one_batch(data):
    order = data.epoch(5, seed=0)
    assert order.shape == (2, 5) and max(Counter(order.flatten().tolist()).values()) == 1


def test_the_order_is_drawn_from_the_seed(data):
    assert np.array_equal(data.epoch(3, seed=4), data.epoch(3, seed=4))
    assert not np.array_equal(data.epoch(3, seed=4), data.epoch(3, seed=5))


def test_captions_of_like_length_stand_together_within_a_window(data):
    steps = data.epoch(3, seed=0, window=4)
    spread = [int(np.ptp(data.lengths[step])) for step in steps]
    ordered = sorted(data.lengths.tolist())
    assert sorted(spread) == sorted(ordered[i + 2] - ordered[i] for i in range(0, 12, 3))


def test_a_batch_larger_than_the_data_set_is_refused(data):
    with pytest.raises(InputError, match="13 is more than the 12 entries"):
        next(data.stream(13, seed=0))


@pytest.mark.parametrize("batch", [3, 5])
def test_a_stream_begun_later_equals_one_with_its_first_batches_skipped(data, batch):
    whole = list(islice(data.stream(batch, seed=2), 11))  # over more than two epochs
    for start in range(10):
        for later, skipped in zip(data.stream(batch, seed=2, start=start), whole[start:], strict=False):
            same(later, skipped)


@pytest.fixture
def paired(data):
    """Twelve captions of five images, and once more two of them: images with several captions each."""
    return data.joined(data.subset(np.array([0, 5])))


def test_captions_of_one_image_stand_together_and_none_is_shown_twice(paired):
    order = paired.epoch(4, seed=0, per_image=2)
    assert max(Counter(order.flatten().tolist()).values()) == 1
    images = paired.batch(order.flatten(), share_images=True).image_index_B.reshape(-1, 2)
    assert torch.equal(images[:, 0], images[:, 1])


def test_only_captions_that_are_left_over_of_an_image_sit_an_epoch_out(paired):
    counts = Counter(paired.batch(np.arange(14), share_images=True).image_index_B.tolist()).values()
    assert paired.epoch(2, seed=0, per_image=2).size == sum(n // 2 * 2 for n in counts)


def test_a_batch_with_several_captions_of_an_image_holds_it_once(paired):
    for batch in islice(paired.stream(4, seed=0, per_image=2), 5):
        assert len(batch) == 4 and len(batch.images_ICHW) <= 2


def test_a_stream_of_shared_images_can_be_begun_later_too(paired):
    whole = list(islice(paired.stream(4, seed=2, per_image=2), 9))
    for start in range(8):
        for later, skipped in zip(paired.stream(4, 2, start, per_image=2), whole[start:], strict=False):
            same(later, skipped)


def test_a_batch_must_be_a_multiple_of_the_captions_per_image(paired):
    with pytest.raises(InputError, match="3 is no multiple of 2 captions per image"):
        paired.epoch(3, seed=0, per_image=2)


def test_every_epoch_of_a_stream_has_an_order_of_its_own(data):
    found = [batch.tokens_BL.tolist() for batch in islice(data.stream(3, seed=2), 8)]
    assert found[:4] != found[4:]


@pytest.mark.parametrize("captions", [1, 4, 100])
def test_by_image_gives_every_caption_once_and_never_tears_an_image_apart(data, root, captions):
    names = [entry.file_name for entry in annotations.read(root / "annotations" / "toy.json")]
    groups = list(data.by_image(captions))
    assert sorted(np.concatenate(groups)) == list(range(12))
    images = [{names[i] for i in group} for group in groups]
    assert sum(map(len, images)) == len(set().union(*images)) == 5
    assert all(len(group) >= captions for group in groups[:-1])
    assert len(groups) == {1: 5, 4: 3, 100: 1}[captions]


# -- what cannot be used ----------------------------------------------------------------------------------------


def test_a_caption_longer_than_the_model_takes_is_named(root, vocabulary):
    with pytest.raises(InputError, match=r"toy\.json: images\[1\]\.caption: 11 tokens, the model takes 10"):
        GroundingSet.read(root, "toy", below(root), vocabulary, 10)


def test_a_folder_without_images_is_named(tmp_path):
    with pytest.raises(InputError, match="image folder not found"):
        PixelCache(tmp_path / "none", SIZE, tmp_path)
    with pytest.raises(InputError, match="holds no images"):
        PixelCache(tmp_path, SIZE, tmp_path)
