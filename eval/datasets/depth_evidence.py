"""What a few decoded depth maps tell: holes, scale, lost precision, and whether pictures and depth are mirrored.

Depth edges lie where picture edges lie. On 160 real NYUv2 frames the correlation of the two is 0.34 on average and 0.03
after mirroring the depth; it fell below its mirrored value in none of them, and in none of four 16-bit maps with holes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mtv.eval.datasets.dense_decode import read_depth_metres
from mtv.eval.datasets.dense_headers import MapPair, spread
from mtv.eval.datasets.images import DepthEncoding, open_exif

MIRROR_MARGIN = 0.1
"""How much better mirrored depth must fit the picture edges before a set is called mirrored."""

LEVELS_8_BIT = (16, 256)
"""So many distinct depths over all maps together show that they were stored in 8 bits once."""


@dataclass(frozen=True, kw_only=True)
class DepthEvidence:
    """Statistics over the decoded maps; depth in metres, only where it is valid (code above 0)."""

    maps: int
    """Maps that were decoded."""
    hole_free: int
    """Maps without a single missing pixel."""
    valid_share: float
    """Median over maps of the share of pixels with depth."""
    median_m: float
    """Median over maps of the median depth; 0 when no map has any."""
    max_m: float
    """Largest depth of all."""
    levels: int
    """Distinct depths over all maps."""
    edge_fit: float
    """Mean over maps of the correlation between picture edges and depth edges."""
    edge_fit_mirrored: float
    """The same against the mirrored picture."""

    @property
    def filled(self) -> bool:
        """More than half of the maps have no hole, as no depth sensor delivers them."""
        return 2 * self.hole_free > self.maps

    @property
    def from_8_bit(self) -> bool:
        """As few distinct depths as 8 bits can hold."""
        return LEVELS_8_BIT[0] <= self.levels <= LEVELS_8_BIT[1]

    @property
    def mirrored(self) -> bool:
        """Depth fits the mirrored pictures clearly better than the pictures."""
        return self.edge_fit_mirrored > self.edge_fit + MIRROR_MARGIN


def depth_evidence(pairs: Sequence[MapPair], encoding: DepthEncoding) -> DepthEvidence:
    """Decode a spread sample of `pairs`, whose headers are known to agree.

    Raises:
        DataError: a picture or map of the sample cannot be decoded; names it.
    """
    shares, medians, fits = [], [], []
    levels: set[float] = set()
    sample = spread(pairs)
    for pair in sample:
        depth_HW = read_depth_metres(pair.target, encoding)
        grey_HW = np.asarray(open_exif(pair.image.read(), name=pair.image.name).convert("L"), dtype=np.float64)
        valid = depth_HW[depth_HW > 0]
        shares.append(valid.size / depth_HW.size)
        medians.append(float(np.median(valid)) if valid.size else 0.0)
        levels.update(np.unique(valid).tolist())
        fits.append(edge_fit(grey_HW, depth_HW))
    straight, mirrored = np.mean(fits, axis=0)
    return DepthEvidence(
        maps=len(sample),
        hole_free=sum(s == 1 for s in shares),
        valid_share=float(np.median(shares)),
        median_m=float(np.median(medians)),
        max_m=max(levels, default=0.0),
        levels=len(levels),
        edge_fit=float(straight),
        edge_fit_mirrored=float(mirrored),
    )


def edge_fit(grey_HW: np.ndarray, depth_HW: np.ndarray) -> tuple[float, float]:
    """Correlation of picture edges with depth edges, straight and with the picture mirrored.

    Both are averaged over blocks first, which forgives a few pixels of misregistration; a tenth of every side is left
    out, since frames around the picture are symmetric. Blocks at holes do not count.

    Args:
        grey_HW: picture, any float scale.
        depth_HW: metres, 0 where missing.

    Returns:
        Two correlations in [-1, 1]; zeros where there is too little to compare.
    """
    height, width = depth_HW.shape
    inner = slice(height // 10, height - height // 10), slice(width // 10, width - width // 10)
    block = max(1, min(height, width) // 120)
    valid_HW = (depth_HW > 0)[inner].astype(np.float64)
    log_HW = np.log(np.where(depth_HW > 0, depth_HW, 1.0))[inner]
    full = _blocks(valid_HW, block) > 0.999
    usable = full.copy()
    for axis in (0, 1):
        for step in (-1, 1):
            usable &= np.roll(full, step, axis)
    picture = np.log1p(_edges(_blocks(grey_HW[inner], block)))
    depth = np.log1p(100 * _edges(_blocks(log_HW, block)))
    return _correlation(picture[usable], depth[usable]), _correlation(picture[:, ::-1][usable], depth[usable])


def _blocks(a_HW: np.ndarray, side: int) -> np.ndarray:
    rows, columns = a_HW.shape[0] // side, a_HW.shape[1] // side
    means: np.ndarray = a_HW[: rows * side, : columns * side].reshape(rows, side, columns, side).mean((1, 3))
    return means


def _edges(a_HW: np.ndarray) -> np.ndarray:
    down_HW, right_HW = np.gradient(a_HW)
    steepness: np.ndarray = np.hypot(down_HW, right_HW)
    return steepness


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    if a.size < 100 or a.std() < 1e-9 or b.std() < 1e-9:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])
