"""What a dual encoder learns from: a frozen value that a run and a row have in common."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, model_validator

from snp.compression.aliases import named
from snp.trimming.trim import options


class Distill(BaseModel):
    """A dual encoder, and what it learns from beside, or in place of, labels.

    The defaults are those of the paper's public code (DiDE): the teacher's predictions and its cross-modal attention,
    no labels; the teacher is the dense model fine-tuned on the benchmark.

    Attributes:
        soft: the teacher's predictions are learned from.
        attention: which attention of the last fusion layer is learned: of words at places (`text`), of places at words
            (`image`), both or none.
        labels: the task's own labels are learned from too.
        teacher: whose attention: of the fine-tuned model, or of one with random weights, as a control. [ours]
        official: padded words count as queries in the mean of the attention loss, as in the public code.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    soft: bool = True
    attention: Literal["both", "text", "image", "none"] = "both"
    labels: bool = False
    teacher: Literal["tuned", "random"] = "tuned"
    official: bool = False

    @model_validator(mode="after")
    def _of_something(self) -> Self:
        if not self.taught and not self.labels:
            raise ValueError("soft=false, attention=none and labels=false leave nothing to learn from")
        if self.attention == "none" and (self.official or self.teacher == "random"):
            raise ValueError("official and teacher=random are of the attention, and attention=none learns none")
        return self

    def __str__(self) -> str:
        """As labels have it: `dual`, or with what differs from the defaults, `dual,labels=true`."""
        return named("dual", self.model_dump(exclude_defaults=True))

    @classmethod
    def from_text(cls, text: str) -> "Distill":
        """The value that is written so; a pydantic ValidationError names the field at fault."""
        return cls.model_validate(options(text.split(",")[1:]))

    @property
    def taught(self) -> bool:
        """Something is learned from a teacher."""
        return self.soft or self.attention != "none"
