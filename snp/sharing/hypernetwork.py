"""The hypernetwork: one small recurrent network that makes the logits of all structure vectors together."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from snp.sharing.geometry import Geometry
from snp.sharing.structure import Vectors

INPUT, HIDDEN = 32, 64  # [author]


class HyperNetwork(nn.Module):
    """Frozen random inputs -> bidirectional GRU -> LayerNorm -> GELU -> one bias-free linear head per vector [author].

    One input per layer and stack, so that every vector can depend on all others [paper]. The heads of one
    kind are stored stacked, (L, units, 2*64), which is the same function with fewer operations [ours].

    Args:
        geometry: the towers' units.
        seed: fixes inputs and initial weights.
        head_scale: initial size of the heads relative to PyTorch's default; small, so that the first ranking of
            units comes from the data and not from the initial weights [ours].
    """

    def __init__(self, geometry: Geometry, seed: int, head_scale: float) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.geometry, self.places = geometry, geometry.places
            self.register_buffer("inputs", torch.randn(sum(map(len, self.places.values())), INPUT))
            self.gru = nn.GRU(INPUT, HIDDEN, bidirectional=True)
            self.norm = nn.LayerNorm(2 * HIDDEN)
            bound = head_scale * (2 * HIDDEN) ** -0.5
            self.heads = nn.ParameterDict(
                {
                    name: nn.Parameter(torch.empty(*shape, 2 * HIDDEN).uniform_(-bound, bound))
                    for name, shape in _shapes(geometry).items()
                }
            )

    def forward(self) -> Vectors:
        """Logits o of every vector, without the offset b0: stack -> kind -> (rows, units)."""
        hidden_TH = F.gelu(self.norm(self.gru(self.inputs)[0]))
        made: Vectors = {}
        for name, stack in self.geometry.stacks.items():
            hidden_LH, made[name] = hidden_TH[self.places[name]], {}
            for kind in stack.kinds:
                heads = self.heads[f"{name}_{kind}"]
                hidden_RH = hidden_LH.repeat(len(heads) // len(hidden_LH), 1)  # every taker's rows see those of a layer
                made[name][kind] = (heads @ hidden_RH[..., None]).squeeze(-1)
        return made


class FreeLogits(nn.Module):
    """The rival of the hypernetwork: every unit's logit is a parameter of its own [author: ablation].

    One Adam step moves a logit by about `lr` here, but by `lr` times the L1 norm of the hidden vector under a
    hypernetwork; `speed` makes up for that, so that both can be trained with one learning rate [ours].
    """

    def __init__(self, geometry: Geometry, seed: int, speed: float = HIDDEN) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.speed, self.geometry = speed, geometry
        self.logits = nn.ParameterDict(
            {
                name: nn.Parameter(1e-3 * torch.randn(shape, generator=generator))
                for name, shape in _shapes(geometry).items()
            }
        )

    def forward(self) -> Vectors:
        stacks = self.geometry.stacks.items()
        return {name: {k: self.speed * self.logits[f"{name}_{k}"] for k in stack.kinds} for name, stack in stacks}


def binary(logit: Tensor, tau: float, generator: torch.Generator, noise: float = 1.0) -> Tensor:
    """A 0/1 sample by Gumbel-sigmoid, straight-through: round(sigmoid((logit + noise * g) / tau)) [author].

    g is one Gumbel sample, so P(1) = 1 - exp(-exp(logit / noise)); the gradient is that of the sigmoid.
    """
    uniform = torch.rand(logit.shape, generator=generator).clamp_(1e-10, 1 - 1e-7)
    soft = torch.sigmoid((logit - noise * torch.log(-torch.log(uniform))) / tau)
    return soft.round().detach() + (soft - soft.detach())  # exactly 0 or 1


def _shapes(geometry: Geometry) -> dict[str, tuple[int, int]]:
    return {f"{name}_{kind}": stack.shape(kind) for name, stack in geometry.stacks.items() for kind in stack.kinds}
