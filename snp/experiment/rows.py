"""A row of a table as a value: one method on one data set at one size, that knows its label and its runs."""

import json

from pydantic import BaseModel, ConfigDict

from snp.compression.aliases import ALIASES, Options
from snp.errors import InputError
from snp.experiment.benchmarks import ABOUT, EXPRESSIONS, OWN
from snp.experiment.resources import EIGHT_GPUS, RESOURCES, Resources
from snp.experiment.spec import (
    Benchmark,
    Compress,
    Data,
    Expressions,
    Finetune,
    Model,
    Pretrain,
    Scale,
    Weights,
    dense,
    percent,
)

DENSE = "dense"
ALL_PARAMETERS = "all parameters"
PRUNABLE = "the prunable weights"


class Row(BaseModel):
    """A row of a table: one method on one data set at one size, over seeds.

    Attributes:
        model: which of the two grounding models.
        keep: share of ALL parameters that remains; or
        sparsity: share of the prunable weights that is zero.
        task: the benchmark it is compressed on; none for the pre-training mixture.
        recovery: whether continued pre-training follows, or goes with, the compression.
        times: how often the steps of the recipe it has for that.
        group: the share that is removed, in per cent.
        of: what it is a share of.
        main: a reproduction runs it.
        asks: what its runs need on a cluster beyond what their scale and kind have.
        weights: published ones that the towers of its dense model start from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    scale: Scale
    data: Data
    model: Model = "mdetr"
    name: str
    method: str
    options: Options = {}
    keep: float | None = None
    sparsity: float | None = None
    task: Expressions | None = None
    recovery: bool = True
    times: int = 1
    group: str
    of: str = ALL_PARAMETERS
    benchmarks: tuple[Benchmark, ...] = EXPRESSIONS
    seeds: tuple[int, ...] = (0,)
    main: bool = False
    asks: Resources = Resources()
    weights: Weights = Weights()

    @property
    def label(self) -> str:
        """The name of the row on the command line, as `scenes/snp@60`: data, name and per cent kept.

        `@s63`: 63 per cent of the prunable weights are zero; `@60x4`: four times the steps; `:gqa`: it is judged on
        something other than expressions.
        """
        size = percent(self.keep) if self.sparsity is None else f"s{percent(self.sparsity)}"
        others = [name for name in self.benchmarks if ABOUT[name].task != "expressions"]
        size += f"x{self.times}" if self.times > 1 else ""
        return f"{self.data}/{self.name}@{size}" + (f":{'+'.join(others)}" if others else "")

    def sized(self, keep: float) -> "Row":
        """The same with another share of all parameters to keep."""
        size = {"keep": keep, "sparsity": None, "group": _removed(keep), "of": ALL_PARAMETERS}
        return self.model_copy(update=size | {"main": False})

    def on(self, data: Data) -> "Row":
        """The same on data of a user's own.

        Raises:
            InputError: the row is of a task, or compressed for a benchmark, that such data do not have.
        """
        if self.task or self.model != "mdetr" or any(ABOUT[name].task != "expressions" for name in self.benchmarks):
            raise InputError(f"{self.label} on {data}", "data of your own have expressions alone", "leave --data out")
        return self.model_copy(update={"data": data, "benchmarks": OWN})

    @property
    def heading(self) -> str:
        """What its group is about, as `40% of all parameters removed`; of a dense model that stands alone, `dense`."""
        if self.method == DENSE and self.group == _removed(1.0):
            return DENSE
        return f"{self.group} of {self.of} removed"

    @property
    def pretrain(self) -> Pretrain:
        """The dense checkpoint that all seeds of all rows start from."""
        return dense(self.scale, self.data, self.model, self.weights)

    def starting(self, weights: Weights) -> "Row":
        """The same row, its dense model starting from these weights."""
        return self.model_copy(update={"weights": weights})

    def compress(self, seed: int) -> Compress:
        """The compression run of a seed."""
        return Compress(
            scale=self.scale,
            data=self.data,
            method=self.method,
            options=self.options,
            keep=self.keep,
            sparsity=self.sparsity,
            task=self.task,
            recovery=self.recovery,
            times=self.times,
            seed=seed,
            parent=self.pretrain,
        )

    def finetune(self, seed: int, benchmark: Benchmark) -> Finetune:
        """The fine-tuning run of a seed on one benchmark."""
        return Finetune(benchmark=benchmark, parent=self.compress(seed))

    def runs(self, seed: int) -> list[Pretrain | Compress | Finetune]:
        """All runs of a seed, parents first."""
        tunings = [self.finetune(seed, benchmark) for benchmark in self.benchmarks]
        return [*self.compress(seed).parents(), self.compress(seed), *tunings]

    def resources(self, run: Pretrain | Compress | Finetune) -> Resources:
        """What one of its runs asks of a cluster."""
        return RESOURCES[run.scale][run.kind].overridden(self.asks)


def make(
    scale: Scale,
    data: Data,
    name: str,
    *,
    keep: float | None = None,
    sparsity: float | None = None,
    task: Expressions | None = None,
    model: Model = "mdetr",
    seeds: tuple[int, ...] = (0,),
    benchmarks: tuple[Benchmark, ...] = ("refcoco",),
    main: bool = False,
    recovery: bool = True,
    times: int = 1,
) -> Row:
    """A row by its name, which is that of a method or of one with options, in the group of its size."""
    method, options = ALIASES.get(name, (name, {}))
    whole = {"keep": 1.0} if name == DENSE and recovery else {"keep": keep, "sparsity": sparsity, "task": task}
    return Row(
        scale=scale,
        data=data,
        model=model,
        name=name,
        method=method,
        options=options,
        **whole,
        recovery=recovery,
        times=times,
        group=_of_weights(sparsity) if keep is None else _removed(keep),
        of=PRUNABLE if keep is None else ALL_PARAMETERS,
        benchmarks=benchmarks,
        seeds=seeds,
        main=main,
        asks=EIGHT_GPUS if (scale, model) == ("paper", "glip") else Resources(),
    )


def _removed(keep: float) -> str:
    return f"{percent(1 - keep)}%"


def _of_weights(sparsity: float | None) -> str:
    return f"{percent(sparsity)}%"


def named(name: str, options: Options) -> str:
    """A name with options behind it, as labels have them."""
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in sorted(options.items())}
    return ",".join([name, *(f"{key}={text}" for key, text in texts.items())])
