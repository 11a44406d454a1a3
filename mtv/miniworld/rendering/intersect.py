"""Rays against primitives in unit coordinates, and the normals there. Elementwise float32 on N rays.

Every function gets the point of closest approach to the origin as ray origin, so that far and small parts keep their
precision, and returns the ray parameter relative to it; infinity where the part is missed. Components are separate
tensors.
"""

from __future__ import annotations

import torch
from torch import Tensor

Components = tuple[Tensor, Tensor, Tensor]
_TORUS_STEPS = 48
_TINY = 1e-12


def ellipsoid(o: Components, d: Components, shape: Components, nearest: Tensor) -> Tensor:
    """Unit sphere. `o` is the closest approach, so the two hits lie symmetrically around it."""
    free = 1 - dot(o, o)
    reach = torch.sqrt(free.clamp(min=0) / dot(d, d))
    t = torch.where(-reach > nearest, -reach, reach)
    return _where_hit((free >= 0) & (t > nearest), t)


def box(o: Components, d: Components, shape: Components, nearest: Tensor) -> Tensor:
    """Cube [-1, 1]^3, by slabs."""
    enter, leave = torch.full_like(nearest, -torch.inf), torch.full_like(nearest, torch.inf)
    for origin, direction in zip(o, d, strict=True):
        step = 1 / _away_from_zero(direction)
        a, b = (-1 - origin) * step, (1 - origin) * step
        enter, leave = torch.maximum(enter, torch.minimum(a, b)), torch.minimum(leave, torch.maximum(a, b))
    t = torch.where(enter > nearest, enter, leave)
    return _where_hit((enter <= leave) & (t > nearest), t)


def frustum(o: Components, d: Components, shape: Components, nearest: Tensor) -> Tensor:
    """Cone or cylinder of radius 1 at z = -1 and `taper` at z = 1, with a bottom and, unless open, a lid.

    Args:
        o: closest approach.
        d: direction.
        shape: taper, openness (1 open), unused.
        nearest: smallest parameter that counts.
    """
    taper, is_open = shape[0], shape[1]
    slope = (taper - 1) / 2
    radius, widening = 1 + slope + slope * o[2], slope * d[2]
    a = d[0] * d[0] + d[1] * d[1] - widening * widening
    b = o[0] * d[0] + o[1] * d[1] - radius * widening
    c = o[0] * o[0] + o[1] * o[1] - radius * radius
    free = b * b - a * c
    root = torch.sqrt(free.clamp(min=0))
    q = -(b + torch.where(b >= 0, root, -root))
    best = torch.full_like(nearest, torch.inf)
    for t in (q / _away_from_zero(a), c / _away_from_zero(q)):
        z = o[2] + t * d[2]
        on_side = (free >= 0) & (z.abs() <= 1) & (radius + t * widening >= 0)
        best = torch.minimum(best, _where_hit(on_side & (t > nearest), t))
    step = 1 / _away_from_zero(d[2])
    for height, limit in ((-1.0, torch.ones_like(taper)), (1.0, taper * (1 - is_open))):
        t = (height - o[2]) * step
        x, y = o[0] + t * d[0], o[1] + t * d[1]
        on_lid = x * x + y * y <= limit * limit
        best = torch.minimum(best, _where_hit(on_lid & (t > nearest), t))
    return best


def torus(o: Components, d: Components, shape: Components, nearest: Tensor) -> Tensor:
    """Ring of radius `shape[0]` around z with a tube of radius `shape[1]`, by sphere tracing inside the unit sphere."""
    ring, tube = shape[0], shape[1]
    length = torch.sqrt(dot(d, d))
    unit = tuple(x / length for x in d)
    free = 1 - dot(o, o)
    s = -torch.sqrt(free.clamp(min=0))
    gap = torch.full_like(s, torch.inf)
    for _ in range(_TORUS_STEPS):
        x, y, z = (p + s * u for p, u in zip(o, unit, strict=True))
        across = torch.sqrt(x * x + y * y) - ring
        gap = torch.sqrt(across * across + z * z) - tube
        s = s + gap
    t = s / length
    return _where_hit((free > 0) & (gap < 1e-3) & (s * s <= free + 1e-3) & (t > nearest), t)


INTERSECT = (ellipsoid, box, frustum, torus)
"""In the order of `shapes.KINDS`."""


def normal(kind: int, q: Components, shape: Components) -> Components:
    """Outward direction (not normalised) in unit coordinates at the surface point `q` of a part of this kind."""
    x, y, z = q
    zero = torch.zeros_like(x)
    if kind == 0:
        return q
    if kind == 1:
        ax, ay, az = x.abs(), y.abs(), z.abs()
        on_x = (ax >= ay) & (ax >= az)
        on_y = ~on_x & (ay >= az)
        return (
            torch.where(on_x, torch.sign(x), zero),
            torch.where(on_y, torch.sign(y), zero),
            torch.where(on_x | on_y, zero, torch.sign(z)),
        )
    if kind == 2:
        slope = (shape[0] - 1) / 2
        lid = z.abs() > 1 - 1e-4
        across = torch.sqrt(x * x + y * y)
        return torch.where(lid, zero, x), torch.where(lid, zero, y), torch.where(lid, torch.sign(z), -slope * across)
    across = torch.sqrt(x * x + y * y).clamp(min=1e-6)
    inward = 1 - shape[0] / across
    return x * inward, y * inward, z


def dot(a: Components, b: Components) -> Tensor:
    """Scalar product; written out because reductions may depend on the batch."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _where_hit(hit: Tensor, t: Tensor) -> Tensor:
    return torch.where(hit, t, torch.full_like(t, torch.inf))


def _away_from_zero(x: Tensor) -> Tensor:
    return torch.where(x.abs() < _TINY, torch.full_like(x, _TINY), x)
