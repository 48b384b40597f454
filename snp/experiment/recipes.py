"""The numbers of training at every scale: the same phases, the same code, other sizes."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from snp.experiment.benchmarks import ABOUT, EXPRESSIONS, OWN, Benchmark
from snp.experiment.spec import Compress, Finetune, Run, Scale
from snp.models.special import word_of

POOL = 2_000
"""Expressions of another look that a few are drawn of, and of each split that it is judged on, at most."""


class Phase(BaseModel):
    """One phase of training: AdamW, learning rate warmed up, held, then brought to zero in a straight line.

    MDETR's schedule is decay=0 and drop=(35/40,), with text_rise=0.01; its rates lr=1e-4, vision_lr=1e-5, text_lr=5e-5.

    Args:
        steps, batch: weight steps, and captions in each.
        per_image: captions of one image in a batch; the image passes the vision tower once for all of them. [ours]
        lr: the rate that is held; vision_lr, text_lr: those of the two towers, where they have their own [MDETR].
        warm_up: steps of linear rise. decay: share of the steps spent on the descent.
        drop: shares of the steps after each of which rates are a tenth of what they were [MDETR, GLIP].
        text_rise: share of the steps in which the text tower's rate rises; then it falls in a line to zero, and
            no warm_up, decay or drop touches it [MDETR]. None: it does as all others do.
        towers_only: steps at the start that train the towers alone, before any fusion. [ours]
        short_only: steps after those that see only the shortest expressions, before the whole mixture. [ours]
        accumulate: parts in which a batch passes the model, for less memory; gradients are those of the whole.
        precision: of the model's passes; weights, optimizer, losses and a method's own steps are always float32.
        checkpointing: activations inside the layers are computed again in the backward pass, for less memory.
        ema: decay of the weights' moving average, which is what is kept. clip: largest gradient norm.
        crop: share of the images of a batch that are cropped at random, boxes kept [MDETR].
        sides: shorter sides of which one is drawn for every picture that keeps its sides' ratio [MDETR, GLIP].
        log_every: steps between two records.
        judge_every: steps between two looks at the validation set; 0 for none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int
    batch: int
    lr: float
    warm_up: int
    decay: float
    towers_only: int = 0
    short_only: int = 0
    per_image: int = 1
    weight_decay: float = 1e-2
    clip: float = 1.0
    ema: float = 0.998
    log_every: int = 50
    judge_every: int = 0
    vision_lr: float | None = None
    text_lr: float | None = None
    drop: tuple[Annotated[float, Field(gt=0, lt=1)], ...] | None = None
    text_rise: Annotated[float, Field(ge=0, lt=1)] | None = None
    accumulate: Annotated[int, Field(ge=1)] = 1
    precision: Literal["float32", "bfloat16"] = "float32"
    checkpointing: bool = False
    crop: Annotated[float, Field(ge=0, le=1)] = 0.0
    sides: tuple[PositiveInt, ...] | None = None

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.batch % self.accumulate:
            raise ValueError(f"batch={self.batch} is no multiple of accumulate={self.accumulate}")
        return self

    @property
    def own_part(self) -> int:
        """Most captions that pass the model at once in a method's own steps, where each has an image of its own.

        Where weight steps take their batches in parts, half as many images as one of these has: a method's passes are
        in float32, and beside the weights there are tensors that stand in for them. [ours]
        """
        if self.accumulate == 1:
            return self.batch
        return max(self.batch // self.per_image // (2 * self.accumulate), 1)

    def held(self, parameter: str) -> float:
        """The rate that is held for the parameter of this name: that of its tower, or of all others."""
        towers = {"vision": self.vision_lr, "text": self.text_lr}
        own = (lr for tower, lr in towers.items() if lr is not None and tower in parameter.split("."))
        return next(own, self.lr)

    def apart(self, parameter: str) -> bool:
        """Whether the rate of the parameter of this name goes its own way: `text_rise`."""
        return self.text_rise is not None and "text" in parameter.split(".")

    def rate(self, step: int, held: float | None = None, apart: bool = False) -> float:
        """Learning rate at weight step `step` (from 0) where `held` is held, by default `lr`.

        Args:
            apart: of a parameter whose rate goes its own way.
        """
        held = self.lr if held is None else held
        if apart:
            top = (self.text_rise or 0.0) * self.steps
            return held * (step / top if step < top else (self.steps - step) / max(self.steps - top, 1))
        rise = min(1.0, (step + 1) / max(self.warm_up, 1))
        fall = min(1.0, (self.steps - step) / max(self.decay * self.steps, 1))
        drops = sum(step >= share * self.steps for share in self.drop or ())
        return held * min(rise, fall) * 0.1**drops


class Training(BaseModel):
    """How one of the grounding models is trained at a scale.

    Args:
        model: its configuration, a name in snp.models.config.
        finetune: on referring expressions. tune: on other benchmarks. trim: on any, where inputs are trimmed; what is
            not there is tuned as long as without. dual: the same of dual encoders. adapt: on a few expressions of
            another look, the rate apart; without decay, which would move what does not learn.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    pretrain: Phase
    compress: Phase
    finetune: Phase
    tune: dict[Benchmark, Phase] = {}
    trim: dict[Benchmark, Phase] = {}
    dual: dict[Benchmark, Phase] = {}
    adapt: Phase | None = None


class Recipe(BaseModel):
    """Both models at one scale, and how large its desk data are made (at paper scale they are not made).

    draws: how often a few expressions are drawn that are adapted to.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mdetr: Training
    glip: Training
    train_scenes: int = 0
    test_expressions: int = 0
    draws: int = 1


_SMOKE = Phase(steps=16, batch=16, lr=1e-3, warm_up=2, decay=0.5, per_image=2, ema=0.9, log_every=4)
_SMOKE_TUNE = Phase(steps=6, batch=16, lr=5e-4, warm_up=2, decay=0.5, ema=0.9, log_every=2)
_DESK = Phase(steps=500, batch=32, lr=7e-4, warm_up=50, decay=0.5, per_image=2, ema=0.99)
_DESK_DUAL = Phase(steps=3000, batch=32, lr=1e-3, warm_up=50, decay=0.6, ema=0.99)
_DESK_TUNE = Phase(steps=100, batch=32, lr=3e-4, warm_up=20, decay=0.7, ema=0.98)
_DESK_ADAPT = _DESK_TUNE.model_copy(update={"warm_up": 10, "ema": 0.9, "weight_decay": 0.0})
_DESK_LONG = _DESK_TUNE.model_copy(update={"steps": 1500, "warm_up": 50, "ema": 0.99})

MIXED, REFCOCO, REFCOCOG, GQA_BALANCED, FLICKR, COCO = 1_300_000, 120_624, 80_512, 943_000, 148_915, 118_287
"""Training samples of the published benchmarks: captions (Flickr30k's among them), expressions, questions, sentences,
pictures."""


def _steps(samples: int, epochs: float, batch: int = 64) -> int:
    return round(samples * epochs / batch)


_MDETR = Phase(
    steps=1, batch=64, lr=1e-4, vision_lr=1e-5, text_lr=5e-5, warm_up=0, decay=0, text_rise=0.01, weight_decay=1e-4,
    clip=0.1, ema=0.9998, accumulate=8, precision="bfloat16", checkpointing=True, log_every=500, crop=0.5,
    sides=tuple(range(480, 801, 32)),
)  # fmt: skip
"""MDETR's optimizer, sizes and crops [MDETR's code]; parts, precision and checkpointing fit one GPU of 24 GB. [ours]"""
_MDETR_TUNE = _MDETR.model_copy(update={"batch": 8, "accumulate": 1, "lr": 5e-5, "text_lr": 1e-5})
_GLIP = Phase(
    steps=1, batch=64, lr=1e-4, text_lr=1e-5, warm_up=2000, decay=0, weight_decay=1e-4, clip=1.0, ema=0.999,
    drop=(0.67, 0.89), accumulate=32, precision="bfloat16", checkpointing=True, log_every=500,
    sides=(480, 560, 640, 720, 800),
)  # fmt: skip
"""GLIP-T's optimizer and sizes [GLIP's code]; parts, precision and checkpointing fit one GPU of 24 GB. [ours]

What differs from the sources, and why, is told by `snp.report.deviations`. How long methods compress is not known:
an eighth of pre-training, for both. [ours]
"""

RECIPES: dict[Scale, Recipe] = {
    "smoke": Recipe(
        mdetr=Training(
            model="SMOKE",
            pretrain=Phase(
                steps=40, batch=16, lr=2e-3, warm_up=5, decay=0.5, towers_only=10, short_only=10, ema=0.9, log_every=5
            ),
            compress=_SMOKE,
            finetune=_SMOKE_TUNE,
            adapt=_SMOKE_TUNE.model_copy(update={"weight_decay": 0.0}),
        ),
        glip=Training(
            model="GLIP_SMOKE",
            pretrain=Phase(steps=20, batch=16, lr=2e-3, warm_up=5, decay=0.5, ema=0.9, log_every=5),
            compress=_SMOKE,
            finetune=_SMOKE_TUNE,
        ),
        train_scenes=200,
        test_expressions=60,
    ),
    "desk": Recipe(
        mdetr=Training(
            model="DESK",
            pretrain=Phase(
                steps=16000,
                batch=32,
                lr=1e-3,
                warm_up=200,
                decay=0.5,
                towers_only=2000,
                short_only=5000,
                judge_every=500,
            ),
            compress=_DESK,
            finetune=_DESK_TUNE,
            tune={
                "gqa": Phase(steps=3000, batch=32, lr=1e-3, warm_up=50, decay=0.6, per_image=4, ema=0.99),
                "flickr30k": Phase(steps=1500, batch=32, lr=1e-3, warm_up=50, decay=0.5, per_image=2, ema=0.99),
                "no-target": _DESK_LONG,
            },
            dual=dict.fromkeys((*EXPRESSIONS, *OWN), _DESK_DUAL)
            | {"gqa": _DESK_DUAL.model_copy(update={"steps": 4000, "per_image": 4})},
            trim=dict.fromkeys((*EXPRESSIONS, *OWN), _DESK_LONG),
            adapt=_DESK_ADAPT,
        ),
        glip=Training(
            model="GLIP_DESK",
            pretrain=Phase(steps=1500, batch=32, lr=1e-3, warm_up=100, decay=0.5),
            compress=_DESK,
            finetune=_DESK_TUNE,
        ),
        train_scenes=32_000,
        test_expressions=5_000,
        draws=5,
    ),
    "paper": Recipe(
        mdetr=Training(
            model="PAPER",
            pretrain=_MDETR.model_copy(update={"steps": _steps(MIXED, 40), "drop": (35 / 40,)}),
            compress=_MDETR.model_copy(update={"steps": _steps(MIXED, 5), "drop": (4 / 5,)}),
            finetune=_MDETR_TUNE.model_copy(update={"steps": _steps(REFCOCO, 5, 8), "drop": (3 / 5,)}),
            tune={
                "refcocog": _MDETR_TUNE.model_copy(update={"steps": _steps(REFCOCOG, 3, 8), "drop": (2 / 3,)}),
                "gqa": _MDETR.model_copy(
                    update={
                        "steps": _steps(GQA_BALANCED, 10, 128),
                        "batch": 128,
                        "accumulate": 16,
                        "lr": 1.4e-4,
                        "vision_lr": 1.4e-5,
                        "text_lr": 7e-5,
                    }
                ),
                "flickr30k": _MDETR_TUNE.model_copy(update={"steps": _steps(FLICKR, 1, 8)}),
            },
        ),
        glip=Training(
            model="GLIP_PAPER",
            pretrain=_GLIP.model_copy(update={"steps": _steps(COCO + MIXED, 30)}),
            compress=_GLIP.model_copy(update={"steps": _steps(COCO + MIXED, 4)}),
            finetune=_GLIP.model_copy(
                update={"steps": _steps(COCO, 24, batch=32), "batch": 32, "accumulate": 16, "lr": 1e-5, "text_lr": None}
            ),
        ),
    ),
}


def training_of(run: Run) -> Training:
    """How the model of a run is trained at its scale."""
    recipe = RECIPES[run.scale]
    return recipe.glip if run.model == "glip" else recipe.mdetr


def phase_of(run: Run) -> Phase:
    """The phase that a run trains for; without steps where it is compressed at once, longer where it asks for it."""
    training = training_of(run)
    if isinstance(run, Finetune):
        if run.adapt is not None:
            assert training.adapt is not None
            batch = min(training.adapt.batch, run.adapt.shots)
            return training.adapt.model_copy(update={"lr": run.adapt.lr, "batch": batch})
        tuned = training.tune.get(run.benchmark, training.finetune)
        longer = {"trim": training.trim, "dual": training.dual}.get(word_of(run.special), {})
        return longer.get(run.benchmark, tuned)
    phase: Phase = getattr(training, run.kind)
    if isinstance(run, Compress):
        return phase.model_copy(update={"steps": phase.steps * run.times if run.recovery else 0})
    return phase


def times_trained(run: Run) -> int:
    """How often a run trains for its phase, each time from its parent's weights: to every look, for every draw."""
    if isinstance(run, Finetune) and run.adapt is not None:
        return len(ABOUT[run.benchmark].splits) * RECIPES[run.scale].draws
    return 1
