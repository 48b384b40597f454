"""Recovery: what compression has cost is learned again from the dense model, and a killed one ends to the bit."""

import copy
import os
import random
import re
import signal
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from towers import PATHS, TwoTowers, example, two_towers, views
from transformers import CLIPConfig, CLIPModel

import snp
from snp.compression import checkpoint, state
from snp.compression.count import count
from snp.compression.distil import divergence, error, tensors
from snp.compression.passes import stream
from snp.compression.recomputing import recomputing
from snp.compression.recover import Recover
from snp.compression.surgery import verify
from snp.errors import InputError

Batch = tuple[Tensor, Tensor]
TRAIN, HELD_OUT = ([example(16, seed) for seed in seeds] for seeds in (range(100, 140), range(200, 206)))
KINDS: dict[str, dict[str, Any]] = {
    "magnitude-structured": {"keep": 0.45},
    "cross-modal": {"keep": 0.6},
    "snp": {"keep": 0.25, "steps": 2},
    "omp": {"sparsity": 0.85},
}
"""A method of each kind: structured, shared, joint and unstructured."""


def forward(model: nn.Module, batch: Batch) -> Tensor:
    return model(*batch)


def loss_of(model: nn.Module, batch: Batch) -> Tensor:
    return F.cross_entropy(model(*batch), batch[1][:, 0] % 5)


@torch.no_grad()
def judged(model: nn.Module) -> float:
    """The mean loss on held-out batches."""
    return sum(float(loss_of(model.eval(), batch)) for batch in HELD_OUT) / len(HELD_OUT)


@pytest.fixture(scope="module")
def dense() -> TwoTowers:
    """A model that has learned what the first word is."""
    model = two_towers()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for step in range(120):
        optimizer.zero_grad()
        loss_of(model, TRAIN[step % len(TRAIN)]).backward()
        optimizer.step()
    optimizer.zero_grad()
    return model.eval()


def compressed(model: nn.Module, method: str = "magnitude-structured", recover: Any = None, **more: Any) -> Any:
    """What remains of a model, recovered or not; distillation alone unless a loss is given."""
    size = {} if more.keys() & {"keep", "sparsity"} else KINDS[method]
    if method == "snp":
        more = {"loss": loss_of, **more}
    how = {"towers": PATHS, "calibration": TRAIN, "forward": forward, **size, **more}
    return snp.compress(model, method, recover=recover, **how)


def quick(**fields: Any) -> Recover:
    """A few steps without a bar."""
    return Recover(**{"steps": 6, "rate": 2e-3, "progress": False, **fields})


def equal(a: nn.Module, b: nn.Module) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


# -- what it brings ------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("method", KINDS)
@pytest.mark.parametrize("learned", ["distillation", "loss", "both"])
def test_most_of_what_compression_costs_comes_back(method: str, learned: str, dense: TwoTowers) -> None:
    own = {} if learned == "distillation" else {"loss": loss_of}
    fields = {"distil": 0.0} if learned == "loss" else {"task": 0.0} if learned == "distillation" else {}
    (before, _), (after, _) = (
        compressed(dense, method, recover, **own) for recover in (None, quick(steps=60, **fields))
    )
    lost, left = judged(before) - judged(dense), judged(after) - judged(dense)
    assert lost > 0.05 and left < 0.3 * lost


@pytest.mark.parametrize("method", KINDS)
def test_ties_and_zeros_are_intact_after_recovery_and_after_save_and_load(
    method: str, dense: TwoTowers, tmp_path: Path
) -> None:
    (before, _), (small, plan) = (compressed(dense, method, how) for how in (None, quick()))
    was, now = count(before, views(before)), count(small, views(small))
    assert now.stored == was.stored and now.nonzero <= was.nonzero and not equal(before, small)
    verify(small, plan, PATHS)
    checkpoint.save(tmp_path, small, plan, paths=PATHS)
    assert equal(checkpoint.load(tmp_path, two_towers)[0], small)


@pytest.mark.parametrize("training", [True, False])
def test_the_dense_model_and_the_generators_are_left_as_they_were(training: bool) -> None:
    model = two_towers().train(training)
    model.vision.eval()
    before, modes = copy.deepcopy(model.state_dict()), [module.training for module in model.modules()]
    drawn = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    small, _ = compressed(model, recover=quick(held_out=HELD_OUT[:1]), loss=loss_of)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes and small.training == training
    assert not small.vision.training and not small.vision.blocks[0].attn.training
    assert not any(p.grad is not None or not p.requires_grad for m in (model, small) for p in m.parameters())
    assert torch.equal(torch.get_rng_state(), drawn[0]) and random.getstate() == drawn[1]
    assert np.random.get_state()[1].tolist() == drawn[2]


def test_a_number_is_that_many_steps_and_time_that_is_left_is_shown(
    dense: TwoTowers, capsys: pytest.CaptureFixture[str]
) -> None:
    long, _ = compressed(dense, recover=Recover(steps=2, progress=False))
    assert capsys.readouterr().err == ""
    short, _ = compressed(dense, recover=2)
    assert equal(short, long)
    assert re.search(r"recovery: 100%.* 2/2 \[00:\d\d<00:00", capsys.readouterr().err)


def test_what_is_frozen_stays(dense: TwoTowers) -> None:
    model = copy.deepcopy(dense)
    model.text.requires_grad_(False)
    small, _ = compressed(model, recover=quick(steps=2))
    before, _ = compressed(model)
    assert equal(small.text, before.text) and not equal(small.vision, before.vision)
    model.requires_grad_(False)
    with pytest.raises(InputError, match="recover: no weight of the model is trained"):
        compressed(model, recover=2)


# -- how it learns ---------------------------------------------------------------------------------------------------


def test_the_rate_rises_in_a_line_and_falls_along_a_cosine() -> None:
    rates = [Recover(steps=10, rate=1.0, warm_up=0.2).rate_at(step) for step in range(10)]
    assert rates[:3] == [0.5, 1.0, 1.0] and rates[6] == pytest.approx(0.5)
    assert rates[2:] == sorted(rates[2:], reverse=True) and 0 < rates[-1] < 0.04
    assert Recover(steps=1).rate_at(0) == 1e-4


def test_matrices_decay_and_vectors_do_not(dense: TwoTowers) -> None:
    """A model that is its own teacher has no gradient: what moves its weights is the decay."""
    small, _ = compressed(dense, "dense", quick(steps=1, rate=0.1, warm_up=0, weight_decay=0.5), keep=1.0)
    for name, weight in small.named_parameters():
        torch.testing.assert_close(weight, dense.get_parameter(name) * (0.95 if weight.dim() > 1 else 1))


def test_the_norm_of_the_gradient_is_clipped(dense: TwoTowers) -> None:
    """AdamW's epsilon is large beside a gradient of 1e-12."""
    before, _ = compressed(dense)
    for clip, moves in ((1e-12, False), (1.0, True), (None, True)):
        small, _ = compressed(dense, recover=quick(clip=clip, weight_decay=0))
        gaps = [
            float((own - was).detach().abs().max())
            for own, was in zip(small.parameters(), before.parameters(), strict=True)
        ]
        assert (max(gaps) > 1e-4) is moves


def test_two_batches_make_one_step_as_a_batch_of_both_does(dense: TwoTowers) -> None:
    halves = [tuple(part[rows] for part in batch) for batch in TRAIN[:4] for rows in (slice(8), slice(8, None))]
    whole, _ = compressed(dense, recover=quick(steps=4, distil=0, batches=TRAIN[:4], rate=1e-3), loss=loss_of)
    parts, _ = compressed(
        dense, recover=quick(steps=4, distil=0, batches=halves, rate=1e-3, accumulate=2), loss=loss_of
    )
    for name, weight in whole.named_parameters():
        torch.testing.assert_close(parts.get_parameter(name), weight, atol=1e-3, rtol=0)


def test_passes_in_bfloat16_leave_weights_in_float32(dense: TwoTowers) -> None:
    exact, _ = compressed(dense, recover=quick(steps=20))
    small, _ = compressed(dense, recover=quick(steps=20, precision="bfloat16"))
    assert {p.dtype for p in small.parameters()} == {torch.float32} and not equal(small, exact)
    assert judged(small) == pytest.approx(judged(exact), rel=0.1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_of_half_precision_take_steps_that_are_smaller_than_their_last_digit(dtype: torch.dtype) -> None:
    """A weight of 0.2 has neighbours 1e-3 away in bfloat16: of single steps of 1e-4 none would be seen."""
    model = two_towers().to(dtype)
    batches = [(images.to(dtype), words) for images, words in TRAIN[:4]]
    small, plan = compressed(model, "omp", quick(steps=20, rate=1e-4), calibration=batches)
    before, _ = compressed(model, "omp", calibration=batches)
    moved = [(own != was)[was.abs() > 0.05] for own, was in zip(small.parameters(), before.parameters(), strict=True)]
    assert {p.dtype for p in small.parameters()} == {dtype} and torch.cat(moved).float().mean() > 0.2
    verify(small, plan, PATHS)


# -- checkpointing ---------------------------------------------------------------------------------------------------


def clip() -> CLIPModel:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = {"vocab_size": 40, "max_position_embeddings": 8, "bos_token_id": 38, "eos_token_id": 39}
    vision = {"image_size": 16, "patch_size": 8}
    return CLIPModel(CLIPConfig(vision_config=sizes | vision, text_config=sizes | text, projection_dim=16))


def seen(count: int = 2) -> list[dict[str, Tensor]]:
    source = torch.Generator().manual_seed(0)
    words = [torch.randint(38, (4, 8), generator=source) for _ in range(count)]
    return [{"input_ids": w, "pixel_values": torch.randn(4, 3, 16, 16, generator=source)} for w in words]


class Computed:
    """Counts how often a layer computes."""

    def __init__(self, model: nn.Module, layer: str) -> None:
        self.times = 0
        model.get_submodule(layer).register_forward_pre_hook(self)

    def __call__(self, *_: Any) -> None:
        self.times += 1


@pytest.mark.parametrize("library", ["timm and open_clip", "transformers"])
def test_layers_computed_again_learn_the_same(library: str, dense: TwoTowers) -> None:
    model: nn.Module = dense
    how: dict[str, Any] = {"forward": forward}
    layer = "vision.blocks.0.mlp"
    if library == "transformers":
        model, layer = clip(), "vision_model.encoder.layers.0.mlp"
        how = {"towers": {"v": "vision_model", "t": "text_model"}, "keep": 0.7, "calibration": seen()}
        how["forward"] = lambda model, batch: model(**batch)
    computed: list[Computed] = []

    def outputs(model: nn.Module, batch: Any) -> Any:
        if model.training and not computed:  # the small model, the first time
            computed.append(Computed(model, layer))
        return how["forward"](model, batch)

    plain, _ = compressed(model, recover=quick(steps=2, outputs=outputs), **how)
    once = computed.pop().times
    small, _ = compressed(model, recover=quick(steps=2, outputs=outputs, checkpointing=True), **how)
    assert computed.pop().times == 2 * once > 0
    assert equal(small, plain)


def test_afterwards_layers_are_computed_once_again_as_before() -> None:
    model = clip().train()
    with recomputing(model):
        assert model.vision_model.is_activation_checkpointing
        assert model.text_model.get_input_embeddings()._forward_hooks
    assert not model.is_activation_checkpointing and not model.text_model.get_input_embeddings()._forward_hooks
    model.activation_checkpointing_enable()
    with recomputing(model):
        pass
    assert model.is_activation_checkpointing


# -- what is learned from ---------------------------------------------------------------------------------------------


@dataclass
class Said:
    pred_logits: Tensor
    boxes: Tensor
    note: str = ""


x = torch.ones(2, 3)
Named = namedtuple("Named", "a b")


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (x, "output"),
        ((x, 3, x.long(), x.sum(), x), "0 4"),
        ([x], "0"),
        ({"logits": x, "last_hidden_state": x, "attentions": x, "loss": x.sum()}, "last_hidden_state logits"),
        ({"image_features": x, "text_features": x, "logit_scale": x.sum()}, "image_features text_features"),
        ({"boxes": x, "scores": x}, "boxes scores"),
        (Named(x, 1), "a"),
        (Said(x, x), "pred_logits"),
    ],
)
def test_logits_and_final_states_are_taken_else_all_tensors(given: Any, names: str) -> None:
    assert " ".join(sorted(tensors(given))) == names


def test_of_a_model_of_transformers_logits_and_embeddings_are_taken() -> None:
    given = clip()(**seen(1)[0])
    assert set(tensors(given)) == {"logits_per_image", "logits_per_text", "text_embeds", "image_embeds"}
    assert set(tensors(clip().text_model(seen(1)[0]["input_ids"]))) == {"last_hidden_state", "pooler_output"}
    assert set(tensors(Said(x, x), every=True)) == {"pred_logits", "boxes"}


def test_distances_by_hand() -> None:
    """At T = 2 logits of (2 ln 3, 0) are chances of 3/4 and 1/4: KL(they || halves) = 3/4 ln 1.5 + 1/4 ln 0.5."""
    dense = torch.tensor([[2 * np.log(3.0), 0.0]])
    assert float(divergence(torch.zeros(1, 2), dense, 2.0)) == pytest.approx(
        4 * (0.75 * np.log(1.5) + 0.25 * np.log(0.5))
    )
    assert float(error(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 2.0]))) == pytest.approx(1 / 5)
    assert float(error(torch.zeros(2), torch.zeros(2))) == 0


def test_a_function_of_the_user_says_what_is_learned(dense: TwoTowers) -> None:
    """Only what the vision tower gives: nothing of the text tower learns."""
    how = quick(outputs=lambda model, batch: {"vision": model.vision(batch[0])}, weight_decay=0)
    (before, _), (small, _) = compressed(dense), compressed(dense, recover=how)
    assert equal(before.text, small.text) and not equal(before.vision, small.vision)


# -- held out ----------------------------------------------------------------------------------------------------------


def test_the_weights_that_do_best_on_held_out_batches_are_kept(dense: TwoTowers) -> None:
    """A single batch is soon learned by heart."""
    looks: list[dict[str, float]] = []
    fields = {"steps": 24, "rate": 5e-3, "distil": 0, "batches": TRAIN[:1], "judge_every": 4, "patience": None}
    small, _ = compressed(dense, recover=quick(**fields, held_out=HELD_OUT, log=looks.append), loss=loss_of)
    values = [look["held out"] for look in looks]
    assert [look["step"] for look in looks] == [*range(0, 25, 4)]
    assert set(looks[1]) == {"step", "rate", "loss", "held out"}
    assert min(values) not in (values[0], values[-1]) and judged(small) == pytest.approx(min(values))


def test_it_ends_early_where_looks_get_no_better_and_gives_back_what_was_best(dense: TwoTowers) -> None:
    looks: list[dict[str, float]] = []
    how = quick(steps=40, rate=10.0, held_out=HELD_OUT, judge_every=2, patience=3, log=looks.append)
    small, _ = compressed(dense, recover=how)
    assert [look["step"] for look in looks] == [0, 2, 4, 6]
    assert equal(small, compressed(dense)[0])


# -- killed ------------------------------------------------------------------------------------------------------------


class Loose(nn.Module):
    """Drops out, and keeps running means."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.last = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)

    def forward(self, batch: list[Tensor]) -> Tensor:
        return self.last(F.dropout(self.norm(self.first(batch[0])).relu(), 0.2, self.training))


def shuffled(workers: int = 0, generator: torch.Generator | None = None) -> DataLoader:
    source = torch.Generator().manual_seed(0)
    data = TensorDataset(torch.randn(20, 6, generator=source))
    return DataLoader(data, batch_size=4, shuffle=True, num_workers=workers, generator=generator)


class Killed(Exception):
    pass


def killed_at(step: int) -> Callable[[dict[str, float]], None]:
    def log(record: dict[str, float]) -> None:
        if record["step"] == step:
            raise Killed

    return log


@pytest.mark.slow
@pytest.mark.parametrize("batches", ["a list", "shuffled", "shuffled by a generator", "shuffled by workers"])
@pytest.mark.parametrize("moment", [1, 4, 7, 12])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_run_that_was_stopped_goes_on_and_ends_the_same(
    moment: int, batches: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    """Weights, running means, AdamW's moments, weights in float32, what was best, and what was measured."""
    data: Any = shuffled(2 * ("workers" in batches), torch.Generator() if "generator" in batches else None)
    data = [*data] if batches == "a list" else data

    def run(name: str, stop: int | None = None) -> tuple[nn.Module, dict[str, Tensor], dict[str, str]]:
        how = quick(steps=12, accumulate=2, judge_every=1, held_out=shuffled(), patience=None, save_every=0)
        how = how.model_copy(update={"folder": tmp_path / name, "batches": data, "log": stop and killed_at(stop)})
        small, _ = snp.compress(
            Loose().to(dtype), "omp", sparsity=0.5, groups={"all": ["first.weight", "last.weight"]},
            forward=lambda model, batch: model([batch[0].to(dtype)]), recover=how,
        )  # fmt: skip
        with safe_open(tmp_path / name / state.FILE, framework="pt") as file:
            return small, {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118

    whole, tensors, told = run("whole")
    with pytest.raises(Killed):
        run("stopped", moment)
    for again in ("goes on", "is done, and not done again"):
        torch.manual_seed(99)
        small, same, tells = run("stopped")
        assert equal(small, whole) and tells == told, again
        assert same.keys() == tensors.keys() and all(torch.equal(same[name], tensors[name]) for name in same), again


SCRIPT = """
import os, signal, sys
from test_recover import HELD_OUT, compressed, quick, two_towers

def log(record):
    if record["step"] == 4:
        os.kill(os.getpid(), signal.SIGKILL)

how = quick(folder=sys.argv[1], save_every=0, judge_every=1, held_out=HELD_OUT[:1], log=log)
compressed(two_towers(), "snp", how)
"""


@pytest.mark.slow
def test_a_killed_process_goes_on_without_deciding_again_and_ends_to_the_bit(tmp_path: Path) -> None:
    how = quick(save_every=0, judge_every=1, held_out=HELD_OUT[:1])
    whole, plan = compressed(two_towers(), "snp", how)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path)], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir()] == [state.FILE]

    def again(parameters: Any) -> Any:
        raise AssertionError("it decides again")

    how = how.model_copy(update={"folder": tmp_path})
    small, same = compressed(two_towers(), "snp", how, optimizer=again)
    assert same == plan and equal(small, whole)


def test_a_stream_begins_anywhere_and_draws_the_same() -> None:
    def drawn(number: int, within: int, count: int) -> list[tuple[list[float], int, float]]:
        source = stream(shuffled(), 7, number, within)
        return [(batch[0].flatten().tolist(), gone, float(torch.rand(()))) for batch, gone in islice(source, count)]

    whole = drawn(0, 0, 13)
    assert [gone for _, gone, _ in whole] == [1, 2, 3, 4, 5] * 2 + [1, 2, 3]
    assert whole[0][0] != whole[5][0]
    for number in range(1, 12):
        assert drawn(number, whole[number - 1][1], 13 - number) == whole[number:]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"recover": {"rate": 1e-3}},
            r"recover\.safetensors: was left by another call: recover\.rate was 0.002, now 0.001",
        ),
        ({"seed": 1}, "seed was 0, now 1"),
        ({"keep": 0.6}, "size was .*0.45.* now .*0.6"),
        ({"method": "cross-modal", "keep": 0.6}, "method was .* now .*cross-modal"),
        ({"model": two_towers(3)}, "model was [0-9a-f]+, now [0-9a-f]+"),
        ({}, "cannot be read"),
    ],
)
def test_a_state_of_another_call_is_named_and_not_gone_on_from(
    change: dict[str, Any], said: str, dense: TwoTowers, tmp_path: Path
) -> None:
    how = {"model": dense, "method": "magnitude-structured", "recover": quick(steps=2, folder=tmp_path)}
    compressed(**how)
    if not change:
        (tmp_path / state.FILE).write_bytes((tmp_path / state.FILE).read_bytes()[:-9])
    with pytest.raises(InputError, match=said) as error:
        compressed(**how | change | {"recover": quick(steps=2, folder=tmp_path, **change.get("recover", {}))})
    assert "\n" not in str(error.value) and "another folder, or delete" in str(error.value)


# -- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"steps": 0}, r"recover\.steps: 0: Input should be greater than 0"),
        ({}, r"recover\.steps: is missing"),
        ({"stepz": 3}, r"recover\.stepz: is no field of it \(fields of Recover: steps, rate"),
        ({"steps": 2, "rate": -1.0}, r"recover\.rate: -1.0"),
        ({"steps": 2, "rate": float("inf")}, r"recover\.rate: inf: Input should be a finite number"),
        ({"steps": 2, "warm_up": 1}, r"recover\.warm_up: 1"),
        ({"steps": 2, "precision": "float16"}, r"recover\.precision: 'float16'"),
        ({"steps": 2, "outputs": "logits"}, r"recover\.outputs: 'logits': Input should be callable"),
    ],
)
def test_a_field_that_cannot_be_is_named(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as error:
        snp.Recover(**fields)
    assert "\n" not in str(error.value)


def nan_at(step: int) -> Callable[[nn.Module, Batch], Tensor]:
    calls: list[int] = []

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        calls.append(len(calls))
        return loss_of(model, batch) * (float("nan") if len(calls) == step else 1)

    return loss


def unlike(model: nn.Module, batch: Batch) -> Tensor:
    return model(*batch)[:, : 4 if model.training else 5]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"recover": True}, "recover: True is no Recover"),
        ({"recover": "500"}, "recover: '500' is no Recover"),
        ({"recover": 0}, r"recover\.steps: 0"),
        ({"calibration": ()}, "calibration: holds no batch"),
        ({"calibration": (), "recover": quick(batches=[])}, r"recover\.batches: holds no batch"),
        ({"recover": quick(batches=iter(TRAIN))}, r"recover\.batches: a list_iterator gives its batches once"),
        ({"recover": quick(held_out=[])}, r"recover\.held_out: holds no batch"),
        ({"recover": quick(held_out=3)}, r"recover\.held_out: of type int"),
        ({"recover": quick(distil=0)}, "recover: with neither distil nor a loss"),
        ({"recover": quick(distil=0, task=0), "loss": loss_of}, "recover: with neither distil nor a loss"),
        ({"recover": quick(folder="x"), "scores": True}, "scores: are of a decision"),
        ({"forward": lambda model, batch: None}, "outputs: there is no tensor to distil in a NoneType"),
        ({"forward": unlike}, r"outputs\.output: has shape \[16, 4\] in the small model and \[16, 5\] in"),
        ({"forward": lambda m, b: {str(m.training): m(*b)}}, r"outputs\.False: only the dense model gives it"),
        ({"forward": lambda m, b: m(*b).detach()}, "outputs: depend on no weight"),
        ({"forward": lambda m, b: m(*b) / 0}, r"outputs\.output: is not finite in the dense model"),
        ({"loss": lambda model, batch: None}, "loss: gave None, not one number"),
        ({"loss": nan_at(3)}, "recover: loss is not finite at step 3 of 6: nan"),
        ({"recover": quick(held_out=TRAIN[:2]), "loss": nan_at(1)}, "held_out: gives a loss that is not finite after"),
        ({"recover": quick(rate=1e30)}, "not finite at step"),
    ],
)  # fmt: skip
def test_what_recovery_cannot_use_is_one_line(changes: dict[str, Any], said: str, dense: TwoTowers) -> None:
    with pytest.raises(InputError, match=said) as error:
        compressed(dense, **{"recover": quick(), **changes})
    assert "\n" not in str(error.value)


def test_a_model_that_cannot_compute_layers_again_is_named() -> None:
    how = quick(checkpointing=True, batches=shuffled())
    with pytest.raises(InputError, match=r"recover\.checkpointing: Loose has neither gradient_checkpointing_enable"):
        snp.compress(Loose(), "omp", sparsity=0.5, groups={"all": ["first.weight"]}, recover=how)


def test_a_function_that_passes_the_dense_model_itself_is_found_out(dense: TwoTowers) -> None:
    with pytest.raises(InputError, match="outputs: depend on no weight"):
        compressed(dense, recover=quick(), forward=lambda _, batch: dense(*batch))
    with pytest.raises(InputError, match="loss: depends on no weight"):
        compressed(dense, recover=quick(), loss=lambda _, batch: loss_of(dense, batch))
    assert all(p.requires_grad and p.grad is None for p in dense.parameters())


class Empty:
    """Has no length, and no batch."""

    def __iter__(self) -> Any:
        return iter(())


def test_batches_that_turn_out_to_be_none_are_named(dense: TwoTowers) -> None:
    with pytest.raises(InputError, match="recover: there is no batch"):
        compressed(dense, recover=quick(batches=Empty()))
