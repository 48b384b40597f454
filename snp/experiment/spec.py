"""What a run is, in one place: Pretrain, Compress, Finetune, frozen values whose hash names their folder."""

import hashlib
import json
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from snp.compression.size import Size, percent
from snp.experiment.benchmarks import ABOUT, LOOKS, Benchmark, Expressions, of_looks
from snp.experiment.explained import explain
from snp.experiment.scores import REJECTING, Model
from snp.experiment.weights import Weights
from snp.models.adapt import Adapt
from snp.models.augment import Augment
from snp.models.distill import Distill
from snp.models.special import SPECIAL, Special, unfit
from snp.trimming.trim import Trim

Scale = Literal["smoke", "desk", "paper"]
DRAWN = ("scenes", "stamps")
"""Data sets that rows are on and that are made here: drawn scenes, and pasted photographs."""
MADE = (*DRAWN, *LOOKS)
"""All that are made here."""
DENSE = "dense"
"""The method that changes nothing."""
REAL = "real"
"""The published benchmarks (paper scale only)."""
OWN_NAME = r"[A-Za-z0-9][A-Za-z0-9_-]*"
Data = Annotated[str, Field(pattern=f"^{OWN_NAME}$")]
"""A data set by its name: drawn, published, or any other: a user's own."""
Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""What the generators of all libraries take."""


def is_own(data: Data) -> bool:
    """Whether a data set is a user's own, by its name."""
    return data not in (*DRAWN, REAL)


def home_of(scale: Scale) -> Data:
    """What the rows of a scale are about, first of all."""
    return REAL if scale == "paper" else DRAWN[0]


class Spec(BaseModel):
    """Base of all runs: immutable, rejects unknown fields, hashed without fields left at their default."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: str

    def canonical(self) -> dict[str, Any]:
        """Fields that differ from their defaults, parents included: a new option never orphans old runs."""
        value: dict[str, Any] = {"kind": self.kind}
        for name, field in type(self).model_fields.items():
            item = getattr(self, name)
            if item != field.get_default(call_default_factory=True):
                if isinstance(item, Spec):
                    item = item.canonical()
                elif isinstance(item, BaseModel):
                    item = item.model_dump(exclude_defaults=True)
                value[name] = item
        return value

    @property
    def hash(self) -> str:
        """The first ten hexadecimal digits of the SHA-256 of the canonical JSON."""
        text = json.dumps(self.canonical(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:10]

    @property
    def name(self) -> str:
        """The readable part of the slug."""
        raise NotImplementedError

    @property
    def slug(self) -> str:
        """The name of the run folder: readable name and hash."""
        return f"{self.name}-{self.hash}"

    def parents(self) -> "list[Run]":
        """The runs this one starts from, the eldest first."""
        parent: Run | None = getattr(self, "parent", None)
        return [] if parent is None else [*parent.parents(), parent]

    @property
    def reads(self) -> "tuple[Data, ...]":
        """The data sets that it reads."""
        return (getattr(self, "data"),)  # noqa: B009

    def __hash__(self) -> int:
        return int(self.hash, 16)


class Pretrain(Spec):
    """A dense model: trained once per data set, scale and weights that it starts from; all other runs start from it.

    Attributes:
        weights: published ones that its towers start from.
        parent: the dense model whose towers it starts from; none for random ones, or published weights.
    """

    kind: Literal["pretrain"] = "pretrain"
    scale: Scale
    data: Data
    model: Model = "mdetr"
    seed: Seed = 0
    weights: Weights = Weights()
    parent: "Pretrain | None" = None

    @property
    def name(self) -> str:
        return f"{self.data}{_of_model(self.model)}-pretrain-seed{self.seed}"


def dense(scale: Scale, data: Data, model: Model = "mdetr", weights: Weights = Weights()) -> Pretrain:
    """The dense model that rows start from.

    Below paper scale GLIP has the towers of the MDETR-style one, but for those of which weights are named. [ours]
    """
    parent = dense(scale, data) if model == "glip" and scale != "paper" else None
    return Pretrain(scale=scale, data=data, model=model, weights=weights, parent=parent)


class Compress(Spec):
    """The dense model compressed in continued pre-training, to a size given in one of two ways.

    Attributes:
        options: those that the row names; what a row does not name is left to the method's defaults.
        keep: share of ALL parameters to remain; or
        sparsity: share of the prunable weights to zero: the linear maps of both towers and of the fusion.
        task: trained on the training expressions of this benchmark instead of the pre-training mixture.
        recovery: False: decided at once and left as it is, without continued pre-training; fine-tuning alone heals it.
        times: how often the steps of the recipe's phase it has.
    """

    kind: Literal["compress"] = "compress"
    scale: Scale
    data: Data
    method: str
    options: dict[str, bool | int | float | str] = {}
    keep: Annotated[float, Field(gt=0, le=1)] | None = None
    sparsity: Annotated[float, Field(ge=0, lt=1)] | None = None
    task: Expressions | None = None
    recovery: bool = True
    times: Annotated[int, Field(ge=1)] = 1
    seed: Seed = 0
    parent: Pretrain

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        if (self.keep is None) == (self.sparsity is None):
            raise ValueError("give keep or sparsity, and not both")
        return self

    @property
    def size(self) -> Size:
        """The two fields as one value; they stay apart here, as they were when the first runs were named."""
        return Size(self.keep, self.sparsity)

    @model_validator(mode="after")
    def _same_family(self) -> Self:
        if (self.parent.scale, self.parent.data) != (self.scale, self.data):
            raise ValueError(f"parent is {self.parent.scale}/{self.parent.data}, not {self.scale}/{self.data}")
        return self

    @property
    def model(self) -> Model:
        return self.parent.model

    @property
    def variant(self) -> str:
        """Method and options in a few words, as `magnitude-structured-global` or `snp-no-cross`."""
        return "-".join([self.method, *(_word(key, value) for key, value in sorted(self.options.items()))])

    @property
    def name(self) -> str:
        size = f"{'zero' if self.keep is None else 'keep'}{percent(self.size.share)}"
        found = f"-on-{self.task}" if self.task else ""
        phase = "-at-once" if not self.recovery else f"-x{self.times}" if self.times > 1 else ""
        return f"{self.data}{_of_model(self.model)}-{self.variant}{found}-{size}{phase}-seed{self.seed}"


class Finetune(Spec):
    """A compressed model fine-tuned and evaluated on one benchmark.

    Attributes:
        trim: each input's tokens and heads are trimmed, which is learned here, for longer.
        dual: it becomes a dual encoder, which learns from the dense model that was fine-tuned on the benchmark.
        adapt: it learns from a few expressions of each of the benchmark's data sets, several times anew.
        ask: captions without a target are made for it to learn from, by a model that sees as the dense one does.
    """

    kind: Literal["finetune"] = "finetune"
    benchmark: Benchmark
    parent: Compress
    trim: Trim | None = None
    dual: Distill | None = None
    adapt: Adapt | None = None
    ask: Augment | None = None

    @model_validator(mode="after")
    def _one_picture_a_caption(self) -> Self:
        if self.special and self.model != "mdetr":
            raise ValueError(f"{self.special} is of the model that looks for what captions say; this is {self.model}")
        if sum(getattr(self, name) is not None for name in SPECIAL) > 1:
            raise ValueError(f"{', '.join(SPECIAL)} do not go together")
        if self.ask is not None and ABOUT[self.benchmark].task is not REJECTING:
            raise ValueError(f"ask makes captions without a target, and {self.benchmark} has targets alone")
        if of_looks(self.benchmark) != (self.adapt is not None):
            raise ValueError(f"adapt goes with benchmarks of other looks, and they with it; {self.benchmark} is given")
        if (odd := unfit(self.scale, self.special)) is not None:
            raise ValueError(odd)
        return self

    @property
    def special(self) -> Special | None:
        """The one of these fields that is there."""
        return next((one for name in SPECIAL if (one := getattr(self, name)) is not None), None)

    @property
    def teacher(self) -> "Finetune | None":
        """Whom a dual encoder learns from."""
        if self.dual is None or not self.dual.taught:
            return None
        return Finetune(benchmark=self.benchmark, parent=self._whole)

    @property
    def begins(self) -> Compress:
        """Whose weights it starts from: its parent's, or the dense model's where the parent only says what learns."""
        return self.parent if self.adapt is None or self.adapt.rest == "zero" else self._whole

    @property
    def _whole(self) -> Compress:
        """The dense model of the same seed."""
        parent = self.parent.parent
        return Compress(scale=self.scale, data=self.data, method=DENSE, keep=1.0, seed=self.seed, parent=parent)

    def parents(self) -> "list[Run]":
        """With the teacher, and what that starts from; and with what it begins as."""
        others = [one for one in (self.teacher, self.begins) if one is not None]
        return list(dict.fromkeys([*super().parents(), *(run for one in others for run in (*one.parents(), one))]))

    @property
    def reads(self) -> tuple[Data, ...]:
        return (self.data, *(ABOUT[self.benchmark].splits if self.adapt else ()))

    @property
    def scale(self) -> Scale:
        return self.parent.scale

    @property
    def data(self) -> Data:
        return self.parent.data

    @property
    def model(self) -> Model:
        return self.parent.model

    @property
    def seed(self) -> int:
        return self.parent.seed

    @property
    def name(self) -> str:
        more = "" if self.special is None else f"-{self.special}"
        return f"{self.parent.name}-{self.benchmark}{more.replace(',', '-').replace('=', '-')}"


Run = Pretrain | Compress | Finetune


def dense_of(run: Run) -> Pretrain:
    """The dense model that a run starts from, or is."""
    return run if isinstance(run, Pretrain) else dense_of(run.parent)


_RUN: TypeAdapter[Run] = TypeAdapter(Annotated[Run, Field(discriminator="kind")])


def parse(value: Any, where: object) -> Run:
    """A run from its JSON value; an InputError names the field at fault within `where`."""
    try:
        return _RUN.validate_python(value)
    except ValidationError as error:
        raise explain(error, where) from None


def _of_model(model: Model) -> str:
    """Names of MDETR's runs, the first there were, do not say so."""
    return "" if model == "mdetr" else f"-{model}"


def _word(key: str, value: bool | float | str) -> str:
    key = key.replace("_", "-")
    if isinstance(value, bool):
        return key if value else f"no-{key}"
    return value.replace("_", "-") if isinstance(value, str) else f"{key}{value:g}"
