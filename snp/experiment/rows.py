"""A row of a table as a value: one method on one data set at one size, that knows its label and its runs."""

from typing import Any

from pydantic import BaseModel, ConfigDict

from snp.compression.aliases import ALIASES, Given
from snp.compression.size import Size
from snp.errors import InputError
from snp.experiment.benchmarks import ABOUT, EXPRESSIONS, OWN, Benchmark, Expressions, of_expressions
from snp.experiment.resources import EIGHT_GPUS, RESOURCES, Resources
from snp.experiment.scores import REJECTING, Model
from snp.experiment.spec import DENSE, Compress, Data, Finetune, Pretrain, Run, Scale, dense
from snp.experiment.weights import Weights
from snp.models.adapt import Adapt
from snp.models.augment import Augment
from snp.models.distill import Distill
from snp.models.special import Special, word_of
from snp.trimming.trim import Trim

WHOLE = Size(keep=1.0)


class Row(BaseModel):
    """A row of a table: one method on one data set at one size, over seeds.

    Attributes:
        model: which of the two grounding models.
        size: what remains.
        task: the benchmark it is compressed on; none for the pre-training mixture.
        recovery: whether continued pre-training follows, or goes with, the compression.
        times: how often the steps of the recipe it has for that.
        group: the share that is removed, in per cent, of those that it stands beside.
        of: what that is a share of; empty where a group is not about a size.
        main: a reproduction runs it.
        asks: what its runs need on a cluster beyond what their scale and kind have.
        weights: published ones that the towers of its dense model start from.
        special: what is special about its fine-tuning: inputs that are trimmed, a dual encoder, a few shots.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    scale: Scale
    data: Data
    model: Model = "mdetr"
    name: str
    method: str
    options: Given = {}
    size: Size
    task: Expressions | None = None
    recovery: bool = True
    times: int = 1
    group: str
    of: str
    benchmarks: tuple[Benchmark, ...] = EXPRESSIONS
    seeds: tuple[int, ...] = (0,)
    main: bool = False
    asks: Resources = Resources()
    weights: Weights = Weights()
    special: Special | None = None

    @property
    def label(self) -> str:
        """The name of the row on the command line, as `scenes/snp@60`: data, name and per cent kept.

        `@s63`: 63 per cent of the prunable weights are zero; `@60x4`: four times the steps; `+trim50`: half of the
        image tokens are kept; `+dual`: as a dual encoder; `+adapt128`: from so many expressions; `+ask`: captions
        without a target are made; `:gqa`: it is judged on something other than expressions.
        """
        size = f"{self.size}x{self.times}" if self.times > 1 else str(self.size)
        size += f"+{self.special}" if self.special else ""
        others = [name for name in self.benchmarks if not of_expressions(name)]
        return f"{self.data}/{self.name}@{size}" + (f":{'+'.join(others)}" if others else "")

    def sized(self, size: Size) -> "Row":
        """The same of another size."""
        return self.model_copy(update={"size": size, "group": size.removed, "of": size.of, "main": False})

    def on(self, data: Data) -> "Row":
        """The same on data of a user's own.

        Raises:
            InputError: the row is of a task, or compressed for a benchmark, that such data do not have.
        """
        if self.task or self.model != "mdetr" or not all(map(of_expressions, self.benchmarks)):
            raise InputError(f"{self.label} on {data}", "data of your own have expressions alone", "leave --data out")
        return self.model_copy(update={"data": data, "benchmarks": OWN})

    @property
    def heading(self) -> str:
        """What its group is about, as `40% of all parameters removed`; of a dense model that stands alone, `dense`."""
        if not self.of:
            return self.group
        if self.method == DENSE and self.group == WHOLE.removed:
            return DENSE
        return f"{self.group} of {self.of} removed"

    @property
    def title(self) -> str:
        """Its name within a group of a table; where sizes stand beside each other, and inputs, with its own."""
        if self.of:
            return self.name
        size = "" if self.size == WHOLE else f"@{self.size}"
        plain = "true ones alone" if ABOUT[self.benchmarks[0]].task is REJECTING else "teacher"
        return f"{self.name}{size}, {'whole' if self.whole else self.special or plain}"

    @property
    def whole(self) -> bool:
        """It keeps all of every input, and is trained as long as what trims them."""
        return isinstance(self.special, Trim) and self.special.whole

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
            keep=self.size.keep,
            sparsity=self.size.sparsity,
            task=self.task,
            recovery=self.recovery,
            times=self.times,
            seed=seed,
            parent=self.pretrain,
        )

    def finetune(self, seed: int, benchmark: Benchmark) -> Finetune:
        """The fine-tuning run of a seed on one benchmark."""
        special: dict[str, Any] = {} if self.special is None else {word_of(self.special): self.special}
        return Finetune(benchmark=benchmark, parent=self.compress(seed), **special)

    def runs(self, seed: int) -> list[Run]:
        """All runs of a seed, parents first."""
        tunings = [self.finetune(seed, benchmark) for benchmark in self.benchmarks]
        parents = [*self.compress(seed).parents(), self.compress(seed)]
        return list(dict.fromkeys([*parents, *(run for one in tunings for run in (*one.parents(), one))]))

    def resources(self, run: Run) -> Resources:
        """What one of its runs asks of a cluster."""
        return RESOURCES[run.scale][run.kind].overridden(self.asks)


def make(
    scale: Scale,
    data: Data,
    name: str,
    *,
    size: Size,
    task: Expressions | None = None,
    model: Model | None = None,
    seeds: tuple[int, ...] = (0,),
    benchmarks: tuple[Benchmark, ...] = ("refcoco",),
    main: bool = False,
    recovery: bool = True,
    times: int = 1,
    special: Special | None = None,
) -> Row:
    """A row by its name, which is that of a method or of one with options, in the group of its size.

    Args:
        model: by default the one that does what the first benchmark asks for.
    """
    method, options = ALIASES.get(name, (name, {}))
    model = model or ABOUT[benchmarks[0]].task.model
    whole, removed = name == DENSE and recovery, size
    size = WHOLE if whole else size
    about = _about(special)
    return Row(
        scale=scale,
        data=data,
        model=model,
        name=name,
        method=method,
        options=options,
        size=size,
        task=None if whole else task,
        recovery=recovery,
        times=times,
        group=f"{about}: {ABOUT[benchmarks[0]].task.name}" if about else removed.removed,
        of="" if about else removed.of,
        benchmarks=benchmarks,
        seeds=seeds,
        main=main,
        asks=EIGHT_GPUS if (scale, model) == ("paper", "glip") else Resources(),
        special=special,
    )


def _about(special: Special | None) -> str:
    """What a group of such rows is about; nothing where it is about a size."""
    match special:
        case Trim():
            return "inputs trimmed"
        case Distill():
            return "dual encoders"
        case Adapt():
            return f"{special.shots} expressions"
        case Augment():
            return "captions made"
    return ""


def seeds_of(scale: Scale, count: int = 3) -> tuple[int, ...]:
    """So many seeds at desk scale, one elsewhere."""
    return tuple(range(count if scale == "desk" else 1))
