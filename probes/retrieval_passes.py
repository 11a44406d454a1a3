"""The two passes over score blocks that rank both directions of a retrieval task.

The first pass sees every caption's whole row: it finishes the captions, and collects for each image its best positive
caption and its best foreign one. The second pass sees the same blocks again and counts, for each image, the captions
above or equal to that best positive.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mtv.errors import NumericalError
from mtv.probes.score_blocks import Block, ScoreBlocks

_NONE = -1
_NEVER = float("-inf")


@dataclass(frozen=True, kw_only=True)
class PositivePairs:
    """Which images are right for which caption: a caption refers to an entry, an entry to a run of `image_P`."""

    entry_T: Tensor
    """Entry of each caption."""
    start_E: Tensor
    """First place of each entry in `image_P`."""
    count_E: Tensor
    """Images of each entry, at least one."""
    image_P: Tensor
    """Image numbers, distinct within an entry."""

    def of(self, position_B: Tensor) -> tuple[Tensor, Tensor]:
        """Row within `position_B` and image number of every positive pair of these captions."""
        entry_B = self.entry_T[position_B]
        count_B = self.count_E[entry_B]
        if bool((count_B == 1).all()):  # the usual case, and repeat_interleave is slow
            return torch.arange(len(entry_B), device=entry_B.device), self.image_P[self.start_E[entry_B]]
        row = torch.repeat_interleave(torch.arange(len(entry_B), device=entry_B.device), count_B)
        within = torch.arange(len(row), device=row.device) - (count_B.cumsum(0) - count_B)[row]
        return row, self.image_P[self.start_E[entry_B][row] + within]


def own_pairs(owner_T: Tensor) -> PositivePairs:
    """Every caption is right for its own image only."""
    every_T = torch.arange(len(owner_T), device=owner_T.device)
    return PositivePairs(entry_T=every_T, start_E=every_T, count_E=torch.ones_like(every_T), image_P=owner_T)


def same_text_pairs(owner_T: Tensor, text_T: Tensor) -> PositivePairs:
    """Every caption is right for all images that own the same string."""
    pairs = torch.unique(torch.stack([text_T, owner_T], dim=1), dim=0)
    count_E = torch.bincount(pairs[:, 0])
    return PositivePairs(entry_T=text_T, start_E=count_E.cumsum(0) - count_E, count_E=count_E, image_P=pairs[:, 1])


class Best:
    """The highest score seen so far per query, and the lowest item index that has it."""

    def __init__(self, n: int, device: torch.device) -> None:
        self.score_Q = torch.full((n,), _NEVER, device=device)
        self.item_Q = torch.full((n,), _NONE, dtype=torch.int64, device=device)

    def offer(self, score_Q: Tensor, item_Q: Tensor) -> None:
        """Take over what is higher, or equal at a lower index; a score of -inf is no offer."""
        wins_Q = (score_Q > self.score_Q) | ((score_Q == self.score_Q) & (item_Q < self.item_Q))
        self.score_Q = torch.where(wins_Q, score_Q, self.score_Q)
        self.item_Q = torch.where(wins_Q, item_Q, self.item_Q)


class QueryTable:
    """Counts and bests of all queries of one direction."""

    def __init__(self, n: int, device: torch.device) -> None:
        self.above_Q = torch.zeros(n, dtype=torch.int64, device=device)
        self.tied_Q = torch.zeros_like(self.above_Q)
        self.before_Q = torch.zeros_like(self.above_Q)
        self.positive = Best(n, device)
        self.foreign = Best(n, device)

    def columns(self) -> tuple[Tensor, ...]:
        """rank, rank if ties are lost, rank if won (int32), score, best foreign item, its score; on the CPU."""
        won_Q = 1 + self.above_Q
        ranks = ((won_Q + self.before_Q).int(), (won_Q + self.tied_Q).int(), won_Q.int())
        rest = (self.positive.score_Q, self.foreign.item_Q, self.foreign.score_Q)
        return tuple(column.cpu() for column in (*ranks, *rest))


class _Counter:
    """Counts entries beyond a threshold along a dimension, int64.

    Sums ones in float32, exact up to 2^24 and four times faster than sums of booleans, in memory that is kept: fresh
    pages would cost as much as the comparison.
    """

    def __init__(self) -> None:
        self._ones_BI: Tensor | None = None

    def __call__(self, compare: Callable[..., Tensor], scores_BI: Tensor, threshold: Tensor, dim: int) -> Tensor:
        if self._ones_BI is None or len(self._ones_BI) < len(scores_BI):
            self._ones_BI = torch.empty_like(scores_BI)
        ones_BI = compare(scores_BI, threshold, out=self._ones_BI[: len(scores_BI)])
        return ones_BI.sum(dim).to(torch.int64)


def rank_both(
    blocks: ScoreBlocks, pairs: PositivePairs, n_images: int, n_captions: int, device: torch.device
) -> tuple[QueryTable, QueryTable]:
    """Caption queries and image queries, ranked.

    Raises:
        NumericalError: the second pass computed other scores than the first.
    """
    t2i, i2t, count = QueryTable(n_captions, device), QueryTable(n_images, device), _Counter()
    for block in blocks:
        row, image = pairs.of(block.position_P)
        _rank_captions(t2i, block, row, image, count)
        _best_captions(i2t, block, row, image)
    for block in blocks:
        row, image = pairs.of(block.position_P)
        _check_same_bits(t2i, block, row, image)
        _count_captions(i2t, block, row, image, count)
    return t2i, i2t


def _rank_captions(t2i: QueryTable, block: Block, row: Tensor, image: Tensor, count: _Counter) -> None:
    """Everything about the captions of a block: their rows are complete."""
    scores_BI, position_B = block.t2i_PI, block.position_P
    n_captions, n_images = scores_BI.shape
    score_P = scores_BI[row, image]
    best_B = _reduce(score_P, row, n_captions, _NEVER, "amax")
    is_best_P = score_P == best_B[row]
    first_B = _reduce(image[is_best_P], row[is_best_P], n_captions, n_images, "amin")
    above_B = count(torch.gt, scores_BI, best_B[:, None], dim=1)
    positive_B = torch.bincount(row[is_best_P], minlength=n_captions)
    tied_B = count(torch.ge, scores_BI, best_B[:, None], dim=1) - above_B - positive_B
    t2i.above_Q[position_B], t2i.tied_Q[position_B] = above_B, tied_B
    t2i.positive.score_Q[position_B], t2i.positive.item_Q[position_B] = best_B, first_B
    rows = tied_B.nonzero()[:, 0]
    if len(rows):
        index_I = torch.arange(n_images, device=rows.device)
        before_RI = (scores_BI[rows] == best_B[rows, None]) & (index_I < first_B[rows, None])
        t2i.before_Q[position_B[rows]] = before_RI.sum(1)
    scores_BI[row, image] = _NEVER  # from here on only foreign images
    foreign_B, item_B = scores_BI.max(dim=1)
    t2i.foreign.score_Q[position_B] = foreign_B
    t2i.foreign.item_Q[position_B] = torch.where(foreign_B > _NEVER, item_B, _NONE)
    scores_BI[row, image] = score_P


def _best_captions(i2t: QueryTable, block: Block, row: Tensor, image: Tensor) -> None:
    """Best positive and best foreign caption of every image among those of a block."""
    scores_BI, position_B = block.i2t_PI, block.position_P
    n_images = scores_BI.shape[1]
    score_P = scores_BI[row, image]
    best_I = _reduce(score_P, image, n_images, _NEVER, "amax")
    is_best_P = score_P == best_I[image]
    none = torch.iinfo(torch.int64).max
    first_I = _reduce(position_B[row[is_best_P]], image[is_best_P], n_images, none, "amin")
    i2t.positive.offer(best_I, first_I)
    scores_BI[row, image] = _NEVER
    foreign_I, row_I = scores_BI.max(dim=0)
    i2t.foreign.offer(foreign_I, torch.where(foreign_I > _NEVER, position_B[row_I], none))


def _count_captions(i2t: QueryTable, block: Block, row: Tensor, image: Tensor, count: _Counter) -> None:
    """Captions of a block above, level with, and level but before the best positive caption of every image."""
    scores_BI, position_B = block.i2t_PI, block.position_P
    best_I = i2t.positive.score_Q
    above_I = count(torch.gt, scores_BI, best_I, dim=0)
    is_best_P = scores_BI[row, image] == best_I[image]
    positive_I = torch.bincount(image[is_best_P], minlength=len(best_I))
    tied_I = count(torch.ge, scores_BI, best_I, dim=0) - above_I - positive_I
    i2t.above_Q += above_I
    i2t.tied_Q += tied_I
    images = tied_I.nonzero()[:, 0]
    if len(images):
        before_BR = scores_BI[:, images] == best_I[images]
        before_BR &= position_B[:, None] < i2t.positive.item_Q[images]
        i2t.before_Q[images] += before_BR.sum(0)


def _check_same_bits(t2i: QueryTable, block: Block, row: Tensor, image: Tensor) -> None:
    best_B = _reduce(block.t2i_PI[row, image], row, len(block.position_P), _NEVER, "amax")
    if not torch.equal(best_B, t2i.positive.score_Q[block.position_P]):
        raise NumericalError(
            f"the same {tuple(block.t2i_PI.shape)} product came out differently twice on {best_B.device}",
            "Ranks would be wrong. Use torch.use_deterministic_algorithms(True), or score on the CPU.",
        )


def _reduce(values_P: Tensor, index_P: Tensor, size: int, start: float, how: str) -> Tensor:
    """Minimum or maximum of the values that share an index; `start` where there is none."""
    out = torch.full((size,), start, dtype=values_P.dtype, device=values_P.device)
    return out.scatter_reduce(0, index_P, values_P, how)
