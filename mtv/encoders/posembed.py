"""Absolute position embeddings at another grid size.

Two conventions are in use and differ visibly (about 8 % in relative norm on random embeddings), so the one that was
used is part of the model's record.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from mtv.errors import UsageError

PosInterp = Literal["bicubic-antialias", "bicubic"]
POS_INTERP: tuple[str, ...] = get_args(PosInterp)


def resize_pos_embed(
    pos_1ND: Tensor,
    new_hw: tuple[int, int],
    old_hw: tuple[int, int],
    num_prefix: int,
    mode: str = "bicubic-antialias",
) -> Tensor:
    """Resample the grid part of learned position embeddings; prefix tokens (CLS, registers) pass through.

    Args:
        pos_1ND: 1, num_prefix + old_h * old_w, D, prefix first, row-major grid.
        new_hw: target grid (rows, columns).
        old_hw: grid of `pos_1ND`.
        num_prefix: embeddings that belong to prefix tokens.
        mode: `bicubic-antialias` (cubic coefficient -0.5, as timm) or `bicubic` (-0.75, as transformers). Both treat
            cells as areas (`align_corners=False`).

    Returns:
        1, num_prefix + new_h * new_w, D in the dtype of the input; the input itself when the grid is unchanged.

    Raises:
        UsageError: unknown mode, or a length that does not match `old_hw` and `num_prefix`.
    """
    if mode not in POS_INTERP:
        raise UsageError(f"pos_interp must be one of {', '.join(POS_INTERP)}, got {mode!r}")
    expected = num_prefix + old_hw[0] * old_hw[1]
    if pos_1ND.shape[1] != expected:
        raise UsageError(f"position embedding has {pos_1ND.shape[1]} entries, expected {num_prefix} + {old_hw}")
    if tuple(new_hw) == tuple(old_hw):
        return pos_1ND
    prefix, grid = pos_1ND[:, :num_prefix], pos_1ND[:, num_prefix:]
    grid_1DHW = grid.float().reshape(1, *old_hw, -1).permute(0, 3, 1, 2)
    antialias = mode == "bicubic-antialias"
    out_1DHW = F.interpolate(grid_1DHW, size=tuple(new_hw), mode="bicubic", antialias=antialias, align_corners=False)
    return torch.cat([prefix, out_1DHW.permute(0, 2, 3, 1).flatten(1, 2).to(pos_1ND.dtype)], dim=1)
