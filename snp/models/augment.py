"""Which captions without a target are made to train with: a frozen value that a run and a row have in common."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from snp.compression.aliases import named
from snp.trimming.trim import options

Kind = Literal["pair", "seq", "swap", "nearest", "random", "rule"]
KINDS: dict[Kind, str] = {
    "pair": "a sequence model changes the expression, and sees the picture and what is meant in it",
    "seq": "the same without the picture",
    "swap": "an adjective or noun becomes another of its class, whatever is in the picture",
    "nearest": "the most similar expression of another picture",
    "random": "any expression of another picture",
    "rule": "true edits, by all that is known of the picture",
}
"""Who makes them. `pair` is the paper's (Pair2Seq), `seq` its baseline; `swap` beat it in a later paper that tested it
again; `rule` is the ceiling. [ours: their form]"""


class Augment(BaseModel):
    """Captions without a target that are made of expressions, beside the few true ones.

    Attributes:
        kind: who makes them.
        pairs: true ones, each beside the expression that it was made of: the benchmark's own to learn from, and what a
            sequence model learns from; at most half of those that there are. [ours]
        count: captions that are made, where there are as many expressions.
        phases: 1: they are mixed with the true ones; 2: they come first, then the true ones alone [paper].
        noise: of `rule`, share of captions that are the expression itself, and so mean something. [ours]
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Kind = "pair"
    pairs: Annotated[int, Field(ge=1)] = 1_000
    count: Annotated[int, Field(ge=1)] = 5_000
    phases: Annotated[int, Field(ge=1, le=2)] = 2
    noise: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @model_validator(mode="after")
    def _noise_is_added_to_none(self) -> Self:
        if self.noise and self.kind != "rule":
            raise ValueError(f"noise is of kind=rule, and kind={self.kind} has its own")
        return self

    def __str__(self) -> str:
        """As labels have it: `ask`, or with what differs from the defaults, `ask,count=20000,kind=swap`."""
        return named("ask", self.model_dump(exclude_defaults=True))

    @classmethod
    def from_text(cls, text: str) -> "Augment":
        """The value that is written so; a pydantic ValidationError names the field at fault."""
        return cls.model_validate(options(text.split(",")[1:]))
