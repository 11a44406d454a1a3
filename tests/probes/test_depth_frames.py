"""Boxes and crops: the published pixel counts, and the same shares on other frames (rows A1, E2, R7)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mtv.errors import DataError, UsageError
from mtv.probes.depth_frames import (
    KITTI_EIGEN,
    KITTI_GARG,
    NYU_EIGEN,
    NYU_TRAIN,
    FrameBox,
    bottom_crop,
    scale_length,
    train_frame,
)


def count(box: FrameBox, size: tuple[int, int]) -> int:
    return int(np.ones(size, dtype=bool)[box.on(size)].sum())


def test_e2_pixels_of_the_scored_boxes() -> None:
    assert count(NYU_EIGEN, (480, 640)) == 238_560
    assert count(KITTI_EIGEN, (352, 1216)) == 230_316
    assert count(KITTI_GARG, (352, 1216)) == 232_574
    assert NYU_EIGEN.on((480, 640)) == (slice(45, 471), slice(41, 601))
    assert KITTI_EIGEN.on((352, 1216)) == (slice(117, 321), slice(43, 1172))
    assert KITTI_GARG.on((352, 1216)) == (slice(143, 349), slice(43, 1172))


def test_e2_kitti_boxes_are_the_usual_shares_cut_to_whole_pixels() -> None:
    left, right = int(0.03594771 * 1216), int(0.96405229 * 1216)
    assert KITTI_EIGEN.on((352, 1216)) == (slice(int(0.3324324 * 352), int(0.91351351 * 352)), slice(left, right))
    assert KITTI_GARG.on((352, 1216)) == (slice(int(0.40810811 * 352), int(0.99189189 * 352)), slice(left, right))


def test_a1_training_geometry() -> None:
    frame = train_frame((480, 640))
    assert frame.window == (slice(45, 472), slice(43, 608))
    assert frame.cropped == (427, 565)
    assert frame.output == (416, 544)
    assert frame.max_offset == (11, 21)
    small = train_frame((192, 256))
    assert small.window == (slice(18, 189), slice(17, 243))
    assert small.cropped == (171, 226)
    assert small.output == (166, 218)
    assert small.max_offset == (5, 8)


@settings(max_examples=200, deadline=None)
@given(st.integers(8, 2000), st.integers(8, 2000))
def test_boxes_keep_their_share_of_any_frame(height: int, width: int) -> None:
    for box in (NYU_EIGEN, NYU_TRAIN, KITTI_GARG):
        for window, side, corners, full in zip(
            box.on((height, width)), (height, width), (box.rows, box.cols), box.frame, strict=True
        ):
            for found, corner in zip((window.start, window.stop), corners, strict=True):
                assert abs(found - corner / full * side) <= 0.5 + 1e-9
                assert 0 <= found <= side
    frame = train_frame((height, width))
    assert min(frame.max_offset) >= 0
    assert min(frame.output) >= 1
    assert np.empty((height, width))[frame.window].shape == frame.cropped


def test_halves_round_up() -> None:
    assert [scale_length(n, 2, 4) for n in range(5)] == [0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("size", "margins"),
    [
        ((375, 1242), (23, 13)),
        ((370, 1226), (18, 5)),
        ((374, 1238), (22, 11)),
        ((376, 1241), (24, 12)),
        ((352, 1216), (0, 0)),
    ],
)
def test_r7_kitti_crop(size: tuple[int, int], margins: tuple[int, int]) -> None:
    top, left = margins
    assert bottom_crop(size) == (slice(top, top + 352), slice(left, left + 1216))
    assert bottom_crop(size)[0].stop == size[0]


def test_crops_of_small_frames() -> None:
    assert bottom_crop((96, 318), (90, 311)) == (slice(6, 96), slice(3, 314))
    with pytest.raises(DataError, match="375x1215 pixels is smaller than the crop of 352x1216"):
        bottom_crop((375, 1215))
    with pytest.raises(DataError, match="351x1242"):
        bottom_crop((351, 1242))
    with pytest.raises(DataError, match="0x9 pixels is too small"):
        KITTI_EIGEN.on((0, 9))
    with pytest.raises(DataError, match="0x640 pixels is too small"):
        train_frame((0, 640))
    with pytest.raises(UsageError, match=r"box.cols must lie in a frame"):
        FrameBox(frame=(10, 10), rows=(0, 10), cols=(4, 11))


def test_real_kitti_ground_truth_covers_the_boxes(real_data: Path) -> None:
    """The lowest rows hold the lidar returns; all margins that are cut on top have none."""
    paths = sorted((real_data / "kitti/depth_selection/val_selection_cropped/groundtruth_depth").glob("*.png"))
    assert paths
    for path in paths:
        depth = np.array(Image.open(path))
        cropped = depth[bottom_crop((depth.shape[0], depth.shape[1]))]
        assert cropped.shape == (352, 1216)
        assert (depth > 0).mean() > 0.1
        kept = (cropped[KITTI_EIGEN.on((352, 1216))] > 0).sum()
        assert 0.5 < kept / (depth > 0).sum() < 1
        assert not (depth[:23] > 0).any()
