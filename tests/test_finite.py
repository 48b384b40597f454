"""What is no finite number ends a run by name, and becomes neither a weight, nor a box, nor a figure."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_task_evaluation as tasks
import test_vqa
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from synthetic import MANIFEST, cost, finetuned
from test_evaluators import TestDetection, TestPhrases
from test_loop import ALL, PHASE, batch, losses, model, snp_session, stream
from torch import Tensor, nn

from snp.compression.plan import Plan
from snp.compression.registry import get
from snp.compression.surgery import apply
from snp.compression.tower import towers_of
from snp.data.batch import Batch
from snp.data.tokens import Vocabulary
from snp.errors import InputError
from snp.experiment.labels import find
from snp.experiment.recipes import Phase
from snp.experiment.spec import Pretrain, dense
from snp.files import not_finite, write_json
from snp.models.glip import Detection
from snp.models.mdetr import TOWERS
from snp.runs.store import Store
from snp.tasks import average_precision, detect, grounding, phrases, rec, vqa
from snp.training import held_out, saved, stages
from snp.training.loop import Loop
from snp.training.setup import Setup

KINDS = ("plain", "proposals", "warm-up", "glip")
NAN, INF = float("nan"), float("inf")


# -- training ----------------------------------------------------------------------------------------------------------


def training(folder: Path, change: Callable[[dict[str, Tensor], nn.Module], dict[str, Tensor]], at: int) -> Loop:
    """A loop that saves after every step, and whose losses are changed from step `at` on, from 0."""

    def changed(model: nn.Module, batch: Batch, overrides: Any, step: int) -> dict[str, Tensor]:
        found = losses(model, batch, overrides, step)
        return found if step < at else change(found, model)

    return Loop(model(), PHASE, stream, changed, folder, seed=0)


def without_a_slope(found: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """A finite loss, zero, whose gradient is infinite times zero."""
    weight = next(model.parameters())
    return found | {"sharp": (weight - weight.detach()).abs().sqrt().sum()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda found, _: found | {"giou": found["giou"] * NAN}, "loss 'giou' is nan"),
        (lambda found, _: found | {"l1": found["l1"] + INF}, "loss 'l1' is inf"),
        (without_a_slope, "norm of the gradient is nan"),
    ],
)
@pytest.mark.parametrize("at", [0, 5])
def test_a_step_that_is_no_number_changes_no_weight_and_the_state_before_it_stays(
    change: Any, problem: str, at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snp.training.loop.SAVE_EVERY_SECONDS", 0)
    run = training(tmp_path, change, at)
    with pytest.raises(InputError, match=rf"{tmp_path.name}: step {at + 1} of 8: {problem}: training has diverged"):
        run.run()
    assert all(parameter.isfinite().all() for parameter in run.parameters)
    assert (tmp_path / "state.pt").exists() == (at > 0)
    if at:
        state = torch.load(tmp_path / "state.pt", weights_only=True)
        assert state["step"] == at
        assert all(torch.equal(state["weights"][n], p) for n, p in zip(run.names, run.parameters, strict=True))
    assert all(json.dumps(record, allow_nan=False) for record in run.curve)


def test_weights_that_overflow_in_a_step_are_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snp.training.loop.SAVE_EVERY_SECONDS", 0)
    run = Loop(model(), PHASE.model_copy(update={"lr": 3e38, "warm_up": 0}), stream, losses, tmp_path, seed=0)
    with pytest.raises(InputError, match=r"step 1 of 8: weight \S+ is -?(nan|inf)"):
        run.run()
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("phase", [PHASE, ALL], ids=["plainly", "all-options"])
def test_a_model_that_begins_broken_ends_at_its_first_step_whichever_it_is(
    kind: str, phase: Phase, tmp_path: Path
) -> None:
    """Also MDETR, whose matching of queries and boxes cannot be done with what is no number."""
    network = model(kind)
    nn.init.constant_(getattr(network, "model", network).vision.norm.bias, NAN)
    with pytest.raises(InputError, match=r"step 1 of 8: loss '\w+' is nan"):
        Loop(network, phase, stream, losses, tmp_path, seed=0).run()


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_a_query_that_is_no_number_is_matched_so_that_the_loss_is_none_either(value: float) -> None:
    one = batch(0)
    with torch.no_grad():
        out = model()(*one.inputs)
    boxes = out.boxes_KBQ4[-1].clone()
    boxes[:, 3] = value
    found = grounding.match(out.logits_KBQS[-1], boxes, one)
    assert (found == 3).any(1).all() and (found[one.valid_BM] >= 0).all()


def test_a_structure_step_whose_loss_is_no_number_names_the_batch(tmp_path: Path) -> None:
    network = model()
    session, held = snp_session(network, PHASE.steps)
    own = held_out.own_passes(network, PHASE, lambda: f"run: held-out batch {held.position}")
    session.problem = replace(session.problem, **own)
    run = Loop(
        network,
        PHASE,
        stream,
        losses,
        tmp_path,
        0,
        session=session,
        cursor=held,
        apply=lambda m, plan: apply(m, plan, TOWERS),
    )
    run.progress = lambda captions: captions and nn.init.constant_(network.slot_head.bias, NAN)
    run.losses = lambda *given: {"zero": sum(p.sum() * 0 for p in network.vision.parameters())}
    with pytest.raises(InputError, match="run: held-out batch 9: the model's loss is nan"):
        run.run()


def test_what_a_method_logs_is_finite_also_where_it_learns_nothing_of_a_kind(tmp_path: Path) -> None:
    for off in ("prune", "cross", "blockwise"):
        problem = snp_session(model(), PHASE.steps)[0].problem
        logged = get("snp", **{off: False, "every": 2}).start(problem).log()
        assert not_finite(logged) is None and ("spread" in logged) == (off != "prune")


def test_a_run_with_weights_that_overflow_fails_by_name_and_leaves_no_result(
    smoke_dense: Store, smoke_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SNP_DATA", str(smoke_data))
    vision = saved.load(smoke_dense.folder(Pretrain(scale="smoke", data="scenes")))[0].vision
    huge = {name: tensor.detach().clone() for name, tensor in vision.named_parameters()}
    huge["blocks.0.mlp.fc1.bias"] += torch.finfo(torch.float32).max  # finite, unlike what it makes
    huge["blocks.0.mlp.fc2.weight"] += 100
    save_file(huge, tmp_path / "huge.safetensors")
    setup = Setup(vision_weights=str(tmp_path / "huge.safetensors"))
    run = dense("smoke", "scenes", "glip", setup.weights)
    store = Store(tmp_path / "runs", base=smoke_dense)
    with pytest.raises(InputError, match=r"scenes-glip-pretrain.*: step 1 of 20: loss 'word' is nan"):
        stages.run(run, store, setup=setup)
    assert store.state(run) == "failed" and "step 1 of 20: loss 'word' is nan" in str(store.failure(run))
    assert {path.name for path in store.folder(run).iterdir()} == {"spec.json", "failed.json"}


# -- what is written -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [NAN, INF, -INF, np.float64(NAN)])
def test_json_that_others_could_not_read_is_not_written(value: float, tmp_path: Path) -> None:
    path = write_json(tmp_path / "a.json", {"kept": 1})
    with pytest.raises(InputError, match=r"a\.json: metrics\.splits\.1\.AP: is not finite"):
        write_json(path, {"a": [1.0, "x", None], "metrics": {"splits": [{"AP": 0.5}, {"AP": value}]}})
    assert json.loads(path.read_text()) == {"kept": 1}
    assert not_finite([1, 2.5, True, "nan", {"x": (0.0,)}]) is None


def test_figures_that_are_no_numbers_are_no_result_whether_or_not_their_kind_asks_for_them(tmp_path: Path) -> None:
    row, store = find("scenes/snp@60", "smoke"), Store(tmp_path)
    for field in ("projection_gap", "flops_ratio", "something_more"):
        with pytest.raises(InputError, match=rf"result\.json: metrics: {field}: is not finite"):
            store.save(row.compress(0), MANIFEST, cost(row, **{field: NAN}))
    tuned = finetuned("refcoco", 0.5)
    tuned["splits"]["testA"]["by_type"]["relation"]["recall"] = INF
    with pytest.raises(InputError, match=r"metrics: splits\.testA\.by_type\.relation\.recall: is not finite"):
        store.save(row.finetune(0, "refcoco"), MANIFEST, tuned)
    assert not list(store.results())
    store.save(row.compress(0), MANIFEST, cost(row))
    path = store.folder(row.compress(0)) / "result.json"
    path.write_text(path.read_text().replace("0.75", "NaN"))  # as one of another program may have it
    with pytest.raises(InputError, match="metrics: flops_ratio: is not finite"):
        store.result(row.compress(0))


@pytest.mark.parametrize("kind", ["plain", "glip"])
def test_a_model_that_is_no_number_is_not_saved(kind: str, tmp_path: Path) -> None:
    network = model(kind)
    with torch.no_grad():
        network.text.ln_final.bias[2] = -INF
    with pytest.raises(InputError, match=r"text\.ln_final\.bias: is not finite"):
        saved.save(tmp_path, network, Plan.dense(towers_of(network, TOWERS)), Vocabulary.from_captions(["a star"]))
    assert not list(tmp_path.iterdir())


def test_a_saved_model_that_is_no_number_is_not_loaded(smoke_dense: Store, tmp_path: Path) -> None:
    shutil.copytree(smoke_dense.folder(Pretrain(scale="smoke", data="scenes")), tmp_path / "run")
    with safe_open(tmp_path / "run" / "weights.safetensors", "pt") as file:
        tensors, about = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    tensors["box_head.0.weight"][1, 2] = NAN
    save_file(tensors, tmp_path / "run" / "weights.safetensors", about)
    with pytest.raises(InputError, match=r"weights\.safetensors: box_head\.0\.weight: .*not finite"):
        saved.load(tmp_path / "run")


# -- evaluators ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [NAN, INF, -INF])
class TestScores:
    def test_of_expressions(self, value: float) -> None:
        boxes, ranks, types = torch.full((3, 2, 4), 0.5), torch.ones(3, 2), np.array(["a"] * 3)
        assert rec.score(boxes, ranks, boxes[:, 0], types)["precision@1"] == 1
        for compatible in (False, True):
            for given in (boxes, ranks):
                broken = given.clone()
                broken[1, 1] = value
                pair = (broken, ranks) if given is boxes else (boxes, broken)
                with pytest.raises(InputError, match=r"expression 1: .* is not finite"):
                    rec.score(*pair, boxes[:, 0], types, compatible)

    def test_of_phrases(self, value: float) -> None:
        entries = TestPhrases().sentences(0)
        predictions = TestPhrases().predictions(entries, 0)
        key = next(key for key, (boxes, _) in predictions.items() if len(boxes) > 1)
        for place in (0, 1):
            broken = [array.copy() for array in predictions[key]]
            broken[place][0, 1] = value
            with pytest.raises(InputError, match=f"picture {key[0]}, sentence {key[1]}: a box or score is not finite"):
                phrases.score(phrases.Truth.from_entries(entries), predictions | {key: tuple(broken)})

    def test_of_boxes_of_classes(self, value: float, tmp_path: Path) -> None:
        instances, detections = TestDetection().case(0)
        path = tmp_path / "instances.json"
        path.write_text(json.dumps(instances))
        for place in range(3):
            broken = [array.astype(float) for array in detections[2]]
            broken[place][-1] = value
            with pytest.raises(InputError, match="image 2: a box or score is not finite"):
                average_precision.score(path, detections | {2: tuple(broken)})

    @pytest.mark.parametrize("field", ["logits_BNL", "deltas_BN4", "centre_BN"])
    def test_of_prompts(self, value: float, field: str) -> None:
        with torch.no_grad():
            out = tasks.glip()(*tasks.batch_of(False, False).inputs)
        getattr(out, field)[1, 5] = value
        with pytest.raises(InputError, match="prompt 1: what the model says of it is not finite"):
            detect.detections(out, torch.ones(1, out.logits_BNL.shape[2], dtype=torch.bool))


def spoiled(network: nn.Module, at: int) -> nn.Module:
    """The model, which from its pass number `at` on, from 0, says of the last caption what is no number."""
    passes = [0]

    def spoil(module: nn.Module, inputs: Any, out: Any) -> None:
        if passes[0] >= at:
            (out.judged[0] if isinstance(out, Detection) or not out.answers else out.answers["obj"])[-1] = NAN
        passes[0] += 1

    network.register_forward_hook(spoil)
    return network


@pytest.mark.slow
def test_a_model_that_says_no_number_of_an_entry_has_no_figure_and_the_entry_is_named() -> None:
    words = tasks.dataset(
        [tasks.entry(i, tasks.SENTENCE, boxes=((1.0, 2.0, 30.0, 40.0),), spans=(((0, 1),),)) for i in range(4)]
    )
    with pytest.raises(InputError, match=r"toy, entry 2 \(picture 2\.png\): what the model says of it is not finite"):
        rec.evaluate(spoiled(tasks.mdetr(), 2), words, captions=1)
    sentences = tasks.dataset(tasks.sentences(tasks.mdetr())[:6])
    with pytest.raises(InputError, match=r"toy, entry \d+ \(picture \d\.png\)"):
        phrases.evaluate(spoiled(tasks.mdetr(), 1), sentences, sentences=1)
    with pytest.raises(InputError, match=r"toy, entry \d+ \(picture \d\.png\)"):
        vqa.evaluate(spoiled(test_vqa.model_of(), 1), test_vqa.dataset(test_vqa.questions()), questions=1)
    prompts, entries = tasks.asked()
    truth = tasks.instances(tasks.glip())
    with pytest.raises(InputError, match=r"toy, entry 31 \(picture 3\.png\)"):
        detect.evaluate(spoiled(tasks.glip(), 3), tasks.dataset(entries), truth, prompts, tasks.CATEGORIES, 1)
    with pytest.raises(InputError, match="caption 2: what the model says of it is not finite"):
        detect.ground(spoiled(tasks.glip(), 0), tasks.batch_of(False, False))


def test_no_expression_at_all_has_no_figure() -> None:
    with pytest.raises(InputError, match="expressions: there are none"):
        rec.score(torch.zeros(0, 2, 4), torch.zeros(0, 2), torch.zeros(0, 4), np.array([]))
    nothing = tasks.dataset([tasks.entry(0, tasks.SENTENCE)]).subset(np.arange(0))
    with pytest.raises(InputError, match="expressions: there are none"):
        rec.evaluate(tasks.mdetr(), nothing)
