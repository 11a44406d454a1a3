"""The linear depth head of the NYUv2 probe: one 1x1 convolution from patch and global token to 256 depth bins.

Literally: concatenate patch and global token, upsample four times, convolve, ReLU, add a floor, divide by the sum over
the bins, take the expectation of their depths. Interpolation weights sum to 1 at every pixel and a 1x1 convolution acts
on each pixel alone, so the two commute: here the convolution runs on the tokens, the global token is a bias of the
image, and 256 channels are upsampled instead of 2 D (`depth_expectation`). ReLU and normalisation stay after the
upsampling; before it they would change depths by decimetres. Protocol `depth`, sections 3.2, 4 and 6.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtv.errors import UsageError, unknown
from mtv.probes.bilinear import resize_map
from mtv.probes.depth_expectation import expected_depth
from mtv.probes.precision import fp32_matmul
from mtv.probes.resample import patch_padding


@dataclass(frozen=True, kw_only=True)
class DepthHeadConfig:
    """What the head computes, apart from its weights."""

    bins: int = 256
    """Depth bins."""
    min_depth: float = 0.001
    """Depth of the first bin, metres."""
    max_depth: float = 10.0
    """Depth of the last bin, metres."""
    spacing: Literal["linear", "log"] = "linear"
    """Distance of the bins: equal differences (the protocol's), or equal ratios (a labelled ablation)."""
    floor: float = 0.1
    """Added to every bin after the ReLU: a flat logit gives the middle of the range (TIPS uses 0.001)."""
    upsample: int = 4
    """Output pixels per token side."""

    def __post_init__(self) -> None:
        if self.bins < 2:
            raise UsageError(f"depth_head.bins must be at least 2, got {self.bins}")
        if not 0 < self.min_depth < self.max_depth < math.inf:
            raise UsageError(
                f"depth_head.min_depth and max_depth must be positive and rising, got {self.min_depth}, "
                f"{self.max_depth}"
            )
        if self.spacing not in ("linear", "log"):
            raise unknown("depth_head.spacing", self.spacing, ("linear", "log"))
        if not 0 < self.floor < math.inf:
            raise UsageError(f"depth_head.floor must be positive, got {self.floor}", "Without it 0 / 0 is possible.")
        if self.upsample < 1:
            raise UsageError(f"depth_head.upsample must be at least 1, got {self.upsample}")

    def centres(self) -> Tensor:
        """Depths of the bins in metres, float64."""
        low, high = self.min_depth, self.max_depth
        if self.spacing == "linear":
            return torch.linspace(low, high, self.bins, dtype=torch.float64)
        return torch.linspace(math.log(low), math.log(high), self.bins, dtype=torch.float64).exp()


def token_grid(size: tuple[int, int], patch: int) -> tuple[int, int]:
    """Rows and columns of tokens of a picture of (height, width) `size`, zero-padded to multiples of the patch."""
    rows, cols = ((side + sum(patch_padding(side, patch))) // patch for side in size)
    return rows, cols


def check_token_grid(tokens_BHWD: Tensor, *, size: tuple[int, int], patch: int) -> None:
    """Refuse tokens that do not cover the padded picture.

    Args:
        size: (height, width) in pixels before patch padding.

    Raises:
        UsageError: another number of rows or columns.
    """
    expected, found = token_grid(size, patch), tuple(tokens_BHWD.shape[1:3])
    if found != expected:
        raise UsageError(
            f"depth head: {found[0]}x{found[1]} tokens do not fit a {size[0]}x{size[1]} picture with patch {patch}",
            f"It has {expected[0]}x{expected[1]} after zero padding (pad_to_patch).",
        )


class DepthHead(nn.Module):
    """Trainable weights and the forward pass. The state holds `weight` (bins, 2 D; patch half first) and `bias`.

    Computes in the precision of its weights whatever autocast or TF32 setting the caller has. Its backward pass runs
    outside: hold `fp32_matmul` around the whole step.

    Args:
        width: D, channels of the encoder's tokens.
        seed: seeds the initialisation, torch's default for a convolution: uniform within 1 / sqrt(2 D).

    Raises:
        UsageError: a width below 1.
    """

    def __init__(self, width: int, *, config: DepthHeadConfig | None = None, seed: int = 0) -> None:
        super().__init__()
        if width < 1:
            raise UsageError(f"depth head: width must be at least 1, got {width}")
        self.config = config or DepthHeadConfig()
        self.width = width
        generator = torch.Generator().manual_seed(seed)
        bound, bins = 1 / math.sqrt(2 * width), self.config.bins
        self.weight = nn.Parameter(torch.empty(bins, 2 * width).uniform_(-bound, bound, generator=generator))
        self.bias = nn.Parameter(torch.empty(bins).uniform_(-bound, bound, generator=generator))

    @fp32_matmul()
    def token_logits(self, tokens_BHWD: Tensor, global_BD: Tensor) -> Tensor:
        """Logits per token, B,H,W,bins, before the upsampling.

        Raises:
            UsageError: widths that are not the head's, or batches that differ.
        """
        b, _, _, d = tokens_BHWD.shape
        if d != self.width or tuple(global_BD.shape) != (b, d):
            raise UsageError(
                f"depth head of width {self.width}: got patch tokens {tuple(tokens_BHWD.shape)} and global tokens "
                f"{tuple(global_BD.shape)}",
                "Build the head with the encoder's width; the global token has the width of the patch tokens.",
            )
        # Linear and not convolution: cuDNN's convolutions use TF32 unless they are told not to.
        patch_KD, global_KD = self.weight.split(self.width, dim=1)
        image_BK = F.linear(global_BD.to(self.weight.dtype), global_KD, self.bias)
        return F.linear(tokens_BHWD.to(self.weight.dtype), patch_KD) + image_BK[:, None, None]

    def forward(self, tokens_BHWD: Tensor, global_BD: Tensor) -> Tensor:
        """Depth in metres, B,1,h,w at `upsample` pixels per token side; `resize_map` takes it to the target's size.

        Args:
            tokens_BHWD: patch tokens of the padded picture, any floating dtype.
            global_BD: CLS token, or the pooled vector of encoders without one.

        Raises:
            UsageError: widths that are not the head's, or batches that differ.
        """
        return expected_depth(
            self.token_logits(tokens_BHWD, global_BD),
            self.config.centres(),
            floor=self.config.floor,
            upsample=self.config.upsample,
        )

    def predict(self, tokens_BHWD: Tensor, global_BD: Tensor, size: tuple[int, int]) -> Tensor:
        """Depth for evaluation, B,1,size, without gradient: clamped to the range, then resized.

        Where the picture was padded to the patch, the prediction for the padded picture is squeezed to `size` and not
        cropped, as in the reference.
        """
        with torch.no_grad():
            depth_B1hw = self(tokens_BHWD, global_BD).clamp(self.config.min_depth, self.config.max_depth)
            return resize_map(depth_B1hw, size)
