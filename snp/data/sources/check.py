"""Whether a folder holds a benchmark, whole: counts, pictures, boxes, spans and answers, in one report."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from snp.data import annotations
from snp.data.annotations import Entry
from snp.data.sources import coco, flickr, gqa, refer
from snp.data.sources.images import FOLDERS, Images, drawn, naming, unreadable
from snp.errors import InputError
from snp.files import read_text

Level = Literal["ok", "warning", "error"]
SHOWN = 3
"""Problems of one file that are told one by one; the others are counted."""

PUBLISHED: dict[str, dict[str, int]] = {
    "refcoco": {"train": 120_624, "val": 10_834, "testA": 5_657, "testB": 5_095},
    "refcoco+": {"train": 120_191, "val": 10_758, "testA": 5_726, "testB": 4_889},
    "refcocog": {"train": 80_512, "val": 4_896, "test": 9_602},
    "gqa": {"train_balanced": 943_000, "val_balanced": 132_062, "testdev_balanced": 12_578, "test_balanced": 95_336},
    "flickr30k": {"train": 29_783, "val": 1_000, "test": 1_000},
    "coco": {"train2017": 118_287, "val2017": 5_000},
}
"""Expressions (RefCOCO: UNC's splits, RefCOCOg: UMD's), questions, or pictures of every split, as their authors give
them. The mixture of MDETR is described as 1.3 million pairs only."""

NEEDS: dict[str, str] = {
    "refcoco": "annotations/finetune_refcoco_{train,val,testA,testB}.json (MDETR's pre-processed files), or "
    "refcoco/refs(unc).p with refcoco/instances.json (lichengunc/refer); COCO's train2014 pictures in train2014/",
    "refcoco+": "annotations/finetune_refcoco+_{train,val,testA,testB}.json (MDETR's pre-processed files), or "
    "refcoco+/refs(unc).p with refcoco+/instances.json (lichengunc/refer); COCO's train2014 pictures in train2014/",
    "refcocog": "annotations/finetune_refcocog_{train,val,test}.json (MDETR's pre-processed files), or "
    "refcocog/refs(umd).p with refcocog/instances.json (lichengunc/refer); COCO's train2014 pictures in train2014/",
    "gqa": "annotations/finetune_gqa_*.json and gqa_answer2id.json (MDETR's pre-processed files), or GQA's "
    "{train,val,testdev,test}_{balanced,all}_questions.json; Visual Genome's pictures in images/",
    "flickr30k": "Annotations/, Sentences/ and {train,val,test}.txt of Flickr30k Entities, or "
    "annotations/final_flickr_{separateGT,mergedGT}_*.json (MDETR's); pictures in flickr30k-images/, {train,val,test}/ "
    "or flat",
    "coco": "annotations/instances_{train,val}2017.json, pictures in train2017/ and val2017/",
    "mixed": "annotations/final_mixed_train.json (MDETR's), pictures of COCO (train2014/), Visual Genome (images/) and "
    "Flickr30k (flickr30k-images/)",
}


@dataclass(frozen=True)
class Finding:
    """One line of the report; `mend` says what to do about it."""

    level: Level
    where: str
    text: str
    mend: str = ""


def check(benchmark: str, root: Path, decode: bool = True) -> list[Finding]:
    """Look through a folder.

    Args:
        benchmark: a key of `NEEDS`.
        root: `--data-root`; what is looked for below it, `NEEDS` says.
        decode: read every picture to its end, not only look whether it is there.
    """
    if not root.is_dir():
        return [Finding("error", str(root), "no such folder", f"make it, with {NEEDS[benchmark]}")]
    parts = list(_splits(benchmark, root))
    if not parts:
        return [Finding("error", str(root), f"holds nothing of {benchmark}", f"needs {NEEDS[benchmark]}")]
    findings: list[Finding] = []
    names: dict[str, None] = {}
    seen = set()
    for part in parts:
        files: list[str] = []
        findings += part.look(files)
        names |= dict.fromkeys(files)
        seen.add(part.split)
        if (wanted := PUBLISHED.get(benchmark, {}).get(part.split)) is not None:
            findings.append(_count(part, wanted))
    for split in PUBLISHED.get(benchmark, {}):
        if split not in seen:
            findings.append(Finding("warning", str(root), f"split {split} is missing", f"needs {NEEDS[benchmark]}"))
    return findings + _pictures(root, list(names), decode)


@dataclass
class _Split:
    """One file of one split: `read` gives (number of samples, picture names), or raises; `faults` lists all."""

    split: str
    path: Path
    read: Callable[[], tuple[int, list[str]]]
    faults: Callable[[], Iterable[InputError]] = tuple
    count: int | None = None

    def look(self, files: list[str]) -> list[Finding]:
        """What is wrong with the file; its pictures are added to `files`."""
        found = list(self.faults())
        if not found:
            try:
                self.count, names = self.read()
            except InputError as error:
                found = [error]
            else:
                files += names
                return [Finding("ok", str(self.path), f"{self.split}: {self.count:,} samples, each one sound")]
        told = [Finding("error", e.where, e.problem, e.mend) for e in found[:SHOWN]]
        if len(found) > SHOWN:
            told.append(Finding("error", str(self.path), f"and {len(found) - SHOWN:,} more problems like these"))
        return told


def _count(part: _Split, wanted: int) -> Finding:
    if part.count is None:
        return Finding("warning", str(part.path), f"{part.split}: cannot be counted before it is mended")
    if part.count == wanted:
        return Finding("ok", str(part.path), f"{part.split}: as many as published, {wanted:,}")
    text = f"{part.split}: {part.count:,} where {wanted:,} are published"
    return Finding("warning", str(part.path), text, "figures on it cannot be compared with published ones")


def _splits(benchmark: str, root: Path) -> Iterator[_Split]:
    """The splits that are there, in whichever of their formats."""
    folder = root / "annotations" if (root / "annotations").is_dir() else root
    if benchmark in refer.FILES:
        yield from _refer(benchmark, root, folder)
    elif benchmark == "mixed":
        yield from _prepared(folder, "final_mixed_", "")
    elif benchmark == "coco":
        for path in sorted(folder.glob("instances_*.json")):
            yield _Split(path.stem.removeprefix("instances_"), path, lambda path=path: _of_coco(path))
    elif benchmark == "flickr30k":
        yield from _flickr(root, folder)
    else:
        yield from _gqa(root, folder)


def _prepared(folder: Path, prefix: str, suffix: str, boxless: bool = False) -> Iterator[_Split]:
    """MDETR's pre-processed files of one benchmark."""
    for path in sorted(folder.glob(f"{prefix}*{suffix}.json")):
        yield _Split(
            path.stem.removeprefix(prefix),
            path,
            lambda path=path: _of_entries(annotations.read(path, boxless)),
            lambda path=path: annotations.problems(path, boxless),
        )


def _refer(benchmark: str, root: Path, folder: Path) -> Iterator[_Split]:
    prepared = list(_prepared(folder, f"finetune_{benchmark}_", ""))
    yield from prepared
    file = refer.FILES[benchmark]
    for base in (root / benchmark, root):
        if prepared or not (base / file).exists():
            continue
        instances = base / "instances.json"
        if not instances.exists():
            instances = root / "annotations" / "instances_train2014.json"
        try:
            splits = refer.read(base / file, instances, benchmark)
        except InputError as error:
            yield _Split("all", base / file, lambda error=error: _raise(error))
            return
        for split, entries in splits.items():
            yield _Split(split, base / file, lambda entries=entries: _of_entries(entries))
        return


def _flickr(root: Path, folder: Path) -> Iterator[_Split]:
    for path in (root / f"{split}.txt" for split in PUBLISHED["flickr30k"]):
        if path.exists():
            pictures = read_text(path).split()
            yield _Split(
                path.stem,
                path,
                lambda pictures=pictures: (len(pictures), list(map(naming(root), pictures))),
                lambda pictures=pictures: _flickr_faults(root, pictures),
            )
    for kind in ("separateGT", "mergedGT"):
        for part in _prepared(folder, f"final_flickr_{kind}_", ""):
            part.split = f"{part.split} ({kind})"
            yield part


def _flickr_faults(root: Path, pictures: list[str]) -> Iterator[InputError]:
    for picture in tqdm(pictures, desc="sentences and boxes", unit="picture", leave=False):
        try:
            flickr.read(root, [picture])
        except InputError as error:
            yield error


def _gqa(root: Path, folder: Path) -> Iterator[_Split]:
    prepared = list(_prepared(folder, "finetune_gqa_", "", boxless=True))
    answers = (base / "gqa_answer2id.json" for base in (folder, root))
    vocabulary = next((path for path in answers if path.exists()), None)
    raw = [path for base in {root, folder, root / "questions"} for path in sorted(base.glob("*_questions.json"))]
    for part in prepared:
        entries = lambda part=part: annotations.read(part.path, boxless=True)  # noqa: E731
        yield _Split(part.split, part.path, part.read, lambda part=part, entries=entries: _gqa_faults(
            part.path, part.faults, entries, vocabulary))  # fmt: skip
    for path in raw:
        entries = lambda path=path: gqa.questions(path, name=naming(root))  # noqa: E731
        yield _Split(
            path.stem.removesuffix("_questions"), path, lambda entries=entries: _of_entries(entries()),
            lambda path=path, entries=entries: _gqa_faults(path, tuple, entries, vocabulary),
        )  # fmt: skip


def _gqa_faults(
    path: Path,
    faults: Callable[[], Iterable[InputError]],
    entries: Callable[[], list[Entry]],
    vocabulary: Path | None,
) -> Iterator[InputError]:
    """Faults of the file, and answers that a model with this vocabulary could never give."""
    found = list(faults())
    yield from found
    if found or vocabulary is None:
        return
    try:
        known = gqa.answers(vocabulary)
        missing = Counter(entry.answer for entry in entries() if entry.answer and entry.answer not in known)
    except InputError as error:
        yield error
        return
    for answer, count in missing.most_common():
        mend = f"add it to {vocabulary.name}, or leave these questions out"
        yield InputError(path, f"answer {answer!r} of {count:,} questions is not in {vocabulary}", mend)


def _of_entries(entries: list[Entry]) -> tuple[int, list[str]]:
    return len(entries), [entry.file_name for entry in entries]


def _of_coco(path: Path) -> tuple[int, list[str]]:
    found = coco.read(path)
    return len(found.images), [picture.file_name for picture in found.images.values()]


def _raise(error: InputError) -> tuple[int, list[str]]:
    raise error


def _pictures(root: Path, names: list[str], decode: bool) -> list[Finding]:
    """Whether all pictures are there, and can be read."""
    if not names:
        return []
    images = Images([root, root.resolve().parent] if drawn(root) else [root])
    paths = {name: images.find(name) for name in names}
    missing = [name for name, path in paths.items() if path is None]
    found = []
    if missing:
        text = f"{len(missing):,} of {len(names):,} pictures are missing, as {', '.join(missing[:SHOWN])}"
        found.append(Finding("error", str(root), text, f"looked for in {', '.join(filter(None, FOLDERS))}"))
    there = [path for path in paths.values() if path is not None]
    bad = []
    if decode:
        decoded = tqdm(unreadable(there), total=len(there), desc="pictures", unit="picture", leave=False)
        bad = [(path, fault) for path, fault in decoded if fault]
        for path, fault in bad[:SHOWN]:
            found.append(Finding("error", str(path), f"cannot be read: {fault}", "fetch it again"))
        if len(bad) > SHOWN:
            found.append(Finding("error", str(root), f"and {len(bad) - SHOWN:,} more pictures that cannot be read"))
    if not missing and not bad:
        found.append(Finding("ok", str(root), f"{len(there):,} pictures{', all of them whole' if decode else ''}"))
    return found


def report(findings: list[Finding]) -> str:
    """The findings for people, one line each, the worst last so that it is seen."""
    order = sorted(findings, key=lambda finding: ("ok", "warning", "error").index(finding.level))
    lines = [f"{f.level:7}  {f.where}: {f.text}" + (f" ({f.mend})" if f.mend else "") for f in order]
    counts = Counter(finding.level for finding in findings)
    return "\n".join([*lines, "", ", ".join(f"{counts[level]} {level}" for level in ("ok", "warning", "error"))])
