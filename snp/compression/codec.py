"""Sets of units as short strings: "0-5,8" where that is short, packed bits in base64 where it is not."""

import base64
import zlib

import numpy as np
import torch
from torch import Tensor

_PACKED = "base64:"


def encode_units(units_N: Tensor) -> str:
    """Bool [n] -> ranges of True positions ("0-5,8"; "" = none), or "base64:" packed bits when shorter."""
    edges = np.flatnonzero(np.diff(units_N.numpy().astype(np.int8), prepend=0, append=0))
    runs = [(int(a), int(b) - 1) for a, b in edges.reshape(-1, 2)]
    ranges = ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
    packed = _PACKED + base64.b64encode(np.packbits(units_N.numpy()).tobytes()).decode()
    return ranges if len(ranges) <= len(packed) else packed


def decode_units(text: str, n: int) -> Tensor:
    """Inverse of `encode_units` for n units. Raises ValueError for any other text."""
    units = torch.zeros(n, dtype=torch.bool)
    if text.startswith(_PACKED):
        return _unpack(base64.b64decode(text.removeprefix(_PACKED), validate=True), n)
    for run in filter(None, text.split(",")):
        first, _, last = run.partition("-")
        start, stop = int(first), int(last or first) + 1
        if not 0 <= start < stop <= n:
            raise ValueError(f"units {run} outside 0-{n - 1}")
        units[start:stop] = True
    return units


def encode_mask(mask: Tensor) -> str:
    """Bool mask of any shape -> base64 of its deflated packed bits (at most 1/6 character a weight)."""
    return base64.b64encode(zlib.compress(np.packbits(mask.numpy()).tobytes(), 9)).decode()


def decode_mask(text: str, shape: tuple[int, ...]) -> Tensor:
    """Inverse of `encode_mask` for a known shape. Raises ValueError for anything else."""
    n = int(np.prod(shape))
    try:
        # bounded, so that a forged file cannot fill the memory
        data = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), (n + 7) // 8 + 1)
    except zlib.error as error:
        raise ValueError(str(error)) from None
    return _unpack(data, n).view(shape)


def _unpack(data: bytes, n: int) -> Tensor:
    if len(data) != (n + 7) // 8:
        raise ValueError(f"{len(data)} bytes for {n} units")
    return torch.from_numpy(np.unpackbits(np.frombuffer(data, np.uint8), count=n).astype(bool))
