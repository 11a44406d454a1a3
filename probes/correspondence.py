"""Which image pairs to match and what to report about them: NAVI and posed RGB-D scenes.

Notable: pair lists are drawn from seeds and do not depend on the order of files; every pair keeps its hits at each
threshold and every match its error, so that intervals never need the model again; an empty angle bin is None with
count 0 and stays out of averages. Protocol `correspondence`, sections 2.3 and 2.7.
"""

from __future__ import annotations

import math
import random
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mtv.errors import DataError, UsageError
from mtv.probes.geometry import pairwise_angles, rotation_angle, transfer_errors
from mtv.probes.matching import Matches

PairT = TypeVar("PairT", bound=Hashable)


@dataclass(frozen=True, kw_only=True)
class RecallSpec:
    """Thresholds and angle bins of a geometric correspondence task."""

    metres: tuple[float, ...]
    """Thresholds on the 3-D error."""
    pixels: tuple[float, ...]
    """Thresholds on the 2-D error, pixels of the reference's network input (NAVI: the 512 crop); metrics bear them."""
    bins: tuple[tuple[float, float], ...]
    """Rotation angle bins [lo, hi) in degrees; hi may be infinite."""
    bin_metres: float
    """The 3-D threshold that is reported per bin; one of `metres`."""

    def __post_init__(self) -> None:
        if self.bin_metres not in self.metres:
            raise UsageError(f"bin_metres must be one of metres {self.metres}, got {self.bin_metres}")


NAVI = RecallSpec(
    metres=(0.01, 0.02, 0.05), pixels=(5, 25, 50), bins=((0, 30), (30, 60), (60, 90), (90, 120)), bin_metres=0.02
)
SEVENSCENES = RecallSpec(
    metres=(0.02, 0.05, 0.10), pixels=(5, 25, 50), bins=((0, 15), (15, 30), (30, 60), (60, math.inf)), bin_metres=0.05
)


@dataclass(frozen=True, kw_only=True)
class DrawnPair:
    """One NAVI pair: two images of the same object."""

    object: int
    """Position of the object in the list that was passed."""
    index0: int
    """First image, position among the object's images."""
    index1: int
    """Second image; equal to `index0` for a self pair."""


@dataclass(frozen=True, kw_only=True)
class PairScore:
    """Outcome of one pair."""

    angle: float
    """Rotation angle of Rt_01, degrees."""
    n: int
    """Matches scored."""
    hits_metres: tuple[int, ...]
    """Matches below each of `RecallSpec.metres`."""
    hits_pixels: tuple[int, ...]
    """Matches below each of `RecallSpec.pixels`, times the zoom."""
    errors_metres: npt.NDArray[np.float32]
    """K: 3-D error per match, in the order of the matches."""
    errors_pixels: npt.NDArray[np.float32]
    """K: 2-D error per match, pixels of the network input."""


def draw_navi_pairs(
    objects: Sequence[Tensor],
    *,
    seed: int = 8,
    stride: int = 4,
    self_pairs: bool = True,
    max_angle: float = 120.0,
    names: Sequence[Sequence[str]] | None = None,
) -> list[DrawnPair]:
    """The deterministic NAVI test pairs: one partner per image, every `stride`-th image kept.

    A partner is drawn for **every** image, from one CPU generator that runs over all objects, with weight 1 where
    0 < angle <= `max_angle`; the angle is float32, so some images are their own candidates (`self_pairs=True`,
    mode `probe3d`) unless the diagonal is removed (`centered`).

    Args:
        objects: per object, in sorted order, the rotations N33 of its images in sorted order, **computed in float32**
            (`quaternion_to_rotation(q, torch.float32)`): the rounding decides about self pairs.
        names: per object and image, what an error calls it.

    Raises:
        UsageError: rotations that are not float32, a stride below 1.
        DataError: an image without any candidate.
    """
    if stride < 1:
        raise UsageError(f"stride must be at least 1, got {stride}")
    generator = torch.Generator().manual_seed(seed)
    drawn: list[DrawnPair] = []
    for o, rotations_N33 in enumerate(objects):
        if rotations_N33.dtype != torch.float32:
            raise UsageError(f"pair drawing needs float32 rotations, object {o} has {rotations_N33.dtype}")
        rotations_N33 = rotations_N33.cpu()
        for i in range(len(rotations_N33)):
            angles_N = pairwise_angles(rotations_N33[i], rotations_N33)
            weights_N = ((angles_N > 0) & (angles_N <= max_angle)).float()
            if not self_pairs:
                weights_N[i] = 0
            if not bool(weights_N.any()):
                what = names[o][i] if names is not None else f"object {o}, image {i}"
                raise DataError(f"{what}: no other view within {max_angle:g} degrees", "Remove this image or object.")
            j = int(torch.multinomial(weights_N, 1, generator=generator))
            drawn.append(DrawnPair(object=o, index0=i, index1=j))
    return drawn[::stride]


def angle_bins(angles_P: npt.ArrayLike, bins: Sequence[tuple[float, float]]) -> npt.NDArray[np.int64]:
    """Bin [lo, hi) of each angle, -1 where it is in none."""
    angles = np.asarray(angles_P, dtype=np.float64)
    found = np.full(angles.shape, -1, dtype=np.int64)
    for b, (lo, hi) in enumerate(bins):
        found[(angles >= lo) & (angles < hi)] = b
    return found


def draw_stratified_pairs(
    pairs: Sequence[PairT],
    angles: Sequence[float],
    n: int = 60,
    *,
    seed: int = 0,
    bins: Sequence[tuple[float, float]] = SEVENSCENES.bins,
) -> list[PairT]:
    """`n` pairs spread over the angle bins as evenly as the bins allow, chosen by seed, in sorted order.

    Every bin gives the same number; what a small bin cannot give is spread over the others, earlier bins first for a
    remainder. Pairs outside all bins are never drawn. The result does not depend on the order of `pairs`.

    Args:
        pairs: sortable and unique, e.g. (frame, frame).
        angles: rotation angle of each pair, degrees.

    Raises:
        UsageError: lengths that differ, duplicates, n below 1.
    """
    if len(pairs) != len(angles) or len(set(pairs)) != len(pairs) or n < 1:
        raise UsageError(f"need unique pairs with one angle each and n >= 1, got {len(pairs)} {len(angles)} {n}")
    of_bin: list[list[PairT]] = [[] for _ in bins]
    for pair, b in zip(pairs, angle_bins(angles, bins), strict=True):
        if b >= 0:
            of_bin[b].append(pair)
    chosen: list[Any] = []
    for members, quota in zip(of_bin, _even_quotas([len(m) for m in of_bin], n), strict=True):
        shuffled: list[Any] = sorted(members)
        random.Random(seed).shuffle(shuffled)
        chosen += shuffled[:quota]
    return sorted(chosen)


def _even_quotas(sizes: Sequence[int], n: int) -> list[int]:
    quotas = [0] * len(sizes)
    left = min(n, sum(sizes))
    while left:
        open_bins = [b for b, size in enumerate(sizes) if quotas[b] < size]
        share = max(1, left // len(open_bins))
        for b in open_bins:
            take = min(share, sizes[b] - quotas[b], left)
            quotas[b] += take
            left -= take
    return quotas


def score_pair(
    matches: Matches,
    xyz0_GG3: Tensor,
    xyz1_GG3: Tensor,
    pose01_44: Tensor,
    focal1: tuple[float, float],
    spec: RecallSpec,
    *,
    zoom: float = 1.0,
) -> PairScore:
    """Errors and hits of one pair; comparisons are strict and in float32.

    Args:
        matches: from `match_grids`; its indices are flat cells of the two grids.
        xyz0_GG3, xyz1_GG3: camera points in metres.
        pose01_44: Rt_01.
        focal1: focal length (x, y) of image 1 after crops.
        zoom: pixels of the network input per pixel that `spec.pixels` counts: size / 512 for NAVI crops of another
            size, whose thresholds so stay the same part of the crop.
    """
    points0_K3 = xyz0_GG3.reshape(-1, 3)[matches.index0.to(xyz0_GG3.device)]
    points1_K3 = xyz1_GG3.reshape(-1, 3)[matches.index1.to(xyz1_GG3.device)]
    errors = transfer_errors(points0_K3, points1_K3, pose01_44, focal1)
    metres, pixels = errors.metres.cpu().numpy(), errors.pixels.cpu().numpy()
    return PairScore(
        angle=float(rotation_angle(pose01_44[:3, :3].double())),
        n=len(metres),
        hits_metres=count_below(metres, spec.metres),
        hits_pixels=count_below(pixels, [zoom * t for t in spec.pixels]),
        errors_metres=metres,
        errors_pixels=pixels,
    )


def count_below(errors_K: npt.NDArray[np.float32], thresholds: Sequence[float]) -> tuple[int, ...]:
    """How many errors are strictly below each threshold, both as float32: float32(0.02) m is not below 2 cm."""
    return tuple(int((errors_K < np.float32(t)).sum()) for t in thresholds)


def summarise(
    scores: Sequence[PairScore], spec: RecallSpec, *, pooling: Literal["matches", "pairs"]
) -> dict[str, float | None]:
    """All recalls of section 2.7 in percent, keys without the task prefix.

    `recall_1cm`, ..., `recall_5px`, ..., `recall_2cm_0_30`, ... (None for an empty bin), `avg_recall` (mean of the 3-D
    recalls), `avg_recall_bins` (mean of the bins that are not empty).

    Args:
        pooling: `matches`: over all matches of all pairs (`probe3d`); `pairs`: mean of per-pair recalls (`centered`;
            equal when every pair has the same number of matches).

    Raises:
        UsageError: no pairs, a pair without matches.
    """
    if not scores or any(s.n < 1 for s in scores):
        raise UsageError(f"need pairs with matches, got {len(scores)} pairs")
    n_P = np.array([s.n for s in scores], dtype=np.float64)
    hits3d_PT = np.array([s.hits_metres for s in scores], dtype=np.float64)
    hits2d_PT = np.array([s.hits_pixels for s in scores], dtype=np.float64)
    recall3d_T, recall2d_T = _recall(hits3d_PT, n_P, pooling), _recall(hits2d_PT, n_P, pooling)
    result: dict[str, float | None] = {}
    result.update({f"recall_{_centimetres(t)}": float(r) for t, r in zip(spec.metres, recall3d_T, strict=True)})
    result.update({f"recall_{t:g}px": float(r) for t, r in zip(spec.pixels, recall2d_T, strict=True)})
    bin_P = angle_bins([s.angle for s in scores], spec.bins)
    pair_recall_P = 100 * hits3d_PT[:, spec.metres.index(spec.bin_metres)] / n_P
    in_bins = [float(pair_recall_P[bin_P == b].mean()) if (bin_P == b).any() else None for b in range(len(spec.bins))]
    result.update(zip(bin_keys(spec), in_bins, strict=True))
    filled = [value for value in in_bins if value is not None]
    result["avg_recall"] = float(recall3d_T.mean())
    result["avg_recall_bins"] = float(np.mean(filled)) if filled else None
    return result


def bin_counts(scores: Sequence[PairScore], spec: RecallSpec) -> dict[str, int]:
    """Pairs per angle bin, under the keys of the bin recalls."""
    bin_P = angle_bins([s.angle for s in scores], spec.bins)
    return {key: int((bin_P == b).sum()) for b, key in enumerate(bin_keys(spec))}


def bin_keys(spec: RecallSpec) -> list[str]:
    """`recall_2cm_0_30`, ...; an open bin is `recall_5cm_over_60`."""
    prefix = f"recall_{_centimetres(spec.bin_metres)}"
    return [f"{prefix}_{lo:g}_{hi:g}" if math.isfinite(hi) else f"{prefix}_over_{lo:g}" for lo, hi in spec.bins]


def _recall(hits_PT: np.ndarray, n_P: np.ndarray, pooling: str) -> npt.NDArray[np.float64]:
    if pooling == "matches":
        return np.asarray(100 * hits_PT.sum(0) / n_P.sum())
    if pooling == "pairs":
        return np.asarray(100 * (hits_PT / n_P[:, None]).mean(0))
    raise UsageError(f"pooling must be matches or pairs, got {pooling!r}")


def _centimetres(metres: float) -> str:
    return f"{round(metres * 100, 6):g}cm"
