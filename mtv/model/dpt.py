"""The depth head: four taps of the image tower, fused from deep to shallow, to one disparity map (section 4.4).

* The deepest fusion has no skip and so no first unit: stock heads carry one that never gets a gradient.
* Each fusion's 1x1 runs before the bilinear upsampling, on a quarter of the pixels: both are linear and the bilinear
  weights sum to 1, so the order does not matter.
* No final activation: the output may be negative everywhere, and means disparity up to a positive scale and a shift.
* The last 1x1 runs in float32 whatever the rest runs in.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtv.errors import UsageError
from mtv.model.blocks import LN_EPS, widen, without_autocast
from mtv.model.config import DptConfig

DepthPrecision = Literal["fp32", "tf32", "bf16"]


class DptHead(nn.Module):
    """Taps to disparity.

    Args:
        width: channels D of the taps.
        config: widths and options.
    """

    def __init__(self, width: int, config: DptConfig) -> None:
        super().__init__()
        self.config = config
        widths, features = config.tap_widths, config.features
        self.tap_norm = nn.LayerNorm(width, eps=LN_EPS) if config.tap_norm == "own" else None
        self.projects = nn.ModuleList(nn.Conv2d(width, w, 1) for w in widths)
        self.resizes = nn.ModuleList(
            [
                nn.ConvTranspose2d(widths[0], widths[0], 4, stride=4),
                nn.ConvTranspose2d(widths[1], widths[1], 2, stride=2),
                nn.Identity(),
                nn.Conv2d(widths[3], widths[3], 3, stride=2, padding=1),
            ]
        )
        self.reduces = nn.ModuleList(nn.Conv2d(w, features, 3, padding=1, bias=False) for w in widths)
        self.fusions = nn.ModuleList(Fusion(features, skip=i < 3) for i in range(4))
        self.out1 = nn.Conv2d(features, features // 2, 3, padding=1)
        self.out2 = nn.Conv2d(features // 2, config.out_hidden, 3, padding=1)
        self.out3 = nn.Conv2d(config.out_hidden, 1, 1)

    def forward(self, taps: Sequence[Tensor], grid_hw: tuple[int, int], out_hw: tuple[int, int]) -> Tensor:
        """Disparity B,H,W at `out_hw`, float32.

        Args:
            taps: four token tensors B,N,D, shallow to deep: after the tower's post LayerNorm under
                `tap_norm="final"`, as the blocks gave them otherwise.
            grid_hw: rows and columns of the tokens.
            out_hw: height and width of the map.
        """
        maps = []
        for tap_BND, project, resize, reduce in zip(taps, self.projects, self.resizes, self.reduces, strict=True):
            tap_BND = tap_BND if self.tap_norm is None else self.tap_norm(tap_BND)
            # The transposed view is a channels-last picture, which convolutions like.
            maps.append(reduce(resize(project(tap_BND.transpose(1, 2).unflatten(2, grid_hw)))))
        x_BFHW = self.fusions[3](maps[3], None, maps[2].shape[2:])
        x_BFHW = self.fusions[2](x_BFHW, maps[2], maps[1].shape[2:])
        x_BFHW = self.fusions[1](x_BFHW, maps[1], maps[0].shape[2:])
        x_BFHW = self.fusions[0](x_BFHW, maps[0], (2 * maps[0].shape[2], 2 * maps[0].shape[3]))
        x_BFHW = F.relu(self.out2(_upsample(self.out1(x_BFHW), out_hw)))
        with without_autocast(x_BFHW):
            disparity_BHW = self.out3(widen(x_BFHW))[:, 0]
        return F.relu(disparity_BHW) if self.config.final_act else disparity_BHW


class Fusion(nn.Module):
    """Add the refined skip, refine, 1x1, upsample.

    Args:
        features: channels F.
        skip: whether a skip is added; the deepest fusion has none.
    """

    def __init__(self, features: int, *, skip: bool) -> None:
        super().__init__()
        self.skip_unit = ResidualUnit(features) if skip else None
        self.unit = ResidualUnit(features)
        self.project = nn.Conv2d(features, features, 1)

    def forward(self, x_BFHW: Tensor, skip_BFHW: Tensor | None, out_hw: Sequence[int]) -> Tensor:
        """B,F,H,W and its skip of the same shape to B,F at `out_hw`."""
        if self.skip_unit is not None and skip_BFHW is not None:
            x_BFHW = x_BFHW + self.skip_unit(skip_BFHW)
        return _upsample(self.project(self.unit(x_BFHW)), out_hw)


class ResidualUnit(nn.Module):
    """ReLU, 3x3, ReLU, 3x3, plus the input."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, padding=1)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, x_BFHW: Tensor) -> Tensor:
        """Same shape out."""
        return x_BFHW + self.conv2(F.relu(self.conv1(F.relu(x_BFHW))))


def _upsample(x_BFHW: Tensor, out_hw: Sequence[int]) -> Tensor:
    if x_BFHW.shape[2:] == tuple(out_hw):
        return x_BFHW
    return F.interpolate(x_BFHW, size=tuple(out_hw), mode="bilinear", align_corners=True)


def set_convolution_precision(precision: DepthPrecision) -> None:
    """Allow or forbid TF32 in cuDNN's convolutions, for the process.

    Only this head convolves. The flag is read when a kernel is chosen, in the backward pass too, so a context around
    the forward pass would leave the gradients in TF32.

    Raises:
        UsageError: unknown precision.
    """
    if precision not in get_args(DepthPrecision):
        raise UsageError(f"depth.precision must be one of {', '.join(get_args(DepthPrecision))}, got {precision!r}")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"


@contextlib.contextmanager
def depth_autocast(precision: DepthPrecision, device_type: str) -> Iterator[None]:
    """Where the head runs: autocast off for `fp32` and `tf32` (inputs must be cast as well), bf16 otherwise.

    Raises:
        UsageError: `fp32` while the process allows TF32 convolutions (see `set_convolution_precision`).
    """
    if precision == "fp32" and device_type == "cuda" and torch.backends.cudnn.allow_tf32:
        raise UsageError("depth.precision=fp32, but TF32 convolutions are on", "Call set_convolution_precision first.")
    with torch.autocast(device_type, dtype=torch.bfloat16, enabled=precision == "bf16"):
        yield
