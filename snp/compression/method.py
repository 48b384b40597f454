"""What every compression method meets: it gets a Problem and makes a Plan; it never edits a model."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn

from snp.compression.basis import Basis, turn
from snp.compression.plan import Plan
from snp.compression.problem import Problem
from snp.compression.tower import Tower
from snp.errors import InputError

Kind = Literal["dense", "structured", "unstructured", "shared", "joint"]
Stage = Literal["one-shot", "calibration", "training"]


class Session(ABC):
    """One run of a method along the weight steps of the compression phase; only `plan` must be written.

    The order of calls, of which `weight_step` and `finalize` see to all but the first::

        Method.begin(problem)
          for step in range(apply_at):      the phase trains the whole model
              overrides()                   what its forward passes see in place of parameters
              penalty()                     added to the loss of the last of them
              [the weights change]
              after_step(step)              the method's own steps, as those of a hypernetwork
          weights()                         new values for what stays
          plan()                            what is cut and shared
        [the plan is applied, and the rest of the phase trains the smaller model]

    `state_dict` may be asked for between two steps, and another session of the same problem then goes on from there.

    Attributes:
        apply_at: weight step before which the plan is applied to the model; 0 = before any.
    """

    apply_at: int = 0

    @abstractmethod
    def plan(self) -> Plan:
        """The decision, by now. Deterministic: asked twice, it answers the same."""

    def scores(self) -> dict[str, Tensor]:
        """Parameter name -> score of each of its weights, the larger the better; empty if it ranks no weights."""
        return {}

    def weights(self) -> dict[str, Tensor]:
        """Values that parameters take just before the plan is applied; empty if the method changes none."""
        return {}

    def overrides(self) -> dict[str, Tensor] | None:
        """Tensors that stand in for parameters in the next weight step; None = the model as it is."""
        return None

    def penalty(self) -> Tensor | None:
        """A scalar to be added to the loss of the next weight step, or None."""
        return None

    def after_step(self, step: int) -> bool | None:  # noqa: B027 - most methods do nothing here
        """Called after weight step `step` (from 0) until the plan is applied: the method's own steps.

        Returns:
            True when it has set weights back, so that optimizer and averages begin anew.
        """

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers and strings from which `load_state_dict` goes on bit-equally."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027 - stateless by default
        """Take up a state that `state_dict` gave."""

    def log(self) -> dict[str, float]:
        """Figures worth a line in the learning curve."""
        return {}

    def facts(self) -> dict[str, Any]:
        """What else is worth knowing of the decision, as JSON has it: kept with the result."""
        return {}


class Method(ABC):
    """A compression method: class attributes describe it for tables, `start` begins a run.

    Attributes:
        name: what users type.
        kind: what its Plans do.
        stage: one-shot (weights alone), calibration (some batches), or training (along the weight steps).
        source: the paper, with venue and year.
        summary: one line.
        Options: the class of its options; a method that has some writes one inside, and says `options: Options`.
        options: those of this run.
    """

    name: ClassVar[str]
    kind: ClassVar[Kind]
    stage: ClassVar[Stage]
    source: ClassVar[str]
    summary: ClassVar[str]

    class Options(BaseModel):
        """Typed options of a method; subclasses add fields with defaults. Unknown names are an error."""

        model_config = ConfigDict(extra="forbid", frozen=True)

    options: Options

    def __init__(self, **options: Any) -> None:
        try:
            self.options = self.Options(**options)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"]))
            known = ", ".join(self.Options.model_fields) or "none"
            problem = "is no option of it" if first["type"] == "extra_forbidden" else first["msg"]
            raise InputError(f"{self.name}.{field}", problem, f"options of {self.name}: {known}") from None

    @classmethod
    def modes(cls) -> tuple[str, ...]:
        """What its option `mode` may be, the default first; empty for a method that has none."""
        field = cls.Options.model_fields.get("mode")
        return get_args(field.annotation) if field else ()

    @property
    def official(self) -> bool:
        """Whether it computes what the public code computes, faults included: such a plan may empty whole matrices."""
        return getattr(self.options, "mode", None) == "official"

    def phase(self, steps: int) -> int:
        """`Problem.steps` of a phase in which this method takes `steps` weight steps, or the most below, and decides.

        By default all of it: a method that decides earlier has its own.
        """
        return steps

    def begin(self, problem: Problem) -> Session:
        """Start on the model in the basis that is asked for: its weights change, what it computes does not."""
        turn(problem.towers, getattr(self.options, "basis", "none"))
        return self.start(problem)

    def check(self, towers: dict[str, Tower]) -> None:  # noqa: B027 - most work on any
        """InputError unless it can work on towers of these sizes; their values are not looked at."""

    @abstractmethod
    def start(self, problem: Problem) -> Session:
        """Begin a run. Raises InputError when the method cannot reach the budget at all."""


class StructuredOptions(Method.Options):
    """Of methods that cut or share units: in which basis they see them."""

    basis: Basis = Field("none", description="in which basis units are seen [ours]")


class OneShot(Method):
    """A method that decides at once; subclasses implement `plan` only."""

    @abstractmethod
    def plan(self, problem: Problem) -> Plan:
        """The decision."""

    def start(self, problem: Problem) -> Session:
        return Decided(self.plan(problem))


class Decided(Session):
    """A decision that is made, with the scores (made when asked for) and the new values of weights behind it."""

    def __init__(
        self,
        plan: Plan,
        scores: Callable[[], dict[str, Tensor]] = dict,
        values: dict[str, Tensor] | None = None,
    ) -> None:
        self._plan, self._scores, self._values = plan, scores, values or {}

    def plan(self) -> Plan:
        return self._plan

    def scores(self) -> dict[str, Tensor]:
        return self._scores()

    def weights(self) -> dict[str, Tensor]:
        return self._values


@dataclass
class WeightStep:
    """What a session asks of one weight step, and what it says after it.

    Attributes:
        overrides: stand in for parameters in its forward passes.
        penalty: gives what is to be added to its loss, or None.
        again: the weights were set back, so that optimizer and averages begin anew.
        seconds: what the method's own steps took.
    """

    overrides: dict[str, Tensor] | None = None
    penalty: Callable[[], Tensor | None] = lambda: None
    again: bool = False
    seconds: float = 0.0


@contextmanager
def weight_step(session: Session | None, step: int) -> Iterator[WeightStep]:
    """`with weight_step(session, step) as now:` the weights change, after which the session takes its own steps.

    Args:
        session: None, where the plan is applied already: a step as any other.
        step: from 0.
    """
    if session is None:
        yield WeightStep()
        return
    now = WeightStep(session.overrides(), session.penalty)
    yield now
    start = time.monotonic()
    now.again = bool(session.after_step(step))
    now.seconds = time.monotonic() - start


@torch.no_grad()
def finalize(session: Session, model: nn.Module) -> Plan:
    """The session's plan, once the new values of weights that go with it are in the model."""
    plan = session.plan()
    for name, value in session.weights().items():
        model.get_parameter(name).copy_(value)
    return plan
