"""What belongs to a published benchmark, and where its files lie below a folder."""

from pathlib import Path

from snp.errors import InputError

FILES = {"refcoco": "refs(unc).p", "refcoco+": "refs(unc).p", "refcocog": "refs(umd).p", "grefcoco": "grefs(unc).json"}
"""Of the references of RefCOCO and its kin."""
PUBLISHED: dict[str, dict[str, int | None]] = {
    "refcoco": {"train": 120_624, "val": 10_834, "testA": 5_657, "testB": 5_095},
    "refcoco+": {"train": 120_191, "val": 10_758, "testA": 5_726, "testB": 4_889},
    "refcocog": {"train": 80_512, "val": 4_896, "test": 9_602},
    "grefcoco": dict.fromkeys(("train", "val", "testA", "testB")),
    "gqa": {"train": 943_000, "val": 132_062, "testdev": 12_578, "test": 95_336},
    "flickr30k": {"train": 29_783, "val": 1_000, "test": 1_000},
    "coco": {"train2017": 118_287, "val2017": 5_000},
}
"""Expressions (RefCOCO: UNC's splits, RefCOCOg: UMD's), balanced questions, or pictures of every split, as their
authors give them; None where they do not. The mixture of MDETR is described as 1.3 million pairs only."""

NEEDS: dict[str, str] = {
    "refcoco": "annotations/finetune_refcoco_{train,val,testA,testB}.json (MDETR's pre-processed files), or "
    "refcoco/refs(unc).p with refcoco/instances.json (lichengunc/refer); COCO's train2014 pictures in train2014/",
    "refcoco+": "annotations/finetune_refcoco+_{train,val,testA,testB}.json (MDETR's pre-processed files), or "
    "refcoco+/refs(unc).p with refcoco+/instances.json (lichengunc/refer); COCO's train2014 pictures in train2014/",
    "refcocog": "annotations/finetune_refcocog_{train,val,test}.json (MDETR's pre-processed files), or "
    "refcocog/refs(umd).p with refcocog/instances.json (lichengunc/refer); COCO's train2014 pictures in train2014/",
    "grefcoco": "grefcoco/grefs(unc).json with grefcoco/instances.json (henghuiding/gRefCOCO); COCO's train2014 "
    "pictures in train2014/",
    "gqa": "GQA's {train,val,testdev,test}_balanced_questions.json (with {train,val}_sceneGraphs.json for boxes), or "
    "annotations/finetune_gqa_{train,val,testdev}_balanced.json (MDETR's pre-processed files), and MDETR's "
    "gqa_answer2id_by_type.json; Visual Genome's pictures in images/",
    "flickr30k": "Annotations/, Sentences/ and {train,val,test}.txt of Flickr30k Entities, or "
    "annotations/final_flickr_separateGT_{train,val,test}.json (MDETR's pre-processed files); pictures in "
    "flickr30k-images/, {train,val,test}/ or flat",
    "coco": "annotations/instances_{train,val}2017.json, pictures in train2017/ and val2017/",
    "own": "annotations/train.json, val.json and test.json in MDETR's format; pictures in images/",
    "mixed": "annotations/final_mixed_train.json and final_flickr_separateGT_train.json (MDETR's), pictures of COCO "
    "(train2014/), Visual Genome (images/) and Flickr30k (flickr30k-images/)",
}
MIXTURE = ("final_mixed_train", "final_flickr_separateGT_train")
"""Files that models learn from before all benchmarks: MDETR's mixture, of which Flickr30k's sentences are one."""
OWN = ("train", "val", "test")
"""Files of data of a user's own, one for each split."""
_FOLDERS = ("", "questions", "sceneGraphs", "annotations")
"""Folders below a benchmark's own in which its files are looked for, in this order."""


def home(root: Path, benchmark: str) -> Path:
    """A benchmark's own folder below `root`, or `root`, which holds all."""
    own = root / benchmark
    return own if own.is_dir() else root


def homes(root: Path, benchmark: str) -> tuple[Path, ...]:
    """Where a benchmark's files are looked for: its own folder, which may hold its pictures alone, then `root`."""
    return tuple(dict.fromkeys((home(root, benchmark), root)))


def find(root: Path, benchmark: str, file: str) -> Path | None:
    """A file of a benchmark, by its name; None where there is none."""
    places = (base / folder / file for base in homes(root, benchmark) for folder in _FOLDERS)
    return next((path for path in places if path.is_file()), None)


def found(root: Path, benchmark: str, *files: str) -> Path:
    """The first of these files that is there.

    Raises:
        InputError: none is; it says what the benchmark needs.
    """
    path = next((path for file in files if (path := find(root, benchmark, file))), None)
    if path is None:
        looked = ", ".join(str(base / folder) for base in homes(root, benchmark) for folder in _FOLDERS)
        missing = home(root, benchmark) / files[0]
        raise InputError(missing, f"file not found, looked in {looked}", f"needs {NEEDS[benchmark]}")
    return path


def owner(name: str) -> str:
    """The benchmark of one of MDETR's pre-processed files, by its name without ending: where its pictures are."""
    if name.startswith("finetune_"):
        return name.removeprefix("finetune_").rpartition("_")[0]
    if name in OWN:
        return "own"
    return "flickr30k" if name.startswith("final_flickr_") else "mixed"


def expressions(benchmark: str, split: str) -> str:
    """The annotation file with the expressions of a split, without its ending."""
    return split if benchmark == "own" else f"finetune_{benchmark}_{split}"


def prepared(root: Path, benchmark: str, name: str) -> Path | None:
    """The folder that has this one of MDETR's pre-processed files in its annotations/; None where there is none.

    None of gRefCOCO's is taken: a caption without a target has a box without area there.
    """
    if benchmark == "grefcoco":
        return None
    return next((base for base in homes(root, benchmark) if (base / "annotations" / f"{name}.json").is_file()), None)


def references(root: Path, benchmark: str) -> tuple[Path, Path] | None:
    """The references of RefCOCO or its kin, and the objects that they name; None where there are none."""
    path = next((path for base in homes(root, benchmark) if (path := base / FILES[benchmark]).is_file()), None)
    if path is None:
        return None
    own = path.with_name("instances.json")
    return path, own if own.is_file() else root / "annotations" / "instances_train2014.json"
