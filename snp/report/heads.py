"""What is left of every head over what it weighed, of tickets by attribution: does the heavier head keep more?"""

from pathlib import Path
from typing import Any

import pandas as pd
from scipy.stats import spearmanr

from snp import drawing
from snp.experiment.rows import make, seeds_of
from snp.experiment.shots import ATTRIBUTED, PLAIN, SPARSITY
from snp.experiment.spec import Scale, home_of
from snp.report.frame import unmeasured
from snp.runs.store import Store


def points(store: Store, scale: Scale) -> pd.DataFrame:
    """A line for each head of each seed: method, tower, layer, what it weighed beside its layer's mean, what is left.

    Raises:
        InputError: no ticket by attribution is there.
    """
    lines: list[dict[str, Any]] = []
    for method in (ATTRIBUTED, PLAIN):
        row = make(scale, home_of(scale), method, size=SPARSITY, seeds=seeds_of(scale))
        for seed in row.seeds:
            result = store.find(row.compress(seed))
            for tower, facts in (result.metrics.get("facts", {}) if result else {}).items():
                for layer, kept in enumerate(facts["kept"]):
                    weighs = facts["weigh"][layer] if "weigh" in facts else [None] * len(kept)
                    lines += [
                        {
                            "method": method,
                            "seed": seed,
                            "tower": tower,
                            "layer": layer,
                            "weighs": weigh,
                            "kept": 100 * own,
                        }
                        for own, weigh in zip(kept, weighs, strict=True)
                    ]
    found = pd.DataFrame(lines)
    if found.empty or not (found.method == ATTRIBUTED).any():
        raise unmeasured("tickets by attribution", "table6", store, scale)
    return found


def figure(store: Store, scale: Scale, path: str | Path) -> Path:
    """Draw a panel for each tower; equal results give equal bytes.

    Raises:
        InputError: as `points`.
    """
    found = points(store, scale)
    own = found[found.method == ATTRIBUTED]
    with drawing.picture(path, (9, 3.6), dpi=160) as canvas:
        towers = list(own.groupby("tower", sort=False))
        for axes, (tower, heads) in zip(
            canvas.subplots(1, len(towers), sharey=True, squeeze=False)[0], towers, strict=True
        ):
            for color, (layer, lines) in zip(drawing.COLORS, heads.groupby("layer"), strict=False):
                axes.plot(lines.weighs, lines.kept, "o", color=color, label=f"layer {layer}")
            axes.set_title(f"{tower} tower")
            axes.set_xlabel("attribution of the head, over the mean of its layer")
        canvas.axes[0].set_ylabel("weights of the head that are left, %")
        canvas.axes[-1].legend(loc="lower right", fontsize=7)
    return Path(path)


def told(found: pd.DataFrame) -> pd.DataFrame:
    """For each method and tower: how what is left goes with what a head weighs (Spearman), and how far heads differ."""
    lines = []
    for (method, tower), heads in found.groupby(["method", "tower"], sort=False):
        within = heads.kept - heads.groupby(["seed", "layer"]).kept.transform("mean")
        rank = "" if heads.weighs.isna().any() else f"{spearmanr(heads.weighs, heads.kept).statistic:.2f}"
        lines.append(
            {"method": method, "tower": tower, "heads": str(len(heads)), "rank correlation": rank,
             "left of a head": f"{heads.kept.mean():.1f}%", "spread within a layer": f"{within.std():.1f} points"}
        )  # fmt: skip
    return pd.DataFrame(lines)
