"""What GLIP sees with: a pyramid made of the one map of a ViT, and the dynamic head's blocks that mix its levels."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import DeformConv2d


def norm(width: int) -> nn.GroupNorm:
    """Normalises each image over channels and places."""
    return nn.GroupNorm(1, width)


class Pyramid(nn.Module):
    """Several resolutions from the last map of a plain ViT (ViTDet, Li et al. 2022): up- and downsampled, then mixed.

    Args:
        scales: resolution of every level relative to the map, powers of two.
    """

    def __init__(self, width: int, out: int, scales: Sequence[float]) -> None:
        super().__init__()
        self.levels = nn.ModuleList()
        for scale in scales:
            steps: list[nn.Module] = []
            while scale > 1:
                steps += [nn.ConvTranspose2d(width, width, 2, 2), norm(width), nn.GELU()]
                scale /= 2
            while scale < 1:
                steps.append(nn.MaxPool2d(2, 2, ceil_mode=True))
                scale *= 2
            steps += [nn.Conv2d(width, out, 1, bias=False), norm(out), nn.Conv2d(out, out, 3, padding=1), norm(out)]
            self.levels.append(nn.Sequential(*steps))

    def forward(self, map_BDHW: Tensor) -> list[Tensor]:
        """[B, width, H, W] -> a map [B, out, H * scale, W * scale] for every scale."""
        return [level(map_BDHW) for level in self.levels]


class DynamicReLU(nn.Module):
    """max(a1 x + b1, a2 x + b2), the four numbers of a channel made from the mean over places (DYReLU-B)."""

    def __init__(self, width: int, squeeze: int = 4) -> None:
        super().__init__()
        self.make = nn.Sequential(
            nn.Linear(width, width // squeeze), nn.ReLU(), nn.Linear(width // squeeze, 4 * width), nn.Hardsigmoid()
        )

    def forward(self, x_BDHW: Tensor) -> Tensor:
        # centred so that an untrained one is nearly max(x, 0)
        made = 2 * self.make(x_BDHW.mean((2, 3))) - 1
        a1, b1, a2, b2 = made.view(len(x_BDHW), 4, -1, 1, 1).unbind(1)
        return torch.maximum(x_BDHW * (1 + a1) + b1 / 2, x_BDHW * a2 + b2 / 2)


class DynamicBlock(nn.Module):
    """One block of the dynamic head (Dai et al. 2021): levels look at their neighbours, weigh them, and themselves.

    Every level takes its own map, that of the finer and that of the coarser level through convolutions of their own
    (spatial attention, with offsets and a mask where `deformable`), each weighed by what it holds (scale attention);
    their mean passes a dynamic ReLU (task attention).
    """

    def __init__(self, width: int, deformable: bool) -> None:
        super().__init__()
        # from the finer level (stride 2), the level itself, and the coarser one
        self.mix = nn.ModuleList(
            _Deformable(width, stride) if deformable else nn.Conv2d(width, width, 3, stride, 1) for stride in (2, 1, 1)
        )
        self.norms = nn.ModuleList(norm(width) for _ in range(3))
        self.weigh = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(width, 1, 1), nn.ReLU(), nn.Hardsigmoid())
        self.act = DynamicReLU(width)

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        """Maps, finest first -> maps of the same shapes."""
        out = []
        for i, own in enumerate(levels):
            size = own.shape[-2:]
            parts = [self.norms[1](self.mix[1](own))]
            if i > 0:
                parts.append(_sized(self.norms[0](self.mix[0](levels[i - 1])), size))
            if i + 1 < len(levels):
                parts.append(_sized(self.norms[2](self.mix[2](levels[i + 1])), size))
            weighed = torch.stack([part * self.weigh(part) for part in parts]).mean(0)
            out.append(own + self.act(weighed))
        return out


class _Deformable(nn.Module):
    """A 3x3 convolution whose nine places move and are weighed, both made from the input."""

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.where = nn.Conv2d(width, 27, 3, stride, 1)
        for parameter in self.where.parameters():
            nn.init.zeros_(parameter)
        self.convolve = DeformConv2d(width, width, 3, stride, 1)

    def forward(self, x_BDHW: Tensor) -> Tensor:
        offset, mask = self.where(x_BDHW).split((18, 9), 1)
        return self.convolve(x_BDHW, offset, mask.sigmoid())


def _sized(x_BDHW: Tensor, size: torch.Size) -> Tensor:
    return x_BDHW if x_BDHW.shape[-2:] == size else F.interpolate(x_BDHW, size, mode="bilinear", align_corners=True)
