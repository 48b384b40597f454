"""Which weights the dense models of a store started from: they tell its runs of paper scale from others like them."""

from collections.abc import Iterator, Sequence

from snp.errors import InputError
from snp.experiment.rows import Row
from snp.experiment.spec import dense_of, parse
from snp.files import read_json
from snp.models.named import Weights
from snp.runs.store import Store
from snp.runs.submitted import records


def meant(rows: Sequence[Row], store: Store) -> list[Row]:
    """These rows with the weights that the store names; at paper scale, where it names none, with its runs' own.

    Raises:
        InputError: those are several.
    """
    if store.weights is not None:
        return [row.starting(store.weights) for row in rows]
    if not any(row.scale == "paper" for row in rows):
        return list(rows)
    found = set(_found(store))
    if len(found) > 1:
        problem = f"holds runs that start from {', others from '.join(sorted(map(str, found)))}"
        raise InputError(store.root, problem, "name yours: --vision-weights and --text-weights, or --random-towers")
    return [row.starting(weights) for weights in found or {Weights()} for row in rows]


def _found(store: Store) -> Iterator[Weights]:
    """Of runs that were begun or submitted; where there are none, of those that the store borrows."""
    own = {record.weights for record in records(store) if record.weights is not None}
    for path in sorted(store.root.glob("real*/spec.json")) + sorted(store.root.glob("real*/result.json")):
        value = read_json(path)
        own.add(dense_of(parse(value.get("spec") if path.name == "result.json" else value, path)).weights)
    yield from own or (_found(store.base) if store.base else ())
