"""Keypoint transfer in both modes (rows S1 to S5 and S8)."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mtv.errors import DataError, UsageError
from mtv.probes.resample import Mode, SquareGrid
from mtv.probes.semantic import (
    KeypointErrors,
    KeypointImage,
    best_cells,
    error_scale,
    keypoint_array,
    match_keypoints,
    predicted_pixels,
    sample_descriptors,
    scale_keypoints,
    shared_keypoints,
    unit_map,
)

G16 = SquareGrid(size=800, patch=16)
G14 = SquareGrid(size=800, patch=14)


def image(
    tokens: torch.Tensor, keypoints: np.ndarray, size: tuple[int, int] = (800, 800), box_side: float = 400
) -> KeypointImage:
    return KeypointImage(tokens=tokens, keypoints=keypoints, size=size, box=(10, 10, 10 + box_side, 10 + box_side / 2))


def one_hot(g: int) -> torch.Tensor:
    """Every cell has its own axis."""
    return torch.eye(g * g).reshape(g, g, g * g)


def cell_centres(cells: list[tuple[int, int]], grid: SquareGrid) -> np.ndarray:
    return (np.array(cells, dtype=float) + 0.5) * grid.patch - grid.pad


def hit(errors: KeypointErrors, alpha: float = 0.1) -> list[bool]:
    return (errors.error < alpha * errors.scale).tolist()


def test_s1_keypoint_scaling() -> None:
    points = np.array([[101.0, 333.0]])
    assert scale_keypoints(points, (500, 375), G16, "probe3d").tolist() == [[161, 532]]
    assert scale_keypoints(points, (500, 375), G16, "centered")[0].tolist() == pytest.approx([161.6, 532.8])
    assert scale_keypoints(points, (375, 500), G14, "centered")[0].tolist() == pytest.approx([167.6, 538.8])
    assert scale_keypoints(points, (500, 375), G14, "probe3d").tolist() == [[161, 532]]


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 640), st.integers(641, 2000))
def test_probe3d_keypoints_are_float32_products(x: int, side: int) -> None:
    got = scale_keypoints(np.array([[x, x]], dtype=float), (side, 10), G16, "probe3d")
    expected = int((torch.tensor(float(x)) * 800 / side).item())
    assert got.tolist() == [[expected, expected]]


@pytest.mark.parametrize("box_side", [0.14 * 800, 0.15 * 800])
def test_s2_s3_one_hot_map_against_itself(box_side: float) -> None:
    cells = [(0, 0), (1, 0), (24, 25), (49, 0), (0, 49), (49, 49), (7, 31), (48, 12)]
    points = cell_centres(cells, G16)
    same = image(one_hot(50), points, box_side=box_side)
    biased = match_keypoints(same, same, G16, "probe3d")
    assert biased.error.tolist() == pytest.approx([0.0141421] * 8, abs=1e-7)
    assert (800 * biased.error).tolist() == pytest.approx([11.3] * 8, abs=0.02)
    assert hit(biased) == [box_side > 0.145 * 800] * 8
    exact = match_keypoints(same, same, G16, "centered")
    assert exact.error.tolist() == [0] * 8
    assert hit(exact) == [True] * 8
    assert exact.predicted.tolist() == points.tolist()
    assert biased.predicted - points == pytest.approx(np.full((8, 2), -8.0))


def test_s4_threshold_scale() -> None:
    box = (50, 60, 250, 160)
    assert error_scale(box, (500, 375), "probe3d") == 0.4
    assert 0.1 * error_scale(box, (500, 375), "probe3d") * 800 == pytest.approx(32)
    assert error_scale(box, (500, 375), "centered") == 200
    for bad in ((50, 60, 50, 160), (50, 60, 250, 40)):
        with pytest.raises(DataError, match="not positive"):
            error_scale(bad, (500, 375), "centered")


def test_s5_patch_14_bias() -> None:
    cells = np.array([[0, 0], [29, 29], [57, 57]])
    centre = cell_centres(cells.tolist(), G14)
    assert centre[:, 0].tolist() == [1, 407, 799]
    bias = predicted_pixels(cells, (800, 800), G14, "probe3d") - centre
    assert bias[:, 0].tolist() == pytest.approx([-1.0, -7.0, -12.8], abs=0.05)
    assert predicted_pixels(cells, (800, 800), G14, "centered").tolist() == centre.tolist()
    every = np.arange(58)[:, None].repeat(2, 1)
    mean = (predicted_pixels(every, (800, 800), G14, "probe3d") - cell_centres(every.tolist(), G14)).mean()
    assert mean == pytest.approx(-6.9, abs=0.05)
    plain = np.arange(50)[:, None].repeat(2, 1)
    shift = predicted_pixels(plain, (800, 800), G16, "probe3d") - cell_centres(plain.tolist(), G16)
    assert shift == pytest.approx(np.full((50, 2), -8.0))
    same = image(one_hot(58), centre)
    assert match_keypoints(same, same, G14, "centered").error.tolist() == [0, 0, 0]


def test_s8_missing_keypoints_keep_their_numbers() -> None:
    cells = [(3, 4), (10, 11), (20, 30), (40, 5)]
    points = cell_centres(cells, G16)
    source_list: list[list[float] | None] = [*points.tolist()]
    target_list: list[list[float] | None] = [*points.tolist()]
    source_list[1] = None
    target_list[2] = None
    source, target = (image(one_hot(50), keypoint_array(k)) for k in (source_list, target_list))
    assert shared_keypoints(source.keypoints, target.keypoints).tolist() == [0, 3]
    assert shared_keypoints(source.keypoints, target.keypoints[:2]).tolist() == [0]
    for mode in ("probe3d", "centered"):
        found = match_keypoints(source, target, G16, mode)  # type: ignore[arg-type]
        assert found.keypoint.tolist() == [0, 3]
        assert len(found.error) == 2
        assert found.error == pytest.approx([0.0141421 if mode == "probe3d" else 0] * 2, abs=1e-7)
    nothing = match_keypoints(source, image(one_hot(50), keypoint_array([None] * 4)), G16, "centered")
    assert nothing.keypoint.tolist() == nothing.error.tolist() == []


@pytest.mark.parametrize("grid", [G16, G14])
def test_s8_portrait_and_landscape_have_the_same_error(grid: SquareGrid) -> None:
    """Transposing the pictures, maps and keypoints changes no error in target pixels."""
    g = torch.Generator().manual_seed(0)
    maps = [unit_map(torch.randn(grid.cells, grid.cells, 20, generator=g)) for _ in range(2)]
    points = np.random.default_rng(0).uniform(0, 370, size=(12, 2))
    landscape = [image(m, points, size=(500, 375)) for m in maps]
    portrait = [image(m.transpose(0, 1), points[:, ::-1], size=(375, 500)) for m in maps]
    # The box is transposed too; its longer side stays.
    a, b = (match_keypoints(p[0], p[1], grid, "centered") for p in (landscape, portrait))
    assert a.error == pytest.approx(b.error, abs=1e-9)
    assert a.predicted == pytest.approx(b.predicted[:, ::-1], abs=1e-9)
    assert a.scale == b.scale
    # A target that was stored twice as large doubles error and scale.
    large = image(maps[1], points * 2, size=(1000, 750), box_side=800)
    c = match_keypoints(landscape[0], large, grid, "centered")
    assert c.error == pytest.approx(2 * a.error, abs=1e-9)
    assert c.scale == 2 * a.scale


@pytest.mark.parametrize("grid", [G16, G14])
@pytest.mark.parametrize("mode", ["probe3d", "centered"])
def test_descriptors_equal_grid_sample(grid: SquareGrid, mode: Mode) -> None:
    tokens = torch.randn(grid.cells, grid.cells, 8, generator=torch.Generator().manual_seed(1))
    points = np.random.default_rng(1).uniform(0, 500, size=(40, 2))
    points[:2] = [[0, 0], [500, 500]]
    k = scale_keypoints(points, (500, 400), grid, mode)
    full = 800 if mode == "probe3d" else grid.cells * grid.patch
    place = torch.from_numpy(2 * k / full - 1)[None, None]
    expected = F.grid_sample(
        tokens.double().permute(2, 0, 1)[None],
        place.double(),
        mode="bilinear",
        padding_mode="border",
        align_corners=mode == "probe3d",
    )[0, :, 0].T
    torch.testing.assert_close(sample_descriptors(tokens, k, grid, mode).double(), expected, atol=2e-6, rtol=0)


def naive_transfer(
    source: KeypointImage, target: KeypointImage, grid: SquareGrid, mode: Mode
) -> list[tuple[int, float]]:
    """One keypoint at a time, fp64, from the protocol's table."""
    s_side, t_side, g, p = max(source.size), max(target.size), grid.cells, grid.patch
    pad = (g * p - 800) // 2
    rows = []
    for i, (a, b) in enumerate(zip(source.keypoints, target.keypoints, strict=True)):
        if np.isnan([*a, *b]).any():
            continue
        if mode == "probe3d":
            cell = [int(np.float32(v) * np.float32(800) / np.float32(s_side)) / 800 * (g - 1) for v in a]
        else:
            cell = [min(max((v * 800 / s_side + pad) / p - 0.5, 0), g - 1) for v in a]
        descriptor = np.zeros(source.tokens.shape[-1])
        for r in range(g):
            for c in range(g):
                weight = max(0, 1 - abs(c - cell[0])) * max(0, 1 - abs(r - cell[1]))
                if weight:
                    descriptor += weight * source.tokens[r, c].double().numpy()
        scores = target.tokens.double().numpy() @ descriptor
        r, c = np.unravel_index(scores.argmax(), scores.shape)
        if mode == "probe3d":
            truth = [int(np.float32(v) * np.float32(800) / np.float32(t_side)) / 800 for v in b]
            rows.append((i, math.dist((c / g, r / g), truth)))
        else:
            rows.append((i, math.dist([((v + 0.5) * p - pad) * t_side / 800 for v in (c, r)], b)))
    return rows


@pytest.mark.parametrize("grid", [G16, G14])
@pytest.mark.parametrize("mode", ["probe3d", "centered"])
def test_match_keypoints_equals_a_naive_loop(grid: SquareGrid, mode: Mode) -> None:
    rng = np.random.default_rng(2)
    g = torch.Generator().manual_seed(2)
    base = torch.randn(grid.cells, grid.cells, 16, generator=g)
    source = image(unit_map(base), rng.uniform(0, 480, size=(10, 2)), size=(640, 480))
    noisy = base + 0.5 * torch.randn(base.shape, generator=g)
    target = image(unit_map(noisy), rng.uniform(0, 300, size=(10, 2)), size=(300, 451))
    source.keypoints[3] = np.nan
    found = match_keypoints(source, target, grid, mode)
    expected = naive_transfer(source, target, grid, mode)
    assert found.keypoint.tolist() == [i for i, _ in expected]
    assert found.error == pytest.approx([e for _, e in expected], abs=1e-9)


def test_ties_go_to_the_first_cell() -> None:
    tokens = torch.ones(50, 50, 4) / 2
    assert best_cells(torch.ones(3, 4), tokens).tolist() == [[0, 0]] * 3
    tokens[0, 0] = 0
    assert best_cells(torch.ones(1, 4), tokens).tolist() == [[1, 0]]


def test_maps_are_checked() -> None:
    points = np.array([[10.0, 10.0]])
    good = image(one_hot(50), points)
    with pytest.raises(UsageError, match="unit length"):
        match_keypoints(image(one_hot(50) * 3, points), good, G16, "centered")
    with pytest.raises(UsageError, match=r"50x50xD for size 800 and patch 16, got torch.float32 \(58, 58"):
        match_keypoints(good, image(one_hot(58), points), G16, "centered")
    with pytest.raises(UsageError, match="float16"):
        match_keypoints(good, image(one_hot(50).half(), points), G16, "probe3d")
    with pytest.raises(UsageError, match="correspondence mode"):
        match_keypoints(good, good, G16, "pck")  # type: ignore[arg-type]


def test_real_annotations_transfer_onto_themselves(real_data: Path) -> None:
    """Position maps: with features that encode the cell, every real keypoint lands in its own cell."""
    root = real_data / "correspondence" / "keypoint_pairs_spair_layout" / "ImageAnnotation"
    files = sorted(root.glob("*/*.json"))[::8]
    assert files
    tokens = one_hot(50)
    for path in files:
        record = json.loads(path.read_text())
        size = (record["image_width"], record["image_height"])
        kps = keypoint_array([record["kps"][str(i)] for i in range(len(record["kps"]))])
        item = KeypointImage(tokens=tokens, keypoints=kps, size=size, box=tuple(record["bndbox"]))
        found = match_keypoints(item, item, G16, "centered")
        assert len(found.error) == np.isfinite(kps).all(1).sum() > 0
        assert found.error.max() <= math.hypot(8, 8) * max(size) / 800 + 1e-9
        k = scale_keypoints(kps[found.keypoint], size, G16, "probe3d") / 800
        expected = np.linalg.norm(np.rint(k * 49) / 50 - k, axis=1)
        assert match_keypoints(item, item, G16, "probe3d").error == pytest.approx(expected)
