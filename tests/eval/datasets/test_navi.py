"""NAVI reader on generated sets in the original layouts, v1.0 and v1.5."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.spatial.transform import Rotation

from mtv.errors import UsageError
from mtv.eval.datasets.images import open_exif, read_depth_png
from mtv.eval.datasets.navi import INFO, copy_size, inspect, rotation_from_quaternion

OBJECTS = ("3d_dollhouse_sink", "keywest_showpiece_v2", "bottle_vitamin_d_tablets")
WIDTH, HEIGHT = 60, 40


def record(name: str, seed: int, **changes: Any) -> dict[str, Any]:
    """One record of annotations.json, schema of NAVI's README."""
    rng = np.random.default_rng(seed)
    camera = {
        "q": (rng.normal(size=4) * 3).tolist(),
        "t": (rng.normal(size=3) * 100 + [0, 0, 800]).tolist(),
        "focal_length": 3024.5,
        "camera_model": "pixel_5",
    }
    camera.update({k: changes.pop(k) for k in ("q", "t", "focal_length") if k in changes})
    return {"filename": name, "image_size": [HEIGHT, WIDTH], "camera": camera, "scene_name": "wild_set"} | changes


def write_picture(folder: Path, name: str, *, size: tuple[int, int] = (WIDTH, HEIGHT), exif: int = 1) -> None:
    """JPEG and depth of one picture whose upright size is `size`; with exif 6 the stored picture is lying."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "depth").mkdir(exist_ok=True)
    stored = size[::-1] if exif >= 5 else size
    tag = Image.Exif()
    tag[0x0112] = exif
    Image.new("RGB", stored, (200, 30, 30)).save(folder / "images" / name, exif=tag)
    codes = np.full(size[::-1], 655, dtype=np.uint16)
    codes[0, 0] = 0
    Image.fromarray(codes).save(folder / "depth" / f"{Path(name).stem}.png")


def build(root: Path, separator: str = "-", *, seed: int = 0, pictures: int = 4, copies: bool = False) -> Path:
    """A NAVI folder; `seed` shuffles the order in which files and records are made."""
    order = random.Random(seed)
    for number, name in enumerate(order.sample(OBJECTS, len(OBJECTS))):
        wild = root / name / "wild_set"
        names = order.sample([f"{i:03d}.jpg" for i in range(pictures)], pictures)
        for file in names:
            write_picture(wild, file)
            if copies:
                write_picture(wild, f"downsampled_{file}", size=copy_size(WIDTH, HEIGHT))
        records = [record(f, OBJECTS.index(name) * 100 + int(f[:3])) for f in names]
        (wild / "annotations.json").write_text(json.dumps(records))
        (root / name / f"multiview{separator}{number:02d}{separator}canon_t4i").mkdir()
    (root / "object_without_scene" / "wild_set").mkdir(parents=True)
    (root / "custom_splits").mkdir()
    return root


def edit(root: Path, change: Callable[[list[dict[str, Any]]], None], name: str = OBJECTS[0]) -> None:
    """Apply `change` to the records of one object."""
    file = root / name / "wild_set" / "annotations.json"
    records = sorted(json.loads(file.read_text()), key=lambda r: r["filename"])
    change(records)
    file.write_text(json.dumps(records))


def test_ids_poses_and_units(tmp_path: Path) -> None:
    build(tmp_path / "navi_v1.5")
    report, data = inspect(tmp_path)
    assert data is not None
    assert report.verdict == "ok-but"
    assert report.label == "subset (12 of 2298)"
    assert report.found == {"objects": 3, "images": 12}
    assert list(data.images) == [f"{o}/wild_set/{i:03d}" for o in sorted(OBJECTS) for i in range(4)]
    item = data.posed["keywest_showpiece_v2/wild_set/002"]
    camera = record("002.jpg", 102)["camera"]
    w, x, y, z = camera["q"]
    np.testing.assert_allclose(
        item.world_to_camera[:3, :3], Rotation.from_quat([x, y, z, w]).as_matrix(), atol=1e-12
    )  # scipy: x, y, z, w
    np.testing.assert_allclose(item.world_to_camera[:3, 3] * 1000, camera["t"])
    np.testing.assert_array_equal(item.world_to_camera[3], [0, 0, 0, 1])
    assert item.intrinsics == (3024.5, 3024.5, 30.0, 20.0)
    assert (item.size, item.group, item.downsampled) == ((WIDTH, HEIGHT), "keywest_showpiece_v2", False)
    assert data.depth_encoding == "navi_disparity"
    assert data.pairs == ()
    assert set(data.extra_files) == {f"{k}.depth" for k in data.images}
    depth = read_depth_png(item.depth.read(), "navi_disparity", name=item.depth.name)
    assert depth.shape == (HEIGHT, WIDTH)
    assert depth[0, 0] == 0
    assert depth[1, 1] == np.float32(655.350 / 655)


def test_n2_quaternions_of_any_length() -> None:
    np.testing.assert_array_equal(rotation_from_quaternion((2, 0, 0, 0)), np.eye(3))
    np.testing.assert_array_equal(rotation_from_quaternion((0, 1, 0, 0)), np.diag([1, -1, -1]))
    half = np.cos(np.pi / 4)
    for q, degrees in (((half, 0, 0, half), 90), ((0.5, 0.5, 0.5, 0.5), 120)):
        angle = np.degrees(np.arccos((np.trace(rotation_from_quaternion(q)) - 1) / 2))
        assert angle == pytest.approx(degrees, abs=1e-9)


@given(st.lists(st.floats(-5, 5), min_size=4, max_size=4).filter(lambda q: sum(v * v for v in q) > 1e-3))
def test_quaternion_agrees_with_scipy(q: list[float]) -> None:
    w, x, y, z = q
    np.testing.assert_allclose(rotation_from_quaternion(q), Rotation.from_quat([x, y, z, w]).as_matrix(), atol=1e-9)


def test_n3_size_of_copies() -> None:
    assert copy_size(4032, 3024) == (1365, 1024)
    assert copy_size(4624, 3472) == (1363, 1024)
    assert min(copy_size(1122, 1500)) == 1023


def test_n11_both_versions_shuffled_listing_and_hidden_files_give_the_same_items(tmp_path: Path) -> None:
    opened = []
    for number, separator in enumerate("-_"):
        root = build(tmp_path / str(number) / "navi", separator, seed=number)
        if number:
            (root / ".DS_Store").write_text("x")
            (root / ".cache" / "wild_set").mkdir(parents=True)
            wild = root / OBJECTS[0] / "wild_set" / "images"
            (wild / "._000.jpg").write_text("resource fork")
            write_picture(wild.parent, "000_copy.jpg")  # an id with `_` is no picture of the set
            (wild / "Thumbs.db").write_text("x")
        report, data = inspect(root.parent)
        assert data is not None
        opened.append((report, list(data.posed), list(data.images)))
    assert opened[0][1:] == opened[1][1:]
    assert opened[0][0].fingerprint == opened[1][0].fingerprint
    assert "v1.5" in opened[0][0].layout
    assert "v1.0" in opened[1][0].layout


def test_videos_mark_the_version_and_are_never_read(tmp_path: Path) -> None:
    root = build(tmp_path / "navi", pictures=2)
    before, _ = inspect(root)
    video = root / OBJECTS[0] / "video-00-pixel_5"
    write_picture(video, "000.jpg")
    (root / "only_video" / "video-00-pixel_5").mkdir(parents=True)
    (root / "only_video" / "wild_set").mkdir()
    after, data = inspect(root)
    assert data is not None
    assert after.fingerprint == before.fingerprint
    assert not any("video" in ref.name for ref in data.images.values())


def test_exif_orientation_is_applied_to_the_size_check(tmp_path: Path) -> None:
    root = build(tmp_path / "navi")
    wild = root / OBJECTS[0] / "wild_set"
    write_picture(wild, "001.jpg", exif=6)
    report, data = inspect(root)
    assert data is not None, report.problems
    ref = data.images[f"{OBJECTS[0]}/wild_set/001"]
    assert open_exif(ref.read(), name=ref.name).size == (WIDTH, HEIGHT)
    write_picture(wild, "001.jpg", size=(HEIGHT, WIDTH))
    report, data = inspect(root)
    assert data is None
    assert report.verdict == "wrong"
    assert any(f"{OBJECTS[0]}/wild_set/images/001.jpg: 40 x 60" in p for p in report.problems)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.append(r[0]), "filename 000.jpg occurs twice"),
        (lambda r: r.append(record("009.jpg", 9)), "images/009.jpg: missing"),
        (lambda r: r.pop(2), "images/002.jpg: no record in annotations.json"),
        (lambda r: r[1]["camera"].update(q=[0, 0, 0, 0]), "001.jpg: the pose is not finite or q is zero"),
        (lambda r: r[1]["camera"].update(t=[0, float("nan"), 1]), "001.jpg: the pose is not finite"),
        (lambda r: r[1]["camera"].update(q=[1, 0, 0]), "001.jpg: q needs 4 and t 3 numbers, found 3 and 3"),
        (lambda r: r[1]["camera"].update(focal_length=0), "001.jpg: focal_length 0.0"),
        (lambda r: r[1].pop("camera"), "record 1: expected filename, image_size"),
        (lambda r: r[1].update(filename="../001.jpg"), "is not the plain name of a picture"),
    ],
)
def test_errors_of_2_9_in_the_records(tmp_path: Path, change: Callable[[Any], None], message: str) -> None:
    root = build(tmp_path / "navi")
    edit(root, change)
    report, data = inspect(tmp_path)
    assert data is None
    assert report.verdict == "wrong"
    assert any(message in p and OBJECTS[0] in p for p in report.problems), report.problems


def test_errors_of_2_9_in_the_files(tmp_path: Path) -> None:
    root = build(tmp_path / "navi")
    first, second = (root / o / "wild_set" for o in OBJECTS[:2])
    (first / "depth" / "000.png").unlink()
    (first / "images" / "001.jpg").unlink()
    Image.new("L", (WIDTH, HEIGHT)).save(first / "depth" / "002.png")
    Image.fromarray(np.ones((WIDTH, HEIGHT), np.uint16)).save(first / "depth" / "003.png")
    (second / "images" / "000.jpg").write_text("no picture")
    (second / "annotations.json").write_text((second / "annotations.json").read_text()[:-5])
    report, data = inspect(root)
    assert data is None
    where = f"{OBJECTS[0]}/wild_set"
    text = "\n".join(report.problems)
    assert f"{where}/depth/000.png: missing" in text
    assert f"{where}/images/001.jpg: missing" in text
    assert f"{where}/depth/002.png: depth is 8-bit" in text
    assert f"{where}/depth/003.png: 40 x 60 has another shape" in text
    assert f"{OBJECTS[1]}/wild_set/annotations.json: cannot be read" in text


def test_no_qualifying_object_prints_both_conventions_and_the_folders(tmp_path: Path) -> None:
    (tmp_path / "navi" / "shoe" / "wild_set").mkdir(parents=True)
    (tmp_path / "navi" / "shoe" / "multi view 00").mkdir()
    report, data = inspect(tmp_path)
    assert data is None
    assert report.verdict == "wrong"
    for part in ("multiview_00_<camera>", "multiview-00-<camera>", "shoe/{multi view 00, wild_set}"):
        assert part in report.problems[0]


def test_missing_and_ambiguous(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    report, data = inspect(tmp_path)
    assert (report.verdict, data) == ("missing", None)
    assert "multiview-00-<camera>" in report.repair
    build(tmp_path / "navi_v1.0", "_")
    build(tmp_path / "navi_v1.5", "-")
    report, data = inspect(tmp_path)
    assert (report.verdict, data) == ("wrong", None)
    assert ["v1.0" in report.problems[0], "v1.5" in report.problems[1]] == [True, True]


def test_copies_are_used_when_complete_and_change_the_fingerprint(tmp_path: Path) -> None:
    root = build(tmp_path / "navi", copies=True, pictures=2)
    _, copies = inspect(root)
    _, originals = inspect(root, cache="ignore")
    assert copies is not None
    assert originals is not None
    assert list(copies.posed) == list(originals.posed)
    key = f"{OBJECTS[0]}/wild_set/001"
    assert copies.posed[key].downsampled
    assert copies.posed[key].size == (WIDTH, HEIGHT)  # size and focal length stay those of the original
    assert copies.images[key].name.endswith("images/downsampled_001.jpg")
    assert copies.posed[key].depth.name.endswith("depth/downsampled_001.png")
    assert originals.images[key].name.endswith("images/001.jpg")
    assert copies.fingerprint != originals.fingerprint

    (root / OBJECTS[0] / "wild_set" / "depth" / "downsampled_001.png").unlink()
    _, incomplete = inspect(root)
    assert incomplete is not None
    assert incomplete.fingerprint == originals.fingerprint
    report, data = inspect(root, cache="require")
    assert data is None
    assert "depth/downsampled_001.png: missing" in report.problems[0]


def test_copies_of_another_size_are_refused(tmp_path: Path) -> None:
    root = build(tmp_path / "navi", copies=True, pictures=1)
    write_picture(root / OBJECTS[0] / "wild_set", "downsampled_000.jpg", size=(768, 512))
    report, data = inspect(root)
    assert data is None
    assert "768 x 512" in report.problems[0]
    assert "1536 x 1024" in report.problems[0]
    assert "cache=ignore" in report.repair


def test_fingerprint_follows_labels_not_spelling(tmp_path: Path) -> None:
    root = build(tmp_path / "navi")
    before, _ = inspect(root)
    edit(root, lambda r: r[0]["camera"].update(t=[1.0, 2.0, 900.0]))
    changed, _ = inspect(root)
    edit(root, lambda r: r[0]["camera"].update(t=[1, 2, 900]))
    respelt, _ = inspect(root)
    assert before.fingerprint != changed.fingerprint
    assert changed.fingerprint == respelt.fingerprint


def test_unknown_choices(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cache"):
        inspect(tmp_path, cache="always")
    with pytest.raises(UsageError, match="multiview"):
        inspect(tmp_path, split="multiview")
    assert INFO.expected == {"objects": 35, "images": 2298}
