"""Crop and antialiased resize of a whole batch as two matrix products, with one weight matrix per view and axis.

Equal to cropping on the pixel grid and torch's `interpolate(antialias=True)` of the crop: pixels outside the crop have
no weight, the others sum to 1. Windows off the grid (disparity, whose canvas has another side) follow the same rule: a
pixel counts when its centre lies inside. A mirrored view has its columns in reverse, at no cost.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Kernel = Literal["cubic", "linear"]


def axis_weights(
    start_V: Tensor,
    length_V: Tensor,
    *,
    size_in: int,
    size_out: int,
    longest: float,
    kernel: Kernel,
    flip_V: Tensor | None = None,
) -> Tensor:
    """Weights of one axis: float32 [V, size_out, size_in].

    Args:
        start_V: where the window of each view begins, in input pixels (whole or not).
        length_V: length of the window, at least 1 and at most `longest`.
        size_in: input pixels.
        size_out: output pixels.
        longest: no window is longer; a number of the host, so that nothing waits for the device.
        kernel: bicubic with a = -0.5 as in Pillow, or linear; both are widened when the view shrinks.
        flip_V: bool: mirrored views.
    """
    V, device = len(start_V), start_V.device
    scale_V1 = (length_V.double() / size_out)[:, None]
    widening_V1 = scale_V1.clamp(min=1)
    radius = 2 if kernel == "cubic" else 1
    at_VO = (torch.arange(size_out, device=device, dtype=torch.float64) + 0.5).expand(V, -1)
    if flip_V is not None:
        at_VO = torch.where(flip_V[:, None], size_out - at_VO, at_VO)
    centre_VO = start_V.double()[:, None] + scale_V1 * at_VO
    first_VO = torch.floor(centre_VO - radius * widening_V1)
    begin_V1 = (start_V.double() - 0.5).floor().add(1).clamp(min=0)[:, None]
    end_V1 = (start_V.double() + length_V - 0.5).ceil().clamp(max=size_in)[:, None]
    # Positions are large and exact; distances are small, and only they, one per tap, are single precision. Taps come
    # first, so that all axes of views and pixels run together through memory.
    taps = int(2 * radius * max(1.0, longest / size_out)) + 2
    tap_T11 = torch.arange(taps, device=device, dtype=torch.float32)[:, None, None]
    distance_VO = ((first_VO + 0.5 - centre_VO) / widening_V1).float()
    step_VO = (1 / widening_V1).float().expand(V, size_out).contiguous()
    weight_TVO = _KERNELS[kernel](torch.addcmul(distance_VO, tap_T11, step_VO).abs_())
    # Comparisons in place give 0 and 1 as floats, which the CPU does many at a time; booleans it does not.
    weight_TVO *= tap_T11.expand_as(weight_TVO).clone().ge_((begin_V1 - first_VO).float())
    weight_TVO *= tap_T11.expand_as(weight_TVO).clone().lt_((end_V1 - first_VO).float())
    weight_TVO /= weight_TVO.sum(dim=0)
    # Clamped pixels collide with real ones, hence the sum; they add nothing.
    pixel_TVO = (tap_T11 + first_VO.float()).clamp_(0, size_in - 1).long()
    dense = torch.zeros(V, size_out, size_in, device=device)
    return dense.scatter_add_(2, pixel_TVO.permute(1, 2, 0), weight_TVO.permute(1, 2, 0))


def _cubic(x: Tensor) -> Tensor:
    """Cubic convolution kernel (Keys 1981) with a = -0.5, of distances."""
    # Each piece is 0 where the other one counts, so that no element is chosen by a condition.
    near = x.clamp(max=1)
    near = near.mul(1.5).sub_(2.5).mul_(near).mul_(near).add_(1)
    far = x.clamp(1, 2)
    return near.add_((far - 5).mul_(far).add_(8).mul_(far).sub_(4), alpha=-0.5)


def _linear(x: Tensor) -> Tensor:
    """Triangle kernel, of distances."""
    return (1 - x).clamp_(min=0)


_KERNELS = {"cubic": _cubic, "linear": _linear}


def resample_canvas(canvas_BHCW: Tensor, rows_BVOH: Tensor, columns_BVOW: Tensor) -> Tensor:
    """Views of canvases: [B, V, 3, O, O].

    Args:
        canvas_BHCW: float32 rows, channels, columns.
        rows_BVOH: weights of the vertical axis.
        columns_BVOW: weights of the horizontal axis.
    """
    B, H, C, W = canvas_BHCW.shape
    V, out = rows_BVOH.shape[1:3]
    tall = torch.bmm(rows_BVOH.reshape(B, V * out, H), canvas_BHCW.reshape(B, H, C * W))
    wide = torch.bmm(tall.reshape(B * V, out * C, W), columns_BVOW.reshape(B * V, out, W).transpose(1, 2))
    return wide.reshape(B, V, out, C, out).transpose(2, 3)


def resample_map(map_BHW: Tensor, rows_BOH: Tensor, columns_BOW: Tensor) -> Tensor:
    """One view of one-channel maps: [B, O, O]."""
    return torch.bmm(torch.bmm(rows_BOH, map_BHW), columns_BOW.transpose(1, 2))
