"""How much of a model shall remain: a share of all its parameters to keep, or of its prunable weights to zero."""

from dataclasses import dataclass

from snp.errors import InputError


@dataclass(frozen=True)
class Size:
    """One of two shares.

    Args:
        keep: of ALL parameters, to remain, in (0, 1]; or
        sparsity: of the prunable weights, to zero, in [0, 1].

    Raises:
        InputError: none of them, both, or one out of its range.
    """

    keep: float | None = None
    sparsity: float | None = None

    def __post_init__(self) -> None:
        if (self.keep is None) == (self.sparsity is None):
            raise InputError("keep, sparsity", "are two ways to say one thing", "give exactly one of them")
        if self.keep is not None and not 0 < self.keep <= 1:
            problem = f"{self.keep:g} is not a share of the parameters"
            raise InputError("keep", problem, "choose a number in (0, 1], for example 0.6")
        if self.sparsity is not None and not 0 <= self.sparsity <= 1:
            problem = f"{self.sparsity:g} is not a share of the weights"
            raise InputError("sparsity", problem, "choose a number in [0, 1]")

    @property
    def share(self) -> float:
        """The one that is given."""
        return self.keep if self.keep is not None else self.sparsity or 0.0

    @property
    def gone(self) -> float:
        """What is not to remain, of all parameters or of the prunable weights."""
        return self.share if self.keep is None else 1 - self.share

    @property
    def of(self) -> str:
        """What it is a share of."""
        return "the prunable weights" if self.keep is None else "all parameters"

    @property
    def removed(self) -> str:
        """As `40%`."""
        return f"{percent(self.gone)}%"

    def __str__(self) -> str:
        """As labels of rows have it: `60`, or `s63`."""
        return f"s{percent(self.share)}" if self.keep is None else percent(self.share)


def percent(share: float) -> str:
    """`0.6` as `60`, `0.625` as `62.5`."""
    return f"{100 * share:.4g}"
