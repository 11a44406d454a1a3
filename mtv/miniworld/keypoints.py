"""Keypoints in the picture, with visibility read off depth and masks. Computed on demand: most sets need none."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mtv.miniworld.scene import Scene

_KEYPOINT_TOLERANCE = 0.05
_NEIGHBOURS = np.array([0, 1, 2])  # -1, 0, 1 in an array with a border of one


@dataclass(frozen=True, kw_only=True)
class SeenKeypoint:
    """A named keypoint in the picture."""

    name: str
    """As in the shape."""
    x: float
    """Pixels; NaN where the instance lacks the part or it is behind the camera."""
    y: float
    """Pixels."""
    visible: bool
    """Inside the frame and not hidden."""


def seen_keypoints(
    scene: Scene, number: int, depth_HW: np.ndarray, instance_HW: np.ndarray
) -> tuple[SeenKeypoint, ...]:
    """Keypoints of instance `number`, in the shape's order; none for clutter.

    A point is visible if a pixel within one pixel of it shows the instance not nearer than it, but for a tolerance of
    5 % of the instance's longest side.
    """
    instance = scene.instances[number]
    if not instance.is_object:
        return ()
    depth, masks = np.pad(depth_HW, 1), np.pad(instance_HW, 1)
    points = instance.shape.keypoints
    at_K3 = np.full((len(points), 3), np.nan)
    known = [k for k, (_, p) in enumerate(points) if p is not None]
    if known:
        at_K3[known] = scene.camera.project(instance.to_world(np.array([points[k][1] for k in known])))
    x, y, z = at_K3.T
    ahead = z > 0
    inside = ahead & (x >= 0) & (x < scene.camera.width) & (y >= 0) & (y < scene.camera.height)
    column = np.where(inside, x, 0).astype(int)[:, None, None] + _NEIGHBOURS[None, None, :]
    row = np.where(inside, y, 0).astype(int)[:, None, None] + _NEIGHBOURS[None, :, None]
    low, high = instance.shape.bounds
    tolerance = _KEYPOINT_TOLERANCE * instance.scale * float((high - low).max())
    shown = (masks[row, column] == number + 1) & (depth[row, column] > (z - tolerance)[:, None, None])
    visible = inside & shown.any(axis=(1, 2))
    at_K3[~ahead] = np.nan
    return tuple(
        SeenKeypoint(name=name, x=float(px), y=float(py), visible=bool(v))
        for (name, _), (px, py, _), v in zip(points, at_K3, visible, strict=True)
    )
