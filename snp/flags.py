"""Flags of commands: types say what they may be, help is plain English, and what is wrong is one line with the flag."""

import inspect
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import tyro
from pydantic import BaseModel, BeforeValidator, ValidationError, validate_call
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from snp.errors import InputError

F = TypeVar("F", bound=Callable[..., None])
PROBLEMS = {
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be {ge} or more",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be {le} or less",
    "string_pattern_mismatch": "is not written as it should be",
    "string_too_short": "is empty",
    "int_parsing": "must be a whole number",
    "float_parsing": "must be a number",
}
"""Of a value, in pydantic's kinds of errors; the others are said as pydantic says them."""
WORDS: dict[Any, str] = {int: "NUMBER", float: "NUMBER", Path: "PATH", str: "TEXT"}
"""What stands for a value in help."""
SILENT = ("", "''", "None", "False", "True")
"""Defaults that say nothing: what is left out is not there."""
registry = ConstructorRegistry()
CONFIG = (tyro.conf.PositionalMetavarFromFieldName, tyro.conf.FlagCreatePairsOff)
"""Of tyro: help names what is wanted (`snp run [ROW ...]`), and of a switch only the way that changes something."""


def _said(value: object) -> object:
    if value == "":  # as of a shell's variable that is not set: Path("") would be the working folder
        raise ValueError("is empty")
    return value


Named = Annotated[Path, BeforeValidator(_said)]
"""A file or a folder that has a name."""


class App(tyro.extras.SubcommandApp):
    """Commands, each a function; pydantic checks what it is called with.

    Raises:
        InputError: from a command whose flag is not of its type.
    """

    def command(self, function: F) -> F:  # type: ignore[override]
        """Make a function a command."""

        @wraps(function)
        def given(*values: Any, **named: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
            return values, named

        check = validate_call(given)

        @wraps(function)
        def checked(*values: Any, **named: Any) -> None:
            try:
                values, named = check(*values, **named)
            except ValidationError as error:
                raise _refused(function, error) from None
            function(*values, **named)

        hints = get_type_hints(function, include_extras=True)
        checked.__annotations__ = {name: _helped(name, hint) for name, hint in hints.items()}
        checked.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
        del checked.__wrapped__  # tyro would read its hints
        return super().command(checked)  # type: ignore[return-value]


def _helped(name: str, hint: Any) -> Any:
    """A type with what help says of its values: `NAME ...` where there may be several, and defaults that say something.

    What the type says itself counts more.
    """
    kind, *others = (hint.__origin__, *hint.__metadata__) if get_origin(hint) is Annotated else (hint,)
    said = tyro.conf.arg(
        metavar=f"[{name.upper().replace('_', '-')} ...]" if get_origin(kind) is tuple else None,
        help_behavior_hint=lambda label: "" if label in SILENT else f"(default: {label})",
    )
    return Annotated[(kind, said, *others)]


@registry.primitive_rule
def _unread(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """A value as it is written: tyro would print its errors itself, so it is read with the others."""
    kind = info.type
    if kind not in WORDS:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=WORDS[kind],
        instance_from_str=lambda texts: texts[0],
        is_instance=lambda value: isinstance(value, kind),
        str_from_instance=lambda value: [str(value)],
    )


@registry.primitive_rule
def _unsaid(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """What may be None is written as if it may not: None stands for what is left out, and nobody writes it."""
    kinds = get_args(info.type)
    if len(kinds) != 2 or NoneType not in kinds:
        return None
    (kind,) = (kind for kind in kinds if kind is not NoneType)
    spec = ConstructorRegistry.get_primitive_spec(PrimitiveTypeInfo.make(kind, info.markers))
    if not isinstance(spec, PrimitiveConstructorSpec):
        return None
    return replace(
        spec,
        is_instance=lambda value: value is None or bool(spec.is_instance(value)),
        str_from_instance=lambda value: [] if value is None else spec.str_from_instance(value),
    )


@registry.struct_rule
def _unchecked(info: StructTypeInfo) -> StructConstructorSpec | None:
    """A group of flags as it is given: tyro would print its errors itself, so it is checked with the others."""
    kind = info.type
    if not (inspect.isclass(kind) and issubclass(kind, BaseModel)):
        return None

    @wraps(kind, updated=())
    def make(**values: Any) -> BaseModel:
        return kind.model_construct(**values)

    hints = get_type_hints(kind, include_extras=True)
    fields = [
        StructFieldSpec(name, _helped(name, hints[name]), getattr(info.default, name), helptext=field.description)
        for name, field in kind.model_fields.items()
    ]
    return StructConstructorSpec(instantiate=make, fields=tuple(fields))


def _refused(function: Callable[..., None], error: ValidationError) -> InputError:
    """One line for what a command was called with: the first flag at fault, and what it is for."""
    first = error.errors()[0]
    name, *within = first["loc"]
    hint = ""
    group = inspect.signature(function).parameters[str(name)].default
    if isinstance(group, BaseModel) and within:
        name = within[0]
        hint = type(group).model_fields[str(name)].description or ""
    problem = PROBLEMS.get(first["type"], first["msg"].removeprefix("Value error, ")).format(**first.get("ctx", {}))
    got = "''" if first["input"] == "" else first["input"]
    return InputError(f"--{str(name).replace('_', '-')}", f"{problem}, got {got}", hint)
