"""Models of transformers, from a folder as `save_pretrained` writes it."""

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import v2

from snp.errors import InputError
from snp.own.origin import PIXELS, WORDS, Batch, Origin, offline

CONFIG, PICTURES = "config.json", "preprocessor_config.json"
FILES = ("model.safetensors", "model.safetensors.index.json")
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")
VOCABULARIES = (
    "tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "tokenizer.model", "sentencepiece.bpe.model",
)  # fmt: skip
SHORT = 77
"""Texts of models that see no more tokens are filled up to the end, as CLIP and SigLIP learned them."""


class Transformers(Origin):
    """The class that its config names, or else the one that AutoModel chooses."""

    library = "transformers"

    def __init__(self, folder: Path, config: Any, file: Path | None) -> None:
        super().__init__(str(folder), file)
        self.config = config
        names = getattr(config, "architectures", None) or ()
        known = [getattr(transformers, name, None) for name in names]
        self.kind: Any = next((c for c in known if inspect.isclass(c) and issubclass(c, nn.Module)), None)

    def build(self) -> nn.Module:
        made: nn.Module = self.kind(self.config) if self.kind else transformers.AutoModel.from_config(self.config)
        return made

    def load(self) -> nn.Module:
        """By the library's own way to read weights, which knows those that were once called otherwise."""
        try:
            found, about = (self.kind or transformers.AutoModel).from_pretrained(
                self.name,
                config=self.config,
                dtype=torch.float32,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
            )
        except Exception as error:  # of many kinds: a file that is cut, sizes that do not fit
            said = " ".join(str(error).split())
            raise InputError(self.file or self.name, f"cannot be read: {said[:200]}", "save the model again") from None
        if missing := sorted(about["missing_keys"]):
            raise InputError(self.file or self.name, f"lacks {missing[0]}", "save the whole model again")
        made: nn.Module = found
        return made

    def reads(self, model: nn.Module) -> tuple[str, ...]:
        taken = inspect.signature(model.forward).parameters
        return tuple(name for name in (PIXELS, WORDS) if name in taken)

    def forward(self, model: nn.Module, batch: Batch) -> Any:
        return model(**batch)

    def example(self, model: nn.Module) -> Batch:
        found: Batch = {}
        if PIXELS in self.reads(model):
            vision = getattr(self.config, "vision_config", self.config)
            found[PIXELS] = torch.randn(1, getattr(vision, "num_channels", 3), *self._size)
        if WORDS in self.reads(model):
            text = self._text
            length = min(getattr(text, "max_position_embeddings", SHORT), SHORT)
            found[WORDS] = torch.randint(1, text.vocab_size, (1, length))
            if (end := getattr(text, "eos_token_id", None)) is not None:
                found[WORDS][0, -1] = end if isinstance(end, int) else end[0]
        return found

    def eye(self, model: nn.Module) -> Callable[[Image.Image], Tensor]:
        if not (Path(self.name) / PICTURES).is_file():
            steps = [v2.Resize(self._size), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
            plain: Callable[[Image.Image], Tensor] = v2.Compose([*steps, v2.Normalize([0.5] * 3, [0.5] * 3)])
            return plain
        processor = self._file(transformers.AutoImageProcessor, PICTURES)

        def seen(picture: Image.Image) -> Tensor:
            pixels: Tensor = processor(picture, return_tensors="pt")[PIXELS][0]
            return pixels

        return seen

    def reader(self, model: nn.Module) -> Callable[[Sequence[str]], Batch]:
        if not any((Path(self.name) / name).is_file() for name in VOCABULARIES):  # it would be made without any words
            raise InputError(Path(self.name) / VOCABULARIES[0], "file not found", "save the tokenizer beside the model")
        tokenizer = self._file(transformers.AutoTokenizer, VOCABULARIES[0])
        most = getattr(self._text, "max_position_embeddings", SHORT)
        padding = "max_length" if most <= SHORT else True
        taken = inspect.signature(model.forward).parameters

        def read(texts: Sequence[str]) -> Batch:
            made = tokenizer(list(texts), padding=padding, truncation=True, max_length=most, return_tensors="pt")
            return {name: made[name] for name in made if name in taken}

        return read

    def code(self) -> tuple[str, str]:
        config = type(self.config).__name__
        kind = self.kind.__name__ if self.kind else type(transformers.AutoModel.from_config(self.config)).__name__
        return f"from transformers import {config}, {kind}", f"{kind}({config}.from_pretrained({self.name!r}))"

    @property
    def files(self) -> list[Path]:
        return [Path(self.name) / CONFIG, *super().files]

    @property
    def _size(self) -> tuple[int, int]:
        """Height and width of pictures."""
        size = getattr(getattr(self.config, "vision_config", self.config), "image_size", 224)
        return (size, size) if isinstance(size, int) else tuple(size)

    @property
    def _text(self) -> Any:
        return getattr(self.config, "text_config", self.config)

    def _file(self, kind: Any, name: str) -> Any:
        """A processor of the folder."""
        try:
            with offline():
                return kind.from_pretrained(self.name, local_files_only=True, trust_remote_code=False)
        except Exception as error:  # of many kinds
            said = " ".join(str(error).split())
            raise InputError(
                Path(self.name) / name, f"cannot be read: {said[:200]}", "save it beside the model"
            ) from None


def of_folder(folder: Path) -> Transformers:
    """The model of a folder.

    Raises:
        InputError: it holds no config, one that transformers does not know, or weights that are pickled.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise InputError(path, "file not found", "give a folder as save_pretrained writes it")
    try:
        with offline():
            config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # of many kinds
        said = " ".join(str(error).split())
        raise InputError(path, f"cannot be read: {said[:200]}", "is it a model of transformers?") from None
    file = next((folder / name for name in FILES if (folder / name).is_file()), None)
    if file is None and (pickled := [name for name in PICKLED if (folder / name).is_file()]):
        hint = "save it with safetensors: model.save_pretrained(folder)"
        raise InputError(folder / pickled[0], "is pickled, and nothing is unpickled", hint)
    return Transformers(folder, config, file)
