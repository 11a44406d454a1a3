"""Sizes, crops and index rules of the correspondence protocols; pictures are touched only by `white_square`.

Notable: "nearest" means source index floor(i * in / out), which is torch's and not Pillow's rule; sizes truncate; the
two modes crop objects differently (`probe3d` loses the last row and column, `centered` keeps them).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from mtv.errors import DataError, UsageError, unknown

Mode = Literal["probe3d", "centered"]
MODES: tuple[Mode, ...] = ("probe3d", "centered")


@dataclass(frozen=True, kw_only=True)
class Box:
    """A square crop."""

    top: int
    """First row."""
    left: int
    """First column."""
    side: int
    """Rows and columns."""


@dataclass(frozen=True, kw_only=True)
class SquareGrid:
    """A square network input of side `size`, zero-padded symmetrically to `cells` patches per side."""

    size: int
    """Side in pixels before padding (800 for SPair)."""
    patch: int
    """Pixels per patch side."""

    @property
    def pad(self) -> int:
        """Zeros before the first pixel."""
        return patch_padding(self.size, self.patch)[0]

    @property
    def cells(self) -> int:
        """Patches per side."""
        return (self.size + sum(patch_padding(self.size, self.patch))) // self.patch


def check_mode(mode: str) -> None:
    """Raises UsageError for anything but `probe3d` and `centered`."""
    if mode not in MODES:
        raise unknown("correspondence mode", mode, MODES)


def nearest_indices(n_in: int, n_out: int) -> npt.NDArray[np.int64]:
    """Source index floor(i * n_in / n_out) of every output position, in exact integer arithmetic."""
    return np.arange(n_out, dtype=np.int64) * n_in // n_out


def shorter_side_size(height: int, width: int, target: int) -> tuple[int, int]:
    """(height, width) after the shorter side is resized to `target`; the longer side truncates."""
    if height <= width:
        return target, int(target * width / height)
    return int(target * height / width), target


def cache_size(height: int, width: int, target: int = 1024) -> tuple[int, int]:
    """(height, width) of NAVI's downsampled copies: both sides truncate, so the shorter one can be `target` - 1."""
    factor = target / min(height, width)
    return int(height * factor), int(width * factor)


def center_offset(n: int, crop: int) -> int:
    """First index of a centre crop of `crop` out of `n`; halves round to even."""
    return round((n - crop) / 2)


def object_box(mask_HW: npt.NDArray[np.bool_], mode: Mode, name: str) -> Box:
    """The square around an object's mask (protocol `correspondence`, 2.4 `probe3d` and 2.8 `centered`).

    `probe3d`: the bottom-right index is exclusive, so the last row and column are lost; the shorter extent is centred,
    and if that leaves the image the square moves by the whole difference towards the top left, cut at 0.
    `centered`: bottom-right inclusive; the square is shifted to the nearest position inside.

    Args:
        name: what the error calls this image.

    Raises:
        DataError: empty mask, a mask of one pixel (`probe3d`), or a box larger than the image.
    """
    check_mode(mode)
    rows, cols = np.flatnonzero(mask_HW.any(axis=1)), np.flatnonzero(mask_HW.any(axis=0))
    if not len(rows):
        raise DataError(f"{name}: no valid depth inside the centre crop", "Remove this image or repair its depth map.")
    first = np.array([rows[0], cols[0]])
    extent = np.array([rows[-1], cols[-1]]) - first + (mode == "centered")
    side, size = int(extent.max()), np.array(mask_HW.shape)
    if side == 0:
        raise DataError(f"{name}: the object mask is a single pixel", "Remove this image or repair its depth map.")
    if side > size.min():
        raise DataError(
            f"{name}: the object box of {side} px exceeds the {size[0]}x{size[1]} crop", "Remove this image."
        )
    start = first - (side - extent) // 2
    if mode == "centered":
        start = np.clip(start, 0, size - side)
    elif (start < 0).any() or (start + side > size).any():
        start = np.clip(first - (side - extent), 0, None)
    return Box(top=int(start[0]), left=int(start[1]), side=side)


def patch_padding(side: int, patch: int) -> tuple[int, int]:
    """Pixels of zero padding (before, after) that make `side` a multiple of `patch`, symmetric, none if it is one."""
    if side < 1 or patch < 1:
        raise UsageError(f"patch padding needs positive numbers, got side {side}, patch {patch}")
    total = -side % patch
    return total // 2, total - total // 2


def pad_to_patch(images_B3HW: Tensor, patch: int) -> Tensor:
    """Normalised images zero-padded to multiples of `patch`, each axis on its own; the same tensor if nothing to do."""
    top, bottom = patch_padding(images_B3HW.shape[-2], patch)
    left, right = patch_padding(images_B3HW.shape[-1], patch)
    if top + bottom + left + right == 0:
        return images_B3HW
    return F.pad(images_B3HW, (left, right, top, bottom))


def white_square(image: Image.Image, size: int = 800) -> Tensor:
    """uint8 3,S,S: padded with white at the bottom or right to a square, then antialiased bicubic to S.

    Grey, palette and CMYK pictures become RGB first (protocol `correspondence`, 3.3).
    """
    image = image.convert("RGB")
    side = max(image.size)
    canvas = Image.new("RGB", (side, side), (255, 255, 255))
    canvas.paste(image, (0, 0))
    return image_tensor(canvas.resize((size, size), Image.Resampling.BICUBIC))


def image_tensor(image: Image.Image | np.ndarray) -> Tensor:
    """An RGB picture, HxWx3, as a contiguous uint8 tensor 3,H,W that owns its memory."""
    return torch.from_numpy(np.array(image, dtype=np.uint8)).permute(2, 0, 1).contiguous()
