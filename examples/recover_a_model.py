"""Bring back what compression has cost: a classifier loses most of its units, then learns from itself without labels.

python examples/recover_a_model.py
"""

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

import snp

TOWERS = {"vision": ""}
"""The model itself is the tower."""
Batch = tuple[Tensor, Tensor]


def batches(number: int, seed: int) -> list[Batch]:
    """Noise with two squares, red, green or blue, and the colour of the brighter one."""
    source, found = torch.Generator().manual_seed(seed), []
    for _ in range(number):
        pictures = torch.randn(32, 3, 16, 16, generator=source)
        colours = torch.randint(3, (32, 2), generator=source)
        places = torch.rand(32, 16, generator=source).argsort(1)[:, :2]  # two different ones of 4 x 4
        for picture, *squares in zip(pictures, colours.tolist(), places.tolist(), strict=True):
            for colour, place, light in zip(*squares, (1.2, 0.6), strict=True):
                row, column = 4 * (place // 4), 4 * (place % 4)
                picture[colour, row : row + 4, column : column + 4] += light
        found.append((pictures, colours[:, 0]))
    return found


def loss(model: nn.Module, batch: Batch) -> Tensor:
    """What a model learns by that has labels."""
    return F.cross_entropy(model(batch[0]), batch[1])


def trained(train: list[Batch]) -> nn.Module:
    """The dense model; yours may be timm.create_model(..., pretrained=True)."""
    torch.manual_seed(0)
    model = VisionTransformer(
        img_size=16, patch_size=4, embed_dim=32, depth=3, num_heads=4, num_classes=3, global_pool="avg"
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for batch in train * 3:
        optimizer.zero_grad()
        loss(model, batch).backward()
        optimizer.step()
    return model.eval()


@torch.no_grad()
def right(model: nn.Module, held_out: list[Batch]) -> float:
    """Share of the pictures that it is right about."""
    return float(torch.cat([model(pictures).argmax(1) == colours for pictures, colours in held_out]).float().mean())


def main() -> None:
    """What is right before, after compression, and after recovery."""
    train, held_out, unseen = batches(40, seed=1), batches(10, seed=2), batches(10, seed=3)
    dense = trained(train)
    how = {"keep": 0.2, "towers": TOWERS, "calibration": train}
    how["forward"] = lambda model, batch: {"logits": model(batch[0])}  # what is learned of the dense model
    recover = snp.Recover(steps=60, rate=2e-3, held_out=held_out)
    cut, _ = snp.compress(dense, "magnitude-structured", **how)
    taught, _ = snp.compress(dense, "magnitude-structured", **how, recover=recover)
    both, _ = snp.compress(dense, "magnitude-structured", **how, recover=recover, loss=loss)
    for name, model in {"dense": dense, "20% kept": cut, "recovered": taught, "with labels": both}.items():
        parameters = sum(p.numel() for p in model.parameters())
        print(f"{name:12} {parameters:6} parameters, {right(model, unseen):4.0%} right")


if __name__ == "__main__":
    main()
