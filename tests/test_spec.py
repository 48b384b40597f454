"""The spec of a run: what its hash depends on, and what it refuses."""

import pytest
from pydantic import ValidationError

from snp.errors import InputError
from snp.experiment.spec import Compress, Finetune, Pretrain, parse

DENSE = Pretrain(scale="desk", data="scenes")


def compress(**changes: object) -> Compress:
    fields = {"scale": "desk", "data": "scenes", "method": "snp", "keep": 0.6, "parent": DENSE}
    return Compress(**(fields | changes))  # type: ignore[arg-type]


def test_folder_names_are_pinned_because_committed_results_live_in_them() -> None:
    switched = compress(seed=2, options={"cross": False, "blockwise": False})
    assert DENSE.slug == "scenes-pretrain-seed0-052e14a829"
    assert compress().slug == "scenes-snp-keep60-seed0-a43bbeb32b"
    assert switched.slug == "scenes-snp-no-blockwise-no-cross-keep60-seed2-0264f56db1"
    assert Finetune(benchmark="refcoco+", parent=compress()).slug == "scenes-snp-keep60-seed0-refcoco+-94fe21c29e"


def test_a_field_left_at_its_default_is_not_hashed_so_new_fields_orphan_no_run() -> None:
    assert compress(seed=0, options={}).hash == compress().hash
    assert "seed" not in compress().canonical() and "options" not in compress().canonical()


@pytest.mark.parametrize("change", [{"seed": 1}, {"keep": 0.4}, {"method": "dense"}, {"options": {"cross": False}}])
def test_every_field_that_differs_changes_the_hash(change: dict[str, object]) -> None:
    assert compress(**change).hash != compress().hash


def test_the_hash_covers_the_parents() -> None:
    other = compress(parent=Pretrain(scale="desk", data="scenes", seed=1))
    assert Finetune(benchmark="refcoco", parent=other).hash != Finetune(benchmark="refcoco", parent=compress()).hash


def test_parents_come_eldest_first() -> None:
    run = Finetune(benchmark="refcoco", parent=compress())
    assert run.parents() == [DENSE, compress()]
    assert (run.scale, run.data, run.seed) == ("desk", "scenes", 0)


def test_a_run_survives_its_canonical_form() -> None:
    run = Finetune(benchmark="refcocog", parent=compress(seed=1, options={"scope": "global"}))
    assert parse(run.canonical(), "spec") == run


def test_a_run_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        compress().keep = 0.5  # type: ignore[misc]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"keep": 1.5}, "keep"),
        ({"keep": 0}, "keep"),
        ({"data": "my data"}, "data"),
        ({"sede": 1}, "sede"),
        ({"seed": -1}, "seed"),
    ],
)
def test_a_bad_field_is_named(change: dict[str, object], field: str) -> None:
    with pytest.raises(InputError, match=field):
        parse(compress().canonical() | change, "result.json: spec")


def test_a_run_and_its_parent_share_scale_and_data() -> None:
    with pytest.raises(ValidationError, match="smoke/scenes, not desk/scenes"):
        compress(parent=Pretrain(scale="smoke", data="scenes"))
