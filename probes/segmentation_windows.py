"""Test geometry of linear segmentation: resize rule, patch padding, sliding windows, and the rule for other patches.

Integers only; imports no torch, so that a protocol can resolve its effective crop without it. Notable: sides round as
int(side * s + 0.5), which is mmcv's rule and neither floor nor Python's `round`; padding is right and bottom only; a
short side below the crop (aspect above 4) gives a smaller window, never a padded one; neighbouring windows are spaced
by 23 patches, the last one is moved back to end at the border. Protocol `segmentation`, section 7.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from mtv.errors import UsageError, unknown

Inference = Literal["slide", "whole"]
INFERENCES: tuple[Inference, ...] = ("slide", "whole")

LARGEST_CROP = 576
STRIDE_PATCHES = 23
ASPECT = 4
"""Longest resized side in crops."""


@dataclass(frozen=True, kw_only=True)
class WindowGeometry:
    """The sizes that an encoder sees at test time; the effective values, as results report them."""

    patch: int
    """Pixels per patch side."""
    crop: int
    """Window side and target of the short side, pixels; a multiple of `patch`."""
    stride: int
    """Pixels between neighbouring windows, 1 to `crop`."""

    def __post_init__(self) -> None:
        if self.patch < 1:
            raise UsageError(f"patch must be at least 1, got {self.patch}")
        if self.crop < self.patch or self.crop % self.patch:
            low = max(self.crop // self.patch, 1) * self.patch
            raise UsageError(
                f"crop {self.crop} is no multiple of patch {self.patch}",
                f"Use {low} or {low + self.patch}, or crop=auto.",
            )
        if not 1 <= self.stride <= self.crop:
            raise UsageError(f"stride must be 1 to the crop ({self.crop}), got {self.stride}")

    @property
    def long_side(self) -> int:
        """Largest side after resizing, pixels."""
        return ASPECT * self.crop


@dataclass(frozen=True, kw_only=True)
class Window:
    """A rectangle of the padded picture."""

    top: int
    """First row."""
    left: int
    """First column."""
    height: int
    """Rows."""
    width: int
    """Columns."""


def window_geometry(
    patch: int, *, crop: int | Literal["auto"] = "auto", stride: int | None = None, largest: int = LARGEST_CROP
) -> WindowGeometry:
    """The geometry for an encoder with this patch.

    `auto` keeps 36 x 36 tokens for patches 16 (576) and 14 (504) and takes the largest multiple up to 576 for others.
    The default stride is 23 patches, 368 and 322 pixels; a crop of fewer than 23 patches (patch 32: 18) is its own
    stride, because a larger one would leave pixels without a window.

    Args:
        largest: what `auto` aims at instead of 576; patch 14 keeps the tokens that patch 16 has there.

    Raises:
        UsageError: a patch above `largest` under `auto`, a crop that is no multiple of the patch, a stride out of
            range.
    """
    if patch < 1 or (crop == "auto" and patch > largest):
        raise UsageError(f"crop=auto needs a patch of 1 to {largest} pixels, got {patch}")
    if crop == "auto":
        crop = max(largest // 16, 1) * patch if patch == 14 else largest // patch * patch
    if stride is None:
        stride = min(STRIDE_PATCHES * patch, crop)
    return WindowGeometry(patch=patch, crop=crop, stride=stride)


def resized_size(height: int, width: int, geometry: WindowGeometry) -> tuple[int, int]:
    """(height, width) that fits into (4 crops, 1 crop), as `fitted_size`."""
    return fitted_size(height, width, long=geometry.long_side, short=geometry.crop)


def fitted_size(height: int, width: int, *, long: int, short: int) -> tuple[int, int]:
    """(height, width) that fits into (long, short) with the aspect kept, as mmcv rounds it; at least 1 pixel.

    Raises:
        UsageError: a side below 1.
    """
    if height < 1 or width < 1:
        raise UsageError(f"picture sides must be at least 1, got {height}x{width}")
    scale = min(long / max(height, width), short / min(height, width))
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def padded_size(height: int, width: int, patch: int) -> tuple[int, int]:
    """(height, width) after padding right and bottom to multiples of `patch`."""
    return height + -height % patch, width + -width % patch


def tile(height: int, width: int, geometry: WindowGeometry, inference: Inference = "slide") -> list[Window]:
    """The windows over a padded picture, row by row; together they cover every pixel.

    Args:
        height, width: sides after `padded_size`.
        inference: `slide`, or `whole` for one window that is the picture.

    Raises:
        UsageError: sides that are no multiples of the patch, an unknown mode.
    """
    if inference not in INFERENCES:
        raise unknown("inference", inference, INFERENCES)
    if min(height, width) < 1 or height % geometry.patch or width % geometry.patch:
        raise UsageError(
            f"windows need sides that are multiples of patch {geometry.patch}, got {height}x{width}",
            "Pad the resized picture to padded_size first.",
        )
    if inference == "whole":
        return [Window(top=0, left=0, height=height, width=width)]
    return [
        Window(top=top, left=left, height=bottom - top, width=right - left)
        for top, bottom in _spans(height, geometry)
        for left, right in _spans(width, geometry)
    ]


def _spans(length: int, geometry: WindowGeometry) -> Iterator[tuple[int, int]]:
    crop, stride = geometry.crop, geometry.stride
    for k in range(max(length - crop + stride - 1, 0) // stride + 1):
        end = min(k * stride + crop, length)
        yield max(end - crop, 0), end
