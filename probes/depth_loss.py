"""Scale-invariant log loss of the depth probe, as the released code computes it (protocol `depth`, section 3.3).

Notable: the reference trains on eight devices with two images each and averages gradients, so the loss is the mean over
chunks of two images, whatever the number of devices; the variance is unbiased; the first steps see the mean only; the
gradient term of the reference's configuration is exactly zero with two images and is left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

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
    root_C, counts_C = _ChunkRoots.apply(pred_CN, depth_CN, config, step >= config.warmup_steps)
    return DepthLoss(value=root_C.sum() / counts_C.sum().clamp(min=1), skipped=(~counts_C).sum())


class _ChunkRoots(torch.autograd.Function):
    """Root of every chunk and whether it counts.

    The slope has a closed form and is made with the root: on a CPU a chunk at a time, so that all passes find the chunk
    in the cache. Half the time of autograd over the whole batch, and none of its saved maps.
    """

    @staticmethod
    def forward(
        ctx: Any, pred_CN: Tensor, depth_CN: Tensor, config: DepthLossConfig, with_variance: bool
    ) -> tuple[Tensor, Tensor]:
        slope_CN = torch.empty_like(pred_CN)
        root_C, counts_C = pred_CN.new_empty(len(pred_CN)), pred_CN.new_empty(len(pred_CN), dtype=torch.bool)
        step = 1 if pred_CN.device.type == "cpu" else len(pred_CN)
        for first in range(0, len(pred_CN), step):
            some = slice(first, first + step)
            root_C[some], counts_C[some] = _roots(
                pred_CN[some], depth_CN[some], config, with_variance, slope_cN=slope_CN[some]
            )
        ctx.save_for_backward(slope_CN)
        ctx.mark_non_differentiable(counts_C)
        return root_C, counts_C

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (slope_CN,) = ctx.saved_tensors
        return slope_CN * gradients[0][:, None], None, None, None


def _roots(
    pred_cN: Tensor, depth_cN: Tensor, config: DepthLossConfig, with_variance: bool, *, slope_cN: Tensor
) -> tuple[Tensor, Tensor]:
    """Root of every chunk and whether it counts; the slope of the root in every prediction goes into `slope_cN`."""
    # Masks are floats: on a CPU, a pass over booleans takes twice as long.
    target_cN = torch.nan_to_num(depth_cN, nan=0.0, posinf=math.inf, neginf=0.0).clamp_(min=0)
    valid_cN = torch.sign(target_cN)
    n_c = valid_cN.sum(1)
    shifted_cN = pred_cN + config.epsilon
    gap_cN = torch.div(shifted_cN, target_cN.add_(config.epsilon), out=target_cN).log_().mul_(valid_cN)
    mean_c = gap_cN.sum(1) / n_c.clamp(min=1)
    centred_cN = gap_cN.sub_(mean_c[:, None]).mul_(valid_cN) if with_variance else gap_cN.zero_()
    freedom_c = (n_c - 1).clamp(min=1)
    squared_c = config.mean_weight * mean_c.square() + centred_cN.square().sum(1) / freedom_c
    counts_c = n_c >= 2
    # The slope of sqrt is infinite at 0 (prediction equal to target): such a chunk gives 0 with zero gradient.
    flat_c = ~counts_c | (squared_c == 0)
    root_c = torch.where(flat_c, 0, torch.where(flat_c, 1, squared_c).sqrt())
    per_root_c = torch.where(flat_c, 0, 1 / torch.where(flat_c, 1, root_c))
    centred_cN.mul_((per_root_c / freedom_c)[:, None])
    centred_cN.addcmul_(valid_cN, (config.mean_weight * mean_c * per_root_c / n_c.clamp(min=1))[:, None])
    torch.div(centred_cN, shifted_cN, out=slope_cN)
    return root_c, counts_c
