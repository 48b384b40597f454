"""Where a model comes from: a folder of transformers, or a name of timm or open_clip. Nothing is fetched from a hub."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image
from torch import Tensor, nn

from snp.errors import InputError

Batch = dict[str, Tensor]
"""Inputs by name: pixel_values [B, 3, height, width], input_ids [B, L], attention_mask [B, L]."""
PIXELS, WORDS = "pixel_values", "input_ids"
LIBRARIES = {"timm": "snp.own.of_timm", "open_clip": "snp.own.of_open_clip"}
HINT = "give a folder with config.json, timm:NAME or open_clip:NAME; nothing is fetched from a hub"


class Origin(ABC):
    """A model that can be built anew, with or without its weights, and what it reads.

    Attributes:
        library: whose model it is.
        name: of the model: a path, or as the library has it.
        file: its weights; None: there are none, and random ones stand in.
    """

    library: ClassVar[str]

    def __init__(self, name: str, file: Path | None) -> None:
        self.name, self.file = name, file

    @abstractmethod
    def build(self) -> nn.Module:
        """The dense model, its weights random."""

    @abstractmethod
    def load(self) -> nn.Module:
        """The same with the weights of the file."""

    @abstractmethod
    def reads(self, model: nn.Module) -> tuple[str, ...]:
        """Names of the inputs that it takes, of `PIXELS` and `WORDS`."""

    @abstractmethod
    def forward(self, model: nn.Module, batch: Batch) -> Any:
        """What the model gives of a batch."""

    @abstractmethod
    def example(self, model: nn.Module) -> Batch:
        """One random input on the CPU; what may not fit a model of an odd kind."""

    @abstractmethod
    def eye(self, model: nn.Module) -> Callable[[Image.Image], Tensor]:
        """What makes pixel values [3, height, width] of a picture."""

    @abstractmethod
    def reader(self, model: nn.Module) -> Callable[[Sequence[str]], Batch]:
        """What makes tokens of texts; InputError where the files for that are not there."""

    @abstractmethod
    def code(self) -> tuple[str, str]:
        """A line of Python that imports, and an expression that builds the dense model."""

    @property
    def files(self) -> list[Path]:
        """What the model is made of, on this machine."""
        return [self.file] if self.file else []

    @property
    def weights(self) -> str:
        """What the weights are, in words."""
        return f"weights of {self.file.name}" if self.file else "random weights"

    def bare(self) -> nn.Module:
        """The model without values where that is possible: it costs no memory and little time."""
        with offline():
            try:
                with weightless():
                    return self.build().eval()
            except InputError:
                raise
            except Exception:  # some look at their weights while they are built
                return self.build().eval()

    def whole(self) -> nn.Module:
        """The model with its weights, in float32 on the CPU, in eval mode."""
        with offline():
            return (self.load() if self.file else self.build()).float().eval()


@contextmanager
def offline() -> Iterator[None]:
    """Within, no library fetches anything or says what it does."""
    from huggingface_hub import constants
    from transformers.utils.logging import disable_progress_bar

    before, quiet = constants.HF_HUB_OFFLINE, logging.root.manager.disable
    constants.HF_HUB_OFFLINE = True
    logging.disable(logging.WARNING)
    disable_progress_bar()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
        logging.disable(quiet)


@contextmanager
def weightless() -> Iterator[None]:
    """Within, parameters of modules that are made have no values; buffers, as indices and angles, have theirs."""
    register, to = nn.Module.register_parameter, nn.Module.to

    def without(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None and not parameter.is_meta:  # one that is tied stays the same
            parameter = nn.Parameter(parameter.to("meta"), parameter.requires_grad)
        register(module, name, parameter)

    nn.Module.register_parameter = without  # type: ignore[method-assign, assignment]
    nn.Module.to = lambda module, *_, **__: module  # type: ignore[method-assign, assignment, misc]
    try:
        yield
    finally:
        nn.Module.register_parameter, nn.Module.to = register, to  # type: ignore[method-assign]


def origin(text: str, weights: Path | None = None) -> Origin:
    """What a user means by MODEL.

    Raises:
        InputError: no such folder or name; weights that are not there, or no safetensors file.
    """
    if weights is not None:
        if weights.suffix != ".safetensors":
            raise InputError(f"--weights {weights}", "is no safetensors file, and nothing is unpickled", "convert it")
        if not weights.is_file():
            raise InputError(f"--weights {weights}", "no such file")
    library, colon, name = text.partition(":")
    if colon and library in LIBRARIES:
        made: Origin = import_module(LIBRARIES[library]).named(name, weights)
        return made
    folder = Path(text)
    if not folder.is_dir():
        raise InputError(text, "is a file, not a folder" if folder.exists() else "is no folder here", HINT)
    if weights is not None:
        raise InputError("--weights", "is of timm and open_clip: a folder has its own", "leave it out")
    found: Origin = import_module("snp.own.of_transformers").of_folder(folder)
    return found


def near(name: str, known: Sequence[str]) -> str:
    """A hint: the names that are most like this one."""
    found = get_close_matches(name, known, n=3, cutoff=0.4)
    return f"did you mean {' or '.join(found)}?" if found else HINT


def filled(model: nn.Module, file: Path) -> nn.Module:
    """The model with the weights of a safetensors file that has just its names; InputError names one that differs."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        model.load_state_dict(load_file(file))
    except (SafetensorError, OSError) as error:
        raise InputError(file, f"not a whole safetensors file: {error}", "fetch or copy it again") from None
    except RuntimeError as error:
        said = " ".join(str(error).split()).partition(": ")[2]
        raise InputError(
            file, f"holds weights of another model: {said[:200]}", "name the model that they are of"
        ) from None
    return model
