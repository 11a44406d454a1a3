"""Patch features as colours: their first three principal components as red, green and blue.

Maps that are drawn together share their components, so that equal colours mean equal features: parts that correspond
in two views should look alike. Colours say nothing across figures.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

LEGEND = "first three principal components of the patch features as red, green, blue"
_RANGE = (0.02, 0.98)
"""Quantiles of a component that become 0 and 1: a few outlying tokens would grey all others."""


def principal_colours(tokens_nHWD: Sequence[Tensor]) -> list[Tensor]:
    """Components of every map, H,W,3 float32 from 0 to 1 on the CPU; 0.5 where a component does not vary.

    Args:
        tokens_nHWD: maps of one or more pictures, H,W,D each with one D, any floating dtype and any device.
    """
    maps = [t.detach().cpu().double() for t in tokens_nHWD]
    rows_ND = torch.cat([t.flatten(0, 1) for t in maps])
    mean_D = rows_ND.mean(0)
    axes_D3 = _axes(rows_ND - mean_D)
    low_3, high_3 = torch.quantile((rows_ND - mean_D) @ axes_D3, rows_ND.new_tensor(_RANGE), dim=0)
    range_3 = high_3 - low_3
    flat_3 = range_3 <= 1e-9 * float(rows_ND.abs().max())
    shares = (((t - mean_D) @ axes_D3 - low_3) / range_3.masked_fill(flat_3, 1) for t in maps)
    return [s.clamp(0, 1).masked_fill(flat_3, 0.5).float() for s in shares]


def _axes(centred_ND: Tensor) -> Tensor:
    """The three directions of most variance, D,3; zero where D has fewer. Their largest entry is positive, for the sign
    of an eigenvector is the solver's choice."""
    _, vectors_DD = torch.linalg.eigh(centred_ND.T @ centred_ND)
    axes_Dk = vectors_DD.flip(1)[:, :3]
    largest_k = axes_Dk.gather(0, axes_Dk.abs().argmax(0, keepdim=True))
    return torch.nn.functional.pad(axes_Dk * largest_k.sign(), (0, 3 - axes_Dk.shape[1]))


def as_picture(colours_HW3: Tensor, size: tuple[int, int]) -> Image.Image:
    """Colours as a picture of (width, height) `size`; every token stays a visible rectangle."""
    image = Image.fromarray(np.rint(255 * colours_HW3.numpy()).astype(np.uint8))
    return image.resize(size, Image.Resampling.NEAREST)
