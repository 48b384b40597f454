"""Questions: MDETR's answer queries and heads, their losses and evaluation against slow ones, and the baselines."""

from dataclasses import replace
from math import exp, log
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_surgery import random_plan
from torch import Tensor, nn

from snp.compression import checkpoint
from snp.compression.surgery import apply
from snp.compression.tower import towers_of
from snp.data.annotations import Entry
from snp.data.batch import Batch
from snp.data.dataset import GroundingSet
from snp.data.tokens import Vocabulary
from snp.errors import InputError
from snp.models.config import SMOKE, ModelConfig
from snp.models.mdetr import MDETR, TOWERS, Grounding
from snp.tasks import vqa

ANSWERS = {"attr": {"red": 1, "blue": 0, "green": 2}, "obj": {"no": 0, "yes": 1}}
SIZES = {"attr": 3, "obj": 2}
PIXELS = np.random.default_rng(0).integers(0, 256, (3, 3, 64, 64), np.uint8)
CAPTIONS = {
    "attr": ["what colour is the star?", "which colour has the big ring?", "what colour is it?"],
    "obj": ["is there a star?", "is it a ring?", "is there a big star left of the ring?"],
}
WORDS = Vocabulary.from_captions(caption for captions in CAPTIONS.values() for caption in captions)


def question(number: int, kind: str, caption: str, answer: str) -> Entry:
    boxes = ((4.0, 8.0, 16.0, 16.0),) * (number % 2)
    return Entry(
        number,
        f"{number % 3}.png",
        64,
        64,
        caption,
        "toy",
        boxes,
        (((0, 4),),) * len(boxes),
        question_id=str(number),
        question_type=kind,
        answer=answer,
    )


def questions() -> list[Entry]:
    """Twelve questions on three pictures: every sentence twice, with answers that neither words nor pictures tell."""
    source = np.random.default_rng(1)
    asked = [(kind, caption) for kind, captions in CAPTIONS.items() for caption in captions] * 2
    return [
        question(i, kind, caption, str(source.choice(list(ANSWERS[kind])))) for i, (kind, caption) in enumerate(asked)
    ]


def dataset(entries: list[Entry], answers: dict | None = ANSWERS, strict: bool = True) -> GroundingSet:
    images = {f"{i}.png": (PIXELS, i) for i in range(3)}
    return GroundingSet(entries, images.__getitem__, WORDS, SMOKE.context, answers=answers, strict=strict)


def model_of(seed: int = 0, answers: bool = True, **options) -> MDETR:
    torch.manual_seed(seed)
    config = SMOKE.model_copy(update={"vocabulary": len(WORDS), **options})
    return MDETR(config.model_copy(update={"answers": tuple(SIZES.items()) if answers else ()})).eval()


def batch() -> Batch:
    return dataset(questions()).batch(np.arange(12))


# -- the model --------------------------------------------------------------------------------------------------


def in_pieces(model: MDETR, given: tuple[Tensor, ...]) -> tuple[list[Tensor], Tensor | float, int]:
    """States of the decoder's layers [B, Q (+ answers), D], run one by one; where boxes start from; and Q.

    What enters the first layer is taken from the model itself, but for the queries of answers.
    """
    seen: list[tuple[Tensor, ...]] = []
    hook = model.decoder[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    out = model(*given)
    hook.remove()
    x, query, *memory = seen[0]
    Q = out.logits_KBQS.shape[2]
    x, query = x[:, :Q], query[:, :Q]
    if model.config.answers:
        asked = model.answer_queries.weight.expand(len(x), -1, -1)
        x, query = torch.cat([x, torch.zeros_like(asked)], 1), torch.cat([query, asked], 1)
    states = []
    for layer in model.decoder:
        x = layer(x, query, *memory)
        states.append(x)
    anchor: Tensor | float = 0.0
    if out.patches is not None:
        best = out.patch_score_BN.topk(Q, dim=1).indices[..., None].expand(-1, -1, 4)
        anchor = out.patches.boxes_BN4.gather(1, best).logit(eps=1e-4)
    return states, anchor, Q


@pytest.mark.parametrize("proposals", [True, False])
@pytest.mark.parametrize("answers", [True, False])
def test_objects_are_what_the_pieces_of_the_model_say_bit_for_bit(answers: bool, proposals: bool) -> None:
    model = model_of(answers=answers, proposals=proposals)
    out = model(*batch().inputs)
    states, anchor, Q = in_pieces(model, batch().inputs)
    assert SMOKE.queries == Q and states[0].shape[1] == Q + (3 if answers else 0)
    objects = torch.stack([state[:, :Q] for state in states])
    assert torch.equal(out.logits_KBQS, model.slot_head(objects))
    assert torch.equal(out.boxes_KBQ4, (anchor + model.box_head(objects)).sigmoid())
    assert torch.equal(out.query_KBQC, F.normalize(model.query_contrast(objects), dim=-1))
    assert (out.answers is None) == (not answers)


def test_heads_leave_all_other_weights_as_a_seed_makes_them() -> None:
    plain, asked = model_of(answers=False), model_of()
    extra = asked.state_dict().keys() - plain.state_dict().keys()
    assert {name.split(".")[0] for name in extra} == {"answer_queries", "answer_heads"}
    assert all(torch.equal(value, asked.state_dict()[name]) for name, value in plain.state_dict().items())


@pytest.mark.parametrize("layer", ["last", "first"])
def test_every_head_reads_its_own_query_in_the_layer_that_is_asked(layer: str) -> None:
    model = model_of(answer_layer=layer)
    states, _, Q = in_pieces(model, batch().inputs)
    asked = {"last": states[-1], "first": states[0]}[layer][:, Q:]
    found = model(*batch().inputs).answers
    assert {name: logits.shape[1] for name, logits in found.items()} == {"type": 2, "attr": 3, "obj": 2}
    for place, logits in enumerate(found.values()):
        assert torch.equal(logits, model.answer_heads[place](asked[:, place]))


def test_which_layer_is_asked_changes_answers_and_no_object() -> None:
    last, first = (model_of(answer_layer=layer)(*batch().inputs) for layer in ("last", "first"))
    assert torch.equal(last.logits_KBQS, first.logits_KBQS) and torch.equal(last.boxes_KBQ4, first.boxes_KBQ4)
    assert not torch.allclose(last.answers["type"], first.answers["type"], atol=1e-3)


def test_objects_and_answers_see_each_other() -> None:
    plain, asked = model_of(answers=False), model_of()
    assert not torch.allclose(plain(*batch().inputs).logits_KBQS, asked(*batch().inputs).logits_KBQS, atol=1e-4)


def test_answers_depend_on_pixels_and_on_words() -> None:
    model, (images, index, tokens, text) = model_of(), batch().inputs
    plain = model(images, index, tokens, text).answers["attr"]
    assert not torch.allclose(plain, model(images.flip(-1), index, tokens, text).answers["attr"], atol=1e-5)
    assert not torch.allclose(plain, model(images, index, tokens.roll(1, 0), text).answers["attr"], atol=1e-5)


def test_heads_added_later_make_the_model_that_its_configuration_says() -> None:
    model = model_of(answers=False)
    model.add_answers(SIZES)
    again = MDETR(ModelConfig.model_validate_json(model.config.model_dump_json())).eval()
    again.load_state_dict(model.state_dict())
    assert again.config == model.config == model_of().config
    for ours, theirs in zip(*(m(*batch().inputs).answers.values() for m in (model, again)), strict=True):
        assert torch.equal(ours, theirs)
    model.add_answers({"sound": 4})
    assert model(*batch().inputs).answers["sound"].shape == (12, 4)


def test_sizes_that_make_no_heads_are_refused() -> None:
    for sizes in ({}, {"attr": 0}, {"type": 3}):
        with pytest.raises(InputError, match="are not sizes of types"):
            model_of().add_answers(sizes)


def test_a_compressed_model_learns_to_answer_and_is_saved_and_loaded(tmp_path: Path) -> None:
    dense = model_of(answers=False)
    masked = "decoder.0.ffn.0.weight"
    mask = torch.rand(dense.get_parameter(masked).shape, generator=torch.Generator().manual_seed(0)) < 0.5
    plan = replace(random_plan(towers_of(dense, TOWERS)), masks={masked: mask})
    model = apply(dense, plan, TOWERS)
    before = model(*batch().inputs)
    model.add_answers(SIZES)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    sum(vqa.losses(model(*batch().inputs), batch()).values()).backward()
    assert all(head.weight.grad.abs().sum() > 0 for head in model.answer_heads)
    optimizer.step()
    assert before.answers is None and not dense.config.answers and not model.get_parameter(masked)[~mask].any()

    checkpoint.save(tmp_path, model, plan, paths=TOWERS)
    again, plan_again = checkpoint.load(tmp_path, lambda: MDETR(model.config))
    assert plan_again == plan
    expected, found = model.eval()(*batch().inputs), again.eval()(*batch().inputs)
    assert torch.equal(expected.logits_KBQS, found.logits_KBQS)
    assert all(torch.equal(logits, found.answers[name]) for name, logits in expected.answers.items())
    assert dict(again.answer_heads.named_parameters()).keys() == dict(model.answer_heads.named_parameters()).keys()


# -- losses -----------------------------------------------------------------------------------------------------


def said(seed: int, count: int = 12) -> Grounding:
    """Random answers to so many questions."""
    torch.manual_seed(seed)
    answers = {name: 3 * torch.randn(count, n) for name, n in (("type", 2), *SIZES.items())}
    nothing = torch.zeros(1, count, 1, 1)
    return Grounding(nothing, nothing, nothing, nothing, None, None, answers)


def slow_losses(out: Grounding, entries: list[Entry]) -> dict[str, float]:
    """One question after the other: minus the log of what the type head and the head of its own type say."""

    def surprise(logits: list[float], right: int) -> float:
        return log(sum(exp(x) for x in logits)) - logits[right]

    total = {"type": 0.0, "answer": 0.0}
    for i, entry in enumerate(entries):
        total["type"] += surprise(out.answers["type"][i].tolist(), list(ANSWERS).index(entry.question_type))
        known = ANSWERS[entry.question_type]
        if entry.answer in known:
            total["answer"] += surprise(out.answers[entry.question_type][i].tolist(), known[entry.answer])
    return {name: value / len(entries) for name, value in total.items()}


@pytest.mark.parametrize("seed", range(3))
def test_losses_equal_plain_loops(seed: int) -> None:
    found = vqa.losses(said(seed), batch())
    assert {k: float(v) for k, v in found.items()} == pytest.approx(slow_losses(said(seed), questions()), abs=1e-6)
    assert found.keys() == vqa.WEIGHT.keys()


def test_an_answer_that_no_head_can_give_costs_nothing() -> None:
    entries = [replace(entry, answer="purple") if i < 3 else entry for i, entry in enumerate(questions())]
    found = vqa.losses(said(0), dataset(entries, strict=False).batch(np.arange(12)))
    assert {k: float(v) for k, v in found.items()} == pytest.approx(slow_losses(said(0), entries), abs=1e-6)


def test_heads_of_types_that_a_batch_does_not_have_learn_nothing() -> None:
    model = model_of()
    colours = dataset(questions()).batch(np.array([0, 1, 2]))
    sum(vqa.losses(model(*colours.inputs), colours).values()).backward()
    moved = [float(head.weight.grad.abs().sum()) for head in model.answer_heads]
    assert moved[0] > 0 and moved[1] > 0 and moved[2] == 0


@pytest.mark.slow
def test_a_model_learns_the_answers_of_a_handful_of_questions() -> None:
    model = model_of().train()
    entries = questions()[:6]
    data = dataset(entries)
    few = data.batch(np.arange(6))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    assert vqa.evaluate(model, data)["accuracy"] < 1
    for _ in range(60):
        optimizer.zero_grad()
        sum(vqa.losses(model(*few.inputs), few).values()).backward()
        optimizer.step()
    found = vqa.evaluate(model, data)
    assert found["accuracy"] == found["type_accuracy"] == 1 and found["n"] == 6


# -- evaluation -------------------------------------------------------------------------------------------------


def large(**options) -> MDETR:
    """Random weights, large enough that every head gives each of its answers."""
    model = model_of(**options)
    torch.manual_seed(3)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


def slow_evaluation(model: MDETR, entries: list[Entry]) -> dict[str, tuple[int, float, float]]:
    """Type, and "" for all -> questions, and shares of right answers and types; one question at a time."""
    rows: dict[str, list[tuple[bool, bool]]] = {}
    for entry in entries:
        one = dataset([entry], answers=None).batch(np.array([0]))
        answers = {name: logits[0].tolist() for name, logits in model(*one.inputs).answers.items()}
        kind = list(ANSWERS)[max(range(2), key=lambda i: answers["type"][i])]
        best = max(range(SIZES[kind]), key=lambda i: answers[kind][i])
        answer = next(name for name, i in ANSWERS[kind].items() if i == best)
        typed = kind == entry.question_type
        for name in ("", entry.question_type):
            rows.setdefault(name, []).append((typed and answer == entry.answer, typed))
    return {name: (len(part), *np.mean(part, 0).tolist()) for name, part in rows.items()}


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 5, 128])
def test_evaluation_equals_one_question_at_a_time(count: int) -> None:
    entries = [*questions(), question(12, "attr", CAPTIONS["attr"][0], "purple"), question(13, "sound", "is it?", "no")]
    model = large()
    found = vqa.evaluate(model, dataset(entries, strict=False), count)
    expected = slow_evaluation(model, entries)
    parts = {"": found} | found["by_type"]
    got = {name: (part["n"], part["accuracy"], part["type_accuracy"]) for name, part in parts.items()}
    assert got.keys() == expected.keys() == {"", "attr", "obj", "sound"}
    for name, part in got.items():
        assert part == pytest.approx(expected[name])
    assert 0 < found["accuracy"] < found["type_accuracy"] < 1 and got["sound"] == (1, 0, 0)


@pytest.mark.parametrize("training", [True, False])
def test_each_image_passes_the_vision_tower_once_and_the_mode_stays(training: bool) -> None:
    model, images = large().train(training), []
    forward = model.vision.forward_features

    def counted(pixels: Tensor) -> Tensor:
        images.append(len(pixels))
        assert torch.is_inference_mode_enabled() and not model.training
        return forward(pixels)

    model.vision.forward_features = counted
    vqa.evaluate(model, dataset(questions()), 4)
    assert sum(images) == 3
    assert model.training == training and not torch.is_inference_mode_enabled()


def test_model_and_data_need_the_same_answers() -> None:
    other = {"obj": ANSWERS["obj"], "attr": ANSWERS["attr"]}  # the same types in another order
    for model, answers in ((large(), other), (large(answers=False), ANSWERS), (large(), None)):
        with pytest.raises(InputError, match="answers: the model gives"):
            vqa.evaluate(model, dataset(questions(), answers))


# -- baselines --------------------------------------------------------------------------------------------------


def told(count: int, seed: int, shuffled: bool = False) -> list[Entry]:
    """Questions whose answer the words tell: yes or no by the order of two of them."""
    source = np.random.default_rng(seed)
    entries = []
    for i in range(count):
        first, second, other = source.permutation(["star", "ring", "moon"])
        answer = "yes" if (first, second) in (("star", "ring"), ("ring", "moon"), ("moon", "star")) else "no"
        entries.append(question(i, "obj", f"is {first} {second} near {other}?", answer))
    if shuffled:
        answers = source.permutation([entry.answer for entry in entries])
        entries = [replace(entry, answer=str(answer)) for entry, answer in zip(entries, answers, strict=True)]
    return entries


def accuracy(answers: np.ndarray, entries: list[Entry]) -> float:
    return float(np.mean(answers == np.array([entry.answer for entry in entries])))


def test_words_alone_find_the_answers_that_words_tell_even_by_their_order() -> None:
    train, test = told(300, 0), told(200, 1)
    kinds, answers, asked = (
        np.array([getattr(e, name) for e in part])
        for part, name in ((train, "question_type"), (train, "answer"), (test, "question_type"))
    )
    assert accuracy(vqa.text_only(train, test), test) == 1
    assert accuracy(vqa.majority(kinds, answers, asked), test) < 0.7


def test_words_alone_do_not_find_answers_that_words_do_not_tell() -> None:
    test = told(400, 1, shuffled=True)
    assert 0.4 < accuracy(vqa.text_only(told(400, 0, shuffled=True), test), test) < 0.6


def test_an_unknown_word_is_passed_over_and_the_frequent_answer_is_given_where_none_is_known() -> None:
    train = [question(i, "obj", "is it a ring?", "yes" if i else "no") for i in range(3)]
    test = [question(0, "obj", caption, "no") for caption in ("zebra", "is it a zebra ring?")]
    assert vqa.text_only(train, test).tolist() == ["yes", "yes"]
