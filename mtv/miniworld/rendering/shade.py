"""Light: pigments, diffuse and glossy reflection, soft shadows from the light's depth map, sky and haze. Linear
colour."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mtv.miniworld.rendering.fragments import View
from mtv.miniworld.rendering.intersect import Components, dot
from mtv.miniworld.rendering.noise import fractal_noise
from mtv.miniworld.rendering.pack import Packed, to_linear
from mtv.miniworld.rendering.shadows import sunlit
from mtv.miniworld.rendering.surfaces import Points, Seen, Selection, points, to_device
from mtv.miniworld.rendering.textures import second_share
from mtv.miniworld.scene import Scene

_GLOSS, _SHINE, _SHEEN = 0.55, 48.0, 0.12
_HAZE_METRES = 180.0


def shade(
    packed: Packed, scenes: Sequence[Scene], view: View, rays: Components, seen: Seen, selection: Selection
) -> Tensor:
    """float32 [S,3] linear light of the selected samples; zero elsewhere."""
    chosen = selection.sample
    device = chosen.device
    light = _light_table(scenes, device)
    at = points(packed, view, seen, chosen, rays, device)
    facing = dot(at.normal, _three(light["sun"].index_select(1, at.picture)))
    direct = facing.clamp(min=0) * sunlit(packed, scenes, view, at, facing, selection.count_BHW)
    colour = _reflected(packed, light, at, direct)
    haze = _haze(scenes, at, packed, device)
    sky_sample = chosen[torch.isinf(seen.t_S[chosen])]
    sky = _sky(scenes, view, rays, sky_sample)
    out = torch.zeros((3, seen.t_S.shape[0]), device=device)
    for c in range(3):
        horizon = light["horizon"][c][at.picture]
        out[c, at.sample] = colour[c] + (horizon - colour[c]) * haze
        out[c, sky_sample] = sky[c]
    return out.T.contiguous()


def _light_table(scenes: Sequence[Scene], device: torch.device) -> dict[str, Tensor]:
    """[3,B] rows per quantity."""
    up = (0.0, 0.0, 1.0)
    rows = {
        "sun": [s.light.direction for s in scenes],
        "sun_strength": [s.light.strength for s in scenes],
        "fill": [s.light.fill_direction or up for s in scenes],
        "fill_strength": [s.light.fill_strength if s.light.fill_direction else (0.0, 0.0, 0.0) for s in scenes],
        "up": [s.light.ambient_up for s in scenes],
        "down": [s.light.ambient_down for s in scenes],
        "horizon": [to_linear(s.sky.horizon) for s in scenes],
    }
    return {name: to_device(np.array(values, dtype=float).T, device) for name, values in rows.items()}


def _reflected(packed: Packed, light: dict[str, Tensor], points: Points, direct: Tensor) -> list[Tensor]:
    """Linear colour of each point, three tensors [H]; `direct` is the sun's cosine where it is lit."""
    device = points.sample.device
    m = to_device(packed.materials_M14.T, device).index_select(1, points.material)
    repeats = tuple(c / m[2] for c in points.local)
    axis = (m[4], m[5], m[6])
    share = second_share(m[0].to(torch.int64), repeats, points.local_normal, axis, m[3])  # type: ignore[arg-type]
    rows = {k: v.index_select(1, points.picture) for k, v in light.items()}
    n = points.normal
    sun, fill = _three(rows["sun"]), _three(rows["fill"])
    filled = dot(n, fill).clamp(min=0)
    upward = 0.5 + 0.5 * n[2]
    half = tuple(s - r for s, r in zip(sun, points.ray, strict=True))
    along = dot(n, half) / torch.sqrt(dot(half, half)).clamp(min=1e-6)  # type: ignore[arg-type]
    highlight = m[1] * _GLOSS * torch.exp(_SHINE * (along.clamp(max=1) - 1)) * direct
    grazing = 1 + dot(n, points.ray)
    sheen = m[1] * _SHEEN * grazing * grazing
    out = []
    for c in range(3):
        pigment = m[7 + c] + (m[10 + c] - m[7 + c]) * share
        ambient = rows["down"][c] + (rows["up"][c] - rows["down"][c]) * upward
        received = rows["sun_strength"][c] * direct + rows["fill_strength"][c] * filled + ambient
        out.append(pigment * received + highlight * rows["sun_strength"][c] + sheen * ambient)
    return out


def _sky(scenes: Sequence[Scene], view: View, rays: Components, sample: Tensor) -> list[Tensor]:
    """Linear sky colour of samples that see no surface, three tensors."""
    picture = torch.div(sample, view.width * view.height, rounding_mode="floor")
    rows = [[*to_linear(s.sky.horizon), *to_linear(s.sky.zenith), s.sky.clouds, s.sky.phase] for s in scenes]
    table = to_device(np.array(rows).T, sample.device).index_select(1, picture)
    x, y, z = (r[sample] for r in rays)
    length = torch.sqrt(x * x + y * y + z * z)
    height = (z / length).clamp(min=0)
    away = 1 / (length * height.clamp(min=0.04))
    cloud = fractal_noise(1.3 * x * away + table[7], 1.3 * y * away, table[7])
    cover = ((cloud - 0.75 + 0.5 * table[6]) * 4).clamp(0, 1) * (height * 6).clamp(0, 1) * 0.85
    cover = torch.where(table[6] > 0, cover, torch.zeros_like(cover))
    upward = torch.sqrt(height)
    out = []
    for c in range(3):
        base = table[c] + (table[3 + c] - table[c]) * upward
        out.append(base + (0.9 - base) * cover)
    return out


def _haze(scenes: Sequence[Scene], points: Points, packed: Packed, device: torch.device) -> Tensor:
    """float32 [H]: share of the horizon's colour mixed in by distance, outdoors."""
    origin = to_device(packed.position_B3, device)
    away = tuple(points.world[i] - origin[:, i][points.picture] for i in range(3))
    distance = torch.sqrt(dot(away, away))  # type: ignore[arg-type]
    outdoor = torch.tensor([float(s.outdoor) for s in scenes], device=device)[points.picture]
    return (1 - torch.exp(-distance / _HAZE_METRES)) * outdoor


def _three(rows: Tensor) -> Components:
    return rows[0], rows[1], rows[2]
