"""Hashes and value noise on the device: pure functions of coordinates, equal on every machine of a device kind."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

_SIDE = 32
_MASK32 = 0xFFFFFFFF


@lru_cache(maxsize=4)
def _lattice(device: str) -> Tensor:
    """float32 [32768] of fixed random values, a periodic 32^3 lattice."""
    values = np.random.Generator(np.random.Philox(key=20260113)).random(_SIDE**3, dtype=np.float32)
    return torch.from_numpy(values).to(device)


def value_noise(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """Smooth noise in [0, 1] with features of about unit size, periodic in 32, at any points of equal shape."""
    table = _lattice(str(x.device))
    steps, weights = [], []
    for coordinate in (x, y, z):
        low = torch.floor(coordinate)
        f = coordinate - low
        cell = low.to(torch.int64)
        steps.append((cell & (_SIDE - 1), (cell + 1) & (_SIDE - 1)))
        weights.append(f * f * (3 - 2 * f))
    corner: dict[tuple[int, int, int], Tensor] = {}
    for i in (0, 1):
        ix = steps[0][i] * _SIDE
        for j in (0, 1):
            iy = (ix + steps[1][j]) * _SIDE
            for k in (0, 1):
                corner[i, j, k] = table[iy + steps[2][k]]
    wx, wy, wz = weights
    along_z = {(i, j): _mix(corner[i, j, 0], corner[i, j, 1], wz) for i in (0, 1) for j in (0, 1)}
    along_y = [_mix(along_z[i, 0], along_z[i, 1], wy) for i in (0, 1)]
    return _mix(along_y[0], along_y[1], wx)


def fractal_noise(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """Two octaves of value noise in [0, 1], features of about unit size."""
    fine = value_noise(2.03 * x + 7.1, 2.03 * y + 3.7, 2.03 * z + 11.3)
    return (value_noise(x, y, z) + 0.5 * fine) / 1.5


def gaussian_like(index: Tensor, seed: Tensor) -> Tensor:
    """float32 noise of mean 0 and variance 1: the scaled sum of four hashed uniforms per (index, seed).

    Args:
        index: int64 counters.
        seed: int64, broadcastable to `index`.
    """
    state = _scramble((index * 0x9E3779B1 + seed * 0x85EBCA6B) & _MASK32)
    second = _scramble((state + 0xC2B2AE35) & _MASK32)
    parts = (state & 0xFFFF) + (state >> 16) + (second & 0xFFFF) + (second >> 16)
    # Four uniforms on 0..65535: mean 131070, variance 4 * (65536^2 - 1) / 12.
    return (parts.to(torch.float32) - 131070.0) * (1 / 37837.2)


def _scramble(x: Tensor) -> Tensor:
    """A 32-bit integer hash (xor-shift and multiply), on int64 so that no product overflows its sign."""
    x = ((x ^ (x >> 16)) * 0x45D9F3B) & _MASK32
    x = ((x ^ (x >> 16)) * 0x45D9F3B) & _MASK32
    return x ^ (x >> 16)


def _mix(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    return a + (b - a) * weight
