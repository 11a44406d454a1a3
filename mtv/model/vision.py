"""The image tower: patches, learned positions, blocks, post LayerNorm, attention pooling (section 4.1).

* Patches are cut by a reshape and projected by one matrix product; the depth head's convolutions are the only ones of
  the model.
* The mask token replaces the patch embedding before positions are added, so masked tokens still differ.
* Any size that is a multiple of the patch: the position table is resampled bicubic in FP32 (no antialias).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtv.encoders.posembed import resize_pos_embed
from mtv.errors import UsageError
from mtv.model.blocks import LN_EPS, AttentionPool, Block
from mtv.model.config import VisionConfig


@dataclass(frozen=True, kw_only=True)
class VisionOutput:
    """One pass of the image tower."""

    tokens_BND: Tensor
    """z*: output of the last block, before the post LayerNorm."""
    pooled_BD: Tensor | None
    """Attention-pooled vector, not normalised; None when it was not asked for."""
    taps: dict[int, Tensor] = field(default_factory=dict)
    """Block (1-based) to its output B,N,D, before the post LayerNorm."""
    grid_hw: tuple[int, int]
    """Rows and columns of tokens."""


class VisionTower(nn.Module):
    """The image tower.

    Args:
        config: sizes.
        mask_token: give it a mask token (students that are trained with masks).
    """

    def __init__(self, config: VisionConfig, *, mask_token: bool = False) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.patch_weight = nn.Parameter(torch.empty(width, 3, config.patch_size, config.patch_size))
        self.patch_bias = nn.Parameter(torch.empty(width))
        self.positions = nn.Parameter(torch.empty(config.patches, width))
        self.blocks = nn.ModuleList(Block(width, config.heads, config.mlp_width) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width, eps=LN_EPS)
        self.pool = AttentionPool(width, config.heads, config.mlp_width)
        self.mask_token = nn.Parameter(torch.empty(width)) if mask_token else None

    def forward(
        self, images_BCHW: Tensor, *, mask_BN: Tensor | None = None, taps: Sequence[int] = (), pool: bool = True
    ) -> VisionOutput:
        """One pass.

        Args:
            images_BCHW: normalised pixels, sides multiples of the patch.
            mask_BN: bool, True where the mask token takes the place of the patch; N row-major.
            taps: blocks to return, 1-based.
            pool: also compute the pooled vector.

        Raises:
            UsageError: sides that the patch does not divide, a tap that does not exist, a mask without a mask token.
        """
        wrong = [t for t in taps if not 1 <= t <= len(self.blocks)]
        if wrong:
            raise UsageError(f"taps {wrong} do not exist: blocks are 1 to {len(self.blocks)}")
        x_BND, grid_hw = self.embed(images_BCHW, mask_BN)
        kept: dict[int, Tensor] = {}
        for number, block in enumerate(self.blocks, start=1):
            x_BND = block(x_BND)
            if number in taps:
                kept[number] = x_BND
        pooled_BD = self.pool(self.norm(x_BND)) if pool else None
        return VisionOutput(tokens_BND=x_BND, pooled_BD=pooled_BD, taps=kept, grid_hw=grid_hw)

    def embed(self, images_BCHW: Tensor, mask_BN: Tensor | None = None) -> tuple[Tensor, tuple[int, int]]:
        """What enters the first block, B,N,D, and the token grid."""
        batch, channels, height, width = images_BCHW.shape
        side = self.config.patch_size
        if height % side or width % side:
            raise UsageError(f"image size {height}x{width} is no multiple of patch size {side}")
        grid_hw = (height // side, width // side)
        cut = images_BCHW.view(batch, channels, grid_hw[0], side, grid_hw[1], side).permute(0, 2, 4, 1, 3, 5)
        x_BND = F.linear(cut.reshape(batch, grid_hw[0] * grid_hw[1], -1), self.patch_weight.flatten(1), self.patch_bias)
        if mask_BN is not None:
            if self.mask_token is None:
                raise UsageError("this image tower has no mask token: it was built without the ssl objective")
            x_BND = torch.where(mask_BN[..., None], self.mask_token.to(x_BND.dtype), x_BND)
        return x_BND + self.position_table(grid_hw), grid_hw

    def position_table(self, grid_hw: tuple[int, int]) -> Tensor:
        """Positions of a token grid, N,D, FP32: the table itself at the native size."""
        side = self.config.grid
        return resize_pos_embed(self.positions[None], grid_hw, (side, side), 0, "bicubic")[0]
