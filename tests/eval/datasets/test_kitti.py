"""KITTI reader: the Eigen list in every folder layout, the depth selection, real frames, a set of the full size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from dense_files import codes, link, save, view
from PIL import Image

from mtv.eval.datasets.base import CheckReport, DepthSet
from mtv.eval.datasets.dense_decode import read_depth_metres
from mtv.eval.datasets.full_check import full_check
from mtv.eval.datasets.kitti import FRAMES, LINES, WITHOUT_DEPTH, inspect
from mtv.eval.datasets.registry import open_dataset

LIST = "eigen_test_files_with_gt.txt"
FRAMES_OF_TESTS = (
    ("2011_09_26_drive_0002_sync", 69),
    ("2011_09_26_drive_0002_sync", 5),
    ("2011_10_03_drive_0047_sync", 8),
)


def image_path(drive: str, frame: int, *, dated: bool = True) -> str:
    return f"{f'{drive[:10]}/' if dated else ''}{drive}/image_02/data/{frame:010d}.png"


def depth_path(drive: str, frame: int) -> str:
    return f"{drive}/proj_depth/groundtruth/image_02/{frame:010d}.png"


def sparse(metres_HW: np.ndarray, share: float, seed: int = 0) -> np.ndarray:
    """Codes where a `share` of the pixels has depth."""
    keep = np.random.default_rng(seed).random(metres_HW.shape) < share
    return codes(metres_HW, 256) * keep.astype(np.uint16)


def build(
    root: Path,
    *,
    raw: str = "",
    truth: Sequence[str] = ("train", "val"),
    dated: bool = True,
    share: float = 0.2,
    size: tuple[int, int] = (1242, 375),
) -> Path:
    """Three frames; the ground truth of the last drive lies in the last of the `truth` folders."""
    rows = []
    for seed, (drive, frame) in enumerate(FRAMES_OF_TESTS):
        seen = view(*size, seed, near=5, far=80)
        save(root / raw / image_path(drive, frame), seen.rgb_HW3)
        folder = truth[-1 if drive == FRAMES_OF_TESTS[-1][0] else 0]
        save(root / folder / depth_path(drive, frame), sparse(seen.metres_HW, share, seed))
        rows.append(f"{image_path(drive, frame, dated=dated)} {depth_path(drive, frame)} {721.5377 + seed}")
    rows.append(f"{image_path('2011_09_26_drive_0002_sync', 0, dated=dated)} None 721.5377")
    (root / LIST).write_text("\n".join(rows) + "\n")
    return root


def select(root: Path, drives: Sequence[str] = ("2011_09_26_drive_0002_sync",), *, size: tuple[int, int]) -> Path:
    """`val_selection_cropped` with two cameras per drive."""
    for seed, drive in enumerate(drives):
        for camera in ("02", "03"):
            seen = view(*size, seed, near=5, far=80)
            save(root / "image" / f"{drive}_image_0000000005_image_{camera}.png", seen.rgb_HW3)
            truth = f"{drive}_groundtruth_depth_0000000005_image_{camera}.png"
            save(root / "groundtruth_depth" / truth, sparse(seen.metres_HW, 0.2, seed))
    return root


def opened(data: Path, layout: str = "auto") -> DepthSet:
    """The set, or a failure that shows the report."""
    report, dataset = inspect(data, split="test", layout=layout)
    assert dataset is not None, report
    return dataset


def refused(data: Path, layout: str = "auto") -> CheckReport:
    """The report of a refused set."""
    report, dataset = inspect(data, split="test", layout=layout)
    assert dataset is None
    assert report.verdict == "wrong"
    assert report.repair
    return report


def test_items_carry_what_the_tasks_need(tmp_path: Path) -> None:
    dataset = opened(build(tmp_path / "up" / "kitti").parents[1])
    ids = [image_path(d, f).removesuffix(".png") for d, f in FRAMES_OF_TESTS]
    assert list(dataset.items) == list(dataset.images) == sorted(ids)
    item = dataset.items[ids[0]]
    assert (item.group, item.size, item.focal) == (FRAMES_OF_TESTS[0][0], (1242, 375), 721.5377)
    assert dataset.depth_encoding == "metres_256"
    depth_HW = read_depth_metres(item.depth, dataset.depth_encoding)
    np.testing.assert_array_equal(depth_HW, sparse(view(1242, 375, 0, near=5, far=80).metres_HW, 0.2, 0) / 256)
    assert dataset.report.found == {"images": 3, "drives": 2, "without depth": 1}
    assert dataset.report.label == "subset (3 of 652)"
    assert full_check(dataset, data=tmp_path).verdict == "ok-but"


@pytest.mark.parametrize(
    ("raw", "truth", "dated"),
    [
        ("", ["train", "val"], True),
        ("", [""], True),
        ("raw", ["data_depth_annotated/train", "data_depth_annotated/val"], True),
        ("input", ["gt_depth"], False),
    ],
)
def test_folders_may_be_called_anything(tmp_path: Path, raw: str, truth: list[str], dated: bool) -> None:
    dataset = opened(build(tmp_path / "kitti", raw=raw, truth=truth, dated=dated, size=(400, 120)))
    assert dataset.report.label == "subset (3 of 652), 400 x 120"
    assert [i.group for i in dataset.items.values()] == sorted(d for d, _ in FRAMES_OF_TESTS)
    assert all(i.depth.path.is_file() for i in dataset.items.values())


def test_other_list_name_and_two_lists(tmp_path: Path) -> None:
    root = build(tmp_path / "kitti", size=(400, 120))
    fingerprint = opened(root).fingerprint
    (root / LIST).rename(root / "kitti_eigen_test.txt")
    assert opened(root).fingerprint == fingerprint
    (root / LIST).write_text((root / "kitti_eigen_test.txt").read_text().splitlines()[0])
    assert "differ" in refused(root).problems[0]


def test_the_full_split_is_ok(tmp_path: Path) -> None:
    """697 lines, 45 of them without depth, 652 usable."""
    root = build(tmp_path / "kitti")
    drive, frame = FRAMES_OF_TESTS[0]
    image, depth = root / image_path(drive, frame), root / "train" / depth_path(drive, frame)
    rows = []
    for i in range(LINES):
        number = 1000 + i
        if i % 15 == 7 and i < 15 * WITHOUT_DEPTH:
            rows.append(f"{image_path(drive, number)} None 721.5377")
            continue
        link(image, root / image_path(drive, number))
        link(depth, root / "val" / depth_path(drive, number))
        rows.append(f"{image_path(drive, number)} {depth_path(drive, number)} 721.5377")
    (root / LIST).write_text("\n".join(rows))
    report = opened(root).report
    assert (report.verdict, report.label) == ("ok", "")
    assert report.found == {"images": FRAMES, "drives": 1, "without depth": WITHOUT_DEPTH}
    assert FRAMES == 652


def test_wrong_files_are_named(tmp_path: Path) -> None:
    root = build(tmp_path / "kitti", size=(400, 120))
    depth = root / "train" / depth_path(*FRAMES_OF_TESTS[0])
    whole = np.asarray(Image.open(depth))
    save(depth, (whole // 256).astype(np.uint8))
    assert "0000000069.png: depth is 8-bit" in refused(root).problems[0]
    save(depth, whole[8:])
    assert "the depth map is 400 x 112, its picture 400 x 120" in refused(root).problems[0]
    depth.unlink()
    report = refused(root)
    assert f"{depth_path(*FRAMES_OF_TESTS[0])}: missing" in report.problems[0]
    assert report.found["images"] == 3
    (root / LIST).write_text(f"{image_path('a', 1)} {depth_path('a', 1)}\n")
    assert "line 1: expected `picture depth focal`" in refused(root).problems[0]
    (root / LIST).write_text(f"{image_path('a', 1)} None 721.5\n")
    assert "no line with a depth map" in refused(root).problems[0]


@pytest.mark.parametrize(("share", "label"), [(0.2, ""), (0.045, ", raw lidar"), (1.0, ", filled")])
def test_dense_and_sparse_depth_is_labelled(tmp_path: Path, share: float, label: str) -> None:
    root = build(tmp_path / "kitti", share=share, size=(400, 120))
    assert opened(root).report.label == f"subset (3 of 652), 400 x 120{label}"


def test_other_scales_are_noted(tmp_path: Path) -> None:
    root = build(tmp_path / "kitti", size=(400, 120))
    for path in root.rglob("groundtruth/image_02/*.png"):
        save(path, (np.asarray(Image.open(path)) // 10).astype(np.uint16))
    assert opened(root).report.label.endswith("depth scale?")


def test_mirrored_depth_is_refused(tmp_path: Path) -> None:
    root = build(tmp_path / "kitti", share=1.0, size=(400, 120))
    for path in root.rglob("groundtruth/image_02/*.png"):
        save(path, np.asarray(Image.open(path))[:, ::-1].copy())
    assert "depth is mirrored against the pictures" in refused(root).problems[0]


def test_selection(tmp_path: Path) -> None:
    root = select(
        tmp_path / "depth_selection/val_selection_cropped", ["2011_09_26_drive_0002_sync", "x_sync"], size=(304, 88)
    )
    stem = "2011_09_26_drive_0002_sync_image_0000000005_image_03"
    (root / "intrinsics").mkdir()
    (root / "intrinsics" / f"{stem}.txt").write_text("721.5377 0 596.5 0 721.5377 149.8 0 0 1\n")
    dataset = opened(tmp_path)
    assert dataset.report.label == "subset (4 of 1000), depth selection, 304 x 88"
    assert dataset.report.verdict == "ok-but"
    assert dataset.items[stem].focal == 721.5377
    assert dataset.items[stem].group == "2011_09_26_drive_0002_sync"
    assert dataset.items[stem].depth.name.endswith("_groundtruth_depth_0000000005_image_03.png")
    assert [i.focal for k, i in dataset.items.items() if k != stem] == [None, None, None]
    (root / "intrinsics" / f"{stem}.txt").write_text("721.5377 0 596.5\n")
    assert "not the nine numbers" in refused(tmp_path).problems[0]
    (root / "intrinsics" / f"{stem}.txt").unlink()
    next((root / "groundtruth_depth").iterdir()).unlink()
    assert ": missing" in refused(tmp_path).problems[0]
    save(root / "image" / "0000000005.png", np.zeros((352, 1216, 3), np.uint8))
    assert "not named <drive>_image_<frame>_image_<camera>.png: 0000000005.png" in refused(tmp_path).problems[0]


def test_the_list_comes_before_the_selection(tmp_path: Path) -> None:
    build(tmp_path / "kitti", size=(400, 120))
    select(tmp_path / "kitti/depth_selection/val_selection_cropped", size=(1216, 352))
    assert opened(tmp_path).report.layout == f"Eigen list {LIST}"
    assert opened(tmp_path, "selection").report.label == "subset (2 of 1000), depth selection"
    (tmp_path / "kitti" / LIST).unlink()
    assert opened(tmp_path).report.label == "subset (2 of 1000), depth selection"
    assert inspect(tmp_path, split="test", layout="eigen")[0].verdict == "missing"


def test_real_frames(real_data: Path) -> None:
    dataset = open_dataset("kitti", real_data)
    assert isinstance(dataset, DepthSet)
    assert dataset.report.label == "subset (3 of 1000), depth selection, 1242 x 375"
    for item in dataset.items.values():
        assert item.focal == pytest.approx(707.0493)
        depth_HW = read_depth_metres(item.depth, dataset.depth_encoding)
        raw_HW = np.asarray(Image.open(item.depth.path))
        np.testing.assert_array_equal(depth_HW, raw_HW / np.float32(256))
        assert 0.15 < (depth_HW > 0).mean() < 0.25
        assert 75 < depth_HW.max() < 90


def test_real_lidar_scans_are_told_from_ground_truth(tmp_path: Path, real_data: Path) -> None:
    source = real_data / "kitti/depth_selection/val_selection_cropped"
    for i in range(3):
        for kind, folder in (("image", "image_object"), ("groundtruth_depth", "velodyne_projected")):
            target = tmp_path / kind / f"object_{kind}_{i:010d}_image_02.png"
            target.parent.mkdir(exist_ok=True)
            target.write_bytes((source / folder / f"object_{i:06d}.png").read_bytes())
    label = opened(tmp_path).report.label
    assert label == "subset (3 of 1000), depth selection, 1224 x 370, 1242 x 375, raw lidar"
