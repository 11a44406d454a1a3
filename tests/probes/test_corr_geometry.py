"""Poses, quaternions, depth codes and transfer errors against scipy, closed forms and naive loops (rows N1, N2)."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.spatial.transform import Rotation

from mtv.errors import DataError
from mtv.probes.geometry import (
    check_pose,
    decode_millimetre_depth,
    decode_navi_depth,
    invert_pose,
    navi_pose,
    pairwise_angles,
    project,
    quaternion_to_rotation,
    relative_pose,
    rotation_angle,
    transfer_errors,
    unproject,
)
from mtv.probes.navi_prepare import prepare_rgbd


def test_n1_depth_codes() -> None:
    millimetres = 1000.0 * decode_navi_depth(np.array([[0, 1, 655, 65535]], dtype=np.uint16)).astype(np.float64)
    assert millimetres[0, 0] == 0
    assert millimetres[0, 1:] == pytest.approx([655350, 1000.534, 10.0], abs=6e-4 * 655.35, rel=1e-6)
    assert millimetres[0, 2] == pytest.approx(1000.534, abs=5e-4)
    assert millimetres[0, 3] == pytest.approx(10.0, abs=1e-6)


def test_depth_of_other_width_is_refused() -> None:
    with pytest.raises(DataError, match="16-bit"):
        decode_navi_depth(np.zeros((2, 2), dtype=np.uint8))
    with pytest.raises(DataError, match="int32"):
        decode_millimetre_depth(np.zeros((2, 2), dtype=np.int32))


def test_rgbd_depth_codes() -> None:
    assert decode_millimetre_depth(np.array([0, 1, 1500, 65534, 65535], dtype=np.uint16)).tolist() == pytest.approx(
        [0, 0.001, 1.5, 65.534, 0]
    )


def test_n2_quaternions() -> None:
    assert quaternion_to_rotation([2.0, 0, 0, 0]).tolist() == torch.eye(3).tolist()
    assert quaternion_to_rotation([0.0, 1, 0, 0]).tolist() == torch.diag(torch.tensor([1.0, -1, -1])).tolist()
    eye = quaternion_to_rotation([1.0, 0, 0, 0])
    half = math.sqrt(0.5)
    for q, degrees in (([half, 0, 0, half], 90), ([0.5, 0.5, 0.5, 0.5], 120)):
        rotation = quaternion_to_rotation(q)
        assert float(rotation_angle(rotation @ eye.T)) == pytest.approx(degrees, abs=1e-9)
        assert float(pairwise_angles(eye.float(), rotation.float()[None])) == pytest.approx(degrees, abs=1e-4)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=4, max_size=4).filter(lambda q: sum(v * v for v in q) > 1e-2))
def test_quaternion_matches_scipy(q: list[float]) -> None:
    expected = Rotation.from_quat([q[1], q[2], q[3], q[0]]).as_matrix()
    np.testing.assert_allclose(quaternion_to_rotation(q).numpy(), expected, atol=1e-12)


def test_rotation_angle_matches_scipy() -> None:
    rotations = Rotation.random(200, random_state=3)
    angles = rotation_angle(torch.from_numpy(rotations.as_matrix()))
    np.testing.assert_allclose(angles.numpy(), np.degrees(rotations.magnitude()), atol=1e-9)


def test_float32_self_angles_are_positive_for_about_a_third() -> None:
    q = torch.randn(3000, 4, generator=torch.Generator().manual_seed(0))
    rotations = quaternion_to_rotation(q, torch.float32)
    own = torch.cat([pairwise_angles(r, r[None]) for r in rotations])
    assert own.dtype == torch.float32
    assert 0.25 < float((own > 0).float().mean()) < 0.37
    assert 0.02 < float(own.max()) < 0.07


def test_navi_pose_and_relative_pose_move_points() -> None:
    rng = np.random.default_rng(0)
    point = rng.normal(size=3)
    cameras = [(rng.normal(size=4), rng.normal(size=3) * 1000) for _ in range(2)]
    seen = [Rotation.from_quat([q[1], q[2], q[3], q[0]]).apply(point) + t / 1000 for q, t in cameras]
    pose0, pose1 = (navi_pose(q, t) for q, t in cameras)
    moved = relative_pose(pose0, pose1) @ torch.tensor([*seen[0], 1.0], dtype=torch.float64)
    np.testing.assert_allclose(moved[:3].numpy(), seen[1], atol=1e-12)
    torch.testing.assert_close(invert_pose(pose0) @ pose0, torch.eye(4, dtype=torch.float64))


def test_bad_poses_are_named() -> None:
    with pytest.raises(DataError, match="scene/3: the camera pose has non-finite"):
        check_pose(navi_pose([0.0, 0, 0, 0], [0.0, 0, 0]), "scene/3")
    mirrored = -torch.eye(4, dtype=torch.float64)
    with pytest.raises(DataError, match="trace -3"):
        check_pose(mirrored, "scene/4")
    check_pose(torch.eye(4, dtype=torch.float64) * (1 + 3e-5), "scene/5")
    with pytest.raises(DataError, match="outside"):
        check_pose(torch.eye(4, dtype=torch.float64) * (1 + 4e-5), "scene/6")


def test_unproject_then_project_returns_pixel_centres() -> None:
    rng = np.random.default_rng(1)
    depth = rng.uniform(0.5, 3, size=(6, 8)).astype(np.float32)
    depth[2, 3] = 0
    rows, cols = np.arange(6) * 4 + 2, np.arange(8) * 4 + 2
    xyz = unproject(depth, rows_H=rows, cols_W=cols, focal=(600.0, 580.0), centre=(15.0, 11.0))
    assert xyz[2, 3].tolist() == [0, 0, 0]
    pixels = project(torch.from_numpy(xyz).double().reshape(-1, 3), (600.0, 580.0)).reshape(6, 8, 2).numpy()
    for i in range(6):
        for j in range(8):
            if depth[i, j]:
                np.testing.assert_allclose(pixels[i, j], [cols[j] + 0.5 - 15, rows[i] + 0.5 - 11], atol=1e-4)


def test_transfer_errors_match_a_naive_loop() -> None:
    rng = np.random.default_rng(2)
    xyz0, xyz1 = (rng.normal(size=(40, 3)) * [0.2, 0.2, 0.1] + [0, 0, 1] for _ in range(2))
    xyz1[7, 2] = -0.5  # behind the camera: clamped
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_rotvec([0.1, -0.2, 0.05]).as_matrix()
    pose[:3, 3] = [0.02, 0.01, -0.03]
    got = transfer_errors(torch.from_numpy(xyz0), torch.from_numpy(xyz1), torch.from_numpy(pose), (700.0, 650.0))
    assert got.metres.dtype == got.pixels.dtype == torch.float32
    for k in range(40):
        moved = pose[:3, :3] @ xyz0[k] + pose[:3, 3]
        metres = math.dist(moved, xyz1[k])
        u = [700 * p[0] / max(p[2], 1e-9) for p in (moved, xyz1[k])]
        v = [650 * p[1] / max(p[2], 1e-9) for p in (moved, xyz1[k])]
        assert float(got.metres[k]) == pytest.approx(metres, rel=1e-6)
        assert float(got.pixels[k]) == pytest.approx(math.hypot(u[0] - u[1], v[0] - v[1]), rel=1e-6)


def test_real_rgbd_frames_overlap_as_their_pair_list_says(real_data: Path) -> None:
    """Decoding, unprojection and pose direction together: wrong units or an un-inverted pose give no overlap at all."""
    root = real_data / "sevenscenes"
    listed = json.loads((root / "pairs.json").read_text())[:200:40]
    for pair in listed:
        items, poses = [], []
        for name in (pair["a"], pair["b"]):
            rgb = np.array(Image.open(root / "data" / f"{name}.color.jpg").convert("RGB"))
            code = np.array(Image.open(root / "data" / f"{name}.depth.png"))
            depth = decode_millimetre_depth(code.astype(np.uint16))
            items.append(prepare_rgbd(rgb, depth, focal=(585.0, 585.0), centre=(320.0, 240.0), name=name))
            poses.append(invert_pose(torch.from_numpy(np.loadtxt(root / "data" / f"{name}.pose.txt"))))
        pose01 = relative_pose(*poses)
        # The list was made with R^T for R^-1 of rounded poses: off by up to 0.25 degrees where the angle is small.
        assert float(rotation_angle(pose01[:3, :3])) == pytest.approx(pair["rot_deg"], abs=0.25)
        clean = [Rotation.from_matrix(pose[:3, :3].numpy()) for pose in poses]
        exact = math.degrees((clean[1] * clean[0].inv()).magnitude())
        assert float(rotation_angle(pose01[:3, :3])) == pytest.approx(exact, abs=0.01)
        assert float(pose01[:3, 3].norm()) == pytest.approx(pair["trans_m"], abs=0.002)
        points = items[0].xyz[items[0].valid].double() @ pose01[:3, :3].T + pose01[:3, 3]
        cell = ((project(points, items[1].focal) + torch.tensor([320.0, 240.0])) / 4 - 0.125).floor().long()
        inside = (cell >= 0).all(1) & (cell < torch.tensor([160, 120])).all(1) & (points[:, 2] > 0)
        there = items[1].xyz[cell[inside][:, 1], cell[inside][:, 0]]
        agree = ((there[:, 2] - points[inside][:, 2]).abs() < 0.05) & (there[:, 2] > 0)
        assert float(agree.sum()) / len(points) == pytest.approx(pair["overlap_5cm"], abs=0.05)
