"""The tensors of a TorchScript archive, as OpenAI publishes CLIP, read without running or looking up any code of it."""

import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from zipfile import ZipFile, is_zipfile

import torch
from torch import Tensor

from snp.errors import InputError

DTYPES = {
    "DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
}  # fmt: skip


def is_archive(path: Path) -> bool:
    """Whether a file is a TorchScript archive: a zip with constants of code beside the tensors."""
    if not is_zipfile(path):
        return False
    with ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def read(path: Path) -> dict[str, Tensor]:
    """All tensors below the root module, by the names that its state dict has; on the CPU.

    Raises:
        InputError: the archive holds something that is neither a module nor a plain tensor.
    """
    with ZipFile(path) as archive:
        root = next(name for name in archive.namelist() if name.endswith("/data.pkl")).removesuffix("data.pkl")
        with archive.open(f"{root}data.pkl") as file:
            try:
                module = _Reader(file, lambda key: archive.read(f"{root}data/{key}")).load()
            except pickle.UnpicklingError as error:
                hint = "where you trust it: torch.save(torch.jit.load(FILE).state_dict(), NEW)"
                raise InputError(path, f"is a TorchScript archive that {error}", hint) from None
    return dict(_tensors(module))


class _Module:
    """Stands for every class of the archive: it has the attributes that were saved, and does nothing."""


class _Reader(pickle.Unpickler):
    """Knows four harmless names, and takes all modules of the archive for `_Module`; nothing is ever imported."""

    def __init__(self, file: Any, storage: Callable[[str], bytes]) -> None:
        super().__init__(file)
        self.storage = storage

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "__torch__":
            return _Module
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        known: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _rebuild,
            ("torch.jit._pickle", "restore_type_tag"): _same,
        }
        if module == "torch.jit._pickle" and name.startswith("build_"):  # lists, by the type of what is in them
            return _same
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"holds {module}.{name}, which is not read")
        return known[module, name]

    def persistent_load(self, about: Any) -> Tensor:
        _, dtype, key, _, count = about
        content = bytearray(self.storage(key))
        return torch.frombuffer(content, dtype=dtype, count=count) if count else torch.empty(0, dtype=dtype)


def _rebuild(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    return storage.as_strided(size, stride, offset)


def _same(value: Any, *_: Any) -> Any:
    return value


def _tensors(module: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    for name, value in vars(module).items():
        if isinstance(value, Tensor):
            yield path + name, value
        elif isinstance(value, _Module):
            yield from _tensors(value, f"{path}{name}.")
