"""Bilinear resizing as two small products with dense weights, forwards and backwards.

The same numbers as torch's `interpolate(mode="bilinear", align_corners=False)` without antialiasing. Notable: torch's
backward pass adds up with atomics on CUDA, so that two runs with one seed differ; products do not.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mtv.errors import UsageError
from mtv.probes.precision import fp32_matmul


def bilinear_weights(n_in: int, n_out: int) -> Tensor:
    """Dense float64 weights n_out,n_in; rows sum to 1.

    Output i reads at (i + 0.5) * n_in / n_out - 0.5, in units of input cells; beyond the border it reads the border.

    Raises:
        UsageError: a length below 1.
    """
    if min(n_in, n_out) < 1:
        raise UsageError(f"bilinear resizing needs lengths of at least 1, got {n_in} to {n_out}")
    place_O = ((torch.arange(n_out, dtype=torch.float64) + 0.5) * n_in / n_out - 0.5).clamp(0, n_in - 1)
    low_O = place_O.floor().long()
    part_O = place_O - low_O
    weights_OI = torch.zeros(n_out, n_in, dtype=torch.float64)
    weights_OI.scatter_add_(1, low_O[:, None], (1 - part_O)[:, None])
    weights_OI.scatter_add_(1, (low_O + 1).clamp(max=n_in - 1)[:, None], part_O[:, None])
    return weights_OI


@fp32_matmul()
def resize_map(x_BCHW: Tensor, size: tuple[int, int]) -> Tensor:
    """B,C,H,W to B,C,size; meant for few channels, such as depth."""
    rows_OH, cols_OW = (bilinear_weights(n, m).to(x_BCHW) for n, m in zip(x_BCHW.shape[-2:], size, strict=True))
    return rows_OH @ x_BCHW @ cols_OW.T
