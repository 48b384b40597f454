"""Models of open_clip, by their names."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
from PIL import Image
from torch import Tensor, nn

from snp.errors import InputError
from snp.own.origin import PIXELS, WORDS, Batch, Origin, filled, near

NAMES = ("image_features", "text_features", "logit_scale", "logit_bias")


class OpenClip(Origin):
    """A model of pictures and texts."""

    library = "open_clip"

    def build(self) -> nn.Module:
        made: nn.Module = open_clip.create_model(self.name, load_weights=False, pretrained_text=False)
        return made

    def load(self) -> nn.Module:
        assert self.file is not None
        return filled(self.build(), self.file)

    def reads(self, model: nn.Module) -> tuple[str, ...]:
        return PIXELS, WORDS

    def forward(self, model: nn.Module, batch: Batch) -> Any:
        """By name, with the logits of every picture and text."""
        given = model(batch[PIXELS], batch[WORDS])
        made = dict(given) if isinstance(given, dict) else dict(zip(NAMES, given, strict=False))
        logits = made["logit_scale"] * made["image_features"] @ made["text_features"].mT
        return made | {"logits_per_image": logits + made.get("logit_bias", 0.0)}

    def example(self, model: nn.Module) -> Batch:
        whole: Any = model
        size = whole.visual.image_size
        height, width = size if isinstance(size, tuple) else (size, size)
        words = torch.randint(1, self._text["vocab_size"], (1, self._text["context_length"]))
        return {PIXELS: torch.randn(1, 3, height, width), WORDS: words}

    def eye(self, model: nn.Module) -> Callable[[Image.Image], Tensor]:
        whole: Any = model
        config = open_clip.transform.PreprocessCfg(**whole.visual.preprocess_cfg)
        made: Callable[[Image.Image], Tensor] = open_clip.transform.image_transform_v2(config, is_train=False)
        return made

    def reader(self, model: nn.Module) -> Callable[[Sequence[str]], Batch]:
        if fetched := self._text.get("hf_tokenizer_name"):
            problem = f"its words are read by files of {fetched}, and nothing is fetched from a hub"
            raise InputError(f"open_clip:{self.name}", problem, "use --data none, or snp.compress in Python")
        tokenizer = open_clip.get_tokenizer(self.name)
        return lambda texts: {WORDS: tokenizer(list(texts))}

    def code(self) -> tuple[str, str]:
        return "import open_clip", f"open_clip.create_model({self.name!r}, load_weights=False)"

    @property
    def _text(self) -> dict[str, Any]:
        return {"vocab_size": 49408, "context_length": 77} | (open_clip.get_model_config(self.name) or {})["text_cfg"]


def named(name: str, file: Path | None) -> OpenClip:
    """The model of this name.

    Raises:
        InputError: open_clip has none, or builds it from files of a hub.
    """
    config = open_clip.get_model_config(name)
    if config is None:
        raise InputError(f"open_clip:{name}", "open_clip has no such model", near(name, open_clip.list_models()))
    if fetched := config["text_cfg"].get("hf_model_name"):
        problem = f"its text tower is {fetched}, of a hub, and nothing is fetched"
        raise InputError(f"open_clip:{name}", problem, "choose another, or give a folder of transformers")
    return OpenClip(name, file)
