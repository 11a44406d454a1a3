"""Depth losses on disparity: scale and shift invariant trimmed error and multi-scale gradients (pretraining.md 5.6).

Notable choices:
- Disparity, larger = nearer; prediction and label are each brought to median 0 and mean absolute deviation 1.
- Trimming is per image, by an unsorted selection: four times faster than sorting on a CPU, and exact with ties, where
  a comparison with the k-th value would keep too many.
- Divided by 2 HW, not by twice the kept count; gradients by the pixels of each scale.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from mtv.collectives import all_sum, world_size
from mtv.errors import unknown
from mtv.losses.precision import in_full_precision

GM_SPACES = ("normalised", "ls")
GM_SCALES = 4
GM_WEIGHT = 2.0
MIN_SPREAD = 1e-6


@dataclass(frozen=True, kw_only=True)
class DepthReport:
    """What to log about depth, detached; the plain average of the two losses over ranks is the global mean."""

    ssi_trim: Tensor
    """Trimmed error, mean over valid images."""
    gradient_matching: Tensor
    """Gradient error before its weight of 2, mean over valid images."""
    images: Tensor
    """Number of valid maps in the global batch."""
    share: Tensor
    """Share of valid maps in the global batch."""


@in_full_precision
def depth_loss(
    prediction_BHW: Tensor, target_BHW: Tensor, valid_B: Tensor, *, gm_space: str = "normalised"
) -> tuple[Tensor, DepthReport]:
    """`ssi_trim + 2 gradient_matching`, mean over the valid images of the world.

    Args:
        prediction_BHW: predicted disparity, any scale and shift.
        target_BHW: label; contents of invalid images do not matter.
        valid_B: True where the image has a label.
        gm_space: `depth.gm_space`: gradients of the normalised maps, or after a least-squares fit in label units (ls).

    Returns:
        Scalar whose plain average over ranks is the global mean (0 without valid images); and the report.

    Raises:
        UsageError: unknown `gm_space`.
    """
    if gm_space not in GM_SPACES:
        raise unknown("depth.gm_space", gm_space, GM_SPACES)
    target_BHW = target_BHW.masked_fill(~valid_B[:, None, None], 0)
    error_BHW = normalised(prediction_BHW) - normalised(target_BHW)
    trim_B = trimmed(error_BHW)
    if gm_space == "ls":
        error_BHW = least_squares_fit(prediction_BHW, target_BHW) - target_BHW
    gradient_B = gradient_error(error_BHW)
    images = all_sum(valid_B.sum())
    weight_B = valid_B.to(trim_B) * world_size() / images.clamp(min=1)
    trim, matching = trim_B @ weight_B, gradient_B @ weight_B
    report = DepthReport(
        ssi_trim=trim.detach(),
        gradient_matching=matching.detach(),
        images=images,
        share=images / (len(valid_B) * world_size()),
    )
    return trim + GM_WEIGHT * matching, report


@in_full_precision
def ssi_trim(prediction_BHW: Tensor, target_BHW: Tensor) -> Tensor:
    """[B] trimmed error of the normalised maps."""
    return trimmed(normalised(prediction_BHW) - normalised(target_BHW))


@in_full_precision
def gradient_matching(prediction_BHW: Tensor, target_BHW: Tensor) -> Tensor:
    """[B] multi-scale gradient error of the normalised maps."""
    return gradient_error(normalised(prediction_BHW) - normalised(target_BHW))


def normalised(x_BHW: Tensor) -> Tensor:
    """Each map minus its (lower) median, divided by its mean absolute deviation from it (at least 1e-6)."""
    centred_BHW = x_BHW - x_BHW.flatten(1).median(dim=1).values[:, None, None]
    return centred_BHW / centred_BHW.abs().mean(dim=(1, 2), keepdim=True).clamp(min=MIN_SPREAD)


def trimmed(error_BHW: Tensor) -> Tensor:
    """[B] sum of the floor(0.9 HW) smallest |error|, divided by 2 HW."""
    error_Bn = error_BHW.flatten(1).abs()
    pixels = error_Bn.shape[1]
    kept_BU = error_Bn.topk(9 * pixels // 10, dim=1, largest=False, sorted=False).values
    return kept_BU.sum(1) / (2 * pixels)


def gradient_error(error_BHW: Tensor) -> Tensor:
    """[B] absolute forward differences of the error at strides 1, 2, 4 and 8, each per pixel of its scale, summed."""
    total_B = error_BHW.new_zeros(len(error_BHW))
    for scale in range(GM_SCALES):
        coarse_BHW = error_BHW[:, :: 2**scale, :: 2**scale]
        across_B = coarse_BHW.diff(dim=2).abs().sum(dim=(1, 2))
        down_B = coarse_BHW.diff(dim=1).abs().sum(dim=(1, 2))
        total_B = total_B + (across_B + down_B) / coarse_BHW[0].numel()
    return total_B


def least_squares_fit(prediction_BHW: Tensor, target_BHW: Tensor) -> Tensor:
    """Each prediction scaled and shifted to the least squared distance from its label."""
    p_BHW = prediction_BHW - prediction_BHW.mean(dim=(1, 2), keepdim=True)
    shift_B11 = target_BHW.mean(dim=(1, 2), keepdim=True)
    covariance_B11 = (p_BHW * (target_BHW - shift_B11)).mean(dim=(1, 2), keepdim=True)
    variance_B11 = p_BHW.square().mean(dim=(1, 2), keepdim=True).clamp(min=MIN_SPREAD**2)
    return p_BHW * (covariance_B11 / variance_B11) + shift_B11
