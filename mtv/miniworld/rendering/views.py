"""The two kinds of views: the camera's pinhole, and the light's parallel projection for shadows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mtv.miniworld.rendering.fragments import NEAR, View, rectangles
from mtv.miniworld.rendering.pack import Packed
from mtv.miniworld.scene import Scene

_SHADOW_MARGIN = 1.05


def camera_view(packed: Packed, samples: int) -> View:
    """The camera with `samples` x `samples` samples per pixel; the ray parameter is the camera z in metres."""
    parts, image_P = packed.parts, packed.parts.image_P
    step = 1 / samples
    width, height = packed.width * samples, packed.height * samples
    to_camera = packed.world_to_camera_B44[image_P]
    cam_P83 = np.einsum("pij,pkj->pki", to_camera[:, :3, :3], parts.corners_P83) + to_camera[:, None, :3, 3]
    z = np.maximum(cam_P83[..., 2], NEAR)
    focal = packed.focal_B[image_P][:, None]
    uv = np.stack(
        [focal * cam_P83[..., 0] / z + packed.width / 2, focal * cam_P83[..., 1] / z + packed.height / 2], axis=-1
    )
    origins = np.zeros_like(parts.unit_from_world_P33)
    away = packed.position_B3[image_P] - parts.centre_P3
    origins[:, :, 2] = (parts.unit_from_world_P33 @ away[:, :, None])[:, :, 0]
    return View(
        width=width,
        height=height,
        step=step,
        near=NEAR,
        rays_P33=parts.unit_from_world_P33 @ packed.ray_B33[image_P],
        origins_P33=origins,
        rects_P4=rectangles(uv, cam_P83[..., 2] < NEAR, width, height, step),
        pinhole=True,
    )


@dataclass(frozen=True, kw_only=True)
class LightFrame:
    """The light's parallel projection of one batch: world to (u, v, depth along the light), u and v in [0, 1]."""

    axes_B33: np.ndarray
    """Rows: the world directions of u and v divided by the side, and of depth in metres."""
    offset_B3: np.ndarray
    """(u, v, depth) = axes @ x + offset."""
    side_B: np.ndarray
    """Side of the square in metres."""


def light_frame(packed: Packed, scenes: Sequence[Scene]) -> LightFrame:
    """The smallest square that holds everything which throws shadows, seen along the light."""
    parts = packed.parts
    axes, offset, sides = np.zeros((len(scenes), 3, 3)), np.zeros((len(scenes), 3)), np.ones(len(scenes))
    for b, scene in enumerate(scenes):
        ahead = -np.array(scene.light.direction)
        helper = np.array([1.0, 0, 0]) if abs(ahead[0]) < 0.7 else np.array([0, 1.0, 0])
        right = np.cross(helper, ahead)
        right /= np.linalg.norm(right)
        basis = np.stack([right, np.cross(ahead, right), ahead])
        corners = parts.corners_P83[(parts.image_P == b) & parts.casts_P].reshape(-1, 3)
        if not len(corners):
            corners = np.zeros((1, 3))
        along = (basis[None] @ corners[:, :, None])[:, :, 0]
        low, high = along.min(axis=0), along.max(axis=0)
        side = _SHADOW_MARGIN * max(float((high - low)[:2].max()), 1e-3)
        middle = (low + high) / 2
        axes[b] = basis / np.array([side, side, 1.0])[:, None]
        offset[b] = [0.5 - middle[0] / side, 0.5 - middle[1] / side, 1.0 - low[2]]
        sides[b] = side
    return LightFrame(axes_B33=axes, offset_B3=offset, side_B=sides)


def shadow_view(packed: Packed, light: LightFrame, resolution: int) -> View:
    """The parts that throw shadows, seen from the light; the ray parameter is the depth along the light in metres."""
    parts, image_P = packed.parts, packed.parts.image_P
    axes, offset = light.axes_B33[image_P], light.offset_B3[image_P]
    uvd = np.einsum("pij,pkj->pki", axes, parts.corners_P83) + offset[:, None]
    inverse = np.linalg.inv(axes)
    # World point of (u, v) at depth 0: inverse @ (u, v, 0) - inverse @ offset.
    from_uv1 = inverse.copy()
    from_uv1[:, :, 2] = -(inverse @ offset[:, :, None])[:, :, 0] - parts.centre_P3
    rays = np.zeros_like(from_uv1)
    rays[:, :, 2] = (parts.unit_from_world_P33 @ inverse[:, :, 2:])[:, :, 0]
    hidden = np.broadcast_to(~parts.casts_P[:, None], uvd.shape[:2])
    return View(
        width=resolution,
        height=resolution,
        step=1 / resolution,
        near=-np.inf,
        rays_P33=rays,
        origins_P33=parts.unit_from_world_P33 @ from_uv1,
        rects_P4=rectangles(uvd[..., :2], hidden, resolution, resolution, 1 / resolution),
        pinhole=False,
    )
