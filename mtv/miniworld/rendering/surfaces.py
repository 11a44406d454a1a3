"""What each sample sees: the nearest part or plane, with position, normal and texture coordinates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mtv.miniworld.rendering.fragments import NEAR, Hits, View
from mtv.miniworld.rendering.intersect import Components, dot, normal
from mtv.miniworld.rendering.pack import MAX_PLANES, Packed
from mtv.miniworld.vocabulary import PATTERNS

_SMOOTH = tuple(PATTERNS.index(p) for p in ("plain", "marbled", "shaded"))


@dataclass(frozen=True, kw_only=True)
class Seen:
    """The nearest surface per sample; S = pictures x rows x columns, flat."""

    t_S: Tensor
    """float32 camera z, infinity in the sky."""
    part_S: Tensor
    """int64 part, -1 where a plane or the sky is seen."""
    plane_S: Tensor
    """int64 plane 0..5 of the picture, -1 where a part or the sky is seen."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which samples are shaded: all of a pixel where surfaces meet, two where one has a sharp pattern, else one."""

    sample: Tensor
    """int64 flat samples to shade, ascending."""
    count_BHW: Tensor
    """int64 shaded samples per pixel, whose mean is the pixel."""


@dataclass(frozen=True, kw_only=True)
class Points:
    """The H selected samples that see a surface."""

    sample: Tensor
    """int64 flat sample."""
    picture: Tensor
    """int64 picture."""
    world: Components
    """Position, world metres."""
    normal: Components
    """Unit normal towards the viewer, world."""
    ray: Components
    """Unit direction of the ray, world."""
    local: Components
    """Position in metres in the axes of the texture (the part's own; the world's for planes)."""
    local_normal: Components
    """Normal in the same axes, not normalised."""
    material: Tensor
    """int64 row of the material table."""


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """float32 for floats, unchanged integers."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.to(device, torch.float32) if tensor.is_floating_point() else tensor.to(device)


def ray_directions(packed: Packed, view: View, device: torch.device) -> Components:
    """World direction of every sample's ray, camera z component 1; three flat tensors [S]."""
    u = ((torch.arange(view.width, device=device) + 0.5) * view.step)[None, None, :]
    v = ((torch.arange(view.height, device=device) + 0.5) * view.step)[None, :, None]
    m = to_device(packed.ray_B33, device)[:, :, :, None, None]
    x, y, z = (((m[:, i, 0] * u) + (m[:, i, 1] * v) + m[:, i, 2]).flatten() for i in range(3))
    return x, y, z


def nearest(packed: Packed, view: View, hits: Hits, device: torch.device) -> Seen:
    """Parts against planes. A plane's inverse depth is affine in the pixel coordinates, so the largest one wins."""
    pictures = packed.planes_B64.shape[0]
    normals, offset = packed.planes_B64[:, :, :3], packed.planes_B64[:, :, 3]
    clear_BK = offset - np.einsum("bki,bi->bk", normals, packed.position_B3)
    # A camera on the far side of a plane does not see it, and neither does a ray along its normal.
    away_BK = np.where(clear_BK < -1e-9, clear_BK, -np.inf)
    inverse_BK3 = to_device(np.einsum("bki,bij->bkj", normals, packed.ray_B33) / away_BK[:, :, None], device)
    u = ((torch.arange(view.width, device=device) + 0.5) * view.step)[None, None, :]
    v = ((torch.arange(view.height, device=device) + 0.5) * view.step)[None, :, None]
    best = torch.zeros((pictures, view.height, view.width), device=device)
    which = torch.full_like(best, -1, dtype=torch.int8)
    for k in range(MAX_PLANES):
        if np.isinf(away_BK[:, k]).all():
            continue
        a, b, c = (inverse_BK3[:, k, i, None, None] for i in range(3))
        inverse = a * u + (b * v + c)
        which.masked_fill_(inverse > best, k)
        best = torch.maximum(best, inverse)
    t_plane = (1 / best).flatten()
    closer = (t_plane < hits.t_S) & (t_plane > NEAR)
    return Seen(
        t_S=torch.where(closer, t_plane, hits.t_S),
        part_S=hits.part_S.masked_fill(closer, -1),
        plane_S=which.flatten().masked_fill(~closer, -1).to(torch.int64),
    )


def select(packed: Packed, seen: Seen, samples: int, device: torch.device) -> Selection:
    """Most pixels see one surface, smooth or with a sharp pattern: shading their every sample would be waste."""
    pictures = packed.planes_B64.shape[0]
    parts = len(packed.parts.image_P)
    smooth = np.isin(packed.materials_M14[:, 0], _SMOOTH)
    smooth_id = np.concatenate([smooth[packed.parts.material_P], smooth[packed.plane_material_B6].ravel(), [True]])
    picture = torch.arange(pictures, device=device).repeat_interleave(seen.t_S.shape[0] // pictures)
    surface = torch.where(seen.plane_S >= 0, parts + picture * MAX_PLANES + seen.plane_S, seen.part_S)
    grid = surface.view(pictures, packed.height, samples, packed.width, samples)
    first = grid[:, :, 0, :, 0]
    whole = torch.ones_like(first, dtype=torch.bool)
    for i in range(samples):
        for j in range(samples):
            whole &= grid[:, :, i, :, j] == first
    alone = whole & to_device(smooth_id, device)[first]
    wanted = (~whole)[:, :, None, :, None].expand(grid.shape).clone()
    wanted[:, :, 0, :, 0] = True
    wanted[:, :, -1, :, -1] |= ~alone
    count_BHW = torch.where(alone, 1, torch.where(whole, 2, samples**2))
    return Selection(sample=torch.nonzero(wanted.flatten()).flatten(), count_BHW=count_BHW)


def points(packed: Packed, view: View, seen: Seen, chosen: Tensor, rays: Components, device: torch.device) -> Points:
    """Positions, normals and texture coordinates of the `chosen` samples that see a surface."""
    kinds = range(len(packed.parts.kind_counts))
    groups = [_part_points(packed, view, seen, chosen, rays, kind, device) for kind in kinds]
    groups.append(_plane_points(packed, view, seen, chosen, rays, device))
    merged = {name: _cat([g[name] for g in groups]) for name in groups[0]}
    sample, picture = merged["sample"][0], merged["picture"][0]
    ray = tuple(r[sample] for r in rays)
    t = seen.t_S[sample]
    origin = to_device(packed.position_B3, device)
    world = tuple(origin[:, i][picture] + t * ray[i] for i in range(3))
    unit_ray, outward = _unit(ray), _unit(merged["normal"])  # type: ignore[arg-type]
    flip = torch.where(dot(unit_ray, outward) > 0, -1.0, 1.0)
    return Points(
        sample=sample,
        picture=picture,
        world=world,  # type: ignore[arg-type]
        normal=tuple(c * flip for c in outward),  # type: ignore[arg-type]
        ray=unit_ray,
        local=merged["local"],  # type: ignore[arg-type]
        local_normal=merged["local_normal"],  # type: ignore[arg-type]
        material=merged["material"][0],
    )


def _part_points(
    packed: Packed, view: View, seen: Seen, chosen: Tensor, rays: Components, kind: int, device: torch.device
) -> dict[str, tuple[Tensor, ...]]:
    parts = packed.parts
    low = sum(parts.kind_counts[:kind])
    part = seen.part_S[chosen]
    sample = chosen[(part >= low) & (part < low + parts.kind_counts[kind])]
    part = seen.part_S[sample]
    t = seen.t_S[sample]
    to_unit = to_device(parts.unit_from_world_P33.reshape(-1, 9).T, device).index_select(1, part)
    origin = to_device(view.origins_P33[:, :, 2].T, device).index_select(1, part)
    metres = to_device(parts.metres_P3.T, device).index_select(1, part)
    shape = to_device(parts.shape_P2.T, device).index_select(1, part)
    ray = tuple(r[sample] for r in rays)
    q = tuple(
        origin[i] + t * (to_unit[3 * i] * ray[0] + to_unit[3 * i + 1] * ray[1] + to_unit[3 * i + 2] * ray[2])
        for i in range(3)
    )
    g = normal(kind, q, (shape[0], shape[1], shape[1]))  # type: ignore[arg-type]
    outward = tuple(to_unit[i] * g[0] + to_unit[3 + i] * g[1] + to_unit[6 + i] * g[2] for i in range(3))
    return {
        "sample": (sample,),
        "picture": (to_device(parts.image_P, device)[part],),
        "normal": outward,
        "local": tuple(q[i] * metres[i] for i in range(3)),
        "local_normal": tuple(g[i] / metres[i] for i in range(3)),
        "material": (to_device(parts.material_P, device)[part],),
    }


def _plane_points(
    packed: Packed, view: View, seen: Seen, chosen: Tensor, rays: Components, device: torch.device
) -> dict[str, tuple[Tensor, ...]]:
    sample = chosen[seen.plane_S[chosen] >= 0]
    picture = torch.div(sample, view.width * view.height, rounding_mode="floor")
    row = picture * MAX_PLANES + seen.plane_S[sample]
    n = to_device(packed.planes_B64[:, :, :3].reshape(-1, 3).T, device).index_select(1, row)
    origin = to_device(packed.position_B3.T, device).index_select(1, picture)
    t = seen.t_S[sample]
    outward = (n[0], n[1], n[2])
    return {
        "sample": (sample,),
        "picture": (picture,),
        "normal": outward,
        "local": tuple(origin[i] + t * rays[i][sample] for i in range(3)),
        "local_normal": outward,
        "material": (to_device(packed.plane_material_B6.reshape(-1), device)[row],),
    }


def _cat(groups: list[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    return tuple(torch.cat(column) for column in zip(*groups, strict=True))


def _unit(v: Components) -> Components:
    scale = 1 / torch.sqrt(dot(v, v)).clamp(min=1e-12)
    return v[0] * scale, v[1] * scale, v[2] * scale
