"""The dual encoder: nothing crosses between its branches, what is kept of a picture is enough, and how it is taught."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from test_trimming import batch
from torch import Tensor

from snp.compression import count
from snp.errors import InputError
from snp.models import family
from snp.models.config import SMOKE
from snp.models.distill import Distill
from snp.models.dual import TEMPERATURE, Dual
from snp.models.grounder import Inputs
from snp.models.mdetr import MDETR
from snp.tasks import distilling, rec
from snp.trimming.trim import Trim

ANSWERS = {"color": 3, "count": 2}


@pytest.fixture
def teacher() -> MDETR:
    torch.manual_seed(0)
    return MDETR(SMOKE).eval()


@pytest.fixture
def student(teacher: MDETR) -> Dual:
    torch.manual_seed(1)
    return Dual.from_mdetr(deepcopy(teacher)).eval()


def test_what_is_kept_of_a_picture_does_not_depend_on_what_is_asked_of_it(student: Dual) -> None:
    one, two = batch(), replace(batch(), tokens_BL=batch(seed=1).tokens_BL)
    kept, again = (student.cache(Inputs(*given.inputs)) for given in (one, two))
    assert torch.equal(kept.place_INC, again.place_INC) and torch.equal(kept.boxes_IN4, again.boxes_IN4)


def test_a_text_reads_the_same_whatever_the_picture(student: Dual) -> None:
    one = batch()
    words = student.read(one.tokens_BL, one.text_BL)
    shifted = student.read(F.pad(one.tokens_BL, (0, 2)), F.pad(one.text_BL, (0, 2)))
    assert torch.allclose(words, shifted, atol=1e-6)


def test_from_what_was_kept_the_same_is_said(student: Dual) -> None:
    one = batch(6, 2)
    student.add_answers(ANSWERS)
    out, kept = student(*one.inputs), student.cache(Inputs(*one.inputs))
    for i in range(6):
        text = one.text_BL[i, None]
        said = student.say(kept.of(one.image_index_B[i, None]), student.read(one.tokens_BL[i, None], text), text)
        assert torch.allclose(said.logits_KBQS[:, 0], out.logits_KBQS[:, i], atol=1e-6)
        assert all(torch.allclose(said.answers[name][0], out.answers[name][i], atol=1e-6) for name in said.answers)


def test_asking_about_a_kept_picture_costs_no_look_at_it(student: Dual) -> None:
    one = batch(1, 1)

    class Asking(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.student, self.kept = student, student.cache(Inputs(*one.inputs)).of(one.image_index_B)

        def forward(self) -> Tensor:
            return self.student.say(self.kept, self.student.read(one.tokens_BL, one.text_BL), one.text_BL).logits_KBQS

    vision = count.flops(student.vision, torch.zeros(1, 3, 64, 64))
    assert count.flops(Asking()) < count.flops(student, *one.inputs) - vision


def test_it_starts_as_the_model_it_is_made_of(teacher: MDETR, student: Dual) -> None:
    one = batch()
    patches = teacher.towers_only(*one.inputs)
    assert torch.allclose(student(*one.inputs).patches.boxes_BN4, patches.boxes_BN4, atol=1e-6)
    for branch in (student.image_encoder, student.text_encoder):
        assert all(torch.equal(a, b) for a, b in zip(branch.parameters(), teacher.encoder.parameters(), strict=True))
        assert branch[0] is not teacher.encoder[0]


def test_the_likeliest_place_gives_the_box() -> None:
    torch.manual_seed(0)
    student, one = Dual.from_mdetr(MDETR(SMOKE)).eval(), batch(4, 2)
    out = student(*one.inputs)
    best = out.patch_score_BN.argmax(1)
    rank = 1 - out.logits_KBQS[-1].softmax(-1)[..., -1]
    assert torch.equal(rank.argmax(1), best)
    assert torch.allclose(rank, (out.patch_score_BN / TEMPERATURE).softmax(1), atol=1e-5)
    spoken = out.logits_KBQS[-1].softmax(-1)[..., :-1].amax(1) > 0
    assert torch.equal(spoken[:, :6], one.text_BL) and not spoken[:, 6:].any()
    truth = out.boxes_KBQ4[-1][torch.arange(4), best]
    found = rec.score(out.boxes_KBQ4[-1].detach(), rank.detach(), truth.detach(), one.tokens_BL[:, 0].numpy())
    assert found["precision@1"] == 1


def test_it_is_built_again_from_its_configuration(student: Dual) -> None:
    student.add_answers(ANSWERS)
    again = family.build(family.parse(student.config.model_dump(mode="json"))).eval()
    again.load_state_dict(student.state_dict())
    assert torch.equal(again(*batch().inputs).logits_KBQS, student(*batch().inputs).logits_KBQS)


def test_models_that_cannot_become_one_are_refused(teacher: MDETR) -> None:
    teacher.add_trimmer(Trim())
    with pytest.raises(InputError, match="trims nothing"):
        Dual.from_mdetr(teacher)


# -- teaching --------------------------------------------------------------------------------------------------


def test_attention_that_is_the_teachers_own_costs_nothing(teacher: MDETR) -> None:
    one = batch()
    with distilling.listening(teacher.encoder) as heard:
        teacher(*one.inputs)
    split = heard.q.shape[1] - one.text_BL.shape[1]
    image, text = (
        distilling.Heard(heard.heads, heard.q[:, part], heard.k[:, part])
        for part in (slice(0, split), slice(split, None))
    )
    for how in (Distill(), Distill(official=True)):
        parts = distilling.attention(heard, image, text, one, how)
        assert len(parts) == 2 and all(abs(float(part.detach())) < 1e-6 for part in parts.values())


@pytest.mark.parametrize("official", [False, True])
def test_padding_counts_in_the_attention_loss_of_the_official_mode_alone(
    official: bool, teacher: MDETR, student: Dual
) -> None:
    short, how = batch(), Distill(official=official, soft=False)
    long = replace(short, tokens_BL=F.pad(short.tokens_BL, (0, 3)), text_BL=F.pad(short.text_BL, (0, 3)))
    other = MDETR(SMOKE).eval()
    few, many = (distilling.losses(student, (other, other), one, how) for one in (short, long))
    assert few.keys() == {"attention of words", "attention of places"}
    assert torch.allclose(few["attention of places"], many["attention of places"], atol=1e-6)
    assert torch.allclose(few["attention of words"], many["attention of words"], atol=1e-6) != official


def test_attention_is_learned_from_teacher_to_student_as_a_plain_loop_has_it() -> None:
    source = torch.Generator().manual_seed(0)
    whole = {role: torch.randn(1, 5, 8, generator=source) for role in "qk"}  # three places, two words
    image = {role: torch.randn(1, 3, 8, generator=source) for role in "qk"}
    text = {role: torch.randn(1, 2, 8, generator=source) for role in "qk"}
    heard = (distilling.Heard(2, one["q"], one["k"]) for one in (whole, image, text))
    asked = replace(batch(1, 1), text_BL=torch.ones(1, 2, dtype=torch.bool))
    found = distilling.attention(*heard, asked, Distill())
    total = 0.0
    for head in (slice(0, 4), slice(4, 8)):
        for word in range(2):
            p = (whole["q"][0, 3 + word, head] @ whole["k"][0, :3, head].T / 2).softmax(-1)
            q = (text["q"][0, word, head] @ image["k"][0, :, head].T / 2).softmax(-1)
            total += float((p * (p / q).log()).sum()) / 4
    assert float(found["attention of words"]) == pytest.approx(total, rel=1e-4)


@pytest.mark.parametrize("answers", [{}, ANSWERS])
def test_both_towers_learn_and_the_teacher_does_not(answers: dict, teacher: MDETR, student: Dual) -> None:
    one = batch(8, 4)
    if answers:
        one = replace(one, type_B=torch.arange(8) % 2, answer_B=torch.arange(8) % 2)
        teacher.add_answers(answers)
        student.add_answers(answers)
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    for how in (Distill(), Distill(soft=False), Distill(attention="none"), Distill(labels=True)):
        student.zero_grad()
        parts = distilling.losses(student.train(), (teacher, teacher), one, how)
        torch.stack(list(parts.values())).sum().backward()
        for tower in (student.vision, student.text):
            assert any(p.grad is not None and p.grad.any() for p in tower.parameters()), how
        assert all(p.grad is None or p.grad.isfinite().all() for p in student.parameters())
    assert all(p.grad is None for p in teacher.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.state_dict().items())


@pytest.mark.parametrize("how", [Distill(labels=True), Distill(official=True)])
@pytest.mark.parametrize("answers", [{}, ANSWERS])
def test_losses_of_the_parts_of_a_batch_add_up(how: Distill, answers: dict, teacher: MDETR, student: Dual) -> None:
    whole = batch(8, 4)
    if answers:
        whole = replace(whole, type_B=torch.arange(8) % 2, answer_B=torch.arange(8) % 2)
        teacher.add_answers(answers)
        student.add_answers(answers)
    parts = [distilling.losses(student, (teacher, teacher), part, how) for part in whole.parts(4)]
    for name, value in distilling.losses(student, (teacher, teacher), whole, how).items():
        assert torch.allclose(sum(part[name] for part in parts), value, atol=1e-4), name


def test_losses_are_those_of_float32_under_autocast(teacher: MDETR, student: Dual) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        parts = distilling.losses(student, (teacher, teacher), batch(), Distill(labels=True))
    assert all(part.dtype == torch.float32 and part.isfinite() for part in parts.values())


def test_expressions_are_learned_from_where_the_teachers_queries_started(teacher: MDETR, student: Dual) -> None:
    one = batch()
    said, out = teacher(*one.inputs), student(*one.inputs)
    at = said.start_BQ[:, :1]
    sure = replace(said, start_BQ=at, logits_KBQS=said.logits_KBQS[:, :, :1], boxes_KBQ4=said.boxes_KBQ4[:, :, :1])
    expected = -(out.patch_score_BN / distilling.TEMPERATURE).log_softmax(-1).gather(1, at).mean()
    assert torch.allclose(distilling.soft(sure, out, one)["soft"], expected, atol=1e-4)


@pytest.mark.parametrize("text", ["dual", "dual,attention=none,labels=true", "dual,soft=false", "dual,teacher=random"])
def test_how_it_is_taught_is_written_in_labels(text: str) -> None:
    assert str(Distill.from_text(text)) == text
    with pytest.raises(ValidationError):
        Distill.from_text(f"{text},warm=true")


@pytest.mark.parametrize(
    "odd",
    [
        {"soft": False, "attention": "none"},
        {"attention": "none", "official": True},
        {"attention": "none", "teacher": "random"},
    ],
)
def test_what_would_teach_nothing_is_refused(odd: dict) -> None:
    with pytest.raises(ValidationError):
        Distill(**odd)
