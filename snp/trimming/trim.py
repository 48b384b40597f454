"""What is trimmed of every input: a frozen value that a run, a row and a model have in common."""

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from snp.compression.aliases import named

Policy = Literal["learned", "fixed", "random", "centre", "attention", "small"]
POLICIES: dict[Policy, str] = {
    "learned": "gates decide for every input",
    "fixed": "gates decide once, for all inputs",
    "random": "tokens are drawn",
    "centre": "tokens nearest the centre of the picture",
    "attention": "tokens that the first layer looks at most",
    "small": "a smaller picture",
}
"""How it is decided what stays. `learned` is the paper's, the others are what it is to beat."""


SQUARE: tuple[Policy, ...] = ("fixed", "centre", "small")
"""Those that know places by their number in a grid: of pictures that are all of one size."""


def options(texts: Sequence[str]) -> dict[str, str]:
    """Names and values of `name=value`.

    Raises:
        ValueError: a name is given twice, or a text is no such pair.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or name in found:
            raise ValueError(f"{name} is given twice" if equals else f"{text!r} is no option, as name=value")
        found[name] = value
    return found


class Trim(BaseModel):
    """How much of an input a model keeps, and who decides it.

    The paper's code is not public, and of its text the abstract alone was at hand: gates in every layer, on tokens and
    on heads, guided across modalities, self-distillation and a curriculum are [paper]; their sizes are [ours].

    Attributes:
        tokens: share of the image tokens that is kept, mean over inputs and layers of the vision tower; 1: all of them.
        heads: the same of the heads of its attention.
        policy: who decides.
        guide: what gates see beside a token: a summary of the sentence [paper: cross-modal], or of the picture alone,
            so that what is kept can be cached with the picture [ours], or nothing.
        distill: the model with all tokens teaches the trimmed one, at every step [paper].
        curriculum: the target falls to its value over the first 60% of the steps [paper: curriculum; ours: its shape].
        sites: layers with gates, from 0; None: all [paper].
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    tokens: Annotated[float, Field(gt=0, le=1)] = 0.5
    heads: Annotated[float, Field(gt=0, le=1)] = 1.0
    policy: Policy = "learned"
    guide: Literal["text", "image", "none"] = "text"
    distill: bool = True
    curriculum: bool = True
    sites: tuple[Annotated[int, Field(ge=0)], ...] | None = None

    @model_validator(mode="after")
    def _gated(self) -> Self:
        if self.policy not in ("learned", "fixed") and self.heads < 1:
            raise ValueError(f"policy={self.policy} keeps all heads: leave heads out")
        if self.policy != "learned" and self.guide != "text":
            raise ValueError(f"guide is of learned gates, and policy={self.policy} has none that see anything")
        if self.whole and self.model_copy(update={"tokens": 0.5}) != Trim():
            raise ValueError("what keeps all tokens and heads has no other options")
        if self.sites is not None and tuple(sorted({*self.sites})) != self.sites:
            raise ValueError(f"sites={self.sites} are not layers in ascending order")
        return self

    def __str__(self) -> str:
        """As labels have it: `trim50`, or with what differs from the defaults, `trim50,guide=image,sites=1-3`."""
        other = self.model_dump(mode="json", exclude_defaults=True, exclude={"tokens"})
        if self.sites is not None:
            other["sites"] = "-".join(map(str, self.sites))
        return named(f"trim{100 * self.tokens:g}", other)

    @classmethod
    def from_text(cls, text: str) -> "Trim":
        """The value that is written so.

        Raises:
            ValueError: it is none; a pydantic ValidationError names the field.
        """
        first, *others = text.split(",")
        if not (share := re.fullmatch(r"trim(\d+(?:\.\d+)?)", first)):
            raise ValueError(f"{first} is no share of tokens to keep, as trim50")
        given: dict[str, Any] = options(["tokens=" + str(float(share[1]) / 100), *others])
        if "sites" in given:
            given["sites"] = tuple(given["sites"].split("-"))
        return cls.model_validate(given)

    @property
    def whole(self) -> bool:
        """Nothing is trimmed: the control that is trained as long."""
        return self.tokens == self.heads == 1

    def target(self, share: float, step: int, steps: int) -> float:
        """The share to keep at a weight step, where it shall end at `share`."""
        return max(share, 1 - (1 - share) * step / (0.6 * steps)) if self.curriculum else share
