"""A page of samples as a picture: enlarged images with the boxes of what their captions name."""

import random
import re
from pathlib import Path

from snp import drawing
from snp.data import annotations
from snp.data.annotations import Entry
from snp.data.drawn.expressions import KINDS
from snp.data.pixels import load

COLORS = ("#ffd23f", "#3fd0ff", "#ff6ec7", "#7dff6b", "#ff9b42", "#c9a2ff", "#ffffff", "#ff5d5d")
COLUMNS = 4


def sample_page(root: str | Path, out_png: str | Path, n: int = 12, seed: int = 0) -> Path:
    """Draw `n` samples of the data set in `root` (expressions of each benchmark, and captions) into a PNG.

    A quarter of the samples are captions of several phrases; every phrase has the colour of its boxes.

    Raises:
        InputError: no data set, or an image that is missing or broken.
    """
    root, rng = Path(root), random.Random(seed)
    sources = ["finetune_refcoco_val", "finetune_refcoco+_val", "finetune_refcocog_val", "final_mixed_val"]
    pools = [annotations.read(root / "annotations" / f"{name}.json") for name in sources]
    pools[-1] = [entry for entry in pools[-1] if not entry.type]
    chosen = []
    for number in range(n):
        pool, kind = pools[number % len(pools)], KINDS[number // len(pools) % len(KINDS)]
        chosen.append(rng.choice([entry for entry in pool if entry.type in (kind, "")]))
    rows = -(-n // COLUMNS)
    with drawing.picture(out_png, (3.1 * COLUMNS, 3.75 * rows), changes={"text.parse_math": False}) as figure:
        from matplotlib.layout_engine import ConstrainedLayoutEngine  # now that the style has found matplotlib sound

        figure.set_facecolor("#16181d")
        layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.1, hspace=0.05, rect=(0.01, 0.01, 0.98, 0.98))
        figure.set_layout_engine(layout)
        for axes, entry in zip(figure.subplots(rows, COLUMNS, squeeze=False).flat, chosen, strict=False):
            _sample(axes, root / "images" / entry.file_name, entry)
        for axes in figure.axes:
            axes.set_axis_off()
    return Path(out_png)


def _sample(axes, path: Path, entry: Entry) -> None:  # type: ignore[no-untyped-def]
    from matplotlib.patches import Rectangle

    axes.imshow(load(path), interpolation="nearest", extent=(0, entry.width, entry.height, 0))
    phrases = sorted({span for spans in entry.spans for span in spans})
    colors = {span: COLORS[number % len(COLORS)] for number, span in enumerate(phrases)}
    for (x, y, width, height), spans in zip(entry.boxes, entry.spans, strict=True):
        # An object that several phrases name gets a box for each, one around the other.
        for number, span in enumerate(spans):
            corner, size = (x - number, y - number), (width + 2 * number, height + 2 * number)
            axes.add_patch(Rectangle(corner, *size, fill=False, edgecolor="#16181d", linewidth=4, clip_on=False))
            axes.add_patch(Rectangle(corner, *size, fill=False, edgecolor=colors[span], linewidth=2, clip_on=False))
    name = entry.dataset_name if entry.type else "caption"
    axes.set_title(" · ".join(filter(None, (name, entry.type))), fontsize=8, color="#8b93a3", loc="left", pad=4)
    _caption(axes, entry.caption, colors)


def _caption(axes, caption: str, colors: dict[tuple[int, int], str]) -> None:  # type: ignore[no-untyped-def]
    """The caption below the image, line by line, its phrases in their colours."""
    line, column, width, font = 0, 0, 38, 9
    for begin, end in (word.span() for word in re.finditer(r"\S+", caption)):
        if column + end - begin > width:
            line, column = line + 1, 0
        color = next((c for (b, e), c in colors.items() if b <= begin and end <= e + 1), "#dfe3ea")
        axes.text(
            column / width,
            -0.07 - 0.062 * line,
            caption[begin:end],
            transform=axes.transAxes,
            color=color,
            fontsize=font,
            family="DejaVu Sans Mono",
            va="baseline",
            clip_on=False,
        )
        column += end - begin + 1
