"""Image-text retrieval: the rank of the right item for every caption and every image, without a score matrix.

Scores come in blocks of captions x images (`score_blocks`), twice, and are ranked as they pass (`retrieval_passes`).
The score of a positive is taken from the block: recomputed as an elementwise product it would differ in the last bit,
and many positives would lose to themselves.

Directions: t2i has caption queries and ranks images, i2t has image queries and ranks captions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict

import numpy as np
import torch
from torch import Tensor

from mtv.errors import DataError, UsageError
from mtv.probes.precision import fp32_matmul, l2_normalize
from mtv.probes.retrieval_passes import own_pairs, rank_both, same_text_pairs
from mtv.probes.score_blocks import ScoreBlocks
from mtv.probes.ties import TieBounds, share_within, tie_bounds

Positives = Literal["own", "same_text"]
Score = Literal["cosine", "dual_softmax"]


@dataclass(frozen=True, kw_only=True)
class RetrievalRanks:
    """Per-query outcome, all on the CPU: T captions in canonical order, I images. Ranks are int32, 1 = best."""

    t2i_rank_T: Tensor
    """1 + images that score higher than the caption's best positive + equal foreign ones at a lower position."""
    t2i_rank_lo_T: Tensor
    """The rank if all ties with foreign images are lost."""
    t2i_rank_hi_T: Tensor
    """The rank if all are won."""
    t2i_score_T: Tensor
    """float32: score of the best positive image."""
    t2i_foreign_T: Tensor
    """int64: the first of the best foreign images, -1 where every image is a positive."""
    t2i_foreign_score_T: Tensor
    """float32: its score, -inf where there is none."""
    i2t_rank_I: Tensor
    """1 + foreign captions that score higher than the first best positive + equal ones before it."""
    i2t_rank_lo_I: Tensor
    """The rank if all ties with foreign captions are lost."""
    i2t_rank_hi_I: Tensor
    """The rank if all are won."""
    i2t_score_I: Tensor
    """float32: score of the best positive caption."""
    i2t_foreign_I: Tensor
    """int64: the first of the best foreign captions, -1 where every caption is a positive."""
    i2t_foreign_score_I: Tensor
    """float32: its score, -inf where there is none."""


class RecallSummary(TypedDict):
    """Recalls in percent. t2i: own image among the k first; i2t: any own caption among the k first."""

    t2i_r1: float
    t2i_r5: float
    t2i_r10: float
    t2i_medr: float
    """Median rank of caption queries."""
    i2t_r1: float
    i2t_r5: float
    i2t_r10: float
    i2t_medr: float
    """Median rank of image queries."""
    rsum: float
    """Sum of the six recalls."""
    ties: dict[str, TieBounds]
    """Tied queries and bounds of `t2i_r1` and `i2t_r1`."""


@torch.no_grad()
@fp32_matmul()
def rank_retrieval(
    images_ID: Tensor,
    captions_TD: Tensor,
    owner_T: Tensor,
    *,
    unique_texts: Tensor | None = None,
    positives: Positives = "own",
    score: Score = "cosine",
    scale: float | None = None,
    block: int = 2048,
    image_ids: Sequence[str] | None = None,
    caption_ids: Sequence[str] | None = None,
) -> RetrievalRanks:
    """Ranks in both directions, scores in float32, the lower position wins ties.

    Args:
        images_ID: image features, not normalised, any floating dtype and device; canonical order.
        captions_TD: text features: one row per caption, or with `unique_texts` one per distinct string.
        owner_T: integers, image of each caption.
        unique_texts: T integers, row of `captions_TD` of each caption, for strings that were encoded once. Rows that
            are bitwise equal score equally in any case.
        positives: `own`: a caption's image, an image's captions. `same_text`: every image that owns the same string
            (needs `unique_texts`).
        score: `cosine`; or `dual_softmax`: each cosine times the softmax over all queries of scale * cosine (for t2i
            over the captions, for i2t over the images), which looks at all queries at once and is not comparable.
        scale: of the dual softmax; required there, refused elsewhere.
        block: captions per block. Ranks whose score gaps exceed 1e-6 do not depend on it.
        image_ids: I names for error messages.
        caption_ids: names of the rows of `captions_TD` for error messages.

    Raises:
        UsageError: shapes or options that do not fit.
        DataError: an image without caption, a caption whose image does not exist.
        NumericalError: NaN or infinity, naming the first sample; scores that a second pass does not reproduce.
    """
    _check_options(images_ID, captions_TD, owner_T, unique_texts, block)
    if (score == "dual_softmax") != (scale is not None):
        raise UsageError(f"rank_retrieval: score={score!r} with scale={scale}; dual_softmax needs a scale, cosine none")
    device = images_ID.device
    owner_T = owner_T.to(device, torch.int64)
    _check_owners(owner_T, len(images_ID), image_ids)
    text_T = unique_texts.to(device, torch.int64) if unique_texts is not None else None
    if positives == "own":
        pairs = own_pairs(owner_T)
    elif text_T is not None:
        pairs = same_text_pairs(owner_T, text_T)
    else:
        raise UsageError("rank_retrieval: positives='same_text' needs unique_texts, which say which strings are equal")
    units_ID = l2_normalize(images_ID, ids=image_ids, what="image features")
    units_TD = l2_normalize(captions_TD.to(device), ids=caption_ids, what="caption features")
    blocks = ScoreBlocks(units_ID, units_TD if text_T is None else units_TD[text_T], block=block, dual_scale=scale)
    t2i, i2t = rank_both(blocks, pairs, len(images_ID), len(owner_T), device)
    names = ("rank", "rank_lo", "rank_hi", "score", "foreign", "foreign_score")
    fields = {f"t2i_{name}_T": column for name, column in zip(names, t2i.columns(), strict=True)}
    fields |= {f"i2t_{name}_I": column for name, column in zip(names, i2t.columns(), strict=True)}
    return RetrievalRanks(**fields)


def _check_options(images: Tensor, captions: Tensor, owner_T: Tensor, unique: Tensor | None, block: int) -> None:
    shapes = f"images {tuple(images.shape)}, captions {tuple(captions.shape)}, owners {tuple(owner_T.shape)}"
    if images.ndim != 2 or captions.ndim != 2 or images.shape[1] != captions.shape[1]:
        raise UsageError(f"rank_retrieval: need I,D images and T,D captions of one width, got {shapes}")
    per_caption = captions if unique is None else unique
    if owner_T.ndim != 1 or len(owner_T) == 0 or len(owner_T) != len(per_caption):
        raise UsageError(f"rank_retrieval: need one owner per caption and at least one caption, got {shapes}")
    if unique is not None and not 0 <= int(unique.min()) <= int(unique.max()) < len(captions):
        raise UsageError(
            f"rank_retrieval: unique_texts run from {int(unique.min())} to {int(unique.max())}, "
            f"but there are {len(captions)} text features"
        )
    if block < 1:
        raise UsageError(f"rank_retrieval: block={block} must be at least 1")


def _check_owners(owner_T: Tensor, n_images: int, image_ids: Sequence[str] | None) -> None:
    bad = ((owner_T < 0) | (owner_T >= n_images)).nonzero()
    if len(bad):
        caption = int(bad[0])
        raise DataError(f"caption {caption} belongs to image {int(owner_T[caption])}, but there are {n_images} images")
    empty = (torch.bincount(owner_T, minlength=n_images) == 0).nonzero()
    if len(empty):
        image = int(empty[0])
        name = repr(image_ids[image]) if image_ids is not None else str(image)
        raise DataError(
            f"image {name} has no caption ({len(empty)} of {n_images} images have none)",
            "Leave such images out of the set, or complete the caption file.",
        )


def recall_summary(ranks: RetrievalRanks) -> RecallSummary:
    """Recalls, median ranks, their sum and the tie bounds of the two headlines."""
    t2i = [share_within(ranks.t2i_rank_T, k) for k in (1, 5, 10)]
    i2t = [share_within(ranks.i2t_rank_I, k) for k in (1, 5, 10)]
    return RecallSummary(
        t2i_r1=t2i[0],
        t2i_r5=t2i[1],
        t2i_r10=t2i[2],
        t2i_medr=float(np.median(ranks.t2i_rank_T.numpy())),
        i2t_r1=i2t[0],
        i2t_r5=i2t[1],
        i2t_r10=i2t[2],
        i2t_medr=float(np.median(ranks.i2t_rank_I.numpy())),
        rsum=sum(t2i) + sum(i2t),
        ties={
            "t2i_r1": tie_bounds(ranks.t2i_rank_lo_T, ranks.t2i_rank_hi_T),
            "i2t_r1": tie_bounds(ranks.i2t_rank_lo_I, ranks.i2t_rank_hi_I),
        },
    )
