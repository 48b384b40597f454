"""Small networks of plain linear maps, with batches and losses, on which the unstructured rivals are tested."""

import torch
from torch import Tensor, nn

Batch = tuple[Tensor, Tensor]


class Toy(nn.Module):
    """Three maps without bias: vision.a = [[1, -2]], vision.b = [[3, -4]], text.c = [[0.5, 6], [-7, 8]]."""

    def __init__(self) -> None:
        super().__init__()
        self.vision = nn.ModuleDict({"a": nn.Linear(2, 1, False), "b": nn.Linear(2, 1, False)})
        self.text = nn.ModuleDict({"c": nn.Linear(2, 2, False)})
        self.vision["a"].weight.data = torch.tensor([[1.0, -2.0]])
        self.vision["b"].weight.data = torch.tensor([[3.0, -4.0]])
        self.text["c"].weight.data = torch.tensor([[0.5, 6.0], [-7.0, 8.0]])

    def forward(self, batch: Batch) -> Tensor:
        image, words = batch
        return self.vision["a"](image).sum() + self.vision["b"](image).sum() + self.text["c"](words).sum()


class Pair(nn.Module):
    """Two maps a and b of two inputs to one output, side by side: the loss is linear, its gradients are the inputs."""

    def __init__(self, a: list[float], b: list[float]) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(2, 1, False), nn.Linear(2, 1, False)
        self.a.weight.data, self.b.weight.data = torch.tensor([a]), torch.tensor([b])

    def forward(self, x: Tensor) -> Tensor:
        return (self.a(x) + self.b(x)).sum()


class Chain(nn.Module):
    """Two maps, one after the other: y = b (a x) with a = [[1, 2], [3, -2.75]] and b = [[3, 4]]."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(2, 2, False), nn.Linear(2, 1, False)
        self.a.weight.data = torch.tensor([[1.0, 2.0], [3.0, -2.75]])
        self.b.weight.data = torch.tensor([[3.0, 4.0]])

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x)).sum()


class Net(nn.Module):
    """Random maps of several sizes in two modalities and a fusion; all weights are of one distribution."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.v1, self.v2 = nn.Linear(7, 9), nn.Linear(9, 6)
        self.t1, self.t2 = nn.Linear(5, 8), nn.Linear(8, 6)
        self.f = nn.Linear(6, 4)
        for name in NAMES:
            nn.init.normal_(self.get_parameter(name), std=0.3)

    def forward(self, batch: Batch) -> Tensor:
        image_BNI, words_BLI = batch
        v = self.v2(self.v1(image_BNI).relu()).mean(1)
        t = self.t2(self.t1(words_BLI).relu()).mean(1)
        return self.f(v * t)


GROUPS = {"vision": ["v1.weight", "v2.weight"], "text": ["t1.weight", "t2.weight"], "fusion": ["f.weight"]}
NAMES = [name for names in GROUPS.values() for name in names]


def batches(seed: int, count: int = 3, size: int = 4) -> list[Batch]:
    """Inputs of a Net: images [B, 3, 7] and words [B, 5, 5]."""
    source = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(size, 3, 7, generator=source), torch.randn(size, 5, 5, generator=source)) for _ in range(count)
    ]


def loss_of(model: nn.Module, batch: Batch) -> Tensor:
    """A scalar loss of a Net."""
    return model(batch).square().mean()
