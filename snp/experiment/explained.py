"""What pydantic finds wrong with a value, in one line."""

from pydantic import ValidationError

from snp.errors import InputError


def explain(error: ValidationError, where: object, *within: str) -> InputError:
    """One line for a pydantic error: the first field at fault (`within` others), what was given and what is wrong."""
    first = error.errors()[0]
    field = "".join(f"{name}: " for name in [".".join([*within, *map(str, first["loc"])])] if name)
    given = repr(first["input"])
    message = first["msg"].removeprefix("Value error, ")
    return InputError(where, f"{field}{message}" + (f", got {given}" if len(given) < 60 else ""))
