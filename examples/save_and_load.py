"""Save a compressed model, load it again, and count what remains: parameters, bytes, operations.

python examples/save_and_load.py [FOLDER]    # default: a temporary one
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

import snp
from snp.compression import checkpoint
from snp.compression.count import count, flops
from snp.compression.tower import towers_of

TOWERS = {"vision": ""}
"""The model itself is the tower."""


def build() -> nn.Module:
    """Makes the dense model, with any weights: a small ViT of timm's."""
    return VisionTransformer(img_size=32, patch_size=8, embed_dim=64, depth=3, num_heads=4, num_classes=10)


def main(folder: Path) -> None:
    """What is there before and after."""
    dense = build()
    small, plan = snp.compress(dense, "magnitude-structured", keep=0.5, towers=TOWERS)
    checkpoint.save(folder, small, plan, extra={"made by": "an example"}, paths=TOWERS)
    loaded, _ = checkpoint.load(folder, build)

    picture = torch.randn(1, 3, 32, 32)
    for model in (small.eval(), loaded.eval()):
        print(f"{model(picture).sum():.6f} is what it says")
    for name, model in (("dense", dense), ("loaded", loaded)):
        counts = count(model, towers_of(model, TOWERS))
        print(f"{name}: {counts.stored} parameters, {counts.total} in the tower, {flops(model, picture)} operations")
    print(f"{sum(file.stat().st_size for file in folder.iterdir())} bytes in {folder}: 4 a parameter, and the plan")


if __name__ == "__main__":
    with TemporaryDirectory() as temporary:
        main(Path(*sys.argv[1:2] or [temporary]))
