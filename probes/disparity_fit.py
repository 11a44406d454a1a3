"""Ridge regression from patch tokens to disparity, blind to each picture's scale and shift.

A depth map that is only known up to scale and shift says what is near and what is far inside one picture. So tokens and
disparity are centred per picture, and disparity is divided by its deviation in the picture: every picture counts the
same, and no weight is spent on telling rooms apart. The squared error is then a linear problem with one solution: no
schedule, no seed. Tokens are upsampled before the fit, as the head's map is before it is compared with the truth.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mtv.errors import NumericalError, UsageError
from mtv.probes.bilinear import resize_map

ROWS = 64
"""Rows of blocks over which the truth is averaged; columns in proportion."""
NOISE = 1e-6
"""Deviations below this share of the mean are rounding: such a picture or channel is constant."""


class DisparityFit:
    """Sums over pictures; a picture can be forgotten once it was added.

    Args:
        width: channels of the tokens.
    """

    def __init__(self, width: int) -> None:
        self.n = 0
        """Pictures that entered."""
        self._gram_DD = torch.zeros(width, width, dtype=torch.float64)
        self._moment_D = torch.zeros(width, dtype=torch.float64)
        self._mean_D = torch.zeros(width, dtype=torch.float64)

    def add(self, tokens_HWD: Tensor, depth_HW: Tensor, valid_HW: Tensor) -> bool:
        """Add one picture.

        Args:
            tokens_HWD: patch tokens of the whole picture.
            depth_HW: true depth of the same frame, metres, at any size.
            valid_HW: bool, the pixels that count.

        Returns:
            Whether it entered: not without valid pixels, or with the same depth everywhere.

        Raises:
            UsageError: tokens of another width.
            NumericalError: NaN or infinity in the tokens.
        """
        if tokens_HWD.shape[-1] != len(self._mean_D):
            raise UsageError(f"disparity fit of width {len(self._mean_D)}: got tokens {tuple(tokens_HWD.shape)}")
        if not bool(torch.isfinite(tokens_HWD).all()):
            raise NumericalError("disparity fit: the tokens have NaN or infinity")
        height, width = depth_HW.shape
        rows = min(ROWS, height)
        size = rows, max(1, rows * width // height)
        disparity_N, weight_N = _blocks(depth_HW, valid_HW, size)
        if not bool(weight_N.any()):
            return False
        weight_N = weight_N / weight_N.sum()
        mean = weight_N @ disparity_N
        centred_N = disparity_N - mean
        deviation = (weight_N @ centred_N.square()).sqrt()
        if deviation <= NOISE * mean:
            return False
        tokens_ND = resize_map(tokens_HWD.double().permute(2, 0, 1)[None], size)[0].flatten(1).T.cpu()
        mean_D = weight_N @ tokens_ND
        weighted_ND = (tokens_ND - mean_D) * weight_N[:, None]
        self._gram_DD += weighted_ND.T @ (tokens_ND - mean_D)
        self._moment_D += weighted_ND.T @ (centred_N / deviation)
        self._mean_D += mean_D
        self.n += 1
        return True

    def solve(self, ridge: float) -> tuple[Tensor, float]:
        """Weights of the linear map and its bias.

        Args:
            ridge: penalty on the weights, in units of each channel's mean variance inside pictures: the same for tokens
                of any scale.

        Returns:
            weight D float32; bias, with which the mean of all predictions is 0.

        Raises:
            UsageError: a penalty of 0 or below, or no picture was added.
        """
        if not ridge > 0:
            raise UsageError(f"ridge must be positive, got {ridge}")
        if not self.n:
            raise UsageError("disparity fit: no picture with varied valid depth")
        # Constant channels say nothing: without a floor, one would be weighted by its rounding, or make the system
        # singular if it is 0.
        floor_D = (NOISE * self._mean_D).square() / self.n
        penalty_D = ridge * torch.maximum(self._gram_DD.diagonal(), floor_D)
        penalty_D = torch.where(penalty_D > 0, penalty_D, 1.0)
        weight_D = torch.linalg.solve(self._gram_DD + torch.diag(penalty_D), self._moment_D)
        return weight_D.float(), -float(weight_D @ self._mean_D) / self.n


def _blocks(depth_HW: Tensor, valid_HW: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Mean disparity of the valid pixels of each block, and their share, both flat float64 on the CPU."""
    valid_HW = valid_HW.cpu()
    disparity_HW = torch.where(valid_HW, 1 / depth_HW.cpu().double(), 0)
    sums = [F.adaptive_avg_pool2d(x[None], size).flatten() for x in (disparity_HW, valid_HW.double())]
    return sums[0] / sums[1].clamp(min=1e-12), sums[1]
