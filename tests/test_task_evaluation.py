"""Models judged on whole data sets, phrase grounding and detection, each against one caption at a time; objectives."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from torch import Tensor, nn

from snp.data.annotations import Box, Entry
from snp.data.batch import Batch
from snp.data.dataset import GroundingSet
from snp.data.tokens import END, START, Vocabulary
from snp.errors import InputError
from snp.models.config import GLIP_SMOKE, SMOKE
from snp.models.glip import GLIP
from snp.models.mdetr import MDETR, Grounding
from snp.tasks import average_precision, detect, grounding, objective, phrases, vqa
from snp.tasks.passes import passes

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 3, 64, 64), np.uint8)
WIDTH, HEIGHT = 200, 100  # not square, so that a confusion of the two shows
SENTENCE = "a red star left of the big ring near two moons"
PHRASES = {"a red star": "shape", "the big ring": "ring", "two moons": "shape"}
NAMES = ["red star", "ring", "moon", "square"]
WORDS = Vocabulary.from_captions([SENTENCE, ". ".join(NAMES)])


def dataset(entries: list[Entry], **options) -> GroundingSet:
    images = {f"{i}.png": (PIXELS, i) for i in range(4)}
    return GroundingSet(entries, images.__getitem__, WORDS, SMOKE.context, **options)


def entry(number: int, caption: str, **fields) -> Entry:
    fields = {"boxes": (), "spans": ()} | fields
    return Entry(number, f"{number % 4}.png", HEIGHT, WIDTH, caption, "toy", **fields)


def mdetr(**options) -> MDETR:
    """Random weights, large enough that queries differ."""
    torch.manual_seed(0)
    model = MDETR(SMOKE.model_copy(update={"vocabulary": len(WORDS)} | options)).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


def glip() -> GLIP:
    """Random weights under which about half of all places and words pass the threshold."""
    torch.manual_seed(0)
    model = GLIP(GLIP_SMOKE.model_copy(update={"vocabulary": len(WORDS)})).eval()
    with torch.no_grad():
        model.word_bias.bias.fill_(-3.0)
        nn.init.normal_(model.region.weight, std=0.3)
        nn.init.normal_(model.box.weight, std=0.3)
        nn.init.normal_(model.centre.weight, std=0.3)
    return model


def test_a_look_that_fails_leaves_the_model_as_it_was() -> None:
    model = mdetr().train()

    def look(index: np.ndarray, batch: Batch, out: Grounding) -> None:
        assert len(index) == len(batch) == out.logits_KBQS.shape[1] == 2 and not model.training
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        passes(model, dataset([entry(i, SENTENCE) for i in range(8)]), 2, look)
    assert model.training and not torch.is_inference_mode_enabled()


# -- phrases ----------------------------------------------------------------------------------------------------


def iou(a: list[float], b: list[float]) -> float:
    """Of two boxes given as corners."""
    overlap = max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    return overlap / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - overlap)


def span(phrase: str) -> tuple[tuple[int, int]]:
    begin = SENTENCE.index(phrase)
    return ((begin, begin + len(phrase)),)


def ranked(model: MDETR, sentence: Entry, phrase: str) -> list[list[float]]:
    """Corners in pixels of all boxes, the best for the phrase first; the sentence is asked alone."""
    with torch.inference_mode():
        out = model(*dataset([sentence]).batch(np.array([0])).inputs)
    own = [i for i, (b, e) in enumerate(WORDS.encode(SENTENCE)[1]) if SENTENCE[b:e] in phrase.split()]
    chance = out.logits_KBQS[-1, 0].softmax(-1)
    order = sorted(range(SMOKE.queries), key=lambda q: -max(float(chance[q, i]) for i in own))
    boxes = []
    for x, y, w, h in out.boxes_KBQ4[-1, 0, order].tolist():
        boxes.append([(x - w / 2) * WIDTH, (y - h / 2) * HEIGHT, (x + w / 2) * WIDTH, (y + h / 2) * HEIGHT])
    return boxes


def sentences(model: MDETR) -> list[Entry]:
    """Sentences whose phrases have one or two boxes that the model ranks anywhere, moved a little."""
    source, entries = np.random.default_rng(1), []
    for number in range(8):
        sentence = entry(number, SENTENCE, original_id=number // 2, sentence_id=number % 2)
        named = list(PHRASES)[: 1 + number % 3]
        boxes: list[Box] = []
        spans = []
        for phrase in named:
            order = ranked(model, sentence, phrase)
            for rank in source.integers(0, len(order), source.integers(1, 3)):
                x0, y0, x1, y1 = np.array(order[rank]) + source.normal(0, 3, 4)
                boxes.append((x0, y0, x1 - x0, y1 - y0))
                spans.append(span(phrase))
        entries.append(
            replace(
                sentence,
                boxes=tuple(boxes),
                spans=tuple(spans),
                evaluated=tuple(map(span, named)),
                phrase_types=tuple((PHRASES[phrase],) for phrase in named),
            )
        )
    return entries


def slow_recall(model: MDETR, entries: list[Entry], merged: bool) -> dict[str, list[float]]:
    """Type ("" for all) -> recall at 1, 5, 10 and of all boxes."""
    rows: dict[str, list[list[bool]]] = {}
    for sentence in entries:
        for phrase in list(PHRASES)[: len(sentence.evaluated)]:
            own = [b for b, s in zip(sentence.boxes, sentence.spans, strict=True) if s == span(phrase)]
            true = [[x, y, x + w, y + h] for x, y, w, h in own]
            if merged:
                true = [
                    [min(b[0] for b in true), min(b[1] for b in true), max(b[2] for b in true), max(b[3] for b in true)]
                ]
            hits = [any(iou(box, b) >= 0.5 for b in true) for box in ranked(model, sentence, phrase)]
            for kind in ("", PHRASES[phrase]):
                rows.setdefault(kind, []).append([any(hits[:k]) for k in (1, 5, 10, len(hits))])
    return {kind: np.mean(part, 0).tolist() for kind, part in rows.items()}


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 3, 64])
def test_recall_of_a_model_equals_one_sentence_at_a_time(count: int) -> None:
    model = mdetr()
    entries = sentences(model)
    found = phrases.evaluate(model, dataset(entries), count)
    for protocol, merged in (("any_box", False), ("merged_box", True)):
        expected = slow_recall(model, entries, merged)
        parts = {"": found[protocol]} | found[protocol]["by_type"]
        assert parts.keys() == expected.keys() == {"", "shape", "ring"}
        for kind, part in parts.items():
            rates = [part[name] for name in ("recall@1", "recall@5", "recall@10", "upper_bound")]
            assert rates == pytest.approx(expected[kind])
    assert 0 < found["any_box"]["recall@1"] < found["any_box"]["recall@5"] <= 1
    assert found["merged_box"] != found["any_box"]


def test_a_set_that_asks_for_no_phrase_is_refused() -> None:
    with pytest.raises(InputError, match="none has a phrase that is evaluated"):
        phrases.evaluate(mdetr(), dataset([entry(0, SENTENCE)]))


# -- detection --------------------------------------------------------------------------------------------------

CATEGORIES = [3, 7, 4, 9]


def asked() -> tuple[list, list[Entry]]:
    """The names in two prompts of unequal length, and an entry for each of four pictures and both prompts."""
    prompts = list(detect.prompts(NAMES, WORDS, 7))
    assert [len(WORDS.encode(text)[0]) for text, _ in prompts] == [6, 5]
    pairs = [(picture, text) for text, _ in prompts for picture in range(4)]
    entries = [entry(4 * i + picture, text, original_id=10 + picture) for i, (picture, text) in enumerate(pairs)]
    return prompts, [replace(e, file_name=f"{e.original_id - 10}.png") for e in entries]


def slow_detections(model: GLIP, picture: int) -> list[tuple[float, list[float], int]]:
    """(score, corners as shares, category) of one picture: each name of each prompt by itself, all in plain loops."""
    found = []
    for text, spans in asked()[0]:
        out = model(*dataset([entry(picture, text)]).batch(np.array([0])).inputs)
        logits, centre = out.logits_BNL[0].sigmoid().tolist(), out.centre_BN[0].sigmoid().tolist()
        corners = detect.decode(out.deltas_BN4[0], out.corners_BN4[0]).tolist()
        for begin, end in spans:
            own = [i for i, (b, e) in enumerate(WORDS.encode(text)[1]) if b < end and e > begin]
            kept: list[tuple[float, list[float], int]] = []
            likely = [sum(logits[n][i] for i in own) / len(own) for n in range(len(logits))]
            scored = [((p * centre[n]) ** 0.5, corners[n]) for n, p in enumerate(likely) if p > 0.05]
            for score, box in sorted(scored, key=lambda one: -one[0]):
                box = [min(max(v, 0.0), 1.0) for v in box]
                if all(iou(box, other) <= 0.6 for _, other, _ in kept):
                    kept.append((score, box, CATEGORIES[NAMES.index(text[begin:end])]))
            found += kept
    return sorted(found, key=lambda one: -one[0])[:100]


def instances(model: GLIP) -> COCO:
    """Objects where the model sees one, at every tenth of its detections, so that it is right now and then."""
    truth = COCO()
    truth.dataset = {
        "images": [{"id": 10 + i, "width": WIDTH, "height": HEIGHT} for i in range(4)],
        "annotations": [],
        "categories": [{"id": c, "name": name} for c, name in zip(CATEGORIES, NAMES, strict=True)],
    }
    for picture in range(4):
        for _, (x0, y0, x1, y1), category in slow_detections(model, picture)[picture::10]:
            box = [x0 * WIDTH, y0 * HEIGHT, (x1 - x0) * WIDTH, (y1 - y0) * HEIGHT]
            truth.dataset["annotations"].append(
                {
                    "id": len(truth.dataset["annotations"]) + 1,
                    "image_id": 10 + picture,
                    "category_id": category,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                }
            )
    truth.createIndex()
    return truth


@pytest.mark.slow
@pytest.mark.parametrize("pictures", [1, 64])
def test_detections_of_a_model_equal_one_prompt_at_a_time(pictures: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = glip()
    truth = instances(model)
    prompts, entries = asked()
    handed: dict = {}
    judge = average_precision.score
    monkeypatch.setattr(average_precision, "score", lambda truth, found: handed.update(found) or judge(truth, found))
    figures = detect.evaluate(model, dataset(entries), truth, prompts, CATEGORIES, pictures)
    assert handed.keys() == {10, 11, 12, 13}
    by_hand = {}
    for image, (boxes, scores, categories) in handed.items():
        slow = slow_detections(model, image - 10)
        assert scores.tolist() == pytest.approx([score for score, _, _ in slow], abs=1e-5) and len(slow) == 100
        corners = np.array([box for _, box, _ in slow]) * [WIDTH, HEIGHT, WIDTH, HEIGHT]
        expected = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1)
        order, slow_order = (
            np.lexsort((np.round(b, 2)[:, 0], c))
            for b, c in ((boxes, categories), (expected, np.array([c for _, _, c in slow])))
        )
        assert categories[order].tolist() == np.array([c for _, _, c in slow])[slow_order].tolist()
        assert boxes[order] == pytest.approx(expected[slow_order], abs=1e-2)
        by_hand[image] = expected, np.array([s for s, _, _ in slow]), np.array([c for _, _, c in slow])
    assert {*np.concatenate([c for _, _, c in handed.values()]).tolist()} == {*CATEGORIES}
    assert figures == pytest.approx(judge(truth, by_hand), abs=1e-6)
    assert 0.1 < figures["AP50"] < 1


@pytest.mark.slow
def test_a_model_that_sees_nothing_scores_zero() -> None:
    model = glip()
    with torch.no_grad():
        model.word_bias.bias.fill_(-60.0)
    prompts, entries = asked()
    assert detect.evaluate(model, dataset(entries), instances(glip()), prompts, CATEGORIES)["AP"] == 0


def test_names_categories_and_captions_must_belong_together() -> None:
    prompts, entries = asked()
    with pytest.raises(InputError, match="categories: 3 for the 4 names of prompts"):
        detect.evaluate(glip(), dataset(entries), COCO(), prompts, CATEGORIES[:3])
    with pytest.raises(InputError, match=r"entries: 'moon\. square' is none of the prompts"):
        detect.evaluate(glip(), dataset(entries), COCO(), prompts[:1], CATEGORIES[:2])


@pytest.mark.parametrize("phrase", ["big ring", None])
def test_a_phrase_is_pointed_at_where_the_mean_over_its_words_and_centerness_are_largest(phrase: str | None) -> None:
    model = glip()
    captions = ["red star", SENTENCE] if phrase is None else [SENTENCE, "big ring"]
    batch = dataset([entry(i, caption) for i, caption in enumerate(captions)]).batch(np.arange(2))
    own = []
    for caption in captions:
        ids, spans = WORDS.encode(caption)
        inner = [i for i, id in enumerate(ids) if id not in (START, END)]
        own.append([i for i in inner if phrase is None or caption[slice(*spans[i])] in phrase.split()])
    mask = torch.zeros_like(batch.text_BL)
    for row, places in zip(mask, own, strict=True):
        row[places] = True
    boxes, scores = detect.ground(model, batch, None if phrase is None else mask)
    with torch.inference_mode():
        out = model(*batch.inputs)
    for b, places in enumerate(own):
        likely = [float(torch.stack([logits[i].sigmoid() for i in places]).mean()) for logits in out.logits_BNL[b]]
        score = [(p * float(c.sigmoid())) ** 0.5 for p, c in zip(likely, out.centre_BN[b], strict=True)]
        best = max(range(len(score)), key=score.__getitem__)
        expected = detect.decode(out.deltas_BN4[b, best], out.corners_BN4[b, best]).clamp(0, 1)
        assert boxes[b].tolist() == pytest.approx(expected.tolist(), abs=1e-6)
        assert float(scores[b]) == pytest.approx(score[best], abs=1e-6)


# -- objectives -------------------------------------------------------------------------------------------------

ANSWERS = {"attr": {"red": 0, "blue": 1}}


def batch_of(boxes: bool, answers: bool) -> Batch:
    found = {"boxes": ((20.0, 10.0, 60.0, 40.0),), "spans": (span("a red star"),)} if boxes else {}
    entries = [entry(i, SENTENCE, question_type="attr", answer="blue", **found) for i in range(3)]
    return dataset(entries, answers=ANSWERS if answers else None).batch(np.arange(3))


def weighed(parts: dict[str, Tensor], weights: dict[str, float]) -> dict[str, float]:
    return {name: float(weights[name] * value.detach()) for name, value in parts.items()}


def given(model: nn.Module, batch: Batch, overrides: dict[str, Tensor] | None = None) -> dict[str, float]:
    return {name: float(value.detach()) for name, value in objective.losses(model, batch, overrides).items()}


@pytest.mark.parametrize("proposals", [True, False])
@pytest.mark.parametrize("boxes", [True, False])
@pytest.mark.parametrize("answers", [True, False])
def test_mdetr_is_asked_to_ground_and_to_answer_what_it_can(proposals: bool, boxes: bool, answers: bool) -> None:
    model = mdetr(proposals=proposals, answers=(("attr", 2),) if answers else ())
    plain, asked = batch_of(boxes, False), batch_of(boxes, True)
    grounded = weighed(grounding.losses(model(*plain.inputs), plain), grounding.WEIGHTS)
    assert given(model, plain) == pytest.approx(grounded)
    right = weighed(vqa.losses(model(*asked.inputs), asked), vqa.WEIGHT) if answers else {}
    assert given(model, asked) == pytest.approx(grounded | right) and ("answer" in right) == answers


def test_glip_is_asked_for_its_words_and_boxes_whatever_else_a_batch_holds() -> None:
    model, batch = glip(), batch_of(True, True)
    for alignment in ("ours", "official"):  # of whose losses each token of a phrase has its share
        model.config = model.config.model_copy(update={"alignment": alignment})
        parts = weighed(detect.losses(model(*batch.inputs), batch, alignment == "official"), detect.WEIGHTS)
        assert given(model, batch) == pytest.approx(parts)


@pytest.mark.parametrize("make", [mdetr, glip])
def test_overrides_stand_in_for_parameters(make) -> None:
    model, batch = make(), batch_of(True, False)
    torch.manual_seed(1)
    text = {name: p.detach() for name, p in model.named_parameters() if name.startswith("text.")}
    other = {name: p + 0.2 * torch.randn_like(p) for name, p in text.items()}
    before, found = given(model, batch), given(model, batch, other)
    model.load_state_dict(other, strict=False)
    assert found == pytest.approx(given(model, batch), rel=1e-5) and found != pytest.approx(before, rel=1e-3)


@pytest.mark.parametrize("make", [mdetr, glip])
@pytest.mark.parametrize("boxes", [True, False])
def test_losses_and_gradients_are_finite_with_and_without_boxes(make, boxes: bool) -> None:
    model = make() if make is glip else mdetr(answers=(("attr", 2),))
    total = torch.stack(list(objective.losses(model, batch_of(boxes, True)).values())).sum()
    total.backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert total.isfinite() and gradients and all(g.isfinite().all() for g in gradients)


def test_without_any_box_the_slots_of_all_queries_say_no_object_per_caption() -> None:
    model, batch = mdetr(), batch_of(False, False)
    with torch.no_grad():
        found = grounding.losses(model(*batch.inputs), batch)
        logs = model(*batch.inputs).logits_KBQS.log_softmax(-1)[..., -1]
    assert float(found["slot"]) == pytest.approx(-0.1 * float(logs.sum()) / 3, rel=1e-5)
    assert all(float(found[name]) == 0 for name in ("l1", "giou", "contrast", "patch_box", "towers"))
