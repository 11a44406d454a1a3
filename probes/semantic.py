"""Keypoint transfer (SPair-71k): from two feature maps and annotated keypoints to one error per shared keypoint.

Notable: the two modes differ in where a keypoint reads its descriptor and which point a cell stands for (`probe3d`: the
cell's top-left corner, a bias of half a patch; `centered`: its centre, in target pixels); one product per pair. From
the table of errors `semantic_scores` derives every aggregate. Protocol `correspondence`, sections 3.2 and 3.3.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from mtv.errors import DataError, UsageError
from mtv.probes.precision import fp32_matmul
from mtv.probes.resample import Mode, SquareGrid, check_mode


@dataclass(frozen=True, kw_only=True)
class KeypointImage:
    """One image of a pair: its unit-length feature map and what its annotation says."""

    tokens: Tensor
    """g,g,D float32: patch tokens of unit length (`unit_map`) of the white-padded square."""
    keypoints: npt.NDArray[np.float64]
    """K,2: (x, y) in pixels of the original picture; NaN where a keypoint is not visible (`keypoint_array`)."""
    size: tuple[int, int]
    """(width, height) of the original picture."""
    box: tuple[float, float, float, float]
    """Object box left, top, right, bottom."""


@dataclass(frozen=True, kw_only=True)
class KeypointErrors:
    """Rows of the error table for one pair: one per keypoint that is visible in both images."""

    keypoint: npt.NDArray[np.int64]
    """R: keypoint number in the annotation."""
    error: npt.NDArray[np.float64]
    """R: distance to the target keypoint: sides of the square (`probe3d`) or target pixels (`centered`)."""
    scale: float
    """A keypoint is correct at alpha if error < alpha * scale; same unit as `error`."""
    predicted: npt.NDArray[np.float64]
    """R,2: predicted (x, y) in pixels of the target picture, for drawing."""


def unit_map(map_HWD: Tensor) -> Tensor:
    """Patch tokens in float32, each of unit length; done once per image."""
    return F.normalize(map_HWD.float(), dim=-1)


def keypoint_array(keypoints: Sequence[Sequence[float] | None]) -> npt.NDArray[np.float64]:
    """K2 array of (x, y) from annotation entries in the order "0", "1", ...; None becomes NaN."""
    rows = [(np.nan, np.nan) if point is None else (float(point[0]), float(point[1])) for point in keypoints]
    return np.array(rows, dtype=np.float64).reshape(-1, 2)


def shared_keypoints(source_K2: np.ndarray, target_L2: np.ndarray) -> npt.NDArray[np.int64]:
    """Numbers of the keypoints that are visible in both images; a number beyond the shorter list is not visible."""
    n = min(len(source_K2), len(target_L2))
    visible = np.isfinite(source_K2[:n]).all(axis=1) & np.isfinite(target_L2[:n]).all(axis=1)
    return np.flatnonzero(visible)


def scale_keypoints(points_K2: np.ndarray, size: tuple[int, int], grid: SquareGrid, mode: Mode) -> np.ndarray:
    """Keypoints in pixels of the network input.

    `probe3d`: trunc(x * S / s), multiplied and divided in float32, no padding. `centered`: x * S / s + pad in float64.

    Args:
        size: (width, height) of the picture; s is the larger.
    """
    side = max(size)
    if mode == "probe3d":
        return np.trunc(points_K2.astype(np.float32) * np.float32(grid.size) / np.float32(side)).astype(np.int64)
    return points_K2 * grid.size / side + grid.pad


def sample_descriptors(map_GGD: Tensor, points_K2: np.ndarray, grid: SquareGrid, mode: Mode) -> Tensor:
    """Descriptors K,D at scaled keypoints, bilinear between cells, clamped at the border.

    `probe3d` reads at 2k/S - 1 with aligned corners, `centered` at 2k/(gP) - 1 without (k counts the padding).
    """
    g = grid.cells
    if mode == "probe3d":
        cell = points_K2.astype(np.float64) / grid.size * (g - 1)
    else:
        cell = points_K2 / grid.patch - 0.5
    place_K2 = torch.from_numpy(np.clip(cell, 0, g - 1)).to(map_GGD.device)
    low_K2 = place_K2.floor().long()
    high_K2 = (low_K2 + 1).clamp(max=g - 1)
    part_K2 = (place_K2 - low_K2).float()
    x0, y0, x1, y1 = low_K2[:, 0], low_K2[:, 1], high_K2[:, 0], high_K2[:, 1]
    fx, fy = part_K2[:, :1], part_K2[:, 1:]
    top_KD = map_GGD[y0, x0] * (1 - fx) + map_GGD[y0, x1] * fx
    bottom_KD = map_GGD[y1, x0] * (1 - fx) + map_GGD[y1, x1] * fx
    return top_KD * (1 - fy) + bottom_KD * fy


def best_cells(descriptors_KD: Tensor, map_GGD: Tensor) -> npt.NDArray[np.int64]:
    """(column, row) K2 of the most similar cell, the first in row-major order among equals."""
    with torch.no_grad(), fp32_matmul():
        scores_KC = descriptors_KD @ map_GGD.flatten(0, 1).T
    cell_K = scores_KC.argmax(dim=1).cpu().numpy()
    width = map_GGD.shape[1]
    return np.stack([cell_K % width, cell_K // width], axis=1)


def predicted_pixels(cells_K2: np.ndarray, size: tuple[int, int], grid: SquareGrid, mode: Mode) -> np.ndarray:
    """The point of the target picture, in its pixels, that a cell (column, row) stands for."""
    side = max(size)
    if mode == "probe3d":
        return cells_K2 / grid.cells * side
    return ((cells_K2 + 0.5) * grid.patch - grid.pad) * side / grid.size


def error_scale(box: tuple[float, float, float, float], size: tuple[int, int], mode: Mode) -> float:
    """max(box width, height), divided by the square's side in `probe3d`; thresholds are alpha times this.

    Raises:
        DataError: a box that is not positive.
    """
    left, top, right, bottom = box
    if right <= left or bottom <= top:
        raise DataError(f"object box {list(box)} is not positive", "Boxes are left, top, right, bottom in pixels.")
    extent = float(max(right - left, bottom - top))
    return extent / max(size) if mode == "probe3d" else extent


def match_keypoints(source: KeypointImage, target: KeypointImage, grid: SquareGrid, mode: Mode) -> KeypointErrors:
    """Transfer every shared keypoint by nearest cell (plain argmax) and measure the error.

    Raises:
        UsageError: unknown mode, maps that are not g x g float32 of unit length.
        DataError: a target box that is not positive.
    """
    check_mode(mode)
    scale = error_scale(target.box, target.size, mode)
    shared_R = shared_keypoints(source.keypoints, target.keypoints)
    if not len(shared_R):
        empty = np.zeros((0, 2))
        return KeypointErrors(keypoint=shared_R, error=empty[:, 0], scale=scale, predicted=empty)
    for image in (source, target):
        _check_map(image.tokens, grid)
    query_R2 = scale_keypoints(source.keypoints[shared_R], source.size, grid, mode)
    cells_R2 = best_cells(sample_descriptors(source.tokens, query_R2, grid, mode), target.tokens)
    truth_R2 = target.keypoints[shared_R]
    predicted_R2 = predicted_pixels(cells_R2, target.size, grid, mode)
    if mode == "probe3d":
        gap_R2 = cells_R2 / grid.cells - scale_keypoints(truth_R2, target.size, grid, mode) / grid.size
    else:
        gap_R2 = predicted_R2 - truth_R2
    error_R = np.hypot(gap_R2[:, 0], gap_R2[:, 1])
    return KeypointErrors(keypoint=shared_R, error=error_R, scale=scale, predicted=predicted_R2)


def _check_map(map_GGD: Tensor, grid: SquareGrid) -> None:
    g = grid.cells
    if map_GGD.dtype != torch.float32 or map_GGD.ndim != 3 or tuple(map_GGD.shape[:2]) != (g, g):
        raise UsageError(
            f"keypoint matching needs a float32 map {g}x{g}xD for size {grid.size} and patch {grid.patch}, got "
            f"{map_GGD.dtype} {tuple(map_GGD.shape)}"
        )
    norms = torch.linalg.vector_norm(map_GGD[0], dim=-1)
    if not bool(((norms - 1).abs().lt(1e-3) | norms.eq(0)).all()):
        raise UsageError("keypoint matching needs tokens of unit length", "Pass the map through unit_map once.")


def select_pairs(stems: Sequence[str], seed: int = 20, n: int | None = 200) -> list[str]:
    """The pairs of one (class, viewpoint) job: sorted by file name, shuffled by a freshly seeded `random.Random`, the
    first `n`; all of them, sorted, for n = None."""
    ordered = sorted(stems)
    if n is None:
        return ordered
    random.Random(seed).shuffle(ordered)
    return ordered[:n]
