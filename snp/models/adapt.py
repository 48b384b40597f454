"""What of a model learns from a few expressions of another look: a frozen value that a run and a row have in common."""

import re
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from snp.compression.aliases import named
from snp.trimming.trim import options

Train = Literal["all", "near", "bias", "last", "ticket", "shared", "own"]
TRAINS: dict[Train, str] = {
    "all": "all that is there",
    "near": "all that is there, pulled to where it was (L2-SP)",
    "bias": "biases alone",
    "last": "the last layer of fusion, and the heads",
    "ticket": "the weights of its ticket alone",
    "shared": "units that layers share",
    "own": "units that layers have for themselves",
}
"""What learns. `ticket` is the paper's; `shared` and `own` are of models whose layers share units."""
RATES: dict[Train, float] = dict.fromkeys(TRAINS, 3e-4) | {"all": 1e-3}
"""Learning rates: the best of `TRIED` for each on the look that nothing is judged on (`snp table rates`)."""
LEARNERS: dict[Train, tuple[str, ...]] = {
    "ticket": ("unstructured",), "shared": ("shared", "joint"), "own": ("shared", "joint"),
}  # fmt: skip
"""What learns only in models that methods of these kinds leave."""
TRIED = (1e-4, 3e-4, 1e-3, 3e-3)


class Adapt(BaseModel):
    """A model is adapted to other looks of its scenes, each from a few expressions of it.

    ALTER (EMNLP Findings 2021) fine-tunes the subnetwork alone; of its text the abstract alone was at hand, and there
    is no code: whether what it leaves out is zero or stays is tried both ways. [ours]

    Attributes:
        shots: expressions that it learns from.
        train: what of it learns.
        rest: of a ticket, what the weights are that it leaves out: zero, or those of the dense model, which then is
            what learns, and only where the ticket says so.
        rate: another learning rate than that of `RATES`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    shots: Annotated[int, Field(ge=1)] = 128
    train: Train = "all"
    rest: Literal["zero", "dense"] = "zero"
    rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _of_a_ticket(self) -> Self:
        if self.rest != "zero" and self.train != "ticket":
            raise ValueError(f"rest={self.rest} says what stays where a ticket alone learns: train=ticket")
        return self

    def __str__(self) -> str:
        """As labels have it: `adapt128`, or with what differs from the defaults, `adapt128,train=bias`."""
        return named(f"adapt{self.shots}", self.model_dump(exclude_defaults=True, exclude={"shots"}))

    @classmethod
    def from_text(cls, text: str) -> "Adapt":
        """The value that is written so.

        Raises:
            ValueError: it is none; a pydantic ValidationError names the field.
        """
        first, *others = text.split(",")
        if not (count := re.fullmatch(r"adapt([1-9]\d*)", first)):
            raise ValueError(f"{first} is no number of expressions, as adapt128")
        given = options(others)
        if "shots" in given:
            raise ValueError("shots is given twice")
        return cls.model_validate({"shots": count[1], **given})

    @property
    def lr(self) -> float:
        """The learning rate that is held."""
        return self.rate or RATES[self.train]
