"""The text tower: bidirectional, no padding mask, read at the last position after the final LayerNorm (section 4.1).

Texts always have `positions` tokens, region names too: padding is attended to and the pooled position is fixed, so
another length would be another embedding. It is refused.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtv.errors import UsageError
from mtv.model.blocks import LN_EPS, Block
from mtv.model.config import TextConfig


class TextTower(nn.Module):
    """The text tower."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = nn.Parameter(torch.empty(config.vocab_size, config.width))
        self.positions = nn.Parameter(torch.empty(config.positions, config.width))
        self.blocks = nn.ModuleList(Block(config.width, config.heads, config.mlp_width) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width, eps=LN_EPS)
        self.head = nn.Linear(config.width, config.width)

    def forward(self, ids_BT: Tensor) -> Tensor:
        """Token ids (int64), B,T, to projected embeddings B,D, not normalised.

        Raises:
            UsageError: T is not `positions`.
        """
        if ids_BT.shape[-1] != self.config.positions:
            raise UsageError(
                f"texts have {ids_BT.shape[-1]} tokens, the tower takes {self.config.positions}",
                "Pad with the EOS id: the embedding is read at the last position.",
            )
        x_BTD = F.embedding(ids_BT, self.tokens) + self.positions
        *first, final = self.blocks
        for block in first:
            x_BTD = block(x_BTD)
        last_BD = final(x_BTD, last=1)[:, 0]
        return self.head(self.norm(last_BD))
