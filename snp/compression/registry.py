"""All methods by name. A new method is one file, one `@register`, and one line in ENTRIES, or a plugin."""

import difflib
from importlib import import_module
from typing import Any, TypeVar

from snp.compression import plugins
from snp.compression.aliases import ALIASES
from snp.compression.method import Method
from snp.errors import InputError

#: modules that register methods when imported, in the order of tables
ENTRIES = (
    "baselines.dense",
    "baselines.magnitude_structured",
    "baselines.taylor",
    "baselines.random_structured",
    "baselines.cross_modal",
    "baselines.random_weights",
    "baselines.magnitude",
    "baselines.snip",
    "baselines.chita",
    "baselines.tamt",
    "baselines.multiflow",
    "baselines.lottery",
    "baselines.gradual",
    "baselines.upop",
    "snp.sharing.snp",
)
_METHODS: dict[str, type[Method]] = {}
M = TypeVar("M", bound=type[Method])


def register(cls: M) -> M:
    """Class decorator: make a method known by its `name`. Two methods of one name are an error."""
    known = _METHODS.setdefault(cls.name, cls)
    if (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
        raise ValueError(f"two methods are named {cls.name!r}: {known} and {cls}")
    _METHODS[cls.name] = cls
    return cls


def methods() -> dict[str, type[Method]]:
    """{name: class} of every method, in the order of ENTRIES, whatever was imported first; those of plugins last."""
    for module in ENTRIES:
        import_module(module)
    plugins.load()
    order = {module: place for place, module in enumerate(ENTRIES)}
    return dict(sorted(_METHODS.items(), key=lambda item: order.get(item[1].__module__, len(order))))


def get(name: str, **options: Any) -> Method:
    """The method `name`, or the one that an alias stands for, with these options.

    Raises:
        InputError: an unknown name (with near ones), or an option that is unknown, or that the alias sets.
    """
    known = methods()
    method, preset = ALIASES.get(name, (name, {})) if isinstance(name, str) else ("", {})
    if method not in known:
        names = [*known, *ALIASES]
        near = difflib.get_close_matches(str(name), names, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(names)}"
        raise InputError("method", f"there is no method {name!r}", hint)
    for option in sorted(preset.keys() & options.keys()):
        raise InputError(f"{name}.{option}", f"is {preset[option]!r} by this name", f"ask for {method} instead")
    return known[method](**preset, **options)
