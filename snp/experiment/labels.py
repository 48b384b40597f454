"""Rows by their labels: those of tables, and any method at any size with any options."""

import json
import re
from collections.abc import Sequence
from difflib import get_close_matches

from pydantic import ValidationError

from snp.compression.aliases import ALIASES, Given, named
from snp.compression.size import Size
from snp.errors import InputError
from snp.experiment.benchmarks import ABOUT, EXPRESSIONS, Benchmark, of_looks
from snp.experiment.explained import explain
from snp.experiment.recipes import POOL, RECIPES
from snp.experiment.rows import Row, make
from snp.experiment.scores import GROUNDING, REJECTING
from snp.experiment.spec import DRAWN, REAL, Data, Scale, home_of, is_own
from snp.experiment.tables import EXTRA, TABLES
from snp.models import config as configs
from snp.models.adapt import LEARNERS, Adapt
from snp.models.augment import Augment
from snp.models.distill import Distill
from snp.models.special import Special, from_text, unfit
from snp.trimming.trim import Trim

LABEL = re.compile(
    r"(?P<data>[\w-]+)/(?P<name>[\w+.-]+)(?P<options>(?:,\w+=[^,@:]+)*)(?:@(?P<size>s?\d+(?:\.\d+)?)(?:x(?P<times>[1-9]\d*))?)?"
    r"(?:\+(?P<special>(?:trim|adapt)[^@:]*|dual(?:[,+][^@:]*)?|ask(?:[,+][^@:]*)?))?(?::(?P<task>[\w-]+))?"
)
_FORM = "write DATA/METHOD@KEEP, as scenes/snp@60, or @s75 for 75% of the prunable weights zero, and :gqa for questions"


def find_own(label: str, data: Data, scale: Scale, keep: float | None = None, options: Sequence[str] = ()) -> Row:
    """The row that a label names, on a user's own data, whose name it may have before METHOD@SIZE; errors as `find`."""
    named, slash, rest = label.partition("/")
    if slash and named != data:
        raise InputError(
            label, f"is of {named}, where --data names {data}", f"write {data}/{rest}, or leave --data out"
        )
    home = home_of(scale)
    try:
        return find(f"{home}/{rest if slash else label}", scale, keep, options).on(data)
    except InputError as error:
        raise InputError(
            label, *(part.replace(f"{home}/", f"{data}/") for part in (error.problem, error.hint))
        ) from None


def find(label: str, scale: Scale, keep: float | None = None, options: Sequence[str] = ()) -> Row:
    """The row that a label names: that of a table, or any registered method at any size.

    Args:
        label: `DATA/METHOD@SIZE`, with `,option=value` behind the method and `:BENCHMARK` behind the size, if any. A
            size is per cent of all parameters to keep, or with an s of the prunable weights to zero.
        keep: replaces the size: `scenes/snp` with 0.5 is a row too.
        options: more of `option=value`.

    Raises:
        InputError: no such row or method (with near ones), an option that it does not have (with those that it has), or
            a size outside (0, 1].
    """
    if keep is not None and not 0 < keep <= 1:
        raise InputError("--keep", f"must lie in (0, 1], got {keep:g}", "it is the share of all parameters to keep")
    size = None if keep is None else Size(keep)
    known = [row for table in TABLES.values() for row in table(scale)]
    known += [make(scale, home_of(scale), name, size=Size(0.9), benchmarks=EXPRESSIONS) for name in EXTRA]
    family = label.split("@")[0]
    for row in known if not options else ():
        if size is None and row.label == label:
            return row
        if size is not None and row.of and row.label.split("@")[0] == family and "+" not in label:
            return row.sized(size)
    return _free(label, scale, size, options, list(dict.fromkeys(row.label for row in known)))


def _free(label: str, scale: Scale, size: Size | None, more: Sequence[str], known: list[str]) -> Row:
    """A row that stands in no table."""
    if "/" not in label:
        raise InputError(label, "no such table, and no label of a row", f"tables: {', '.join(TABLES)}; else {_FORM}")
    sizes = [other for other in known if other.partition("@")[0] == label]
    near = list(dict.fromkeys([*sizes, *get_close_matches(label, known, n=3, cutoff=0.5)]))[:3]
    hint = f"near: {', '.join(near)}" if near else _FORM
    unknown = InputError(label, f"no such row at scale {scale}", hint)
    parts = LABEL.fullmatch(label)
    if parts and is_own(parts["data"]) and parts["data"] not in {other.partition("/")[0] for other in near}:
        hint = f"{hint}; of data of your own name the folder: --data DIR"
        unknown = InputError(label, f"no such row at scale {scale}", hint)
    if (
        parts is None
        or parts["data"] not in ((REAL,) if scale == "paper" else DRAWN)
        or (size is None and parts["size"] is None)
    ):
        raise unknown
    if parts["task"] and (parts["task"] not in ABOUT or parts["task"] in EXPRESSIONS):
        raise unknown
    given: Given = {}
    for key, value in (option(text) for text in [*parts["options"].split(",")[1:], *more]):
        if given.get(key, value) != value:
            raise InputError(f"--option {key}", "is given twice", "give one of its values")
        given[key] = value
    name = parts["name"]
    from snp.compression.registry import get, methods  # loads torch, which rows of tables do not need

    if name not in methods() and name not in ALIASES:
        raise unknown
    method, preset = ALIASES.get(name, (name, {}))
    get(name, **given)
    fields = methods()[method].Options.model_fields
    other = {key: value for key, value in given.items() if value != fields[key].default}
    size = size or _size(parts["size"], label)
    benchmark: Benchmark = parts["task"] or "refcoco"
    called = named(name, other)
    special = _special(label, parts["special"], scale, benchmark, size)
    kind = methods()[method].kind
    if isinstance(special, Adapt) and kind not in LEARNERS.get(special.train, (kind,)):
        raise InputError(label, f"{method} leaves no weights of train={special.train}", "name another method")
    trained = methods()[method].stage == "training" or isinstance(special, Adapt)
    recovery, times = trained or size.keep is not None, int(parts["times"] or 1)
    if not recovery and times > 1:
        raise InputError(label, "what is zeroed at once has no phase to be longer", "leave its x out")
    row = make(
        scale,
        parts["data"],
        name,
        size=size,
        benchmarks=(benchmark,),
        recovery=recovery,
        times=times,
        special=special,
    )
    return row.model_copy(update={"name": called, "options": preset | other})


def _special(label: str, text: str | None, scale: Scale, benchmark: Benchmark, size: Size) -> Special | None:
    """What a label has behind a plus: `trim50`, `dual`, `adapt128`.

    Raises:
        InputError: what it says cannot be, or cannot be of this row.
    """
    task = ABOUT[benchmark].task
    if of_looks(benchmark) and not (text or "").startswith("adapt"):
        raise InputError(label, "is about a few expressions of another look", f"write +adapt128:{benchmark}")
    if text is None:
        return None
    if "+" in text:
        raise InputError(label, f"{' and '.join(text.split('+'))} do not go together", "leave one out")
    if task.model != "mdetr":
        raise InputError(label, "is of the model that looks for what captions say", f"leave +{text} out")
    try:
        special = from_text(text)
    except ValidationError as error:
        raise explain(error, f"{label}: {text}") from None
    except ValueError as error:
        raise InputError(label, str(error), "write +trim50, and options behind it, as ,guide=image") from None
    if isinstance(special, Adapt) and special.shots > (most := min(RECIPES[scale].train_scenes, POOL)):
        raise InputError(label, f"there are {most} expressions of a look to learn from", "name a smaller number")
    if isinstance(special, Adapt) and not of_looks(benchmark):
        raise InputError(label, "is adapted to other looks", f"write :looks in place of :{benchmark}")
    if isinstance(special, Augment) and task is not REJECTING:
        raise InputError(label, "captions without a target are made for no-target", f"write +{text}:no-target")
    if isinstance(special, Distill) and task is GROUNDING:
        raise InputError(label, "a dual encoder says one thing of a whole sentence, not of its phrases", "leave it out")
    if isinstance(special, Distill) and size.sparsity is not None:
        raise InputError(label, "a dual encoder has twice what is zeroed of fusion", "name a size to keep, as @60")
    depth = getattr(configs, RECIPES[scale].mdetr.model).depth
    if isinstance(special, Trim) and special.sites and special.sites[-1] >= depth:
        problem = f"sites={special.sites[-1]} is no layer of a tower of {depth}"
        raise InputError(label, problem, "they are counted from 0")
    if (odd := unfit(scale, special)) is not None:
        raise InputError(label, odd, "name another row")
    return special


def _size(text: str, label: str) -> Size:
    """`60`, or `s63`: the size that a label names."""
    share = float(text.lstrip("s")) / 100
    zero = text.startswith("s")
    if not (0 <= share < 1 if zero else 0 < share <= 1):
        raise InputError(label, "its size must be more than 0%, and at most 100% to keep or less to zero", _FORM)
    return Size(sparsity=share) if zero else Size(share)


def option(text: str) -> tuple[str, bool | int | float | str]:
    """A name and its value: true, false and numbers are read as JSON has them, the rest is text."""
    name, equals, value = text.partition("=")
    if not equals or not name or not value:
        raise InputError(f"--option {text}", "is no option", "write name=value, as block=4")
    try:
        found = json.loads(value)
    except ValueError:
        return name, value
    return name, found if isinstance(found, bool | int | float) else value
