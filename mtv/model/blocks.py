"""The encoder block that both towers and the Prompter are made of, and attention pooling.

Pre-LN, LayerNorm eps 1e-6, GELU in its tanh approximation, biases everywhere; no LayerScale, no drop path
(`protocols/pretraining.md` section 4.1).

* One fused linear for q, k, v (rows in that order) and `scaled_dot_product_attention`.
* `Block.forward(x, last=1)` computes only the last rows of its output: the text tower is read at one position, so its
  last block needs keys and values of all rows, and everything else of one. Exact.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LN_EPS = 1e-6


def attention(q_BHnd: Tensor, k_BHNd: Tensor, v_BHNd: Tensor) -> Tensor:
    """softmax(q k / sqrt(d)) v per head, B,H,n,d."""
    if q_BHnd.device.type == "cpu" and q_BHnd.dtype == torch.bfloat16:
        # The fused kernel for bf16 on CPUs is ten times slower than this at a few dozen tokens.
        shares_BHnN = torch.softmax(q_BHnd @ k_BHNd.mT * q_BHnd.shape[-1] ** -0.5, dim=-1, dtype=torch.float32)
        return shares_BHnN.to(v_BHNd.dtype) @ v_BHNd
    return F.scaled_dot_product_attention(q_BHnd, k_BHNd, v_BHNd)


class Mlp(nn.Module):
    """Linear, GELU (tanh), linear."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Any leading shape, `width` channels in and out."""
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class Block(nn.Module):
    """One pre-LN encoder layer.

    Args:
        width: channels D.
        heads: attention heads.
        mlp_width: hidden channels of the MLP.
    """

    def __init__(self, width: int, heads: int, mlp_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, eps=LN_EPS)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=LN_EPS)
        self.mlp = Mlp(width, mlp_width)

    def forward(self, x_BND: Tensor, *, last: int | None = None) -> Tensor:
        """B,N,D to B,N,D, or to the last `last` rows of that."""
        q_BHND, k_BHND, v_BHND = split_heads(self.qkv(self.norm1(x_BND)), 3, self.heads)
        if last is not None:
            q_BHND, x_BND = q_BHND[:, :, -last:], x_BND[:, -last:]
        mixed_BHND = attention(q_BHND, k_BHND, v_BHND)
        x_BND = x_BND + self.proj(mixed_BHND.transpose(1, 2).flatten(2))
        return x_BND + self.mlp(self.norm2(x_BND))


class AttentionPool(nn.Module):
    """MAP pooling: a learned probe attends to the tokens, then x + MLP(LN(x)).

    Args:
        width: channels D.
        heads: attention heads.
        mlp_width: hidden channels of the MLP.
    """

    def __init__(self, width: int, heads: int, mlp_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.probe = nn.Parameter(torch.empty(1, 1, width))
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=LN_EPS)
        self.mlp = Mlp(width, mlp_width)

    def forward(self, tokens_BND: Tensor) -> Tensor:
        """Tokens after the post LayerNorm, B,N,D, to one vector each, B,D."""
        width = self.probe.shape[-1]
        weight, bias = self.qkv.weight, self.qkv.bias
        (q_1H1D,) = split_heads(F.linear(self.probe, weight[:width], bias[:width]), 1, self.heads)
        k_BHND, v_BHND = split_heads(F.linear(tokens_BND, weight[width:], bias[width:]), 2, self.heads)
        q_BH1D = q_1H1D.to(k_BHND.dtype).expand(len(tokens_BND), -1, -1, -1)
        mixed_BH1D = attention(q_BH1D, k_BHND, v_BHND)
        x_BD = self.proj(mixed_BH1D.flatten(1))
        return x_BD + self.mlp(self.norm(x_BD))


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """Autocast off on the device of `x`; meta tensors, which only count shapes, know no autocast."""
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)


def widen(x: Tensor) -> Tensor:
    """At least float32: what norms, softmax and losses compute in."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def split_heads(packed_BNC: Tensor, parts: int, heads: int) -> tuple[Tensor, ...]:
    """B,N,parts*D to `parts` tensors B,heads,N,D/heads."""
    batch, rows, channels = packed_BNC.shape
    parted = packed_BNC.view(batch, rows, parts, heads, channels // (parts * heads))
    return parted.permute(2, 0, 3, 1, 4).unbind(0)
