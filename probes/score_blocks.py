"""Caption x image scores in blocks that come out with the same bits every time they are computed.

Ranking needs two passes over scores that are too many to keep, and compares scores for equality. So both passes run the
same products on the same blocks, and equal embeddings (a repeated caption, a duplicate picture) are scored once and
copied: a matmul may round equal rows differently at different places of its output.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mtv.probes.ties import equal_rows


class Block(NamedTuple):
    """Scores of some captions against all images. Valid until the next block; may be overwritten by its user."""

    position_P: Tensor
    """int64, ascending: positions of the captions in canonical order."""
    t2i_PI: Tensor
    """Scores for caption queries."""
    i2t_PI: Tensor
    """Scores for image queries: the same tensor unless the dual softmax tells the directions apart."""


@dataclass(frozen=True, kw_only=True)
class _Groups:
    """Rows without repetition, and how to expand them."""

    rows_UD: Tensor
    """One row per group."""
    inverse_N: Tensor
    """Group of each item."""

    @property
    def repeats(self) -> bool:
        """Whether some item repeats another."""
        return len(self.rows_UD) < len(self.inverse_N)

    @property
    def size_U(self) -> Tensor:
        """Items per group, float64."""
        return torch.bincount(self.inverse_N, minlength=len(self.rows_UD)).double()


def _grouped(x_ND: Tensor) -> _Groups:
    """Groups in order of first appearance: without repeats they are the rows themselves, in their order."""
    first_U, inverse_N = equal_rows(x_ND)
    return _Groups(rows_UD=x_ND if len(first_U) == len(x_ND) else x_ND[first_U], inverse_N=inverse_N)


class ScoreBlocks:
    """Iterate as often as needed; each pass yields the same blocks with the same bits.

    Args:
        images_ID: unit rows, float32.
        captions_TD: unit rows, float32, on the same device, one per caption.
        block: captions per block.
        dual_scale: scale of the dual softmax, None for plain cosines.
    """

    def __init__(
        self,
        images_ID: Tensor,
        captions_TD: Tensor,
        *,
        block: int,
        dual_scale: float | None = None,
    ) -> None:
        self._images = _grouped(images_ID)
        self._texts = _grouped(captions_TD)
        self._block = block
        self._order_T = torch.argsort(self._texts.inverse_N, stable=True)
        sizes = torch.bincount(self._texts.inverse_N, minlength=len(self._texts.rows_UD))
        self._stops = torch.cumsum(sizes, 0).tolist()
        shape = (min(block, len(self._texts.rows_UD)), len(self._images.rows_UD))
        self._buffer = torch.empty(shape, device=images_ID.device, dtype=torch.float32)
        self._scale = dual_scale
        self._caption_lse_J = self._log_sum_over_captions() if dual_scale is not None else None

    def __iter__(self) -> Iterator[Block]:
        for start, scores_UJ in self._products():
            stop = start + len(scores_UJ)
            matrices = self._matrices(scores_UJ)
            begin = self._stops[start - 1] if start else 0
            position_B = self._order_T[begin : self._stops[stop - 1]].sort().values
            for position_P in position_B.split(self._block):
                local_P = self._texts.inverse_N[position_P] - start
                t2i_PI, *rest = [self._expand(m, local_P) for m in matrices]
                yield Block(position_P, t2i_PI, rest[0] if rest else t2i_PI)

    def _products(self) -> Iterator[tuple[int, Tensor]]:
        """First unique text and cosines of each block of unique texts against the unique images."""
        for start in range(0, len(self._texts.rows_UD), self._block):
            rows_BD = self._texts.rows_UD[start : start + self._block]
            yield start, torch.mm(rows_BD, self._images.rows_UD.T, out=self._buffer[: len(rows_BD)])

    def _expand(self, scores_UJ: Tensor, local_P: Tensor) -> Tensor:
        """Copy the scores of repeated texts and images; no copy where nothing repeats."""
        if self._texts.repeats:
            scores_UJ = scores_UJ.index_select(0, local_P)
        return scores_UJ.index_select(1, self._images.inverse_N) if self._images.repeats else scores_UJ

    def _matrices(self, scores_UJ: Tensor) -> tuple[Tensor, ...]:
        if self._scale is None:
            return (scores_UJ,)
        assert self._caption_lse_J is not None
        logits_UJ = self._scale * scores_UJ
        image_lse_U = _weighted_lse(logits_UJ, self._images.size_U[None], dim=1)
        over_captions_UJ = (logits_UJ - self._caption_lse_J).exp()
        return scores_UJ * over_captions_UJ, scores_UJ * (logits_UJ - image_lse_U[:, None]).exp()

    def _log_sum_over_captions(self) -> Tensor:
        """Logarithm of the sum over all captions of exp(scale * score), per unique image."""
        assert self._scale is not None
        total_J: Tensor | None = None
        for start, scores_UJ in self._products():
            size_U1 = self._texts.size_U[start : start + len(scores_UJ), None]
            part_J = _weighted_lse(self._scale * scores_UJ, size_U1, dim=0).double()
            total_J = part_J if total_J is None else torch.logaddexp(total_J, part_J)
        assert total_J is not None
        return total_J.float()


def _weighted_lse(logits_UJ: Tensor, weights: Tensor, dim: int) -> Tensor:
    """log sum(weights * exp(logits)) along `dim`, in float64 inside: equal rows weigh as often as they occur."""
    return (logits_UJ.double() + weights.log()).logsumexp(dim).float()
