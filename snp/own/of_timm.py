"""Models of timm, by their names."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import timm
import torch
from PIL import Image
from torch import Tensor, nn

from snp.errors import InputError
from snp.own.origin import PIXELS, Batch, Origin, filled, near


class Timm(Origin):
    """An image model."""

    library = "timm"

    def build(self) -> nn.Module:
        return timm.create_model(self.name)

    def load(self) -> nn.Module:
        assert self.file is not None
        return filled(self.build(), self.file)

    def reads(self, model: nn.Module) -> tuple[str, ...]:
        return (PIXELS,)

    def forward(self, model: nn.Module, batch: Batch) -> Any:
        return model(batch[PIXELS])

    def example(self, model: nn.Module) -> Batch:
        return {PIXELS: torch.randn(1, *self._data(model)["input_size"])}

    def eye(self, model: nn.Module) -> Callable[[Image.Image], Tensor]:
        made: Callable[[Image.Image], Tensor] = timm.data.create_transform(**self._data(model), is_training=False)
        return made

    def reader(self, model: nn.Module) -> NoReturn:
        raise InputError(self.name, "reads no texts")

    def code(self) -> tuple[str, str]:
        return "import timm", f"timm.create_model({self.name!r})"

    def _data(self, model: nn.Module) -> dict[str, Any]:
        found: dict[str, Any] = timm.data.resolve_model_data_config(model)
        return found


def named(name: str, file: Path | None) -> Timm:
    """The model of this name; InputError where timm has none."""
    if not timm.is_model(name):
        raise InputError(f"timm:{name}", "timm has no such model", near(name, timm.list_models()))
    return Timm(name, file)
