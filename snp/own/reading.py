"""The user's pictures, and the captions beside them, as batches that can be passed over again and again."""

import csv
import io
import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from snp.data.pixels import load
from snp.errors import InputError
from snp.files import read_text
from snp.own.origin import PIXELS, Batch

SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"))
CAPTIONS = ("captions.jsonl", "captions.csv", "captions.txt")
FILES, TEXTS = ("file", "file_name", "image"), ("text", "caption")
FORM = "captions.jsonl ({file, text} a line), captions.csv (columns file and text) or captions.txt (file, tab, text)"
Item = tuple[Path, str]
"""A picture and its caption, which is empty where none is read."""


def pictures(folder: Path) -> list[Item]:
    """All pictures in a folder and below it, in the order of their names.

    Raises:
        InputError: there is no such folder, or no picture in it.
    """
    if not folder.is_dir():
        raise InputError(f"--data {folder}", "no such folder", "name one of pictures, or none")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        raise InputError(f"--data {folder}", "holds no picture", f"it is to have some: {', '.join(sorted(SUFFIXES))}")
    return [(path, "") for path in found]


def captioned(folder: Path) -> list[Item]:
    """Pictures with their captions, as the file of captions has them.

    Raises:
        InputError: there is no such file, or a line of it that names no picture or no text; names the line.
    """
    if not folder.is_dir():
        raise InputError(f"--data {folder}", "no such folder", "name one of pictures with captions, or none")
    path = next((folder / name for name in CAPTIONS if (folder / name).is_file()), None)
    if path is None:
        raise InputError(f"--data {folder}", "has no file of captions, and this model reads texts", f"write {FORM}")
    found = []
    for number, row in _rows(path):
        file, text = (next((str(row[key]) for key in keys if row.get(key)), "") for keys in (FILES, TEXTS))
        if not file or not text.strip():
            raise InputError(f"{path}: line {number}", f"has no {'text' if file else 'file'}", f"write {FORM}")
        if not (folder / file).is_file():
            raise InputError(f"{path}: line {number}", f"there is no picture {file}", "name it as it is in the folder")
        found.append((folder / file, text.strip()))
    if not found:
        raise InputError(path, "holds no caption", f"write {FORM}")
    return found


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Every line's number and fields; a file of tabs needs no line of names."""
    text = read_text(path)
    if path.suffix == ".jsonl":
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                try:
                    value = json.loads(line)
                except ValueError as error:
                    raise InputError(f"{path}: line {number}", f"not valid JSON: {error}", f"write {FORM}") from None
                yield number, value if isinstance(value, dict) else {}
        return
    first = text.partition("\n")[0]
    if "\t" in first:
        for number, line in enumerate(text.splitlines(), 1):
            file, _, caption = line.partition("\t")
            if line.strip() and not (number == 1 and file in FILES):
                yield number, {"file": file, "text": caption}
        return
    reader = csv.DictReader(io.StringIO(text))
    for row in reader:
        yield reader.line_num, row


def parted(items: Sequence[Item], size: int, seed: int) -> list[list[Item]]:
    """Batches of so many pictures, shuffled once.

    One with several captions comes once with each, in turns, so that no batch has it twice: its texts tell its pictures
    apart. What does not fill a batch is left out, if there is another.
    """
    turns: list[list[Item]] = []
    seen: dict[Path, int] = {}
    for path, text in items:
        turn = seen[path] = seen.get(path, -1) + 1
        if turn == len(turns):
            turns.append([])
        turns[turn].append((path, text))
    draw = random.Random(seed)
    shuffled = [draw.sample(turn, len(turn)) for turn in turns]
    batches = [turn[start : start + size] for turn in shuffled for start in range(0, len(turn), size)]
    return [batch for batch in batches if len(batch) == size] or batches[:1]


@dataclass(frozen=True)
class Batches:
    """Pictures, decoded when they are asked for, and their texts; the same ones in the same order at every pass.

    Attributes:
        items: of every batch. eye, read: of `Origin`; None: no texts are read. device: where batches are brought.
    """

    items: list[list[Item]]
    eye: Callable[[Image.Image], Tensor]
    read: Callable[[Sequence[str]], Batch] | None = None
    device: str = "cpu"

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.items:
            found = {PIXELS: torch.stack([self.eye(load(path)) for path, _ in batch])}
            if self.read is not None:
                found |= self.read([text for _, text in batch])
            yield {name: tensor.to(self.device) for name, tensor in found.items()}

    def split(self, every: int) -> tuple["Batches", "Batches"]:
        """All but every so many-th batch, and those."""
        last = [items for i, items in enumerate(self.items, 1) if i % every == 0]
        return replace(self, items=[items for items in self.items if items not in last]), replace(self, items=last)
