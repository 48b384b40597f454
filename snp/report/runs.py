"""What a page tells of rows and runs: states, figures, plan, options, learning curve, manifest, as JSON values."""

import json
import math
from functools import cache
from typing import Any

from snp.experiment.rows import Row
from snp.experiment.spec import Compress, Finetune, Run
from snp.runs.result import CURVE_POINTS, MEASURED, Result, thinned
from snp.runs.store import Store

Value = dict[str, Any]
Shared = dict[str, tuple[int, Value]]
"""A value's JSON -> its place among those that are told once, and the value."""
POINTS = 30_000
"""Steps of all learning curves together: of the more runs a page tells, the fewer of each."""
FEWEST = 8


def told(rows: dict[str, list[str]], found: dict[str, Row], store: Store) -> Value:
    """Rows by label, runs by slug, and `shared`: what the manifests of many runs have in common, once.

    Args:
        rows: label -> the tables that show it. found: label -> the row.
    """
    told_rows, results, find = {}, {}, cache(store.find)
    for label, tables in rows.items():
        row = found[label]
        listed = []
        for seed in row.seeds:
            for run in row.runs(seed):
                if result := find(run):
                    results[run.slug] = result
                state = "done" if result else store.state(run)
                listed.append(
                    {"slug": run.slug, "kind": run.kind, "seed": seed, "state": state}
                    | {"benchmark": getattr(run, "benchmark", None)}
                )
        told_rows[label] = _row(row) | {"tables": tables, "runs": listed}
    shared: Shared = {}
    points = max(FEWEST, min(CURVE_POINTS, POINTS // max(len(results), 1)))
    runs = {slug: _run(result, points, shared) for slug, result in sorted(results.items())}
    return {"rows": told_rows, "runs": runs, "shared": [value for _, value in shared.values()]}


def series(curve: list[Value], points: int) -> Value:
    """A curve as columns: `step`, and each series with None where a record lacks it; some losses are left out.

    What is measured on validation data stays, and so do the ends.
    """
    kept = thinned(curve, points)
    names = dict.fromkeys(name for record in kept for name in record if name != "step")
    of_validation = [name for name in names if name.startswith(MEASURED)]
    ordered = [
        *of_validation,
        *sorted(names.keys() - {*of_validation, "lr"}),
        *(["lr"] if "lr" in names else []),
    ]
    columns = {name: [rounded(record.get(name)) for record in kept] for name in ordered}
    return {"step": [record.get("step", i) for i, record in enumerate(kept)], "series": columns}


def rounded(value: Any, digits: int = 4) -> Any:
    """A JSON value with all its broken numbers to so many significant digits; None where one is not finite."""
    if isinstance(value, float):
        return float(f"{value:.{digits}g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: rounded(item, digits) for key, item in value.items()}
    return [rounded(item, digits) for item in value] if isinstance(value, list) else value


def _row(row: Row) -> Value:
    return {
        "method": row.name,
        "registered": row.method,
        "given": row.options,
        "data": row.data,
        "model": row.model,
        "removed": row.heading,
        "recovery": row.recovery,
        "times": row.times,
        "task": row.task,
        "benchmarks": row.benchmarks,
        "seeds": row.seeds,
    }


def _run(result: Result, points: int, shared: Shared) -> Value:
    run: Run = result.run
    manifest = dict(result.manifest)
    config = dict(manifest.get("config") or {})
    config.pop("spec", None)  # it is the run's own, told below
    manifest["config"] = config
    spec = run.canonical()
    spec.pop("parent", None)
    parent = getattr(run, "parent", None)
    return {
        "name": run.name,
        "kind": run.kind,
        "seed": run.seed,
        "benchmark": run.benchmark if isinstance(run, Finetune) else None,
        "row": isinstance(run, Compress | Finetune),
        "parent": None if parent is None else parent.slug,
        "spec": spec,
        "metrics": rounded(result.metrics, 5),
        "curve": series(result.curve, points),
        "manifest": {key: _shared(value, shared) for key, value in sorted(manifest.items())},
    }


def _shared(value: Any, shared: Shared) -> Any:
    """A part of a manifest, or, of an object, its place among those that are told once, as `{"shared": 3}`."""
    if not isinstance(value, dict):
        return value
    place, _ = shared.setdefault(json.dumps(value, sort_keys=True), (len(shared), value))
    return {"shared": place}
