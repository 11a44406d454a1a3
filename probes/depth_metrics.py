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


@dataclass(frozen=True, kw_only=True)
class ScoredPixels:
    """True depth of one image where it is scored, ready for any number of predictions."""

    shape: torch.Size
    """Of the image."""
    index_N: Tensor
    """int64: places of the scored pixels in the flattened image."""
    depth_N: Tensor
    """float64, metres."""
    log_N: Tensor
    """Its natural logarithm."""

    @classmethod
    def of(cls, depth_HW: Tensor, valid_HW: Tensor, *, name: str = "image") -> ScoredPixels:
        """Gather the pixels where `valid_HW` holds.

        Raises:
            UsageError: shapes that differ.
        """
        if depth_HW.shape != valid_HW.shape:
            raise UsageError(
                f"{name}: depth {tuple(depth_HW.shape)}, mask {tuple(valid_HW.shape)}: they differ in size"
            )
        index_N = valid_HW.flatten().nonzero()[:, 0]
        depth_N = depth_HW.flatten().index_select(0, index_N).double()
        return cls(shape=depth_HW.shape, index_N=index_N, depth_N=depth_N, log_N=depth_N.log())

    def score(self, pred_HW: Tensor, *, name: str = "image") -> ImageScore:
        """All metrics of one prediction.

        Args:
            pred_HW: predicted depth, metres, in the true depth's frame.
            name: what errors call the image.

        Raises:
            UsageError: another shape.
            NumericalError: a prediction that is not finite and positive where it is scored.
        """
        if pred_HW.shape != self.shape:
            raise UsageError(
                f"{name}: prediction {tuple(pred_HW.shape)}, depth {tuple(self.shape)}: they differ in size"
            )
        n, depth_N = len(self.depth_N), self.depth_N
        if not n:
            return empty_score()
        pred_N = pred_HW.flatten().index_select(0, self.index_N).double()
        _refuse_bad(pred_N, name)
        gap_N, gap_log_N = pred_N - depth_N, pred_N.log() - self.log_N
        ratio_N = torch.maximum(pred_N / depth_N, depth_N / pred_N)
        sums = [torch.count_nonzero(ratio_N < _RATIO**k) for k in (1, 2, 3)]
        sums += [(gap_N.abs() / depth_N).sum(), (gap_N.square() / depth_N).sum(), gap_N.square().sum()]
        sums += [gap_log_N.abs().sum(), gap_log_N.square().sum(), gap_log_N.sum()]
        a1, a2, a3, abs_rel, sq_rel, square, log, log_square, log_mean = (
            torch.stack([s.double() for s in sums]) / n
        ).tolist()
        # Rounding can take the variance of a constant error below 0, where the reference turns NaN into 0.
        silog = 100 * math.sqrt(max(log_square - log_mean**2, 0))
        numbers = (a1, a2, a3, abs_rel, sq_rel, math.sqrt(square), log / math.log(10), math.sqrt(log_square), silog)
        return ImageScore(n=n, values=dict(zip(METRICS, numbers, strict=True)))


def _refuse_bad(pred_N: Tensor, name: str) -> None:
    low, high = torch.aminmax(pred_N)
    if low > 0 and high < math.inf:  # Both false where a value is NaN.
        return
    bad = int((~(torch.isfinite(pred_N) & (pred_N > 0))).sum())
    raise NumericalError(
        f"{name}: {bad} of {len(pred_N)} scored pixels have a predicted depth that is not finite and positive",
        "A depth head's output is positive metres; check its weights and this picture.",
    )


def score_image(pred_HW: Tensor, depth_HW: Tensor, valid_HW: Tensor, *, name: str = "image") -> ImageScore:
    """All metrics of one image over its valid pixels: `ScoredPixels` for a single prediction.

    Args:
        pred_HW: predicted depth, metres, in the true depth's frame.
        depth_HW: true depth, metres.
        valid_HW: bool, from `valid_mask`.
        name: what errors call the image.

    Raises:
        UsageError: shapes that differ.
        NumericalError: a prediction that is not finite and positive where it is scored.
    """
    return ScoredPixels.of(depth_HW, valid_HW, name=name).score(pred_HW, name=name)


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
