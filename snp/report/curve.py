"""Learning curves of runs: for a terminal how each of their series went, and as a picture."""

from collections.abc import Sequence
from math import ceil, isfinite
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from snp import drawing
from snp.errors import InputError
from snp.experiment.spec import Run
from snp.report.fitted import BETWEEN, fitted, width
from snp.runs.result import MEASURED
from snp.runs.store import Store

BARS = "▁▂▃▄▅▆▇█"
NARROWEST, WIDEST = 8, 60
"""Signs of a curve in a terminal."""
PANELS, FEW = 6, 12
"""Panels of a picture beside each other; points that are few enough to be seen each."""
SMALL = {
    "font.size": 7,
    "axes.titlesize": 8,
    "lines.linewidth": 1.2,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
Curve = dict[str, pd.Series]
"""Series -> its values over steps, what is measured on validation data first, the rate of learning last."""


def curve_of(run: Run, store: Store) -> Curve:
    """What a run has told of its steps: as its result holds it, or of one that is not done its log.

    Raises:
        InputError: the result cannot be read.
    """
    result = store.find(run)
    records = result.curve if result else store.read_log(run)
    frame = pd.DataFrame([numbers for record in records if "step" in (numbers := _numbers(record))])
    if frame.empty:
        return {}
    frame = frame.set_index("step").sort_index()
    order = sorted(frame, key=lambda name: (not name.startswith(MEASURED), name == "lr", name))
    return {name: series for name in order if not (series := frame[name].dropna()).empty}


def told(runs: Sequence[Run], store: Store) -> tuple[dict[Run, Curve], str]:
    """The curves of those of these runs that have one, and what they say as text, fitted to the terminal.

    Raises:
        InputError: none of them has.
    """
    curves = {run: curve for run in runs if (curve := curve_of(run, store))}
    if not curves:
        where, problem = ", ".join(run.name for run in runs[:1]), "has no learning curve here"
        raise InputError(where, f"{problem} ({store.root})", "see `snp runs`; what decides at once has none")
    return curves, "\n".join(_text(run, curve, store) for run, curve in curves.items())


def _text(run: Run, curve: Curve, store: Store) -> str:
    steps = [step for series in curve.values() for step in (series.index[0], series.index[-1])]
    lines = [
        {"series": name, "curve": series, "first": _short(series.iloc[0]), "last": _short(series.iloc[-1])}
        for name, series in curve.items()
    ]
    others = sum(max(len(name), *(len(line[name]) for line in lines)) + BETWEEN for name in ("series", "first", "last"))
    room = min(max(width() - 2 - BETWEEN - others, NARROWEST), WIDEST)
    for line in lines:
        line["curve"] = bars(line["curve"].to_numpy(), room)
    title = f"{run.name}: {store.state(run)}, steps {min(steps)} to {max(steps)}"
    return fitted(pd.DataFrame(lines), title, width())


def bars(values: np.ndarray, room: int) -> str:
    """Values as bars between their smallest and their largest, means where there is no room for each."""
    means = np.array([part.mean() for part in np.array_split(values, min(room, len(values)))])
    spread = means.max() - means.min()
    place = np.zeros(len(means)) if spread == 0 else (means - means.min()) / spread
    return "".join(BARS[round(share * (len(BARS) - 1))] for share in place)


def picture(curves: dict[Run, Curve], path: Path) -> Path:
    """Draw curves: of each run a panel for every series."""
    high = [ceil(len(curve) / PANELS) for curve in curves.values()]
    with drawing.picture(path, (2.2 * PANELS, 1.6 * sum(high) + 0.4 * len(high)), dpi=120, changes=SMALL) as canvas:
        parts = canvas.subfigures(len(curves), 1, height_ratios=high, squeeze=False)[:, 0]
        for part, (run, curve), rows in zip(parts, curves.items(), high, strict=True):
            part.suptitle(f"{run.name}, over steps", x=0.01, ha="left", fontsize=9)
            panels = part.subplots(rows, PANELS, squeeze=False).ravel()
            for panel in panels[len(curve) :]:
                panel.set_axis_off()
            for panel, (name, series) in zip(panels, curve.items(), strict=False):
                panel.plot(series.index, series, marker="." if len(series) < FEW else "", color=_color(name))
                panel.set_title(name)
    return path


def _color(name: str) -> str:
    return "C1" if name.startswith(MEASURED) else "C7" if name == "lr" else "C0"


def _numbers(record: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in record.items() if type(value) in (int, float) and isfinite(value)}


def _short(value: float) -> str:
    return f"{value:.4g}"
