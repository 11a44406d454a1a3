"""Size arithmetic, crops and index rules (rows N3, N4, N5 and the padding of section 3.3)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from mtv.errors import DataError, UsageError
from mtv.probes.resample import (
    SquareGrid,
    cache_size,
    center_offset,
    check_mode,
    nearest_indices,
    object_box,
    pad_to_patch,
    patch_padding,
    shorter_side_size,
    white_square,
)


def test_n3_cache_sizes() -> None:
    assert cache_size(3024, 4032) == (1024, 1365)
    assert cache_size(3472, 4624) == (1024, 1363)
    assert cache_size(4032, 3024) == (1365, 1024)
    assert min(cache_size(1122, 1500)) == 1023


def test_n4_resize_crop_and_nearest() -> None:
    assert shorter_side_size(1024, 1365, 512) == (512, 682)
    assert shorter_side_size(1365, 1024, 512) == (682, 512)
    assert center_offset(682, 512) == 85
    assert center_offset(512, 512) == 0
    assert nearest_indices(1024, 512).tolist() == list(range(0, 1024, 2))
    assert nearest_indices(512, 128).tolist() == list(range(0, 512, 4))
    assert nearest_indices(512, 128)[-1] == 508


@pytest.mark.parametrize(("n_in", "n_out"), [(1365, 682), (1363, 681), (1023, 512), (300, 512), (511, 512), (512, 128)])
def test_nearest_agrees_with_torch_and_not_with_pillow(n_in: int, n_out: int) -> None:
    source = torch.arange(n_in, dtype=torch.float64).view(1, 1, 1, n_in)
    expected = F.interpolate(source, size=(1, n_out), mode="nearest").flatten().long()
    assert nearest_indices(n_in, n_out).tolist() == expected.tolist()
    pillow = Image.fromarray(np.arange(n_in, dtype=np.int32)[None]).resize((n_out, 1), Image.Resampling.NEAREST)
    assert np.array(pillow)[0].tolist() != expected.tolist()


def test_n5_patch_padding() -> None:
    assert patch_padding(512, 14) == (3, 3)
    assert (512 + 6) // 14 == 37
    assert patch_padding(800, 14) == (6, 6)
    assert (SquareGrid(size=800, patch=14).pad, SquareGrid(size=800, patch=14).cells) == (6, 58)
    assert (SquareGrid(size=800, patch=16).pad, SquareGrid(size=800, patch=16).cells) == (0, 50)
    assert patch_padding(512, 16) == (0, 0)
    with pytest.raises(UsageError, match="side 0"):
        patch_padding(0, 14)


@pytest.mark.parametrize(
    ("size", "patch", "padded"),
    [
        ((512, 512), 14, (518, 518)),
        ((480, 640), 14, (490, 644)),
        ((480, 640), 16, (480, 640)),
        ((28, 30), 14, (28, 42)),
    ],
)
def test_pad_to_patch_pads_each_axis_on_its_own(size: tuple[int, int], patch: int, padded: tuple[int, int]) -> None:
    image = torch.randn(2, 3, *size) + 5
    out = pad_to_patch(image, patch)
    assert out.shape[-2:] == padded
    top, left = patch_padding(size[0], patch)[0], patch_padding(size[1], patch)[0]
    assert torch.equal(out[..., top : top + size[0], left : left + size[1]], image)
    assert float(out.sum()) == pytest.approx(float(image.sum()), rel=1e-4)
    assert int((out == 0).sum()) == out.numel() - image.numel()


def mask_with(rows: tuple[int, int], cols: tuple[int, int], size: int = 512) -> np.ndarray:
    """A filled rectangle, both ends inclusive."""
    mask = np.zeros((size, size), dtype=bool)
    mask[rows[0] : rows[1] + 1, cols[0] : cols[1] + 1] = True
    return mask


def box_of(mask: np.ndarray, mode: str) -> tuple[int, int, int]:
    box = object_box(mask, mode, "img")  # type: ignore[arg-type]
    return box.top, box.left, box.side


def test_object_box_by_hand() -> None:
    # Extents 100 x 40 exclusive, 101 x 41 inclusive; the shorter one is centred: 30 pixels on either side.
    mask = mask_with((100, 200), (300, 340))
    assert box_of(mask, "probe3d") == (100, 270, 100)
    assert box_of(mask, "centered") == (100, 270, 101)
    # Right border: centred, it would start at 460 - 30 = 430 and end at 530. probe3d jumps by the whole 60.
    mask = mask_with((100, 200), (460, 500))
    assert box_of(mask, "probe3d") == (100, 400, 100)
    assert box_of(mask, "centered") == (100, 411, 101)
    # Left border: probe3d cuts at 0.
    mask = mask_with((100, 200), (10, 50))
    assert box_of(mask, "probe3d") == (100, 0, 100)
    assert box_of(mask, "centered") == (100, 0, 101)
    # An odd difference is floored before it is subtracted: (100 - 41) // 2 = 29.
    assert box_of(mask_with((100, 200), (300, 341)), "probe3d") == (100, 271, 100)
    # Full crop.
    assert box_of(mask_with((0, 511), (0, 511)), "probe3d") == (0, 0, 511)
    assert box_of(mask_with((0, 511), (0, 511)), "centered") == (0, 0, 512)


@settings(max_examples=100, deadline=None)
@given(hnp.arrays(np.bool_, (12, 12), elements=st.sampled_from([False] * 8 + [True])))
def test_object_box_properties(mask: np.ndarray) -> None:
    where = np.argwhere(mask)
    if len(where) == 0:
        with pytest.raises(DataError, match="img: no valid depth"):
            object_box(mask, "centered", "img")
        return
    top, left, side = box_of(mask, "centered")
    assert mask[top : top + side, left : left + side].sum() == len(where)
    assert side == max(np.ptp(where, axis=0)) + 1
    assert min(top, left) >= 0
    assert max(top, left) + side <= 12
    # No other square inside is nearer to the centred position.
    wish = where.min(0) - (side - np.ptp(where, axis=0) - 1) // 2
    assert (abs(np.array([top, left]) - wish) == [min(abs(t - w) for t in range(12 - side + 1)) for w in wish]).all()
    if side == 1:
        with pytest.raises(DataError, match="single pixel"):
            object_box(mask, "probe3d", "img")
        return
    top, left, side = box_of(mask, "probe3d")
    assert side == max(np.ptp(where, axis=0))
    assert min(top, left) >= 0
    assert max(top, left) + side <= 12
    kept = where[((where < where.max(0)) | (np.ptp(where, axis=0) < side)).all(1)]
    assert all(top <= r <= top + side and left <= c <= left + side for r, c in kept)


def test_box_larger_than_the_image_is_refused() -> None:
    mask = np.zeros((10, 30), dtype=bool)
    mask[5, 3:20] = True
    with pytest.raises(DataError, match="17 px exceeds the 10x30"):
        object_box(mask, "centered", "img")


def test_unknown_mode_is_named() -> None:
    with pytest.raises(UsageError, match="did you mean centered"):
        check_mode("centred")


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "P"])
def test_white_square_pads_bottom_or_right(mode: str) -> None:
    black = Image.new("RGB", (500, 375)).convert(mode)
    out = white_square(black)
    assert out.shape == (3, 800, 800)
    assert out.dtype == torch.uint8
    assert int(out[:, :595].max()) <= 2
    assert int(out[:, 605:].min()) == 255
    portrait = white_square(black.transpose(Image.Transpose.TRANSPOSE))
    assert torch.equal(portrait, out.transpose(1, 2))


def test_white_square_is_antialiased_bicubic_of_pillow() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, size=(90, 120, 3), dtype=np.uint8)
    padded = np.full((120, 120, 3), 255, dtype=np.uint8)
    padded[:90] = pixels
    expected = np.array(Image.fromarray(padded).resize((80, 80), Image.Resampling.BICUBIC))
    assert np.array_equal(white_square(Image.fromarray(pixels), 80).permute(1, 2, 0).numpy(), expected)
