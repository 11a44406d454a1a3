"""From bin logits per token to depth per pixel: upsample, ReLU, floor, normalise, expectation in one autograd function.

The upsampled logits are by far the largest tensor of the depth probe (58 MB for four images), and the only reason to
hold them is the backward pass. Here they are made again in it, which costs one small product and saves more than that:
on a CPU they exist a few rows at a time, in buffers that stay in the cache. Upsampling is by products, so that
gradients are the same in every run also on CUDA (`bilinear`): along the columns for all rows of tokens at once, then
along the rows from the few rows of tokens that a few rows of pixels touch. Protocol `depth`, sections 3.2, 6.1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
    moments_2K = torch.stack([centres_K, torch.ones_like(centres_K)])
    floor_2 = floor * moments_2K.sum(dim=1)
    depth_BHW: Tensor = _ExpectedDepth.apply(
        logits_BhwK.contiguous(), rows_Hh, cols_Ww, moments_2K.to(logits_BhwK), floor_2.to(logits_BhwK)
    )
    return depth_BHW[:, None]


class _ExpectedDepth(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits_BhwK: Tensor, rows_Hh: Tensor, cols_Ww: Tensor, moments_2K: Tensor, floor_2: Tensor
    ) -> Tensor:
        sums_B2HW = logits_BhwK.new_empty(len(logits_BhwK), 2, len(rows_Hh), len(cols_Ww))
        bands = _bands(rows_Hh)
        for images, wide_bhWK in _wider(logits_BhwK, cols_Ww):
            for band, relu_brWK, _ in _upsampled_relu(wide_bhWK, bands):
                relu_bKn = relu_brWK.flatten(1, 2).transpose(1, 2)
                torch.matmul(moments_2K, relu_bKn, out=sums_B2HW[images, :, band.pixels].flatten(2))
        weighted_BHW, mass_BHW = (sums_B2HW + floor_2[:, None, None]).unbind(1)
        depth_BHW = weighted_BHW / mass_BHW
        ctx.save_for_backward(logits_BhwK, rows_Hh, cols_Ww, moments_2K, mass_BHW, depth_BHW)
        return depth_BHW

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        logits_BhwK, rows_Hh, cols_Ww, moments_2K, mass_BHW, depth_BHW = ctx.saved_tensors
        # d depth / d relu_k = (c_k - depth) / mass: a product with the two moments.
        per_mass_BHW = gradients[0] / mass_BHW
        slopes_BHW2 = torch.stack([per_mass_BHW, -per_mass_BHW * depth_BHW], dim=-1)
        cols_wW, bands, out_BhwK = cols_Ww.T.contiguous(), _bands(rows_Hh), torch.empty_like(logits_BhwK)
        for images, wide_bhWK in _wider(logits_BhwK, cols_Ww):
            grad_bhWK = torch.zeros_like(wide_bhWK)
            for band, relu_brWK, slope_brWK in _upsampled_relu(wide_bhWK, bands):
                torch.matmul(slopes_BHW2[images, band.pixels], moments_2K, out=slope_brWK)
                slope_brWK.mul_(relu_brWK.sign_())
                weights_btr = band.weights_rt.T.expand(len(grad_bhWK), -1, -1)
                grad_bhWK[:, band.tokens].flatten(2).baddbmm_(weights_btr, slope_brWK.flatten(2))
            torch.matmul(cols_wW, grad_bhWK, out=out_BhwK[images])
        return out_BhwK, None, None, None, None


def _wider(logits_BhwK: Tensor, cols_Ww: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Images in turn and their logits upsampled along the columns, in a buffer that is used again.

    One image at a time on a CPU, where fresh memory is slow; all at once elsewhere, where launches are.
    """
    batch, h, _, bins = logits_BhwK.shape
    step = 1 if logits_BhwK.device.type == "cpu" else max(batch, 1)
    wide_bhWK = logits_BhwK.new_empty(step, h, len(cols_Ww), bins)
    for first in range(0, batch, step):
        images = slice(first, first + step)
        torch.matmul(cols_Ww, logits_BhwK[images], out=wide_bhWK)
        yield images, wide_bhWK


@dataclass(frozen=True, kw_only=True)
class _Band:
    """Some rows of pixels and the rows of tokens that they touch."""

    pixels: slice
    """Rows of pixels."""
    tokens: slice
    """Rows of tokens, from the first to the last with a weight."""
    weights_rt: Tensor
    """Weight of each such row of tokens in each row of pixels."""


def _bands(rows_Hh: Tensor) -> list[_Band]:
    """A few rows of pixels each on a CPU; all rows as one elsewhere, where launches are slow."""
    if rows_Hh.device.type != "cpu":
        return [_Band(pixels=slice(None), tokens=slice(None), weights_rt=rows_Hh)]
    bands = []
    for first in range(0, len(rows_Hh), _ROWS):
        pixels = slice(first, min(first + _ROWS, len(rows_Hh)))
        touched = rows_Hh[pixels].any(dim=0).nonzero()
        tokens = slice(int(touched[0]), int(touched[-1]) + 1)
        bands.append(_Band(pixels=pixels, tokens=tokens, weights_rt=rows_Hh[pixels, tokens]))
    return bands


def _upsampled_relu(wide_bhWK: Tensor, bands: Sequence[_Band]) -> Iterator[tuple[_Band, Tensor, Tensor]]:
    """Bands in turn, their upsampled logits after the ReLU, and a buffer of that size that is free."""
    images, _, width, bins = wide_bhWK.shape
    both_2brWK = wide_bhWK.new_empty(2, images, max(len(b.weights_rt) for b in bands), width, bins)
    for band in bands:
        up_brWK, free_brWK = both_2brWK[:, :, : len(band.weights_rt)]
        torch.matmul(band.weights_rt, wide_bhWK[:, band.tokens].flatten(2), out=up_brWK.flatten(2))
        yield band, up_brWK.relu_(), free_brWK
