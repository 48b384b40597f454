"""The numbers of training at every scale: the same phases, the same code, other sizes."""

from pydantic import BaseModel, ConfigDict

from snp.experiment.spec import Compress, Finetune, Pretrain, Scale


class Phase(BaseModel):
    """One phase of training: AdamW, learning rate warmed up, held, then brought to zero in a straight line.

    Args:
        steps, batch: weight steps, and captions in each.
        per_image: captions of one image in a batch; the image passes the vision tower once for all of them. [ours]
        lr: the rate that is held.
        warm_up: steps of linear rise. decay: share of the steps spent on the descent.
        towers_only: steps at the start that train the towers alone, before any fusion. [ours]
        short_only: steps after those that see only the shortest expressions, before the whole mixture. [ours]
        ema: decay of the weights' moving average, which is what is kept. clip: largest gradient norm.
        log_every: steps between two records, and so the finest grain at which a killed run goes on.
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

    def rate(self, step: int) -> float:
        """Learning rate of weight step `step` (from 0)."""
        rise = min(1.0, (step + 1) / max(self.warm_up, 1))
        fall = min(1.0, (self.steps - step) / max(self.decay * self.steps, 1))
        return self.lr * min(rise, fall)


class Recipe(BaseModel):
    """All phases of a scale, its model (a name in snp.models.config), and how large its desk data are made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    pretrain: Phase
    compress: Phase
    finetune: Phase
    train_scenes: int
    test_expressions: int


RECIPES: dict[Scale, Recipe] = {
    "smoke": Recipe(
        model="SMOKE",
        pretrain=Phase(
            steps=40, batch=16, lr=2e-3, warm_up=5, decay=0.5, towers_only=10, short_only=10, ema=0.9, log_every=5
        ),
        compress=Phase(steps=16, batch=16, lr=1e-3, warm_up=2, decay=0.5, per_image=2, ema=0.9, log_every=4),
        finetune=Phase(steps=6, batch=16, lr=5e-4, warm_up=2, decay=0.5, ema=0.9, log_every=2),
        train_scenes=200,
        test_expressions=60,
    ),
    "desk": Recipe(
        model="DESK",
        pretrain=Phase(
            steps=16000, batch=32, lr=1e-3, warm_up=200, decay=0.5, towers_only=2000, short_only=5000, judge_every=500
        ),
        compress=Phase(steps=500, batch=32, lr=7e-4, warm_up=50, decay=0.5, per_image=2, ema=0.99),
        finetune=Phase(steps=100, batch=32, lr=3e-4, warm_up=20, decay=0.7, ema=0.98),
        train_scenes=32_000,
        test_expressions=5_000,
    ),
}


def phase_of(run: Pretrain | Compress | Finetune) -> Phase:
    """The phase that a run trains for, of its scale's recipe; without steps where it is compressed at once."""
    phase: Phase = getattr(RECIPES[run.scale], run.kind)
    at_once = isinstance(run, Compress) and not run.recovery
    return phase.model_copy(update={"steps": 0}) if at_once else phase
