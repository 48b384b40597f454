"""A budget: how many of a model's parameters may remain, and whether that can be reached at all."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from snp.compression.size import Size
from snp.compression.tower import Tower
from snp.errors import InputError


@dataclass(frozen=True)
class Budget:
    """Share of ALL parameters of the model to remain: stored ones, or non-zero ones for unstructured methods.

    Args:
        keep: share to remain, in (0, 1].
        total: parameters of the dense model.
        fixed: parameters that no method removes, since they are in no unit of a tower: embeddings, norms,
            fusion, heads, biases of o and fc2.
        least: fewest that can remain: `fixed` and one pruning unit of every component of every layer.

    Raises:
        InputError: keep outside (0, 1], or fewer parameters asked for than must survive.
    """

    keep: float
    total: int
    fixed: int
    least: int = 0

    def __post_init__(self) -> None:
        Size(keep=self.keep)
        minimum = max(self.least, self.fixed)
        if self.target < minimum:
            reachable = math.ceil(minimum / self.total * 1e4) / 1e4
            raise InputError(
                "keep",
                f"{self.keep:g} asks for {self.target:,} of {self.total:,} parameters, but {minimum:,} must survive",
                f"choose at least {reachable}",
            )

    @property
    def target(self) -> int:
        """Parameters that may remain in the whole model."""
        return round(self.keep * self.total)

    @property
    def units(self) -> int:
        """Parameters of the target that are left for the towers' units."""
        return self.target - self.fixed

    def error(self, remaining: int) -> float:
        """Relative deviation of the remaining parameters from the target: 0.01 is one percent too many."""
        return remaining / self.target - 1

    @classmethod
    def from_size(
        cls,
        size: Size,
        model: nn.Module,
        towers: dict[str, Tower],
        groups: Mapping[str, Sequence[str]],
        may_empty: bool = False,
    ) -> "Budget":
        """The budget of a size, whichever way it is given; a model without towers keeps what is in no group."""
        if size.keep is None:
            return cls.from_weights(model, groups, size.share, may_empty)
        if towers:
            return cls.from_model(model, towers, size.keep)
        sizes, total = _weights(model, groups)
        rest = total - sum(sizes)
        return cls(size.keep, total, rest, rest + (0 if may_empty else len(sizes)))

    @classmethod
    def from_model(cls, model: nn.Module, towers: dict[str, Tower], keep: float) -> "Budget":
        """The budget of a dense model with these towers."""
        total = sum(parameter.numel() for parameter in model.parameters())
        shapes = [tower.shape for tower in towers.values()]
        units = sum(s.layers * s.units(c) * s.unit_cost(c) for s in shapes for c in s.components)
        one_each = sum(s.layers * s.unit_cost(c) for s in shapes for c in s.components)
        return cls(keep, total, total - units, total - units + one_each)

    @classmethod
    def from_weights(
        cls, model: nn.Module, groups: Mapping[str, Sequence[str]], sparsity: float, may_empty: bool = False
    ) -> "Budget":
        """The budget that zeroes this share of the named weights, rounded down to whole ones.

        Args:
            may_empty: the method may leave a matrix without any weight, as official modes do.

        Raises:
            InputError: sparsity outside [0, 1], or not one weight of each matrix would be left.
        """
        sizes, total = _weights(model, groups)
        size = sum(sizes)
        Size(sparsity=sparsity)
        kept = 0 if may_empty else len(sizes)
        if int(sparsity * size) > size - kept:
            most = (size - kept) / size
            raise InputError("sparsity", f"{sparsity:g} leaves a weight matrix empty", f"choose at most {most:.6g}")
        return cls(1 - int(sparsity * size) / total, total, total - size, total - size + kept)


def _weights(model: nn.Module, groups: Mapping[str, Sequence[str]]) -> tuple[list[int], int]:
    """Sizes of the weights of all groups, and parameters of the model."""
    sizes = [model.get_parameter(name).numel() for names in groups.values() for name in names]
    return sizes, sum(parameter.numel() for parameter in model.parameters())
