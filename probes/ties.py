"""The tie rule, in one place: among equal scores the lower index wins.

The index is the class number, or the position of an image or caption in canonical order. A rank therefore never depends
on the sort or top-k of a library, and every rank comes with two bounds: the rank if all ties were lost, and if all were
won. Equal rows of features must score equally for that, but a matmul may round the same row differently at different
places of its output, so callers score one row per group of equal rows (`equal_rows`) and copy the scores.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mtv.errors import UsageError


class TieRanks(NamedTuple):
    """Ranks of one target per query, 1 = best, int32."""

    rank_Q: Tensor
    """1 + #(greater) + #(equal at a lower index)."""
    rank_lo_Q: Tensor
    """The rank if every tie is lost: 1 + #(greater) + #(equal rivals). Gives the lower bound of a recall."""
    rank_hi_Q: Tensor
    """The rank if every tie is won: 1 + #(greater). Gives the upper bound of a recall."""


class TieBounds(NamedTuple):
    """What ties could change in a share of hits, printed beside every headline."""

    n_tied: int
    """Queries whose target equals at least one rival."""
    lo: float
    """Percent if all ties are lost."""
    hi: float
    """Percent if all ties are won."""


def target_ranks(scores_QK: Tensor, target_Q: Tensor) -> TieRanks:
    """Rank of column `target_Q[q]` in row q, under the tie rule.

    Args:
        scores_QK: finite scores, higher is better.
        target_Q: int64 column of the target of each row.
    """
    target_Q1 = target_Q[:, None]
    own_Q1 = scores_QK.gather(1, target_Q1)
    equal_QK = scores_QK == own_Q1
    columns_K = torch.arange(scores_QK.shape[1], device=scores_QK.device)
    won_Q = 1 + count_true(scores_QK > own_Q1)
    rank_Q = won_Q + count_true(equal_QK & (columns_K < target_Q1))
    lost_Q = won_Q + count_true(equal_QK) - 1
    return TieRanks(rank_Q, lost_Q, won_Q)


def count_true(mask: Tensor, dim: int = 1) -> Tensor:
    """Number of true entries along `dim`, int32."""
    return mask.sum(dim, dtype=torch.int32)


def top_k(scores_QK: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best columns of each row, by descending score, then ascending index.

    Args:
        scores_QK: scores without NaN.
        k: 1 .. K.

    Returns:
        values Q,k and int64 columns Q,k.

    Raises:
        UsageError: k out of range.
    """
    if not 1 <= k <= scores_QK.shape[1]:
        raise UsageError(f"top_k: k={k} is outside 1..{scores_QK.shape[1]}")
    values_Qk, columns_Qk = scores_QK.topk(k, dim=1)
    # topk may pick any of the columns that equal its last value; a stable sort decides, only where there is a choice.
    open_Q = count_true(scores_QK >= values_Qk[:, -1:]) > k
    if bool(open_Q.any()):
        sorted_RK, order_RK = scores_QK[open_Q].sort(dim=1, descending=True, stable=True)
        values_Qk[open_Q], columns_Qk[open_Q] = sorted_RK[:, :k], order_RK[:, :k]
    # Within the chosen set: by index first, then stably by value.
    columns_Qk, by_index_Qk = columns_Qk.sort(dim=1)
    values_Qk, by_value_Qk = values_Qk.gather(1, by_index_Qk).sort(dim=1, descending=True, stable=True)
    return values_Qk, columns_Qk.gather(1, by_value_Qk)


def equal_rows(x_ND: Tensor) -> tuple[Tensor, Tensor]:
    """Groups of bitwise equal rows, in order of first appearance.

    Returns:
        first_U: int64, the first row of each group, ascending; inverse_N: int64, the group of each row, so that
        `x_ND[first_U][inverse_N]` equals `x_ND`. Rows that differ only in the sign of a zero count as different.
    """
    hash_N = _row_hash(x_ND.contiguous())
    _, group_N = torch.unique(hash_N, return_inverse=True)
    n_rows = x_ND.shape[0]
    rows_N = torch.arange(n_rows, device=x_ND.device)
    first_G = torch.full((n_rows,), n_rows, device=x_ND.device).scatter_reduce(0, group_N, rows_N, "amin")
    leader_N = first_G[group_N]
    moved = (leader_N != rows_N).nonzero()[:, 0]
    differs = (x_ND[moved] != x_ND[leader_N[moved]]).any(dim=1)
    leader_N[moved[differs]] = moved[differs]  # a hash collision: such a row stands alone
    first_U, inverse_N = torch.unique(leader_N, return_inverse=True)
    return first_U, inverse_N


def _row_hash(x_ND: Tensor, chunk: int = 4096) -> Tensor:
    """One wrapping 64-bit integer per row, from the bits of its float32 values."""
    generator = torch.Generator().manual_seed(0)
    bound = 2**62
    weights_D = torch.randint(-bound, bound, (x_ND.shape[1],), generator=generator).to(x_ND.device)
    bits_ND = x_ND.to(torch.float32).view(torch.int32)
    return torch.cat([(part.to(torch.int64) * weights_D).sum(1) for part in bits_ND.split(chunk)])


def share_within(rank_Q: Tensor, k: int) -> float:
    """Percent of ranks <= k."""
    return 100.0 * int((rank_Q <= k).sum()) / rank_Q.numel()


def tie_bounds(rank_lo_Q: Tensor, rank_hi_Q: Tensor, k: int = 1) -> TieBounds:
    """Bounds of `share_within(..., k)` over all ways to decide ties."""
    return TieBounds(int((rank_lo_Q > rank_hi_Q).sum()), share_within(rank_lo_Q, k), share_within(rank_hi_Q, k))
