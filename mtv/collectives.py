"""Collectives of the losses: a differentiable gather of rows and a sum, which also work in one plain process.

Notable choices:
- Own autograd function instead of the library's gathers: those gave wrong gradients for non-contiguous inputs before
  torch 2.3. Backward is the sum over ranks of the whole gradient, of which each rank keeps its own rows.
- Without an initialised process group everything is the identity (one rank), so losses have no second code path.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable


def world_size() -> int:
    """Number of ranks of the default process group; 1 when there is none."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Rank of this process in the default process group; 0 when there is none."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def gather_rows(x: Tensor) -> Tensor:
    """Rows of all ranks in rank order, with a gradient to every rank's own rows.

    Args:
        x: [B, ...], floating or integer, the same shape and type on every rank. All ranks must call.

    Returns:
        [W * B, ...]; row `rank() * B + i` is this rank's row i.
    """
    return x if world_size() == 1 else _GatherRows.apply(x)


def all_sum(x: Tensor) -> Tensor:
    """Sum over ranks of a tensor of equal shape, without gradient; `x` itself is left alone. All ranks must call."""
    total = x.detach().clone(memory_format=torch.contiguous_format)
    if world_size() > 1:
        dist.all_reduce(total)
    return total


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.rows = len(x)
        gathered = x.new_empty((world_size() * len(x), *x.shape[1:]))
        dist.all_gather(list(gathered.split(len(x))), x.contiguous())
        return gathered

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        start = rank() * ctx.rows
        return all_sum(gradient)[start : start + ctx.rows]
