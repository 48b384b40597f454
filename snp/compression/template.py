"""The beginning of a method of one's own: a file that works as it stands, and says where to go on."""

import re
from pathlib import Path

from snp.errors import InputError

TEMPLATE = '''\
"""{name}: say in one line what it keeps."""

from pydantic import Field

from baselines.ranking import best_within, norms, quantiles
from snp.compression.method import OneShot
from snp.compression.plan import Plan
from snp.compression.problem import Problem
from snp.compression.registry import register


@register
class {title}(OneShot):
    """Where the idea comes from, and what is [ours].

    `problem` has the model, its towers, the budget, batches (`problem.batches()`) and a loss (`problem.loss(batch,
    overrides)`); it is only looked at. `docs/extend.md` says how a method sees data, or trains.
    """

    name = "{name}"
    kind = "structured"  # or unstructured, shared, joint: what its plans do
    stage = "one-shot"  # or calibration, where it looks at batches; training, where it decides while the model trains
    source = "whose idea it is, with year"
    summary = "what it keeps, in a few words"

    class Options(OneShot.Options):
        """What may be chosen: `snp run scenes/{name}@60 --option power=1`."""

        power: float = Field(2.0, gt=0, description="of the norm that a unit is ranked by")

    options: Options

    def plan(self, problem: Problem) -> Plan:
        """The decision: here the units of largest norm, the same share in every layer."""
        scores = {{group: norm**self.options.power for group, norm in norms(problem).items()}}
        return best_within(problem, quantiles(scores))
'''


def begin(name: str, folder: Path) -> Path:
    """Write the beginning of a method that is called `name`.

    Raises:
        InputError: a name that none can have, or a file that is there already.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise InputError(name, "cannot be the name of a method", "write small letters and digits, as my-method")
    path = folder / f"{name.replace('-', '_')}.py"
    title = "".join(part.capitalize() for part in name.split("-"))
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(TEMPLATE.format(name=name, title=title))
    except FileExistsError:
        raise InputError(path, "is there already", "take another name, or move it away") from None
    return path
