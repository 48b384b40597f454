"""How a module of others is called on random inputs, whatever its family: to try what a cut would make of it."""

import inspect
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

PRIME = 65537
"""Random numbers that are drawn for a weight; repeated, they make rows that differ, in a tenth of the time."""
WORDS = 5
#: Arguments that turn dimensions of queries and keys by angles of positions: a cut is tried with them.
TURNING = ("position_embeddings", "rope")
#: Arguments that are made for all heads somewhere else, so that heads cannot go one by one.
FOREIGN = ("position_bias", "relative_position_bias", "shared_rel_pos_bias", "shared_rel_pos", "alibi")


def random(shape: tuple[int, ...], most: float, generator: torch.Generator | None = None) -> Tensor:
    """Uniform numbers in [-most, most], on the CPU; without a generator the same at every call."""
    generator = generator or torch.Generator("cpu").manual_seed(1)
    some = torch.empty(PRIME, dtype=torch.float32, device="cpu").uniform_(-most, most, generator=generator)
    size = math.prod(shape)
    return some.repeat(-(-size // PRIME))[:size].view(shape)


def weights_for(module: nn.Module) -> dict[str, Tensor]:
    """Values for all of its parameters, such that a map's outputs are about as large as its inputs."""
    generator = torch.Generator("cpu").manual_seed(0)
    return {
        name: random(tuple(p.shape), (3 / p.shape[-1]) ** 0.5 if p.dim() > 1 else 1.0, generator)
        for name, p in module.named_parameters()
    }


def ways(module: nn.Module, width: int, width_of_keys: int, d_head: int) -> Iterator[tuple[list[Any], dict[str, Any]]]:
    """(arguments, named arguments) with which a module may be called, the likeliest first."""
    parameters = inspect.signature(module.forward).parameters
    first, *others = parameters
    named: dict[str, Any] = {}
    others_BKE = random((2, WORDS + 2, width_of_keys), 1.5)
    for name in ("encoder_hidden_states", "key_value_states"):
        if name in parameters:
            named[name] = others_BKE
    told = ((L, position) for L in _lengths(module) for position in _positions(module, parameters, L, width, d_head))
    for L, position in told:
        x_BLD = random((2, L, width), 1.7)
        given = {**named, **position}
        if "cu_seqlens" in parameters:
            given["cu_seqlens"] = torch.tensor([0, L], dtype=torch.int32)
        required = {
            name: None
            for name in others
            if name not in given and parameters[name].default is inspect.Parameter.empty
            and parameters[name].kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        }  # fmt: skip
        for x in (x_BLD, x_BLD[0]):
            if first in ("query", "queries"):
                yield [x, others_BKE, others_BKE], {}
            yield [x], {**required, **given}


def _positions(module: Any, parameters: Any, L: int, width: int, d_head: int) -> Iterator[dict[str, Any]]:
    """What a module may be told of positions, by the name of the argument: angles, or vectors that are added."""
    angles = random((L, d_head), 3.0)
    if "rope" in parameters:
        angles = angles[getattr(module, "num_prefix_tokens", 0) :]
        yield {"rope": torch.cat([angles.sin(), angles.cos()], -1)}
    elif "position_embeddings" in parameters:
        for some in (angles, angles[:, : d_head // 2]):  # of all dimensions, or of half of them
            yield {"position_embeddings": (some.cos()[None], some.sin()[None])}
            yield {"position_embeddings": (some.cos(), some.sin())}
        yield {"position_embeddings": random((2, L, width), 1.0)}
    else:
        yield {}


def _lengths(module: nn.Module) -> Iterator[int]:
    """How many tokens a module may want: as many as its window has, and one more."""
    for inner in module.modules():
        window = getattr(inner, "window_size", None)
        if isinstance(window, tuple) and len(window) == 2:
            yield from (window[0] * window[1], window[0] * window[1] + 1)
    yield WORDS


def output(made: Any) -> Tensor:
    """The tensor that a module gives, or the first of several."""
    while not isinstance(made, Tensor):
        made = made[0]
    return made


def first_way(module: nn.Module, run: Any, *sizes: int) -> tuple[list[Any], dict[str, Any]]:
    """The first of `ways` in which `run(arguments, named)` works; raises what the first of them raised."""
    raised: Exception | None = None
    for arguments, named in ways(module, *sizes):
        try:
            run(arguments, named)
        except Exception as error:  # whatever a module of others does when it is called in a way that it does not know
            raised = raised or error
            continue
        return arguments, named
    assert raised is not None
    raise raised
