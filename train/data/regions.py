"""Boxes through a crop, and the choice of the regions of a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mtv.train.data.options import ViewOptions
from mtv.train.data.streams import streams, uniforms


@dataclass(frozen=True, kw_only=True)
class RegionLabels:
    """The region label of a sample as arrays."""

    box_K4: np.ndarray
    """float64 [K, 4]: x0, y0, x1, y1 in fractions of the image."""
    score_K: np.ndarray
    """float64 [K]: labeller confidence."""
    names: tuple[str, ...]
    """K names."""


@dataclass(frozen=True, kw_only=True)
class ChosenRegions:
    """Up to R regions per sample, first slots first."""

    box_BR4: np.ndarray
    """float32: x0, y0, x1, y1 in fractions of the global view; 0, 0, 1, 1 in empty slots."""
    valid_BR: np.ndarray
    """bool: the slot holds a region."""
    names: list[list[str]]
    """Names of the filled slots."""


def crop_boxes(
    box_K4: np.ndarray, crop: tuple[float, float, float, float], *, flip: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes as seen in a crop, clipped to it.

    Args:
        box_K4: x0, y0, x1, y1 in fractions of the image.
        crop: x0, y0, x1, y1 of the crop, likewise.
        flip: the crop is mirrored left to right afterwards.

    Returns:
        float64 [K, 4] in fractions of the crop (empty where nothing is left), and the share of each box's area that is
        left, float64 [K].
    """
    left, top, right, bottom = crop
    origin, size = np.array([left, top, left, top]), np.array([right - left, bottom - top] * 2)
    inside = (np.asarray(box_K4, dtype=np.float64).reshape(-1, 4) - origin) / size
    clipped = np.clip(inside, 0, 1)
    share = _area(clipped) / _area(inside)
    if flip:
        clipped = np.stack([1 - clipped[:, 2], clipped[:, 1], 1 - clipped[:, 0], clipped[:, 3]], axis=1)
    return clipped, share


def _area(box_K4: np.ndarray) -> np.ndarray:
    return (box_K4[:, 2] - box_K4[:, 0]) * (box_K4[:, 3] - box_K4[:, 1])


def choose_regions(
    labels: Sequence[RegionLabels | None],
    views: ViewOptions,
    *,
    seed: int,
    epochs: Sequence[int],
    keys: Sequence[str],
    crop_B4: np.ndarray,
    flip_B: np.ndarray,
    image_size: int,
) -> ChosenRegions:
    """Draw up to R of the regions that the global crop leaves, uniformly without replacement.

    Args:
        labels: per sample; None and no regions are legal.
        epochs, keys: of each sample.
        crop_B4: x0, y0, x1, y1 of the global crop in fractions of the image.
        flip_B: whether the global view is mirrored.
        image_size: side of the global view in pixels.
    """
    B, R = len(labels), views.regions
    box_BR4 = np.tile(np.array([0, 0, 1, 1], dtype=np.float32), (B, R, 1))
    valid_BR = np.zeros((B, R), dtype=bool)
    names: list[list[str]] = [[] for _ in labels]
    most = max((len(label.names) for label in labels if label is not None), default=0)
    u = uniforms(streams(seed, epochs, keys, "regions"), most)
    for b, label in enumerate(labels):
        if label is None or not label.names:
            continue
        box_K4, share_K = crop_boxes(label.box_K4, tuple(crop_B4[b]), flip=bool(flip_B[b]))
        side_K = (box_K4[:, 2:] - box_K4[:, :2]).min(axis=1) * image_size
        kept_K = (share_K >= views.min_visible) & (side_K >= views.min_side_px) & (side_K > 0)
        kept_K &= label.score_K >= views.min_score
        order = np.argsort(np.where(kept_K, u[b, : len(kept_K)], 2.0), kind="stable")
        chosen = order[: min(R, int(kept_K.sum()))]
        box_BR4[b, : len(chosen)] = box_K4[chosen]
        valid_BR[b, : len(chosen)] = True
        names[b] = [label.names[k] for k in chosen]
    return ChosenRegions(box_BR4=box_BR4, valid_BR=valid_BR, names=names)
