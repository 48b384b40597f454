"""Pictures with what models say of them, and what is right."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torchvision.ops import box_iou

from snp import drawing
from snp.data.annotations import Entry
from snp.data.pixels import load
from snp.demo.predict import Checkpoint, Prediction, Seen, predict
from snp.errors import InputError
from snp.experiment.benchmarks import ABOUT, EXPRESSIONS, Benchmark
from snp.experiment.rows import DENSE, Row
from snp.experiment.spec import DRAWN, Data, Run, Scale
from snp.experiment.tables import TABLES, rows
from snp.launch.wanted import check_models
from snp.runs.store import Store
from snp.training.prepare import Source
from snp.training.tuning import TUNINGS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLORS = ("#ffd23f", "#3fd0ff", "#ff6ec7", "#7dff6b", "#ff9b42", "#c9a2ff", "#ffffff", "#ff5d5d")
RIGHT = 0.5
"""A box with this IoU with a true one is right."""
MARKS = {True: "✓", False: "✗"}
SHOWN: tuple[Benchmark, ...] = ("refcoco", "gqa", "flickr30k", "coco")
"""One benchmark of every task of Tables 1 to 4."""
UNTUNED: tuple[Benchmark, ...] = (*EXPRESSIONS, "flickr30k")
"""Those that models can be asked before they are fine-tuned."""
WIDE = 42
"""Characters in a line below a picture."""


@dataclass(frozen=True)
class Truth:
    """What is right: boxes, as those of `Seen`, each with the words that it belongs to, "" for any; and the answer."""

    boxes: list[tuple[tuple[float, ...], str]]
    answer: str = ""

    @classmethod
    def from_entry(cls, entry: Entry) -> "Truth":
        """Of an entry: phrases and classes have boxes of their own; of expressions and questions words are free."""
        free = bool(entry.type or entry.answer)
        sides = (entry.width, entry.height) * 2
        words = [" ".join(entry.caption[begin:end] for begin, end in spans) for spans in entry.spans]
        boxes = [
            (tuple(v / side for v, side in zip((x, y, x + w, y + h), sides, strict=True)), "" if free else said)
            for (x, y, w, h), said in zip(entry.boxes, words, strict=True)
        ]
        return cls(boxes, entry.answer)

    def judge(self, seen: Seen) -> bool | None:
        """Whether a box is one of those that its words belong to; None where nothing is known of boxes."""
        known = [box for box, words in self.boxes if words in ("", seen.words)]
        if not self.boxes:
            return None
        return bool(known) and bool((box_iou(torch.tensor([seen.box]), torch.tensor(known)) >= RIGHT).any())


@dataclass(frozen=True)
class Panel:
    """A picture with a text and what a model says of them; what is right, where that is known."""

    title: str
    picture: Path
    text: str
    said: Prediction
    truth: Truth | None = None

    @property
    def verdicts(self) -> list[bool | None]:
        """Of every box."""
        return [None if self.truth is None else self.truth.judge(seen) for seen in self.said.seen]

    @property
    def heading(self) -> str:
        """The title, and what is right: the answer, the box of an expression, or so many of the boxes."""
        if self.truth is None:
            return self.title
        if self.truth.answer:
            right = self.said.answer == self.truth.answer
            return f"{self.title}: {MARKS[right]} {'right' if right else f'wrong, it is {self.truth.answer}'}"
        verdicts = self.verdicts
        if all(words == "" for _, words in self.truth.boxes):  # the first box is what counts
            right = bool(verdicts and verdicts[0]) if self.truth.boxes else not verdicts
            return f"{self.title}: {MARKS[right]} {'right' if right else 'wrong'}"
        return f"{self.title}: {verdicts.count(True)} of {len(verdicts)} right"

    @property
    def below(self) -> list[str]:
        """What stands below the picture: the text, the answer, and what the numbers in the picture mean."""
        boxes = (f"{number} {seen.words} {seen.score:.2f}" for number, seen in enumerate(self.said.seen, 1))
        answer = [f"→ {said}" for said in (self.said.answer, *wrap(self.said.absent, WIDE)) if said]
        return [*wrap(self.text, WIDE), *answer, *wrap(" · ".join(boxes), WIDE)]


def draw(panels: Sequence[Panel], png: Path) -> Path:
    """Panels side by side, written as one PNG: predicted boxes in colours, true ones dashed, and marks of both."""
    columns = min(len(panels), 4)
    rows = -(-len(panels) // columns)
    lines = [len(panel.below) for panel in panels]
    judged = any(panel.truth for panel in panels)
    inches = 3.6 * rows + sum(0.17 * max(lines[i : i + columns]) for i in range(0, len(lines), columns)) + 0.3 * judged
    changes = {"text.parse_math": False, "axes.grid": False, "axes.titleweight": "normal", "axes.titlesize": 9}
    with drawing.picture(png, (3.3 * columns, inches), dpi=150, changes=changes) as figure:
        for axes, panel in zip(figure.subplots(rows, columns, squeeze=False).flat, panels, strict=False):
            _draw(axes, panel)
        for axes in figure.axes:
            axes.set_xticks([])
            axes.set_yticks([])
            axes.set_frame_on(False)
        if judged:
            told = f"dashed: true    {MARKS[True]} right: IoU with it at least {RIGHT:g}    {MARKS[False]} wrong"
            figure.supxlabel(told, fontsize=9, x=0.01, ha="left")
    return png


def _draw(axes: "Axes", panel: Panel) -> None:
    from matplotlib.patches import Rectangle

    image = load(panel.picture)
    width, height = image.size

    def outlined(box: Sequence[float], color: str, line: float, edge: float, **form: Any) -> tuple[float, float]:
        x0, y0, x1, y1 = (v * side for v, side in zip(box, (width, height) * 2, strict=True))
        for shade, wide in ((drawing.BLACK, edge), (color, line)):
            form |= {"fill": False, "edgecolor": shade, "linewidth": wide, "clip_on": False}
            axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, **form))
        return x0, y0

    axes.imshow(image, interpolation="nearest", extent=(0, width, height, 0))
    for number, (seen, right) in enumerate(zip(panel.said.seen, panel.verdicts, strict=True), 1):
        color = COLORS[(number - 1) % len(COLORS)]
        corner = outlined(seen.box, color, 2, 4)
        others = sum(np.allclose(seen.box, other.box, atol=0.05) for other in panel.said.seen[: number - 1])
        axes.annotate(
            f"{number}{'' if right is None else MARKS[right]}",
            corner,
            xytext=(2 + 18 * others, -2),
            textcoords="offset points",
            va="top",
            size=8,
            color=drawing.BLACK,
            bbox={"facecolor": color, "linewidth": 0, "pad": 1},
        )
    for box, _ in panel.truth.boxes if panel.truth else ():
        outlined(box, "white", 1.2, 2.4, linestyle=(0, (4, 3)))
    axes.set_title(panel.heading)
    axes.set_xlabel("\n".join(panel.below), loc="left")


def page(store: Store, scale: Scale, data: Data, png: Path, number: int = 0, tuned: bool = True) -> Path:
    """Samples as the dense and as the compressed model see them, side by side, and what is right. [ours]

    Args:
        number: which sample of the first split of each benchmark.
        tuned: a benchmark of every task, by the models that are fine-tuned on it; else those that need no tuning, by
            the pre-trained model and the compressed one.

    Raises:
        InputError: a run whose model is not there, with the command that makes it, before any data are made; no such
            sample.
    """
    if data not in DRAWN:
        hint = "show one picture with `snp demo PICTURE TEXT --checkpoint RUN`"
        raise InputError(f"--data {data}", "this page is of data that are made here", hint)
    shown: dict[tuple[Benchmark, str], Run] = {}
    for benchmark in SHOWN if tuned else UNTUNED:
        for name in (DENSE, "snp"):
            row = _row(scale, data, name, benchmark)
            untuned = row.pretrain if name == DENSE else row.compress(0)
            shown[benchmark, name] = row.finetune(0, benchmark) if tuned else untuned
    check_models(store, list(shown.values()), "this again with --out FOLDER")
    source = Source.from_scale(scale, data)
    samples = {benchmark: _sample(source, benchmark, number) for benchmark, _ in shown}
    checkpoints = {run: Checkpoint.from_folder(store.folder(run)) for run in shown.values()}
    panels = []
    for (benchmark, name), run in shown.items():
        entry, picture = samples[benchmark], source.root / "images" / samples[benchmark].file_name
        said = predict(checkpoints[run], picture, entry.caption, entry.evaluated)
        panels.append(
            Panel(f"{ABOUT[benchmark].title}-like, {name}", picture, entry.caption, said, Truth.from_entry(entry))
        )
    return draw(panels, png)


def _row(scale: Scale, data: Data, name: str, benchmark: Benchmark) -> Row:
    """The first row of this name that is judged on a benchmark."""
    for row in (row for table in TABLES for row in rows(table, scale)):
        if (row.data, row.name) == (data, name) and benchmark in row.benchmarks:
            return row
    problem = f"no row {name} is judged on {benchmark}"
    hint = "there are scenes at scales smoke and desk, and stamps at desk"
    raise InputError(f"--scale {scale} --data {data}", problem, hint)


def _sample(source: Source, benchmark: Benchmark, number: int) -> Entry:
    """A sample of the first split of a benchmark."""
    split = ABOUT[benchmark].splits[0]
    known = TUNINGS[ABOUT[benchmark].task].samples(source, benchmark, split)
    if not 0 <= number < len(known):
        raise InputError(f"--number {number}", f"{benchmark} has {len(known)} samples", f"0 to {len(known) - 1}")
    return known[number]
