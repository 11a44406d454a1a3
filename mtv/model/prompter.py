"""The Prompter: one encoder layer that turns a box and the patch tokens into a region embedding (section 4.3).

* The layer is read at the query row only, so that row alone passes out-projection and MLP, and keys and values of the
  patches are computed once per image and shared by its regions (`trainer_performance.md` section 3, rewrite 3): equal
  to running the whole layer over [query; z*] once per region.
* Regions of an image do not see one another: each has its own softmax over its own row and the patches.
* Boxes are fractions of the global view, encoded by sines and cosines without parameters.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtv.errors import UsageError
from mtv.model.blocks import Block, widen, without_autocast
from mtv.model.config import PrompterConfig


class Prompter(nn.Module):
    """Boxes and tokens to region embeddings.

    Args:
        width: channels D of the tokens, a multiple of 8.
        mlp_width: hidden channels of the layer's MLP.
        config: heads, conditioning, frequencies.
    """

    def __init__(self, width: int, mlp_width: int, config: PrompterConfig) -> None:
        super().__init__()
        if width % config.heads:
            raise UsageError(f"ground.heads={config.heads} does not divide the width {width}")
        self.config = config
        self.query = nn.Parameter(torch.empty(width))
        self.layer = Block(width, config.heads, mlp_width)

    def forward(self, tokens_BND: Tensor, boxes_BR4: Tensor) -> Tensor:
        """Region embeddings B,R,D, L2-normalised, float32.

        Args:
            tokens_BND: z*, before the post LayerNorm.
            boxes_BR4: x0, y0, x1, y1 in [0, 1] of the view; padded slots may hold anything finite.
        """
        rows_BRED = self.rows(boxes_BR4)
        query_BRD = rows_BRED[:, :, 0]
        x_BRD = query_BRD + self.layer.proj(self._attend(rows_BRED, tokens_BND))
        x_BRD = x_BRD + self.layer.mlp(self.layer.norm2(x_BRD))
        with without_autocast(x_BRD):
            return F.normalize(widen(x_BRD), dim=-1)

    def rows(self, boxes_BR4: Tensor) -> Tensor:
        """Rows that stand before the patches of each region, B,R,E,D; the first is the query that is read."""
        code_BRD = box_encoding(boxes_BR4, self.query.shape[0], self.config.pe_low, self.config.pe_high)
        if self.config.conditioning == "query":
            return (self.query + code_BRD)[:, :, None]
        return torch.stack([self.query.expand_as(code_BRD), code_BRD], dim=2)

    def _attend(self, rows_BRED: Tensor, tokens_BND: Tensor) -> Tensor:
        """Attention of each region's first row over its own rows and the shared patches, heads joined: B,R,D."""
        layer, heads = self.layer, self.config.heads
        width = tokens_BND.shape[-1]
        weight, bias = layer.qkv.weight, layer.qkv.bias
        own = layer.qkv(layer.norm1(rows_BRED)).unflatten(-1, (3, heads, width // heads))
        q_BHRd = own[:, :, 0, 0].transpose(1, 2)
        k_BHREd, v_BHREd = own[:, :, :, 1].permute(0, 3, 1, 2, 4), own[:, :, :, 2].permute(0, 3, 1, 2, 4)
        shared = F.linear(layer.norm1(tokens_BND), weight[width:], bias[width:])
        k_BHNd, v_BHNd = shared.unflatten(-1, (2, heads, width // heads)).permute(2, 0, 3, 1, 4).unbind(0)
        scores = torch.cat([(k_BHREd @ q_BHRd[..., None])[..., 0], q_BHRd @ k_BHNd.transpose(-1, -2)], dim=-1)
        shares_BHRS = torch.softmax(scores / math.sqrt(width // heads), dim=-1).to(v_BHNd.dtype)
        extra = rows_BRED.shape[2]
        mixed_BHRd = (shares_BHRS[..., None, :extra] @ v_BHREd)[..., 0, :] + shares_BHRS[..., extra:] @ v_BHNd
        return mixed_BHRd.transpose(1, 2).flatten(2)


def box_encoding(boxes_BR4: Tensor, width: int, low: float, high: float) -> Tensor:
    """Sines and cosines of 2 pi f x for the four corner coordinates, B,R,width; its squared norm is width / 2.

    Frequencies f are geometric from `low` to `high` cycles per image. Dtype of the boxes.
    """
    count = width // 8
    steps = torch.arange(count, device=boxes_BR4.device, dtype=boxes_BR4.dtype) / max(count - 1, 1)
    angle_BR4F = 2 * math.pi * boxes_BR4[..., None] * (low * (high / low) ** steps)
    return torch.cat([angle_BR4F.sin(), angle_BR4F.cos()], dim=-1).flatten(-2)
