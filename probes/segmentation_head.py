"""The linear segmentation head: batch norm, then one 1x1 convolution; and the norm folded into it for testing.

Exactly the layers of the mmsegmentation form (BatchNorm2d, conv N(0, 0.01), bias 0), so that one head serves both
engines. Folding gives the same logits to float32 rounding with one layer less. Protocol `segmentation`, section 4.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mtv.errors import UsageError
from mtv.probes.segmentation_metric import IGNORE_INDEX

INIT_STD = 0.01
BN_EPS = 1e-5
BN_MOMENTUM = 0.1


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """Shape of a head."""

    width: int
    """Channels D of the patch tokens."""
    n_classes: int
    """Classes C, 1 to 255 (255 is the ignored label)."""
    bn: bool = True
    """Batch norm before the convolution."""

    def __post_init__(self) -> None:
        if self.width < 1:
            raise UsageError(f"width must be at least 1, got {self.width}")
        if not 1 <= self.n_classes <= IGNORE_INDEX:
            raise UsageError(f"n_classes must be 1 to {IGNORE_INDEX}, got {self.n_classes}")


class LinearHead(nn.Module):
    """Logits per patch.

    Args:
        config: the shape.
        seed: of the convolution's weights; heads of one shape and seed are equal. The global generator is not touched.
    """

    def __init__(self, config: HeadConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.norm = nn.BatchNorm2d(config.width, eps=BN_EPS, momentum=BN_MOMENTUM) if config.bn else None
        # skip_init: the default initialisation would draw from the global generator.
        self.conv = nn.utils.skip_init(nn.Conv2d, config.width, config.n_classes, kernel_size=1)
        nn.init.normal_(self.conv.weight, std=INIT_STD, generator=torch.Generator().manual_seed(seed))
        nn.init.zeros_(self.conv.bias)

    def forward(self, map_BDhw: Tensor) -> Tensor:
        """B,D,h,w patch tokens, float32, to B,C,h,w logits."""
        logits_BChw: Tensor = self.conv(map_BDhw if self.norm is None else self.norm(map_BDhw))
        return logits_BChw

    def linear(self) -> tuple[Tensor, Tensor]:
        """Weight C,D and bias C that act on tokens already normalised (on plain tokens where there is no norm).

        Differentiable: norm scale and shift and the convolution all get their gradients through it.
        """
        weight_CD, bias_C = self.conv.weight.flatten(1), self.conv.bias
        assert bias_C is not None, "the convolution is made with a bias"
        if self.norm is None:
            return weight_CD, bias_C
        return weight_CD * self.norm.weight, bias_C + weight_CD @ self.norm.bias

    def running(self) -> tuple[Tensor, Tensor] | None:
        """Running mean and variance of the norm, D each and not copied; None where there is no norm."""
        if self.norm is None:
            return None
        mean_D, var_D = self.norm.running_mean, self.norm.running_var
        assert mean_D is not None, "the norm tracks statistics"
        assert var_D is not None, "the norm tracks statistics"
        return mean_D, var_D


@torch.no_grad()
def fold_norm(head: LinearHead) -> LinearHead:
    """The head at test time as a convolution alone: running statistics, scale and shift folded in, in float64.

    Returns:
        A new head without norm, in evaluation mode, on the device of `head`; the same logits to float32 rounding.
    """
    weight_CD, bias_C = head.conv.weight.flatten(1).double(), head.conv.bias.double()
    if head.norm is not None and (running := head.running()) is not None:
        mean_D, var_D = running
        scale_D = head.norm.weight.double() / (var_D.double() + BN_EPS).sqrt()
        bias_C = bias_C + weight_CD @ (head.norm.bias.double() - mean_D.double() * scale_D)
        weight_CD = weight_CD * scale_D
    folded = LinearHead(HeadConfig(width=head.config.width, n_classes=head.config.n_classes, bn=False))
    folded.to(head.conv.weight.device)
    folded.conv.weight.copy_(weight_CD[:, :, None, None])
    folded.conv.bias.copy_(bias_C)
    return folded.eval()
