"""Pair drawing and recalls (rows N7, N8, N9, N10 and the candidate half of N12)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from mtv.errors import DataError, UsageError
from mtv.probes.correspondence import (
    NAVI,
    SEVENSCENES,
    DrawnPair,
    PairScore,
    RecallSpec,
    angle_bins,
    bin_counts,
    count_below,
    draw_navi_pairs,
    draw_stratified_pairs,
    score_pair,
    summarise,
)
from mtv.probes.geometry import quaternion_to_rotation
from mtv.probes.matching import lookup_map, match_grids, upsample_map

F600 = (600.0, 600.0)


def self_matches(z: float = 1.0) -> tuple[object, torch.Tensor]:
    """Matches of a distinctive map with itself, and a fronto-parallel grid of points at depth z."""
    grid = upsample_map(torch.randn(32, 32, 32, generator=torch.Generator().manual_seed(0)), (64, 64))
    v, u = torch.meshgrid(torch.linspace(-0.3, 0.3, 64), torch.linspace(-0.3, 0.3, 64), indexing="ij")
    xyz = torch.stack([u, v, torch.full_like(u, z)], dim=-1)
    valid = torch.ones(64, 64, dtype=torch.bool)
    return match_grids(grid, valid, grid, valid, require_k=True), xyz


def pair(
    *, angle: float = 10.0, n: int = 1000, metres: tuple[int, ...] = (0, 0, 0), pixels: tuple[int, ...] = (0, 0, 0)
) -> PairScore:
    empty = np.zeros(0, dtype=np.float32)
    return PairScore(angle=angle, n=n, hits_metres=metres, hits_pixels=pixels, errors_metres=empty, errors_pixels=empty)


def test_n7_identity_scores_100_everywhere() -> None:
    matches, xyz = self_matches()
    score = score_pair(matches, xyz, xyz, torch.eye(4), F600, NAVI)
    assert score.n == 1000
    assert score.angle == 0
    assert score.errors_metres.max() == score.errors_pixels.max() == 0
    result = summarise([score], NAVI, pooling="matches")
    assert {result[k] for k in result if k.startswith("recall") and "_0_30" in k} == {100.0}
    assert [result[k] for k in ("recall_1cm", "recall_2cm", "recall_5cm", "recall_5px", "recall_25px")] == [100.0] * 5
    assert result["avg_recall"] == result["avg_recall_bins"] == 100.0


def test_n8_translation_of_15_mm() -> None:
    matches, xyz = self_matches()
    pose = torch.eye(4, dtype=torch.float64)
    pose[0, 3] = 0.015
    score = score_pair(matches, xyz, xyz, pose, F600, NAVI)
    assert score.hits_metres == (0, 1000, 1000)
    assert score.hits_pixels == (0, 1000, 1000)
    assert score.errors_pixels.tolist() == pytest.approx([9.0] * 1000, abs=1e-3)
    result = summarise([score], NAVI, pooling="matches")
    assert result["avg_recall"] == pytest.approx(66.67, abs=0.005)
    assert [result[f"recall_{k}"] for k in ("1cm", "2cm", "5cm", "5px", "25px", "50px")] == [0, 100, 100, 0, 100, 100]


def test_pixel_thresholds_scale_with_the_input_and_centimetres_do_not() -> None:
    """N8 seen by a crop of 192: the focal length and the 9 px of error shrink by 512 / 192, the hits stay."""
    matches, xyz = self_matches()
    pose = torch.eye(4, dtype=torch.float64)
    zoom = 192 / 512
    small = (F600[0] * zoom, F600[1] * zoom)
    for millimetres, hits in ((15, (0, 1000, 1000)), (8, (1000, 1000, 1000)), (50, (0, 0, 1000)), (90, (0, 0, 0))):
        pose[0, 3] = millimetres / 1000
        large = score_pair(matches, xyz, xyz, pose, F600, NAVI)
        scaled = score_pair(matches, xyz, xyz, pose, small, NAVI, zoom=zoom)
        assert scaled.hits_pixels == large.hits_pixels == hits
        assert scaled.hits_metres == large.hits_metres
        assert scaled.errors_pixels.tolist() == pytest.approx((large.errors_pixels * zoom).tolist(), rel=1e-5)
    # Without the zoom 15 mm, 9 px at 512, would count as 3.4 px and pass the first threshold.
    pose[0, 3] = 0.015
    assert score_pair(matches, xyz, xyz, pose, small, NAVI).hits_pixels == (1000, 1000, 1000)


def test_score_pair_matches_a_naive_loop() -> None:
    rng = np.random.default_rng(3)
    matches, xyz0 = self_matches()
    xyz1 = xyz0 + torch.from_numpy(rng.normal(scale=0.01, size=xyz0.shape)).float()
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("y", 0.5, degrees=True).as_matrix()
    score = score_pair(matches, xyz0, xyz1, torch.from_numpy(pose), (650.0, 640.0), NAVI)
    metres, pixels = [0, 0, 0], [0, 0, 0]
    for i, j in zip(matches.index0.tolist(), matches.index1.tolist(), strict=True):
        a = pose[:3, :3] @ xyz0.view(-1, 3)[i].double().numpy()
        b = xyz1.view(-1, 3)[j].double().numpy()
        for t in range(3):
            metres[t] += math.dist(a, b) < NAVI.metres[t]
            gap = [650 * (a[0] / a[2] - b[0] / b[2]), 640 * (a[1] / a[2] - b[1] / b[2])]
            pixels[t] += math.hypot(*gap) < NAVI.pixels[t]
    assert score.hits_metres == tuple(metres)
    assert score.hits_pixels == tuple(pixels)
    assert score.angle == pytest.approx(0.5, abs=1e-9)
    assert 0 < metres[0] < metres[1] < 1000
    assert score.errors_metres.dtype == np.float32


def test_n9_threshold_and_bins() -> None:
    assert count_below(np.array([0.02, 0.019999], dtype=np.float32), NAVI.metres) == (0, 1, 2)
    edges = [0.0, 30.0, 60.0, 90.0, 120.0]
    assert angle_bins(edges, NAVI.bins).tolist() == [0, 1, 2, 3, -1]
    assert angle_bins([e + 1e-3 for e in edges], NAVI.bins).tolist() == [0, 1, 2, 3, -1]
    assert angle_bins([e - 1e-3 for e in edges], NAVI.bins).tolist() == [-1, 0, 1, 2, 3]
    for degrees, expected in ((29.999, 0), (30.001, 1), (119.999, 3), (120.001, -1)):
        matches, xyz = self_matches()
        pose = torch.eye(4, dtype=torch.float64)
        pose[:3, :3] = torch.from_numpy(Rotation.from_euler("z", degrees, degrees=True).as_matrix())
        angle = score_pair(matches, xyz, xyz, pose, F600, NAVI).angle
        assert angle == pytest.approx(degrees, abs=1e-6)
        assert angle_bins([angle], NAVI.bins).tolist() == [expected]


def test_n10_multinomial_stream() -> None:
    generator = torch.Generator().manual_seed(8)
    weights = torch.tensor([0.0, 1, 1, 1, 1])
    drawn = [int(torch.multinomial(weights, 1, generator=generator)) for _ in range(12)]
    assert drawn == [2, 2, 4, 1, 4, 1, 2, 4, 1, 4, 4, 2]


def rotations(degrees: list[float]) -> torch.Tensor:
    matrices = Rotation.from_rotvec([[0, 0, d] for d in degrees], degrees=True).as_matrix()
    return torch.from_numpy(np.asarray(matrices)).float()


def test_n10_stream_drives_the_pairs_of_an_object() -> None:
    """Five views 10 degrees apart, diagonal removed: image 0 sees the weights of N10 and takes the first draw, 2."""
    views = rotations([0, 10, 20, 30, 40])
    pairs = draw_navi_pairs([views], stride=1, self_pairs=False)
    assert pairs[0] == DrawnPair(object=0, index0=0, index1=2)
    generator = torch.Generator().manual_seed(8)
    for i in range(5):
        weights = torch.ones(5)
        weights[i] = 0
        assert pairs[i].index1 == int(torch.multinomial(weights, 1, generator=generator))


def random_objects(sizes: list[int], seed: int) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return [quaternion_to_rotation(torch.randn(n, 4, generator=g), torch.float32) for n in sizes]


def test_draw_navi_pairs_matches_a_naive_loop() -> None:
    objects = random_objects([30, 17, 41], 1)
    generator = torch.Generator().manual_seed(8)
    expected = []
    for o, views in enumerate(objects):
        for i in range(len(views)):
            weights = torch.zeros(len(views))
            for j in range(len(views)):
                trace = torch.trace(views[i].double() @ views[j].double().T)
                angle = math.degrees(math.acos(max(-1.0, min(1.0, (float(trace) - 1) / 2))))
                weights[j] = float(i != j and angle <= 120)
            expected.append((o, i, int(torch.multinomial(weights, 1, generator=generator))))
    got = draw_navi_pairs(objects, self_pairs=False)
    assert [(p.object, p.index0, p.index1) for p in got] == expected[::4]
    assert len(got) == math.ceil(88 / 4)


def test_self_pairs_appear_only_where_they_are_kept() -> None:
    objects = random_objects([40] * 40, 2)
    kept = draw_navi_pairs(objects, stride=1)
    share = sum(p.index0 == p.index1 for p in kept) / len(kept)
    # About 31 % of the images are candidates of their own, beside about 39 * 0.39 others: some 2 %.
    assert 0.008 < share < 0.035
    assert not any(p.index0 == p.index1 for p in draw_navi_pairs(objects, stride=1, self_pairs=False))
    assert draw_navi_pairs(objects, stride=4) == kept[::4]
    assert draw_navi_pairs(objects, stride=1, seed=9) != kept


def test_n12_no_candidate() -> None:
    # Exact quarter turns in float32: the self angle is exactly 0, the other view is 180 degrees away.
    opposite = torch.stack([torch.eye(3), torch.diag(torch.tensor([1.0, -1, -1]))])
    for self_pairs in (True, False):
        with pytest.raises(DataError, match="mug/001: no other view within 120"):
            draw_navi_pairs([opposite], self_pairs=self_pairs, names=[["mug/001", "mug/002"]])
    # A view whose float32 self angle rounds above 0 pairs with itself, but only where self pairs are kept.
    q = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    views = quaternion_to_rotation(q, torch.float32)
    lucky = next(v for v in views if draws_itself(v))
    drawn = draw_navi_pairs([lucky[None]], stride=1)
    assert (drawn[0].index0, drawn[0].index1) == (0, 0)
    with pytest.raises(DataError, match="object 0, image 0"):
        draw_navi_pairs([lucky[None]], self_pairs=False)


def draws_itself(view: torch.Tensor) -> bool:
    try:
        return bool(draw_navi_pairs([view[None]], stride=1))
    except DataError:
        return False


def test_pair_drawing_checks_its_input() -> None:
    with pytest.raises(UsageError, match="float64"):
        draw_navi_pairs([rotations([0, 10]).double()])
    with pytest.raises(UsageError, match="stride"):
        draw_navi_pairs([rotations([0, 10])], stride=0)


def test_angle_of_exactly_120_can_be_drawn() -> None:
    turned = quaternion_to_rotation([[1.0, 0, 0, 0], [0.5, 0.5, 0.5, 0.5]], torch.float32)
    pairs = draw_navi_pairs([turned], stride=1, self_pairs=False)
    assert [(p.index0, p.index1) for p in pairs] == [(0, 1), (1, 0)]


def test_summarise_pooled_and_per_pair() -> None:
    scores = [
        pair(angle=5, n=1000, metres=(100, 500, 900), pixels=(0, 10, 1000)),
        pair(angle=45, n=200, metres=(20, 40, 200), pixels=(0, 0, 0)),
        pair(angle=130, n=800, metres=(0, 0, 0), pixels=(8, 8, 8)),
    ]
    pooled = summarise(scores, NAVI, pooling="matches")
    assert pooled["recall_1cm"] == pytest.approx(100 * 120 / 2000)
    assert pooled["recall_50px"] == pytest.approx(100 * 1008 / 2000)
    means = summarise(scores, NAVI, pooling="pairs")
    assert means["recall_1cm"] == pytest.approx((10 + 10 + 0) / 3)
    for result in (pooled, means):
        assert result["recall_2cm_0_30"] == 50
        assert result["recall_2cm_30_60"] == 20
        assert result["recall_2cm_60_90"] is None
        assert result["recall_2cm_90_120"] is None
        assert result["avg_recall_bins"] == 35
    assert bin_counts(scores, NAVI) == {
        "recall_2cm_0_30": 1,
        "recall_2cm_30_60": 1,
        "recall_2cm_60_90": 0,
        "recall_2cm_90_120": 0,
    }
    assert summarise(scores[2:], NAVI, pooling="pairs")["avg_recall_bins"] is None


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1000), st.floats(0, 180)), min_size=1, max_size=20))
def test_poolings_agree_when_every_pair_has_1000(rows: list[tuple[int, float]]) -> None:
    scores = [pair(angle=a, metres=(h // 3, h // 2, h), pixels=(h, h, h)) for h, a in rows]
    pooled, means = (summarise(scores, NAVI, pooling=p) for p in ("matches", "pairs"))
    assert pooled == pytest.approx(means)
    expected = np.mean([h // 3 + h // 2 + h for h, _ in rows]) / 30
    assert pooled["avg_recall"] == pytest.approx(expected)


def test_summarise_refuses_nothing_and_unknown_pooling() -> None:
    with pytest.raises(UsageError, match="0 pairs"):
        summarise([], NAVI, pooling="matches")
    with pytest.raises(UsageError, match="with matches"):
        summarise([pair(n=0)], NAVI, pooling="pairs")
    with pytest.raises(UsageError, match="pooling must be"):
        summarise([pair()], NAVI, pooling="pooled")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="bin_metres"):
        RecallSpec(metres=(0.01,), pixels=(5,), bins=((0, 30),), bin_metres=0.02)


def test_sevenscenes_keys_and_open_bin() -> None:
    scores = [pair(angle=a, metres=(100, 200, 300), pixels=(1, 2, 3)) for a in (15.0, 60.0, 179.0)]
    result = summarise(scores, SEVENSCENES, pooling="pairs")
    assert list(result) == [
        *("recall_2cm", "recall_5cm", "recall_10cm", "recall_5px", "recall_25px", "recall_50px"),
        *("recall_5cm_0_15", "recall_5cm_15_30", "recall_5cm_30_60", "recall_5cm_over_60"),
        *("avg_recall", "avg_recall_bins"),
    ]
    assert list(bin_counts(scores, SEVENSCENES).values()) == [0, 1, 0, 2]
    assert result["avg_recall"] == pytest.approx(20)


def test_stratified_pairs_fill_bins_evenly() -> None:
    rng = np.random.default_rng(0)
    pairs = [(int(a), int(a) + 1 + k) for k in range(5) for a in range(105)]
    angles = [*rng.uniform(0, 15, 169), *rng.uniform(15, 30, 215), *rng.uniform(30, 60, 132), *[70.0] * 9]
    chosen = draw_stratified_pairs(pairs, angles, 60, seed=3)
    of = dict(zip(pairs, angle_bins(angles, SEVENSCENES.bins).tolist(), strict=True))
    assert len(set(chosen)) == 60
    assert [sum(of[p] == b for p in chosen) for b in range(4)] == [17, 17, 17, 9]
    assert chosen == sorted(chosen)
    shuffled = rng.permutation(len(pairs))
    again = draw_stratified_pairs([pairs[i] for i in shuffled], [angles[i] for i in shuffled], 60, seed=3)
    assert again == chosen
    assert draw_stratified_pairs(pairs, angles, 60, seed=4) != chosen
    assert draw_stratified_pairs(pairs, angles, 10_000) == sorted(pairs)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 200), min_size=1, max_size=60), st.integers(1, 80), st.integers(0, 5))
def test_stratified_pairs_properties(angles: list[float], n: int, seed: int) -> None:
    bins = NAVI.bins
    of = angle_bins(angles, bins)
    chosen = draw_stratified_pairs(list(range(len(angles))), angles, n, seed=seed, bins=bins)
    sizes = [int((of == b).sum()) for b in range(4)]
    got = [sum(of[p] == b for p in chosen) for b in range(4)]
    assert len(chosen) == sum(got) == min(n, sum(sizes))
    # No bin that still has pairs gets less than another one, up to the remainder of one.
    for b in range(4):
        if got[b] < sizes[b]:
            assert got[b] >= max(got) - 1


def test_stratified_pairs_refuse_duplicates() -> None:
    with pytest.raises(UsageError, match="unique"):
        draw_stratified_pairs([1, 1], [0.0, 1.0], 1)


def test_end_to_end_rotation_of_a_textured_plane() -> None:
    """Two views of one plane, features painted on it: matching by features finds the geometry (both lookups)."""
    g = torch.Generator().manual_seed(5)
    waves, phase = torch.randn(2, 48, generator=g) * 12, torch.rand(48, generator=g) * 6
    rotation = torch.from_numpy(Rotation.from_euler("y", 8, degrees=True).as_matrix())
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, :3] = rotation
    pose[:3, 3] = torch.tensor([0.06, 0.0, 1.0]) - rotation @ torch.tensor([0.0, 0, 1], dtype=torch.float64)

    def view(pose_44: torch.Tensor, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Points in this camera and on the plane z = 1 of camera 0, at pixel centres of a 512 image, f = 600."""
        v, u = torch.meshgrid(pixels, pixels, indexing="ij")
        ray = torch.stack([(u - 256) / 600, (v - 256) / 600, torch.ones_like(u)], -1).double()
        back = torch.linalg.inv(pose_44)
        direction = ray @ back[:3, :3].T
        depth = (1 - back[2, 3]) / direction[..., 2:]
        return (ray * depth).float(), (direction * depth + back[:3, 3])[..., :2].float()

    tokens = (torch.arange(32) + 0.5) * 16
    for mode in ("probe3d", "centered"):
        maps, points = [], []
        for p in (torch.eye(4, dtype=torch.float64), pose):
            feature_map = torch.cos(view(p, tokens)[1] @ waves + phase)
            phase_pixel = 0.5 if mode == "probe3d" else 2.5
            points.append(view(p, torch.arange(128) * 4 + phase_pixel)[0])
            if mode == "probe3d":
                maps.append(upsample_map(feature_map))
            else:
                maps.append(lookup_map(feature_map, image_size=(512, 512), patch=16))
        valid = torch.ones(128, 128, dtype=torch.bool)
        found = match_grids(maps[0], valid, maps[1], valid, require_k=True)
        score = score_pair(found, points[0], points[1], pose, F600, NAVI)
        assert score.angle == pytest.approx(8, abs=1e-6)
        assert score.hits_metres[0] > 950, mode
        swapped = score_pair(found, points[0], points[1], torch.linalg.inv(pose), F600, NAVI)
        assert swapped.hits_metres[0] < 300, mode
