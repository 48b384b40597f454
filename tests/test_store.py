"""The result store: states, validity, atomic results, logs that survive a kill."""

import errno
import fcntl
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from processes import alive
from synthetic import MANIFEST, cost, finetuned

from snp.errors import InputError
from snp.experiment.labels import find
from snp.launch.status import statuses
from snp.processes import mark
from snp.runs.manifest import git_state, manifest
from snp.runs.owner import Owner
from snp.runs.result import CURVE_POINTS
from snp.runs.store import Busy, Store

ROW = find("scenes/snp@60", "smoke")
COMPRESS, FINETUNE = ROW.compress(0), ROW.finetune(0, "refcoco")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "results")


def test_a_run_is_missing_then_incomplete_then_done(store: Store) -> None:
    assert store.state(COMPRESS) == "missing"
    store.begin(COMPRESS)
    assert store.state(COMPRESS) == "incomplete"
    store.save(COMPRESS, MANIFEST, cost(ROW))
    assert store.state(COMPRESS) == "done"


def test_a_folder_with_only_a_checkpoint_is_incomplete(store: Store) -> None:
    store.folder(COMPRESS).mkdir(parents=True)
    (store.folder(COMPRESS) / "checkpoint.safetensors").write_bytes(b"weights")
    assert store.state(COMPRESS) == "incomplete"


def test_a_run_begun_again_keeps_its_state_and_drops_what_a_kill_cut_off(store: Store) -> None:
    folder = store.begin(COMPRESS)
    for name in ("state.pt", ".state.pt.x1y2z3.part"):
        (folder / name).write_bytes(b"state")
    store.begin(COMPRESS)
    assert {path.name for path in folder.iterdir()} == {"spec.json", "state.pt"}


def test_a_run_begun_again_keeps_what_it_did_not_make(store: Store) -> None:
    folder = store.begin(COMPRESS)
    (folder / ".notes").write_text("mine")
    (folder / ".ipynb_checkpoints").mkdir()
    store.begin(COMPRESS)
    assert {path.name for path in folder.iterdir()} == {"spec.json", ".notes", ".ipynb_checkpoints"}


def test_a_result_comes_back_as_it_was_saved(store: Store) -> None:
    metrics = finetuned("refcoco", 0.875)
    store.save(FINETUNE, MANIFEST, metrics, [{"step": 1, "loss": 0.1}])
    found = store.result(FINETUNE)
    assert (found.run, found.manifest, found.metrics) == (FINETUNE, MANIFEST, metrics)
    assert found.curve == [{"step": 1, "loss": 0.1}]


def test_the_same_result_has_the_same_bytes(store: Store) -> None:
    path = store.folder(FINETUNE) / "result.json"
    store.save(FINETUNE, MANIFEST, finetuned("refcoco", 0.875))
    first = path.read_bytes()
    store.save(FINETUNE, dict(reversed(MANIFEST.items())), finetuned("refcoco", 0.875))
    assert path.read_bytes() == first


def test_a_result_cut_in_half_is_named_and_never_taken_for_missing(store: Store) -> None:
    store.save(COMPRESS, MANIFEST, cost(ROW))
    path = store.folder(COMPRESS) / "result.json"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    for look in (store.state, store.result, store.find):
        with pytest.raises(InputError, match=r"result\.json: not valid JSON.*delete the file"):
            look(COMPRESS)


def test_a_result_in_the_folder_of_another_run_is_refused(store: Store) -> None:
    store.save(COMPRESS, MANIFEST, cost(ROW))
    other = ROW.compress(1)
    store.folder(other).mkdir()
    (store.folder(other) / "result.json").write_bytes((store.folder(COMPRESS) / "result.json").read_bytes())
    with pytest.raises(InputError, match="holds the result of scenes-snp-keep60-seed0"):
        store.state(other)


@pytest.mark.parametrize("field", ["kind", "stored_params", "stored_ratio", "nonzero_ratio", "flops_ratio"])
def test_a_missing_measurement_is_refused_and_nothing_is_written(store: Store, field: str) -> None:
    metrics = cost(ROW)
    del metrics[field]
    with pytest.raises(InputError, match=field):
        store.save(COMPRESS, MANIFEST, metrics)
    assert store.state(COMPRESS) == "missing"


def test_a_precision_above_one_is_refused_with_its_place(store: Store) -> None:
    with pytest.raises(InputError, match=r"splits\.val\.precision@1"):
        store.save(FINETUNE, MANIFEST, finetuned("refcoco", 1.5))


def test_a_split_that_its_benchmark_does_not_have_is_refused(store: Store) -> None:
    metrics = finetuned("refcoco", 0.9)
    metrics["splits"]["testC"] = metrics["splits"]["val"]
    with pytest.raises(InputError, match=r"metrics\.splits\.testC: refcoco has no such split \(its splits are val"):
        store.save(FINETUNE, MANIFEST, metrics)


def test_a_curve_of_anything_but_objects_is_refused(store: Store) -> None:
    store.save(FINETUNE, MANIFEST, finetuned("refcoco", 0.9), [{"step": 1}])
    path = store.folder(FINETUNE) / "result.json"
    path.write_text(path.read_text().replace('"step": 1', '"step": 1}, [2], {"step": 3'))
    with pytest.raises(InputError, match=r"result\.json: curve\.1: is not a JSON object"):
        store.result(FINETUNE)


def judged(steps: int, every: int, record_every: int) -> list[dict[str, float]]:
    """A curve of training losses, with a measurement at every so many steps and at the end."""
    return [
        {"step": step, "loss": 1 / step} | ({"val/precision@1": 0.5} if step % every == 0 or step == steps else {})
        for step in range(record_every, steps + 1, record_every)
    ]


@pytest.mark.parametrize(("steps", "every"), [(16_000, 500), (16_000, 700), (16_000, 50), (9_000, 10**9), (2_000, 500)])
def test_of_a_long_curve_what_was_measured_stays_and_losses_are_thinned(store: Store, steps: int, every: int) -> None:
    curve = judged(steps, every, 50)
    kept = store.save(FINETUNE, MANIFEST, finetuned("refcoco", 0.9), curve).curve
    measured = [record for record in curve if "val/precision@1" in record]
    assert [record for record in kept if "val/precision@1" in record] == measured
    assert kept[0] == curve[0] and kept[-1] == curve[-1]
    assert [record for record in curve if record in kept] == kept, "in order, each once"
    assert len(kept) == min(len(curve), max(CURVE_POINTS, len(measured) + min(2, len(curve) - len(measured))))
    losses = [record["step"] for record in kept if record not in measured]
    gaps = [later - earlier for earlier, later in pairwise(losses)]
    assert all(gap <= steps / len(losses) + 2 * 50 for gap in gaps), "evenly"


def test_a_long_curve_leaves_a_result_small(store: Store) -> None:
    curve = [{"step": step, "loss": 1 / (step + 1)} for step in range(9001)]
    kept = store.save(FINETUNE, MANIFEST, finetuned("refcoco", 0.9), curve).curve
    assert len(kept) == CURVE_POINTS and kept[0] == curve[0] and kept[-1] == curve[-1]
    assert (store.folder(FINETUNE) / "result.json").stat().st_size < 20_000


@pytest.mark.parametrize(("field", "value"), [("manifest", []), ("manifest", None), ("metrics", 3), ("curve", {})])
def test_a_result_whose_parts_are_of_another_kind_is_named(store: Store, field: str, value: object) -> None:
    store.save(FINETUNE, MANIFEST, finetuned("refcoco", 0.9))
    path = store.folder(FINETUNE) / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(InputError, match=rf"result\.json: {field}: is not a JSON"):
        store.state(FINETUNE)


def test_results_are_listed_by_kind(store: Store) -> None:
    store.save(COMPRESS, MANIFEST, cost(ROW))
    store.save(FINETUNE, MANIFEST, finetuned("refcoco", 0.9))
    assert [result.run for result in store.results("finetune")] == [FINETUNE]
    assert len(list(store.results())) == 2


def test_a_log_line_cut_by_a_kill_is_left_out_and_repeated_steps_count_once(store: Store) -> None:
    store.begin(COMPRESS)
    for step, loss in [(1, 3.0), (2, 2.0), (2, 1.5)]:
        store.log(COMPRESS, {"step": step, "loss": loss})
    with open(store.folder(COMPRESS) / "log.jsonl", "ab") as file:
        file.write(b'[1]\n\xff\n{"step": 3, "lo')
    assert store.read_log(COMPRESS) == [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 1.5}]


def test_a_store_borrows_only_finished_pretraining_from_its_base(store: Store, tmp_path: Path) -> None:
    store.save(ROW.pretrain, MANIFEST, {"params": {"all": 1}})
    store.save(COMPRESS, MANIFEST, cost(ROW))
    own = Store(tmp_path / "own", base=store)
    assert own.state(ROW.pretrain) == "done" and own.folder(ROW.pretrain) == store.folder(ROW.pretrain)
    assert own.state(COMPRESS) == "missing"
    assert not own.root.exists()


# -- who does a run ------------------------------------------------------------------------------------------------


def noted(store: Store, content: str | bytes) -> str:
    """The state of a run whose folder has this content in its owner file, as `snp status` says it."""
    path = store.begin(COMPRESS) / "owner.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    [one] = statuses([COMPRESS], store, lambda jobs: {})
    return one.state


def test_the_process_that_does_a_run_is_known_while_it_lives(store: Store) -> None:
    assert noted(store, Owner.here().model_dump_json()) == "running"
    with store.attempt(COMPRESS):
        assert store.owner(COMPRESS).mark == Owner.here().mark and store.owner(COMPRESS).lives
    assert store.owner(COMPRESS) is None


def test_another_process_with_the_number_of_one_that_was_killed_does_not_do_its_run(store: Store) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        here = Owner.here().model_copy(update={"process": other.pid})
        assert noted(store, here.model_dump_json()) == "incomplete", "begun when this one was"
        assert noted(store, here.model_copy(update={"mark": None}).model_dump_json()) == "incomplete"
        assert noted(store, here.model_copy(update={"mark": mark(other.pid)}).model_dump_json()) == "running"
        other.kill()


def test_a_machine_of_the_same_name_is_another_one(store: Store) -> None:
    boot, rest = Owner.here().mark.split("/", 1)
    elsewhere = Owner.here().model_copy(update={"mark": f"{boot[::-1]}/{rest}"})
    assert elsewhere.host == socket.gethostname() and noted(store, elsewhere.model_dump_json()) == "incomplete"


def test_a_mark_is_one_process_s_and_ends_with_it() -> None:
    with subprocess.Popen(["sleep", "60"]) as first, subprocess.Popen(["sleep", "60"]) as second:
        marks = [mark(first.pid), mark(second.pid), mark(os.getpid())]
        assert None not in marks and len({*marks}) == 3 and mark(first.pid) == marks[0]
        first.kill()
        while alive(first.pid):
            pass
        assert mark(first.pid) is None, "it has ended, though nobody has waited for it"
        second.kill()
    assert mark(second.pid) is None and mark(0) is None


@pytest.mark.parametrize("content", [
    "", "{", "null", "[1]", "3", '"owner"', "{}", '{"host": "vm"}', '{"process": "many", "host": 3, "since": null}',
    '{"process": 1, "host": "vm", "since": "", "mark": 7}', '{"process": 1e999, "host": "vm", "since": ""}',
    '{"process": 1, "host": "vm", "since": "", "job": "7;8"}', b"\xff\xfe\x00", "[" * 100_000,
    '{"process": ' + "9" * 5000 + "}",
])  # fmt: skip
def test_an_owner_file_of_any_content_is_nobody_s_and_stops_nobody(store: Store, content: str | bytes) -> None:
    assert noted(store, content) == "incomplete"
    with store.attempt(COMPRESS):
        assert store.owner(COMPRESS).mark == Owner.here().mark


def test_who_is_refused_is_told_by_whom_though_a_clock_is_ahead(store: Store) -> None:
    ahead = Owner.here().model_copy(update={"since": "2999-01-01T00:00:00+00:00"})
    with store.attempt(COMPRESS):
        (store.folder(COMPRESS) / "owner.json").write_text(ahead.model_dump_json())
        with pytest.raises(Busy, match=rf"already \(process {os.getpid()}, host .*since 2999"), store.attempt(COMPRESS):
            raise AssertionError("two at once")
        (store.folder(COMPRESS) / "owner.json").write_text("[1]")
        with pytest.raises(Busy, match=r"already \(just begun\)"), store.attempt(COMPRESS):
            raise AssertionError("two at once")


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL, errno.EIO])
def test_a_file_system_without_locks_is_named_with_the_way_out(
    store: Store, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", refuse(number))
    with pytest.raises(InputError, match=r"owner\.json: cannot be locked: .*-o flock"), store.attempt(COMPRESS):
        raise AssertionError("alone without a lock")
    assert {path.name for path in store.folder(COMPRESS).iterdir()} == {"failed.json"}
    assert "cannot be locked" in store.failure(COMPRESS)
    monkeypatch.undo()
    with store.attempt(COMPRESS):
        assert store.failure(COMPRESS) is None


def test_where_locks_fail_for_a_while_the_file_of_who_has_one_stays(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.attempt(COMPRESS):
        monkeypatch.setattr(fcntl, "flock", refuse(errno.ENOLCK))
        with pytest.raises(InputError, match="cannot be locked"), store.attempt(COMPRESS):
            raise AssertionError("alone without a lock")
        assert store.owner(COMPRESS).mark == Owner.here().mark


def refuse(number: int) -> Callable[..., None]:
    """What a file system says that has no locks."""

    def flock(file: object, how: int) -> None:
        raise OSError(number, os.strerror(number))

    return flock


@pytest.mark.parametrize("content", ["[]", "3", "{", b"\xff"])
def test_a_note_of_a_failure_that_cannot_be_read_is_named(store: Store, content: str | bytes) -> None:
    path = store.begin(COMPRESS) / "failed.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=r"failed\.json: .*delete it"):
        store.failure(COMPRESS)
    with store.attempt(COMPRESS):
        assert store.failure(COMPRESS) is None


# -- how it came about ---------------------------------------------------------------------------------------------


def test_a_manifest_says_how_a_result_came_about() -> None:
    from datetime import UTC, datetime

    started = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    found = manifest(FINETUNE, {"batch": 32}, threads=1, data_hash="abc", started=started, wall_seconds=1.23)
    assert found["config"] == {"spec": FINETUNE.canonical(), "recipe": {"batch": 32}}
    assert (found["seed"], found["threads"], found["data_hash"]) == (0, 1, "abc")
    assert (found["started"], found["wall_seconds"]) == ("2026-01-02T03:04:05+00:00", 1.2)
    assert {"torch", "timm", "open_clip_torch", "transformers"} <= found["packages"].keys()
    assert found["cpu"] and found["python"].startswith("3.")
    assert json.loads(json.dumps(found)) == found


def test_asking_for_the_commit_changes_nothing_in_the_repository(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        about = ("-c", "user.name=x", "-c", "user.email=x")
        subprocess.run(["git", *about, *arguments], cwd=tmp_path, capture_output=True, check=True)

    (tmp_path / "file").write_text("text")
    for command in (("init",), ("add", "file"), ("commit", "-m", "first")):
        git(*command)
    os.utime(tmp_path / "file", (0, 0))  # git would note that it is as it was, under a lock that a Ctrl-C leaves behind
    before = (tmp_path / ".git" / "index").read_bytes()
    assert git_state(tmp_path)["dirty"] is False
    assert (tmp_path / ".git" / "index").read_bytes() == before
    git("status")
    assert (tmp_path / ".git" / "index").read_bytes() != before


def test_what_jobs_print_into_a_checkout_is_no_change_of_it(tmp_path: Path) -> None:
    shutil.copy(Path(__file__).parents[1] / ".gitignore", tmp_path)
    for command in (["init"], ["add", "."], ["-c", "user.name=x", "-c", "user.email=x", "commit", "-m", "first"]):
        subprocess.run(["git", *command], cwd=tmp_path, capture_output=True, check=True)
    (tmp_path / "slurm").mkdir()
    for name in ("slurm-7.out", "slurm-7_3.out", "slurm/slurm-glip-coco-7.log", ".runs/logs/glip-coco-7.log"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert git_state(tmp_path)["dirty"] is False
    (tmp_path / "slurm" / "mine.sh").touch()
    assert git_state(tmp_path)["dirty"] is True


def test_every_committed_result_is_valid_and_small() -> None:
    for scale in ("desk", "smoke"):
        committed = Store.at(scale)
        for result in committed.results():
            path = committed.folder(result.run) / "result.json"
            assert path.exists(), f"{path.parent.name} is not named by its spec"
            assert path.stat().st_size < 25_000, path
