"""What can be special about a fine-tuning beside the model that it starts from: at most one of these values."""

from snp.models.adapt import Adapt
from snp.models.augment import Augment
from snp.models.distill import Distill
from snp.trimming.trim import SQUARE, Trim

Special = Trim | Distill | Adapt | Augment
SPECIAL: dict[str, type[Special]] = {"trim": Trim, "dual": Distill, "adapt": Adapt, "ask": Augment}
"""By the word that they begin with in labels, which is also the name of the field that a run has for it."""


def word_of(special: Special | None) -> str:
    """The word of such a value; empty where there is none."""
    return next((word for word, kind in SPECIAL.items() if isinstance(special, kind)), "")


def from_text(text: str) -> Special:
    """The value that a label has behind a plus, as `trim50` or `dual,labels=true`.

    Raises:
        ValueError: it is none; a pydantic ValidationError names the field.
    """
    return next(kind for name, kind in SPECIAL.items() if text.startswith(name)).from_text(text)


def unfit(scale: str, special: Special | None) -> str | None:
    """Why models of a scale cannot be fine-tuned so; None where they can."""
    match special:
        case _ if scale != "paper":
            return None
        case Adapt():
            return "other looks are drawn here, and models of paper scale see photographs"
        case Augment():
            return "captions without a target are made for drawn pictures, and those of paper scale are not"
        case Distill():
            return "a dual encoder keeps a box of every image token, and models of paper scale have none"
        case Trim() if special.policy in SQUARE:
            return f"policy={special.policy} is of pictures that are all of one size, and those of paper scale are not"
    return None
