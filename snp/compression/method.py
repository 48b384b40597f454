"""What every compression method meets: it gets a Problem and makes a Plan; it never edits a model."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor, nn

from snp.compression.budget import Budget
from snp.compression.plan import Plan
from snp.compression.tower import Tower
from snp.errors import InputError

Kind = Literal["dense", "structured", "unstructured", "shared", "joint"]
Stage = Literal["one-shot", "calibration", "training"]


@dataclass
class Problem:
    """All that a method may know: no task, no model class, no data set.

    Attributes:
        model: the dense model.
        towers: its towers; the first is the donor in cross-modal sharing.
        budget: how much may remain.
        steps: weight steps of the compression phase.
        loss: (batch, overrides) -> scalar loss; overrides maps full parameter names to tensors that stand in
            for them, None is the model as it is. The model stays in the mode (train, eval) that it is in.
        heldout: gives the next batch that no weight step sees.
        seed: of everything random in the method.
    """

    model: nn.Module
    towers: dict[str, Tower]
    budget: Budget
    steps: int
    loss: Callable[[Any, dict[str, Tensor] | None], Tensor]
    heldout: Callable[[], Any]
    seed: int = 0


class Options(BaseModel):
    """Typed options of a method; subclasses add fields with defaults. Unknown names are an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Session(ABC):
    """One run of a method along the weight steps of the compression phase; only `plan` must be written."""

    #: weight step before which the plan is applied to the model; 0 = before any
    apply_at: int = 0

    @abstractmethod
    def plan(self) -> Plan:
        """The decision, by now. Deterministic: asked twice, it answers the same."""

    def overrides(self) -> dict[str, Tensor] | None:
        """Tensors that stand in for parameters in the next weight step; None = the model as it is."""
        return None

    def penalty(self) -> Tensor | None:
        """A scalar to be added to the loss of the next weight step, or None."""
        return None

    def after_step(self, step: int) -> None:  # noqa: B027 - most methods do nothing here
        """Called after weight step `step` (from 0) until the plan is applied: the method's own steps."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers and strings from which `load_state_dict` goes on bit-equally."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027 - stateless by default
        """Take up a state that `state_dict` gave."""

    def log(self) -> dict[str, float]:
        """Figures worth a line in the learning curve."""
        return {}


class Method(ABC):
    """A compression method: class attributes describe it for tables, `start` begins a run.

    Attributes:
        name: what users type.
        kind: what its Plans do.
        stage: one-shot (weights alone), calibration (some batches), or training (along the weight steps).
        source: the paper, with venue and year.
        summary: one line.
        Options: the class of its options.
    """

    name: ClassVar[str]
    kind: ClassVar[Kind]
    stage: ClassVar[Stage]
    source: ClassVar[str]
    summary: ClassVar[str]
    Options: ClassVar[type[BaseModel]] = Options

    def __init__(self, **options: Any) -> None:
        try:
            self.options = self.Options(**options)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"]))
            known = ", ".join(self.Options.model_fields) or "none"
            raise InputError(
                f"{self.name}.{field}", first["msg"], f"options of {self.name}: {known}"
            ) from None

    @abstractmethod
    def start(self, problem: Problem) -> Session:
        """Begin a run. Raises InputError when the method cannot reach the budget at all."""


class OneShot(Method):
    """A method that decides at once; subclasses implement `plan` only."""

    @abstractmethod
    def plan(self, problem: Problem) -> Plan:
        """The decision."""

    def start(self, problem: Problem) -> Session:
        return _Decided(self.plan(problem))


class _Decided(Session):
    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def plan(self) -> Plan:
        return self._plan
