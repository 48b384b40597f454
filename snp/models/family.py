"""All grounding models behind one door: a configuration says which one it is and builds it."""

from typing import Any

import torch
from torch import nn

from snp.models.config import DualConfig, GLIPConfig, ModelConfig, TowerConfig
from snp.models.dual import Dual
from snp.models.glip import GLIP
from snp.models.mdetr import MDETR, TOWERS

Answering = MDETR | Dual
"""Models that find what a caption speaks of, and answer questions."""
GroundingModel = Answering | GLIP
CONFIGS: dict[str, type[TowerConfig]] = {"mdetr": ModelConfig, "glip": GLIPConfig, "dual": DualConfig}


def build(config: TowerConfig) -> GroundingModel:
    """The model of a configuration, with random weights."""
    if isinstance(config, GLIPConfig):
        return GLIP(config)
    assert isinstance(config, ModelConfig)
    return Dual(config) if isinstance(config, DualConfig) else MDETR(config)


def parse(value: dict[str, Any]) -> TowerConfig:
    """A configuration from its JSON value; its name begins with that of its model.

    Raises:
        ValidationError: a field that is missing, unknown or out of range.
    """
    family = str(value.get("name", "")).split("-")[0]
    return CONFIGS.get(family, ModelConfig).model_validate(value)


def grow_vocabulary(model: GroundingModel, words: int) -> None:
    """Room for `words` words in the text tower; new ones start as random as those that are there."""
    old = model.text.token_embedding
    more = words - old.num_embeddings
    if more <= 0:
        return
    new = nn.Embedding(words, old.embedding_dim)
    nn.init.normal_(new.weight, std=float(old.weight.detach().std()))
    new.weight.data[: old.num_embeddings] = old.weight.data
    model.text.token_embedding = new
    model.config = model.config.model_copy(update={"vocabulary": words})


@torch.no_grad()
def take_towers(model: GroundingModel, other: GroundingModel) -> None:
    """The towers of another model of the same shape; words that only `model` knows stay as they are."""
    own, state = model.state_dict(), other.state_dict()
    for name, tensor in state.items():
        if name.split(".")[0] in TOWERS.values():
            target = own[name][: len(tensor)] if name == "text.token_embedding.weight" else own[name]
            target.copy_(tensor)
