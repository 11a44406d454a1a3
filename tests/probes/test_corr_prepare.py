"""NAVI and RGB-D preparation against a step-by-step 512 x 512 pipeline and an analytic scene."""

from __future__ import annotations

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


def naive_probe3d(rgb: np.ndarray, depth: np.ndarray, full: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, float]:
    """Section 2.4 step by step on whole 512 x 512 maps: image 512,512,3, xyz 128,128,3, focal."""
    h, w = depth.shape
    size = (512, int(512 * w / h)) if h <= w else (int(512 * h / w), 512)
    stack = torch.from_numpy(np.concatenate([rgb.astype(np.float64), depth[..., None]], -1)).permute(2, 0, 1)[None]
    stack = F.interpolate(stack, size=size, mode="nearest")[0]
    top, left = round((size[0] - 512) / 2), round((size[1] - 512) / 2)
    stack = stack[:, top : top + 512, left : left + 512]
    focal = FOCAL * 512 / min(full)
    xyz = torch.zeros(3, 512, 512, dtype=torch.float64)
    inverse = torch.linalg.inv(torch.tensor([[focal, 0, 256], [0, focal, 256], [0, 0, 1]], dtype=torch.float64))
    v, u = torch.meshgrid(torch.arange(512) + 0.5, torch.arange(512) + 0.5, indexing="ij")
    d = stack[3]
    xyz = (inverse @ torch.stack([u * d, v * d, d]).reshape(3, -1)).reshape(3, 512, 512)
    where = (d > 0).nonzero()
    tl, br = where.min(0).values, where.max(0).values
    side = int((br - tl).max())
    start = tl - (side - (br - tl)) // 2
    if (start < 0).any() or (start + side > 512).any():
        start = (tl - (side - (br - tl))).clip(min=0)
    everything = torch.cat([stack, xyz])[:, start[0] : start[0] + side, start[1] : start[1] + side]
    everything = F.interpolate(everything[None], size=(512, 512), mode="nearest")[0]
    grid = F.interpolate(everything[None, 4:], scale_factor=0.25, mode="nearest")[0]
    return everything[:3].permute(1, 2, 0).numpy(), grid.permute(1, 2, 0).numpy(), focal * 512 / side


BOXES = {
    "landscape": ((768, 1024), (3024, 4032), (200, 300, 500, 800)),
    "portrait": ((1024, 768), (4032, 3024), (300, 200, 800, 500)),
    "right border": ((768, 1024), (3024, 4032), (100, 700, 700, 896)),
    "odd sizes": ((683, 1023), (2049, 3069), (77, 301, 560, 777)),
    "small object": ((768, 1024), (3024, 4032), (400, 500, 470, 533)),
}


@pytest.mark.parametrize("case", BOXES)
def test_probe3d_matches_the_full_size_pipeline(case: str) -> None:
    size, full, box = BOXES[case]
    rgb, depth = scene(*size, full, box)
    item = prepare_navi(rgb, depth, focal_full=FOCAL, full_size=full, mode="probe3d")
    image, xyz, focal = naive_probe3d(rgb, depth, full)
    assert np.array_equal(item.image.permute(1, 2, 0).numpy(), image)
    np.testing.assert_allclose(item.xyz.numpy(), xyz, atol=2e-7)
    assert item.focal == pytest.approx((focal, focal))
    assert item.xyz.dtype == torch.float32
    assert item.image.shape == (3, 512, 512)
    assert torch.equal(item.valid, item.xyz[..., 2] > 0)


def ray_colour_error(item: PreparedItem, pixels: np.ndarray) -> float:
    """Largest difference, grey levels, between a cell's colour and the colour that its point's ray should have."""
    colour = item.image[:2][:, pixels][:, :, pixels].permute(1, 2, 0).double()
    expected = 128 + 180 * item.xyz[..., :2].double() / item.xyz[..., 2:].double()
    inner = item.valid.clone()
    inner[:3], inner[-3:], inner[:, :3], inner[:, -3:] = False, False, False, False
    return float((colour - expected)[inner].abs().max())


@pytest.mark.parametrize("mode", ["probe3d", "centered"])
@pytest.mark.parametrize("case", ["landscape", "portrait", "right border", "small object"])
def test_points_lie_on_the_scene_and_under_their_pixels(case: str, mode: Mode) -> None:
    size, full, box = BOXES[case]
    rgb, depth = scene(*size, full, box)
    item = prepare_navi(rgb, depth, focal_full=FOCAL, full_size=full, mode=mode)
    off_plane = (item.xyz.double()[item.valid] @ torch.from_numpy(PLANE) - 1).abs()
    assert float(off_plane.max()) < 1.5e-3
    # One pixel of the 512 crop is 180 * 4032/3024 / 512 = 0.35 grey levels; rounding adds half a level.
    assert ray_colour_error(item, grid_pixels(512, mode)) < 1.0
    assert item.crop is not None
    assert item.focal[0] == pytest.approx(FOCAL * 512 / min(full) * 512 / item.crop.side)
    # The box minus what the two crops cut away, in cells.
    assert 0.2 < float(item.valid.float().mean()) <= 1


def test_centered_points_project_to_their_cell_centres() -> None:
    size, full, box = BOXES["landscape"]
    item = prepare_navi(*scene(*size, full, box), focal_full=FOCAL, full_size=full, mode="centered")
    assert item.crop is not None
    zoom = 512 / item.crop.side
    centre = torch.tensor([(256 - item.crop.left) * zoom, (256 - item.crop.top) * zoom])
    pixel = item.focal[0] * item.xyz[..., :2] / item.xyz[..., 2:] + centre
    v, u = torch.meshgrid(torch.arange(128) * 4 + 2.5, torch.arange(128) * 4 + 2.5, indexing="ij")
    expected = torch.stack([u, v], dim=-1)
    assert float((pixel - expected)[item.valid].abs().max()) < 1e-2


def test_grid_phase_of_the_modes() -> None:
    assert grid_pixels(512, "probe3d").tolist() == list(range(0, 512, 4))
    assert grid_pixels(512, "centered").tolist() == list(range(2, 512, 4))
    assert len(grid_pixels(480, "centered")) == 120


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
    with pytest.raises(UsageError, match="uint8"):
        prepare_navi(rgb.astype(np.float32), depth, **kwargs)
    with pytest.raises(DataError, match="multiples of 4"):
        prepare_rgbd(rgb[:510], depth[:510], focal=(1, 1), centre=(0, 0))
    with pytest.raises(DataError, match="frame: no valid depth"):
        prepare_rgbd(rgb, 0 * depth, focal=(1, 1), centre=(0, 0))
