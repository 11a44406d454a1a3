"""Cameras of posed RGB-D frames: poses and intrinsics, read and checked, and which frames see the same things."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from mtv.errors import DataError
from mtv.eval.datasets.base import PosedImage

Intrinsics = tuple[float, float, float, float]
"""fx, fy, cx, cy in pixels."""

ORTHONORMAL = 5e-3
"""Largest |R R^T - I| of a pose: 7-Scenes' own tracker leaves up to 4e-4, a wrong file 0.1 and more."""

PLANE_M = 2.0
"""Depth at which a frame is imagined to see a wall, metres: the median depth of 7-Scenes' frames is 1.8."""

OVERLAP = 0.2
"""Smallest share of that wall which the other frame must see, in both directions."""


def read_pose(path: Path, *, name: str) -> np.ndarray:
    """float64 4,4 camera-to-world matrix of a text file, its rotation replaced by the nearest orthonormal one.

    Trackers leave rotations that are not quite orthonormal (7-Scenes: determinants down to 0.9995). Left as they are,
    the trace of a relative rotation can exceed 3 and angles of nearby frames are off by a degree.

    Raises:
        DataError: no 4 x 4 matrix, not finite, last row not 0 0 0 1, or the rotation far from orthonormal or mirrored.
    """
    try:
        rows = [
            [float(v) for v in line.split()] for line in path.read_text(encoding="utf-8").splitlines() if line.strip()
        ]
    except (OSError, ValueError) as e:
        raise DataError(f"{name}: cannot be read as numbers ({e})") from e
    if [len(r) for r in rows] != [4, 4, 4, 4]:
        raise DataError(f"{name}: not 4 rows of 4 numbers")
    pose_44 = np.array(rows)
    if not np.isfinite(pose_44).all():
        raise DataError(f"{name}: the pose is not finite")
    rotation = pose_44[:3, :3]
    error = float(np.abs(rotation @ rotation.T - np.eye(3)).max())
    if error > ORTHONORMAL or np.linalg.det(rotation) < 0 or not np.allclose(pose_44[3], (0, 0, 0, 1)):
        raise DataError(f"{name}: not a rigid motion (|R R^T - I| up to {error:.2g}, last row {rows[3]})")
    u, _, vt = np.linalg.svd(rotation)
    pose_44[:3, :3] = u @ vt
    return pose_44


def invert_pose(pose_44: np.ndarray) -> np.ndarray:
    """Inverse of a rigid motion, float64 4,4."""
    inverse = np.eye(4)
    inverse[:3, :3] = pose_44[:3, :3].T
    inverse[:3, 3] = -pose_44[:3, :3].T @ pose_44[:3, 3]
    return inverse


def read_intrinsics(path: Path, *, name: str) -> Intrinsics:
    """fx, fy, cx, cy in pixels from a 3 x 3 matrix in a text file.

    Raises:
        DataError: not readable, skewed, not finite or without a positive focal length.
    """
    try:
        k_33 = np.loadtxt(path, dtype=np.float64)
    except (OSError, ValueError) as e:
        raise DataError(f"{name}: no readable 3 x 3 matrix ({e})") from e
    if k_33.shape == (3, 3):
        fx, fy, cx, cy = (float(k_33[i]) for i in ((0, 0), (1, 1), (0, 2), (1, 2)))
        if (
            np.isfinite(k_33).all()
            and min(fx, fy) > 0
            and np.allclose(k_33, np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]))
        ):
            return fx, fy, cx, cy
    raise DataError(f"{name}: expected [[fx, 0, cx], [0, fy, cy], [0, 0, 1]], found {k_33.tolist()}")


def camera_motion(a_44: np.ndarray, b_44: np.ndarray) -> tuple[float, float]:
    """Angle in degrees and distance of the camera centres in metres between two world-to-camera matrices."""
    relative = b_44 @ invert_pose(a_44)
    cosine = np.clip((np.trace(relative[:3, :3]) - 1) / 2, -1, 1)
    distance = np.linalg.norm(invert_pose(a_44)[:3, 3] - invert_pose(b_44)[:3, 3])
    return float(np.degrees(np.arccos(cosine))), float(distance)


def wall_overlap(a: PosedImage, b: PosedImage) -> float:
    """Share of what `a` would see of a wall 2 m in front of it that falls into the picture of `b`; no depth is read."""
    fx, fy, cx, cy = a.intrinsics
    width, height = a.size
    u, v = np.meshgrid((np.arange(16) + 0.5) * width / 16, (np.arange(12) + 0.5) * height / 12)
    points_N4 = np.stack(
        [(u - cx) / fx * PLANE_M, (v - cy) / fy * PLANE_M, np.full_like(u, PLANE_M), np.ones_like(u)], -1
    )
    seen = points_N4.reshape(-1, 4) @ (b.world_to_camera @ invert_pose(a.world_to_camera)).T
    fx, fy, cx, cy = b.intrinsics
    z = np.maximum(seen[:, 2], 1e-9)
    x, y = seen[:, 0] / z * fx + cx, seen[:, 1] / z * fy + cy
    inside = (seen[:, 2] > 0.1) & (x >= 0) & (x < b.size[0]) & (y >= 0) & (y < b.size[1])
    return float(inside.mean())


def visible_pairs(frames: Sequence[PosedImage]) -> list[tuple[str, str]]:
    """Pairs (earlier, later) of one sequence whose `wall_overlap` is at least `OVERLAP` in both directions.

    On 40 frames of 7-Scenes with measured overlaps this keeps 98 % of the pairs that overlap by more than 15 %, and
    92 % of what it keeps are such pairs.
    """
    return [
        (a.id, b.id)
        for a, b in combinations(frames, 2)
        if wall_overlap(a, b) >= OVERLAP and wall_overlap(b, a) >= OVERLAP
    ]
