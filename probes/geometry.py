"""Camera geometry for correspondence: quaternions, poses, depth codes, unprojection, projection, transfer errors.

Axes are x right, y down, z forward; lengths are metres, angles degrees, pixel centres lie at i + 0.5. Poses are 4x4 and
map object (or world) points into the camera. Everything is float64 unless a caller asks otherwise: the pair drawing of
NAVI needs the float32 rounding of the self angle (see `pairwise_angles`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mtv.errors import DataError

MIN_Z = 1e-9
"""Depth, metres, at which points are clamped before they are projected."""
NAVI_DEPTH_CODE = 655.350
"""NAVI depth in metres is this number over the uint16 code (disparity = code / (65535 * 10) per millimetre)."""


@dataclass(frozen=True, kw_only=True)
class TransferErrors:
    """How far each matched point lands from its counterpart; float32, so that thresholds compare in float32."""

    metres: Tensor
    """K: |R_01 x_0 + t_01 - x_1|."""
    pixels: Tensor
    """K: distance of the two points after projection into camera 1."""


def quaternion_to_rotation(q_B4: Tensor | npt.ArrayLike, dtype: torch.dtype = torch.float64) -> Tensor:
    """Rotation matrices B33 of quaternions [w, x, y, z] that need not have unit length (s = 2 / |q|^2).

    Args:
        q_B4: any leading shape, last axis 4.
        dtype: precision of the arithmetic; float32 for NAVI pair drawing.
    """
    q = torch.as_tensor(q_B4, dtype=dtype)
    w, x, y, z = q.unbind(-1)
    s = 2 / (q * q).sum(-1)
    rows = (
        (1 - s * (y * y + z * z), s * (x * y - z * w), s * (x * z + y * w)),
        (s * (x * y + z * w), 1 - s * (x * x + z * z), s * (y * z - x * w)),
        (s * (x * z - y * w), s * (y * z + x * w), 1 - s * (x * x + y * y)),
    )
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def navi_pose(q_4: npt.ArrayLike, t_mm_3: npt.ArrayLike) -> Tensor:
    """Pose 4x4 in metres of a NAVI camera record: X_cam = R(q) X_obj + t, with t in millimetres."""
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, :3] = quaternion_to_rotation(q_4)
    pose[:3, 3] = torch.as_tensor(t_mm_3, dtype=torch.float64) / 1000
    return pose


def check_pose(pose_44: Tensor, name: str) -> None:
    """Refuse a pose that is not finite or whose rotation part cannot be a rotation.

    Raises:
        DataError: non-finite entries, or a rotation trace outside [-1, 3] by more than 1e-4.
    """
    if not bool(torch.isfinite(pose_44).all()):
        raise DataError(f"{name}: the camera pose has non-finite entries", "Repair or remove this record.")
    trace = float(pose_44[:3, :3].diagonal().sum())
    if not -1 - 1e-4 <= trace <= 3 + 1e-4:
        raise DataError(
            f"{name}: trace {trace:.6g} of the camera rotation is outside [-1, 3]",
            "The pose is no rigid motion; repair or remove this record.",
        )


def invert_pose(pose_44: Tensor) -> Tensor:
    """Inverse of 4x4 poses (camera-to-world to world-to-camera), float64; a general inverse, so that poses read from
    rounded text files stay consistent with themselves."""
    return torch.linalg.inv(pose_44.double())


def relative_pose(pose0_44: Tensor, pose1_44: Tensor) -> Tensor:
    """Rt_01 = Rt_1 Rt_0^-1, float64: takes camera-0 coordinates to camera-1 coordinates."""
    return pose1_44.double() @ invert_pose(pose0_44)


def rotation_angle(rotation_B33: Tensor) -> Tensor:
    """Angle in degrees of rotations, float64: atan2(|skew part|, (tr R - 1) / 2).

    The same angle as acos((tr R - 1) / 2), but well conditioned near 0 and 180 and hardly disturbed by poses that were
    rounded in a text file (0.2 degrees at small angles in 7-Scenes with acos and R^T for R^-1).
    """
    r = rotation_B33.double()
    skew = torch.stack([r[..., 2, 1] - r[..., 1, 2], r[..., 0, 2] - r[..., 2, 0], r[..., 1, 0] - r[..., 0, 1]], dim=-1)
    cosine = (r.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2
    return torch.atan2(torch.linalg.vector_norm(skew, dim=-1) / 2, cosine) * 180 / math.pi


def pairwise_angles(rotation_33: Tensor, rotations_N33: Tensor) -> Tensor:
    """acos(clamp((tr(R R_j^T) - 1) / 2, -1, 1)) in degrees to N rotations, in the dtype given; for pair drawing.

    In float32 the angle of a rotation with itself comes out positive for about a third of all rotations (up to about
    0.06 degrees); the NAVI pair list depends on it.
    """
    r = torch.bmm(rotation_33.expand_as(rotations_N33), rotations_N33.transpose(1, 2))
    trace_N = r[:, 0, 0] + r[:, 1, 1] + r[:, 2, 2]
    return ((trace_N - 1) / 2).clamp(-1, 1).acos() * 180 / math.pi


def decode_navi_depth(code_HW: np.ndarray) -> npt.NDArray[np.float32]:
    """uint16 depth codes of NAVI to metres; code 0 is invalid and becomes 0.

    Raises:
        DataError: the array is not uint16.
    """
    _require_uint16(code_HW, "NAVI depth")
    valid = code_HW > 0
    depth = np.zeros(code_HW.shape)
    np.divide(NAVI_DEPTH_CODE, code_HW, out=depth, where=valid)
    return depth.astype(np.float32)


def decode_millimetre_depth(code_HW: np.ndarray) -> npt.NDArray[np.float32]:
    """uint16 millimetres of posed RGB-D frames to metres; 0 and 65535 are invalid and become 0.

    Raises:
        DataError: the array is not uint16.
    """
    _require_uint16(code_HW, "RGB-D depth")
    return np.where((code_HW > 0) & (code_HW < 65535), code_HW / 1000.0, 0).astype(np.float32)


def _require_uint16(code_HW: np.ndarray, what: str) -> None:
    if code_HW.dtype != np.uint16:
        raise DataError(f"{what} must be 16-bit (uint16), got {code_HW.dtype}", "Store depth as 16-bit grey PNG.")


def unproject(
    depth_HW: np.ndarray,
    *,
    rows_H: np.ndarray,
    cols_W: np.ndarray,
    focal: tuple[float, float],
    centre: tuple[float, float],
) -> npt.NDArray[np.float32]:
    """Points HW3 = K^-1 [u d, v d, d] with u = col + 0.5 and v = row + 0.5.

    Args:
        depth_HW: metres, 0 where invalid (such points come out as 0, 0, 0).
        rows_H, cols_W: pixel index of every row and column in the frame that `focal` and `centre` describe.
        focal, centre: (x, y) in pixels.
    """
    depth = depth_HW.astype(np.float64)
    x = (cols_W[None, :] + 0.5 - centre[0]) / focal[0] * depth
    y = (rows_H[:, None] + 0.5 - centre[1]) / focal[1] * depth
    return np.stack([x, y, depth], axis=-1).astype(np.float32)


def project(xyz_K3: Tensor, focal: tuple[float, float]) -> Tensor:
    """Pixels K2 relative to the image centre; z is clamped at 1e-9."""
    z = xyz_K3[:, 2:].clamp(min=MIN_Z)
    return xyz_K3[:, :2] / z * xyz_K3.new_tensor(focal)


def transfer_errors(xyz0_K3: Tensor, xyz1_K3: Tensor, pose01_44: Tensor, focal1: tuple[float, float]) -> TransferErrors:
    """Errors of K matches in metres and pixels of camera 1 (protocol `correspondence`, 2.7).

    Args:
        xyz0_K3: points in camera 0.
        xyz1_K3: their matches in camera 1.
        pose01_44: Rt_01 from `relative_pose`.
        focal1: focal length (x, y) of camera 1 after all crops and resizes, pixels.
    """
    pose01 = pose01_44.to(xyz0_K3.device, torch.float64)
    moved = xyz0_K3.double() @ pose01[:3, :3].T + pose01[:3, 3]
    target = xyz1_K3.double()
    pixels = project(moved, focal1) - project(target, focal1)
    return TransferErrors(
        metres=torch.linalg.vector_norm(moved - target, dim=1).float(),
        pixels=torch.linalg.vector_norm(pixels, dim=1).float(),
    )
