"""A row of pictures about one depth map: picture, prediction, truth, error, in one colour map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from mtv.eval.artefacts import beside, captioned_row, to_picture

if TYPE_CHECKING:
    from torch import Tensor

COLOUR_MAP = "viridis"
"""Rises evenly in lightness, so it reads without colours too."""
_COLOURS = 256
_GAP = 6
_MISSING = (255, 255, 255)


def depth_row(
    picture: Image.Image, pred_HW: Tensor, depth_HW: Tensor, valid_HW: Tensor, lines: Sequence[str]
) -> Image.Image:
    """Picture, prediction, truth and absolute error side by side, with text below.

    Prediction and truth share one range, that of the valid truth (2nd to 98th percentile); the error goes from 0 to
    half of that range. Missing truth is white.

    Args:
        pred_HW, depth_HW: metres; 0 in the truth where it is missing.
        valid_HW: pixels that are scored.
    """
    truth, pred, valid = depth_HW.double().numpy(), pred_HW.double().numpy(), valid_HW.numpy()
    seen = truth[valid] if valid.any() else pred.ravel()
    low, high = (float(v) for v in np.percentile(seen, (2, 98)))
    high = max(high, low + 1e-3)
    wrong = (high - low) / 2
    panels = [
        picture.convert("RGB"),
        coloured(pred, low, high, np.ones_like(valid)),
        coloured(truth, low, high, truth > 0),
        coloured(np.abs(pred - truth), 0, wrong, valid),
    ]
    small = [to_picture(p) for p in panels]
    scale = f"picture, prediction, truth ({low:.2f} to {high:.2f} m), error (0 to {wrong:.2f} m)"
    return captioned_row(beside(small, gap=_GAP), [*lines, scale])


def coloured(values_HW: np.ndarray, low: float, high: float, shown_HW: np.ndarray) -> Image.Image:
    """`values_HW` from `low` to `high` in the colour map, white where not `shown_HW`."""
    from matplotlib import colormaps

    colours_K3 = np.rint(255 * colormaps[COLOUR_MAP](np.arange(_COLOURS))[:, :3]).astype(np.uint8)
    share_HW = np.clip((values_HW - low) / (high - low), 0, 1)
    rgb_HW3 = colours_K3[np.minimum((share_HW * _COLOURS).astype(np.intp), _COLOURS - 1)]
    rgb_HW3[~shown_HW] = _MISSING
    return Image.fromarray(rgb_HW3)
