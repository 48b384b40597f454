"""Results as runs leave them, with chosen numbers: for tests of store, tables and command."""

from typing import Any

from snp.experiment.benchmarks import ABOUT, Benchmark
from snp.experiment.rows import Row
from snp.runs.store import Store

MANIFEST = {"commit": "0" * 40, "dirty": False, "wall_seconds": 60.0}


def cost(row: Row, **changes: Any) -> dict[str, Any]:
    """Metrics of a compression that meets its budget exactly; towers, or prunable weights, are 80% of all."""
    keep = row.size.keep or 1 - 0.8 * row.size.share
    return {
        "kind": "dense" if keep == 1 else "structured",
        "stored_params": round(1_000_000 * keep),
        "stored_ratio": keep,
        "tower_ratio": 1 - (1 - keep) / 0.8,
        "nonzero_ratio": keep,
        "flops_ratio": 0.75,
        "projection_gap": 0.0125,
        "seconds": 210.0,
        "session_seconds": 10.0,
        "note": "",
    } | changes


def score(precision: float) -> dict[str, Any]:
    """One split: attribute easier, relation harder by five points."""
    part = {"n": 100, "mean_iou": 0.5}
    return part | {
        "precision@1": precision,
        "precision@5": 1.0,
        "by_type": {
            "attribute": part | {"precision@1": precision + 0.05},
            "relation": part | {"precision@1": precision - 0.05},
        },
    }


def finetuned(benchmark: Benchmark, precision: float) -> dict[str, Any]:
    """Metrics of a fine-tuning with the same precision on every split."""
    return {
        "splits": {split: score(precision) for split in ABOUT[benchmark].splits},
        "zero_shot": {ABOUT[benchmark].splits[0]: score(0.4)},
    }


def fill(store: Store, row: Row, precisions: list[float], **changes: Any) -> None:
    """Finish all runs of a row: seed i reaches precisions[i] on every split of every benchmark."""
    for seed, precision in zip(row.seeds, precisions, strict=False):
        store.save(row.compress(seed), MANIFEST, cost(row, **changes))
        for benchmark in row.benchmarks:
            store.save(row.finetune(seed, benchmark), MANIFEST, finetuned(benchmark, precision))
