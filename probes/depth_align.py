"""Zero-shot relative depth: affine alignment of a prediction to true depth, and AbsRel in several spaces.

Heads trained on affine-invariant disparity are fitted to 1 / depth; a fit in depth space is for heads that predict
depth. Papers differ in the space in which AbsRel is taken, so the keys say which. Notable: the fit mask never changes
which pixels are scored; the fit is in closed form from centred float64 sums. Protocol `depth`, sections 5.1 and 5.2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from mtv.errors import DataError, NumericalError, UsageError, unknown
from mtv.probes.depth_metrics import ImageScore, empty_score, score_image, summarise

Align = Literal["disp", "depth"]
FitMask = Literal["all", "positive"]
HeadKind = Literal["disparity", "depth"]

MIN_DISPARITY = 1e-3
"""Floor of the aligned disparity, 1 / metres."""
MIN_DEPTH = 1e-6
"""Last floor of an aligned depth, metres."""
MAX_INVERTED = 0.05
"""Share of images with a scale of 0 or below from which a prediction is not of the kind that it is taken for."""


@dataclass(frozen=True, kw_only=True)
class AlignConfig:
    """How a prediction becomes depth."""

    align: Align = "disp"
    """Space of the fit: `disp` to 1 / depth, `depth` to depth (only for heads that predict depth)."""
    fit_mask: FitMask = "all"
    """Valid pixels that enter the fit: all, or those with a positive prediction (heads that end in a ReLU)."""
    min_depth: float = 0.001
    """Aligned depth is clipped to the range of the data set: 0.001 m (NYUv2), 1e-5 m (KITTI)."""
    max_depth: float = 10.0
    """10 m (NYUv2), 80 m (KITTI)."""

    def __post_init__(self) -> None:
        if self.align not in get_args(Align):
            raise unknown("depth_align.align", self.align, get_args(Align))
        if self.fit_mask not in get_args(FitMask):
            raise unknown("depth_align.fit_mask", self.fit_mask, get_args(FitMask))
        if not 0 <= self.min_depth < self.max_depth < math.inf:
            raise UsageError(
                f"depth_align.min_depth and max_depth must be a range, got {self.min_depth}, {self.max_depth}"
            )


@dataclass(frozen=True, kw_only=True)
class Fit:
    """target = scale * prediction + shift, in the least squares sense."""

    scale: float
    """0 for a constant prediction."""
    shift: float
    """Mean of the target for a constant prediction."""
    constant: bool
    """The prediction has one value, or no pixel entered the fit."""

    @property
    def inverted(self) -> bool:
        """The prediction falls where it should rise."""
        return not self.constant and self.scale <= 0

    def __call__(self, pred_N: Tensor) -> Tensor:
        """Aligned prediction."""
        return self.scale * pred_N + self.shift


@dataclass(frozen=True, kw_only=True)
class RelativeScore:
    """One image; shares, not percent."""

    absrel: dict[str, float]
    """`absrel_depth`, `absrel_disp`, `absrel_depth_cap` for `align=disp`, `absrel_depth_ls` for `align=depth`."""
    image: ImageScore
    """All depth metrics of the aligned, clipped depth."""
    fit: Fit | None
    """Fit of `absrel_depth` or `absrel_depth_ls`; None without a valid pixel."""
    dropped: float
    """Share of the valid pixels that the fit mask left out."""


def fit_scale_shift(pred_N: Tensor, target_N: Tensor, fitted_N: Tensor | None = None) -> Fit:
    """Least squares in closed form: scale = cov / var, shift = mean of target - scale * mean of prediction; float64.

    Args:
        fitted_N: bool, the pixels that enter the fit; all by default. Where it has none, the shift is the mean target
            of all pixels.
    """
    pred_N, target_N = pred_N.double(), target_N.double()
    if fitted_N is not None:
        if not bool(fitted_N.any()):
            return Fit(scale=0.0, shift=float(target_N.mean()), constant=True)
        pred_N, target_N = pred_N[fitted_N], target_N[fitted_N]
    mean_pred, mean_target = pred_N.mean(), target_N.mean()
    # Compared exactly: rounding of the mean leaves a constant prediction a variance above 0.
    if bool(pred_N.min() == pred_N.max()):
        return Fit(scale=0.0, shift=float(mean_target), constant=True)
    centred_N = pred_N - mean_pred
    scale = (centred_N @ (target_N - mean_target)) / (centred_N @ centred_N)
    return Fit(scale=float(scale), shift=float(mean_target - scale * mean_pred), constant=False)


def check_alignment(head: HeadKind, align: Align, *, force: bool = False) -> str:
    """Refuse a depth-space fit of a head that predicts disparity.

    Returns:
        What to label the result with; empty for a combination that needs none.

    Raises:
        UsageError: `align=depth` with a disparity head, not forced.
    """
    if head not in get_args(HeadKind):
        raise unknown("depth head kind", head, get_args(HeadKind))
    if head == "depth" or align == "disp":
        return ""
    if not force:
        raise UsageError(
            "align=depth is wrong for a head that predicts disparity: AbsRel rises twofold to tenfold",
            "Use align=disp, or force it to get a labelled number.",
        )
    return "depth-space fit of a disparity head (forced)"


def score_relative(
    pred_HW: Tensor, depth_HW: Tensor, valid_HW: Tensor, *, config: AlignConfig, name: str = "image"
) -> RelativeScore:
    """Align one prediction and score it over all valid pixels.

    Args:
        pred_HW: prediction up to scale and shift (disparity: larger is nearer), resized to the frame of `depth_HW`.
        depth_HW: true depth, metres, cropped as the picture was before the model.
        valid_HW: bool, from `valid_mask`.
        name: what errors call the image.

    Raises:
        DataError: a prediction of another size than the depth map.
        UsageError: a mask of another size.
        NumericalError: NaN or infinity in the prediction at valid pixels.
    """
    if pred_HW.shape != depth_HW.shape:
        raise DataError(
            f"{name}: prediction {tuple(pred_HW.shape)} and true depth {tuple(depth_HW.shape)} differ in size",
            "Predictions must have the size of the cropped frame (KITTI: 352x1216 from the bottom).",
        )
    if valid_HW.shape != depth_HW.shape:
        raise UsageError(f"{name}: mask {tuple(valid_HW.shape)} and true depth {tuple(depth_HW.shape)} differ in size")
    pred_N, depth_N = pred_HW[valid_HW].double(), depth_HW[valid_HW].double()
    if not len(depth_N):
        return RelativeScore(absrel={}, image=empty_score(), fit=None, dropped=0.0)
    if not bool(torch.isfinite(pred_N).all()):
        raise NumericalError(f"{name}: the predicted depth has NaN or infinity", "Run the depth head in float32.")
    fitted_N = pred_N > 0 if config.fit_mask == "positive" else torch.ones_like(pred_N, dtype=torch.bool)
    if config.align == "disp":
        fit, depths = _align_disparity(pred_N, depth_N, fitted_N, config)
        absrel = {key: _absrel(aligned_N, depth_N) for key, aligned_N in depths.items()}
        everywhere = fit if config.fit_mask == "all" else fit_scale_shift(pred_N, 1 / depth_N)
        absrel["absrel_disp"] = float(((everywhere(pred_N) - 1 / depth_N).abs() * depth_N).mean())
        aligned_N = depths["absrel_depth"]
    else:
        fit = fit_scale_shift(pred_N, depth_N, fitted_N)
        aligned_N = _clip(fit(pred_N), config)
        absrel = {"absrel_depth_ls": _absrel(aligned_N, depth_N)}
    image = score_image(aligned_N, depth_N, torch.ones_like(fitted_N), name=name)
    return RelativeScore(absrel=absrel, image=image, fit=fit, dropped=1 - float(fitted_N.double().mean()))


def _align_disparity(
    pred_N: Tensor, depth_N: Tensor, fitted_N: Tensor, config: AlignConfig
) -> tuple[Fit, dict[str, Tensor]]:
    """Fit to 1 / depth, and the depths that follow with the usual floor and with that of the farthest true depth."""
    fit = fit_scale_shift(pred_N, 1 / depth_N, fitted_N)
    disparity_N = fit(pred_N)
    floors = {"absrel_depth": MIN_DISPARITY, "absrel_depth_cap": float(1 / depth_N.max())}
    return fit, {key: _clip(1 / disparity_N.clamp(min=floor), config) for key, floor in floors.items()}


def _clip(depth_N: Tensor, config: AlignConfig) -> Tensor:
    return depth_N.clamp(max(config.min_depth, MIN_DEPTH), config.max_depth)


def _absrel(aligned_N: Tensor, depth_N: Tensor) -> float:
    return float(((aligned_N - depth_N).abs() / depth_N).mean())


def summarise_relative(scores: Sequence[RelativeScore]) -> dict[str, float]:
    """Means over images of every AbsRel and depth metric, and what the fits were like.

    Beside the means (shares; print AbsRel in percent): `rmse_pooled`, `n_empty`, `n_inverted`, `n_constant`,
    `share_positive_scale` and `fit_dropped`, over the images with valid pixels.

    Raises:
        UsageError: no image with a valid pixel, or images that were aligned in different spaces.
    """
    out = summarise([s.image for s in scores])
    fits = [s.fit for s in scores if s.fit]
    filled = [s for s in scores if s.fit]
    keys = filled[0].absrel.keys()
    if any(s.absrel.keys() != keys for s in filled):
        raise UsageError("relative depth: images were aligned in different spaces and have no common mean")
    out |= {key: math.fsum(s.absrel[key] for s in filled) / len(filled) for key in keys}
    out["n_inverted"] = float(sum(fit.inverted for fit in fits))
    out["n_constant"] = float(sum(fit.constant for fit in fits))
    out["share_positive_scale"] = sum(fit.scale > 0 for fit in fits) / len(fits)
    out["fit_dropped"] = math.fsum(s.dropped for s in filled) / len(filled)
    return out


def check_inverted(scores: Sequence[RelativeScore]) -> None:
    """Refuse a result in which more than 5 % of the images have an inverted fit. Call it after scores are kept.

    Raises:
        UsageError: how many of how many.
    """
    fits = [s.fit for s in scores if s.fit]
    inverted = sum(fit.inverted for fit in fits)
    if inverted > MAX_INVERTED * len(fits):
        raise UsageError(
            f"relative depth: the fitted scale is not positive in {inverted} of {len(fits)} images",
            "The head likely predicts depth and not disparity, or the other way round; set its kind and align.",
        )
