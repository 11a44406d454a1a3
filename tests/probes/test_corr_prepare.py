"""NAVI and RGB-D preparation against a step-by-step full-size pipeline and an analytic scene."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from mtv.errors import DataError, UsageError
from mtv.probes.navi_prepare import PreparedItem, downsample_for_cache, grid_pixels, prepare_navi, prepare_rgbd
from mtv.probes.resample import Mode

PLANE = np.array([0.3, -0.2, 1.0])
"""Points of the test scene satisfy PLANE . x = 1."""
FOCAL = 3000.0


def scene(
    height: int, width: int, full: tuple[int, int], box: tuple[int, int, int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """A tilted plane seen through the box (top, left, bottom, right); red and green encode the viewing ray."""
    f = FOCAL * min(height, width) / min(full)
    x = (np.arange(width) + 0.5 - width / 2) / f
    y = (np.arange(height) + 0.5 - height / 2) / f
    ray = np.stack(np.broadcast_arrays(x[None], y[:, None], 1.0), axis=-1)
    depth = (1 / (ray @ PLANE)).astype(np.float32)
    mask = np.zeros((height, width), dtype=bool)
    mask[box[0] : box[2], box[1] : box[3]] = True
    rgb = np.zeros((height, width, 3), dtype=np.uint8)
    rgb[..., :2] = np.clip(np.round(128 + 180 * ray[..., :2]), 0, 255)
    return rgb, np.where(mask, depth, 0).astype(np.float32)


def naive_probe3d(
    rgb: np.ndarray, depth: np.ndarray, full: tuple[int, int], side: int = 512, grid: int = 128
) -> tuple[np.ndarray, np.ndarray, float]:
    """Section 2.4 step by step on whole maps: image 512,512,3, xyz 128,128,3, focal."""
    h, w = depth.shape
    size = (side, int(side * w / h)) if h <= w else (int(side * h / w), side)
    stack = torch.from_numpy(np.concatenate([rgb.astype(np.float64), depth[..., None]], -1)).permute(2, 0, 1)[None]
    stack = F.interpolate(stack, size=size, mode="nearest")[0]
    top, left = round((size[0] - side) / 2), round((size[1] - side) / 2)
    stack = stack[:, top : top + side, left : left + side]
    focal, half = FOCAL * side / min(full), side / 2
    inverse = torch.linalg.inv(torch.tensor([[focal, 0, half], [0, focal, half], [0, 0, 1]], dtype=torch.float64))
    v, u = torch.meshgrid(torch.arange(side) + 0.5, torch.arange(side) + 0.5, indexing="ij")
    d = stack[3]
    xyz = (inverse @ torch.stack([u * d, v * d, d]).reshape(3, -1)).reshape(3, side, side)
    where = (d > 0).nonzero()
    tl, br = where.min(0).values, where.max(0).values
    box = int((br - tl).max())
    start = tl - (box - (br - tl)) // 2
    if (start < 0).any() or (start + box > side).any():
        start = (tl - (box - (br - tl))).clip(min=0)
    everything = torch.cat([stack, xyz])[:, start[0] : start[0] + box, start[1] : start[1] + box]
    everything = F.interpolate(everything[None], size=(side, side), mode="nearest")[0]
    cells = F.interpolate(everything[None, 4:], size=(grid, grid), mode="nearest")[0]
    return everything[:3].permute(1, 2, 0).numpy(), cells.permute(1, 2, 0).numpy(), focal * side / box


BOXES = {
    "landscape": ((768, 1024), (3024, 4032), (200, 300, 500, 800)),
    "portrait": ((1024, 768), (4032, 3024), (300, 200, 800, 500)),
    "right border": ((768, 1024), (3024, 4032), (100, 700, 700, 896)),
    "odd sizes": ((683, 1023), (2049, 3069), (77, 301, 560, 777)),
    "small object": ((768, 1024), (3024, 4032), (400, 500, 470, 533)),
}


@pytest.mark.parametrize("case", BOXES)
@pytest.mark.parametrize(("side", "grid"), [(512, 128), (192, 48), (100, 50), (150, 50), (224, 224)])
def test_probe3d_matches_the_full_size_pipeline(case: str, side: int, grid: int) -> None:
    size, full, box = BOXES[case]
    rgb, depth = scene(*size, full, box)
    item = prepare_navi(rgb, depth, focal_full=FOCAL, full_size=full, mode="probe3d", size=side, grid=grid)
    image, xyz, focal = naive_probe3d(rgb, depth, full, side, grid)
    assert np.array_equal(item.image.permute(1, 2, 0).numpy(), image)
    np.testing.assert_allclose(item.xyz.numpy(), xyz, atol=2e-7)
    assert item.focal == pytest.approx((focal, focal))
    assert item.xyz.dtype == torch.float32
    assert item.image.shape == (3, side, side)
    assert torch.equal(item.valid, item.xyz[..., 2] > 0)


GOLDEN = {
    ("landscape", "probe3d"): ("308bf0dbbcc50786", 783.3237712755786, (68, 115, 332)),
    ("landscape", "centered"): ("52118076e44e609c", 780.9714476381143, (68, 115, 333)),
    ("portrait", "probe3d"): ("52645ea7c07fac38", 783.3237712755786, (115, 68, 332)),
    ("portrait", "centered"): ("c765c507a75f5ad0", 780.9714476381143, (115, 68, 333)),
    ("right border", "probe3d"): ("b2c1dabc496fc0dc", 651.7882006603811, (67, 112, 399)),
    ("right border", "centered"): ("2023666cc7fb876f", 650.1587301587301, (67, 112, 400)),
    ("odd sizes", "probe3d"): ("e47b30ab5c69ebf1", 1063.192774260534, (58, 96, 361)),
    ("odd sizes", "centered"): ("3c1a3b7cc9391fbe", 1060.2557776465544, (58, 96, 362)),
    ("small object", "probe3d"): ("65a2eef2fbc8f0da", 5653.554175293306, (267, 236, 46)),
    ("small object", "centered"): ("a89473ea89ebde11", 5533.265788584938, (267, 236, 47)),
}
"""SHA-256 of the points, focal length and crop (top, left, side), made when 512 and 128 were constants."""


@pytest.mark.parametrize(("case", "mode"), GOLDEN)
def test_the_default_is_the_512_crop_to_the_last_bit(case: str, mode: Mode) -> None:
    size, full, box = BOXES[case]
    item = prepare_navi(*scene(*size, full, box), focal_full=FOCAL, full_size=full, mode=mode)
    points, focal, crop = GOLDEN[case, mode]
    assert hashlib.sha256(item.xyz.numpy().tobytes()).hexdigest()[:16] == points
    assert item.focal == (focal, focal)
    assert item.crop is not None
    assert (item.crop.top, item.crop.left, item.crop.side) == crop


def ray_colour_error(item: PreparedItem, pixels: np.ndarray) -> float:
    """Largest difference, grey levels, between a cell's colour and the colour that its point's ray should have."""
    colour = item.image[:2][:, pixels][:, :, pixels].permute(1, 2, 0).double()
    expected = 128 + 180 * item.xyz[..., :2].double() / item.xyz[..., 2:].double()
    inner = item.valid.clone()
    inner[:3], inner[-3:], inner[:, :3], inner[:, -3:] = False, False, False, False
    return float((colour - expected)[inner].abs().max())


@pytest.mark.parametrize("mode", ["probe3d", "centered"])
@pytest.mark.parametrize("case", ["landscape", "portrait", "right border", "small object"])
@pytest.mark.parametrize(("side", "grid"), [(512, 128), (192, 48)])
def test_points_lie_on_the_scene_and_under_their_pixels(case: str, mode: Mode, side: int, grid: int) -> None:
    size, full, box = BOXES[case]
    rgb, depth = scene(*size, full, box)
    item = prepare_navi(rgb, depth, focal_full=FOCAL, full_size=full, mode=mode, size=side, grid=grid)
    # Nearest resampling pairs a ray with the depth of a place up to a pixel beside it.
    off_plane = (item.xyz.double()[item.valid] @ torch.from_numpy(PLANE) - 1).abs()
    assert float(off_plane.max()) < 1.5e-3 * 512 / side
    # One pixel of the crop is 180 * 4032/3024 / 512 = 0.35 grey levels at 512; rounding adds half a level.
    assert ray_colour_error(item, grid_pixels(side, mode)) < 0.5 + 0.5 * 512 / side
    assert item.crop is not None
    assert item.focal[0] == pytest.approx(FOCAL * side / min(full) * side / item.crop.side)
    # The box minus what the two crops cut away, in cells.
    assert 0.2 < float(item.valid.float().mean()) <= 1


@pytest.mark.parametrize(("side", "grid"), [(512, 128), (192, 48), (150, 50)])
def test_centered_points_project_to_their_cell_centres(side: int, grid: int) -> None:
    size, full, box = BOXES["landscape"]
    item = prepare_navi(
        *scene(*size, full, box), focal_full=FOCAL, full_size=full, mode="centered", size=side, grid=grid
    )
    assert item.crop is not None
    zoom, step = side / item.crop.side, side // grid
    centre = torch.tensor([(side / 2 - item.crop.left) * zoom, (side / 2 - item.crop.top) * zoom])
    pixel = item.focal[0] * item.xyz[..., :2] / item.xyz[..., 2:] + centre
    axis = torch.arange(grid) * step + step // 2 + 0.5
    v, u = torch.meshgrid(axis, axis, indexing="ij")
    expected = torch.stack([u, v], dim=-1)
    assert float((pixel - expected)[item.valid].abs().max()) < 1e-2


@pytest.mark.parametrize("mode", ["probe3d", "centered"])
def test_crops_keep_their_part_of_the_frame_at_any_size(mode: Mode) -> None:
    for case, (size, full, box) in BOXES.items():
        rgb, depth = scene(*size, full, box)
        items = {
            side: prepare_navi(rgb, depth, focal_full=FOCAL, full_size=full, mode=mode, size=side, grid=side // 4)
            for side in (512, 192)
        }
        (large, small), pixel = (items[512], items[192]), 1 / 192
        assert large.crop is not None
        assert small.crop is not None
        for name in ("top", "left", "side"):
            parts = getattr(large.crop, name) / 512, getattr(small.crop, name) / 192
            assert parts[0] == pytest.approx(parts[1], abs=2.5 * pixel), (case, name)
        assert (large.focal[0] / 512) / (small.focal[0] / 192) == pytest.approx(
            (small.crop.side / 192) / (large.crop.side / 512)
        )


def test_grid_phase_of_the_modes() -> None:
    assert grid_pixels(512, "probe3d").tolist() == list(range(0, 512, 4))
    assert grid_pixels(512, "centered").tolist() == list(range(2, 512, 4))
    assert len(grid_pixels(480, "centered")) == 120
    assert grid_pixels(9, "centered", 3).tolist() == [1, 4, 7]
    assert grid_pixels(4, "centered", 1).tolist() == [0, 1, 2, 3]


def test_cache_copy_equals_the_written_files(tmp_path: object) -> None:
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, size=(1300, 1500, 3), dtype=np.uint8)
    code = rng.integers(0, 65536, size=(1300, 1500), dtype=np.uint16)
    size = (int(1500 * 1024 / 1300), int(1300 * 1024 / 1300))
    Image.fromarray(rgb).resize(size, Image.Resampling.BILINEAR).save(f"{tmp_path}/downsampled_000.jpg")
    Image.fromarray(code).resize(size, Image.Resampling.NEAREST).save(f"{tmp_path}/downsampled_000.png")
    got_rgb, got_depth = downsample_for_cache(rgb, code.astype(np.float32), jpeg_roundtrip=True)
    assert np.array_equal(got_rgb, np.array(Image.open(f"{tmp_path}/downsampled_000.jpg")))
    assert np.array_equal(got_depth, np.array(Image.open(f"{tmp_path}/downsampled_000.png")).astype(np.float32))
    clean, _ = downsample_for_cache(rgb, code.astype(np.float32), jpeg_roundtrip=False)
    assert np.array_equal(clean, np.array(Image.fromarray(rgb).resize(size, Image.Resampling.BILINEAR)))
    assert not np.array_equal(clean, got_rgb)


def test_cache_with_a_shorter_side_of_1023_still_prepares() -> None:
    full = (1122, 1500)
    rgb, depth = downsample_for_cache(*scene(*full, full, (300, 400, 900, 1100)), jpeg_roundtrip=False)
    assert depth.shape == (1023, 1368)
    item = prepare_navi(rgb, depth, focal_full=FOCAL, full_size=full, mode="probe3d")
    assert float((item.xyz.double()[item.valid] @ torch.from_numpy(PLANE) - 1).abs().max()) < 1.5e-3


def test_rgbd_frame_keeps_its_size_and_intrinsics() -> None:
    rng = np.random.default_rng(1)
    depth = rng.uniform(0.5, 4, size=(480, 640)).astype(np.float32)
    depth[:100] = 0
    rgb = rng.integers(0, 256, size=(480, 640, 3), dtype=np.uint8)
    item = prepare_rgbd(rgb, depth, focal=(585.0, 580.0), centre=(320.0, 240.0))
    assert item.image.shape == (3, 480, 640)
    assert item.xyz.shape == (120, 160, 3)
    assert item.focal == (585.0, 580.0)
    assert item.crop is None
    assert not item.valid[:25].any()
    assert item.valid[25:].all()
    for i, j in ((25, 0), (60, 80), (119, 159)):
        z = float(depth[4 * i + 2, 4 * j + 2])
        expected = [(4 * j + 2.5 - 320) / 585 * z, (4 * i + 2.5 - 240) / 580 * z, z]
        assert item.xyz[i, j].tolist() == pytest.approx(expected, rel=1e-6)


def test_errors_name_the_image() -> None:
    rgb, depth = scene(512, 600, (512, 600), (100, 100, 300, 300))
    kwargs = {"focal_full": FOCAL, "full_size": (512, 600), "mode": "probe3d", "name": "obj/007"}
    with pytest.raises(DataError, match=r"obj/007: RGB is 512x600 but depth is 511x600"):
        prepare_navi(rgb, depth[:-1], **kwargs)
    with pytest.raises(DataError, match="obj/007: no valid depth inside"):
        prepare_navi(rgb, np.zeros_like(depth), **kwargs)
    one = np.zeros_like(depth)
    one[200, 300] = 1
    with pytest.raises(DataError, match="obj/007: the object mask is a single pixel"):
        prepare_navi(rgb, one, **kwargs)
    with pytest.raises(DataError, match="focal_length must be positive"):
        prepare_navi(rgb, depth, **{**kwargs, "focal_full": 0.0})
    with pytest.raises(DataError, match="finite"):
        prepare_navi(rgb, np.full_like(depth, np.inf), **kwargs)
    for side, grid in ((512, 100), (128, 256), (0, 1), (16, 0)):
        with pytest.raises(UsageError, match=f"obj/007: the grid must divide .* grid {grid} and size {side}"):
            prepare_navi(rgb, depth, **kwargs, size=side, grid=grid)
    with pytest.raises(UsageError, match="uint8"):
        prepare_navi(rgb.astype(np.float32), depth, **kwargs)
    with pytest.raises(DataError, match="multiples of 4"):
        prepare_rgbd(rgb[:510], depth[:510], focal=(1, 1), centre=(0, 0))
    with pytest.raises(DataError, match="frame: no valid depth"):
        prepare_rgbd(rgb, 0 * depth, focal=(1, 1), centre=(0, 0))
