"""Scale-invariant log loss of the depth probe, as the released code computes it (protocol `depth`, section 3.3).

Notable: the reference trains on eight devices with two images each and averages gradients, so the loss is the mean over
chunks of two images, whatever the number of devices; the variance is unbiased; the first steps see the mean only; the
gradient term of the reference's configuration is exactly zero with two images and is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mtv.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class DepthLossConfig:
    """Constants of the loss."""

    chunk: int = 2
    """Images over which one variance is taken; the batch must be a multiple."""
    mean_weight: float = 0.15
    """Weight of the squared mean beside the variance."""
    epsilon: float = 1e-3
    """Added to both depths before the logarithm, metres."""
    warmup_steps: int = 100
    """Optimiser steps in which the variance is left out."""

    def __post_init__(self) -> None:
        if self.chunk < 1:
            raise UsageError(f"depth_loss.chunk must be at least 1, got {self.chunk}")
        if self.mean_weight <= 0 or self.epsilon <= 0:
            raise UsageError(
                f"depth_loss.mean_weight and epsilon must be positive, got {self.mean_weight}, {self.epsilon}"
            )
        if self.warmup_steps < 0:
            raise UsageError(f"depth_loss.warmup_steps must not be negative, got {self.warmup_steps}")


@dataclass(frozen=True, kw_only=True)
class DepthLoss:
    """The loss of one batch. Tensors stay on the device, so that a step needs no synchronisation."""

    value: Tensor
    """Mean over the chunks that count; 0 with zero gradient where none does. NaN predictions make it NaN."""
    skipped: Tensor
    """int64: chunks with fewer than two valid pixels, which have no variance."""


def depth_loss(pred_B1HW: Tensor, depth_B1HW: Tensor, *, step: int, config: DepthLossConfig | None = None) -> DepthLoss:
    """sqrt(var(g) + 0.15 mean(g)^2) per chunk, g = log(pred + eps) - log(depth + eps) over its valid pixels.

    Args:
        pred_B1HW: predicted depth at the size of the target, metres, positive.
        depth_B1HW: metres; valid where above 0, without upper bound.
        step: optimiser steps done before this one: 0 for the first.

    Raises:
        UsageError: shapes that differ, a batch that is no multiple of the chunk.
    """
    config = config or DepthLossConfig()
    if pred_B1HW.shape != depth_B1HW.shape:
        raise UsageError(f"depth loss: prediction {tuple(pred_B1HW.shape)}, target {tuple(depth_B1HW.shape)}")
    batch = pred_B1HW.shape[0]
    if batch == 0 or batch % config.chunk:
        raise UsageError(f"depth loss: a batch of {batch} images is no multiple of depth_loss.chunk = {config.chunk}")
    pred_CN = pred_B1HW.reshape(batch // config.chunk, -1)
    depth_CN = depth_B1HW.reshape(batch // config.chunk, -1)
    valid_CN = depth_CN > 0
    target_CN = torch.log(torch.where(valid_CN, depth_CN, 1) + config.epsilon)
    gap_CN = torch.where(valid_CN, torch.log(pred_CN + config.epsilon) - target_CN, 0)
    n_C = valid_CN.sum(1)
    mean_C = gap_CN.sum(1) / n_C.clamp(min=1)
    squared_C = config.mean_weight * mean_C.square()
    if step >= config.warmup_steps:
        centred_CN = torch.where(valid_CN, gap_CN - mean_C[:, None], 0)
        squared_C = squared_C + centred_CN.square().sum(1) / (n_C - 1).clamp(min=1)
    counts_C = n_C >= 2
    # The slope of sqrt is infinite at 0 (prediction equal to target): such a chunk gives 0 with zero gradient.
    flat_C = ~counts_C | (squared_C == 0)
    root_C = torch.where(flat_C, 0, torch.where(flat_C, 1, squared_C).sqrt())
    return DepthLoss(value=root_C.sum() / counts_C.sum().clamp(min=1), skipped=(~counts_C).sum())
