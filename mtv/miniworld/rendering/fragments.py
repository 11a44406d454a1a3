"""Casting: every part is tested only against the rays of its screen rectangle; the nearest hit per ray wins.

All (part, ray) pairs of a batch are enumerated into flat "fragments", so one pass of elementwise kernels serves every
picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mtv.miniworld.rendering.intersect import INTERSECT, dot
from mtv.miniworld.rendering.pack import PartTable

NEAR = 0.05
_CHUNK = 1 << 19


@dataclass(frozen=True, kw_only=True)
class View:
    """One image plane per picture, with the parts' rays in unit coordinates. Samples are the cells of a W x H grid."""

    width: int
    """Columns of samples."""
    height: int
    """Rows of samples."""
    step: float
    """Distance of samples in the coordinates (u, v) of the view; sample i lies at (i + 0.5) * step."""
    near: float
    """Smallest ray parameter that counts."""
    rays_P33: np.ndarray
    """Unit-coordinate direction as a map of (u, v, 1); for parallel rays only the last column is not zero."""
    origins_P33: np.ndarray
    """Unit-coordinate origin as a map of (u, v, 1); for a pinhole only the last column is not zero."""
    rects_P4: np.ndarray
    """Left, top, right, bottom (exclusive) sample of each part; empty where it is out of sight."""
    pinhole: bool
    """Whether all rays share their origin."""


@dataclass(frozen=True, kw_only=True)
class Hits:
    """Nearest part per sample; S = pictures x rows x columns, flat."""

    t_S: Tensor
    """float32 ray parameter; infinity where no part is hit."""
    part_S: Tensor
    """int64 part; -1 where none is hit."""
    reached: tuple[Tensor, Tensor]
    """int64 (instance, sample) of every fragment that hit, nearest or not."""


def rectangles(points_P82: np.ndarray, behind_P8: np.ndarray, width: int, height: int, step: float) -> np.ndarray:
    """int64 [P,4] sample rectangles around projected corners.

    Args:
        points_P82: corners in (u, v).
        behind_P8: corners that cannot be projected; a part with some behind and some before covers the whole view.
        width: columns.
        height: rows.
        step: distance of samples.
    """
    low = np.floor(points_P82.min(axis=1) / step - 0.5)
    high = np.ceil(points_P82.max(axis=1) / step + 0.5)
    size = np.array([width, height], dtype=float)
    partly, wholly = behind_P8.any(axis=1), behind_P8.all(axis=1)
    low[partly], high[partly] = 0, size
    low, high = np.clip(low, 0, size), np.clip(high, 0, size)
    high[wholly] = low[wholly]
    return np.concatenate([low, np.maximum(high, low)], axis=1).astype(np.int64)


def cast(view: View, parts: PartTable, pictures: int, device: torch.device) -> Hits:
    """Nearest part of every sample of every picture."""
    samples = pictures * view.height * view.width
    t_S = torch.full((samples,), torch.inf, device=device)
    found_sample, found_t, found_part = [], [], []
    area_P = (view.rects_P4[:, 2] - view.rects_P4[:, 0]) * (view.rects_P4[:, 3] - view.rects_P4[:, 1])
    start = 0
    for kind, count in enumerate(parts.kind_counts):
        for low, high in _chunks(area_P, start, start + count):
            sample, t, part = _cast_chunk(view, parts, kind, low, high, device)
            found_sample.append(sample)
            found_t.append(t)
            found_part.append(part)
        start += count
    sample = torch.cat([*found_sample, torch.zeros(0, dtype=torch.int64, device=device)])
    t = torch.cat([*found_t, torch.zeros(0, device=device)])
    part = torch.cat([*found_part, torch.zeros(0, dtype=torch.int64, device=device)])
    t_S.scatter_reduce_(0, sample, t, "amin")
    first = t == t_S[sample]
    part_S = torch.full((samples,), parts.image_P.shape[0], dtype=torch.int64, device=device)
    # Two parts at exactly the same depth: the lower number wins, whatever the order of fragments.
    part_S.scatter_reduce_(0, sample[first], part[first], "amin")
    part_S[torch.isinf(t_S)] = -1
    instance_P = torch.from_numpy(parts.instance_P).to(device)
    return Hits(t_S=t_S, part_S=part_S, reached=(instance_P[part], sample))


def _chunks(area_P: np.ndarray, start: int, stop: int) -> list[tuple[int, int]]:
    """Ranges of parts whose areas add up to about a chunk; parts out of sight at the ends cost nothing."""
    out, low, total = [], start, 0
    for p in range(start, stop):
        if total and total + area_P[p] > _CHUNK:
            out.append((low, p))
            low, total = p, 0
        total += int(area_P[p])
    if total:
        out.append((low, stop))
    return out


@dataclass(frozen=True, kw_only=True)
class _Spans:
    """One row of samples of one part's rectangle each; along a span a ray's numbers are affine in the column."""

    length_R: Tensor
    """int64 samples."""
    sample_R: Tensor
    """int64 flat sample of the first one."""
    part_R: Tensor
    """int64 part."""
    numbers_KR: Tensor
    """float32 rows: first u; moving vector at u = 0 (3); its slope along u (3); fixed vector (3); shape (2)."""


def _spans(view: View, parts: PartTable, low: int, high: int, device: torch.device) -> _Spans:
    """The spans of parts `low` .. `high`. The moving vector is the direction for a pinhole, else the origin."""
    rect = view.rects_P4[low:high]
    rows_P = np.where(rect[:, 2] > rect[:, 0], rect[:, 3] - rect[:, 1], 0)
    own_R = np.repeat(np.arange(high - low), rows_P)
    row_R = np.arange(len(own_R)) - np.repeat(np.cumsum(rows_P) - rows_P, rows_P) + rect[own_R, 1]
    left_R = rect[own_R, 0]
    v_R = (row_R + 0.5) * view.step
    maps = (view.rays_P33, view.origins_P33) if view.pinhole else (view.origins_P33, view.rays_P33)
    moving, fixed = (m[low:high][own_R] for m in maps)
    numbers = np.concatenate(
        [
            ((left_R + 0.5) * view.step)[:, None],
            moving[:, :, 1] * v_R[:, None] + moving[:, :, 2],
            moving[:, :, 0],
            fixed[:, :, 2],
            parts.shape_P2[low:high][own_R],
        ],
        axis=1,
    )
    first_R = (parts.image_P[low:high][own_R] * view.height + row_R) * view.width + left_R
    return _Spans(
        length_R=torch.from_numpy(rect[own_R, 2] - left_R).to(device),
        sample_R=torch.from_numpy(first_R).to(device),
        part_R=torch.from_numpy(own_R + low).to(device),
        numbers_KR=torch.from_numpy(np.ascontiguousarray(numbers.T)).to(device, torch.float32),
    )


def _cast_chunk(
    view: View, parts: PartTable, kind: int, low: int, high: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    spans = _spans(view, parts, low, high, device)
    begin_R = torch.cumsum(spans.length_R, 0) - spans.length_R
    span_F = torch.repeat_interleave(spans.length_R)
    along_F = torch.arange(span_F.shape[0], device=device) - begin_R.index_select(0, span_F)
    n = spans.numbers_KR.index_select(1, span_F)
    u = n[0] + along_F * view.step
    moving = (n[1] + n[4] * u, n[2] + n[5] * u, n[3] + n[6] * u)
    fixed = (n[7], n[8], n[9])
    o, d = (fixed, moving) if view.pinhole else (moving, fixed)
    t0 = -dot(o, d) / dot(d, d)
    near = (o[0] + t0 * d[0], o[1] + t0 * d[1], o[2] + t0 * d[2])
    t = t0 + INTERSECT[kind](near, d, (n[10], n[11], n[11]), view.near - t0)
    hit = torch.nonzero(torch.isfinite(t)).flatten()
    span = span_F[hit]
    return spans.sample_R[span] + along_F[hit], t[hit], spans.part_R[span]
