"""Encoders that understand nothing: what a miniature task must not be solvable with.

* `colour_histogram`: 4 x 4 x 4 colour bins of each 16-pixel cell; pooled, the histogram of the picture.
* `random_convolutions`: four random 3 x 3 convolutions with ReLU and pooling to 16-pixel cells; no training.
* `place`: where a cell of 8 pixels lies, whatever is in it: what matching and dense tasks give to position alone.

Use them as `python:tests/benchmarks/weak_encoders.py:colour_histogram`.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

_BINS = 4
_PATCH = 16
_SIZE = 96


class ColourHistogram(nn.Module):
    """Soft counts of colours per cell: B,64,h,w."""

    patch_size = _PATCH
    size = _SIZE
    mean = (0.5, 0.5, 0.5)
    std = (0.5, 0.5, 0.5)
    resize = "squash"

    def __init__(self) -> None:
        super().__init__()
        self.centres = nn.Parameter((torch.arange(_BINS) + 0.5) / _BINS, requires_grad=False)

    def forward(self, images_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        """Square roots of the counts, so that the cosine of two histograms is their Bhattacharyya coefficient."""
        rgb = images_B3HW / 2 + 0.5
        weight_B3KHW = (1 - _BINS * (rgb[:, :, None] - self.centres[None, None, :, None, None]).abs()).clamp(min=0)
        r, g, b = weight_B3KHW.unbind(1)
        joint = torch.einsum("bihw,bjhw,bkhw->bijkhw", r, g, b).flatten(1, 3)
        counts = nn.functional.avg_pool2d(joint, _PATCH)
        return counts.sqrt(), counts.mean(dim=(2, 3)).sqrt()


class RandomConvolutions(nn.Module):
    """A fixed random convolution network: B,256,h,w at stride 16; pooled, mean and maximum over the picture."""

    patch_size = _PATCH
    size = _SIZE
    mean = (0.5, 0.5, 0.5)
    std = (0.5, 0.5, 0.5)
    resize = "squash"

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        widths = (3, 32, 64, 128, 256)
        blocks: list[nn.Module] = []
        for narrow, wide in itertools.pairwise(widths):
            conv = nn.Conv2d(narrow, wide, 3, padding=1, bias=False)
            with torch.no_grad():
                conv.weight.copy_(torch.randn(conv.weight.shape, generator=generator) * (2 / (9 * narrow)) ** 0.5)
            blocks += [conv, nn.ReLU(), nn.AvgPool2d(2)]
        self.blocks = nn.Sequential(*blocks)

    def forward(self, images_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        """The map and the pooled vector."""
        map_BCHW = self.blocks(images_B3HW)
        return map_BCHW, torch.cat([map_BCHW.mean(dim=(2, 3)), map_BCHW.amax(dim=(2, 3))], dim=1)


class Place(nn.Module):
    """Row and column of each cell, B,3,h,w: unit vectors whose cosine falls with the distance of two cells."""

    patch_size = 8
    size = 48
    mean = (0.5, 0.5, 0.5)
    std = (0.5, 0.5, 0.5)
    resize = "squash"

    def __init__(self) -> None:
        super().__init__()
        self.reach = nn.Parameter(torch.ones(()), requires_grad=False)

    def forward(self, images_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        """The map, and its mean, which is the same for all pictures of a size."""
        rows, columns = (side // self.patch_size for side in images_B3HW.shape[-2:])
        y_hw, x_hw = torch.meshgrid(torch.linspace(-1, 1, rows), torch.linspace(-1, 1, columns), indexing="ij")
        plane_3hw = torch.stack([self.reach * y_hw, self.reach * x_hw, torch.ones_like(y_hw)])
        map_B3hw = nn.functional.normalize(plane_3hw, dim=0).repeat(len(images_B3HW), 1, 1, 1)
        return map_B3hw, map_B3hw.mean(dim=(2, 3))


def colour_histogram() -> nn.Module:
    """Factory for a `python:` spec."""
    return ColourHistogram()


def random_convolutions() -> nn.Module:
    """Factory for a `python:` spec."""
    return RandomConvolutions()


def place() -> nn.Module:
    """Factory for a `python:` spec."""
    return Place()
