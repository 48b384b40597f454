"""Two processes do what one does: they train, compress, evaluate and go on; and never differ from each other."""

import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_task_evaluation as tasks
import test_vqa
import torch
from test_loop import ALL, PHASE, PLAIN, loop, model, snp_session
from test_loop import batch as batch_of
from test_loop import losses as losses_of
from torch import nn

from snp import ranks
from snp.compression.budget import Budget
from snp.compression.problem import Problem
from snp.compression.registry import get
from snp.compression.surgery import apply
from snp.compression.tower import towers_of
from snp.errors import InputError
from snp.experiment.recipes import Phase
from snp.experiment.spec import Compress, Pretrain, Run, dense
from snp.models.config import SMOKE
from snp.models.mdetr import MDETR, TOWERS
from snp.runs.store import Store
from snp.tasks import detect, phrases, rec, vqa
from snp.tasks.passes import passes
from snp.training import held_out, saved, stages
from snp.training.cursor import Cursor
from snp.training.prepare import Source
from snp.training.setup import Setup
from snp.training.stopping import Stopped, catching

pytestmark = pytest.mark.slow

STEPS, PATIENCE = 50, 120
DENSE = dense("smoke", "scenes")


# -- two processes -----------------------------------------------------------------------------------------------


class Pair:
    """Two processes that train together and do what they are handed, both the same; its results by rank."""

    def __init__(self, context: BaseContext) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.ends, self.processes = [], []
        for rank in range(2):
            here, there = context.Pipe()
            process = context.Process(target=serve, args=(there, rank, port), daemon=True)
            process.start()
            self.ends.append(here)
            self.processes.append(process)

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        for end in self.ends:
            end.send((function, arguments))
        results = []
        for end in self.ends:
            assert end.poll(PATIENCE), "the processes wait for each other in vain"
            done, found = end.recv()
            assert done, found
            results.append(found)
        return results

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.join()


def serve(end: Connection, rank: int, port: int) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    with ranks.together():
        while True:
            function, arguments = end.recv()
            try:
                end.send((True, function(*arguments)))
            except BaseException:
                end.send((False, traceback.format_exc()))
                raise


@pytest.fixture(scope="module")
def pair(processes: BaseContext) -> Iterator[Pair]:
    two = Pair(processes)
    yield two
    two.close()


def bits(values: Any) -> list[bytes]:
    """Tensors as bytes, to be compared across processes."""
    return [value.detach().contiguous().numpy().tobytes() for value in values]


# -- training ----------------------------------------------------------------------------------------------------


class Long(Setup):
    """As many steps as are wanted, each of them logged."""

    length: int
    parts: int = 1

    def phase(self, run: Run) -> Phase:
        longer = {"steps": self.length, "accumulate": self.parts, "log_every": 1, "crop": 0.5}
        return super().phase(run).model_copy(update=longer)


def train(run: Run, root: Path, base: Path, steps: int, parts: int = 1) -> None:
    stages.run(run, Store(root, base=Store(base)), setup=Long(length=steps, parts=parts))


def compression(method: str, parent: Pretrain = DENSE, **options: Any) -> Compress:
    return Compress(scale="smoke", data="scenes", method=method, keep=0.6, parent=parent, options=options)


# Half of the steps learn SNP's structure, in a step of the hypernetwork every second; ten are left after the cut.
SNP = compression("snp", every=2, freeze=0.6, apply_at=0.8)
GLIP = dense("smoke", "scenes", "glip")
# Sums in another order differ in the last bit, which now and then decides between two queries: from there on losses
# differ by per mille and more (so did seed 0 without crops, after 44 steps). Seed 3 meets no such tie; below, seed 0 is
# compared to the bit.
PLAINLY = DENSE.model_copy(update={"seed": 3})


@pytest.mark.parametrize(
    ("run", "steps"),
    [
        (PLAINLY, STEPS),
        (SNP, STEPS),
        (compression("snp", every=2, freeze=0.4, apply_at=0.5, align="loss"), 12),
        (compression("upop", interval=5), 20),
        (GLIP, 6),
    ],
    ids=["plain", "snp", "snp-loss", "upop", "glip"],
)
def test_two_processes_with_half_the_batch_give_the_losses_of_one(
    run: Run, steps: int, pair: Pair, smoke_dense: Store, tmp_path: Path
) -> None:
    base = smoke_dense.root
    pair(train, run, tmp_path / "two", base, steps)
    train(run, tmp_path / "one", base, steps)
    one, two = (Store(tmp_path / name, base=Store(base)) for name in ("one", "two"))
    curves = [store.result(run).curve for store in (one, two)]
    assert [len(curve) for curve in curves] == [steps, steps]
    for expected, found in zip(*curves, strict=True):
        assert found.keys() == expected.keys()
        names = [name for name, value in expected.items() if "/" not in name and isinstance(value, float)]
        scale = sum(expected[name] for name in names if not name.startswith(("hyper_", "budget", "spread", "lr")))
        for name in names:
            assert found[name] == pytest.approx(expected[name], abs=1e-4 * max(scale, 1)), (expected["step"], name)
    (small, plan, _), (also_small, same_plan, _) = (saved.load(store.folder(run)) for store in (one, two))
    assert plan.to_json() == same_plan.to_json()
    for (name, weight), other in zip(small.named_parameters(), also_small.parameters(), strict=True):
        torch.testing.assert_close(other, weight, rtol=1e-2, atol=2e-3, msg=lambda text, n=name: f"{n}: {text}")


def plainly(folder: Path, kind: str, accumulate: int) -> tuple[list[dict[str, Any]], list[bytes]]:
    """Curve and weights of a short training; each process has its share of every batch."""
    network = MDETR(PLAIN.model_copy(update={"dropout": 0.0})) if kind == "plain" else model(kind)
    with torch.no_grad():
        for i, parameter in enumerate(network.parameters()):
            parameter += 0.01 * ranks.rank() * (i == 3)  # what it begins with is rank 0's
    run = loop(folder, PHASE.model_copy(update={"accumulate": accumulate, "log_every": 1}), network)
    run.stream = stream
    trained = run.run()
    return run.curve, bits(trained.parameters())


def stream(start: int) -> Iterator[Any]:
    while True:
        yield batch_of(start).part(*ranks.share())
        start += 1


def test_two_processes_pretrain_to_the_bit_as_one_that_takes_its_batches_in_two_parts(
    pair: Pair, tmp_path: Path
) -> None:
    pair(train, DENSE, tmp_path / "two", tmp_path, STEPS)
    train(DENSE, tmp_path / "one", tmp_path, STEPS, 2)
    one, two = (Store(tmp_path / name).result(DENSE) for name in ("one", "two"))
    assert one.curve == two.curve and len(one.curve) == STEPS
    assert one.metrics == two.metrics
    weights = [Store(tmp_path / name).folder(DENSE) / "weights.safetensors" for name in ("one", "two")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


@pytest.mark.parametrize("kind", ["plain", "warm-up", "glip"])
def test_two_processes_are_to_the_bit_one_that_takes_its_batches_in_two_parts(
    kind: str, pair: Pair, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    first, second = pair(plainly, tmp_path / "two", kind, 1)
    torch.manual_seed(0)
    curve, weights = plainly(tmp_path / "one", kind, 2)
    assert first == second
    assert first[0] == curve and len(curve) == PHASE.steps
    assert first[1] == weights


# -- the structure -----------------------------------------------------------------------------------------------


def structures() -> tuple[list[bytes], list[bytes], list[float], list[list[float]]]:
    """Random structures and hypernetwork after some steps, their task losses, and the gradient of the last one."""
    torch.manual_seed(0)
    network = MDETR(PLAIN)
    towers = towers_of(network, TOWERS)
    held = Cursor(lambda start: map(batch_of, range(1000 + start, 2000)))
    budget = Budget.from_model(network, towers, 0.7)
    problem = Problem(network, towers, budget, 20, heldout=held, **held_out.own_passes(network, PHASE))
    session: Any = get("snp", every=1, freeze=0.4, apply_at=0.5).start(problem)
    drawn, losses = [], []
    for step in range(6):
        session.after_step(step)
        losses.append(session.measured["hyper_task"])
        sample = session._sample()
        drawn += [v for vectors in (sample.keep, sample.cross, sample.blockwise) for v in vectors.values()]
    parameters = list(session.hyper.parameters())
    slopes = [parameter.grad.flatten().tolist() for parameter in parameters if parameter.grad is not None]
    return bits(drawn), bits(parameters), losses, slopes


def test_all_processes_draw_the_same_structures_and_learn_the_same_hypernetwork(pair: Pair) -> None:
    first, second = pair(structures)
    one = structures()
    assert first == second
    assert first[0] == one[0] and len({*first[0]}) > 6
    assert first[2] == pytest.approx(one[2], rel=1e-4)
    for found, expected in zip(first[3], one[3], strict=True):
        assert found == pytest.approx(expected, rel=1e-2, abs=1e-4)


def slopes(through: bool) -> tuple[float, list[bytes], bool]:
    """Value and gradients of a loss in tensors, one of which only rank 0 uses and one nobody."""
    tensors = [torch.full((2,), 1.0 + i, requires_grad=True) for i in range(3)]
    used, sometimes, _ = ranks.across(*tensors) if through else tensors
    own = (used * (1 + ranks.rank())).sum() + (sometimes.sum() if ranks.rank() == 0 else 0)
    found = torch.autograd.grad(own, tensors, allow_unused=True)
    (value,) = ranks.added([own.detach()], [own])
    if not through:
        found = ranks.added(found, tensors)
    return float(value), bits(found[:2]), found[2] is None


@pytest.mark.parametrize("through", [True, False])
def test_gradients_are_added_up_also_where_some_process_has_none(through: bool, pair: Pair) -> None:
    value, gradients, nothing = pair(slopes, through)[1]
    assert value == 2 + 4 + 4  # a = (1, 1) once and twice, b = (2, 2) once
    assert gradients == bits([torch.tensor([3.0, 3.0]), torch.ones(2)]) and nothing


# -- evaluation --------------------------------------------------------------------------------------------------


def judged(captions: int) -> dict[str, Any]:
    """What all four evaluators say of random models, about so many captions at a time; and every group by itself."""
    source = Source.from_scale("smoke", "scenes")
    words = source.vocabulary(SMOKE)
    torch.manual_seed(0)
    expressions = source.captions("finetune_refcoco_train", words, SMOKE).subset(np.arange(78))
    pointing = MDETR(SMOKE.model_copy(update={"vocabulary": len(words)}))
    finding, naming, answering = tasks.mdetr(), tasks.glip(), test_vqa.model_of()
    prompts, entries = tasks.asked()
    three = tasks.dataset([entry for entry in entries if entry.original_id < 13])  # of four pictures
    sentences, questions = tasks.dataset(tasks.sentences(finding)[:6]), test_vqa.dataset(test_vqa.questions())
    groups = [
        (len(index), bits([out.boxes_KBQ4]))
        for index, out in passes(pointing, expressions, captions, lambda index, batch, out: (index.tolist(), out))
    ]
    return {
        "expressions": rec.evaluate(pointing, expressions, captions),
        "phrases": phrases.evaluate(finding, sentences, captions),
        "questions": vqa.evaluate(answering, questions, captions),
        "detection": detect.evaluate(
            naming, three, tasks.instances(naming), prompts, tasks.CATEGORIES, -(-captions // len(prompts))
        ),
        "groups": groups,
        "counts": [len(list(data.by_image(captions))) for data in (expressions, sentences, questions, three)],
    }


@pytest.mark.parametrize(("captions", "counts"), [(2, [39, 3, 3, 3]), (1000, [1, 1, 1, 1])])
def test_evaluation_in_two_processes_is_that_of_one_to_the_bit(captions: int, counts: list[int], pair: Pair) -> None:
    one = judged(captions)
    first, second = pair(judged, captions)
    assert one["counts"] == counts, "no set divides by two; with one group a process has none"
    assert first == second == one
    assert sum(size for size, _ in one["groups"]) == one["expressions"]["n"] == 78
    assert 0 < one["expressions"]["mean_iou"] < 1 and 0 < one["phrases"]["any_box"]["recall@1"] < 1
    assert 0 < one["questions"]["accuracy"] < 1 and 0 < one["detection"]["AP50"] < 1


# -- going on ----------------------------------------------------------------------------------------------------


def trained(folder: Path, stop_at: int | None) -> tuple[int, list[dict[str, Any]], list[bytes]] | None:
    """Steps done, curve and weights; None where it was stopped, by a signal that rank 1 alone gets."""
    network = model("plain")
    session, held = snp_session(network, ALL.steps)
    session.problem = replace(session.problem, **held_out.own_passes(network, ALL))
    run = loop(folder, ALL, network, session=session, cursor=held, apply=lambda m, plan: apply(m, plan, TOWERS))
    run.stream = stream
    done = [0]

    def progress(captions: int) -> None:
        done[0] += captions // ALL.batch
        if done[0] == stop_at and ranks.rank() == 1:
            os.kill(os.getpid(), signal.SIGUSR1)

    run.progress = progress
    try:
        with catching():
            weights = bits(run.run().parameters())
    except Stopped:
        return None
    return done[0], run.curve, weights


@pytest.mark.parametrize("stop_at", [3, 6])
def test_a_run_of_two_that_one_is_asked_to_stop_goes_on_bit_equal(stop_at: int, pair: Pair, tmp_path: Path) -> None:
    whole = pair(trained, tmp_path / "whole", None)
    assert pair(trained, tmp_path / "stopped", stop_at) == [None, None]
    state = torch.load(tmp_path / "stopped" / "state.pt", weights_only=True)
    assert state["step"] == stop_at
    assert not torch.equal(*state["random"]), "both drop out the same"
    again = pair(trained, tmp_path / "stopped", None)
    assert again == whole and whole[0] == whole[1]


def test_a_run_of_two_is_not_gone_on_with_by_one(pair: Pair, tmp_path: Path) -> None:
    pair(trained, tmp_path, 3)
    with pytest.raises(InputError, match="was left by 2 processes, and here are 1"):
        trained(tmp_path, None)


# -- what is no number ---------------------------------------------------------------------------------------------


def diverging(folder: Path, what: str) -> tuple[str, int, bool]:
    """Rank 1 alone meets what is no number in its fifth step: the error, the step that is saved, and sound weights."""
    step = [0]

    def losses(*given: Any) -> dict[str, torch.Tensor]:
        step[0] += 1
        found = losses_of(*given)
        if step[0] == 5 and ranks.rank() == 1:
            weight = next(given[0].parameters())
            bad = found["l1"] * float("nan") if what == "loss 'l1'" else (weight - weight.detach()).abs().sqrt().sum()
            found["l1"] = found["l1"] + bad
        return found

    run = loop(folder, PHASE, model("plain"))
    run.stream, run.losses = stream, losses
    try:
        run.run()
    except InputError as error:
        saved = torch.load(folder / "state.pt", weights_only=True)
        sound = all(torch.equal(saved["weights"][n], p) for n, p in zip(run.names, run.parameters, strict=True))
        return str(error), saved["step"], sound and all(p.isfinite().all() for p in run.parameters)
    raise AssertionError("it went on")


@pytest.mark.parametrize("what", ["loss 'l1'", "norm of the gradient"])
def test_what_is_no_number_in_one_process_ends_both_alike_before_a_weight_is_changed(
    what: str, pair: Pair, tmp_path: Path
) -> None:
    first, second = pair(diverging, tmp_path, what)
    assert first == second and f"step 5 of 8: {what} is nan" in first[0] and first[1:] == (4, True)


def misjudged() -> str:
    """What both processes say of a model that gives no number for a picture that one of them looks at."""

    def spoil(module: nn.Module, inputs: Any, out: Any) -> None:
        out.boxes_KBQ4.fill_(float("inf"))

    looking = tasks.mdetr()
    if ranks.rank() == 1:
        looking.register_forward_hook(spoil)
    entries = [tasks.entry(i, tasks.SENTENCE, boxes=((1.0, 2.0, 30.0, 40.0),), spans=(((0, 1),),)) for i in range(4)]
    try:
        rec.evaluate(looking, tasks.dataset(entries), captions=1)
    except InputError as error:
        return str(error)
    raise AssertionError("it has a figure")


def test_both_processes_refuse_the_figures_of_a_model_that_one_finds_broken(pair: Pair) -> None:
    first, second = pair(misjudged)
    assert first == second and "toy, entry 1 (picture 1.png): what the model says of it is not finite" in first


# -- what processes tell each other --------------------------------------------------------------------------------


def told() -> dict[str, Any]:
    def refused() -> None:
        raise InputError("it", f"is refused by {ranks.rank()}")

    found: dict[str, Any] = {"any": [ranks.any(ranks.rank() == 1), ranks.any(False)], "once": ranks.once(ranks.rank)}
    found["spread"] = [ranks.spread(range(n), lambda i: (i, ranks.rank())) for n in (0, 1, 5)]

    def refused_of(i: int) -> None:
        if i == 3:
            refused()

    attempts = {"error": lambda: ranks.once(refused), "of one": lambda: ranks.spread(range(5), refused_of)}
    for name, attempt in attempts.items():
        try:
            attempt()
        except InputError as error:
            found[name] = str(error)
    return found


def test_processes_agree_on_flags_values_errors_and_shared_work(pair: Pair) -> None:
    first, second = pair(told)
    assert first == second
    assert first["any"] == [True, False] and first["once"] == 0
    assert first["spread"] == [[], [(0, 0)], [(0, 0), (1, 1), (2, 0), (3, 1), (4, 0)]]
    assert first["error"] == "it: is refused by 0" and first["of one"] == "it: is refused by 1"


def test_one_process_is_all_there_is() -> None:
    assert ranks.share() == (0, 1) and ranks.any(True) and not ranks.any(False)
    tensor = torch.ones(2, requires_grad=True)
    assert ranks.across(tensor)[0] is tensor and ranks.added([tensor, None], [tensor, tensor]) == [tensor, None]
    assert ranks.part(batch := batch_of(0)) is batch
    module = nn.Linear(2, 2)
    assert ranks.parallel(module) is module


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without a word of other processes."""
    for name in list(os.environ):
        if name.startswith(("SLURM_", "MASTER_")) or name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
            monkeypatch.delenv(name)
    return monkeypatch


def test_tasks_of_srun_meet_at_the_first_host_of_their_job(alone: pytest.MonkeyPatch) -> None:
    job = {"JOB_ID": "7", "JOB_NODELIST": "gpu[03-04]", "NTASKS": "4", "PROCID": "3", "LOCALID": "1"}
    for name, value in job.items():
        alone.setenv(f"SLURM_{name}", value)
    assert ranks._environment() is None, "the job's script runs once, whatever it asked for"
    ports = []
    for step in ("0", "1", "1"):
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
            alone.setenv(name, "")  # put back at the end
            alone.delenv(name)
        alone.setenv("SLURM_STEP_ID", step)
        alone.setenv("SLURM_STEP_NUM_TASKS", "4")
        assert ranks._environment() == 1
        assert [os.environ[name] for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR")] == ["3", "4", "gpu03"]
        ports.append(os.environ["MASTER_PORT"])
    assert ports[0] != ports[1] == ports[2]


def test_several_processes_that_are_not_told_how_to_meet_are_refused(alone: pytest.MonkeyPatch) -> None:
    alone.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="WORLD_SIZE: is 2, and RANK is not set"):
        ranks.start()


@pytest.mark.parametrize("name", ["WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "LOCAL_RANK", "RANK", "MASTER_PORT"])
def test_what_should_be_a_number_and_is_none_is_named(alone: pytest.MonkeyPatch, name: str) -> None:
    if name not in ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS"):
        for known in ("RANK", "LOCAL_RANK", "MASTER_PORT", "MASTER_ADDR"):
            alone.setenv(known, "1")
        alone.setenv("WORLD_SIZE", "2")
    alone.setenv(name, "two")
    with pytest.raises(InputError, match=f"{name}: must be a number, got 'two'"):
        ranks.start()


# -- the command -------------------------------------------------------------------------------------------------


def test_torchrun_of_the_command_ends_with_a_result_and_then_has_nothing_to_do(
    smoke_dense: Store, smoke_data: Path, tmp_path: Path
) -> None:
    row = "scenes/snp-prune-only@60"
    run = ["-m", "snp", "run", row, "--seed", "0", "--scale", "smoke", "--out", str(tmp_path)]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *run]
    environment = os.environ | {"SNP_DATA": str(smoke_data), "OMP_NUM_THREADS": "1"}
    (tmp_path / DENSE.slug).symlink_to(smoke_dense.folder(DENSE))
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr[-2000:]
    results = {result.run.kind: result for result in Store(tmp_path).results()}
    assert results.keys() == {"pretrain", "compress", "finetune"}
    assert results["compress"].manifest["processes"] == 2
    assert results["compress"].metrics["stored_ratio"] == pytest.approx(0.6, abs=0.01)
    assert (done.stdout + done.stderr).count(f"done: {results['compress'].run.slug}") == 1
    logs = Store(tmp_path).folder(results["compress"].run) / "log.jsonl"
    assert len(logs.read_text().splitlines()) == 4, "more than one process wrote"
    again = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert again.stdout.count("nothing to do") == 1
