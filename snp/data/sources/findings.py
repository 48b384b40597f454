"""What there is to say of a folder of a user's: findings, by split, and the report of them."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from snp.data.annotations import Entry
from snp.data.columns import unfit
from snp.data.sources.layout import PUBLISHED
from snp.data.tokens import Vocabulary
from snp.errors import InputError

Level = Literal["ok", "warning", "error"]
SHOWN = 3
"""Problems of one file that are told one by one; the others are counted."""
CAPTION, PROMPT = 77, 256
"""Tokens that the models of paper scale read: MDETR of a caption, GLIP of a prompt of class names."""


@dataclass(frozen=True)
class Finding:
    """One line of the report; `hint` says what to do about it."""

    level: Level
    where: str
    text: str
    hint: str = ""


@dataclass
class Split:
    """What a run reads of one split.

    Attributes:
        samples: how many there are: captions, questions, or pictures.
        of: the benchmark whose pictures they are, if it is another than is looked through.
        pictures: file name -> widths and heights that are said of it.
        faults: all that a run would refuse.
        warnings: what it reads, and a user should know.
    """

    name: str
    path: Path
    samples: int = 0
    pictures: dict[str, set[tuple[int, int]]] = field(default_factory=dict)
    faults: list[InputError] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)
    of: str = ""

    def take(self, entries: Sequence[Entry], called: Callable[[Entry], str], context: int = CAPTION) -> None:
        """Entries as a model of so many tokens reads them, by default the paper's MDETR."""
        self.samples = len(entries)
        for entry in entries:
            sizes = self.pictures.setdefault(entry.file_name, set())
            if entry.width:  # questions alone do not know it
                sizes.add((entry.width, entry.height))
        lengths = Vocabulary.full().encode_all([entry.caption for entry in entries])[2]
        self.faults += unfit(lengths, context, lambda i: called(entries[i]))

    def findings(self, benchmark: str) -> Iterator[Finding]:
        """What there is to say of its file, and of its size."""
        for error in self.faults[:SHOWN]:
            yield Finding("error", error.where, error.problem, error.hint)
        if len(self.faults) > SHOWN:
            yield Finding("error", str(self.path), f"and {len(self.faults) - SHOWN:,} more problems like these")
        if not self.faults:
            yield Finding("ok", str(self.path), f"{self.name}: {self.samples:,} samples, each one sound")
        yield from self.warnings
        wanted = PUBLISHED.get(benchmark, {}).get(self.name)
        if wanted is None:
            return
        if self.faults:
            yield Finding("warning", str(self.path), f"{self.name}: cannot be counted before it is mended")
        elif self.samples == wanted:
            yield Finding("ok", str(self.path), f"{self.name}: as many as published, {wanted:,}")
        else:
            text = f"{self.name}: {self.samples:,} where {wanted:,} are published"
            yield Finding("warning", str(self.path), text, "figures on it cannot be compared with published ones")


def report(findings: list[Finding]) -> str:
    """The findings for people, one line each, the worst last so that it is seen."""
    order = sorted(findings, key=lambda finding: ("ok", "warning", "error").index(finding.level))
    lines = [f"{f.level:7}  {f.where}: {f.text}" + (f" ({f.hint})" if f.hint else "") for f in order]
    counts = Counter(finding.level for finding in findings)
    return "\n".join([*lines, "", ", ".join(f"{counts[level]} {level}" for level in ("ok", "warning", "error"))])
