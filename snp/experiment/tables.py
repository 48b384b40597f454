"""Which rows a table has: pure functions from a scale to rows, each row a value that knows its runs."""

from collections.abc import Callable
from difflib import get_close_matches

from pydantic import BaseModel, ConfigDict

from snp.errors import InputError
from snp.experiment.spec import Benchmark, Compress, Data, Finetune, Pretrain, Scale, percent

SPLITS: dict[Benchmark, tuple[str, ...]] = {
    "refcoco": ("val", "testA", "testB"),
    "refcoco+": ("val", "testA", "testB"),
    "refcocog": ("val", "test"),
}
BENCHMARKS: tuple[Benchmark, ...] = tuple(SPLITS)
DENSE = "dense"


class Row(BaseModel):
    """A row of a table: one method on one data set at one size, over seeds.

    `keep` is the share of ALL parameters that remains; `group` names the share removed.
    `main` rows are the ones a reproduction runs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    scale: Scale
    data: Data
    name: str
    method: str
    options: dict[str, bool | int | float | str] = {}
    keep: float
    group: str
    benchmarks: tuple[Benchmark, ...] = BENCHMARKS
    seeds: tuple[int, ...] = (0,)
    main: bool = False

    @property
    def label(self) -> str:
        """The name of the row on the command line, as `scenes/snp@60`: data, name and per cent kept."""
        return f"{self.data}/{self.name}@{percent(self.keep)}"

    @property
    def pretrain(self) -> Pretrain:
        """The dense checkpoint that all seeds of all rows start from."""
        return Pretrain(scale=self.scale, data=self.data)

    def compress(self, seed: int) -> Compress:
        """The compression run of a seed."""
        return Compress(
            scale=self.scale,
            data=self.data,
            method=self.method,
            options=self.options,
            keep=self.keep,
            seed=seed,
            parent=self.pretrain,
        )

    def finetune(self, seed: int, benchmark: Benchmark) -> Finetune:
        """The fine-tuning run of a seed on one benchmark."""
        return Finetune(benchmark=benchmark, parent=self.compress(seed))

    def runs(self, seed: int) -> list[Pretrain | Compress | Finetune]:
        """All runs of a seed, parents first."""
        tunings = [self.finetune(seed, benchmark) for benchmark in self.benchmarks]
        return [self.pretrain, self.compress(seed), *tunings]


# name -> (method, options)
MAIN: dict[str, tuple[str, dict[str, bool | int | float | str]]] = {
    DENSE: (DENSE, {}),
    "snp": ("snp", {}),
    "cross-modal": ("cross-modal", {}),
    "magnitude": ("omp", {}),
    "magnitude-structured-uniform": ("magnitude-structured", {"scope": "uniform"}),
    "magnitude-structured-global": ("magnitude-structured", {"scope": "global"}),
    "random-structured": ("random-structured", {}),
}
SWITCHES: dict[str, tuple[str, dict[str, bool | int | float | str]]] = {
    "snp-prune-only": ("snp", {"cross": False, "blockwise": False}),
    "snp-cross-only": ("snp", {"prune": False, "blockwise": False}),
    "snp-free-logits": ("snp", {"hypernetwork": False}),
}
# on request only: sharing inside the text tower cannot remove 40% of all parameters
EXTRA: dict[str, tuple[str, dict[str, bool | int | float | str]]] = {
    "snp-blockwise-only": ("snp", {"prune": False, "cross": False}),
}
STAMPS = (DENSE, "snp", "cross-modal", "magnitude-structured-uniform", "random-structured")


def table1(scale: Scale) -> list[Row]:
    """Table 1, referring expression comprehension: 40% and 60% of all parameters removed.

    Scenes: three seeds, at 40% on three benchmarks, at 60% and for SNP's switches on the RefCOCO-like one.
    Stamps (not at smoke scale): one seed, five methods at 40%.
    """
    if scale == "paper":
        raise InputError(
            "table1 --scale paper", "has no rows: its data sets are not part of this table yet", "use desk"
        )
    seeds = (0,) if scale == "smoke" else (0, 1, 2)
    methods = {**MAIN, **SWITCHES}
    rows = [
        _row(scale, "scenes", name, 0.6, seeds, BENCHMARKS if name in MAIN else ("refcoco",)) for name in methods
    ]
    rows += [
        _row(scale, "scenes", name, 0.4, seeds, ("refcoco",))
        for name in methods
        if name not in (DENSE, "snp-cross-only")  # dense stands above; learned sharing alone cannot reach 60%
    ]
    if scale == "desk":
        rows += [_row(scale, "stamps", name, 0.6, (0,), BENCHMARKS) for name in STAMPS]
    return rows


TABLES: dict[str, Callable[[Scale], list[Row]]] = {"table1": table1}


def rows(name: str, scale: Scale) -> list[Row]:
    """The rows of a table.

    Raises:
        InputError: no such table, or it has no rows at this scale.
    """
    if name not in TABLES:
        raise InputError(name, "no such table", f"tables: {', '.join(TABLES)}")
    return TABLES[name](scale)


def find(label: str, scale: Scale, keep: float | None = None) -> Row:
    """The row with this label in any table; `keep` replaces its size: `scenes/snp` with 0.5 is a row too.

    Raises:
        InputError: no such row (with near matches), or `keep` outside (0, 1].
    """
    if keep is not None and not 0 < keep <= 1:
        raise InputError(
            "--keep", f"must lie in (0, 1], got {keep:g}", "it is the share of all parameters to keep"
        )
    known = [row for table in TABLES.values() for row in table(scale)]
    extra = [_row(scale, "scenes", name, 0.9, (0,), BENCHMARKS) for name in EXTRA]
    family = label.split("@")[0]
    for row in [*known, *extra]:
        if row.label == label or (keep is not None and row.label.split("@")[0] == family):
            changes = {} if keep is None else {"keep": keep, "group": _group(keep), "main": False}
            return row.model_copy(update=changes)
    near = get_close_matches(label, [row.label for row in [*known, *extra]], n=3, cutoff=0.5)
    mend = f"near: {', '.join(near)}" if near else "see `snp rows table1`"
    raise InputError(label, f"no such row at scale {scale}", mend)


def _row(
    scale: Scale,
    data: Data,
    name: str,
    keep: float,
    seeds: tuple[int, ...],
    benchmarks: tuple[Benchmark, ...],
) -> Row:
    method, options = {**MAIN, **SWITCHES, **EXTRA}[name]
    return Row(
        scale=scale,
        data=data,
        name=name,
        method=method,
        options=options,
        keep=1.0 if name == DENSE else keep,
        group=_group(keep),
        benchmarks=benchmarks,
        seeds=seeds,
        main=name in MAIN,
    )


def _group(keep: float) -> str:
    return f"{percent(1 - keep)}%"
