"""Published weights that a dense model starts from: a frozen value of runs and rows."""

from pydantic import BaseModel, ConfigDict, Field


class Weights(BaseModel):
    """Published weights that the two towers of a dense model start from; None: random ones.

    Each is `sha256:` and the hash of a file, so that one that is moved or renamed is the same, or the name that timm or
    open_clip has for a model. What files were called is in manifests.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    vision: str | None = Field(None, min_length=1)
    text: str | None = Field(None, min_length=1)

    def __str__(self) -> str:
        """As `sha256:0a1b2c3d4e and ViT-L-14/openai`, or `random towers`."""
        if self == Weights():
            return "random towers"
        return " and ".join(
            f"{one[:17]}" if one and one.startswith("sha256:") else one or "a random tower"
            for one in (self.vision, self.text)
        )
