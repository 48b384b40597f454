"""The result of a run: what it measured, with its manifest and its curve, as one JSON file has it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from snp.errors import InputError
from snp.experiment.places import Trial
from snp.experiment.scores import Measures
from snp.experiment.spec import Run, parse
from snp.files import read_json
from snp.runs.metrics import CompressMetrics, FinetuneMetrics, check

CURVE_POINTS = 100
"""Results are kept in git: of a longer curve training losses are thinned, but nothing measured; all is in log.jsonl."""
MEASURED = "val/"
"""How the names of what is measured on validation data begin."""
HINT = "delete the file and start the run again, or restore it from git"


@dataclass(frozen=True)
class Result:
    """What a finished run leaves behind: the content of result.json.

    Attributes:
        metrics: as they stand there.
        measured: the same, checked: of a compression `costs`, of a fine-tuning `scores`.
    """

    run: Run
    manifest: dict[str, Any]
    metrics: dict[str, Any]
    curve: list[dict[str, Any]] = field(default_factory=list)
    measured: Measures | None = field(default=None, repr=False, compare=False)

    @property
    def costs(self) -> CompressMetrics:
        """What a compression measured."""
        assert isinstance(self.measured, CompressMetrics)
        return self.measured

    @property
    def scores(self) -> FinetuneMetrics:
        """What a fine-tuning measured."""
        assert isinstance(self.measured, FinetuneMetrics)
        return self.measured

    @property
    def trial(self) -> Trial | None:
        """The trial that it is of; its figures mean nothing. None for a real run."""
        return Trial.from_json(self.manifest.get("trial"), "manifest: trial")


def run_of(folder: Path) -> Run | None:
    """The run whose folder this is; None where nothing says so.

    Raises:
        InputError: what says so cannot be read.
    """
    for path in (folder / "spec.json", folder / "result.json"):
        if path.is_file():
            value = read_json(path)
            return parse(value.get("spec") if path.name == "result.json" and isinstance(value, dict) else value, path)
    return None


def runs_in(root: Path) -> Iterator[tuple[Path, Run]]:
    """The folders of runs right below `root`, in the order of their names, and the run of each; errors as `run_of`."""
    for folder in sorted(path for path in root.glob("*/") if not path.is_symlink()):
        if (run := run_of(folder)) is not None:
            yield folder, run


def read(path: Path) -> Result:
    """A result from its file, checked against the schema of its kind."""
    try:
        value = read_json(path)
    except InputError as error:
        raise InputError(error.where, error.problem, HINT) from None
    if not isinstance(value, dict) or not {"spec", "manifest", "metrics"} <= value.keys():
        raise InputError(path, "not a result: fields spec, manifest and metrics are needed", HINT)
    for name, kind in (("manifest", dict), ("metrics", dict), ("curve", list)):
        if not isinstance(value.setdefault(name, kind()), kind):
            raise InputError(f"{path}: {name}", f"is not a JSON {'object' if kind is dict else 'array'}", HINT)
    for number, record in enumerate(value["curve"]):
        if not isinstance(record, dict):
            raise InputError(f"{path}: curve.{number}", "is not a JSON object", HINT)
    run = parse(value["spec"], f"{path}: spec")
    measured = check(run, value["metrics"], f"{path}: metrics")
    Trial.from_json(value["manifest"].get("trial"), f"{path}: manifest.trial")
    return Result(run, value["manifest"], value["metrics"], value["curve"], measured)


def thinned(curve: list[dict[str, Any]], others: int) -> list[dict[str, Any]]:
    """A curve with all that is measured on validation data, and at most `others` records besides, evenly; ends stay."""
    kept = {i for i, record in enumerate(curve) if is_measured(record)}
    rest = [i for i in range(len(curve)) if i not in kept]
    if len(rest) > others:
        rest = [rest[round(i * (len(rest) - 1) / (others - 1))] for i in range(others)]
    return [curve[i] for i in sorted(kept.union(rest))]


def is_measured(record: dict[str, Any]) -> bool:
    """Whether a record of a curve holds more than training losses."""
    return any(name.startswith(MEASURED) for name in record)
