"""Dense matching of two images by the ratio test: grid features, the two nearest neighbours, the k most unique matches.

Notable: bicubic lookup as two small products; one chunked float32 product per pair with TF32 off (the ratio subtracts
near-equal numbers from 1); two cheap passes over each block of scores instead of a sort; weights in float64; ties go to
the lower index. Protocol `correspondence`, sections 2.6 and 2.8.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mtv.errors import DataError, NumericalError, UsageError
from mtv.probes.precision import fp32_matmul
from mtv.probes.resample import patch_padding

MIN_DISTANCE = 1e-9
"""Floor of 1 - cosine, so that the ratio of two exact matches is 1 and not 0 / 0."""


@dataclass(frozen=True, kw_only=True)
class Matches:
    """The kept matches, best weight first (ties: lower `index0` first)."""

    index0: Tensor
    """K, int64: rows of image 0."""
    index1: Tensor
    """K, int64: rows of image 1: the nearest neighbour of each `index0`."""
    weight: Tensor
    """K, float64: uniqueness, 1 - d_1 / d_2 with d = max(1 - cosine, 1e-9)."""
    cosine: Tensor
    """K, float32: cosine of the match."""


def upsample_map(map_HWD: Tensor, grid: tuple[int, int] = (128, 128)) -> Tensor:
    """`probe3d` lookup: bicubic (`align_corners=False`, no antialias) to the matching grid, then unit length.

    Padding of the network input is ignored, as in the reference: the map is taken to cover the unpadded picture.

    Returns:
        float32, grid height x grid width x D.
    """
    weights = []
    for axis, cells in enumerate(grid):
        places = torch.arange(cells, dtype=torch.float64) + 0.5
        weights.append(bicubic_weights(places * map_HWD.shape[axis] / cells - 0.5, map_HWD.shape[axis]))
    return _resample_unit(map_HWD, weights[0], weights[1])


def lookup_map(map_HWD: Tensor, *, image_size: tuple[int, int], patch: int, step: int = 4, phase: int = 2) -> Tensor:
    """`centered` lookup: bicubic at each cell's true place, (pixel + 0.5 + pad) / (side + 2 pad), then unit length.

    Args:
        map_HWD: patch tokens of the padded picture.
        image_size: (height, width) in pixels before patch padding (`pad_to_patch`).
        patch: pixels per patch side.
        step, phase: cell i is pixel step * i + phase.

    Returns:
        float32, (height / step) x (width / step) x D.

    Raises:
        UsageError: the map does not have one token per patch of the padded picture.
    """
    weights = []
    for axis, side in enumerate(image_size):
        before, after = patch_padding(side, patch)
        tokens = (side + before + after) // patch
        if map_HWD.shape[axis] != tokens:
            raise UsageError(
                f"feature map {tuple(map_HWD.shape[:2])} does not fit a {image_size[0]}x{image_size[1]} image "
                f"with patch {patch}",
                f"Axis {axis} needs {tokens} tokens; pass the map of the image padded by pad_to_patch.",
            )
        pixels = torch.arange(side // step, dtype=torch.float64) * step + phase
        weights.append(bicubic_weights((pixels + 0.5 + before) / patch - 0.5, tokens))
    return _resample_unit(map_HWD, weights[0], weights[1])


def bicubic_weights(places_G: Tensor, n: int) -> Tensor:
    """Dense float64 weights G,n of cubic convolution (coefficient -0.75, torch's) at places in units of cells.

    Place i is the centre of cell i; taps beyond the border read the border cell. Rows sum to 1.
    """
    a = -0.75
    base_G = places_G.floor()
    weights_Gn = torch.zeros(len(places_G), n, dtype=torch.float64)
    for tap in (-1, 0, 1, 2):
        x_G = (places_G - base_G - tap).abs()
        near_G = ((a + 2) * x_G - (a + 3)) * x_G * x_G + 1
        far_G = ((a * x_G - 5 * a) * x_G + 8 * a) * x_G - 4 * a
        cell_G1 = (base_G + tap).clamp(0, n - 1).long()[:, None]
        weights_Gn.scatter_add_(1, cell_G1, torch.where(x_G <= 1, near_G, far_G)[:, None])
    return weights_Gn


def _resample_unit(map_HWD: Tensor, rows_GH: Tensor, cols_FW: Tensor) -> Tensor:
    # Bicubic interpolation is separable: two small products are several times faster on CPU than torch's kernels.
    x_HWD = map_HWD.float()
    rows_GH, cols_FW = rows_GH.to(x_HWD), cols_FW.to(x_HWD)
    with torch.no_grad(), fp32_matmul():
        tall_GWD = (rows_GH @ x_HWD.flatten(1)).unflatten(1, x_HWD.shape[1:])
        up_GFD = torch.matmul(cols_FW, tall_GWD)
    return up_GFD.div_(torch.linalg.vector_norm(up_GFD, dim=-1, keepdim=True).clamp_min(1e-12))


def ratio_matches(feat0_ND: Tensor, feat1_MD: Tensor, k: int = 1000, chunk: int = 2048) -> Matches:
    """For each row of image 0 its nearest row of image 1 by cosine; the `k` matches of largest uniqueness.

    One direction, no mutual check (Probe3D; Lowe's ratio as a weight).

    Args:
        feat0_ND, feat1_MD: float32 rows of unit length on one device.
        k: matches to keep; all N where there are fewer.
        chunk: rows of image 0 per product; no effect on which neighbour is found beyond rounding.

    Raises:
        UsageError: other dtypes, widths that differ, fewer than two rows in image 1, k or chunk below 1.
        NumericalError: NaN or infinite features.
    """
    _check_features(feat0_ND, feat1_MD, k, chunk)
    n = len(feat0_ND)
    first_N, second_N = feat0_ND.new_empty(n), feat0_ND.new_empty(n)
    index1_N = torch.empty(n, dtype=torch.int64, device=feat0_ND.device)
    block = feat0_ND.new_empty(min(chunk, n), len(feat1_MD))
    with torch.no_grad(), fp32_matmul():
        for start in range(0, n, chunk):
            rows = slice(start, min(start + chunk, n))
            scores = block[: rows.stop - start]
            torch.mm(feat0_ND[rows], feat1_MD.T, out=scores)
            torch.max(scores, dim=1, out=(first_N[rows], index1_N[rows]))
            scores.scatter_(1, index1_N[rows, None], -torch.inf)
            torch.amax(scores, dim=1, out=second_N[rows])
    if not bool(torch.isfinite(first_N).all() & torch.isfinite(second_N).all()):
        raise NumericalError("matching: NaN or infinite features", "Check the encoder's output for this pair.")
    weight_N = uniqueness(first_N, second_N)
    best = torch.sort(weight_N, descending=True, stable=True).indices[:k]
    return Matches(index0=best, index1=index1_N[best], weight=weight_N[best], cosine=first_N[best])


def uniqueness(cosine1: Tensor, cosine2: Tensor) -> Tensor:
    """1 - d_1 / d_2 in float64 with d = max(1 - cosine, 1e-9), for the largest and second largest cosine."""
    d1 = (1 - cosine1.double()).clamp(min=MIN_DISTANCE)
    d2 = (1 - cosine2.double()).clamp(min=MIN_DISTANCE)
    return 1 - d1 / d2


def match_grids(
    grid0_GGD: Tensor,
    valid0_GG: Tensor,
    grid1_GGD: Tensor,
    valid1_GG: Tensor,
    *,
    k: int = 1000,
    require_k: bool,
    chunk: int = 2048,
    name: str = "pair",
) -> Matches:
    """`ratio_matches` between the valid cells of two grids; the indices are flat (row-major) cells of each grid.

    Args:
        require_k: `probe3d`: fewer than `k` valid cells in image 0 are an error. `centered`: all of them are used.
        name: what the error calls this pair.

    Raises:
        DataError: too few valid cells.
    """
    cells0_P = valid0_GG.flatten().nonzero()[:, 0]
    cells1_Q = valid1_GG.flatten().nonzero()[:, 0]
    if len(cells0_P) < (k if require_k else 1):
        raise DataError(
            f"{name}: image 0 has {len(cells0_P)} valid cells, {k if require_k else 1} are needed",
            "Remove this pair, or use mode 'centered', which takes what there is."
            if require_k
            else "Remove this pair.",
        )
    if len(cells1_Q) < 2:
        raise DataError(f"{name}: image 1 has {len(cells1_Q)} valid cells, 2 are needed", "Remove this pair.")
    feat0_PD = grid0_GGD.flatten(0, 1)[cells0_P.to(grid0_GGD.device)]
    feat1_QD = grid1_GGD.flatten(0, 1)[cells1_Q.to(grid1_GGD.device)]
    found = ratio_matches(feat0_PD, feat1_QD, k, chunk)
    return Matches(
        index0=cells0_P.to(found.index0.device)[found.index0],
        index1=cells1_Q.to(found.index1.device)[found.index1],
        weight=found.weight,
        cosine=found.cosine,
    )


def _check_features(feat0_ND: Tensor, feat1_MD: Tensor, k: int, chunk: int) -> None:
    if feat0_ND.dtype != torch.float32 or feat1_MD.dtype != torch.float32:
        raise UsageError(f"matching needs float32 features, got {feat0_ND.dtype} and {feat1_MD.dtype}")
    if feat0_ND.ndim != 2 or feat1_MD.ndim != 2 or feat0_ND.shape[1] != feat1_MD.shape[1]:
        raise UsageError(f"matching needs N,D and M,D features, got {tuple(feat0_ND.shape)} {tuple(feat1_MD.shape)}")
    if len(feat1_MD) < 2:
        raise UsageError(f"the ratio needs two rows in image 1, got {len(feat1_MD)}")
    if k < 1 or chunk < 1:
        raise UsageError(f"k and chunk must be at least 1, got k={k}, chunk={chunk}")
