"""Encoders that understand nothing: what a miniature task must not be solvable with.

* `colour_histogram`: 4 x 4 x 4 colour bins of each 16-pixel cell; pooled, the histogram of the picture.
* `random_convolutions`: four random 3 x 3 convolutions with ReLU and pooling to 16-pixel cells; no training.

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


def colour_histogram() -> nn.Module:
    """Factory for a `python:` spec."""
    return ColourHistogram()


def random_convolutions() -> nn.Module:
    """Factory for a `python:` spec."""
    return RandomConvolutions()
