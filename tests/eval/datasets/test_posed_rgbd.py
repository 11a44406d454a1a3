"""Posed RGB-D reader: generated sequences in the 7-Scenes layouts, and the real 40 frames."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from mtv.errors import DataError, UsageError
from mtv.eval.datasets.base import PosedImage, PosedSet
from mtv.eval.datasets.images import read_depth_png
from mtv.eval.datasets.posed_geometry import camera_motion, read_intrinsics, read_pose, wall_overlap
from mtv.eval.datasets.posed_rgbd import FRAMES, INFO, inspect

K = "585 0 320\n0 585 240\n0 0 1\n"


def pose(degrees: float = 0, x: float = 0) -> np.ndarray:
    """Camera-to-world: turned about the vertical axis, moved sideways."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("y", degrees, degrees=True).as_matrix()
    matrix[0, 3] = x
    return matrix


def write_frame(folder: Path, number: int, matrix: np.ndarray, *, suffix: str = "png") -> Path:
    """One 640 x 480 frame."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / f"frame-{number:06d}"
    Image.new("RGB", (640, 480)).save(f"{stem}.color.{suffix}")
    Image.fromarray(np.full((480, 640), 2000, np.uint16)).save(f"{stem}.depth.png", compress_level=1)
    np.savetxt(f"{stem}.pose.txt", matrix)
    return stem


def build(folder: Path, turns: tuple[float, ...] = (0, 5, 20, 120)) -> Path:
    """A sequence that turns on the spot."""
    for number, degrees in enumerate(turns):
        write_frame(folder, number, pose(degrees))
    return folder


def opened(data: Path, **options: str) -> PosedSet:
    """The set, or a failure that shows the report."""
    report, dataset = inspect(data, **options)
    assert dataset is not None, report
    return dataset


def problems(data: Path, **options: str) -> str:
    """The problems of a refused set."""
    report, dataset = inspect(data, **options)
    assert dataset is None
    assert report.verdict == "wrong"
    return "\n".join(report.problems)


def test_three_layouts_of_one_scene_agree(tmp_path: Path) -> None:
    direct = opened(build(tmp_path / "direct"))
    build(tmp_path / "nested" / "data")
    nested = opened(tmp_path / "nested")
    build(tmp_path / "sequences" / "seq-01")
    sequences = opened(tmp_path / "sequences")
    assert list(direct.posed) == list(nested.posed) == [f"frame-{i:06d}" for i in range(4)]
    assert list(sequences.posed) == [f"seq-01/frame-{i:06d}" for i in range(4)]
    assert direct.fingerprint == nested.fingerprint != sequences.fingerprint
    assert {p.group for p in direct.posed.values()} == {"scene"}
    assert {p.group for p in sequences.posed.values()} == {"seq-01"}
    assert direct.depth_encoding == "millimetres"
    assert direct.report.label == "subset (4 of 43000)"
    assert set(direct.extra_files) == {f"{k}.depth" for k in direct.posed}


def test_poses_are_inverted(tmp_path: Path) -> None:
    folder = tmp_path / "scene"
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", [20, -40, 70], degrees=True).as_matrix()
    matrix[:3, 3] = [0.3, -0.2, 1.5]
    write_frame(folder, 0, matrix)
    write_frame(folder, 1, matrix, suffix="jpg")
    item = opened(folder).posed["frame-000001"]
    np.testing.assert_allclose(item.world_to_camera @ matrix, np.eye(4), atol=1e-12)
    assert item.intrinsics == (585.0, 585.0, 320.0, 240.0)
    assert item.size == (640, 480)


def test_pairs_from_poses_stay_within_sequences(tmp_path: Path) -> None:
    root = tmp_path / "7scenes"
    build(root / "chess" / "seq-01")
    build(root / "chess" / "seq-02", (0, 3))
    build(root / "fire" / "seq-01", (0, 4))
    data = opened(tmp_path)
    a = "chess/seq-01/frame-"
    assert data.pairs == (
        (f"{a}000000", f"{a}000001"),
        (f"{a}000000", f"{a}000002"),
        (f"{a}000001", f"{a}000002"),
        ("chess/seq-02/frame-000000", "chess/seq-02/frame-000001"),
        ("fire/seq-01/frame-000000", "fire/seq-01/frame-000001"),
    )
    assert data.report.found == {"scenes": 2, "frames": 8, "frames_used": 8, "pairs": 5}
    assert "collection of 2 scenes" in data.report.layout
    assert "pairs from poses" in data.report.layout
    assert "7-Scenes default intrinsics 585 585 320 240" in data.report.layout


def test_known_scenes_side_by_side_are_one_set_strangers_are_ambiguous(tmp_path: Path) -> None:
    for scene in ("chess", "stairs"):
        build(tmp_path / "known" / scene / "seq-01", (0, 5))
        build(tmp_path / "strangers" / f"my_{scene}" / "seq-01", (0, 5))
    assert len(opened(tmp_path / "known").posed) == 4
    assert len(opened(tmp_path / "known" / "chess").posed) == 2
    report, data = inspect(tmp_path / "strangers")
    assert (report.verdict, data) == ("wrong", None)
    assert ["my_chess" in report.problems[0], "my_stairs" in report.problems[1]] == [True, True]


def test_splits_follow_the_lists(tmp_path: Path) -> None:
    root = tmp_path / "heads"
    for number in (1, 2, 3):
        build(root / f"seq-{number:02d}", (0, 5))
    (root / "TrainSplit.txt").write_text("sequence2\nsequence3\n")
    (root / "TestSplit.txt").write_text("sequence1\n")
    assert {p.group for p in opened(root, split="test").posed.values()} == {"seq-01"}
    train = opened(root, split="train")
    assert {p.group for p in train.posed.values()} == {"seq-02", "seq-03"}
    assert train.report.label == "subset (4 of 26000)"
    (root / "TestSplit.txt").write_text("sequence9\n")
    assert "seq-09: listed in TestSplit.txt, but not there" in problems(root, split="test")
    (root / "TestSplit.txt").unlink()
    assert "TestSplit.txt: missing" in problems(root, split="test")


def test_long_sequences_are_thinned_and_the_rest_is_not_read(tmp_path: Path) -> None:
    folder = tmp_path / "scene"
    write_frame(folder, 0, pose())
    for number in range(101):
        for suffix in ("color.png", "depth.png", "pose.txt"):
            target = folder / f"frame-{number:06d}.{suffix}"
            if number and number % 25 == 0:
                target.write_bytes((folder / f"frame-000000.{suffix}").read_bytes())
            elif number:
                target.write_text("not read")
    data = opened(folder)
    assert list(data.posed) == [f"frame-{i:06d}" for i in range(0, 101, 25)]
    assert data.report.found["frames"] == 101
    assert len(data.pairs) == 10


def pair_record(a: int, b: int, degrees: float, metres: float = 0.0, prefix: str = "") -> dict[str, object]:
    """One record of pairs.json."""
    return {
        "a": f"{prefix}frame-{a:06d}",
        "b": f"{prefix}frame-{b:06d}",
        "overlap_5cm": 0.5,
        "rot_deg": degrees,
        "trans_m": metres,
    }


def test_pair_file_is_used_and_checked(tmp_path: Path) -> None:
    folder = build(tmp_path / "scene")
    listing = folder / "pairs.json"
    listing.write_text(json.dumps([pair_record(2, 3, 100), pair_record(0, 1, 5)]))
    data = opened(folder)
    assert data.pairs == (("frame-000002", "frame-000003"), ("frame-000000", "frame-000001"))
    listing.write_text(json.dumps([pair_record(0, 1, 30)]))
    assert "30.0 degrees and 0.0 m apart, but 5.00" in problems(folder)
    listing.write_text(json.dumps([pair_record(0, 1, 5, 0.4)]))
    assert "camera-to-world" in problems(folder)
    listing.write_text(json.dumps([pair_record(0, 9, 5)]))
    assert "pairs.json: names frame-000009, which is not there" in problems(folder)
    listing.write_text(json.dumps([{"a": "frame-000000"}]))
    assert "pairs.json: expected a list" in problems(folder)


def test_pair_file_of_a_scene_in_a_collection(tmp_path: Path) -> None:
    scene = tmp_path / "7scenes" / "chess"
    build(scene / "seq-01", (0, 5))
    build(scene / "seq-02", (0, 5))
    (scene / "pairs.json").write_text(json.dumps([pair_record(0, 1, 5, prefix="seq-02/")]))
    assert opened(tmp_path).pairs == (("chess/seq-02/frame-000000", "chess/seq-02/frame-000001"),)
    mixed = pair_record(0, 1, 5) | {"a": "seq-01/frame-000000", "b": "seq-02/frame-000001"}
    (scene / "pairs.json").write_text(json.dumps([mixed]))
    assert "not two frames of one sequence" in problems(tmp_path)


def test_invalid_poses_are_all_listed(tmp_path: Path) -> None:
    folder = build(tmp_path / "scene", tuple(range(8)))
    scaled, mirrored, bad_row = pose(4) * 1.1, pose(), pose()
    mirrored[0] *= -1
    bad_row[3, 0] = 0.5
    np.savetxt(folder / "frame-000001.pose.txt", np.full((4, 4), -np.inf))
    np.savetxt(folder / "frame-000002.pose.txt", scaled)
    np.savetxt(folder / "frame-000003.pose.txt", mirrored)
    np.savetxt(folder / "frame-000004.pose.txt", bad_row)
    (folder / "frame-000005.pose.txt").write_text("1 0 0 0\n0 1 0 0\n")
    (folder / "frame-000006.pose.txt").write_text("no pose")
    text = problems(folder)
    for number, reason in enumerate(
        ["not finite", "not a rigid motion", "not a rigid motion", "not a rigid motion", "not 4 rows", "as numbers"], 1
    ):
        assert any(f"frame-{number:06d}.pose.txt" in p and reason in p for p in text.splitlines())


def test_known_mix_ups_of_files(tmp_path: Path) -> None:
    folder = build(tmp_path / "scene", tuple(range(6)))
    Image.new("L", (640, 480)).save(folder / "frame-000000.depth.png")
    Image.fromarray(np.ones((240, 320), np.uint16)).save(folder / "frame-000001.depth.png")
    (folder / "frame-000002.depth.png").unlink()
    (folder / "frame-000003.color.png").unlink()
    Image.new("RGB", (640, 480)).save(folder / "frame-000004.color.jpg")
    text = problems(folder)
    assert "frame-000000.depth.png: depth is 8-bit" in text
    assert "frame-000001.depth.png: 320 x 240, but color.png is 640 x 480" in text
    assert "frame-000002.depth.png: missing" in text
    assert "frame-000003.color.png: missing" in text
    assert "frame-000004.color.png: there beside .color.jpg" in text


def test_intrinsics(tmp_path: Path) -> None:
    folder = build(tmp_path / "scene", (0, 5))
    assert "camera-intrinsics.txt: no readable 3 x 3 matrix" in problems(folder, intrinsics="file")
    file = folder / "camera-intrinsics.txt"
    file.write_text(K.replace("585", "525"))
    assert opened(folder).posed["frame-000000"].intrinsics[0] == 525
    assert opened(folder, intrinsics="default").posed["frame-000000"].intrinsics[0] == 585
    assert opened(folder).fingerprint != opened(folder, intrinsics="default").fingerprint
    for text in ("585 0 320\n0 585 240\n", K.replace("0 0 1", "0 0 2"), K.replace("0 585", "0 -585"), "a b c"):
        file.write_text(text)
        with pytest.raises(DataError, match=r"k\.txt"):
            read_intrinsics(file, name="k.txt")
        assert "camera-intrinsics.txt" in problems(folder)
    file.unlink()
    for stem in ("frame-000000", "frame-000001"):
        Image.new("RGB", (320, 240)).save(folder / f"{stem}.color.png")
        Image.fromarray(np.ones((240, 320), np.uint16)).save(folder / f"{stem}.depth.png")
    assert "the default intrinsics are for 640 x 480" in problems(folder)
    file.write_text(K)
    assert "does not hold the principal point" in problems(folder)


def test_missing_and_unknown(tmp_path: Path) -> None:
    assert inspect(tmp_path)[0].verdict == "missing"
    with pytest.raises(UsageError, match="split"):
        inspect(tmp_path, split="val")
    with pytest.raises(UsageError, match="intrinsics"):
        inspect(tmp_path, intrinsics="600")
    with pytest.raises(DataError, match="no such directory"):
        inspect(tmp_path / "nowhere")
    assert FRAMES["train"] + FRAMES["test"] == FRAMES["all"] == INFO.expected["frames"]


def test_wall_overlap_by_closed_form(tmp_path: Path) -> None:
    """Moving sideways by s shifts a wall at 2 m by 585 s / 2 of 640 pixels; the grid resolves sixteenths."""
    folder = build(tmp_path / "scene", (0, 5))
    for shift in (0.0, 0.5, 1.0, 2.5):
        np.savetxt(folder / "frame-000001.pose.txt", pose(0, shift))
        expected = max(0.0, 1 - 585 * shift / 2 / 640)
        frames = frames_of(folder)
        assert wall_overlap(*frames) == pytest.approx(expected, abs=1 / 16)
        assert wall_overlap(*reversed(frames)) == pytest.approx(expected, abs=1 / 16)


def frames_of(folder: Path) -> list[PosedImage]:
    """Frames of a folder, whether or not they see each other."""
    image = opened(build(folder.parent / "template", (0, 1))).posed["frame-000000"]
    poses = [read_pose(p, name=p.name) for p in sorted(folder.glob("*.pose.txt"))]
    return [dataclasses.replace(image, world_to_camera=np.linalg.inv(p)) for p in poses]


def test_camera_motion() -> None:
    a, b = np.linalg.inv(pose(10, 1.0)), np.linalg.inv(pose(55, -0.5))
    angle, distance = camera_motion(a, b)
    assert angle == pytest.approx(45)
    assert distance == pytest.approx(1.5)


def test_read_pose_gives_a_rigid_motion(tmp_path: Path) -> None:
    """7-Scenes' rotations are orthonormal to 4e-4 only; the nearest rotation is taken, as scipy does."""
    rough = pose(30)
    rough[:3, :3] *= 0.9998
    np.savetxt(tmp_path / "p.txt", rough)
    clean = read_pose(tmp_path / "p.txt", name="p")
    np.testing.assert_allclose(clean[:3, :3] @ clean[:3, :3].T, np.eye(3), atol=1e-14)
    np.testing.assert_allclose(clean, pose(30), atol=1e-12)


def test_real_frames(real_data: Path) -> None:
    data = opened(real_data)
    assert data.report.verdict == "ok-but"
    assert data.report.label == "subset (40 of 43000)"
    assert (len(data.posed), len(data.pairs)) == (40, 526)
    assert "camera-intrinsics.txt" in data.report.layout
    angles = [camera_motion(data.posed[a].world_to_camera, data.posed[b].world_to_camera)[0] for a, b in data.pairs]
    bins = np.histogram(angles, [0, 15, 30, 60, 180])[0]
    np.testing.assert_allclose(bins, [169, 215, 133, 9], atol=2)  # counts in the README


def test_real_pairs_from_poses_resemble_the_measured_overlaps(real_data: Path, tmp_path: Path) -> None:
    for file in (real_data / "sevenscenes" / "data").iterdir():
        (tmp_path / file.name).symlink_to(file)
    measured, guessed = set(opened(real_data).pairs), set(opened(tmp_path).pairs)
    assert len(measured & guessed) / len(measured) > 0.95
    assert len(measured & guessed) / len(guessed) > 0.9


def warp_agreement(data: PosedSet, a: str, b: str, poses: tuple[np.ndarray, np.ndarray]) -> tuple[float, float]:
    """Share of a's pixels that land in b on valid depth, and the share of those within 5 cm of b's depth."""
    depth = {k: read_depth_png(data.posed[k].depth.read(), data.depth_encoding, name=k) for k in (a, b)}
    fx, fy, cx, cy = data.posed[a].intrinsics
    v, u = np.nonzero(depth[a])
    z = depth[a][v, u].astype(np.float64)
    camera_N4 = np.stack([(u - cx) / fx * z, (v - cy) / fy * z, z, np.ones_like(z)], -1)
    moved = camera_N4 @ (poses[1] @ np.linalg.inv(poses[0])).T
    moved = moved[moved[:, 2] > 0.1]
    column = np.rint(moved[:, 0] / moved[:, 2] * fx + cx).astype(int)
    row = np.rint(moved[:, 1] / moved[:, 2] * fy + cy).astype(int)
    inside = (column >= 0) & (column < 640) & (row >= 0) & (row < 480)
    seen = depth[b][row[inside], column[inside]]
    valid = seen > 0
    agree = np.abs(seen[valid] - moved[inside, 2][valid]) < 0.05
    return float(valid.sum() / len(z)), float(agree.mean())


def test_real_depth_of_one_frame_predicts_the_other(real_data: Path) -> None:
    """Pose direction, units and intrinsics at once: wrong conventions would leave few pixels within 5 cm."""
    data = opened(real_data)
    records = json.loads((real_data / "sevenscenes" / "pairs.json").read_text())
    best = [r for r in records if r["overlap_5cm"] > 0.6 and r["trans_m"] > 0.15][:3]
    assert len(best) == 3
    for r in best:
        a, b = r["a"], r["b"]
        w = (data.posed[a].world_to_camera, data.posed[b].world_to_camera)
        landed, agree = warp_agreement(data, a, b, w)
        assert landed > 0.6
        assert agree > 0.8
        assert landed * agree == pytest.approx(r["overlap_5cm"], abs=0.1)
        inverted = (np.linalg.inv(w[0]), np.linalg.inv(w[1]))
        assert warp_agreement(data, a, b, inverted)[1] < agree - 0.2
