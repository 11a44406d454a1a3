"""Depth metrics of single images, flip averaging, and their means (protocol `depth`, sections 4 and 5.1).

Notable: the headline is the mean of per-image RMSE, not the RMSE over all pixels; bounds on the true depth are strict
and compared in its own precision (1 mm stored in float32 is above the double 0.001); all sums are float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mtv.errors import NumericalError, UsageError
from mtv.probes.depth_frames import FrameBox

METRICS = ("a1", "a2", "a3", "abs_rel", "sq_rel", "rmse", "log10", "rmse_log", "silog")
"""Keys of every image, in the order of the reference. `a1` to `a3` are shares, `rmse` is metres, `silog` times 100."""
_RATIO = 1.25


@dataclass(frozen=True, kw_only=True)
class ImageScore:
    """One image."""

    n: int
    """Scored pixels."""
    values: dict[str, float]
    """`METRICS`; all NaN for an image without a scored pixel."""


def empty_score() -> ImageScore:
    """Score of an image without a scored pixel."""
    return ImageScore(n=0, values=dict.fromkeys(METRICS, math.nan))


def valid_mask(depth_HW: Tensor, *, min_depth: float, max_depth: float, box: FrameBox | None) -> Tensor:
    """Pixels that are scored: min_depth < depth < max_depth, strictly, inside the box.

    Args:
        depth_HW: true depth, metres; leading axes are allowed.
        box: scored part of the frame; None for all of it.
    """
    # In the depth's own dtype: torch rounds the bounds to it.
    valid_HW = (depth_HW > min_depth) & (depth_HW < max_depth)
    if box is None:
        return valid_HW
    inside_HW = torch.zeros_like(valid_HW)
    height, width = depth_HW.shape[-2:]
    inside_HW[(..., *box.on((height, width)))] = True
    return valid_HW & inside_HW


def flip_average(plain_B1HW: Tensor, mirrored_B1HW: Tensor) -> Tensor:
    """Mean of the prediction and of the un-flipped prediction for the mirrored picture, both at full size."""
    return (plain_B1HW + mirrored_B1HW.flip(-1)) / 2


def score_image(pred_HW: Tensor, depth_HW: Tensor, valid_HW: Tensor, *, name: str = "image") -> ImageScore:
    """All metrics of one image over its valid pixels.

    Args:
        pred_HW: predicted depth, metres, in the true depth's frame.
        depth_HW: true depth, metres.
        valid_HW: bool, from `valid_mask`.
        name: what errors call the image.

    Raises:
        UsageError: shapes that differ.
        NumericalError: a prediction that is not finite and positive where it is scored.
    """
    if not pred_HW.shape == depth_HW.shape == valid_HW.shape:
        raise UsageError(
            f"{name}: prediction {tuple(pred_HW.shape)}, depth {tuple(depth_HW.shape)} and mask "
            f"{tuple(valid_HW.shape)} differ in size"
        )
    pred_N, depth_N = pred_HW[valid_HW].double(), depth_HW[valid_HW].double()
    if not len(depth_N):
        return empty_score()
    bad = int((~(torch.isfinite(pred_N) & (pred_N > 0))).sum())
    if bad:
        raise NumericalError(
            f"{name}: {bad} of {len(pred_N)} scored pixels have a predicted depth that is not finite and positive",
            "A depth head's output is positive metres; check its weights and this picture.",
        )
    gap_N, gap_log_N = pred_N - depth_N, pred_N.log() - depth_N.log()
    ratio_N = torch.maximum(pred_N / depth_N, depth_N / pred_N)
    sums = [(ratio_N < _RATIO**k).sum() for k in (1, 2, 3)]
    sums += [(gap_N.abs() / depth_N).sum(), (gap_N.square() / depth_N).sum(), gap_N.square().sum()]
    sums += [gap_log_N.abs().sum(), gap_log_N.square().sum(), gap_log_N.sum()]
    a1, a2, a3, abs_rel, sq_rel, square, log, log_square, log_mean = (
        torch.stack([s.double() for s in sums]) / len(depth_N)
    ).tolist()
    # Rounding can take the variance of a constant error below 0, where the reference turns NaN into 0.
    silog = 100 * math.sqrt(max(log_square - log_mean**2, 0))
    numbers = (a1, a2, a3, abs_rel, sq_rel, math.sqrt(square), log / math.log(10), math.sqrt(log_square), silog)
    return ImageScore(n=len(depth_N), values=dict(zip(METRICS, numbers, strict=True)))


def summarise(scores: Sequence[ImageScore]) -> dict[str, float]:
    """Means over images of every metric, `rmse_pooled` over all pixels, and `n_empty`.

    Images without a scored pixel are counted in `n_empty` and left out of the means. `rmse_pooled` is not comparable
    with published numbers.

    Raises:
        UsageError: no image with a scored pixel.
    """
    scored = [s for s in scores if s.n]
    if not scored:
        raise UsageError(f"no scored pixel in {len(scores)} images", "Check the depth maps, their unit and the crop.")
    out = {key: math.fsum(s.values[key] for s in scored) / len(scored) for key in METRICS}
    squares = math.fsum(s.n * s.values["rmse"] ** 2 for s in scored)
    out["rmse_pooled"] = math.sqrt(squares / sum(s.n for s in scored))
    out["n_empty"] = float(len(scores) - len(scored))
    return out
