"""Trimming: what is left out changes nothing else, is really left out, and costs what is said."""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from snp.compression import count
from snp.data.batch import Batch
from snp.errors import InputError
from snp.experiment.recipes import RECIPES
from snp.models import cost, family
from snp.models.config import SMOKE
from snp.models.mdetr import MDETR
from snp.tasks import trimming
from snp.trimming import trimmer as trimmers
from snp.trimming.gates import FixedGate, Gate, best, hard
from snp.trimming.trim import Trim
from snp.trimming.trimmer import from_centre, gathered, untrimmed

GUIDES = ("text", "image", "none")
RULES = ("random", "centre", "attention", "small")


def batch(captions: int = 3, pictures: int = 2, seed: int = 0) -> Batch:
    """Captions of one to six tokens, turn by turn about the pictures, with one box each."""
    source = torch.Generator().manual_seed(seed)
    text = torch.arange(6) < torch.randint(1, 7, (captions, 1), generator=source)
    positive = torch.zeros(captions, 1, 6, dtype=torch.bool)
    positive[..., 0] = True
    return Batch(
        torch.randint(0, 256, (pictures, 3, 64, 64), generator=source, dtype=torch.uint8),
        torch.arange(captions) % pictures,
        torch.randint(1, 100, (captions, 6), generator=source) * text,
        text,
        torch.rand(captions, 1, 4, generator=source) * 0.3 + 0.3,
        torch.ones(captions, 1, dtype=torch.bool),
        positive,
        torch.zeros(captions, 1, dtype=torch.long),
    )


def model(trim: Trim, restless: bool = True, **changes: object) -> MDETR:
    """A model of smoke scale that trims; `restless`: gates say something else of every token."""
    torch.manual_seed(0)
    built = MDETR(SMOKE.model_copy(update=changes))
    built.add_trimmer(trim)
    for module in built.modules():
        if restless and isinstance(module, Gate):
            nn.init.normal_(module.outer.weight, std=8.0)
            nn.init.constant_(module.outer.bias, 0.0)
        if restless and isinstance(module, trimmers.FixedGate):
            nn.init.normal_(module.logits)
    return built.eval()


@pytest.fixture
def without_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gates do in training what they do in inference."""
    monkeypatch.setattr(trimmers, "hard", lambda logits, draw: hard(logits, False))


def close(a: Tensor, b: Tensor, atol: float = 1e-5) -> None:
    assert a.shape == b.shape and torch.allclose(a, b, atol=atol), float((a - b).abs().max())


# -- what is kept ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("guide", GUIDES)
@pytest.mark.parametrize("training", [False, True])
def test_where_all_is_kept_a_model_says_what_it_says_without_gates(guide: str, training: bool) -> None:
    trimmed = model(Trim(tokens=0.5, heads=0.5, guide=guide), restless=False).train(training)
    for gate in (m for m in trimmed.modules() if isinstance(m, Gate)):
        gate.outer.bias.data[::2] = 1e4
    one = batch()
    out = trimmed(*one.inputs)
    with untrimmed(trimmed):
        whole = trimmed(*one.inputs)
    close(out.logits_KBQS, whole.logits_KBQS, 1e-6)
    close(out.boxes_KBQ4, whole.boxes_KBQ4, 1e-6)
    assert out.kept.shares.tolist() == [1, 1] and whole.kept is None


@pytest.mark.parametrize("captions", [1, 32])
@pytest.mark.parametrize(
    ("policy", "guide"), [("learned", "text"), ("learned", "image"), ("learned", "none"), ("fixed", "text")]
)
def test_gathered_tokens_say_what_masked_ones_do(captions: int, policy: str, guide: str, without_chance: None) -> None:
    trimmed = model(Trim(tokens=0.5, heads=0.5, policy=policy, guide=guide), depth=4)
    one = batch(captions, max(1, captions // 4))
    cut, masked = trimmed(*one.inputs), trimmed.train()(*one.inputs)
    assert cut.kept.shares[0] < 0.9 and cut.kept.x_RND.shape[1] < 64 == masked.kept.x_RND.shape[1]
    if policy == "learned" and captions > 1:
        assert cut.kept.tokens_RS.std(0).max() > 0
    close(cut.kept.tokens_RS, masked.kept.tokens_RS)
    close(cut.logits_KBQS, masked.logits_KBQS)
    close(cut.boxes_KBQ4, masked.boxes_KBQ4)


def test_decoder_queries_have_a_token_to_start_from_whatever_gates_say() -> None:
    trimmed = model(Trim(), restless=False)
    for gate in (m for m in trimmed.modules() if isinstance(m, Gate)):
        gate.outer.bias.data[::2] = -1e4
    for training in (False, True):
        kept = trimmed.train(training)(*batch().inputs).kept
        assert kept.tokens_RS.tolist() == [[SMOKE.queries] * SMOKE.depth] * 3


def test_what_was_dropped_is_seen_by_nothing_that_follows() -> None:
    trimmed, one = model(Trim(policy="fixed")), batch()
    before = trimmed(*one.inputs)
    dropped = hard(trimmed.trimmer.tokens["0"].logits, False) == 0
    assert dropped.any()
    disturb = lambda module, given, x: x + 100 * dropped[:, None]  # noqa: E731
    trimmed.vision.patch_embed.register_forward_hook(disturb)
    after = trimmed(*one.inputs)
    assert torch.equal(before.logits_KBQS, after.logits_KBQS) and torch.equal(before.boxes_KBQ4, after.boxes_KBQ4)


@pytest.mark.parametrize("policy", RULES)
def test_rules_keep_the_share_they_are_asked_for(policy: str) -> None:
    trimmed = model(Trim(tokens=0.6, policy=policy), depth=4)
    for training in (True, False):
        share = float(trimmed.train(training)(*batch().inputs).kept.shares[0])
        assert share == pytest.approx(36 / 64 if policy == "small" else 0.6, abs=0.01)


def test_the_centre_of_a_grid_is_kept_first() -> None:
    kept = best(-from_centre(16, torch.zeros(1))[None], 4)
    assert kept.view(4, 4).nonzero().tolist() == [[1, 1], [1, 2], [2, 1], [2, 2]]


def test_tokens_are_gathered_in_their_order_with_their_places() -> None:
    x, keep = torch.arange(10.0).view(2, 5, 1), torch.tensor([[1.0, 0, 1, 0], [0, 0, 0, 1]])
    tokens, there, places = gathered(x, keep, None, first=1)
    assert tokens[0].flatten().tolist() == [0, 1, 3] and tokens[1, :2].flatten().tolist() == [5, 9]
    assert there.tolist() == [[1, 1], [1, 0]] and places is not None and places[0].tolist() == [0, 2]
    again, there, places = gathered(tokens, torch.tensor([[0.0, 1], [1, 0]]), places, first=1)
    assert again.flatten().tolist() == [0, 3, 5, 9] and places is not None and places.flatten().tolist() == [2, 3]


def test_what_is_said_of_an_input_does_not_depend_on_those_beside_it() -> None:
    trimmed, many = model(Trim(tokens=0.5, heads=0.5)), batch(8, 4)
    together = trimmed(*many.inputs)
    assert torch.equal(trimmed(*many.inputs).logits_KBQS, together.logits_KBQS)
    for i in range(8):
        picture = many.image_index_B[i]
        alone = trimmed(many.images_ICHW[picture, None], torch.zeros(1, dtype=torch.long), many.tokens_BL[i, None],
                        many.text_BL[i, None])  # fmt: skip
        close(alone.logits_KBQS[:, 0], together.logits_KBQS[:, i])
        close(alone.boxes_KBQ4[:, 0], together.boxes_KBQ4[:, i])


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("guide", GUIDES)
def test_as_many_pictures_as_captions_in_another_order_are_not_mistaken_for_each_other(
    guide: str, training: bool, without_chance: None
) -> None:
    trimmed, one = model(Trim(guide=guide)).train(training), replace(batch(2, 2), image_index_B=torch.tensor([1, 0]))
    sorted_ = replace(one, images_ICHW=one.images_ICHW.flip(0), image_index_B=torch.tensor([0, 1]))
    close(trimmed(*one.inputs).logits_KBQS, trimmed(*sorted_.inputs).logits_KBQS)


def test_the_picture_alone_decides_unless_the_text_guides() -> None:
    one = batch(2, 1)
    for guide in GUIDES:
        kept = model(Trim(guide=guide))(*one.inputs).kept
        same = torch.equal(kept.tokens_RS[0], kept.tokens_RS[1])
        assert same == (guide != "text")


# -- learning --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answers", [(), (("color", 3), ("count", 2))])
def test_gradients_reach_every_gate_and_are_finite(answers: tuple) -> None:
    trimmed, one = model(Trim(tokens=0.5, heads=0.5), answers=answers).train(), batch(8, 4)
    if answers:
        one = replace(one, type_B=torch.arange(8) % 2, answer_B=torch.arange(8) % 2)
    parts = trimming.losses(trimmed, one, step=5, steps=10)
    told = {"whole", "taught", "taught boxes", "cost", "slot"} | ({"answer", "taught answers"} if answers else set())
    assert told <= parts.keys()
    torch.stack(list(parts.values())).sum().backward()
    for name, parameter in trimmed.named_parameters():
        if parameter.grad is not None:
            assert parameter.grad.isfinite().all(), name
        if ".trimmer." in f".{name}" and name.endswith("inner.weight"):
            assert parameter.grad is not None and parameter.grad.any(), name


def test_the_whole_pass_teaches_and_is_not_taught() -> None:
    trimmed, one = model(Trim()).train(), batch()
    with untrimmed(trimmed):
        whole = trimmed(*one.inputs)
    whole.logits_KBQS.retain_grad()
    torch.stack(list(trimming.distance(whole, trimmed(*one.inputs), one).values())).sum().backward()
    assert whole.logits_KBQS.grad is None
    assert all(float(part.detach()) < 1e-6 for part in trimming.distance(whole, whole, one).values())


def test_what_is_taught_adds_up_over_the_parts_of_a_batch(without_chance: None) -> None:
    trimmed, whole = model(Trim()).train(), batch(8, 4)
    parts = [trimming.losses(trimmed, part, 5, 10) for part in whole.parts(4)]
    for name, value in trimming.losses(trimmed, whole, 5, 10).items():
        close(sum(part[name] for part in parts), value, 1e-3)


def test_divergence_is_from_teacher_to_student_as_a_plain_loop_has_it() -> None:
    teacher, student = torch.randn(2, 5, dtype=torch.double)
    p, q = teacher.softmax(-1).tolist(), student.softmax(-1).tolist()
    expected = sum(a * torch.tensor(a / b).log().item() for a, b in zip(p, q, strict=True))
    assert float(trimming.kl(teacher, student)) == pytest.approx(expected, rel=1e-5)


def test_the_target_falls_in_a_line_and_is_held() -> None:
    trim = Trim(tokens=0.4)
    assert [trim.target(0.4, step, 100) for step in (0, 30, 60, 99)] == pytest.approx([1, 0.7, 0.4, 0.4])
    assert Trim(curriculum=False).target(0.5, 0, 100) == 0.5


def test_gates_learn_to_keep_what_they_are_asked_for() -> None:
    trimmed = model(Trim(tokens=0.5, distill=False, curriculum=False), restless=False).train()
    gates = [p for name, p in trimmed.named_parameters() if name.startswith("trimmer")]
    optimizer, one = torch.optim.Adam(gates, 0.02), batch(8, 4)
    for step in range(60):
        cost_alone = trimming.losses(trimmed, one, step, 60)["cost"]
        optimizer.zero_grad()
        cost_alone.backward()
        optimizer.step()
    share = torch.stack([trimmed(*one.inputs).kept.shares[0].detach() for _ in range(8)]).mean()
    assert float(share) == pytest.approx(0.5, abs=0.05)


# -- what it costs ---------------------------------------------------------------------------------------------


def cases() -> Iterator[Trim | None]:
    yield None
    yield from (Trim(heads=0.5, guide=guide) for guide in GUIDES)
    yield Trim(sites=(1,))
    yield Trim(policy="fixed", heads=0.5)
    yield from (Trim(policy=rule) for rule in RULES)


@pytest.mark.parametrize("answers", [(), (("color", 3),)])
@pytest.mark.parametrize("trim", cases(), ids=str)
def test_a_caption_costs_what_is_counted_on_the_gathered_pass(trim: Trim | None, answers: tuple) -> None:
    built = (
        MDETR(SMOKE.model_copy(update={"answers": answers})).eval() if trim is None else model(trim, answers=answers)
    )
    one = batch(1, 1)
    words = one.text_BL.sum(1)
    given = (*one.inputs[:2], one.tokens_BL[:, : int(words)], one.text_BL[:, : int(words)])
    told = cost.cost(built, built(*given).kept, words)
    assert float(told.over(1)) == count.flops(built, *given)
    assert float(told.over(4)) < float(told.over(1))


@pytest.mark.parametrize("trim", [None, Trim(), Trim(guide="image", heads=0.5), Trim(policy="attention")], ids=str)
@pytest.mark.parametrize("size", [(64, 96), (40, 120)])
def test_a_picture_that_is_no_square_costs_what_is_counted_on_it(trim: Trim | None, size: tuple[int, int]) -> None:
    wide = {"shortest": 64, "longest": 128, "class_token": True, "proposals": False}
    torch.manual_seed(0)
    built = MDETR(SMOKE.model_copy(update=wide)).eval() if trim is None else model(trim, **wide)
    words = torch.tensor([4])
    given = (
        torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8), torch.zeros(1, dtype=torch.long),
        torch.ones(1, 4, dtype=torch.long), torch.ones(1, 4, dtype=torch.bool), torch.tensor([size]),
    )  # fmt: skip
    patches = torch.tensor([(size[0] // 8) * (size[1] // 8)])
    told = cost.cost(built, built(*given).kept, words, patches)
    assert float(told.over(1)) == pytest.approx(count.flops(built, *given), rel=1e-9)


def test_a_picture_whose_gates_the_text_guides_is_worth_little_to_keep() -> None:
    one, trimmed = batch(), model(Trim(guide="text"))
    told = cost.cost(trimmed, trimmed(*one.inputs).kept, one.text_BL.sum(1))
    stem = count.flops(trimmed.vision.patch_embed, torch.zeros(1, 3, 64, 64))
    assert told.picture_B.tolist() == [stem] * 3
    trimmed = model(Trim(guide="image"))
    assert (cost.cost(trimmed, trimmed(*one.inputs).kept, one.text_BL.sum(1)).picture_B > stem).all()


# -- the value -------------------------------------------------------------------------------------------------


def test_a_model_that_trims_is_built_again_from_its_configuration() -> None:
    trimmed = model(Trim(heads=0.5))
    again = family.build(family.parse(trimmed.config.model_dump(mode="json"))).eval()
    again.load_state_dict(trimmed.state_dict())
    assert torch.equal(again(*batch().inputs).logits_KBQS, trimmed(*batch().inputs).logits_KBQS)


def test_gates_come_last_so_that_the_same_seed_gives_the_same_model() -> None:
    torch.manual_seed(0)
    plain = MDETR(SMOKE).state_dict()
    own = model(Trim(), restless=False).state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in plain.items())


@pytest.mark.parametrize(
    "odd", [{"tokens": 0.0}, {"tokens": 1.5}, {"sites": (2, 1)}, {"policy": "random", "heads": 0.5}, {"policy": "all"}]
)
def test_odd_values_are_refused(odd: dict) -> None:
    with pytest.raises(ValidationError):
        Trim(**odd)


def test_layers_that_are_not_there_are_refused() -> None:
    with pytest.raises(InputError, match="not layers of a tower of 2"):
        model(Trim(sites=(1, 7)))


def test_a_copy_trims_by_itself() -> None:
    trimmed = model(Trim())
    with untrimmed(deepcopy(trimmed)):
        assert trimmed(*batch().inputs).kept is not None


def test_a_fixed_set_is_learned_within_the_steps_that_a_row_has() -> None:
    """Half of 16 tokens are useful: the others fall, though all gates begin open and learn at the rate of a tower."""
    torch.manual_seed(0)
    phase, gate, useful = RECIPES["desk"].mdetr.trim["refcoco"], FixedGate(16), torch.arange(16) < 8
    optimizer = torch.optim.AdamW(gate.parameters(), weight_decay=phase.weight_decay)
    for step in range(phase.steps):
        for group in optimizer.param_groups:
            group["lr"] = phase.rate(step)
        keep_BN = hard(gate(phase.batch), draw=True)
        (trimming.COST * (keep_BN.mean() - 0.5).square() + (1 - keep_BN[:, useful]).mean()).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert torch.equal(hard(gate(1), draw=False)[0] > 0, useful)
