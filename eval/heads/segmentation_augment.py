"""Augmented training windows of the segmentation probe: scale, crop, mirror, colour (`segmentation.md` section 4).

Everything is drawn from one stream per (seed, picture, number of the window), so that stored features can be paired
with their labels later. Pictures are uint8 RGB throughout; resizing is OpenCV's bilinear without antialiasing (labels:
nearest), as in mmsegmentation.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from mtv.draws import Draws
from mtv.eval.protocols_dense import SegmentationProtocol
from mtv.probes.segmentation_metric import IGNORE_INDEX
from mtv.probes.segmentation_windows import fitted_size

REDRAWS = 10
"""How often a crop with too little variety is drawn anew."""


@dataclass(frozen=True, kw_only=True)
class Recolour:
    """What the colour step does to one window; None leaves a property as it is."""

    brightness: float | None
    """Grey levels added."""
    contrast: float | None
    """Factor on grey levels."""
    contrast_first: bool
    """Contrast before saturation and hue, or after them."""
    saturation: float | None
    """Factor."""
    hue: int | None
    """Shift in 180ths of the circle."""

    def __call__(self, rgb_HW3: np.ndarray) -> np.ndarray:
        """uint8 H,W,3 RGB to the same; every step clips and truncates to 8 bits."""
        if self.brightness is not None:
            rgb_HW3 = _to_uint8(rgb_HW3.astype(np.float32) + self.brightness)
        if self.contrast is not None and self.contrast_first:
            rgb_HW3 = _to_uint8(rgb_HW3.astype(np.float32) * self.contrast)
        if self.saturation is not None or self.hue is not None:
            rgb_HW3 = self._in_hsv(rgb_HW3)
        if self.contrast is not None and not self.contrast_first:
            rgb_HW3 = _to_uint8(rgb_HW3.astype(np.float32) * self.contrast)
        return rgb_HW3

    def _in_hsv(self, rgb_HW3: np.ndarray) -> np.ndarray:
        hsv_HW3 = cv2.cvtColor(rgb_HW3, cv2.COLOR_RGB2HSV)
        if self.saturation is not None:
            hsv_HW3[..., 1] = _to_uint8(hsv_HW3[..., 1].astype(np.float32) * self.saturation)
        if self.hue is not None:
            hsv_HW3[..., 0] = (hsv_HW3[..., 0].astype(np.int16) + self.hue) % 180
        return cv2.cvtColor(hsv_HW3, cv2.COLOR_HSV2RGB)


def _to_uint8(x: np.ndarray) -> np.ndarray:
    return np.clip(x, 0, 255).astype(np.uint8)


@dataclass(frozen=True, kw_only=True)
class TrainWindow:
    """A square part of a resized training picture."""

    size: tuple[int, int]
    """(height, width) of the resized picture."""
    top: int
    """First row."""
    left: int
    """First column."""
    flip: bool = False
    """Whether the part is mirrored left to right."""
    recolour: Recolour | None = None
    """Colour step, for pictures only."""

    def picture(self, rgb_HW3: np.ndarray, crop: int, fill: tuple[int, int, int]) -> np.ndarray:
        """The window of a uint8 picture, crop,crop,3; `fill` where the resized picture ends before the window."""
        part_HW3 = self._part(resize_picture(rgb_HW3, self.size), crop)
        part_HW3 = part_HW3 if self.recolour is None else self.recolour(part_HW3)
        out_HW3 = np.empty((crop, crop, 3), np.uint8)
        out_HW3[:] = fill
        out_HW3[: part_HW3.shape[0], : part_HW3.shape[1]] = part_HW3
        return out_HW3

    def labels(self, label_HW: np.ndarray, crop: int) -> np.ndarray:
        """The same window of the label map, uint8 crop,crop; padding is ignored."""
        part_HW = self._part(resize_labels(label_HW, self.size), crop)
        out_HW = np.full((crop, crop), IGNORE_INDEX, np.uint8)
        out_HW[: part_HW.shape[0], : part_HW.shape[1]] = part_HW
        return out_HW

    def _part(self, x_HW: np.ndarray, crop: int) -> np.ndarray:
        part_HW = x_HW[self.top : self.top + crop, self.left : self.left + crop]
        return np.ascontiguousarray(part_HW[:, ::-1]) if self.flip else part_HW


def resize_picture(rgb_HW3: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear, without antialiasing."""
    return cv2.resize(rgb_HW3, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)


def resize_labels(label_HW: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Nearest neighbour."""
    return cv2.resize(label_HW, (size[1], size[0]), interpolation=cv2.INTER_NEAREST)


def plain_window(picture: str, size: tuple[int, int], *, crop: int, seed: int) -> TrainWindow:
    """The window at the scale of the test: uniform along the long side.

    Args:
        picture: id of the picture.
        size: (height, width) of the resized picture.
    """
    top, left = _place(Draws("segmentation_view", seed, picture, 0), size, crop)
    return TrainWindow(size=size, top=top, left=left)


def augmented_window(
    picture: str, number: int, label_HW: np.ndarray, *, crop: int, protocol: SegmentationProtocol
) -> TrainWindow:
    """Window `number` (1, 2, ...) of a picture, by all augmentations.

    Args:
        label_HW: classes of the whole picture at its own size: crops depend on them.
    """
    p, draws = protocol, Draws("segmentation_view", protocol.seed, picture, number)
    factor = draws.uniform(p.scale[0], p.scale[1])
    size = fitted_size(*label_HW.shape, long=int(4 * crop * factor), short=int(crop * factor))
    scaled_HW = resize_labels(label_HW, size)
    top, left = _place(draws, size, crop)
    for _ in range(REDRAWS):
        if _varied(scaled_HW[top : top + crop, left : left + crop], p.cat_max):
            break
        top, left = _place(draws, size, crop)
    flip = draws.chance(p.flip)
    return TrainWindow(size=size, top=top, left=left, flip=flip, recolour=_draw_recolour(p, draws))


def _place(draws: Draws, size: tuple[int, int], crop: int) -> tuple[int, int]:
    return draws.integer(0, max(size[0] - crop, 0) + 1), draws.integer(0, max(size[1] - crop, 0) + 1)


def _varied(label_HW: np.ndarray, cat_max: float) -> bool:
    """At least two classes, none of which has `cat_max` of the labelled pixels."""
    counts = np.bincount(label_HW[label_HW != IGNORE_INDEX])
    return bool(np.count_nonzero(counts) > 1 and counts.max() < cat_max * counts.sum())


def _draw_recolour(p: SegmentationProtocol, draws: Draws) -> Recolour:
    def drawn(low: float, high: float) -> float | None:
        return draws.uniform(low, high) if draws.chance(p.colour) else None

    brightness = drawn(-p.brightness, p.brightness)
    contrast_first = draws.chance(0.5)
    contrast, saturation = drawn(p.contrast[0], p.contrast[1]), drawn(p.saturation[0], p.saturation[1])
    hue = draws.integer(-p.hue, p.hue + 1) if draws.chance(p.colour) else None
    return Recolour(
        brightness=brightness, contrast=contrast, contrast_first=contrast_first, saturation=saturation, hue=hue
    )
