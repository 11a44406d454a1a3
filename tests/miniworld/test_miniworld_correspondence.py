"""Correspondence sets on disk: SPair's keys and rules, and NAVI's geometry by an oracle that reads only the files."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from layout_scenes import SPEC, frames, grey

from mtv.miniworld.layouts.navi import quaternion
from mtv.miniworld.layouts.scales import SCALES
from mtv.miniworld.layouts.spair import Spair, apart, mirror, scale_variation, split_pairs, viewpoint_variation
from mtv.miniworld.vocabulary import CATEGORIES


def test_spair_files_have_the_keys_of_the_original(mini_world: Path, real_data: Path) -> None:
    reference = real_data / "correspondence/spair71k_format_reference"
    image, pair = (json.loads(next(reference.glob(p)).read_bytes()) for p in ("2008*.json", "000006*.json"))
    ours = next((mini_world / "spair/PairAnnotation/test").iterdir())
    assert json.loads(ours.read_bytes()).keys() == pair.keys()
    ours = next((mini_world / "spair/ImageAnnotation/mug").iterdir())
    assert json.loads(ours.read_bytes()).keys() == image.keys()


def test_spair_pairs_follow_their_rules(mini_world: Path) -> None:
    root = mini_world / "spair"
    listed = (root / "Layout/large/test.txt").read_text().split()
    assert sorted(f"{name}.json" for name in listed) == sorted(p.name for p in (root / "PairAnnotation/test").iterdir())
    assert (root / "Layout/small/test.txt").read_text().split() == listed[::4]
    assert len(listed) >= 16
    for name in listed:
        pair = json.loads((root / f"PairAnnotation/test/{name}.json").read_bytes())
        notes = [root / "ImageAnnotation" / pair["category"] / pair[side] for side in ("src_imname", "trg_imname")]
        images = [json.loads(note.with_suffix(".json").read_bytes()) for note in notes]
        shared = [k for k in images[0]["kps"] if all(i["kps"][k] for i in images)]
        assert pair["kps_ids"] == shared
        assert len(shared) >= 3
        assert pair["src_kps"] == [images[0]["kps"][k] for k in shared]
        assert pair["trg_kps"] == [images[1]["kps"][k] for k in shared]
        assert pair["truncation"] == images[0]["truncated"] + 2 * images[1]["truncated"]
        # azimuth_id is an eighth of a turn: it bounds the difference of azimuths from both sides
        sectors = abs(images[0]["azimuth_id"] - images[1]["azimuth_id"])
        possible = {0: (0,), 1: (0, 1), 2: (1, 2), 3: (2,), 4: (2,)}[min(sectors, 8 - sectors)]
        assert pair["viewpoint_variation"] in possible


def test_splits_have_pairs_of_their_own_pictures(mini_world: Path) -> None:
    notes = [json.loads(p.read_bytes()) for p in sorted((mini_world / "spair/ImageAnnotation").rglob("*.json"))]
    rows = [{"split": ("trn", "test")[i % 3 == 0], "record": n, "azimuth": 90.0 * (i % 4)} for i, n in enumerate(notes)]
    every = split_pairs(rows, spec=SPEC, split="trn", most=100)
    own = {r["record"]["filename"] for r in rows if r["split"] == "trn"}
    assert len(every) >= 5
    assert all({p["src_imname"], p["trg_imname"]} <= own for p in every)
    assert [p["pair_id"] for p in every] == list(range(len(every)))
    one = split_pairs(rows * 2, spec=SPEC, split="trn", most=1)
    assert max(Counter(p["category"] for p in one).values()) == 1
    other = [r for r in Spair().requests(SPEC, SCALES["small"]) if r.split != "spair/test"]
    assert Counter((r.split, r.category) for r in other) == Counter(
        dict.fromkeys(itertools.product(("spair/val", "spair/trn"), CATEGORIES), 2)
    )


def test_spair_boxes_masks_and_keypoints_agree(mini_world: Path) -> None:
    root = mini_world / "spair"
    near = []
    for path in sorted((root / "ImageAnnotation").rglob("*.json")):
        note = json.loads(path.read_bytes())
        mask_HW = grey(root / "Segmentation" / note["category"] / f"{path.stem}.png")
        assert mask_HW.shape == (note["image_height"], note["image_width"])
        rows, columns = np.nonzero(mask_HW)
        assert note["bndbox"] == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        for point in note["kps"].values():
            if point is not None:
                near.append(np.hypot(columns + 0.5 - point[0], rows + 0.5 - point[1]).min())
    assert len(near) > 150
    assert np.quantile(near, 0.99) < 1.5


@pytest.mark.parametrize(
    ("a", "b", "viewpoint", "mirrored"),
    [
        *((0, 0, 0, 0), (350, 30, 0, 0), (10, 60, 1, 0), (0, 90, 1, 0), (60, 300, 2, 1), (90, 270, 2, 1)),
        *((90, 250, 2, 1), (30, 200, 2, 0), (45, 225, 2, 0), (0, 180, 2, 0), (20, 340, 0, 0)),
    ],
)
def test_rules_for_azimuths(a: float, b: float, viewpoint: int, mirrored: int) -> None:
    assert (viewpoint_variation(a, b), mirror(a, b)) == (viewpoint, mirrored)


@given(a=st.floats(0, 360), b=st.floats(0, 360), turn=st.integers(-3, 3))
def test_azimuth_rules_are_symmetric_and_periodic(a: float, b: float, turn: int) -> None:
    direct = min(abs(a - b), 360 - abs(a - b))
    assert apart(a, b) == pytest.approx(direct, abs=1e-9)
    assert apart(a, b + 360 * turn) == pytest.approx(direct, abs=1e-6)
    assert viewpoint_variation(a, b) == viewpoint_variation(b, a)
    assert mirror(a, b) == mirror(b, a)


def test_rules_for_scale() -> None:
    box = (0, 0, 100, 50)
    assert [scale_variation(box, (0, 0, s, 10)) for s in (100, 77, 76, 56, 55, 129, 130, 180)] == [
        0,
        0,
        1,
        1,
        2,
        0,
        1,
        2,
    ]


# geometric correspondence


class View:
    """One picture of the NAVI layout, read from its files alone."""

    def __init__(self, wild: Path, record: dict[str, Any]) -> None:
        from scipy.spatial.transform import Rotation

        stem = Path(record["filename"]).stem
        codes_HW = grey(wild / "depth" / f"{stem}.png").astype(np.float64)
        self.mask_HW = grey(wild / "masks" / f"{stem}.png") == 255
        self.depth_HW = np.divide(655.35, codes_HW, out=np.zeros_like(codes_HW), where=codes_HW > 0)
        w, x, y, z = record["camera"]["q"]
        self.rotation = Rotation.from_quat([x, y, z, w]).as_matrix()
        self.shift = np.array(record["camera"]["t"]) / 1000
        self.focal = record["camera"]["focal_length"]
        self.size = np.array(record["image_size"][::-1])

    def lift(self, points_N2: np.ndarray, depth_N: np.ndarray) -> np.ndarray:
        """Pixels with depth to the object's frame, [N,3]."""
        rays = np.column_stack([(points_N2 - self.size / 2) / self.focal, np.ones(len(points_N2))])
        return (rays * depth_N[:, None] - self.shift) @ self.rotation

    def project(self, points_N3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The object's frame to pixels [N,2] and depth [N]."""
        camera_N3 = points_N3 @ self.rotation.T + self.shift
        return camera_N3[:, :2] / camera_N3[:, 2:] * self.focal + self.size / 2, camera_N3[:, 2]

    def surface(self) -> np.ndarray:
        """Every seen pixel in the object's frame."""
        rows, columns = np.nonzero(self.mask_HW)
        return self.lift(np.column_stack([columns, rows]) + 0.5, self.depth_HW[rows, columns])


def views(mini_world: Path) -> dict[str, list[View]]:
    """Object to its pictures."""
    found = {}
    for path in sorted((mini_world / "navi").glob("*/wild_set/annotations.json")):
        found[path.parent.parent.name] = [View(path.parent, r) for r in json.loads(path.read_bytes())]
    return found


def round_trip(a: View, b: View) -> tuple[np.ndarray, float]:
    """Points of `a` that `b` sees: distance in pixels after going to `b`'s surface and back; share of `a`'s points.

    `b`'s depth is read between four pixels on one surface, bilinearly in 1 / depth, which is exact on planes.
    """
    points_N3 = a.surface()
    at_N2, depth_N = b.project(points_N3)
    corner_N2 = np.floor(at_N2 - 0.5).astype(int)
    inside = ((corner_N2 >= 0) & (corner_N2 < b.size - 1)).all(axis=1) & (depth_N > 0)
    at_N2, depth_N, points_N3, (column, row) = at_N2[inside], depth_N[inside], points_N3[inside], corner_N2[inside].T
    u, v = (at_N2 - 0.5 - corner_N2[inside]).T
    four = np.stack([b.depth_HW[row + i, column + j] for i in (0, 1) for j in (0, 1)])
    weights = np.stack([(1 - v) * (1 - u), (1 - v) * u, v * (1 - u), v * u])
    whole = (four > 0).all(axis=0) & (np.ptp(four, axis=0) < 0.02)
    there = 1 / (weights / np.where(whole, four, 1)).sum(axis=0)
    # Within a centimetre in depth the two are the same surface: objects are 20 cm and larger.
    same = whole & (np.abs(there - depth_N) < 0.01)
    back_N2, _ = a.project(b.lift(at_N2[same], there[same]))
    start_N2, _ = a.project(points_N3[same])
    return np.linalg.norm(back_N2 - start_N2, axis=1), same.sum() / len(inside)


def test_navi_depth_lies_in_the_mask_and_codes_are_as_documented(mini_world: Path) -> None:
    for object_views in views(mini_world).values():
        for view in object_views:
            assert ((view.depth_HW > 0) == view.mask_HW).all()
            assert view.mask_HW.mean() > 0.005
    for request, frame in frames("navi", 2):
        wild = mini_world / "navi" / f"{request.category}_000" / "wild_set"
        codes_HW = grey(wild / "depth" / f"{request.index % 4:03d}.png").astype(np.float64)
        mask_HW = codes_HW > 0
        exact_HW = 655350 / (1000.0 * frame.depth_HW[mask_HW])
        assert np.abs(codes_HW[mask_HW] - exact_HW).max() <= 0.501


def test_navi_pairs_reproject_onto_the_same_surface(mini_world: Path) -> None:
    errors, shares = [], []
    for object_views in views(mini_world).values():
        for a in object_views:
            for b in object_views:
                if a is not b:
                    distances, share = round_trip(a, b)
                    errors.append(distances)
                    shares.append(share)
    pixels = np.concatenate(errors)
    assert len(pixels) > 2000
    assert np.mean(pixels < 1) > 0.97
    assert np.median(pixels) < 0.5
    assert np.mean(shares) > 0.2


def test_navi_reprojection_notices_a_pose_that_is_off_by_three_degrees(mini_world: Path) -> None:
    from scipy.spatial.transform import Rotation

    straight, turned = [], []
    for a, b, *_ in views(mini_world).values():
        straight.append(round_trip(a, b)[1])
        b.rotation = Rotation.from_euler("xyz", [3, 3, 3], degrees=True).as_matrix() @ b.rotation
        b.shift = b.shift + np.array([0.01, 0, 0])
        distances, share = round_trip(a, b)
        turned.append(share * np.mean(distances < 1) if len(distances) else 0.0)
    assert sum(turned) < 0.7 * sum(straight)


def test_no_point_of_one_view_floats_before_the_surface_of_another(mini_world: Path) -> None:
    for object_views in views(mini_world).values():
        for a in object_views:
            for b in object_views:
                at_N2, depth_N = b.project(a.surface())
                cell_N2 = np.floor(at_N2).astype(int)
                inside = ((cell_N2 >= 1) & (cell_N2 < b.size - 1)).all(axis=1)
                column, row = cell_N2[inside].T
                around = np.stack([b.depth_HW[row + i, column + j] for i in (-1, 0, 1) for j in (-1, 0, 1)])
                whole = (around > 0).all(axis=0)
                assert np.mean(depth_N[inside][whole] < around.min(axis=0)[whole] - 0.01) < 0.005


@given(st.tuples(*[st.floats(-1, 1) for _ in range(4)]).filter(lambda q: np.linalg.norm(q) > 1e-3))
def test_quaternion_inverts_the_rotation(q: tuple[float, float, float, float]) -> None:
    from scipy.spatial.transform import Rotation

    w, x, y, z = np.array(q) / np.linalg.norm(q)
    matrix = Rotation.from_quat([x, y, z, w]).as_matrix()
    found = np.array(quaternion(matrix))
    assert abs(np.dot(found, [w, x, y, z])) == pytest.approx(1, abs=1e-9)
    assert found[0] >= 0
