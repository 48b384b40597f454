"""Where the parameters of a model are, dense and at the sizes that the paper speaks of; counted without its weights."""

from dataclasses import dataclass
from textwrap import fill
from typing import Literal

import torch
from tabulate import tabulate

from snp.compression.budget import Budget
from snp.compression.count import count
from snp.compression.tower import Tower, towers_of
from snp.experiment.spec import Scale
from snp.models import config as configs
from snp.models.config import GLIPConfig, ModelConfig
from snp.models.glip import GLIP
from snp.models.mdetr import MDETR, TOWERS

KEEPS = (0.65, 0.60)
"""Shares of all parameters: the least and the most that the paper removes with almost no loss."""
WIDTH = 80
"""Characters in a line of what is printed."""
REDUCTIONS = (0.40, 0.45)
"""Shares of the towers that the paper removes."""


@dataclass(frozen=True)
class Parameters:
    """Numbers of parameters. Only the linear maps of the towers can be removed by every method.

    vision, text: weights and biases of q, k, v, o, fc1 and fc2. words: the token embedding. around: what else is in the
    towers, norms, patches and positions. fusion: all the rest, with heads.
    """

    vision: int
    text: int
    words: int
    around: int
    fusion: int

    @property
    def total(self) -> int:
        return self.maps + self.words + self.around + self.fusion

    @property
    def maps(self) -> int:
        """The linear maps of both towers."""
        return self.vision + self.text

    @property
    def towers(self) -> int:
        """Both towers as the paper counts them, with their embeddings."""
        return self.total - self.fusion

    def less(self, removed: int) -> "Parameters":
        """With so many removed from the linear maps, of each tower as of the other in proportion."""
        vision = round(removed * self.vision / self.maps)
        return Parameters(self.vision - vision, self.text - (removed - vision), self.words, self.around, self.fusion)


def dense(config: ModelConfig | GLIPConfig) -> tuple[torch.nn.Module, dict[str, Tower]]:
    """A model without values, and its towers."""
    with torch.device("meta"):
        model = GLIP(config) if isinstance(config, GLIPConfig) else MDETR(config)
    return model, towers_of(model, TOWERS)


def parameters(model: torch.nn.Module, towers: dict[str, Tower]) -> Parameters:
    """The parameters of a model, on whatever device."""
    counted = count(model, towers)
    whole = sum(p.numel() for path in TOWERS.values() for p in model.get_submodule(path).parameters())
    words = model.get_parameter(f"{TOWERS['text']}.token_embedding.weight").numel()
    around = whole - counted.total - words
    return Parameters(counted.towers["vision"], counted.towers["text"], words, around, counted.stored - whole)


def table(scale: Scale, name: Literal["mdetr", "glip"]) -> str:
    """The parameters of a model at the paper's sizes, and what its two statements of size mean here.

    Raises:
        InputError: a size that the model cannot have.
    """
    model, towers = dense(getattr(configs, ("GLIP_" if name == "glip" else "") + scale.upper()))
    whole = parameters(model, towers)
    sizes = {"dense": whole}
    for keep in KEEPS:
        sizes[f"all\n-{1 - keep:.0%}"] = whole.less(whole.total - Budget.from_model(model, towers, keep).target)
    for share in REDUCTIONS:
        removed = round(share * whole.towers)
        Budget.from_model(model, towers, 1 - removed / whole.total)
        sizes[f"towers\n-{share:.0%}"] = whole.less(removed)
    rows = {
        "vision tower, linear maps": [p.vision for p in sizes.values()],
        "text tower, linear maps": [p.text for p in sizes.values()],
        "token embedding": [p.words for p in sizes.values()],
        "norms, patches, positions": [p.around for p in sizes.values()],
        "fusion and heads": [p.fusion for p in sizes.values()],
        "total": [p.total for p in sizes.values()],
    }
    shares = {
        "removed of all": [1 - p.total / whole.total for p in sizes.values()],
        "removed of the towers": [1 - p.towers / whole.towers for p in sizes.values()],
        "removed of their linear maps": [1 - p.maps / whole.maps for p in sizes.values()],
    }
    lines = [[label, *(f"{n / 1e6:.2f}M" for n in numbers)] for label, numbers in rows.items()]
    lines += [[label, *(f"{share:.1%}" for share in numbers)] for label, numbers in shares.items()]
    aligned = tabulate(lines, ["", *sizes], colalign=("left", *["right"] * len(sizes)), disable_numparse=True)
    return f"{aligned}\n\n{_statement(whole)}"


def _statement(whole: Parameters) -> str:
    """At which reductions of the towers the paper's reduction of the whole model is reached."""
    of_all = [1 - keep for keep in KEEPS]
    low, high = (share * whole.total / whole.towers for share in of_all)
    least, most = max(low, REDUCTIONS[0]), min(high, REDUCTIONS[1])
    both = f"both hold at {least:.1%} to {most:.1%}" if least <= most else "the two never hold together"
    maps = " to ".join(f"{share * whole.total / whole.maps:.1%}" for share in of_all)
    said = (
        f"{of_all[0]:.0%} to {of_all[1]:.0%} of all is {low:.1%} to {high:.1%} of the towers with their embeddings, of "
        f"which the paper removes {REDUCTIONS[0]:.0%} to {REDUCTIONS[1]:.0%}: {both}.\n"
        f"It is {maps} of the towers' linear maps, where all of it is removed. "
        f"Towers are cut here in proportion; methods choose."
    )
    return "\n".join(fill(line, WIDTH) for line in said.splitlines())
