"""Soft shadows: a depth map seen by the light, looked up at a few offsets around each point."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mtv.miniworld.rendering.fragments import View, cast
from mtv.miniworld.rendering.pack import Packed
from mtv.miniworld.rendering.surfaces import Points, to_device
from mtv.miniworld.rendering.views import light_frame, shadow_view
from mtv.miniworld.scene import Scene

_TEXELS_PER_PIXEL = 1.0
_LIFT_TEXELS = 1.5
_SPREAD_TEXELS = 0.8
_STEEPEST = 0.2
_TAPS = (
    ((0.10, -0.31), (-0.62, 0.44), (0.71, 0.35), (-0.21, -0.85)),
    ((-0.37, -0.06), (0.45, -0.66), (0.22, 0.86), (-0.88, -0.22)),
    ((0.34, 0.11), (-0.08, 0.62), (-0.60, -0.55), (0.93, -0.18)),
    ((-0.05, 0.27), (0.62, 0.70), (-0.76, 0.12), (0.25, -0.58)),
)
"""Four offsets in the unit disc for each of the four samples of a pixel, so that a pixel averages sixteen."""


def sunlit(
    packed: Packed, scenes: Sequence[Scene], view: View, points: Points, facing: Tensor, count_BHW: Tensor
) -> Tensor:
    """float32 [H]: share of the sun that reaches each point, 0..1.

    Args:
        packed: the batch.
        scenes: the same scenes, for the light's direction and softness.
        view: the camera's view; which sample a point is decides its offsets.
        points: where.
        facing: cosine between normal and light; points that are turned away get 0 without a test.
        count_BHW: shaded samples per pixel; one alone makes four lookups, others two.
    """
    device = facing.device
    frame = light_frame(packed, scenes)
    resolution = round(_TEXELS_PER_PIXEL * (packed.width * packed.height) ** 0.5)
    depth_map = cast(shadow_view(packed, frame, resolution), packed.parts, len(scenes), device).t_S
    lit_H = torch.zeros_like(facing)
    at = torch.nonzero(facing > 0).flatten()
    picture = points.picture[at]
    texel = frame.side_B / resolution
    softness = np.array([s.light.softness for s in scenes]) / frame.side_B + _SPREAD_TEXELS / resolution
    lifts, spreads = (_LIFT_TEXELS * texel)[:, None], (softness * frame.side_B)[:, None]
    rows = [frame.axes_B33.reshape(-1, 9), frame.offset_B3, lifts, softness[:, None], spreads]
    table = to_device(np.concatenate(rows, axis=1).T, device).index_select(1, picture)
    # A point is tested a little above its surface, or coarse texels would shade the surface by itself.
    lift = table[12]
    x, y, z = (p[at] + n[at] * lift for p, n in zip(points.world, points.normal, strict=True))
    u, v, depth = (table[3 * i] * x + table[3 * i + 1] * y + table[3 * i + 2] * z + table[9 + i] for i in range(3))
    # Beside the point a slanted surface is nearer to the light by up to spread times slope: that is no shadow.
    cosine = facing[at].clamp(min=_STEEPEST)
    slope = torch.sqrt((1 - cosine * cosine).clamp(min=0)) / cosine
    reach = depth - lift - slope * table[14]
    sample = points.sample[at]
    taps = torch.tensor(_TAPS, device=device).permute(1, 2, 0).contiguous()
    place = torch.stack([u * resolution, v * resolution, reach, table[13] * resolution])
    first, corner = picture * resolution**2, _corner(sample, view)
    lit = _lookups(depth_map, resolution, taps[:2], place, first, corner)
    alone = torch.nonzero(_pixel(count_BHW, sample, view) == 1).flatten()
    more = _lookups(depth_map, resolution, taps[2:], place[:, alone], first[alone], corner[alone])
    lit[alone] = (lit[alone] + more) / 2
    lit_H[at] = lit
    return lit_H


def _lookups(
    depth_map: Tensor, resolution: int, taps_T2C: Tensor, rows_4N: Tensor, first_N: Tensor, corner_N: Tensor
) -> Tensor:
    """Mean of the lookups at T offsets: 1 where the light reaches the point, 0 where something is before it."""
    u, v, reach, spread = rows_4N
    lit = torch.zeros_like(u)
    for tap in taps_T2C:
        i = torch.floor(u + tap[0].index_select(0, corner_N) * spread)
        j = torch.floor(v + tap[1].index_select(0, corner_N) * spread)
        inside = (i >= 0) & (i < resolution) & (j >= 0) & (j < resolution)
        flat = torch.where(inside, first_N + (j * resolution + i).to(torch.int64), first_N)
        lit = lit + (~inside | (reach <= depth_map.index_select(0, flat))).to(torch.float32)
    return lit / len(taps_T2C)


def _pixel(count_BHW: Tensor, sample: Tensor, view: View) -> Tensor:
    """The entry of `count_BHW` that a sample belongs to."""
    samples = view.width // count_BHW.shape[2]
    column = torch.div(torch.remainder(sample, view.width), samples, rounding_mode="floor")
    row = torch.div(sample, view.width * samples, rounding_mode="floor")
    return count_BHW.flatten()[row * count_BHW.shape[2] + column]


def _corner(sample: Tensor, view: View) -> Tensor:
    """Which of the four sets of offsets a sample takes; pixels of which one sample is shaded take them in turn."""
    column = torch.remainder(sample, view.width)
    row = torch.div(sample, view.width, rounding_mode="floor")
    turn = torch.div(row, 2, rounding_mode="floor") * 2 + torch.div(column, 2, rounding_mode="floor")
    return torch.remainder(row * 2 + column + turn, 4)
