"""Procedural patterns: where the main pigment is, where the second. Coordinates are the part's own, so they stick to
it."""

from __future__ import annotations

import torch
from torch import Tensor

from mtv.miniworld.rendering.intersect import Components, dot
from mtv.miniworld.rendering.noise import fractal_noise

_STRIPE_SHARE = 0.36
_CELL_SHARE = 0.84
_DOT_RADIUS = 0.33
_GRADIENT_PERIODS = 5.0


def second_share(pattern: Tensor, p: Components, n: Components, axis: Components, phase: Tensor) -> Tensor:
    """Share of the second pigment at each point, 0..1; over a surface it stays below one half.

    Args:
        pattern: int64 [S] index into `PATTERNS`.
        p: position in repeats of the pattern (metres divided by the period).
        n: normal in the same axes; the coordinate along its largest component is left out of checks and dots.
        axis: unit direction across stripes and along gradients.
        phase: offset.
    """
    share = torch.zeros_like(phase)
    for number, compute in ((1, _stripes), (2, _checks), (3, _dots), (4, _marble), (5, _gradient)):
        at = torch.nonzero(pattern == number).flatten()
        if at.numel():
            share[at] = compute(_take(p, at), _take(n, at), _take(axis, at), phase[at])
    return share


def _stripes(p: Components, n: Components, axis: Components, phase: Tensor) -> Tensor:
    return (_fraction(dot(p, axis) + phase) < _STRIPE_SHARE).to(torch.float32)


def _checks(p: Components, n: Components, axis: Components, phase: Tensor) -> Tensor:
    a, b = _in_surface(p, n, phase)
    odd = torch.remainder(torch.floor(a) + torch.floor(b), 2) == 1
    return (odd & (_fraction(a) < _CELL_SHARE) & (_fraction(b) < _CELL_SHARE)).to(torch.float32)


def _dots(p: Components, n: Components, axis: Components, phase: Tensor) -> Tensor:
    a, b = _in_surface(p, n, phase)
    x, y = _fraction(a) - 0.5, _fraction(b) - 0.5
    return (x * x + y * y < _DOT_RADIUS**2).to(torch.float32)


def _marble(p: Components, n: Components, axis: Components, phase: Tensor) -> Tensor:
    value = fractal_noise(2 * p[0] + phase, 2 * p[1] + 0.7 * phase, 2 * p[2])
    return ((value - 0.53) * 6).clamp(0, 1)


def _gradient(p: Components, n: Components, axis: Components, phase: Tensor) -> Tensor:
    angle = (dot(p, axis) / _GRADIENT_PERIODS + phase) * (2 * torch.pi)
    return 0.4 * (1 + torch.cos(angle))


def _in_surface(p: Components, n: Components, phase: Tensor) -> tuple[Tensor, Tensor]:
    """The two coordinates that lie most in the surface, moved by the phase so that no edge falls on a part's border."""
    ax, ay, az = (c.abs() for c in n)
    drop_x = (ax > ay) & (ax > az)
    drop_y = ~drop_x & (ay > az)
    return torch.where(drop_x, p[1], p[0]) + phase, torch.where(drop_x | drop_y, p[2], p[1]) + 0.37 * phase


def _take(v: Components, at: Tensor) -> Components:
    return v[0][at], v[1][at], v[2][at]


def _fraction(x: Tensor) -> Tensor:
    return x - torch.floor(x)
