"""From decoded pictures and depth to what NAVI-type matching needs: network input, points of the matching grid, focal.

Notable: every geometric step is index arithmetic, so the 512 x 512 point map of the reference is never built; only the
quarter-resolution cells that are matched are unprojected. Size and grid are arguments; every crop is a part of the
frame, so sets of small pictures only need smaller numbers. Protocol `correspondence`, sections 2.1, 2.4, 2.8 and the
section on posed RGB-D scenes.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from mtv.errors import DataError, UsageError
from mtv.probes.geometry import unproject
from mtv.probes.resample import (
    Box,
    Mode,
    cache_size,
    center_offset,
    check_mode,
    image_tensor,
    nearest_indices,
    object_box,
    shorter_side_size,
)

STEP = 4
"""Pixels per matching cell."""
SIDE = 512
"""Side of NAVI's network input before patch padding by default, and the one whose pixels its thresholds count."""
GRID = 128
"""Matching cells per side of that input."""


@dataclass(frozen=True, kw_only=True)
class PreparedItem:
    """One image, ready for the encoder and the matcher."""

    image: Tensor
    """3,H,W uint8: network input before normalisation and patch padding; a square (512), or the whole RGB-D frame."""
    xyz: Tensor
    """H/step,W/step,3 float32: camera points of the matching grid, metres."""
    valid: Tensor
    """H/step,W/step bool: cells with a point (z > 0)."""
    focal: tuple[float, float]
    """Focal length (x, y) in pixels of `image`."""
    crop: Box | None
    """Object crop inside the centre crop, which is as large as `image`; none for whole frames."""


def grid_pixels(side: int, mode: Mode, step: int = STEP) -> npt.NDArray[np.int64]:
    """Pixel index of every matching cell along a side: 4i for `probe3d`, 4i + 2 for `centered` (`step` 4)."""
    check_mode(mode)
    return np.arange(side // step, dtype=np.int64) * step + (step // 2 if mode == "centered" else 0)


def downsample_for_cache(
    rgb_HW3: np.ndarray, depth_HW: np.ndarray, *, target: int = 1024, jpeg_roundtrip: bool
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """What NAVI's `downsampled_*` files hold, made in memory from the full-resolution, EXIF-transposed pair.

    Bilinear RGB and nearest depth, both by Pillow, as the script that wrote the files did.

    Args:
        rgb_HW3: uint8.
        depth_HW: float32 metres, 0 where invalid.
        target: the shorter side becomes this, or one less by truncation.
        jpeg_roundtrip: pass the picture through JPEG at quality 75, as reading the written file would.
    """
    _check_pair(rgb_HW3, depth_HW, "cache input")
    height, width = cache_size(depth_HW.shape[0], depth_HW.shape[1], target)
    rgb = Image.fromarray(rgb_HW3).resize((width, height), Image.Resampling.BILINEAR)
    depth = Image.fromarray(depth_HW.astype(np.float32)).resize((width, height), Image.Resampling.NEAREST)
    if jpeg_roundtrip:
        buffer = io.BytesIO()
        rgb.save(buffer, format="JPEG", quality=75)
        rgb = Image.open(buffer).convert("RGB")
    return np.array(rgb), np.array(depth)


def prepare_navi(
    rgb_HW3: np.ndarray,
    depth_HW: np.ndarray,
    *,
    focal_full: float,
    full_size: tuple[int, int],
    mode: Mode,
    size: int = SIDE,
    grid: int = GRID,
    name: str = "image",
) -> PreparedItem:
    """Centre crop at `size`, object crop, resize back to `size`, points of the `grid` x `grid` cells.

    The centre crop is the shorter side of the photo whatever `size` is, so crops keep their part of the frame.

    Args:
        rgb_HW3: uint8; for `probe3d` the downsampled copy, for `centered` that or the original.
        depth_HW: float32 metres of the same size, 0 where invalid.
        focal_full: focal length in pixels of the full-resolution photo.
        full_size: (height, width) of the full-resolution photo after EXIF transposition.
        mode: `probe3d` (all nearest; points resampled from the uncropped grid of pixels) or `centered` (antialiased
            bicubic RGB; points recomputed for the cropped pixels).
        size: side of the network input in pixels.
        grid: matching cells per side; divides `size`.
        name: what errors call this image.

    Raises:
        UsageError: unknown mode, a grid that does not divide the size.
        DataError: sizes that disagree, a focal length that is not positive, no depth in the centre crop, a one-pixel
            mask.
    """
    check_mode(mode)
    if min(size, grid) < 1 or size % grid:
        raise UsageError(f"{name}: the grid must divide the size, got grid {grid} and size {size}")
    _check_pair(rgb_HW3, depth_HW, name)
    if not (np.isfinite(focal_full) and focal_full > 0):
        raise DataError(f"{name}: focal_length must be positive, got {focal_full}", "Repair this camera record.")
    resized = shorter_side_size(depth_HW.shape[0], depth_HW.shape[1], size)
    offset = (center_offset(resized[0], size), center_offset(resized[1], size))
    rows, cols = (nearest_indices(depth_HW.shape[k], resized[k])[offset[k] : offset[k] + size] for k in (0, 1))
    depth_SS = depth_HW[np.ix_(rows, cols)]
    crop = object_box(depth_SS > 0, mode, name)
    if mode == "probe3d":
        back = nearest_indices(crop.side, size)
        image = image_tensor(rgb_HW3[np.ix_(rows[crop.top + back], cols[crop.left + back])])
    else:
        image = _bicubic_crop(rgb_HW3, resized, offset, crop, size)
    focal = focal_full * size / min(full_size)
    final_focal = focal * size / crop.side
    return _item(image, _crop_points(depth_SS, crop, focal, mode, size // grid), (final_focal, final_focal), crop)


def _crop_points(depth_SS: np.ndarray, crop: Box, focal: float, mode: Mode, step: int) -> npt.NDArray[np.float32]:
    """Camera points GG3 of the cells of a crop that is resized to the whole frame's size; `focal` is the frame's."""
    size = len(depth_SS)
    cells = grid_pixels(size, mode, step)
    back = nearest_indices(crop.side, size)[cells]
    rows, cols = crop.top + back, crop.left + back
    depth_GG = depth_SS[np.ix_(rows, cols)]
    if mode == "probe3d":
        centre = (size / 2, size / 2)
        return unproject(depth_GG, rows_H=rows, cols_W=cols, focal=(focal, focal), centre=centre)
    # "depth < d_min removed" needs no step: nearest sampling cannot make a depth below the smallest one.
    zoom, final_focal = size / crop.side, focal * size / crop.side
    centre = ((size / 2 - crop.left) * zoom, (size / 2 - crop.top) * zoom)
    return unproject(depth_GG, rows_H=cells, cols_W=cells, focal=(final_focal, final_focal), centre=centre)


def prepare_rgbd(
    rgb_HW3: np.ndarray,
    depth_HW: np.ndarray,
    *,
    focal: tuple[float, float],
    centre: tuple[float, float],
    name: str = "frame",
) -> PreparedItem:
    """A whole posed RGB-D frame under the `centered` rules: no resize, no crop, cells at pixel 4i + 2.

    A 480 x 640 frame stays 480 x 640 (a multiple of 16; patch 14 pads it to 490 x 644 with `pad_to_patch`) and has a
    120 x 160 matching grid.

    Args:
        rgb_HW3: uint8.
        depth_HW: float32 metres (`decode_millimetre_depth`), 0 where invalid.
        focal, centre: intrinsics (x, y) in pixels.

    Raises:
        DataError: sizes that disagree, sides that are no multiple of 4, a focal length that is not positive, no depth.
    """
    _check_pair(rgb_HW3, depth_HW, name)
    if depth_HW.shape[0] % STEP or depth_HW.shape[1] % STEP:
        raise DataError(f"{name}: frame sides {depth_HW.shape} must be multiples of {STEP}", "Crop the frames first.")
    if not all(np.isfinite(f) and f > 0 for f in focal):
        raise DataError(f"{name}: focal lengths must be positive, got {focal}", "Repair the intrinsics file.")
    if not (depth_HW > 0).any():
        raise DataError(f"{name}: no valid depth", "Remove this frame or repair its depth map.")
    rows, cols = grid_pixels(depth_HW.shape[0], "centered"), grid_pixels(depth_HW.shape[1], "centered")
    xyz = unproject(depth_HW[np.ix_(rows, cols)], rows_H=rows, cols_W=cols, focal=focal, centre=centre)
    return _item(image_tensor(rgb_HW3), xyz, (float(focal[0]), float(focal[1])), None)


def _item(image_3HW: Tensor, xyz_GG3: np.ndarray, focal: tuple[float, float], crop: Box | None) -> PreparedItem:
    xyz = torch.from_numpy(xyz_GG3)
    return PreparedItem(image=image_3HW, xyz=xyz, valid=xyz[..., 2] > 0, focal=focal, crop=crop)


def _bicubic_crop(
    rgb_HW3: np.ndarray, resized: tuple[int, int], offset: tuple[int, int], crop: Box, size: int
) -> Tensor:
    bicubic = Image.Resampling.BICUBIC
    small = Image.fromarray(rgb_HW3).resize((resized[1], resized[0]), bicubic)
    left, top = offset[1] + crop.left, offset[0] + crop.top
    square = small.crop((left, top, left + crop.side, top + crop.side))
    return image_tensor(square.resize((size, size), bicubic))


def _check_pair(rgb_HW3: np.ndarray, depth_HW: np.ndarray, name: str) -> None:
    if rgb_HW3.dtype != np.uint8 or rgb_HW3.ndim != 3 or rgb_HW3.shape[2] != 3:
        raise UsageError(f"{name}: RGB must be uint8 HxWx3, got {rgb_HW3.dtype} {rgb_HW3.shape}")
    if rgb_HW3.shape[:2] != depth_HW.shape:
        raise DataError(
            f"{name}: RGB is {rgb_HW3.shape[0]}x{rgb_HW3.shape[1]} but depth is {'x'.join(map(str, depth_HW.shape))}",
            "Both must come from the same copy, with the EXIF rotation applied to both.",
        )
    if not np.isfinite(depth_HW).all() or (depth_HW < 0).any():
        raise DataError(f"{name}: depth must be finite and not negative", "Decode invalid codes to 0.")
