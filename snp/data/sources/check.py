"""Whether a folder holds a benchmark, whole: what a run reads of it, counts, pictures and their sizes; one report."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from snp.data import annotations, readers
from snp.data.annotations import Entry
from snp.data.columns import unfit
from snp.data.drawn import folder
from snp.data.fields import SPANS, hit, noted, whole_words
from snp.data.sources import coco, flickr
from snp.data.sources.findings import CAPTION, PROMPT, SHOWN, Finding, Split
from snp.data.sources.images import FOLDERS, Images, looked_at, places
from snp.data.sources.layout import MIXTURE, NEEDS, OWN, PUBLISHED, find, owner, prepared, references
from snp.data.tokens import Vocabulary
from snp.errors import InputError
from snp.terminal import progress

MIXED = ("train", "val")
"""Splits of MDETR's mixture, whose sizes nobody tells."""


def check(benchmark: str, root: Path, decode: bool = True, context: int = CAPTION, least: int = 0) -> list[Finding]:
    """Look through a folder, as a run reads it.

    Args:
        benchmark: a key of `NEEDS`.
        root: `--data-root`, or the benchmark's own folder; what is looked for below it, `NEEDS` says.
        decode: read every picture to its end, and its size, not only look whether it is there.
        context: most tokens of a caption of a user's own data.
        least: captions that they must have to learn from.
    """
    if not root.is_dir():
        return [Finding("error", str(root), "no such folder", f"make it, with {NEEDS[benchmark]}")]
    own = benchmark == "own"
    splits = list(_own(root, context, least) if own else _SPLITS.get(benchmark, _expressions)(benchmark, root))
    if not splits:
        return [Finding("error", str(root), f"holds nothing of {benchmark}", f"needs {NEEDS[benchmark]}")]
    findings = [finding for split in splits for finding in split.findings(benchmark)]
    for name in PUBLISHED.get(benchmark, {}):
        if name not in {split.name for split in splits}:
            findings.append(Finding("warning", str(root), f"split {name} is missing", f"needs {NEEDS[benchmark]}"))
    pictures: dict[str, dict[str, set[tuple[int, int]]]] = {}
    for split in splits:
        told = pictures.setdefault(split.of or benchmark, {})
        for file_name, sizes in split.pictures.items():
            told.setdefault(file_name, set()).update(sizes)
    try:
        return findings + [found for of, told in pictures.items() for found in _pictures(of, root, told, decode)]
    except InputError as error:
        return [*findings, Finding("error", error.where, error.problem, error.hint)]


def _expressions(benchmark: str, root: Path) -> Iterator[Split]:
    """Splits in MDETR's files; those that have none, in the files of their authors."""
    names = [name for name in PUBLISHED[benchmark] if prepared(root, benchmark, f"finetune_{benchmark}_{name}")]
    for name in names:
        yield _prepared(root, benchmark, name, f"finetune_{benchmark}_{name}")
    files = references(root, benchmark)
    if files is None or set(names) >= PUBLISHED[benchmark].keys():
        return
    faults = list[InputError]()
    by_split = readers.expressions(root, benchmark, faults)
    if faults:
        yield Split("all", files[0], faults=faults)
    for name, entries in by_split.items():
        if name not in names:
            split = Split(name, files[0])
            split.take(entries, lambda entry: f"{files[0]}: ann_id {entry.original_id}")
            yield split


def _own(root: Path, context: int, least: int) -> Iterator[Split]:
    """The splits of a user's own data; what spans hit is said where it is no whole word."""
    for name in OWN:
        if prepared(root, "own", name) is None:
            path = root / "annotations" / f"{name}.json"
            yield Split(name, path, faults=[InputError(path, "file not found", f"needs {NEEDS['own']}")])
            continue
        split = _prepared(root, "own", name, name, context)
        entries = annotations.read(split.path, faults=[])
        if not entries:
            split.faults.append(InputError(split.path, "holds no caption that could be used", "add some"))
        elif name == "train" and len(entries) < least:
            problem = f"has {len(entries):,} captions, and a run learns from {least:,} at least"
            split.faults.append(InputError(split.path, problem, "add some"))
        below = [number for entry in entries for number in entry.categories if number < 0] if name == "train" else []
        if below:
            problem = f"{len(below):,} of its category_id are negative, as {below[0]}"
            split.faults.append(InputError(split.path, problem, "number categories from 0"))
        odd = [(entry, span) for entry in entries for spans in entry.spans for span in spans
               if span != whole_words(entry.caption, *span)]  # fmt: skip
        for entry, span in odd[:SHOWN]:
            where = f"{split.path}: id {entry.id}: tokens_positive"
            split.warnings.append(Finding("warning", where, hit(entry.caption, *span), SPANS))
        if len(odd) > SHOWN:
            split.warnings.append(
                Finding("warning", str(split.path), f"and {len(odd) - SHOWN:,} more spans like these")
            )
        several = sum(len(entry.boxes) > 1 for entry in entries) if name != "train" else 0
        if several:
            text = f"{several:,} captions have several boxes"
            split.warnings.append(
                Finding("warning", str(split.path), text, "the first of each is what models are judged by")
            )
        yield split


def _mixed(benchmark: str, root: Path) -> Iterator[Split]:
    names = [name for name in MIXED if prepared(root, benchmark, f"final_mixed_{name}")]
    for name in names:
        yield _prepared(root, benchmark, name, f"final_mixed_{name}")
    _, file = MIXTURE
    if prepared(root, of := owner(file), file):
        split = _prepared(root, of, "train of Flickr30k", file)
        split.of = of
        yield split
    elif names and not folder.ours(root):
        path = root / "annotations" / f"{file}.json"
        missing = InputError(path, "file not found", f"needs {NEEDS[benchmark]}")
        yield Split("train of Flickr30k", path, faults=[missing])


def _prepared(root: Path, benchmark: str, name: str, file: str, context: int = CAPTION) -> Split:
    """A split in MDETR's pre-processed format."""
    base = prepared(root, benchmark, file)
    assert base is not None
    split = Split(name, base / "annotations" / f"{file}.json")
    entries = annotations.read(split.path, faults=split.faults)
    split.take(entries, lambda entry: f"{split.path}: id {entry.id}", context)
    return split


def _questions(benchmark: str, root: Path) -> Iterator[Split]:
    missing = list[InputError]()
    known: dict[str, dict[str, int]] | None = None
    with noted(missing):
        known = readers.answers(root)
    for name in PUBLISHED[benchmark]:
        try:
            split = Split(name, readers.asked(root, name))
        except InputError:  # it is missing
            continue
        split.faults, missing = missing, []
        entries = readers.questions(root, name, split.faults)
        split.take(entries, lambda entry, path=split.path: f"{path}: {entry.question_id}")  # type: ignore[misc]
        if known is not None:
            _answers(split, entries, known)
        yield split


def _answers(split: Split, entries: list[Entry], known: dict[str, dict[str, int]]) -> None:
    """Answers that a model with this vocabulary could never give: for training they are refused."""
    training = split.name == "train"
    strange = Counter(
        (entry.question_type, entry.answer)
        for entry in entries
        if (entry.answer or training) and entry.answer not in known.get(entry.question_type, {})
    )
    for (kind, answer), count in strange.most_common():
        problem = f"answer {answer!r} of {count:,} questions is not in gqa_answer2id_by_type.json, type {kind!r}"
        if training:
            split.faults.append(InputError(split.path, problem, "add it, or leave these questions out"))
        else:
            split.warnings.append(Finding("warning", str(split.path), problem, "whatever a model says is wrong"))


def _phrases(benchmark: str, root: Path) -> Iterator[Split]:
    for name in PUBLISHED[benchmark]:
        try:
            split = Split(name, path := readers.said(root, name))
        except InputError:  # it is missing
            continue
        entries = readers.phrases(root, name, faults=split.faults)
        split.take(entries, lambda entry: readers.called(root, entry))
        published = path.suffix == ".txt"
        split.samples = len(flickr.listed(path, []) if published else {entry.file_name for entry in entries})
        yield split


def _detection(benchmark: str, root: Path) -> Iterator[Split]:
    for name in PUBLISHED[benchmark]:
        if path := find(root, benchmark, f"instances_{name}.json"):
            split = Split(name, path)
            known = coco.read(path, split.faults)
            split.samples = len(known.images)
            for picture in known.images.values():
                split.pictures.setdefault(picture.file_name, set()).add((picture.width, picture.height))
            lengths = Vocabulary.full().encode_all(list(known.categories.values()))[2]
            called = [f"{path}: category {number}" for number in known.categories]
            split.faults += unfit(lengths, PROMPT, called.__getitem__)
            yield split


_SPLITS: dict[str, Callable[[str, Path], Iterator[Split]]] = {
    "mixed": _mixed,
    "gqa": _questions,
    "flickr30k": _phrases,
    "coco": _detection,
}


def _pictures(benchmark: str, root: Path, pictures: dict[str, set[tuple[int, int]]], decode: bool) -> Iterator[Finding]:
    """Whether all pictures are there, can be read, and are those that the annotations speak of."""
    if not pictures:
        return
    found = Images(*places(root, benchmark))
    paths = {name: path for name in pictures if (path := found.find(name))}
    missing = [name for name in pictures if name not in paths]
    if missing:
        text = f"{len(missing):,} of {len(pictures):,} pictures are missing, as {', '.join(missing[:SHOWN])}"
        yield Finding("error", str(root), text, f"looked for in {', '.join(filter(None, FOLDERS))}")
    bad = [finding for path in paths.values() if (finding := _twin(path, found.twins(path)))]
    if decode:
        looked = progress(looked_at(paths.values()), total=len(paths), desc="pictures", unit="picture", leave=False)
        for (name, path), seen in zip(paths.items(), looked, strict=True):
            if isinstance(seen, InputError):
                bad.append(Finding("error", seen.where, seen.problem, seen.hint))
            else:
                bad += _misfits(path, seen, pictures[name])
    for level in ("error", "warning"):
        told = [finding for finding in bad if finding.level == level]
        yield from told[:SHOWN]
        if len(told) > SHOWN:
            yield replace(told[0], where=str(root), text=f"and {len(told) - SHOWN:,} more pictures like these")
    if not missing and not any(finding.level == "error" for finding in bad):
        yield Finding("ok", str(root), f"{len(paths):,} pictures{', all of them whole' if decode else ''}")


def _twin(path: Path, others: list[Path]) -> Finding | None:
    """A picture whose name others have too: nobody says which of them is meant."""
    if not others:
        return None
    text = f"is another picture than {others[0]}, which has its name"
    return Finding("error", str(path), text, "a run would take the first: leave one of them, or move the other away")


def _misfits(path: Path, seen: tuple[int, int], said: set[tuple[int, int]]) -> Iterator[Finding]:
    """Sizes that are said of a picture and are not its own.

    A run takes boxes as shares of the sides, and brings pictures to a size of its own: a copy of another size is as
    good, if it is not turned. One of other proportions may be cropped, and may be squashed.
    """
    width, height = seen
    for w, h in sorted(said):
        text = f"has {width}x{height} pixels, where its annotation says {w}x{h}"
        if _alike(width / w, height / h, w, h):
            continue
        if _alike(width / h, height / w, h, w):
            hint = "boxes would lie elsewhere: fetch the pictures and annotations again, of one origin"
            yield Finding("error", str(path), f"{text}: it is turned, or of another data set", hint)
        else:
            hint = "right only if it was squashed, and not cropped"
            yield Finding("warning", str(path), f"{text}: of other proportions", hint)


def _alike(across: float, down: float, width: int, height: int) -> bool:
    """Whether these shares of the sides are one, but for the rounding of a pixel."""
    return abs(across - down) <= 1 / width + 1 / height
