"""How far rows are in a store, and how long what is left of them takes, from the times of what is done."""

from snp.experiment.rows import Row
from snp.experiment.spec import Finetune, Run
from snp.runs.store import Store


def states(row: Row, store: Store) -> list[str]:
    """Per seed: missing, done, or how many of the row's runs are done."""
    texts = []
    for seed in row.seeds:
        found = [store.state(run) for run in own_runs(row, seed)]
        done = found.count("done")
        partial = f"{done} of {len(found)} runs"
        texts.append("done" if done == len(found) else partial if {*found} != {"missing"} else "missing")
    return texts


def mean_seconds(store: Store) -> dict[str, float]:
    """Mean wall time of the finished runs of each sort."""
    times: dict[str, list[float]] = {}
    for result in store.results():
        if seconds := result.manifest.get("wall_seconds"):
            times.setdefault(sort_of(result.run), []).append(seconds)
    return {kind: sum(values) / len(values) for kind, values in times.items()}


def time_left(rows: list[Row], seeds: tuple[int, ...], store: Store, costs: dict[str, float]) -> str:
    """Time that the missing and incomplete runs will take, pre-training left out."""
    todo = [sort_of(run) for row in rows for seed in seeds for run in own_runs(row, seed) if not store.find(run)]
    if not all(sort in costs for sort in todo):
        return "?"
    return f"{sum(costs[sort] for sort in todo) / 60:.0f} min" if todo else ""


def own_runs(row: Row, seed: int) -> list[Run]:
    """The runs of a seed that are its row's own: dense models are shared by all."""
    return [run for run in row.runs(seed) if run.kind != "pretrain"]


def sort_of(run: Run) -> str:
    """Runs that take about the same time: the kind, compression without training, or with more of it, apart.

    So are fine-tunings that learn to trim, are taught, or have captions made for them.
    """
    if isinstance(run, Finetune) and (run.trim or run.dual or run.augment):
        return f"{run.kind} {'trimmed' if run.trim else 'dual' if run.dual else 'augmented'} {run.benchmark}"
    if not getattr(run, "recovery", True):
        return "compress at once"
    return run.kind if (times := getattr(run, "times", 1)) == 1 else f"{run.kind} x{times}"
