"""Two steps of every task at paper scale, with small models, from folders in every form that is published."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
from test_paper import real  # noqa: F401 - a fixture

from snp.data import annotations, readers
from snp.data.sources import layout
from snp.data.sources.check import check
from snp.experiment.labels import find
from snp.models import config as configs
from snp.runs.store import Store
from snp.training import stages
from snp.training.setup import Setup

NAMES = ["thing"]
ROW = "real/dense@100"


def as_mdetr(root: Path) -> None:
    """MDETR's pre-processed files alone."""
    for split in ("train", "val", "testdev"):
        name = f"annotations/finetune_gqa_{split}_balanced.json"
        annotations.write(root / name, readers.questions(root, split), NAMES)
    told = {split: readers.phrases(root, split) for split in ("train", "val", "test")}
    for split, entries in told.items():
        annotations.write(root / f"annotations/final_flickr_separateGT_{split}.json", entries, NAMES)
    shutil.rmtree(root / "flickr30k")
    for file in [*(root / "gqa").glob("*_questions.json"), *(root / "gqa").glob("*_sceneGraphs.json")]:
        file.unlink()


def as_their_authors(root: Path) -> None:
    """Nothing of MDETR's but its mixture."""
    images, objects, refs = {}, [], []
    for file in sorted((root / "annotations").glob("finetune_refcoco_*.json")):
        for entry in annotations.read(file):
            picture = images.setdefault(
                entry.file_name,
                {"id": len(images), "file_name": entry.file_name, "width": entry.width, "height": entry.height},
            )
            objects.append({"id": len(objects), "image_id": picture["id"], "category_id": 1, "bbox": entry.boxes[0]})
            refs.append(
                {
                    "ann_id": len(refs),
                    "image_id": picture["id"],
                    "split": file.stem.rpartition("_")[2],
                    "sentences": [{"sent": entry.caption}],
                }
            )
    for file in (root / "annotations").glob("finetune_*.json"):
        file.unlink()
    document = {"images": [*images.values()], "annotations": objects, "categories": [{"id": 1, "name": "thing"}]}
    (root / "refcoco").mkdir()
    (root / "refcoco/instances.json").write_text(json.dumps(document))
    (root / "refcoco" / layout.FILES["refcoco"]).write_bytes(pickle.dumps(refs))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models of paper scale in all but their size."""
    tower = {"width": 32, "depth": 2, "heads": 4, "fusion_width": 32, "fusion_heads": 4}
    mdetr = {"fusion_ffn": 32, "encoder_layers": 1, "decoder_layers": 2, "queries": 8}
    monkeypatch.setattr(configs, "PAPER", configs.PAPER.model_copy(update=tower | mdetr))
    glip = {"head_width": 16, "fusion_blocks": 1}
    monkeypatch.setattr(configs, "GLIP_PAPER", configs.GLIP_PAPER.model_copy(update=tower | glip))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "tuned"), [(as_mdetr, ["", ":gqa", ":flickr30k"]), (as_their_authors, ["", ":gqa", ":flickr30k", ":coco"])]
)
def test_what_the_check_accepts_every_task_learns_from_and_is_judged_on(
    form,
    tuned: list[str],
    real: Path,  # noqa: F811
    small: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = tmp_path / "data"
    shutil.copytree(real, root, ignore=shutil.ignore_patterns("images", "cache"))
    (root / "images").symlink_to(real / "images")
    form(root)
    setup = Setup(steps=2, batch=2, shortest=64, loaders=0, data_root=root, random_towers=True)
    store = Store(tmp_path / "runs", trial=setup.trial)
    for suffix in tuned:
        benchmark = suffix[1:] or "refcoco"
        assert [f for f in check(benchmark, root) if f.level == "error"] == []
        row = find(ROW + suffix, "paper")
        for run in [*row.runs(0)[:2], row.finetune(0, benchmark)]:
            if store.state(run) != "done":
                stages.run(run, store, setup=setup)
        assert store.result(run).metrics["splits"]
    said = capsys.readouterr().err
    names = {
        as_mdetr: ["finetune_refcoco_train.json", "finetune_gqa_train_balanced.json", "separateGT_val.json: Flickr"],
        as_their_authors: ["refs(unc).p: train is conv", "gqa/train_balanced_questions.json", "flickr30k/val.txt"],
    }
    assert all(name in said for name in names[form])
