"""From bin logits per token to depth per pixel: upsample, ReLU, floor, normalise, expectation in one autograd function.

The upsampled logits are by far the largest tensor of the depth probe (58 MB for four images), and the only reason to
hold them is the backward pass. Here they are made again in it, which costs one small product and saves more than that:
on a CPU they exist a few rows at a time, in buffers that stay in the cache (same bits, a quarter faster). Upsampling is
by products, so that gradients are the same in every run also on CUDA (`bilinear`). Protocol `depth`, sections 3.2, 6.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mtv.probes.bilinear import bilinear_weights
from mtv.probes.precision import fp32_matmul

_ROWS = 8
"""Rows of the upsampled logits at a time on a CPU: two buffers of about 1 MB."""


@fp32_matmul()
def expected_depth(logits_BhwK: Tensor, centres_K: Tensor, *, floor: float, upsample: int) -> Tensor:
    """Depth B,1,h * upsample,w * upsample in the unit of the centres.

    Per output pixel: bilinear logits (`align_corners=False`), r = ReLU, sum (r + floor) c / sum (r + floor). The floor
    is added to the two sums instead of to every bin.

    Args:
        logits_BhwK: one logit per token and bin.
        centres_K: depth of each bin, float64.
        floor: positive.
        upsample: pixels per token side.

    Differentiable once, in the logits.
    """
    _, h, w, _ = logits_BhwK.shape
    rows_Hh, cols_Ww = (bilinear_weights(n, n * upsample).to(logits_BhwK) for n in (h, w))
    moments_K2 = torch.stack([centres_K, torch.ones_like(centres_K)], dim=1)
    floor_2 = floor * moments_K2.sum(dim=0)
    depth_BHW: Tensor = _ExpectedDepth.apply(
        logits_BhwK.contiguous(), rows_Hh, cols_Ww, moments_K2.to(logits_BhwK), floor_2.to(logits_BhwK)
    )
    return depth_BHW[:, None]


class _ExpectedDepth(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits_BhwK: Tensor, rows_Hh: Tensor, cols_Ww: Tensor, moments_K2: Tensor, floor_2: Tensor
    ) -> Tensor:
        sums_BHW2 = logits_BhwK.new_empty(len(logits_BhwK), len(rows_Hh), len(cols_Ww), 2)
        for images, tall_bHwK in _taller(logits_BhwK, rows_Hh):
            for rows, relu_brWK, _ in _upsampled_relu(tall_bHwK, cols_Ww):
                torch.matmul(relu_brWK, moments_K2, out=sums_BHW2[images, rows])
        weighted_BHW, mass_BHW = (sums_BHW2 + floor_2).unbind(-1)
        depth_BHW = weighted_BHW / mass_BHW
        ctx.save_for_backward(logits_BhwK, rows_Hh, cols_Ww, moments_K2, mass_BHW, depth_BHW)
        return depth_BHW

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        logits_BhwK, rows_Hh, cols_Ww, moments_K2, mass_BHW, depth_BHW = ctx.saved_tensors
        # d depth / d relu_k = (c_k - depth) / mass: a product with the two moments.
        per_mass_BHW = gradients[0] / mass_BHW
        slopes_BHW2 = torch.stack([per_mass_BHW, -per_mass_BHW * depth_BHW], dim=-1)
        moments_2K, cols_wW = moments_K2.T.contiguous(), cols_Ww.T.contiguous()
        out_BhwK = torch.empty_like(logits_BhwK)
        for images, tall_bHwK in _taller(logits_BhwK, rows_Hh):
            for rows, relu_brWK, slope_brWK in _upsampled_relu(tall_bHwK, cols_Ww):
                torch.matmul(slopes_BHW2[images, rows], moments_2K, out=slope_brWK)
                slope_brWK.mul_(relu_brWK.sign_())
                # These rows of the taller logits have been read, so their gradient takes their place.
                torch.matmul(cols_wW, slope_brWK, out=tall_bHwK[:, rows])
            torch.matmul(rows_Hh.T, tall_bHwK.flatten(2), out=out_BhwK[images].flatten(2))
        return out_BhwK, None, None, None, None


def _taller(logits_BhwK: Tensor, rows_Hh: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Images in turn and their logits upsampled along the rows, in a buffer that is used again.

    One image at a time on a CPU, where fresh memory is slow; all at once elsewhere, where launches are.
    """
    batch, _, w, bins = logits_BhwK.shape
    step = 1 if logits_BhwK.device.type == "cpu" else max(batch, 1)
    tall_bHwK = logits_BhwK.new_empty(step, len(rows_Hh), w, bins)
    for first in range(0, batch, step):
        images = slice(first, first + step)
        torch.matmul(rows_Hh, logits_BhwK[images].flatten(2), out=tall_bHwK.view(step, -1, w * bins))
        yield images, tall_bHwK


def _upsampled_relu(tall_bHwK: Tensor, cols_Ww: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Rows in turn, their logits upsampled along the columns after the ReLU, and a buffer of that size that is free."""
    images, height, _, bins = tall_bHwK.shape
    step = _ROWS if tall_bHwK.device.type == "cpu" else height
    both_2brWK = tall_bHwK.new_empty(2, images, step, len(cols_Ww), bins)
    for first in range(0, height, step):
        rows = slice(first, min(first + step, height))
        up_brWK, free_brWK = both_2brWK[:, :, : rows.stop - first]
        torch.matmul(cols_Ww, tall_bHwK[:, rows], out=up_brWK)
        yield rows, up_brWK.relu_(), free_brWK
